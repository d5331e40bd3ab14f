"""How long sessions are without a connection: black holes noticed, and sessions taken up again.

    python benchmarks/session_faults.py [--rounds N]

The embedded engine's gateway runs in this process, behind a TCP proxy that strikes the one connection that there is,
with the client's default keepalive. A black hole is noticed when the session says that its connection is lost; a resume
is counted from there until the session is taken up again.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deepseek_grpc import AsyncClient, AsyncSession
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.testing import FakeServer
from tests.faults.proxy import Kind, Proxy
from tests.faults.session_load import Outages

PACE = 50.0
QUESTION = "What is a deadline?"


async def streaming(session: AsyncSession, strike: Callable[[], Awaitable[None]]) -> None:
    async with session.stream(QUESTION, max_tokens=100, seed=1) as stream:
        async for _ in stream.text():
            break
        await strike()


async def waiting(session: AsyncSession, strike: Callable[[], Awaitable[None]]) -> None:
    answer = asyncio.create_task(session.generate(QUESTION, max_tokens=100, seed=1))
    await asyncio.sleep(0.1)  # it is on its way; an answer that comes whole comes at its end
    await strike()
    await answer


async def idle(session: AsyncSession, strike: Callable[[], Awaitable[None]]) -> None:
    await strike()


async def measure(
    use: Callable[[AsyncSession, Callable[[], Awaitable[None]]], Awaitable[None]], kind: Kind, rounds: int
) -> tuple[list[float], list[float]]:
    """Returns the seconds from each fault to its detection, and from there to the resume."""
    detected: list[float] = []
    with FakeServer(engine=EmbeddedEngine(pace=PACE)) as server, Proxy(server.target) as proxy:
        async with AsyncClient(proxy.address, credentials=server.credentials()) as client:
            session = client.text.session()
            await session.generate("Hi", max_tokens=1)
            with Outages() as outages:
                for number in range(1, rounds + 1):

                    async def strike(number: int = number) -> None:
                        connection = proxy.connections[-1]
                        connection.strike(kind)
                        await asyncio.to_thread(outages.wait_for, lambda seen: len(seen.resumed) == number, 60.0)
                        detected.append(outages.lost[-1] - connection.struck_at)

                    await use(session, strike)
    return detected, outages.resumed


def render(seconds: list[float]) -> str:
    ranked = sorted(seconds)
    p99 = ranked[min(len(ranked) - 1, len(ranked) * 99 // 100)]
    return f"{statistics.median(ranked):8.3f} {p99:8.3f} {ranked[-1]:8.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="black holes of each kind; ten times as many cuts")
    rounds = parser.parse_args().rounds
    columns = "     p50      p99     most"
    print(f"seconds                    detected                        resumed\n{'':23s}{columns}      {columns}")
    kinds: tuple[tuple[Kind, int], ...] = (("black hole", rounds), ("fin", 10 * rounds), ("rst", 10 * rounds))
    for kind, count in kinds:
        for use in (streaming, waiting, idle):
            detected, resumed = asyncio.run(
                measure(use, kind, count if kind == "black hole" or use is idle else rounds)
            )
            print(f"{kind:12s} {use.__name__:10s} {render(detected)}      {render(resumed)}", flush=True)


if __name__ == "__main__":
    main()
