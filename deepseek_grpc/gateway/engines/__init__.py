"""What a text engine is, and the registry of those that this package brings.

An engine turns a `types.GenerateRequest` or a `types.FimRequest` into events. It speaks `types` and `errors` only,
imports what is heavy when it is made, and stops at once when the task that runs it is cancelled.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from deepseek_grpc.types import AccountBalance, Completion, Event, FimRequest, GenerateRequest, Model

__all__ = ["TextEngine"]


class TextEngine(Protocol):
    """Generates text.

    Engines raise errors of `deepseek_grpc.errors`; anything else that they raise reaches the caller as INTERNAL without
    its text. What an engine can't do raises UnimplementedError.
    """

    @property
    def name(self) -> str:
        """The gateway's name of this backend."""

    async def generate(self, request: GenerateRequest) -> Completion:
        """Returns the whole answer."""

    def stream(self, request: GenerateRequest) -> AsyncGenerator[Sequence[Event], None]:
        """Yields batches of the events that are ready; what is alone goes alone.

        The first event of all is `Started` and the last is `Finished`. Batches are never empty. An engine that has more
        than a millisecond's work hands the event loop back in between. The generator is closed when its caller is gone.
        """

    async def complete(self, request: FimRequest) -> Completion:
        """Returns the whole text between a prompt and a suffix."""

    def stream_complete(self, request: FimRequest) -> AsyncGenerator[Sequence[Event], None]:
        """Yields it as `stream` does; between `Started` and `Finished` there is text alone."""

    async def balance(self) -> AccountBalance:
        """Returns what is left on the account that it charges; without balances where nothing is charged."""

    async def models(self) -> Sequence[Model]:
        """Returns the models that it serves."""

    async def aclose(self) -> None:
        """Releases what it holds."""
