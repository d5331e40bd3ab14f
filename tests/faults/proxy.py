"""A TCP proxy that can cut its connections, swallow what they carry, and turn new ones away."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self, TypeAlias

__all__ = ["Connection", "Fault", "Kind", "Proxy", "faults"]

_PATIENCE: Final = 10.0
_LINGER_0: Final = struct.pack("ii", 1, 0)  # closing such a socket sends RST, and what was to be sent is lost

Kind: TypeAlias = Literal["fin", "rst", "black hole"]
"""A cut that closes, a cut that resets, or silence: no byte in either direction, and nothing closed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Strikes a connection once it has carried so many bytes, of both directions, and so in the middle of a message."""

    kind: Kind
    after: int = 0


def faults(seed: int, *, cuts: int, black_holes: int, most_bytes: int) -> list[Fault]:
    """Draws one fault for each of the next connections; every tenth comes early, within a connection's first words."""
    numbers = random.Random(seed)
    kinds: list[Kind] = ["black hole"] * black_holes + [numbers.choice(("fin", "rst")) for _ in range(cuts)]
    numbers.shuffle(kinds)
    return [Fault(kind, numbers.randrange(most_bytes if place % 10 else 300)) for place, kind in enumerate(kinds)]


class Proxy:
    """Stands between a client and a gateway, with an event loop and a thread of its own.

    Args:
        target: The gateway, HOST:PORT.
        plan: What strikes the connections, in the order in which they come; those beyond it live on.
        delay: Seconds that whatever a connection carries is held.
        split: Most bytes that are passed on at once; how many, is drawn by `seed`.
        seed: Of what is drawn.

    Attributes:
        address: Where it listens, as a target for clients.
        connections: Every connection that there was, oldest first.
    """

    def __init__(
        self, target: str, plan: Iterable[Fault] = (), *, delay: float = 0, split: int | None = None, seed: int = 0
    ) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._plan: Iterator[Fault] = iter(plan)
        self._delay, self._split, self._numbers = delay, split, random.Random(seed)
        self._frozen = self._down = False
        self.connections: list[Connection] = []
        self._struck = threading.Condition()
        self._over = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[_End] = set()
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._main, args=(listener,), name="proxy", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Ends every connection; new ones are let through."""
        self._do(lambda: [connection._end("fin") for connection in self.connections])

    def black_hole(self) -> None:
        """Lets every connection carry nothing more; new ones are let through."""
        self._do(lambda: [connection._end("black hole") for connection in self.connections])

    def follow(self, plan: Iterable[Fault]) -> None:
        """Begins a plan with the connection that there is, as if it had carried nothing until now."""
        self._do(lambda: self._follow(plan))

    def freeze(self) -> None:
        """Holds everything back, as a network does that lost its way; new connections too."""
        self._do(lambda: self._freeze(True))

    def thaw(self) -> None:
        """Lets everything through again."""
        self._do(lambda: self._freeze(False))

    def down(self) -> None:
        """Ends every connection and turns new ones away."""
        self._do(lambda: self._turn_away(True))

    def up(self) -> None:
        """Lets new connections through again."""
        self._do(lambda: self._turn_away(False))

    @property
    def struck(self) -> list[Connection]:
        """The connections that something has struck, by plan or by a call."""
        return [connection for connection in self.connections if connection.struck is not None]

    def wait_for_struck(self, count: int, timeout: float = _PATIENCE) -> None:
        """Waits until that many connections were struck; raises TimeoutError."""
        with self._struck:
            if not self._struck.wait_for(lambda: len(self.struck) >= count, timeout):
                raise TimeoutError(f"{len(self.struck)} of {count} connections were struck within {timeout:g} s")

    def _follow(self, plan: Iterable[Fault]) -> None:
        self._plan = iter(plan)
        for connection in self.connections:
            if connection.alive and (fault := next(self._plan, None)) is not None:
                connection._fault = Fault(fault.kind, connection.carried + fault.after)

    def _freeze(self, frozen: bool) -> None:
        self._frozen = frozen
        for connection in self.connections:
            connection._steer()

    def _turn_away(self, down: bool) -> None:
        self._down = down
        if down:
            for connection in self.connections:
                connection._end("fin")

    def _do(self, work: Callable[[], object]) -> None:
        """Does something in the proxy's thread, and waits for it."""

        async def call() -> None:
            work()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(_PATIENCE)

    def _main(self, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket) -> None:
        # No server of asyncio's: it drops what it is accepting when it is closed (3.11), and the socket stays open.
        with listener:
            listener.setblocking(False)
            self._loop.add_reader(listener, self._accept, listener)
            await self._over.wait()
            self._loop.remove_reader(listener)
        await asyncio.gather(*self._tasks)  # cancelled, they would leave transports that nobody closes
        for end in self._open:
            end.transport.abort()
        while self._open:  # noqa: ASYNC110 - what is aborted has ended in the loop's next round or the one after it
            await asyncio.sleep(0)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # it is gone already
            return
        if self._down:
            sock.close()
            return
        connection = Connection(self)
        connection._fault = next(self._plan, None)
        self.connections.append(connection)
        task = self._loop.create_task(self._connect(connection, sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, connection: Connection, sock: socket.socket) -> None:
        """Takes up both sides of a connection; afterwards both transports have told their ends of it."""
        await self._loop.connect_accepted_socket(lambda: connection._near, sock)
        try:
            await self._loop.create_connection(lambda: connection._far, *self._target)
        except OSError:
            connection._near.close()

    def _has_struck(self) -> None:
        with self._struck:
            self._struck.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._over.set)
        self._thread.join(2 * _PATIENCE)
        assert not self._thread.is_alive()


