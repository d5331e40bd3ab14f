"""RPCs over grpc.aio: unary calls and streams."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc
import grpc.aio

from deepseek_grpc._call import CallOptions, ContentWatch, weakly
from deepseek_grpc._codec.status import decode_error
from deepseek_grpc.auth import TokenSource, channel_credentials, current_token
from deepseek_grpc.config import ClientConfig
from deepseek_grpc.errors import (
    ClosedError,
    ConfigurationError,
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

    The channel is made at the first call, because grpc.aio binds it to the running event loop.
    """

    def __init__(self, target: str, config: ClientConfig, source: TokenSource | None) -> None:
        self.target = target
        self.config = config
        self._source = source
        self._credentials = channel_credentials(target, config, source)
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stubs: dict[Any, Any] = {}
        self.closed = False
        """Whether `aclose` was called."""
        self.on_close: list[Callable[[], Awaitable[None]]] = []
        """What has to end before the channel does: grpc.aio doesn't end every call of its own at each version."""

    def stub(self, cls: Callable[[Any], T]) -> T:
        """Returns the stub of a service, made once; raises ClosedError after `aclose`."""
        stub = self._stubs.get(cls)
        if stub is None or self._loop is not asyncio.get_running_loop():
            stub = self._stubs[cls] = cls(self._open())
        return cast(T, stub)

    def _open(self) -> grpc.aio.Channel:
        if self.closed:
            raise ClosedError("the client is closed")
        loop = asyncio.get_running_loop()
        if self._channel is None:
            self._loop = loop
            self._channel = grpc.aio.secure_channel(
                self.target, self._credentials, options=self.config.channel_options(self.target)
            )
        elif self._loop is not loop:
            raise ConfigurationError("the client belongs to another event loop; make one client for each loop")
        return self._channel

    def token(self) -> str | None:
        """Returns the token that is good now, or None without credentials; raises AuthenticationError."""
        return None if self._source is None else current_token(self._source)

    def metadata(self, call: CallOptions) -> tuple[tuple[str, str], ...]:
        """Returns what a call sends; raises AuthenticationError, before anything is sent, when there is no token."""
        token = self.token()
        if token is not None and self.config.token_delivery == "metadata":
            return (*call.metadata, ("authorization", f"Bearer {token}"))
        return call.metadata

    async def unary(
        self, method: Callable[..., Any], request: Any, call: CallOptions, *, credential: bool = True
    ) -> Any:
        """Makes a unary call, of a method that needs no `credential` without one; raises a DeepSeekError."""
        metadata = self.metadata(call) if credential else call.metadata
        before = _cancellations()
        try:
            return await method(request, timeout=call.total, metadata=metadata, wait_for_ready=call.wait_for_ready)
        except grpc.aio.AioRpcError as error:
            raise self.error(error, call.request_id) from error
        except asyncio.CancelledError:
            if self.closed and _cancellations() <= before:
                raise ClosedError("the client was closed during the call", request_id=call.request_id) from None
            raise

    def stream(self, method: Callable[..., Any], request: Any, call: CallOptions) -> Messages:
        """Starts a server-streaming call at once."""
        rpc = method(request, timeout=call.total, metadata=self.metadata(call), wait_for_ready=call.wait_for_ready)
        return Messages(self, rpc, call)

    def error(self, error: grpc.aio.AioRpcError, request_id: str, *, content: bool = False) -> DeepSeekError:
        """Makes a typed error of a failed call."""
        return decode_error(
            error.code(),
            error.details() or "",
            error.trailing_metadata() or (),
            request_id=request_id,
            target=self.target,
            content=content,
        )

    async def aclose(self) -> None:
        """Closes the channel; calls that are under way end in ClosedError."""
        self.closed = True
        self._stubs.clear()
        for close in tuple(self.on_close):
            await close()
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()


def _cancellations() -> int:
    """Returns how often this task was cancelled: more than before means that whoever cancelled it wants the error.

    The number alone says nothing, because in the cleanup of a cancelled task it isn't zero.
    """
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


class Messages:
    """The responses of a server-streaming call, each a batch of chunks."""

    __slots__ = (
        "__weakref__",
        "_cancelled",
        "_ended",
        "_link",
        "_loop",
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
        self._loop = asyncio.get_running_loop()
        self._watch = ContentWatch(call.timeouts)
        self._timer: asyncio.TimerHandle | None = None
        self._timeout: DeadlineExceededError | None = None
        self._cancelled = False
        self._ended = False
        self._seen = False
        if self._watch.active:
            self._check()

    def _check(self) -> None:
        wait = self._watch.check(self._loop.time())
        if wait > 0:
            self._timer = self._loop.call_later(wait, weakly(self._check))
        else:
            self._timeout = self._watch.error(self._request_id)
            self._rpc.cancel()

    def content(self) -> None:
        """Tells the watch that the last batch had content in it."""
        self._seen = True
        self._watch.content()

    def pause(self) -> None:
        """Tells the watch that there was no content in the last batch."""
        self._watch.pause(self._loop.time())

    async def read(self) -> Sequence[pb.GenerateChunk] | None:
        """Returns the next batch, or None at the end; raises a DeepSeekError."""
        if self._ended:
            return None
        self._watch.waiting(self._loop.time())
        before = _cancellations()
        try:
            message = await self._rpc.read()
        except grpc.aio.AioRpcError as error:
            self._end()
            raise self._link.error(error, self._request_id, content=self._seen) from error
        except asyncio.CancelledError:
            self._end()
            if _cancellations() > before:
                raise
            if self._timeout is not None:
                raise self._timeout from None
            if self._cancelled:
                return None
            if self._link.closed:
                raise ClosedError("the client was closed during the stream", request_id=self._request_id) from None
            raise  # this task cancelled itself
        except BaseException:
            self._end()
            raise
        if message is grpc.aio.EOF:
            self._end()
            return None
        return message.chunks  # type: ignore[no-any-return]

    def cancel(self) -> None:
        """Ends the call; from any task of its event loop."""
        if not self._ended:
            self._cancelled = True
            self._rpc.cancel()

    async def aclose(self) -> None:
        """Cancels the call unless it is over."""
        if not self._ended:
            self.cancel()
            self._end()

    def __del__(self) -> None:
        # grpc.aio keeps a call alive that nobody holds. The collector runs in any thread, the call in its loop's.
        if not self._ended and not self._loop.is_closed():
            with suppress(RuntimeError):  # closed just now
                self._loop.call_soon_threadsafe(self._rpc.cancel)

    def _end(self) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def each(
    work: Callable[[A], Awaitable[R]],
    items: Sequence[A],
    concurrency: int,
    on_progress: Callable[[int, int], None] | None,
) -> list[R | DeepSeekError]:
    """Does a piece of work for each item, a few at a time; returns results and typed failures in the items' order."""
    results: list[R | DeepSeekError | None] = [None] * len(items)
    queue = iter(enumerate(items))
    done = 0

    async def worker() -> None:
        nonlocal done
        for index, item in queue:
            try:
                results[index] = await work(item)
            except DeepSeekError as error:
                results[index] = error
            done += 1
            if on_progress is not None:
                on_progress(done, len(items))

    workers = [asyncio.create_task(worker()) for _ in range(min(concurrency, len(items)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return cast("list[R | DeepSeekError]", results)
