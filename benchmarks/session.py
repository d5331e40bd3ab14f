"""A session against calls of their own: requests a second and client CPU, over the same gateway with the same JWT.

    python benchmarks/session.py [--rounds N]

The gateway runs in a process of its own, with an engine that answers at once and with the embedded one. The peer is the
plain grpc.aio stub with the same call credentials and the same number of requests in flight. Both sides take turns,
round by round, and ratios are taken within each round.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
from harness import CLIENT_ID, SECRET, server, spread

from deepseek_grpc import AsyncClient, ClientConfig, JWTSigner
from deepseek_grpc.auth import channel_credentials
from deepseek_rpc.v2 import text_pb2 as pb
from deepseek_rpc.v2.text_pb2_grpc import TextServiceStub

PROMPT = "What is a deadline?"
TOKENS = 16


async def load(one: Callable[[], Awaitable[object]], in_flight: int, total: int) -> tuple[float, float]:
    """Makes `total` requests, `in_flight` at a time; returns (wall seconds, this process's CPU seconds)."""
    left = total

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await one()

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    return time.perf_counter() - wall, time.process_time() - cpu


async def compare(kind: str, in_flight: int, total: int, rounds: int) -> None:
    with server("gateway_server.py", kind) as target:
        config, signer = ClientConfig(), JWTSigner(CLIENT_ID, SECRET)
        channel = grpc.aio.secure_channel(
            target, channel_credentials(target, config, signer), options=config.channel_options()
        )
        stub = TextServiceStub(channel)
        request = pb.GenerateRequest(prompt=PROMPT, max_tokens=TOKENS, temperature=0)

        async def plain() -> object:
            return (await stub.Generate(request, timeout=600)).message.content

        async with AsyncClient(target, credentials=signer, config=config) as client, client.text.session() as session:

            async def turn() -> object:
                return (await session.generate(PROMPT, max_tokens=TOKENS, temperature=0)).text

            sides = {"session": turn, "stub": plain}
            measured: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
            for side in sides.values():
                await load(side, in_flight, total // 4 + 1)
            for index in range(rounds):
                for name in sorted(sides, reverse=bool(index % 2)):
                    measured[name].append(await load(sides[name], in_flight, total))
        await channel.close()
    pairs = list(zip(measured["session"], measured["stub"], strict=True))
    rate = [stub[0] / ours[0] for ours, stub in pairs]
    cpu = [ours[1] / stub[1] for ours, stub in pairs]
    per_second = [total / statistics.median(wall for wall, _ in measured[name]) for name in ("session", "stub")]
    rates = f"{per_second[0]:8.0f}/s {per_second[1]:8.0f}/s"
    print(f"{kind:9s} {in_flight:3d} in flight  {rates}  {spread(rate)}  {spread(cpu)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(f"{'':24s}  {'session':>10s} {'stub':>10s}  requests/s, session/stub   client CPU, session/stub")
    asyncio.run(compare("instant", 64, 4000, rounds))
    asyncio.run(compare("instant", 1, 500, rounds))
    asyncio.run(compare("embedded", 64, 2000, rounds))


if __name__ == "__main__":
    main()
