"""Runs several generations at once over one bidirectional stream.

Needs a gateway: `deepseek-grpc serve` prints the environment to set.
"""

import asyncio

from deepseek_grpc import AsyncClient

QUESTIONS = ("What is a deadline?", "What is metadata?", "What is a channel?", "What is keepalive?")


async def main() -> None:
    """Asks all questions at once, and one more while their answers come."""
    async with AsyncClient.from_env() as client, client.text.session() as session:
        answers = [asyncio.create_task(session.generate(question, max_tokens=32)) for question in QUESTIONS]
        async with session.stream("What is streaming?", max_tokens=32) as turn:
            async for piece in turn.text():
                print(piece, end="", flush=True)
        print()
        for question, answer in zip(QUESTIONS, await asyncio.gather(*answers), strict=True):
            print(f"{question} {answer.text}")


if __name__ == "__main__":
    asyncio.run(main())
