"""Sessions against calls of their own and against peers: rates and client CPU as ratios, batch sizes beside them.

    python benchmarks/session.py [--rounds N] [--quick] [calls] [streams]

*Calls* are short generations with JWT: a session against the plain grpcio stub with the same call credentials, the same
gateway and as many requests in flight, from asyncio and from threads. *Streams* are tokens that enter the gateway's
writer one by one, read through `session.stream` and `text.stream`, against openai-python over SSE and xai-sdk over its
own gRPC; the peers' servers are stand-ins that send pre-encoded bytes. `xai` has one of grpc.aio, as a server in Python
would be; `openai` and `xai-flood` are sent many tokens at a time, which no real server does: as fast as they can take.

Every server has a process of its own, and so has every client that reads streams. The sides take turns, round by round,
and ratios are taken within each round: medians, with their range.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import repeat

import grpc
import grpc.aio
from counted import count_messages
from harness import CLIENT_ID, PEERS, SECRET, Reading, Server, Worker, server, spread, worker

from deepseek_grpc import AsyncClient, Client, ClientConfig, JWTSigner
from deepseek_grpc.auth import channel_credentials
from deepseek_rpc.v2 import text_pb2 as pb
from deepseek_rpc.v2.text_pb2_grpc import TextServiceStub

PROMPT = "What is a deadline?"
TOKENS = 16
REQUEST = pb.GenerateRequest(prompt=PROMPT, max_tokens=TOKENS, temperature=0)
CALLS = (("instant", 64, 6400), ("instant", 1, 500), ("embedded", 64, 3200))
"""Engine, requests in flight, requests a round."""
STREAMS = ((1, 20_000), (200, 100))
"""Streams at once, tokens of each."""
PEER_NAMES = ("openai", "xai", "xai-flood")
COUNTS: Counter[str] = Counter()
"""Messages that this process's sessions have sent and received."""

Measured = tuple[float, float]
"""Wall and CPU seconds."""


