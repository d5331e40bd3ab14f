"""Looks at every event of a stream, and cancels the generation when it has seen enough.

Needs a gateway: `deepseek-grpc serve` prints the environment to set.
"""

import asyncio

from deepseek_grpc import AsyncClient, Finished, Started, TextDelta


async def main() -> None:
    """Streams until a full stop, then cancels: the gateway and its backend stop too."""
    async with AsyncClient.from_env() as client, client.text.stream("What is cancellation?") as stream:
        async for event in stream:
            match event:
                case Started(model=model):
                    print(f"[{model} answers]")
                case TextDelta(text):
                    print(text, end="", flush=True)
                    if "." in text:
                        await stream.cancel()
                case Finished():
                    pass  # the answer had no full stop
        print(f"\n[{(await stream.final()).finish_reason}]")


if __name__ == "__main__":
    asyncio.run(main())
