"""Drives a session over grpc.aio: one task reads, one writes what is ready."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from deepseek_grpc._call import CallOptions, ContentWatch
from deepseek_grpc._session.client import DEADLINE_GRACE, ClientSession, ClientTurn, deadline_ms, restated
from deepseek_grpc._transport.aio import Link
from deepseek_grpc.errors import (
    CancelledByPeerError,
    ClosedError,
    DeadlineExceededError,
    DeepSeekError,
    ServiceUnavailableError,
)

if TYPE_CHECKING:
    from deepseek_grpc._codec.observe import Observation
    from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["SessionDriver", "Turn", "open_session"]


def open_session(link: Link, service: Callable[[Any], Any], name: str, call: CallOptions) -> SessionDriver:
    """Opens a session; raises AuthenticationError when there is no token."""
    token = link.token()
    wire = link.room().wire
    rpc = wire.method(service, name)(
        metadata=link.sent(call, token),
        credentials=link.own_credentials(token),
        wait_for_ready=call.wait_for_ready,
    )
    wire.track(rpc)
    return SessionDriver(link, rpc, (service, name), token, call.request_id)


_WRITE_FAILED = "Internal error from Core"


def _now(coroutine: Any) -> Any:
    """Returns the result of a coroutine that doesn't wait."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    return None


