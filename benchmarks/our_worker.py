"""Reads streams with this project's client, through a session or with calls of their own.

    python benchmarks/our_worker.py session|call TARGET

Its standard input says what to read, see `harness.serve_worker`.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter

from counted import count_messages
from harness import CLIENT_ID, SECRET, serve_worker

from deepseek_grpc import AsyncClient, JWTSigner, TextDelta


async def work(kind: str, target: str) -> None:
    counts: Counter[str] = Counter()
    count_messages(counts)
    credentials = JWTSigner(CLIENT_ID, SECRET)
    async with AsyncClient(target, credentials=credentials) as client, client.text.session() as session:
        start = session.stream if kind == "session" else client.text.stream

        async def read(tokens: int) -> int:
            came = 0
            async with start("Count.", max_tokens=tokens) as stream:
                async for event in stream:
                    if type(event) is TextDelta and event.text:
                        came += 1
            return came

        await serve_worker(read, counts)


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
