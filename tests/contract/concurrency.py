"""Does several things at once: with tasks, and under the mirror's names with threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

__all__ = ["gather", "gather_threads", "start_task", "start_thread"]

T = TypeVar("T")


async def gather(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Runs the calls at the same time; returns what each returned or raised, in order."""
    return await asyncio.gather(*(call() for call in calls), return_exceptions=True)


def gather_threads(*calls: Callable[[], Any]) -> list[Any]:
    """Runs the calls at the same time; returns what each returned or raised, in order."""
    threads = [start_thread(call) for call in calls]
    return [thread.future.exception(30) or thread.future.result() for thread in threads]


class start_task(Generic[T]):  # noqa: N801 - reads as a function
    """Starts one call beside the test."""

    def __init__(self, call: Callable[[], Awaitable[T]]) -> None:
        self._task = asyncio.ensure_future(call())

    async def result(self) -> T:
        """Waits for it; returns what it returned or raises what it raised."""
        return await self._task


class start_thread(Generic[T]):  # noqa: N801 - reads as a function
    """Starts one call beside the test."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.future: Future[T] = Future()
        threading.Thread(target=self._run, args=(call,), daemon=True).start()

    def _run(self, call: Callable[[], T]) -> None:
        try:
            self.future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            self.future.set_exception(error)

    def result(self) -> T:
        """Waits for it; returns what it returned or raises what it raised."""
        return self.future.result(30)
