"""Reads streams with a peer's client, in the peers' own environment.

    .venv/peers/bin/python benchmarks/peer_worker.py openai|xai TARGET

Its standard input says what to read, see `harness.serve_worker`.
"""

from __future__ import annotations

import asyncio
import sys

from harness import serve_worker


async def openai(target: str) -> None:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(api_key="benchmark", base_url=f"http://{target}/v1", max_retries=0) as client:

        async def read(tokens: int) -> int:
            came = 0
            messages = [{"role": "user", "content": "Count."}]
            stream = await client.chat.completions.create(
                model="fake", messages=messages, max_tokens=tokens, stream=True
            )
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    came += 1
            return came

        await serve_worker(read)


async def xai(target: str) -> None:
    from xai_sdk import AsyncClient
    from xai_sdk.chat import user

    # For a host named localhost it takes gRPC's local credentials, as this project's client does: neither has TLS.
    async with AsyncClient(api_key="benchmark", api_host=target) as client:

        async def read(tokens: int) -> int:
            came = 0
            chat = client.chat.create(model="fake", messages=[user("Count.")], max_tokens=tokens)
            async for _, chunk in chat.stream():
                if chunk.content:
                    came += 1
            return came

        await serve_worker(read)


if __name__ == "__main__":
    asyncio.run({"openai": openai, "xai": xai}[sys.argv[1]](sys.argv[2]))