class SessionDriver:
    """Runs a session: one task reads, one writes what is ready."""

    def __init__(self, link: Link, rpc: Any, method: tuple[Any, str], token: str | None, request_id: str) -> None:
        self._link = link
        self._on_close = link.room().on_close
        self._rpc = rpc
        self._method = method
        self._request_id = request_id
        self._machine = ClientSession(max_message_bytes=link.config.max_message_bytes)
        self._token = token
        self._fetch: CallOptions | None = None
        self._loop = asyncio.get_running_loop()
        self._writable: asyncio.Future[None] | None = None
        self._error: DeepSeekError | None = None
        self._status: grpc.aio.AioRpcError | None = None
        self._on_close.append(self.aclose)
        rpc.add_done_callback(self._settle)
        self._tasks = (self._loop.create_task(self._read()), self._loop.create_task(self._write()))

    @property
    def session_id(self) -> str:
        """The gateway's id of the session; empty until it has answered."""
        return self._machine.session_id

    def start(self, request: pb.GenerateRequest, call: CallOptions, *, stream: bool) -> Turn:
        """Starts a turn; raises what ended the session if it is over, and what says that this one can't begin."""
        if self._error is not None:
            raise restated(self._error, type(self._error), call.request_id, "the session is over: ")
        token = self._link.token()
        if token is None:
            self._fetch = None if self._link.source is None else call
        elif token != self._token:
            self._renew(token)
        limit = deadline_ms(call.left(), call.request_id)
        state = self._machine.start(request, stream=stream, deadline_ms=limit)
        turn = Turn(self, state, call, self._link.observe(*self._method, request, call), stream=stream)
        self._wake()
        return turn

    def _renew(self, token: str) -> None:
        self._token = token
        self._machine.renew(token)

    def cancel(self, turn: ClientTurn) -> None:
        """Ends a turn at both ends."""
        self._machine.cancel(turn)
        self._wake()

    def _wake(self) -> None:
        writable = self._writable
        if writable is not None:
            self._writable = None
            if not writable.done():
                writable.set_result(None)

    async def _write(self) -> None:
        write, take = self._rpc.write, self._machine.take
        try:
            while True:
                if self._fetch is not None:
                    await self._fetch_token(self._fetch)
                batch = take()
                if batch is None:
                    self._writable = self._loop.create_future()
                    await self._writable
                else:
                    await write(batch)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the reader sees why

    async def _fetch_token(self, call: CallOptions) -> None:
        """Gets the token that a turn was started without; without one the gateway refuses the turn."""
        self._fetch = None
        with suppress(DeepSeekError):
            token = await self._link.fetch(call)
            if token is not None and token != self._token:
                self._renew(token)

    async def _read(self) -> None:
        error: DeepSeekError = ServiceUnavailableError("the gateway closed the session", request_id=self._request_id)
        read, receive = self._rpc.read, self._machine.receive
        try:
            while (message := await read()) is not grpc.aio.EOF:
                for turn in receive(message):
                    if turn.wake is not None:
                        turn.wake()
        except grpc.aio.AioRpcError as failure:
            error = self._link.error(await self._cause(failure), self._request_id)
            self._link.renews(error, self._token)  # the next session has another
        except asyncio.CancelledError:
            error = ClosedError("the session was closed", request_id=self._request_id)
        except DeepSeekError as failure:
            error = failure
            self._rpc.cancel()
        finally:
            self._tasks[1].cancel()
            self._fail(error)

    def _settle(self, rpc: Any) -> None:
        """Keeps the status that the gateway ended the stream with.

        A write that fails because the stream has ended makes grpc.aio put INTERNAL in that status's place, for good or
        until it arrives. Its accessors are coroutines that don't wait once there is a status.
        """
        details = _now(rpc.details())
        if self._status is None and details != _WRITE_FAILED:
            self._status = grpc.aio.AioRpcError(
                _now(rpc.code()), grpc.aio.Metadata(), _now(rpc.trailing_metadata()), details
            )

    async def _cause(self, failure: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """Returns what really ended the stream."""
        for _ in range(100):
            if failure.details() != _WRITE_FAILED:
                break
            await asyncio.sleep(0.01)
            failure = self._status or failure
        return failure

    def _fail(self, error: DeepSeekError) -> None:
        if self._error is None:
            self._error = error
        for turn in self._machine.lost(self._error):
            if turn.wake is not None:
                turn.wake()

    async def aclose(self) -> None:
        """Closes the session; turns that are not over end in ClosedError."""
        if self.aclose in self._on_close:
            self._on_close.remove(self.aclose)
        if self._error is None:
            self._fail(ClosedError("the session was closed", request_id=self._request_id))
        self._rpc.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Turn:
    """One generation within a session, with the face of `Messages` when it is streamed."""

    __slots__ = (
        "_call",
        "_cancelled",
        "_deadline",
        "_driver",
        "_loop",
        "_observation",
        "_state",
        "_timeout",
        "_timer",
        "_waiter",
        "_watch",
    )

    def __init__(
        self,
        driver: SessionDriver,
        state: ClientTurn,
        call: CallOptions,
        observation: Observation | None,
        *,
        stream: bool,
    ) -> None:
        self._driver = driver
        self._observation = observation
        self._state = state
        self._call = call
        self._loop = driver._loop  # noqa: SLF001
        self._waiter: asyncio.Future[None] | None = None
        self._watch = ContentWatch(call.timeouts) if stream else None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._timeout: DeepSeekError | None = None
        self._cancelled = False
        state.wake = self._wake
        total = call.total
        if total is not None:
            # The gateway ends the turn at its deadline; this is for a gateway that can't.
            left = call.began + total - time.monotonic()
            self._deadline = self._loop.call_later(left + DEADLINE_GRACE, self._overdue)
        if self._watch is not None and self._watch.active:
            self._check()

    def _wake(self) -> None:
        if self._observation is not None:
            self._tell(self._observation)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def _tell(self, observation: Observation) -> None:
        """Fills the turn's record in; when the turn is over it is, whether anybody reads or not."""
        state = self._state
        if state.chunks:
            observation.chunks(state.chunks)
        if state.ended:
            if state.response is not None:
                observation.response(state.response)
            error = self._timeout if self._timeout is not None or self._cancelled else state.error
            observation.end(error, cancelled=self._cancelled)

    def _check(self) -> None:
        if self._state.ended or self._watch is None:
            return
        wait = self._watch.check(self._loop.time())
        if wait > 0:
            self._timer = self._loop.call_later(wait, self._check)
        else:
            self._timeout = self._watch.error(self._call.request_id)
            self._driver.cancel(self._state)
            self._wake()

    async def _wait(self) -> None:
        waiter = self._waiter = self._loop.create_future()
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
            self._watch.pause(self._loop.time())

    async def read(self) -> Sequence[pb.GenerateChunk] | None:
        """Returns what has come since, or None at the end; raises a DeepSeekError."""
        state = self._state
        if self._watch is not None and not state.chunks:
            self._watch.waiting(self._loop.time())
        while not state.chunks and not state.ended:
            await self._wait()
        if state.chunks and not self._cancelled:
            chunks, state.chunks = state.chunks, []
            return chunks
        self._end()
        return None

    async def result(self) -> pb.GenerateResponse:
        """Returns the whole answer; raises a DeepSeekError."""
        state = self._state
        while not state.ended:
            await self._wait()
        self._end()
        if state.response is None:
            raise CancelledByPeerError("the turn was cancelled", request_id=self._call.request_id)
        return state.response

    def _overdue(self) -> None:
        if self._state.ended:
            return
        self._timeout = DeadlineExceededError(
            f"no answer within {self._call.total:g} s (Timeouts.total)", request_id=self._call.request_id
        )
        self._driver.cancel(self._state)
        self._wake()

    def _end(self) -> None:
        self._stop_timers()
        if self._timeout is not None:
            raise self._timeout
        if self._state.error is not None and not self._cancelled:
            raise self._state.error

    def cancel(self) -> None:
        """Ends the turn and leaves the session up; from any task of its event loop."""
        if not self._state.ended:
            self._cancelled = True
            self._driver.cancel(self._state)
            self._wake()

    async def aclose(self) -> None:
        """Cancels the turn unless it is over."""
        self.cancel()
        self._stop_timers()

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._deadline):
            if timer is not None:
                timer.cancel()