async def async_load(one: Callable[[], Awaitable[object]], in_flight: int, total: int) -> Measured:
    """Makes requests from tasks."""

    async def work() -> None:
        for _ in range(total // in_flight):
            await one()

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return time.perf_counter() - wall, time.process_time() - cpu


def sync_load(one: Callable[[], object], in_flight: int, total: int) -> Measured:
    """Makes requests from threads."""

    def work(count: int) -> None:
        for _ in range(count):
            one()

    with ThreadPoolExecutor(in_flight) as pool:
        list(pool.map(work, repeat(1, in_flight)))  # the threads have started
        wall, cpu = time.perf_counter(), time.process_time()
        list(pool.map(work, repeat(total // in_flight, in_flight)))
        return time.perf_counter() - wall, time.process_time() - cpu


def order(sides: tuple[str, ...], index: int) -> tuple[str, ...]:
    """Returns the order of a round: who goes first changes from round to round."""
    return sides[index % len(sides) :] + sides[: index % len(sides)]


async def async_calls(kind: str, in_flight: int, total: int, rounds: int) -> None:
    config, signer = ClientConfig(), JWTSigner(CLIENT_ID, SECRET)
    with server("gateway_server.py", kind) as gateway:
        credentials = channel_credentials(gateway.target, config, signer)
        async with (
            grpc.aio.secure_channel(gateway.target, credentials, options=config.channel_options()) as channel,
            AsyncClient(gateway.target, credentials=signer, config=config) as client,
            client.text.session() as session,
        ):
            stub = TextServiceStub(channel)

            async def turn() -> None:
                assert (await session.generate(PROMPT, max_tokens=TOKENS, temperature=0)).text

            async def call() -> None:
                assert (await stub.Generate(REQUEST, timeout=600)).message.content

            sides = {"session": turn, "stub": call}
            measured: dict[str, list[Measured]] = {name: [] for name in sides}
            for one in sides.values():
                await async_load(one, in_flight, total // 4)
            COUNTS.clear()
            for index in range(rounds):
                for name in order(("session", "stub"), index):
                    measured[name].append(await async_load(sides[name], in_flight, total))
    report_calls(f"{kind} async", in_flight, total, measured)


def sync_calls(kind: str, in_flight: int, total: int, rounds: int) -> None:
    config, signer = ClientConfig(), JWTSigner(CLIENT_ID, SECRET)
    with server("gateway_server.py", kind) as gateway:
        credentials = channel_credentials(gateway.target, config, signer)
        with (
            grpc.secure_channel(gateway.target, credentials, options=config.channel_options()) as channel,
            Client(gateway.target, credentials=signer, config=config) as client,
            client.text.session() as session,
        ):
            stub = TextServiceStub(channel)

            def turn() -> None:
                assert session.generate(PROMPT, max_tokens=TOKENS, temperature=0).text

            def call() -> None:
                assert stub.Generate(REQUEST, timeout=600).message.content

            sides = {"session": turn, "stub": call}
            measured: dict[str, list[Measured]] = {name: [] for name in sides}
            for one in sides.values():
                sync_load(one, in_flight, total // 4)
            COUNTS.clear()
            for index in range(rounds):
                for name in order(("session", "stub"), index):
                    measured[name].append(sync_load(sides[name], in_flight, total))
    report_calls(f"{kind} sync", in_flight, total, measured)


def report_calls(name: str, in_flight: int, total: int, measured: dict[str, list[Measured]]) -> None:
    pairs = list(zip(measured["session"], measured["stub"], strict=True))
    rates = [total / statistics.median(wall for wall, _ in measured[side]) for side in ("session", "stub")]
    faster = spread([stub[0] / ours[0] for ours, stub in pairs])
    slower = spread([ours[0] / stub[0] for ours, stub in pairs])
    cpu = spread([ours[1] / stub[1] for ours, stub in pairs])
    frames = [total * len(pairs) / COUNTS[way] for way in ("sent", "received")]
    print(
        f"{name:14s} {in_flight:3d} {rates[0]:8.0f}/s {rates[1]:8.0f}/s  {faster:24s} {slower:24s} {cpu:24s}"
        f" {frames[0]:5.1f} {frames[1]:5.1f}",
        flush=True,
    )


def calls(rounds: int, share: int) -> None:
    print(f"{'':18s} {'session':>10s} {'stub':>10s}  {'requests/s, ratio':24s} {'latency, ratio':24s}", end=" ")
    print(f"{'client CPU, ratio':24s} turns a message, sent and received")
    count_messages(COUNTS)
    for kind, in_flight, total in CALLS:
        asyncio.run(async_calls(kind, in_flight, total // share, rounds))
        sync_calls(kind, in_flight, total // share, rounds)


@dataclass(frozen=True)
class Streamer:
    """A worker, and the server that it reads from."""

    worker: Worker
    server: Server

    def read(self, streams: int, tokens: int) -> tuple[Reading, float]:
        """Returns what the worker saw, and the server's CPU seconds."""
        before = self.server.cpu()
        return self.worker.read(streams, tokens), self.server.cpu() - before


def streams(rounds: int, share: int) -> None:
    with ExitStack() as stack:
        enter = stack.enter_context
        sides = {}
        for kind in ("steps", "eager"):
            gateway = enter(server("gateway_server.py", kind))
            for way in ("session", "call"):
                sides[f"{way}, {kind}"] = Streamer(enter(worker("our_worker.py", way, gateway.target)), gateway)
        for peer in PEER_NAMES:
            fake = enter(server("peer_server.py", peer, python=str(PEERS)))
            client = enter(worker("peer_worker.py", peer.partition("-")[0], fake.target, python=str(PEERS)))
            sides[peer] = Streamer(client, fake)
        for at_once, tokens in STREAMS:
            readings: dict[str, list[tuple[Reading, float]]] = {name: [] for name in sides}
            for side in sides.values():
                side.read(at_once, max(1, tokens // share // 4))
            for index in range(rounds):
                for name in order(tuple(sides), index):
                    readings[name].append(sides[name].read(at_once, tokens // share))
            report_streams(at_once, tokens // share, readings)


def report_streams(at_once: int, tokens: int, readings: dict[str, list[tuple[Reading, float]]]) -> None:
    print(f"\n{at_once} x {tokens} tokens   tokens/s  client CPU  server CPU  tokens a message")
    for name, those in readings.items():
        rate = statistics.median(one.tokens / one.wall for one, _ in those)
        client = statistics.median(1e6 * one.cpu / one.tokens for one, _ in those)
        serving = statistics.median(1e6 * cpu / one.tokens for one, cpu in those)
        batch = statistics.median(one.tokens / one.messages for one, _ in those)
        print(f"{name:18s} {rate:11.0f} {client:8.1f} us {serving:8.1f} us {batch:17.1f}")
    for name in [name for name in readings if name not in PEER_NAMES]:
        for peer in PEER_NAMES:
            pairs = [(ours, theirs) for (ours, _), (theirs, _) in zip(readings[name], readings[peer], strict=True)]
            rates = spread([theirs.wall / ours.wall for ours, theirs in pairs])
            cpu = spread([ours.cpu / theirs.cpu for ours, theirs in pairs])
            print(f"{name:16s} to {peer:9s} tokens/s {rates:26s} client CPU {cpu}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="calls, streams; both if none is named")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    options = parser.parse_args()
    for part in (calls, streams):
        if not options.what or part.__name__ in options.what:
            part(options.rounds, 10 if options.quick else 1)


if __name__ == "__main__":
    main()
