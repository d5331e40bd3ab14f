"""RPCs over grpc's threads: unary, streams, and the driver of a session."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast

import grpc
from deepseek_rpc.v2 import text_pb2 as pb

from deepseek_grpc._call import CallOptions, ContentWatch
from deepseek_grpc._codec.status import decode_error
from deepseek_grpc._session import ClientSession, ClientTurn
from deepseek_grpc.auth import TokenSource, channel_credentials
from deepseek_grpc.config import ClientConfig
from deepseek_grpc.errors import (
    CancelledByPeerError,
    ClosedError,
    DeadlineExceededError,
    DeepSeekError,
    ServiceUnavailableError,
)

__all__ = ["Link", "Messages", "SessionDriver", "Turn"]

T = TypeVar("T")


class Link:
    """A channel to the gateway with everything that a call over it needs.

    The channel is made at the first call, so that a program may fork between making a client and using it.
    """

    def __init__(self, target: str, config: ClientConfig, source: TokenSource | None) -> None:
        self.target = target
        self.config = config
        self._source = source
        self._credentials = channel_credentials(target, config, source)
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._stubs: dict[Any, Any] = {}
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def stub(self, cls: Callable[[Any], T]) -> T:
        """Returns the stub of a service, made once; raises ClosedError after `close`."""
        stub = self._stubs.get(cls)
        if stub is None:
            with self._lock:
                if self._closed:
                    raise ClosedError("the client is closed")
                if self._channel is None:
                    self._channel = grpc.secure_channel(
                        self.target, self._credentials, options=self.config.channel_options()
                    )
                stub = self._stubs[cls] = cls(self._channel)
        return cast(T, stub)

    def metadata(self, call: CallOptions) -> tuple[tuple[str, str], ...]:
        """Returns what a call sends; raises AuthenticationError, before anything is sent, when there is no token."""
        if self._source is None:
            return call.metadata
        token = self._source.token()
        if self.config.token_delivery == "metadata":
            return (*call.metadata, ("authorization", f"Bearer {token}"))
        return call.metadata

    def unary(self, method: Callable[..., Any], request: Any, call: CallOptions) -> Any:
        """Makes a unary call and returns its response; raises a DeepSeekError."""
        try:
            return method(request, timeout=call.total, metadata=self.metadata(call), wait_for_ready=call.wait_for_ready)
        except grpc.RpcError as error:
            raise self.error(error, call.request_id) from error
        except ValueError as error:
            raise self._usage(error, call.request_id) from error

    def stream(self, method: Callable[..., Any], request: Any, call: CallOptions) -> Messages:
        """Starts a server-streaming call at once."""
        metadata = self.metadata(call)
        try:
            rpc = method(request, timeout=call.total, metadata=metadata, wait_for_ready=call.wait_for_ready)
        except ValueError as error:
            raise self._usage(error, call.request_id) from error
        return Messages(self, rpc, call)

    def session(self, method: Callable[..., Any], call: CallOptions) -> SessionDriver:
        """Opens a session."""
        metadata = self.metadata(call)
        return SessionDriver(
            self,
            lambda batches: method(batches, metadata=metadata, wait_for_ready=call.wait_for_ready),
            call.request_id,
        )

    def error(self, error: grpc.RpcError, request_id: str, *, content: bool = False) -> DeepSeekError:
        """Makes a typed error of a failed call."""
        if self._closed and error.code() is grpc.StatusCode.CANCELLED:
            return ClosedError("the client was closed during the call", request_id=request_id)
        return decode_error(
            error.code(),
            error.details() or "",
            cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ()),
            request_id=request_id,
            target=self.target,
            content=content,
        )

    def _usage(self, error: ValueError, request_id: str) -> Exception:
        return ClosedError("the client is closed", request_id=request_id) if self._closed else error

    def close(self) -> None:
        """Closes the channel; calls that are under way end in ClosedError."""
        with self._lock:
            self._closed = True
            self._stubs.clear()
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()


class _Timers:
    """Calls back at given times, from one thread for all streams of the process."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._pid = 0

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Calls back at `when`, in `time.monotonic()`'s seconds."""
        with self._condition:
            if self._pid != os.getpid():  # the first use, or the first after a fork, which takes no threads along
                self._pid = os.getpid()
                self._heap = []
                threading.Thread(target=self._run, name="deepseek-grpc-timers", daemon=True).start()
            heapq.heappush(self._heap, (when, next(self._order), callback))
            if self._heap[0][0] == when:
                self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._heap or self._heap[0][0] > time.monotonic():
                    self._condition.wait(self._heap[0][0] - time.monotonic() if self._heap else None)
                _, _, callback = heapq.heappop(self._heap)
            callback()


_timers = _Timers()


