"""RPCs over grpc.aio: unary calls and streams."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

import grpc
import grpc.aio

from deepseek_grpc import _forks
from deepseek_grpc._call import CallOptions
from deepseek_grpc._codec.status import decode_error
from deepseek_grpc._transport.aio_stream import Messages, cancellations
from deepseek_grpc._transport.link import LinkBase, left, no_place
from deepseek_grpc._transport.places import AsyncPlaces
from deepseek_grpc.auth import TokenSource, current_token
from deepseek_grpc.config import ClientConfig
from deepseek_grpc.errors import ClosedError, DeadlineExceededError, DeepSeekError

__all__ = ["Link", "Messages", "each"]

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")


class _Room:
    """What a link has in one event loop, which grpc.aio binds a channel to."""

    __slots__ = ("channel", "on_close", "places", "stubs")

    def __init__(self, channel: grpc.aio.Channel, places: AsyncPlaces | None) -> None:
        self.channel = channel
        self.places = places
        self.stubs: dict[Any, Any] = {}
        self.on_close: list[Callable[[], Awaitable[None]]] = []
        """What has to end before the channel does: grpc.aio doesn't end every call of its own at each version."""

    async def aclose(self) -> None:
        self.stubs.clear()
        for close in tuple(self.on_close):
            await close()
        await self.channel.close()