class Connection:
    """One connection through the proxy.

    Attributes:
        carried: Bytes that it has passed on, both ways.
        struck: What ended it, by plan or by a call.
        struck_at: When, in seconds since 1970, as a log record has it.
    """

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._near, self._far = _End(self), _End(self)
        self._near.other, self._far.other = self._far, self._near
        self._fault: Fault | None = None
        self.carried = 0
        self.struck: Kind | None = None
        self.struck_at = 0.0

    def strike(self, kind: Kind, *, after: int = 0) -> None:
        """Strikes it once it has carried so many bytes more; 0: now."""
        self._proxy._do(lambda: self._strike(kind, after))

    @property
    def alive(self) -> bool:
        """Whether it still carries something."""
        return self.struck is None and not self._near.over and not self._far.over

    def _strike(self, kind: Kind, after: int) -> None:
        if after:
            self._fault = Fault(kind, self.carried + after)
        else:
            self._end(kind)

    def _carry(self, sink: _End, data: bytes) -> None:
        """Passes bytes on, up to where the fault strikes."""
        fault = self._fault
        if fault is not None and self.carried + len(data) >= fault.after:
            self._pass(sink, data[: fault.after - self.carried])
            self._end(fault.kind)
        else:
            self._pass(sink, data)

    def _pass(self, sink: _End, data: bytes) -> None:
        self.carried += len(data)
        proxy = self._proxy
        if not proxy._split and not proxy._delay:
            sink.write(data)
            return
        place = 0
        while place < len(data):
            size = proxy._numbers.randint(1, proxy._split) if proxy._split else len(data)
            sink.write_later(data[place : place + size], proxy._delay)
            place += size

    def _end(self, kind: Kind) -> None:
        if not self.alive:
            return
        self.struck, self.struck_at = kind, time.time()
        if kind == "fin":
            self._near.close()
            self._far.close()
        elif kind == "rst":
            self._near.reset()
            self._far.reset()
        else:
            self._steer()
        self._proxy._has_struck()

    def _steer(self) -> None:
        """Reads from both sides, or from none: then not even an end gets through."""
        for end in (self._near, self._far):
            end.steer(reading=self.struck is None and not self._proxy._frozen)


class _End(asyncio.Protocol):
    """One side of a connection."""

    other: _End

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.transport: asyncio.Transport | None = None
        self.over = False
        self._full = False
        self._due = 0.0
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        connection = self._connection
        connection._proxy._open.add(self)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.other.over:
            transport.close()
        for data in self._early:
            transport.write(data)
        self._early.clear()
        connection._steer()

    def data_received(self, data: bytes) -> None:
        self._connection._carry(self.other, data)

    def connection_lost(self, error: Exception | None) -> None:
        self.over = True
        self._connection._proxy._open.discard(self)
        if self._connection.struck != "black hole":
            self.other.close()

    def pause_writing(self) -> None:
        self._full = True
        self._connection._steer()

    def resume_writing(self) -> None:
        self._full = False
        self._connection._steer()

    def write(self, data: bytes) -> None:
        if self.transport is None:
            self._early.append(data)
        elif not self.transport.is_closing() and data:
            self.transport.write(data)

    def write_later(self, data: bytes, seconds: float) -> None:
        # Timers that are due at the same time run in any order, so pieces wait for one another.
        loop = self._connection._proxy._loop
        self._due = max(self._due + 1e-6, loop.time() + seconds)
        loop.call_at(self._due, self._write_alive, data)

    def _write_alive(self, data: bytes) -> None:
        if self._connection.struck != "black hole":
            self.write(data)

    def steer(self, *, reading: bool) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if reading and not self.other._full:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()
        self.over = True

    def reset(self) -> None:
        if self.transport is not None:
            with suppress(OSError):
                sock = self.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
            self.transport.abort()
        self.over = True
