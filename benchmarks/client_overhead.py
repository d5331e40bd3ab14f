"""What the client costs on top of a hand-made grpcio stub with the same channel and call credentials.

    python benchmarks/client_overhead.py [--rounds N]

The server runs in a process of its own and sends pre-encoded bytes. Each figure is this process's CPU time, gRPC's own
threads included; the two sides take turns, round by round, and the ratio is taken within each round.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import grpc
import grpc.aio
from harness import CLIENT_ID, SECRET, server, spread
from instant_server import MESSAGES

from deepseek_grpc import AsyncClient, Client, ClientConfig, JWTSigner, TextDelta
from deepseek_grpc.auth import channel_credentials
from deepseek_rpc.v2 import text_pb2 as pb
from deepseek_rpc.v2.text_pb2_grpc import TextServiceStub

UNARY_CALLS = 300
STREAMS = {1: 40, 64: 20}
IMPORTS = ("import deepseek_grpc", "from deepseek_grpc import AsyncClient", "from deepseek_grpc import Client")
PROMPT = "Say hi to the benchmark."


def cpu(work: Callable[[], None]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def report(name: str, ours: list[float], theirs: list[float], per: float, limit: float) -> None:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    micro = [1e6 * statistics.median(side) / per for side in (ours, theirs)]
    print(f"{name:38s} {micro[0]:8.1f} us  {micro[1]:8.1f} us  {spread(ratios)}  aim <= {limit}")


def compare(
    name: str, rounds: int, ours: Callable[[], None], theirs: Callable[[], None], per: float, limit: float
) -> None:
    ours()
    theirs()
    pairs = []
    for index in range(rounds):
        # Who goes first changes from round to round.
        if index % 2:
            first = cpu(theirs)
            pairs.append((cpu(ours), first))
        else:
            first = cpu(ours)
            pairs.append((first, cpu(theirs)))
    report(name, [a for a, _ in pairs], [b for _, b in pairs], per, limit)


def synchronous(target: str, rounds: int) -> None:
    config, signer = ClientConfig(), JWTSigner(CLIENT_ID, SECRET)
    channel = grpc.secure_channel(target, channel_credentials(target, config, signer), options=config.channel_options())
    stub = TextServiceStub(channel)
    client = Client(target, credentials=JWTSigner(CLIENT_ID, SECRET), config=config)

    def our_unary() -> None:
        for _ in range(UNARY_CALLS):
            assert client.text.generate(PROMPT, max_tokens=64).text

    def their_unary() -> None:
        for _ in range(UNARY_CALLS):
            assert stub.Generate(pb.GenerateRequest(prompt=PROMPT, max_tokens=64), timeout=600).message.content

    compare("sync  text.generate", rounds, our_unary, their_unary, UNARY_CALLS, 1.15)
    for size, count in STREAMS.items():

        def our_stream(size: int = size, count: int = count) -> None:
            for _ in range(count):
                length = 0
                with client.text.stream(PROMPT, max_tokens=size) as stream:
                    for event in stream:
                        if type(event) is TextDelta:
                            length += len(event.text)
                assert length == MESSAGES * size * 6

        def their_stream(size: int = size, count: int = count) -> None:
            request = pb.GenerateRequest(prompt=PROMPT, max_tokens=size)
            for _ in range(count):
                length = 0
                for message in stub.StreamGenerate(request, timeout=600):
                    for chunk in message.chunks:
                        length += len(chunk.text)
                assert length == MESSAGES * size * 6

        name = f"sync  text.stream, {size} chunk{'s' * (size > 1)} a message"
        compare(name, rounds, our_stream, their_stream, count * MESSAGES, 1.25 if size == 1 else 1.5)
    client.close()
    channel.close()


def asynchronous(target: str, rounds: int) -> None:
    config, signer = ClientConfig(), JWTSigner(CLIENT_ID, SECRET)
    loop = asyncio.new_event_loop()

    async def prepare() -> tuple[grpc.aio.Channel, TextServiceStub, AsyncClient]:
        channel = grpc.aio.secure_channel(
            target, channel_credentials(target, config, signer), options=config.channel_options()
        )
        return channel, TextServiceStub(channel), AsyncClient(target, credentials=signer, config=config)

    channel, stub, client = loop.run_until_complete(prepare())

    async def our_unary() -> None:
        for _ in range(UNARY_CALLS):
            assert (await client.text.generate(PROMPT, max_tokens=64)).text

    async def their_unary() -> None:
        for _ in range(UNARY_CALLS):
            assert (await stub.Generate(pb.GenerateRequest(prompt=PROMPT, max_tokens=64), timeout=600)).message.content

    def run(work: Callable[[], object]) -> Callable[[], None]:
        return lambda: loop.run_until_complete(work())  # type: ignore[arg-type]

    compare("async text.generate", rounds, run(our_unary), run(their_unary), UNARY_CALLS, 1.15)
    for size, count in STREAMS.items():

        async def our_stream(size: int = size, count: int = count) -> None:
            for _ in range(count):
                length = 0
                async with client.text.stream(PROMPT, max_tokens=size) as stream:
                    async for event in stream:
                        if type(event) is TextDelta:
                            length += len(event.text)
                assert length == MESSAGES * size * 6

        async def their_stream(size: int = size, count: int = count) -> None:
            request = pb.GenerateRequest(prompt=PROMPT, max_tokens=size)
            for _ in range(count):
                length = 0
                async for message in stub.StreamGenerate(request, timeout=600):
                    for chunk in message.chunks:
                        length += len(chunk.text)
                assert length == MESSAGES * size * 6

        name = f"async text.stream, {size} chunk{'s' * (size > 1)} a message"
        compare(name, rounds, run(our_stream), run(their_stream), count * MESSAGES, 1.25 if size == 1 else 1.5)
    loop.run_until_complete(client.aclose())
    loop.run_until_complete(channel.close())
    loop.close()


def imports(rounds: int) -> None:
    # Compiled modules are kept, as in any installed package, but not in the working tree.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}

    def once(statement: str) -> float:
        code = f"import time; t = time.process_time(); {statement}; print(time.process_time() - t)"
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return float(done.stdout)

    with tempfile.TemporaryDirectory() as cache:
        environment["PYTHONPYCACHEPREFIX"] = cache
        for statement in (
            "import deepseek_grpc",
            "from deepseek_grpc import AsyncClient",
            "from deepseek_grpc import Client",
        ):
            once(statement)
            once("import grpc")
            pairs = [(once(statement), once("import grpc")) for _ in range(rounds)]
            report(statement, [a for a, _ in pairs], [b for _, b in pairs], 1, 1.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    print(f"{'CPU per call, message or import':38s} {'ours':>11s}  {'grpcio':>11s}  ratio: median (min to max)")
    with server("instant_server.py") as instant:
        asynchronous(instant.target, rounds)
        synchronous(instant.target, rounds)
    imports(2 * rounds)


if __name__ == "__main__":
    main()
