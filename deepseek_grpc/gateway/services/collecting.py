"""How long a writer that is busy lets more come before it writes again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from deepseek_grpc._session.frames import BATCH_BYTES

__all__ = ["collect"]

_SECONDS: Final = 0.0005
"""At most: less than what a message costs both ends together."""


async def collect(waiting_bytes: Callable[[], int]) -> None:
    """Lets travel together what the next turns of the event loop bring, as long as each of them brings something.

    It is for what was made during a write: what is alone leaves at once.
    """
    loop = asyncio.get_running_loop()
    until, before = loop.time() + _SECONDS, 0
    # A turn of the loop is what is waited for, no condition.
    while before < (before := waiting_bytes()) < BATCH_BYTES and loop.time() < until:  # noqa: ASYNC110
        await asyncio.sleep(0)
