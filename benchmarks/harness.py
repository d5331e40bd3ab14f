"""What the benchmarks share: servers and workers in processes of their own, ratios with their spread.

Workers of peers run in another environment, so this module needs nothing but the standard library.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECRET = "benchmark-secret-benchmark-secret-1234"
CLIENT_ID = "bench"
PEERS = Path(sys.prefix) / "peers" / "bin" / "python"
"""The peers' own environment, which `make bench` sets up."""


@dataclass(frozen=True)
class Server:
    """A server of this folder, in a process of its own."""

    target: str
    pid: int

    def cpu(self) -> float:
        """Returns the CPU seconds that it has used, its threads included, to a hundredth."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss(self) -> int:
        """Returns the bytes that it holds in memory."""
        return rss(self.pid)


def rss(pid: int) -> int:
    """Returns the bytes that a process holds in memory."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running(script: str, *arguments: str, python: str = sys.executable) -> Iterator[subprocess.Popen[str]]:
    """Runs a script of this folder until the block is left, which closes its standard input."""
    if not Path(python).exists():
        sys.exit(f"{python} is missing; `make bench` sets it up")
    command = [python, str(HERE / script), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait(30)


@contextmanager
def server(script: str, *arguments: str, python: str = sys.executable) -> Iterator[Server]:
    """Runs a script of this folder that prints its port."""
    with running(script, *arguments, python=python) as process:
        assert process.stdout is not None
        yield Server(f"localhost:{int(process.stdout.readline())}", process.pid)


@dataclass(frozen=True)
class Reading:
    """What a worker saw while it read some streams."""

    tokens: int
    messages: int
    wall: float
    cpu: float


@dataclass(frozen=True)
class Worker:
    """A client in a process of its own, which reads streams when it is told to."""

    process: subprocess.Popen[str]

    def read(self, streams: int, tokens: int) -> Reading:
        """Reads so many streams at once, each of so many tokens."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{streams} {tokens}\n")
        self.process.stdin.flush()
        reading = Reading(**json.loads(self.process.stdout.readline()))
        assert reading.tokens == streams * tokens, reading
        return reading


@contextmanager
def worker(script: str, *arguments: str, python: str = sys.executable) -> Iterator[Worker]:
    """Runs a script of this folder that calls `serve_worker`."""
    with running(script, *arguments, python=python) as process:
        yield Worker(process)


async def serve_worker(read: Callable[[int], Awaitable[int]], counts: Counter[str] | None = None) -> None:
    """Does a worker's work until its standard input closes.

    `read` reads one stream of so many tokens, and returns how many came. Without `counts`, each came in a message of
    its own.
    """
    loop = asyncio.get_running_loop()
    gc.collect()
    gc.freeze()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        streams, tokens = map(int, line.split())
        if counts is not None:
            counts.clear()
        wall, cpu = time.perf_counter(), time.process_time()
        came = sum(await asyncio.gather(*(read(tokens) for _ in range(streams))))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        messages = came if counts is None else counts["received"]
        print(json.dumps(asdict(Reading(came, messages, wall, cpu))), flush=True)


def spread(values: list[float], digits: int = 2) -> str:
    """Renders a median with its range."""
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle:>7}  ({low} to {high})"
