"""RPCs over grpc's threads: unary calls and streams."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import grpc

from deepseek_grpc import _forks
from deepseek_grpc._call import CallOptions
from deepseek_grpc._codec.status import decode_error
from deepseek_grpc._transport.link import LinkBase, left, no_place
from deepseek_grpc._transport.places import Places
from deepseek_grpc._transport.sync_stream import Messages
from deepseek_grpc.auth import TokenSource, current_token
from deepseek_grpc.config import ClientConfig
from deepseek_grpc.errors import ClosedError, DeepSeekError

__all__ = ["Link", "Messages", "each"]

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")


class Link(LinkBase):
    """A channel to the gateway with everything that a call over it needs.

    The channel is made at the first call, so that a program may fork between making a client and using it.
    """

    def __init__(self, target: str, config: ClientConfig, source: TokenSource | None) -> None:
        super().__init__(target, config, source)
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._stubs: dict[Any, Any] = {}
        self.places = None if config.max_concurrency is None else Places(config.max_concurrency)
        self.closed = False
        """Whether `close` was called."""
        _forks.register(self)

    def stub(self, cls: Callable[[Any], T]) -> T:
        """Returns the stub of a service, made once; raises ClosedError after `close`."""
        stub = self._stubs.get(cls)
        if stub is None or (self._tls is not None and self._is_stale()):
            with self._lock:
                if self.closed:
                    raise ClosedError("the client is closed")
                if self._channel is None:
                    _forks.check()
                    self._channel = grpc.secure_channel(
                        self.target, self._credentials, options=self.config.channel_options(self.target)
                    )
                stub = self._stubs[cls] = self.name(cls(self._channel))
        return cast(T, stub)

    def _is_stale(self) -> bool:
        with self._lock:
            if not self.has_new_certificates():
                return False
            self._stubs = {}
            self._channel = None  # not closed: its calls go on until they end
            return True

    def forked(self) -> None:
        """Forgets the parent's channel: it isn't this process's."""
        self._lock = threading.Lock()
        self._stubs = {}
        self._channel = None
        self.places = None if self.config.max_concurrency is None else Places(self.config.max_concurrency)

    def unary(self, method: Callable[..., Any], request: Any, call: CallOptions, *, credential: bool = True) -> Any:
        """Makes a unary call, of a method that needs no `credential` without one; raises a DeepSeekError."""
        if not credential:
            return self._send(method, request, call, call.total, call.metadata)
        observation = self.observe(method, request, call)
        if observation is None:
            return self._placed(method, request, call)
        try:
            response = self._placed(method, request, call)
        except BaseException as error:
            observation.end(error)
            raise
        observation.response(response)
        observation.end()
        return response

    def _placed(self, method: Callable[..., Any], request: Any, call: CallOptions) -> Any:
        places = self.places
        if places is None:
            return self._authenticated(method, request, call, call.total)
        began = time.monotonic()
        if not places.wait(call.total, lambda: self.closed):
            raise self.left_outside(call)
        try:
            return self._authenticated(method, request, call, left(call, began, time.monotonic()))
        finally:
            places.give()

    def left_outside(self, call: CallOptions) -> DeepSeekError:
        """Makes the error of a call that got no place."""
        if self.closed:
            return ClosedError("the client was closed before the call", request_id=call.request_id)
        return no_place(self.config, call)

    def _authenticated(self, method: Callable[..., Any], request: Any, call: CallOptions, total: float | None) -> Any:
        token = self.fetch()
        began = 0.0 if total is None else time.monotonic()
        try:
            return self._send(method, request, call, total, self.sent(call, token))
        except DeepSeekError as error:
            if not self.renews(error, token):
                raise
            refused = error
        if total is not None:
            total -= time.monotonic() - began
        try:
            return self._send(method, request, call, total, self.sent(call, self.fetch()))
        except DeepSeekError as error:
            error.attempts += refused.attempts
            raise

    def fetch(self, call: CallOptions | None = None) -> str | None:  # noqa: ARG002 - sources have time limits of their own
        """Returns the token, after waiting for it where need be; raises AuthenticationError."""
        return None if self.source is None else current_token(self.source)

    def _send(
        self, method: Callable[..., Any], request: Any, call: CallOptions, total: float | None, metadata: Any
    ) -> Any:
        try:
            return method(request, timeout=total, metadata=metadata, wait_for_ready=call.wait_for_ready)
        except grpc.RpcError as error:
            raise self.error(error, call.request_id) from error
        except ValueError:  # what a closed channel raises
            if self.closed:
                raise ClosedError("the client is closed", request_id=call.request_id) from None
            raise

    def stream(self, method: Callable[..., Any], request: Any, call: CallOptions) -> Messages:
        """Starts a server-streaming call, at once where there is a place for it."""
        return Messages(self, method, request, call)

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
        """Closes the channel; calls that are under way end in ClosedError."""
        with self._lock:
            self.closed = True
            self._stubs.clear()
            channel, self._channel = self._channel, None
        if self.places is not None:
            self.places.wake()
        if channel is not None:
            channel.close()


def each(
    work: Callable[[A], R], items: Sequence[A], concurrency: int, on_progress: Callable[[int, int], None] | None
) -> list[R | DeepSeekError]:
    """Does a piece of work for each item, a few at a time; returns results and typed failures in the items' order."""
    from concurrent.futures import ThreadPoolExecutor, as_completed

    def settled(item: A) -> R | DeepSeekError:
        try:
            return work(item)
        except DeepSeekError as error:
            return error

    with ThreadPoolExecutor(max(1, min(concurrency, len(items))), "deepseek-grpc-each") as pool:
        futures = [pool.submit(settled, item) for item in items]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                if on_progress is not None:
                    on_progress(done, len(items))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]