class Messages:
    """The responses of a server-streaming call, each a batch of chunks."""

    __slots__ = ("__weakref__", "_cancelled", "_ended", "_link", "_request_id", "_rpc", "_seen", "_timeout", "_watch")

    def __init__(self, link: Link, rpc: Any, call: CallOptions) -> None:
        self._link = link
        self._rpc = rpc
        self._request_id = call.request_id
        self._watch = ContentWatch(call.timeouts)
        self._timeout: DeadlineExceededError | None = None
        self._cancelled = False
        self._ended = False
        self._seen = False
        if self._watch.active:
            self._check()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` ended it."""
        return self._cancelled

    def _check(self) -> None:
        if self._ended:
            return
        now = time.monotonic()
        wait = self._watch.check(now)
        if wait > 0:
            _timers.at(now + wait, _weakly(self._check))
        else:
            self._timeout = self._watch.error(self._request_id)
            self._rpc.cancel()

    def content(self) -> None:
        """Tells the watch that the last batch had content in it."""
        self._seen = True
        self._watch.content()

    def pause(self) -> None:
        """Tells the watch that there was no content in the last batch."""
        self._watch.pause(time.monotonic())

    def read(self) -> Sequence[pb.GenerateChunk] | None:
        """Returns the next batch, or None at the end; raises a DeepSeekError."""
        if self._ended:
            return None
        self._watch.waiting(time.monotonic())
        try:
            message = next(self._rpc)
        except StopIteration:
            self._ended = True
            return None
        except grpc.RpcError as error:
            self._ended = True
            if self._timeout is not None:
                raise self._timeout from None
            if self._cancelled:
                return None
            raise self._link.error(error, self._request_id, content=self._seen) from error
        except BaseException:
            # KeyboardInterrupt, above all: nobody will read on.
            self.close()
            raise
        return message.chunks  # type: ignore[no-any-return]

    def cancel(self) -> None:
        """Ends the call; from any thread."""
        if not self._ended:
            self._cancelled = True
            self._rpc.cancel()

    def close(self) -> None:
        """Cancels the call unless it is over."""
        self.cancel()
        self._ended = True


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    """Makes a callback that doesn't keep a forgotten stream alive."""
    from weakref import WeakMethod

    reference = WeakMethod(method)

    def call() -> None:
        alive = reference()
        if alive is not None:
            alive()

    return call


class SessionDriver:
    """Runs a session: one thread reads; gRPC's own thread writes what is ready."""

    def __init__(self, link: Link, call: Callable[[Iterator[pb.SessionRequest]], Any], request_id: str) -> None:
        self._link = link
        self._request_id = request_id
        self._machine = ClientSession()
        self._lock = threading.Lock()
        self._writable = threading.Condition(self._lock)
        self._error: DeepSeekError | None = None
        self._rpc = call(self._batches())
        self._reader = threading.Thread(target=self._read, name="deepseek-grpc-session", daemon=True)
        self._reader.start()

    @property
    def session_id(self) -> str:
        """The gateway's id of the session; empty until it has answered."""
        return self._machine.session_id

    def start(self, request: pb.GenerateRequest, call: CallOptions, *, stream: bool) -> Turn:
        """Starts a turn; raises what ended the session if it is over."""
        total = call.total
        deadline_ms = 0 if total is None else max(1, round(total * 1000))
        with self._lock:
            if self._error is not None:
                raise type(self._error)(
                    f"the session is over: {self._error.details}",
                    code=self._error.code,
                    reason=self._error.reason,
                    request_id=call.request_id,
                )
            turn = Turn(self, self._machine.start(request, stream=stream, deadline_ms=deadline_ms), call, stream=stream)
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
        except DeepSeekError as failure:
            error = failure
            self._rpc.cancel()
        self._fail(error)

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

    __slots__ = ("_call", "_cancelled", "_driver", "_inbox", "_state", "_watch")

    def __init__(self, driver: SessionDriver, state: ClientTurn, call: CallOptions, *, stream: bool) -> None:
        self._driver = driver
        self._state = state
        self._call = call
        self._inbox: SimpleQueue[None] = SimpleQueue()
        self._watch = ContentWatch(call.timeouts) if stream else None
        self._cancelled = False
        state.wake = self._wake

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` ended it."""
        return self._cancelled

    def _wake(self) -> None:
        self._inbox.put(None)

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
        watch = self._watch
        while not state.chunks and not state.ended:
            wait: float | None = None
            if watch is not None and watch.active:
                now = time.monotonic()
                watch.waiting(now)
                wait = watch.check(now)
                if wait <= 0:
                    self._driver.cancel(state)
                    raise watch.error(self._call.request_id)
            self._wait(wait)
        if self._cancelled:
            return None
        if chunks := self._driver.take(state):
            return chunks
        if state.error is not None:
            raise state.error
        return None

    def result(self) -> pb.GenerateResponse:
        """Returns the whole answer; raises a DeepSeekError."""
        state = self._state
        total = self._call.total
        # The gateway ends the turn at its deadline; the quarter of a second is for a gateway that can't.
        end = None if total is None else time.monotonic() + total + 0.25
        while not state.ended:
            wait = None if end is None else end - time.monotonic()
            if wait is not None and wait <= 0:
                self._driver.cancel(state)
                raise DeadlineExceededError(
                    f"no answer within {total:g} s (Timeouts.total)", request_id=self._call.request_id
                )
            self._wait(wait)
        if state.error is not None:
            raise state.error
        if state.response is None:
            raise CancelledByPeerError("the turn was cancelled", request_id=self._call.request_id)
        return state.response

    def _wait(self, seconds: float | None) -> None:
        try:
            self._inbox.get(timeout=seconds)
        except Empty:
            pass
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Ends the turn and leaves the session up; from any thread."""
        if not self._state.ended:
            self._cancelled = True
            self._driver.cancel(self._state)

    def close(self) -> None:
        """Cancels the turn unless it is over."""
        self.cancel()
