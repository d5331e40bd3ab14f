"""RPCs over grpc's threads: unary calls and streams."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc

from deepseek_grpc._call import CallOptions, ContentWatch, weakly
from deepseek_grpc._codec.status import decode_error
from deepseek_grpc.auth import TokenSource, channel_credentials, current_token
from deepseek_grpc.config import ClientConfig
from deepseek_grpc.errors import (
    ClosedError,
    DeadlineExceededError,
    DeepSeekError,
)

if TYPE_CHECKING:
    from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["Link", "Messages", "each"]

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")


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

    def stub(self, cls: Callable[[Any], T]) -> T:
        """Returns the stub of a service, made once; raises ClosedError after `close`."""
        stub = self._stubs.get(cls)
        if stub is None:
            with self._lock:
                if self._closed:
                    raise ClosedError("the client is closed")
                if self._channel is None:
                    self._channel = grpc.secure_channel(
                        self.target, self._credentials, options=self.config.channel_options(self.target)
                    )
                stub = self._stubs[cls] = cls(self._channel)
        return cast(T, stub)

    def token(self) -> str | None:
        """Returns the token that is good now, or None without credentials; raises AuthenticationError."""
        return None if self._source is None else current_token(self._source)

    def metadata(self, call: CallOptions) -> tuple[tuple[str, str], ...]:
        """Returns what a call sends; raises AuthenticationError, before anything is sent, when there is no token."""
        token = self.token()
        if token is not None and self.config.token_delivery == "metadata":
            return (*call.metadata, ("authorization", f"Bearer {token}"))
        return call.metadata

    def unary(self, method: Callable[..., Any], request: Any, call: CallOptions, *, credential: bool = True) -> Any:
        """Makes a unary call, of a method that needs no `credential` without one; raises a DeepSeekError."""
        metadata = self.metadata(call) if credential else call.metadata
        try:
            return method(request, timeout=call.total, metadata=metadata, wait_for_ready=call.wait_for_ready)
        except grpc.RpcError as error:
            raise self.error(error, call.request_id) from error
        except ValueError:  # what a closed channel raises
            if self._closed:
                raise ClosedError("the client is closed", request_id=call.request_id) from None
            raise

    def stream(self, method: Callable[..., Any], request: Any, call: CallOptions) -> Messages:
        """Starts a server-streaming call at once."""
        metadata = self.metadata(call)
        try:
            rpc = method(request, timeout=call.total, metadata=metadata, wait_for_ready=call.wait_for_ready)
        except ValueError:
            if self._closed:
                raise ClosedError("the client is closed", request_id=call.request_id) from None
            raise
        return Messages(self, rpc, call)

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

    def close(self) -> None:
        """Closes the channel; calls that are under way end in ClosedError."""
        with self._lock:
            self._closed = True
            self._stubs.clear()
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()


class _Timer:
    """A callback that waits for its time."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback


class _Timers:
    """Calls back at given times, from one thread for all streams of the process."""

    def __init__(self) -> None:
        self._reset()
        # A fork takes no threads along, and a lock that one of them held stays locked for good.
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, _Timer]] = []
        self._order = itertools.count()
        self._cancelled = 0
        self._running = False

    def at(self, when: float, callback: Callable[[], None]) -> _Timer:
        """Calls back at `when`, in `time.monotonic()`'s seconds; returns what `cancel` takes."""
        timer = _Timer(callback)
        with self._condition:
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="deepseek-grpc-timers", daemon=True).start()
            heapq.heappush(self._heap, (when, next(self._order), timer))
            if self._heap[0][2] is timer:
                self._condition.notify()
        return timer

    def cancel(self, timer: _Timer) -> None:
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


_timers = _Timers()


class Messages:
    """The responses of a server-streaming call, each a batch of chunks."""

    __slots__ = (
        "__weakref__",
        "_cancelled",
        "_ended",
        "_link",
        "_request_id",
        "_rpc",
        "_seen",
        "_timeout",
        "_timer",
        "_watch",
    )

    def __init__(self, link: Link, rpc: Any, call: CallOptions) -> None:
        self._link = link
        self._rpc = rpc
        self._request_id = call.request_id
        self._watch = ContentWatch(call.timeouts)
        self._timeout: DeadlineExceededError | None = None
        self._timer: _Timer | None = None
        self._cancelled = False
        self._ended = False
        self._seen = False
        if self._watch.active:
            self._check()

    def _check(self) -> None:
        if self._ended:
            return
        now = time.monotonic()
        wait = self._watch.check(now)
        if wait > 0:
            self._timer = _timers.at(now + wait, weakly(self._check))
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
            self._end()
            return None
        except grpc.RpcError as error:
            self._end()
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
        self._end()

    def _end(self) -> None:
        self._ended = True
        if self._timer is not None:
            _timers.cancel(self._timer)


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
