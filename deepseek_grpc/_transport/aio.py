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
from deepseek_grpc._transport.link import LinkBase, late_token, least_loaded
from deepseek_grpc._transport.places import AsyncPlaces
from deepseek_grpc.auth import TokenSource, current_token
from deepseek_grpc.config import ClientConfig
from deepseek_grpc.errors import ClosedError, DeepSeekError

__all__ = ["Link", "Messages", "Room", "Wire", "each"]

A = TypeVar("A")
R = TypeVar("R")


class Wire:
    """A channel, and how many calls are under way on it: once it is retired, the last one closes it."""

    __slots__ = ("_calls", "_closing", "_retired", "_streams", "_stubs", "channel", "turns")

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.turns = 0
        """How many turns its sessions have under way; they keep count themselves."""
        self._stubs: dict[Any, Any] = {}
        self._calls = 0
        self._streams: set[Any] = set()
        self._retired = False
        self._closing: asyncio.Task[None] | None = None

    def method(self, service: Callable[[Any], Any], name: str) -> Callable[..., Any]:
        """Returns what makes calls of a method."""
        stub = self._stubs.get(service)
        if stub is None:
            stub = self._stubs[service] = service(self.channel)
        return getattr(stub, name)  # type: ignore[no-any-return]

    @property
    def load(self) -> int:
        """How much is under way on it: calls, streams, sessions and their turns."""
        return self._calls + self.turns

    def enter(self) -> None:
        """Takes note of a call that begins; it ends with `leave`."""
        self._calls += 1

    def leave(self) -> None:
        """Takes note that a call is over."""
        self._calls -= 1
        self._close_if_over()

    def track(self, rpc: Any) -> None:
        """Has a stream enter, leave by itself at its end, and end with the channel: not every grpc.aio ends it then."""

        def over(_: object) -> None:
            self._streams.discard(rpc)
            self.leave()

        self.enter()
        self._streams.add(rpc)
        rpc.add_done_callback(over)

    def retire(self) -> None:
        """Closes the channel when its calls are over."""
        self._retired = True
        self._close_if_over()

    def _close_if_over(self) -> None:
        if self._retired and not self._calls and self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self.channel.close())

    @property
    def over(self) -> bool:
        """Whether it is retired, and its calls have ended."""
        return self._closing is not None and self._closing.done()

    async def aclose(self) -> None:
        """Closes the channel, and with it ends its calls."""
        for rpc in tuple(self._streams):
            rpc.cancel()
        await (self.channel.close() if self._closing is None else self._closing)


class Room:
    """What a link has in one event loop, which grpc.aio binds a channel to."""

    __slots__ = ("_connections", "_make", "_retired", "_wires", "on_close", "places")

    def __init__(self, make: Callable[[], Wire], connections: int, places: AsyncPlaces | None) -> None:
        self._make = make
        self._connections = connections
        self._wires = [make()]
        self.places = places
        self.on_close: list[Callable[[], Awaitable[None]]] = []
        """What has to end before the channels do: grpc.aio doesn't end every call of its own at each version."""
        self._retired: list[Wire] = []

    @property
    def wire(self) -> Wire:
        """The channel for a call that begins now."""
        return self._wires[0] if self._connections == 1 else least_loaded(self._wires, self._connections, self._make)

    def renew(self) -> None:
        """Puts another channel in the place of those that there are, which are closed when their calls have ended."""
        self._retired = [*(old for old in self._retired if not old.over), *self._wires]
        for wire in self._wires:
            wire.retire()
        self._wires = [self._make()]

    async def aclose(self) -> None:
        """Ends all calls and closes all channels."""
        if self.places is not None:
            self.places.shut(ClosedError("the client was closed before the call"))
        await asyncio.gather(*(close() for close in tuple(self.on_close)))
        for wire in (*self._wires, *self._retired):
            await wire.aclose()


