"""A gateway in a process of its own, to send signals to."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from deepseek_grpc import AsyncClient, Client, ClientConfig, JWTSigner

__all__ = ["EmbeddedGateway", "GatewayProcess", "end", "free_port", "start"]

_SECRET = "0123456789abcdef0123456789abcdef"

_SCRIPT = f'''
import asyncio
import sys
from pathlib import Path

from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway, run
from deepseek_grpc.gateway.settings import ClientSettings, Settings
from deepseek_grpc.types import Completion, Finished, Meta, Started, TextDelta, Usage

listen, drain_seconds, gate = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])


class Gated:
    """Says "one", waits for a file to appear, says "two"."""

    name = "gated"

    async def generate(self, request):
        return Completion("whole", "stop", Usage(), Meta())

    async def stream(self, request):
        yield Started(), TextDelta("one")
        while not gate.exists():
            await asyncio.sleep(0.01)
        yield TextDelta("two"), Finished("stop")

    async def models(self):
        return []

    async def aclose(self):
        print("engine closed", flush=True)


client = ClientSettings("test-client", b"{_SECRET}", roles=("test",))
settings = Settings(listen, clients=(client,), roles={{"test": ("*",)}}, drain_seconds=drain_seconds)
asyncio.run(run(Gateway(settings, backends=[Backend(Gated(), ("*",))])))
'''


_EMBEDDED = f'''
import asyncio
import sys

from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway, run
from deepseek_grpc.gateway.settings import ClientSettings, Settings

listen, pace, name = sys.argv[1], float(sys.argv[2]), sys.argv[3]


class Named(EmbeddedEngine):
    """Says which gateway it is of."""

    name = name


client = ClientSettings("test-client", b"{_SECRET}", roles=("test",))
settings = Settings(listen, clients=(client,), roles={{"test": ("*",)}}, drain_seconds=20)
asyncio.run(run(Gateway(settings, backends=[Backend(Named(pace=pace), ("*",))])))
'''


def free_port() -> int:
    """Returns a port below those that connections and other tests' listeners get from the system, so that it stays."""
    numbers = random.Random()
    while True:
        port = numbers.randrange(15_000, 30_000)
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def start(command: list[str], *, stderr: IO[str] | None = None) -> tuple[subprocess.Popen[str], str]:
    """Starts a gateway; returns it and where it listens; nothing is left of one that says anything else."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        said = process.stdout.readline()
        assert said.startswith("listening on "), said
    except BaseException:
        end(process)
        raise
    return process, said.split()[2]


def end(process: subprocess.Popen[str]) -> None:
    """Ends it at once, if it still runs, and closes what it is read by."""
    with process:
        process.kill()


class EmbeddedGateway:
    """A gateway with the embedded engine that can be started again where it was.

    Args:
        pace: Tokens a second of each generation.
    """

    def __init__(self, pace: float) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._pace = pace
        self._starts = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def name(self) -> str:
        """Its backend's name, another one with each start."""
        return f"{self.address}/{self._starts}"

    def start(self) -> None:
        self.kill()
        self._starts += 1
        self._process, address = start([sys.executable, "-c", _EMBEDDED, self.address, str(self._pace), self.name])
        assert address == self.address

    def terminate(self) -> None:
        """Lets it drain."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Waits until it has drained."""
        try:
            assert self._process.wait(40) == 0
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends it at once, if it runs."""
        if self._process is not None:
            end(self._process)

    def credentials(self) -> JWTSigner:
        return JWTSigner("test-client", _SECRET)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class GatewayProcess:
    """Runs until it is told to stop; a streamed answer is "one", and "two" once `open_gate` was called."""

    def __init__(self, folder: Path, *, listen: str = "127.0.0.1:0", drain_seconds: float = 60) -> None:
        script = folder / "serve.py"
        script.write_text(_SCRIPT)
        self._gate = folder / "gate"
        self.process, self.target = start([sys.executable, str(script), listen, str(drain_seconds), str(self._gate)])

    def open_gate(self) -> None:
        self._gate.touch()

    def client(self, target: str | None = None, config: ClientConfig | None = None) -> Client:
        return Client(target or self.target, credentials=JWTSigner("test-client", _SECRET), config=config)

    def async_client(self, target: str | None = None, config: ClientConfig | None = None) -> AsyncClient:
        return AsyncClient(target or self.target, credentials=JWTSigner("test-client", _SECRET), config=config)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def rest(self) -> tuple[int, str]:
        """Waits for its end; returns its exit status and what else it printed."""
        output, _ = self.process.communicate(timeout=20)
        return self.process.returncode, output

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self.process)
