"""Measures the embedded engine in this process: tokens per second, and how long it keeps the event loop.

Run it as `.venv/bin/python benchmarks/embedded_engine.py`. *Cold* is a new engine's first answer to each of its
questions, *warm* is the same questions with other seeds. Each figure is a median over rounds, with the range. The
garbage collector has its say too: what lives since the start is frozen first, as a server should do.
"""

import argparse
import asyncio
import functools
import gc
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "generated")]

from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine, corpus  # noqa: E402  the path first
from deepseek_grpc.types import GenerateRequest, TextDelta, user  # noqa: E402

SETTINGS = (("T=1", 1.0, None), ("T=0.7 top_p=0.9", 0.7, 0.9))


async def answer(engine: EmbeddedEngine, request: GenerateRequest) -> int:
    """Reads one answer and returns how many tokens it had."""
    tokens = 0
    async for batch in engine.stream(request):
        for event in batch:
            if type(event) is TextDelta:
                tokens += 1
    return tokens


async def speed(engine: EmbeddedEngine, requests: list[GenerateRequest]) -> float:
    """Returns tokens per second over requests made one after the other."""
    begun = time.perf_counter()
    tokens = sum([await answer(engine, request) for request in requests])
    return tokens / (time.perf_counter() - begun)


async def longest_stretch(engine: EmbeddedEngine, requests: list[GenerateRequest]) -> float:
    """Returns the longest time in milliseconds that another task waited for its turn."""
    longest = 0.0
    done = False

    async def tick() -> None:
        nonlocal longest
        last = time.perf_counter()
        while not done:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest = max(longest, now - last)
            last = now

    ticker = asyncio.create_task(tick())
    for request in requests:
        await answer(engine, request)
    done = True
    await ticker
    return longest * 1000


def freeze() -> None:
    """Takes what lives now out of the garbage collector's rounds."""
    gc.collect()
    gc.freeze()


def row(name: str, values: list[float], unit: str, digits: int = 0) -> None:
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"{name:<44}{middle:>12,.{digits}f}  ({low:,.{digits}f} to {high:,.{digits}f}) {unit}")


def ask(
    questions: list[str], temperature: float, top_p: float | None, first_seed: int, seeds: int
) -> list[GenerateRequest]:
    """Returns every question with every seed."""
    return [
        GenerateRequest((user(text),), seed=seed, temperature=temperature, top_p=top_p)
        for seed in range(first_seed, first_seed + seeds)
        for text in questions
    ]


async def measure(rounds: int, questions: int, seeds: int) -> None:
    passages = corpus.load()
    asked = [passage.question for passage in passages[:: max(1, len(passages) // questions)]][:questions]
    starts = []
    for name, temperature, top_p in SETTINGS:
        cold, warm, stretch = [], [], []
        for turn in range(rounds):
            begun = time.perf_counter()
            engine = EmbeddedEngine()
            starts.append((time.perf_counter() - begun) * 1000)

            requests = functools.partial(ask, asked, temperature, top_p)
            freeze()
            cold.append(await speed(engine, requests(1000 * turn, 1)))
            await speed(engine, requests(1000 * turn, seeds))
            warm.append(await speed(engine, requests(1000 * turn + 500, seeds)))
            engine = EmbeddedEngine()
            freeze()
            stretch.append(await longest_stretch(engine, requests(1000 * turn, 3)))
        row(f"cold, {name}", cold, "tokens/s")
        row(f"warm, {name}", warm, "tokens/s")
        row(f"longest stretch, cold and warm, {name}", stretch, "ms", 2)
    engine = EmbeddedEngine()
    freeze()
    long = [GenerateRequest((user("What is a deadline? " * 50_000),), seed=1)]
    row("longest stretch, prompt of 1 MB", [await longest_stretch(engine, long) for _ in range(rounds)], "ms", 2)
    row("start", starts, "ms", 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--questions", type=int, default=16, help="different questions, at most 32")
    parser.add_argument("--seeds", type=int, default=20, help="answers to each question in a warm round")
    options = parser.parse_args()
    asyncio.run(measure(options.rounds, options.questions, options.seeds))


if __name__ == "__main__":
    main()
