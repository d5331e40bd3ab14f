"""A session's turn over grpc.aio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deepseek_grpc._call import CallOptions, ContentWatch
from deepseek_grpc._session.client import DEADLINE_GRACE, ClientTurn, Parent, Work
from deepseek_grpc.errors import CancelledByPeerError, DeadlineExceededError, DeepSeekError

if TYPE_CHECKING:
    from deepseek_grpc._codec.observe import Observation
    from deepseek_grpc._transport.aio_leg import Leg
    from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["Turn"]


class Turn(ClientTurn):
    """One generation or completion within a session, with the face of `Messages` when it is streamed."""

    __slots__ = (
        "_cancelled",
        "_timeout",
        "_until",
        "_waiter",
        "_watch",
        "call",
        "leg",
        "observation",
        "resumes",
        "token",
    )

    def __init__(self, request: Work, call: CallOptions, *, stream: bool, parent: Parent | None) -> None:
        super().__init__(request, call.request_id, stream=stream, parent=parent)
        self._waiter: asyncio.Future[None] | None = None
        self._watch = ContentWatch(call.timeouts) if stream else None
        self._timeout: DeepSeekError | None = None
        self._cancelled = False
        total = call.total
        # The gateway ends the turn at its deadline; this is for a gateway that can't.
        self._until = None if total is None else call.began + total + DEADLINE_GRACE
        self.call = call
        self.leg: Leg | None = None
        self.resumes = 0
        self.token: str | None = None
        """What it was started with last."""
        self.observation: Observation | None = None

    @property
    def resumed(self) -> int:
        """How often its connection was taken up again."""
        return 0 if self.leg is None else self.leg.resumes - self.resumes

    @property
    def session_id(self) -> str:
        """The gateway's id of the session that it is a turn of."""
        return "" if self.leg is None else self.leg.machine.session_id

    def deadline_ms(self) -> int:
        """Returns the milliseconds that it has left."""
        until = self._until
        return 0 if until is None else max(1, round((until - DEADLINE_GRACE - time.monotonic()) * 1000))

    def wake(self) -> None:
        """Tells whoever waits that something came, or that it is over."""
        if self.observation is not None:
            self._tell(self.observation)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def _tell(self, observation: Observation) -> None:
        """Fills the turn's record in; when the turn is over it is, whether anybody reads or not."""
        if self.chunks:
            observation.chunks(self.chunks)
        if self.ended:
            if self.response is not None:
                observation.response(self.response)
            error = self._timeout if self._timeout is not None or self._cancelled else self.error
            observation.end(error, cancelled=self._cancelled)

    def left(self) -> float:
        """Returns the seconds until one of its limits may be over."""
        left = float("inf") if self._until is None else self._until - time.monotonic()
        watch = self._watch
        return min(left, watch.check(time.monotonic())) if watch is not None and watch.active else left

    def check(self) -> float:
        """Ends it when a limit is over; returns the seconds until that may be so."""
        left = self.left()
        if left > 0:
            return left
        if self._until is not None and time.monotonic() >= self._until:
            self._timeout = DeadlineExceededError(
                f"no answer within {self.call.total:g} s (Timeouts.total)", request_id=self.request_id
            )
        elif self._watch is not None:
            self._timeout = self._watch.error(self.request_id)
        self._stop()
        return float("inf")

    async def _wait(self) -> None:
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            await waiter
        except asyncio.CancelledError:
            self.cancel()
            raise

    def content(self) -> None:
        """Tells the watch that the last batch had content in it."""
        if self._watch is not None:
            self._watch.content()

    def pause(self) -> None:
        """Tells the watch that there was no content in the last batch."""
        if self._watch is not None:
            self._watch.pause(time.monotonic())

    async def read(self) -> Sequence[pb.GenerateChunk] | None:
        """Returns what has come since, or None at the end; raises a DeepSeekError."""
        if not self.chunks and not self.ended:
            if self._watch is not None:
                self._watch.waiting(time.monotonic())
            while not self.chunks and not self.ended:
                await self._wait()
        if self.chunks and not self._cancelled:
            chunks, self.chunks = self.chunks, ()
            if self.owed and self.leg is not None:
                self.leg.taken(self)
            return chunks
        self._raise()
        return None

    async def result(self) -> Any:
        """Returns the whole answer; raises a DeepSeekError."""
        while not self.ended:
            await self._wait()
        self._raise()
        if self.response is None:
            raise CancelledByPeerError("the turn was cancelled", request_id=self.request_id)
        return self.response

    def _raise(self) -> None:
        if self._timeout is not None:
            raise self._timeout
        if self.error is not None and not self._cancelled:
            raise self.error

    def cancel(self) -> None:
        """Ends the turn and leaves the session up; from any task of its event loop."""
        if not self.ended:
            self._cancelled = True
            self._stop()

    def _stop(self) -> None:
        if self.leg is not None:
            self.leg.cancel(self)
        self.ended = True
        self.wake()

    async def aclose(self) -> None:
        """Cancels the turn unless it is over."""
        self.cancel()
