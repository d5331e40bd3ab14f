"""Engines that tests bring along; engines are always asynchronous, so they aren't mirrored."""

from __future__ import annotations

import asyncio

from deepseek_grpc.errors import ServiceUnavailableError, UnimplementedError
from deepseek_grpc.types import Completion, GenerateRequest, Meta, Usage


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
