"""What sessions hold: memory for readers that have stalled, and for sessions that idle.

    python benchmarks/session_memory.py [--rounds N] [--quick] [stalled] [idle]

*Stalled*: 100 live turns of one session, without and with ten readers beside them that began a stream without end and
don't read on: what a turn takes at the 99th percentile, and by how much the gateway grows for each reader. There are
four kinds: a `turn` of the same session, a `call` of its own, a `bare` stream of TextService.Session without credit,
and turns of a client whose process is `frozen`. *Idle*: sessions over shared connections, each of which had one turn.

The gateway has a process of its own, new for each figure; memory is what a process holds (RSS).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from harness import CLIENT_ID, SECRET, running, server, spread

from deepseek_grpc import AsyncClient, ClientConfig, JWTSigner
from deepseek_grpc.auth import channel_credentials
from deepseek_rpc.v2 import text_pb2 as pb
from deepseek_rpc.v2.text_pb2_grpc import TextServiceStub

LIVE = 100
READERS = 10
ENDLESS = 10**9
SIGNER = JWTSigner(CLIENT_ID, SECRET)
SESSIONS = 5000
KINDS = ("turn", "call", "bare", "frozen")
SETTLING = 1.0
"""Seconds in which everything that may be buffered for a stalled reader has been."""


async def live_turns(session: Any, total: int) -> float:
    """Makes turns of 16 tokens, 100 at a time; returns the 99th percentile of what they took, in seconds."""
    took: list[float] = []

    async def work() -> None:
        for _ in range(total // LIVE):
            begin = time.perf_counter()
            async with session.stream("Count.", max_tokens=16) as stream:
                async for _ in stream:
                    pass
            took.append(time.perf_counter() - begin)

    await asyncio.gather(*(work() for _ in range(LIVE)))
    return statistics.quantiles(took, n=100)[98]


@asynccontextmanager
async def begun(start: Any) -> AsyncIterator[None]:
    """Holds streams that have had their first piece and are not read any further."""
    async with AsyncExitStack() as stack:
        for _ in range(READERS):
            stream = await stack.enter_async_context(start("Count.", max_tokens=ENDLESS))
            async for _ in stream.text():
                break
        yield


@asynccontextmanager
async def bare(target: str) -> AsyncIterator[None]:
    """Holds session streams, on a connection of their own, that start a turn without credit and never read."""
    config = ClientConfig()
    options = [*config.channel_options(), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(target, channel_credentials(target, config, SIGNER), options=options) as channel:
        for _ in range(READERS):
            rpc = TextServiceStub(channel).Session()
            await rpc.write(pb.SessionRequest(frames=[pb.ClientFrame(open=pb.OpenFrame())]))
            start = pb.StartFrame(turn_id=1, stream=True, request=pb.GenerateRequest(prompt="Hi", max_tokens=ENDLESS))
            await rpc.write(pb.SessionRequest(frames=[pb.ClientFrame(start=start)]))
        yield


@asynccontextmanager
async def frozen(target: str) -> AsyncIterator[None]:
    """Holds the turns of a client whose process has been stopped while it was reading them."""
    with running("our_worker.py", "session", target) as process:
        assert process.stdin is not None
        process.stdin.write(f"{READERS} {ENDLESS}\n")
        process.stdin.flush()
        await asyncio.sleep(SETTLING)
        os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            process.kill()


async def beside_stalled(kind: str, turns: int) -> tuple[float, float, float, float]:
    """Returns percentiles without and with stalled readers, and the gateway's growth without and with each."""
    with server("gateway_server.py", "steps") as gateway:
        async with AsyncClient(gateway.target, credentials=SIGNER) as client, client.text.session() as session:
            holds = {"turn": lambda: begun(session.stream), "call": lambda: begun(client.text.stream)}
            holds |= {"bare": lambda: bare(gateway.target), "frozen": lambda: frozen(gateway.target)}
            await live_turns(session, 2 * turns)
            sizes = [gateway.rss()]
            without = await live_turns(session, turns)
            sizes.append(gateway.rss())
            async with holds[kind]():
                await asyncio.sleep(SETTLING)
                among = await live_turns(session, turns)
                sizes.append(gateway.rss())
    return without, among, (sizes[1] - sizes[0]) / READERS, (sizes[2] - sizes[1]) / READERS


async def stalled(rounds: int, share: int) -> None:
    print(f"{READERS} stalled readers beside {LIVE} live turns")
    for kind in KINDS:
        figures = [await beside_stalled(kind, 6000 // share) for _ in range(rounds)]
        without, among, drift, growth = zip(*figures, strict=True)
        ratio = spread([b / a for a, b in zip(without, among, strict=True)])
        print(
            f"{kind:7s} p99 {1e3 * statistics.median(without):6.1f} ms, then {1e3 * statistics.median(among):6.1f} ms;"
            f" ratio {ratio:24s} growth for each, in KB {spread([size / 1e3 for size in growth], 0):22s}"
            f" (without any {statistics.median(drift) / 1e3:.0f})",
            flush=True,
        )


async def idle(rounds: int, share: int) -> None:
    sessions = SESSIONS // share
    sizes: list[tuple[float, float]] = []
    for _ in range(rounds):
        with (
            server("gateway_server.py", "instant") as gateway,
            running("idle_worker.py", gateway.target, str(sessions)) as client,
        ):
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdout.readline()
            before = gateway.rss()
            client.stdin.write("\n")
            client.stdin.flush()
            held = int(client.stdout.readline())
            sizes.append(((gateway.rss() - before) / 1e3 / sessions, held / 1e3 / sessions))
    print(f"{sessions} idle sessions over shared connections, KB a session:", end=" ")
    print(f"gateway {spread([a for a, _ in sizes], 1)}, client {spread([b for _, b in sizes], 1)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="stalled, idle; both if none is named")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    options = parser.parse_args()
    for part in (stalled, idle):
        if not options.what or part.__name__ in options.what:
            asyncio.run(part(options.rounds, 10 if options.quick else 1))


if __name__ == "__main__":
    main()
