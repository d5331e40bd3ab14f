"""What a fork leaves of gRPC: a process that had used grpc.aio can't be forked into one that uses gRPC at all."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

from deepseek_grpc.errors import ConfigurationError

__all__ = ["asyncio_used", "check", "register"]


class Forked(Protocol):
    """Something with locks or connections that a child process can't share."""

    def forked(self) -> None:
        """Sets it up anew, in the child."""


_forked: WeakSet[Forked] = WeakSet()
_asyncio_used = False
_broken = False


def register(one: Forked) -> None:
    """Has `forked()` called in child processes."""
    _forked.add(one)


def asyncio_used() -> None:
    """Takes note that this process has used grpc.aio, as a client or as a server."""
    global _asyncio_used  # noqa: PLW0603 - a fact about the process
    _asyncio_used = True


def check() -> None:
    """Refuses gRPC in a child where every call would hang; raises ConfigurationError."""
    if _broken:
        raise ConfigurationError(
            "this process was forked from one that had used grpc.aio (an AsyncClient or a gateway), and gRPC doesn't "
            "survive that. Fork before the first call, or start processes with multiprocessing's 'spawn' or "
            "'forkserver'"
        )


def _in_child() -> None:
    global _broken  # noqa: PLW0603 - a fact about the process
    _broken = _asyncio_used
    for one in tuple(_forked):
        one.forked()


os.register_at_fork(after_in_child=_in_child)
