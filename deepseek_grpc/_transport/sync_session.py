"""Drives a session over grpc's threads: one thread reads; gRPC's own thread writes what is ready."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import grpc

from deepseek_grpc._call import CallOptions, ContentWatch
from deepseek_grpc._session.client import DEADLINE_GRACE, ClientSession, ClientTurn, deadline_ms, restated
from deepseek_grpc._transport.sync import Link
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
    return SessionDriver(link, (service, name), call)


class SessionDriver:
    """Runs a session: one thread reads; gRPC's own thread writes what is ready."""

    def __init__(self, link: Link, method: tuple[Callable[[Any], Any], str], call: CallOptions) -> None:
        self._link = link
        self._method = method
        self._request_id = call.request_id
        self._machine = ClientSession(max_message_bytes=link.config.max_message_bytes)
        self._token = link.token()
        self._wire = link.wire()
        self._lock = threading.Lock()
        self._writable = threading.Condition(self._lock)
        self._error: DeepSeekError | None = None
        try:
            self._rpc = self._wire.method(*method)(
                self._batches(),
                metadata=link.sent(call, self._token),
                credentials=link.own_credentials(self._token),
                wait_for_ready=call.wait_for_ready,
            )
        except BaseException as error:
            self._wire.leave()
            if isinstance(error, ValueError) and link.closed:  # what a closed channel raises
                raise ClosedError("the client is closed", request_id=call.request_id) from None
            raise
        self._reader = threading.Thread(target=self._read, name="deepseek-grpc-session", daemon=True)
        self._reader.start()

    @property
    def session_id(self) -> str:
        """The gateway's id of the session; empty until it has answered."""
        return self._machine.session_id

    def start(self, request: pb.GenerateRequest, call: CallOptions, *, stream: bool) -> Turn:
        """Starts a turn; raises what ended the session if it is over, and what says that this one can't begin."""
        token = self._link.fetch(call)
        limit = deadline_ms(call.left(), call.request_id)
        with self._lock:
            if self._error is not None:
                raise restated(self._error, type(self._error), call.request_id, "the session is over: ")
            if token is not None and token != self._token:
                self._token = token
                self._machine.renew(token)
            state = self._machine.start(request, stream=stream, deadline_ms=limit)
            turn = Turn(self, state, call, self._link.observe(*self._method, request, call), stream=stream)
            self._writable.notify()
        return turn

    def cancel(self, turn: ClientTurn) -> None:
        """Ends a turn at both ends."""
        with self._lock:
            self._machine.cancel(turn)
            self._writable.notify()
        if turn.wake is not None:
            turn.wake()

    def take(self, turn: ClientTurn) -> list[pb.GenerateChunk]:
        """Takes what has come for a turn; under the lock, because the reader may be adding to it."""
        with self._lock:
            chunks, turn.chunks = turn.chunks, []
        return chunks

    def _batches(self) -> Iterator[pb.SessionRequest]:
        """Yields what is ready; gRPC asks for the next batch when the last one is written."""
        while True:
            with self._lock:
                while (batch := self._machine.take()) is None:
                    if self._error is not None:
                        return
                    self._writable.wait()
            yield batch

    def _read(self) -> None:
        error: DeepSeekError = ServiceUnavailableError("the gateway closed the session", request_id=self._request_id)
        try:
            for message in self._rpc:
                with self._lock:
                    changed = self._machine.receive(message)
                for turn in changed:
                    if turn.wake is not None:
                        turn.wake()
        except grpc.RpcError as failure:
            error = self._link.error(failure, self._request_id)
            self._link.renews(error, self._token)  # the next session has another
        except DeepSeekError as failure:
            error = failure
            self._rpc.cancel()
        self._fail(error)
        self._wire.leave()

    def _fail(self, error: DeepSeekError) -> None:
        with self._lock:
            if self._error is None:
                self._error = error
            lost = self._machine.lost(self._error)
            self._writable.notify_all()
        for turn in lost:
            if turn.wake is not None:
                turn.wake()

    def close(self) -> None:
        """Closes the session; turns that are not over end in ClosedError."""
        self._fail(ClosedError("the session was closed", request_id=self._request_id))
        self._rpc.cancel()
        self._reader.join()


class Turn:
    """One generation within a session, with the face of `Messages` when it is streamed."""

    __slots__ = (
        "_call",
        "_cancelled",
        "_deadline",
        "_driver",
        "_inbox",
        "_observation",
        "_state",
        "_timeout",
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
        self._inbox: SimpleQueue[None] = SimpleQueue()
        self._watch = ContentWatch(call.timeouts) if stream else None
        self._cancelled = False
        self._timeout: DeepSeekError | None = None
        total = call.total
        self._deadline = None if total is None else call.began + total + DEADLINE_GRACE
        state.wake = self._wake

    def _wake(self) -> None:
        if self._observation is not None:
            self._tell(self._observation)
        self._inbox.put(None)

    def _tell(self, observation: Observation) -> None:
        """Fills the turn's record in; when the turn is over it is, whether anybody reads or not."""
        state = self._state
        if chunks := state.chunks:
            observation.chunks(chunks)
        if state.ended:
            if state.response is not None:
                observation.response(state.response)
            error = self._timeout if self._timeout is not None or self._cancelled else state.error
            observation.end(error, cancelled=self._cancelled)

    def content(self) -> None:
        """Tells the watch that the last batch had content in it."""
        if self._watch is not None:
            self._watch.content()

    def pause(self) -> None:
        """Tells the watch that there was no content in the last batch."""
        if self._watch is not None:
            self._watch.pause(time.monotonic())

    def read(self) -> Sequence[pb.GenerateChunk] | None:
        """Returns what has come since, or None at the end; raises a DeepSeekError."""
        state = self._state
        while not state.chunks and not state.ended:
            self._wait()
        if not self._cancelled and (chunks := self._driver.take(state)):
            return chunks
        if state.error is not None and not self._cancelled:
            raise state.error
        return None

    def result(self) -> pb.GenerateResponse:
        """Returns the whole answer; raises a DeepSeekError."""
        state = self._state
        while not state.ended:
            self._wait()
        if state.error is not None:
            raise state.error
        if state.response is None:
            raise CancelledByPeerError("the turn was cancelled", request_id=self._call.request_id)
        return state.response

    def _wait(self) -> None:
        """Waits until something has come; cancels the turn and raises when that takes too long."""
        now = time.monotonic()
        waits = []
        if self._deadline is not None:
            waits.append(self._deadline - now)
        if self._watch is not None and self._watch.active:
            self._watch.waiting(now)
            waits.append(self._watch.check(now))
        wait = min(waits, default=None)
        if wait is not None and wait <= 0:
            self._timeout = self._overdue(now)
            self._driver.cancel(self._state)
            raise self._timeout
        try:
            self._inbox.get(timeout=wait)
        except Empty:
            pass
        except BaseException:
            self.cancel()
            raise

    def _overdue(self, now: float) -> DeepSeekError:
        if self._watch is not None and (self._deadline is None or now < self._deadline):
            return self._watch.error(self._call.request_id)
        return DeadlineExceededError(
            f"no answer within {self._call.total:g} s (Timeouts.total)", request_id=self._call.request_id
        )

    def cancel(self) -> None:
        """Ends the turn and leaves the session up; from any thread."""
        if not self._state.ended:
            self._cancelled = True
            self._driver.cancel(self._state)

    def close(self) -> None:
        """Cancels the turn unless it is over."""
        self.cancel()
