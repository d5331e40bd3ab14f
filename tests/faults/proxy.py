"""A TCP proxy that can cut its connections, or stop forwarding without a word."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

__all__ = ["Proxy"]


class Proxy:
    """Stands between a client and a gateway."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def cut(self) -> None:
        """Ends every connection; new ones are let through."""
        for end in tuple(self._sockets):
            _shut(end)

    def freeze(self) -> None:
        """Holds everything back, as a network does that lost its way."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Lets everything through again."""
        self._flowing.set()

    def _start(self, work, *arguments) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            self._sockets += [near, far]
            self._start(self._pump, near, far)
            self._start(self._pump, far, near)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
        except OSError:
            pass
        _shut(source)
        _shut(sink)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _shut(self._listener)
        self._threads[0].join(10)  # from here on there are no new connections
        self._flowing.set()
        self.cut()
        for thread in self._threads:
            thread.join(10)
        for end in (self._listener, *self._sockets):
            end.close()


def _shut(end: socket.socket) -> None:
    # Closing comes last: a thread may still be reading, and the number could belong to another socket by then.
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