class Link(LinkBase):
    """The way to the gateway: channels in each event loop that makes calls, with everything that a call needs.

    The first is made at the first call, because grpc.aio binds it to the running event loop.
    """

    def __init__(self, target: str, config: ClientConfig, source: TokenSource | None) -> None:
        super().__init__(target, config, source)
        self._lock = threading.Lock()
        self._rooms: dict[asyncio.AbstractEventLoop, Room] = {}
        self._latest: tuple[asyncio.AbstractEventLoop | None, Room | None] = (None, None)
        self._renewed: set[asyncio.AbstractEventLoop] = set()
        self.closed = False
        """Whether `aclose` was called."""
        _forks.register(self)

    def room(self) -> Room:
        """Returns what belongs to the running event loop; raises ClosedError after `aclose`."""
        loop, room = self._latest
        if room is None or loop is not asyncio.get_running_loop() or self._tls is not None:
            return self._enter(asyncio.get_running_loop())
        return room

    def _enter(self, loop: asyncio.AbstractEventLoop) -> Room:
        with self._lock:
            if self.closed:
                raise ClosedError("the client is closed")
            if self.has_new_certificates():
                self._renewed = set(self._rooms)
            room = self._rooms.get(loop)
            if room is None:
                _forks.check()
                _forks.asyncio_used()
                for other in [other for other in self._rooms if other.is_closed()]:
                    del self._rooms[other]
                places = self.config.max_concurrency
                room = self._rooms[loop] = Room(
                    self._wire, self.config.connections, None if places is None else AsyncPlaces(places)
                )
            elif loop in self._renewed:
                self._renewed.discard(loop)
                room.renew()
            self._latest = (loop, room)
            return room

    def _wire(self) -> Wire:
        return Wire(
            grpc.aio.secure_channel(self.target, self._credentials, options=self.config.channel_options(self.target))
        )

    def forked(self) -> None:
        """Forgets the parent's channels: they aren't this process's."""
        self._lock = threading.Lock()
        self._rooms.clear()
        self._latest = (None, None)

    async def unary(
        self, service: Callable[[Any], Any], name: str, request: Any, call: CallOptions, *, credential: bool = True
    ) -> Any:
        """Makes a unary call, of a method that needs no `credential` without one; raises a DeepSeekError."""
        observation = self.observe(service, name, request, call)
        make = self._placed if credential else self._send
        if observation is None:
            return await make(service, name, request, call)
        try:
            response = await make(service, name, request, call)
        except BaseException as error:
            observation.end(error)
            raise
        observation.response(response)
        observation.end()
        return response

    async def _placed(self, service: Callable[[Any], Any], name: str, request: Any, call: CallOptions) -> Any:
        places = self.room().places
        if places is None:
            return await self._authenticated(service, name, request, call)
        if not places.take():
            asked = places.ask()
            try:
                await self.wait_for_place(asked, call)
            except BaseException:
                places.withdraw(asked)
                raise
        try:
            return await self._authenticated(service, name, request, call)
        finally:
            places.give()

    async def wait_for_place(self, asked: asyncio.Future[None], call: CallOptions) -> None:
        """Waits until a place has been given; raises DeadlineExceededError when the call's time is over before."""
        try:
            async with asyncio.timeout(call.left()) as limit:
                await asked
        except TimeoutError:
            if limit.expired():
                raise self.no_place(call) from None
            raise

    async def _authenticated(self, service: Callable[[Any], Any], name: str, request: Any, call: CallOptions) -> Any:
        token = self.token()
        if token is None and self.source is not None:
            token = await self.fetch(call)
        try:
            return await self._send(service, name, request, call, token)
        except DeepSeekError as error:
            if not self.renews(error, token):
                raise
            refused = error
        token = await self.fetch(call)
        try:
            return await self._send(service, name, request, call, token)
        except DeepSeekError as error:
            error.attempts += refused.attempts
            raise

    async def fetch(self, call: CallOptions) -> str | None:
        """Waits for a token in a thread; raises AuthenticationError, or DeadlineExceededError after the call's time."""
        if self.source is None:
            return None
        try:
            async with asyncio.timeout(call.left()) as limit:
                return await asyncio.get_running_loop().run_in_executor(None, current_token, self.source)
        except TimeoutError:
            if limit.expired():
                raise late_token(call) from None
            raise

    async def _send(
        self, service: Callable[[Any], Any], name: str, request: Any, call: CallOptions, token: str | None = None
    ) -> Any:
        before = cancellations()
        wire = self.room().wire
        wire.enter()
        try:
            return await wire.method(service, name)(
                request, timeout=call.left(), metadata=self.sent(call, token), wait_for_ready=call.wait_for_ready
            )
        except grpc.aio.AioRpcError as error:
            raise self.error(error, call.request_id) from error
        except asyncio.CancelledError:
            if self.closed and cancellations() <= before:
                raise ClosedError("the client was closed during the call", request_id=call.request_id) from None
            raise
        finally:
            wire.leave()

    def stream(self, service: Callable[[Any], Any], name: str, request: Any, call: CallOptions) -> Messages:
        """Starts a server-streaming call, at once where there is a place for it."""
        return Messages(self, service, name, request, call)

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
                with suppress(RuntimeError):  # it has just been closed
                    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(room.aclose(), loop))


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
