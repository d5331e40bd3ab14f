"""The real gateway with an engine that costs nothing: what remains is the gateway's and the client's own cost.

    python benchmarks/gateway_server.py [instant|steps|eager|embedded]

prints the port and serves until its standard input closes. The engines: `instant` has the whole answer at once; `steps`
and `eager` have `max_tokens` tokens, each in a batch of its own. With `steps` each token is also a step of the event
loop of its own, as it is when tokens come from a model; `eager` never hands the event loop back by itself.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, Sequence

from harness import CLIENT_ID, SECRET

from deepseek_grpc import Secret
from deepseek_grpc.gateway.engines import TextEngine
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.settings import ClientSettings, Settings
from deepseek_grpc.types import (
    AccountBalance,
    Completion,
    Event,
    FimRequest,
    Finished,
    GenerateRequest,
    Meta,
    Model,
    Started,
    TextDelta,
    Usage,
)

USAGE = Usage(12, 14, 26)
COMPLETION = Completion("Hello from the instant engine, at an ordinary length.", "stop", USAGE, Meta(model="instant"))
EVENTS = (Started(model="instant"), TextDelta(COMPLETION.text), Finished("stop", USAGE))


TOKEN = (TextDelta(" token"),)


class InstantEngine:
    name = "instant"

    async def generate(self, request: GenerateRequest) -> Completion:
        return COMPLETION

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Sequence[Event], None]:
        yield EVENTS

    async def complete(self, request: FimRequest) -> Completion:
        return COMPLETION

    async def stream_complete(self, request: FimRequest) -> AsyncGenerator[Sequence[Event], None]:
        yield EVENTS

    async def balance(self) -> AccountBalance:
        return AccountBalance(available=True)

    async def models(self) -> Sequence[Model]:
        return [Model("instant")]

    async def aclose(self) -> None:
        pass


class TokenEngine(InstantEngine):
    def __init__(self, *, steps: bool) -> None:
        self._steps = steps

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Sequence[Event], None]:
        steps = self._steps
        yield EVENTS[:1]
        for _ in range(request.max_tokens or 1):
            yield TOKEN
            if steps:
                await asyncio.sleep(0)
        yield EVENTS[-1:]


def make_engine(kind: str) -> TextEngine:
    if kind == "embedded":
        return EmbeddedEngine()
    return InstantEngine() if kind == "instant" else TokenEngine(steps=kind == "steps")


async def serve(kind: str) -> None:
    engine = make_engine(kind)
    client = ClientSettings(CLIENT_ID, Secret(SECRET), roles=("all",))
    settings = Settings(listen="127.0.0.1:0", clients=(client,), roles={"all": ("*",)}, default_model=kind)
    async with Gateway(settings, backends=[Backend(engine, ("*",))]) as gateway:
        gc.freeze()
        print(gateway.address.rpartition(":")[2], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1] if len(sys.argv) > 1 else "instant"))
