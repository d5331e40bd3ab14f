"""Places for calls: so many at a time, the others wait for their turn (`max_concurrency`)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable

from deepseek_grpc.errors import DeepSeekError

__all__ = ["AsyncPlaces", "Places"]


class AsyncPlaces:
    """Places within one event loop, given in the order in which they were asked for."""

    __slots__ = ("_free", "_waiting")

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Takes a place if one is free and nobody waits; returns whether it did."""
        if self._free and not self._waiting:
            self._free -= 1
            return True
        return False

    def ask(self) -> asyncio.Future[None]:
        """Returns a future that is done when the place is the caller's; `withdraw` it if it isn't wanted any more."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.take():
            future.set_result(None)
        else:
            self._waiting.append(future)
        return future

    def withdraw(self, future: asyncio.Future[None]) -> None:
        """Takes a question back, or the place that answered it."""
        if future.done() and not future.cancelled():
            self.give()
        else:
            future.cancel()

    def shut(self, error: DeepSeekError) -> None:
        """Ends the waiting with an error."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)
                future.exception()  # it may be that nobody asks

    def give(self) -> None:
        """Gives a place back, to whoever has waited longest."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        self._free += 1


class _Question:
    """Somebody who asks for a place."""

    __slots__ = ("answered",)

    def __init__(self) -> None:
        self.answered = False


class Places:
    """Places for threads, given in the order in which they were asked for."""

    __slots__ = ("_changed", "_free", "_waiting")

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[_Question] = deque()
        self._changed = threading.Condition()

    def take(self) -> bool:
        """Takes a place if one is free and nobody waits; returns whether it did."""
        with self._changed:
            if self._free and not self._waiting:
                self._free -= 1
                return True
            return False

    def wait(self, seconds: float | None, given_up: Callable[[], bool]) -> bool:
        """Waits for a place; returns whether it got one before the time was over or it was given up."""
        if self.take():
            return True
        until = None if seconds is None else time.monotonic() + seconds
        mine = _Question()
        with self._changed:
            self._waiting.append(mine)
            self._hand_out()
            try:
                while not mine.answered:
                    left = None if until is None else until - time.monotonic()
                    if given_up() or (left is not None and left <= 0):
                        self._waiting.remove(mine)
                        return False
                    self._changed.wait(left)
            except BaseException:
                if mine.answered:
                    self._free += 1
                    self._hand_out()
                else:
                    self._waiting.remove(mine)
                raise
            return True

    def wake(self) -> None:
        """Has those who wait look whether they have given up."""
        with self._changed:
            self._changed.notify_all()

    def give(self) -> None:
        """Gives a place back, to whoever has waited longest."""
        with self._changed:
            self._free += 1
            self._hand_out()

    def _hand_out(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            self._waiting.popleft().answered = True
            self._changed.notify_all()
