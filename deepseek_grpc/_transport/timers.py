"""Callbacks at given times, from one thread for all streams of the process."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable

__all__ = ["Timer", "Timers", "timers"]


class Timer:
    """A callback that waits for its time."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback


class Timers:
    """Calls back at given times, from one thread for all streams of the process."""

    def __init__(self) -> None:
        self._reset()
        # A fork takes no threads along, and a lock that one of them held stays locked for good.
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._cancelled = 0
        self._running = False

    def at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Calls back at `when`, in `time.monotonic()`'s seconds; returns what `cancel` takes."""
        timer = Timer(callback)
        with self._condition:
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="deepseek-grpc-timers", daemon=True).start()
            heapq.heappush(self._heap, (when, next(self._order), timer))
            if self._heap[0][2] is timer:
                self._condition.notify()
        return timer

    def cancel(self, timer: Timer) -> None:
        """Forgets a callback, if it hasn't been called."""
        with self._condition:
            if timer.callback is None:
                return
            timer.callback = None
            self._cancelled += 1
            # Taking one out of the middle costs as much as taking out all, so it waits until half of them are to go.
            if self._cancelled > 32 and self._cancelled * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if entry[2].callback is not None]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._heap or self._heap[0][0] > time.monotonic():
                    self._condition.wait(self._heap[0][0] - time.monotonic() if self._heap else None)
                _, _, timer = heapq.heappop(self._heap)
                callback, timer.callback = timer.callback, None
                if callback is None:
                    self._cancelled -= 1
                    continue
            try:
                callback()
            except Exception:
                # The thread serves every stream of the process.
                import logging

                logging.getLogger(__name__).exception("a stream's timer failed")


timers = Timers()
