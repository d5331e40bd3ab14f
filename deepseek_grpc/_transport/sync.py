"""RPCs over grpc's threads: unary calls and streams."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar, cast

import grpc

from deepseek_grpc import _forks
from deepseek_grpc._call import CallOptions
from deepseek_grpc._codec.status import decode_error
from deepseek_grpc._transport.link import LinkBase, late_token, least_loaded
from deepseek_grpc._transport.places import Places
from deepseek_grpc._transport.sync_stream import Messages
from deepseek_grpc.auth import TokenSource, current_token
from deepseek_grpc.config import ClientConfig
from deepseek_grpc.errors import ClosedError, DeepSeekError

__all__ = ["Closing", "Link", "Messages", "Wire", "each"]

A = TypeVar("A")
R = TypeVar("R")


class Wire:
    """A channel, and how many calls are under way on it: once it is retired, the last one closes it."""

    __slots__ = ("_calls", "_channel", "_closed", "_lock", "_retired", "_stubs", "turns")

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.turns = 0
        """How many turns its sessions have under way; they keep count themselves."""
        self._stubs: dict[Any, Any] = {}
        self._lock = threading.RLock()  # a stream that is collected meanwhile leaves from within
        self._calls = 0
        self._retired = False
        self._closed = False

    def method(self, service: Callable[[Any], Any], name: str) -> Callable[..., Any]:
        """Returns what makes calls of a method; raises ClosedError."""
        with self._lock:  # on a channel that is closed meanwhile, making a stub ends the process
            if self._closed:
                raise ClosedError("the client is closed")
            stub = self._stubs.get(service)
            if stub is None:
                stub = self._stubs[service] = service(self._channel)
        return getattr(stub, name)  # type: ignore[no-any-return]

    @property
    def load(self) -> int:
        """How much is under way on it: calls, streams, sessions and their turns."""
        return self._calls + self.turns

    def enter(self) -> None:
        """Takes note of a call that begins; it ends with `leave`."""
        with self._lock:
            self._calls += 1

    def leave(self) -> None:
        """Takes note that a call is over."""
        with self._lock:
            self._calls -= 1
            over = self._retired and not self._calls
        if over:
            self.close()

    @property
    def over(self) -> bool:
        """Whether it is retired, and its calls have ended."""
        return self._retired and not self._calls

    def retire(self) -> None:
        """Closes the channel when its calls are over."""
        with self._lock:
            self._retired = True
            over = not self._calls
        if over:
            self.close()

    def close(self) -> None:
        """Closes the channel, and with it ends its calls."""
        with self._lock:
            self._closed = True
        self._channel.close()


class Closing(Protocol):
    """A session, as far as its client ends it."""

    def shut(self) -> None:
        """Ends its turns, and begins to tell the gateway."""

    def join(self) -> None:
        """Waits until the gateway knows, but not for long."""


class Link(LinkBase):
    """The way to the gateway: channels with everything that a call over them needs.

    The first is made at the first call, so that a program may fork between making a client and using it.
    """

    def __init__(self, target: str, config: ClientConfig, source: TokenSource | None) -> None:
        super().__init__(target, config, source)
        self._chooses = config.connections > 1 or self._tls is not None
        self.closed = False
        """Whether `close` was called."""
        self.forked()
        _forks.register(self)

    def forked(self) -> None:
        """Begins without a channel: a parent's isn't this process's."""
        self._lock = threading.Lock()
        self._wire: Wire | None = None  # the last one chosen: the only one, where there is nothing to choose
        self._wires: list[Wire] = []
        self._retired: list[Wire] = []
        self._fetching: set[Future[str]] = set()
        self.sessions: list[Closing] = []
        """What has to end before the channels do."""
        self.places = None if self.config.max_concurrency is None else Places(self.config.max_concurrency)

    def wire(self) -> Wire:
        """Returns the channel for a call that begins now, and has to `leave` it; raises ClosedError after `close`."""
        wire = self._wire
        if wire is None or self._chooses:
            return self._choose()
        wire.enter()
        return wire

    def _choose(self) -> Wire:
        """Enters the channel with the least to do, a new one where the certificates have changed."""
        with self._lock:
            if self.closed:
                raise ClosedError("the client is closed")
            if self._wires and self.has_new_certificates():
                self._retired = [*(old for old in self._retired if not old.over), *self._wires]
                for old in self._wires:
                    old.retire()
                self._wires = []
            wire = self._wire = least_loaded(self._wires, self.config.connections, self._make)
            wire.enter()  # here, where nobody retires it before, and the next thread sees that it is taken
            return wire

    def _make(self) -> Wire:
        _forks.check()
        return Wire(
            grpc.secure_channel(self.target, self._credentials, options=self.config.channel_options(self.target))
        )

    def unary(
        self, service: Callable[[Any], Any], name: str, request: Any, call: CallOptions, *, credential: bool = True
    ) -> Any:
        """Makes a unary call, of a method that needs no `credential` without one; raises a DeepSeekError."""
        observation = self.observe(service, name, request, call)
        make = self._placed if credential else self._send
        if observation is None:
            return make(service, name, request, call)
        try:
            response = make(service, name, request, call)
        except BaseException as error:
            observation.end(error)
            raise
        observation.response(response)
        observation.end()
        return response

    def _placed(self, service: Callable[[Any], Any], name: str, request: Any, call: CallOptions) -> Any:
        places = self.places
        if places is None:
            return self._authenticated(service, name, request, call)
        if not places.wait(call.left(), lambda: self.closed):
            raise self.left_outside(call)
        try:
            return self._authenticated(service, name, request, call)
        finally:
            places.give()

    def left_outside(self, call: CallOptions) -> DeepSeekError:
        """Makes the error of a call that got no place."""
        if self.closed:
            return ClosedError("the client was closed before the call", request_id=call.request_id)
        return self.no_place(call)

    def _authenticated(self, service: Callable[[Any], Any], name: str, request: Any, call: CallOptions) -> Any:
        token = self.fetch(call)
        try:
            return self._send(service, name, request, call, token)
        except DeepSeekError as error:
            if not self.renews(error, token):
                raise
            refused = error
        token = self.fetch(call)
        try:
            return self._send(service, name, request, call, token)
        except DeepSeekError as error:
            error.attempts += refused.attempts
            raise

    def fetch(self, call: CallOptions) -> str | None:
        """Returns the token, after waiting for it where need be.

        Raises:
            AuthenticationError: There is none to be had.
            DeadlineExceededError: It took longer than the call may.
        """
        token, source = self.token(), self.source
        if token is not None or source is None:
            return token
        future: Future[str] = Future()

        def get() -> None:
            with suppress(InvalidStateError):  # the client was closed meanwhile
                try:
                    future.set_result(current_token(source))
                except DeepSeekError as error:
                    future.set_exception(error)

        left = call.left()
        self._fetching.add(future)
        threading.Thread(target=get, name="deepseek-grpc-token", daemon=True).start()
        try:
            return future.result(left)
        except DeepSeekError:
            raise
        except TimeoutError:
            raise late_token(call) from None
        finally:
            self._fetching.discard(future)

    def _send(
        self, service: Callable[[Any], Any], name: str, request: Any, call: CallOptions, token: str | None = None
    ) -> Any:
        wire = self.wire()
        try:
            return wire.method(service, name)(
                request, timeout=call.left(), metadata=self.sent(call, token), wait_for_ready=call.wait_for_ready
            )
        except grpc.RpcError as error:
            raise self.error(error, call.request_id) from error
        except ValueError:  # what a closed channel raises
            if self.closed:
                raise ClosedError("the client is closed", request_id=call.request_id) from None
            raise
        finally:
            wire.leave()

    def stream(self, service: Callable[[Any], Any], name: str, request: Any, call: CallOptions) -> Messages:
        """Starts a server-streaming call, at once where there is a place for it."""
        return Messages(self, service, name, request, call)

    def error(self, error: grpc.RpcError, request_id: str, *, content: bool = False) -> DeepSeekError:
        """Makes a typed error of a failed call."""
        if self.closed and error.code() is grpc.StatusCode.CANCELLED:
            return ClosedError("the client was closed during the call", request_id=request_id)
        return decode_error(
            error.code(),
            error.details() or "",
            cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ()),
            request_id=request_id,
            target=self.target,
            content=content,
        )

    def close(self) -> None:
        """Closes the channels; calls that are under way end in ClosedError."""
        with self._lock:
            self.closed = True
            wires = [*self._retired, *self._wires]
            self._wire = None
        if self.places is not None:
            self.places.wake()
        sessions = tuple(self.sessions)
        for session in sessions:
            session.shut()
        for session in sessions:
            session.join()
        for future in tuple(self._fetching):
            with suppress(InvalidStateError):  # the token has just come
                future.set_exception(ClosedError("the client was closed before the call"))
        for wire in wires:
            wire.close()


def each(
    work: Callable[[A], R], items: Sequence[A], concurrency: int, on_progress: Callable[[int, int], None] | None
) -> list[R | DeepSeekError]:
    """Does a piece of work for each item, a few at a time; returns results and typed failures in the items' order.

    The threads are daemons: whoever interrupts it doesn't wait for the calls that are under way.
    """
    results: list[R | DeepSeekError | None] = [None] * len(items)
    todo = iter(enumerate(items))
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    lock, stopped = threading.Lock(), threading.Event()

    def worker() -> None:
        while not stopped.is_set():
            with lock:
                index, item = next(todo, (-1, None))
            if index < 0:
                return
            try:
                results[index] = work(cast(A, item))
            except DeepSeekError as error:
                results[index] = error
            except BaseException as error:  # noqa: BLE001 - raised by whoever waits
                done.put(error)
                return
            done.put(None)

    try:
        for _ in range(min(concurrency, len(items))):
            threading.Thread(target=worker, name="deepseek-grpc-each", daemon=True).start()
        for count in range(1, len(items) + 1):
            if (error := done.get()) is not None:
                raise error
            if on_progress is not None:
                on_progress(count, len(items))
    finally:
        stopped.set()
    return cast("list[R | DeepSeekError]", results)
