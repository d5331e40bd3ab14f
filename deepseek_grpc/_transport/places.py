"""Places for calls: so many at a time, the others wait for their turn (`max_concurrency`)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable

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

    def give(self) -> None:
        """Gives a place back, to whoever has waited longest."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return
        self._free += 1


class Places:
    """Places for threads."""

    __slots__ = ("_changed", "_free")

    def __init__(self, count: int) -> None:
        self._free = count
        self._changed = threading.Condition()

    def take(self) -> bool:
        """Takes a place if one is free; returns whether it did."""
        with self._changed:
            if self._free:
                self._free -= 1
                return True
            return False

    def wait(self, seconds: float | None, given_up: Callable[[], bool]) -> bool:
        """Waits for a place; returns whether it took one before the time was over or it was given up."""
        until = None if seconds is None else time.monotonic() + seconds
        with self._changed:
            while not self._free:
                left = None if until is None else until - time.monotonic()
                if given_up() or (left is not None and left <= 0):
                    self._changed.notify()  # it may have been woken in the place of somebody else
                    return False
                self._changed.wait(left)
            self._free -= 1
            return True

    def wake(self) -> None:
        """Has those who wait look whether they have given up."""
        with self._changed:
            self._changed.notify_all()

    def give(self) -> None:
        """Gives a place back."""
        with self._changed:
            self._free += 1
            self._changed.notify()
