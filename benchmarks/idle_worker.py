"""Opens sessions, has a turn in each, and holds them.

    python benchmarks/idle_worker.py TARGET SESSIONS

prints a line once it is warm; for a line of input, opens the sessions and prints by how many bytes it grew; holds them
until its standard input closes.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from contextlib import AsyncExitStack

from harness import CLIENT_ID, SECRET, rss

from deepseek_grpc import AsyncClient, JWTSigner

CONNECTIONS = 51
"""Enough for 5,000: of a connection's 100 streams, one watches the gateway's health."""
AT_ONCE = 100
LIMIT = 120
"""Seconds in which they have to be open: beyond what connections have room for, sessions wait in silence."""


async def work(target: str, sessions: int) -> None:
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        credentials = JWTSigner(CLIENT_ID, SECRET)
        client = await stack.enter_async_context(AsyncClient(target, credentials=credentials, connections=CONNECTIONS))

        async def one() -> None:
            session = await stack.enter_async_context(client.text.session())
            assert (await session.generate("Hi", max_tokens=1)).text

        await one()
        before = rss(os.getpid())
        print("warm", flush=True)
        await loop.run_in_executor(None, sys.stdin.readline)
        async with asyncio.timeout(LIMIT):
            for begin in range(1, sessions, AT_ONCE):  # one is open
                await asyncio.gather(*(one() for _ in range(min(AT_ONCE, sessions - begin))))
        gc.collect()
        print(rss(os.getpid()) - before, flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], int(sys.argv[2])))
