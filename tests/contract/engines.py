"""Engines that tests bring along; engines are always asynchronous, so they aren't mirrored."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence

from deepseek_grpc.errors import ServiceUnavailableError, UnimplementedError
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.types import Completion, Event, Finished, GenerateRequest, Meta, Started, TextDelta, Usage


class Echo:
    """An engine that answers with the prompt, later ones sooner, and counts how many it has at once."""

    name = "echo"

    def __init__(self) -> None:
        self.running = self.most = 0

    async def generate(self, request: GenerateRequest) -> Completion:
        text = str(request.messages[0].content)
        if text == "bad":
            raise ServiceUnavailableError("not this one", retryable=False)
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.02 if text < "5" else 0.001)
        self.running -= 1
        return Completion(text, "stop", Usage(), Meta())

    async def models(self):
        return []

    async def aclose(self):
        pass


class Uncharged(Echo):
    """An engine that knows no balance."""

    async def balance(self):
        raise UnimplementedError("this engine knows no balance")


class Cut(EmbeddedEngine):
    """An engine whose next streams break off, each after so many pieces of content; those behind them are whole."""

    def __init__(self, *, pace: float | None = None) -> None:
        super().__init__(pace=pace)
        self.cuts: deque[int] = deque()
        self.requests: list[GenerateRequest] = []

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Sequence[Event], None]:
        self.requests.append(request)
        left = self.cuts.popleft() if self.cuts else None
        async for events in super().stream(request):
            if left is None:
                yield events
                continue
            place = next((i for i, event in enumerate(events) if not isinstance(event, Started)), len(events))
            yield events[: place + left]
            left -= len(events) - place
            if left < 0:
                raise ServiceUnavailableError("the engine broke off")


class Headless(Echo):
    """An engine whose first streams end in a failure after their head."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.requests: list[GenerateRequest] = []
        self._failures = failures

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Sequence[Event], None]:
        self.requests.append(request)
        yield (Started("a"),)
        if len(self.requests) <= self._failures:
            raise ServiceUnavailableError("the engine broke off")
        yield TextDelta("whole"), Finished("stop")