class Link(LinkBase):
    """The way to the gateway: a channel in each event loop that makes calls, with everything that a call needs.

    A channel is made at the first call, because grpc.aio binds it to the running event loop.
    """

    def __init__(self, target: str, config: ClientConfig, source: TokenSource | None) -> None:
        super().__init__(target, config, source)
        self._lock = threading.Lock()
        self._rooms: dict[asyncio.AbstractEventLoop, _Room] = {}
        self._latest: tuple[asyncio.AbstractEventLoop | None, _Room | None] = (None, None)
        self._retired: set[asyncio.Task[None]] = set()
        self.closed = False
        """Whether `aclose` was called."""
        _forks.register(self)

    def stub(self, cls: Callable[[Any], T]) -> T:
        """Returns the stub of a service, made once; raises ClosedError after `aclose`."""
        room = self.room()
        stub = room.stubs.get(cls)
        if stub is None:
            stub = room.stubs[cls] = self.name(cls(room.channel))
        return cast(T, stub)

    def room(self) -> _Room:
        """Returns what belongs to the running event loop; raises ClosedError after `aclose`."""
        loop, room = self._latest
        if room is None or loop is not asyncio.get_running_loop() or (self._tls is not None and self._is_stale()):
            return self._enter(asyncio.get_running_loop())
        return room

    def _is_stale(self) -> bool:
        with self._lock:
            if not self.has_new_certificates():
                return False
            for loop, room in self._rooms.items():
                with suppress(RuntimeError):  # closed
                    loop.call_soon_threadsafe(self._retire, room.channel)
            self._rooms.clear()
            self._latest = (None, None)
            return True

    def _retire(self, channel: grpc.aio.Channel) -> None:
        """Lets the calls of a channel end and closes it then."""
        task = asyncio.get_running_loop().create_task(channel.close(3600))
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    def _enter(self, loop: asyncio.AbstractEventLoop) -> _Room:
        with self._lock:
            if self.closed:
                raise ClosedError("the client is closed")
            _forks.check()
            room = self._rooms.get(loop)
            if room is None:
                for other in [other for other in self._rooms if other.is_closed()]:
                    del self._rooms[other]
                _forks.asyncio_used()
                channel = grpc.aio.secure_channel(
                    self.target, self._credentials, options=self.config.channel_options(self.target)
                )
                places = self.config.max_concurrency
                room = self._rooms[loop] = _Room(channel, None if places is None else AsyncPlaces(places))
            self._latest = (loop, room)
            return room

    def forked(self) -> None:
        """Forgets the parent's channels: they aren't this process's."""
        self._lock = threading.Lock()
        self._rooms.clear()
        self._latest = (None, None)

    async def unary(
        self, method: Callable[..., Any], request: Any, call: CallOptions, *, credential: bool = True
    ) -> Any:
        """Makes a unary call, of a method that needs no `credential` without one; raises a DeepSeekError."""
        if not credential:
            return await self._send(method, request, call, call.total, call.metadata)
        observation = self.observe(method, request, call)
        if observation is None:
            return await self._placed(method, request, call)
        try:
            response = await self._placed(method, request, call)
        except BaseException as error:
            observation.end(error)
            raise
        observation.response(response)
        observation.end()
        return response

    async def _placed(self, method: Callable[..., Any], request: Any, call: CallOptions) -> Any:
        places = self.room().places
        if places is None:
            return await self._authenticated(method, request, call, call.total)
        began = asyncio.get_running_loop().time()
        if not places.take():
            asked = places.ask()
            try:
                await self.wait_for_place(asked, call)
            except BaseException:
                places.withdraw(asked)
                raise
        try:
            now = asyncio.get_running_loop().time()
            return await self._authenticated(method, request, call, left(call, began, now))
        finally:
            places.give()

    async def wait_for_place(self, asked: asyncio.Future[None], call: CallOptions) -> None:
        """Waits until a place has been given; raises DeadlineExceededError when the call's time is over before."""
        try:
            async with asyncio.timeout(call.total) as limit:
                await asked
        except TimeoutError:
            if limit.expired():
                raise no_place(self.config, call) from None
            raise

    async def _authenticated(
        self, method: Callable[..., Any], request: Any, call: CallOptions, total: float | None
    ) -> Any:
        token = self.token()
        began = 0.0 if total is None else asyncio.get_running_loop().time()
        if token is None and self.source is not None:
            token = await self.fetch(call)
        try:
            return await self._send(method, request, call, total, self.sent(call, token))
        except DeepSeekError as error:
            if not self.renews(error, token):
                raise
            refused = error
        if total is not None:
            total -= asyncio.get_running_loop().time() - began
        token = await self.fetch(call)
        try:
            return await self._send(method, request, call, total, self.sent(call, token))
        except DeepSeekError as error:
            error.attempts += refused.attempts
            raise

    async def fetch(self, call: CallOptions | None = None) -> str | None:
        """Waits for a token in a thread; raises AuthenticationError, or DeadlineExceededError after the call's time."""
        if self.source is None:
            return None
        getting = asyncio.get_running_loop().run_in_executor(None, current_token, self.source)
        if call is None:
            return await getting
        try:
            async with asyncio.timeout(call.total) as limit:
                return await getting
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineExceededError(
                f"no token within {call.total:g} s (Timeouts.total)", request_id=call.request_id
            ) from None

    async def _send(
        self, method: Callable[..., Any], request: Any, call: CallOptions, total: float | None, metadata: Any
    ) -> Any:
        before = cancellations()
        try:
            return await method(request, timeout=total, metadata=metadata, wait_for_ready=call.wait_for_ready)
        except grpc.aio.AioRpcError as error:
            raise self.error(error, call.request_id) from error
        except asyncio.CancelledError:
            if self.closed and cancellations() <= before:
                raise ClosedError("the client was closed during the call", request_id=call.request_id) from None
            raise

    def stream(self, method: Callable[..., Any], request: Any, call: CallOptions) -> Messages:
        """Starts a server-streaming call, at once where there is a place for it."""
        return Messages(self, method, request, call)

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
        """Closes the channels of all event loops; calls that are under way end in ClosedError."""
        with self._lock:
            self.closed = True
            rooms, self._rooms = self._rooms, {}
            self._latest = (None, None)
        here = asyncio.get_running_loop()
        for loop, room in rooms.items():
            if loop is here:
                await room.aclose()
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(room.aclose(), loop))
        for task in tuple(self._retired):
            with suppress(RuntimeError):  # its loop is closed
                task.get_loop().call_soon_threadsafe(task.cancel)


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
