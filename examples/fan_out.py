"""Asks 1,000 questions over one session and shows how far it is; a question that fails has its error in its place.

Needs a gateway: `deepseek-grpc serve` prints the environment to set.
"""

import asyncio
import sys
import time
from collections.abc import Iterator

from deepseek_grpc import AsyncClient, AsyncSession, Completion, DeepSeekError

TOPICS = ("a deadline", "cancellation", "metadata", "a channel", "keepalive", "a status code", "streaming", "TLS")
PROMPTS = [f"What is {TOPICS[number % len(TOPICS)]}? Take {number // len(TOPICS) + 1}." for number in range(1000)]
AT_ONCE = 64
"""How many turns are under way at a time: enough to keep the gateway busy, few enough that none waits out its time."""


async def main() -> None:
    """Asks, and sums up."""
    async with AsyncClient.from_env() as client, client.text.session() as session:
        begun = time.perf_counter()
        results: dict[int, Completion | DeepSeekError] = {}
        waiting = iter(enumerate(PROMPTS))
        async with asyncio.TaskGroup() as workers:
            for _ in range(AT_ONCE):
                workers.create_task(work(session, waiting, results))
        seconds = time.perf_counter() - begun
    print(file=sys.stderr)
    for number, error in sorted(results.items()):
        if isinstance(error, DeepSeekError):
            print(f"{PROMPTS[number]}: {error}", file=sys.stderr)
    answers = [answer for answer in results.values() if isinstance(answer, Completion)]
    tokens = sum(answer.usage.completion_tokens for answer in answers)
    print(f"{len(answers):,} answers, {len(results) - len(answers):,} failures, {tokens:,} tokens in {seconds:.1f} s")
    print(f"{len(answers) / seconds:,.0f} answers and {tokens / seconds:,.0f} tokens per second")


async def work(
    session: AsyncSession, waiting: Iterator[tuple[int, str]], results: dict[int, Completion | DeepSeekError]
) -> None:
    """Takes one question after the other; all workers share the iterator, so each gets the next that nobody has."""
    for number, prompt in waiting:
        try:
            results[number] = await session.generate(prompt, max_tokens=32)
        except DeepSeekError as error:
            results[number] = error
        if len(results) % 10 == 0:
            print(f"\r{len(results):,} of {len(PROMPTS):,}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
