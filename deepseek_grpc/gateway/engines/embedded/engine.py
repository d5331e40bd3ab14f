"""The embedded engine: runs generations on the event loop and hands it back all the time."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Final

from deepseek_grpc.errors import ConfigurationError
from deepseek_grpc.gateway.engines.embedded import corpus
from deepseek_grpc.gateway.engines.embedded.fim import fill
from deepseek_grpc.gateway.engines.embedded.generation import prepare
from deepseek_grpc.gateway.engines.embedded.model import Model as NgramModel
from deepseek_grpc.gateway.engines.embedded.reasoning import Speech
from deepseek_grpc.gateway.engines.embedded.turn import collect, take_turn
from deepseek_grpc.types import (
    AccountBalance,
    Completion,
    Event,
    FimRequest,
    GenerateRequest,
    Model,
    Started,
    user,
)

__all__ = ["MODEL_ID", "EmbeddedEngine"]

MODEL_ID: Final = "embedded-ngram"

_FORMAT_VERSION = 2  # raised whenever the same seed and corpus no longer give the same text
_FALLBACK_QUESTION = "What is embedded-ngram?"
_WARM_QUESTIONS = (_FALLBACK_QUESTION, "Hello", "Say hi", "What can you do?", "What is a deadline in gRPC?")
_SLICE_SECONDS = 0.0003  # of work before the event loop has its turn; a millisecond is the most it may take
_TOKENS_PER_LOOK = 4  # at the clock


class EmbeddedEngine:
    """A small n-gram model for demos and tests: offline, at once and reproducible. It is no DeepSeek model.

    `pace` is in tokens per second; None means as fast as it can. An answer has some sixty to a hundred and twenty
    tokens and is made of the sentences of a corpus about this project's subjects. Raises ConfigurationError if the
    corpus isn't the one that was released, or if `pace` isn't above zero.
    """

    def __init__(self, *, pace: float | None = None) -> None:
        if pace is not None and not pace > 0:
            raise ConfigurationError(f"pace must be above 0 tokens per second, got {pace}", metadata={"field": "pace"})
        self._pace = pace
        passages = corpus.load()
        self._model = NgramModel(passages, _FALLBACK_QUESTION)
        self._fingerprint = f"embedded-{_FORMAT_VERSION}-{corpus.CORPUS_SHA256[:12]}"
        for question in _WARM_QUESTIONS:
            self._warm(question)

    @property
    def name(self) -> str:
        """The gateway's name of this backend."""
        return "embedded"

    async def models(self) -> Sequence[Model]:
        """Returns the one model that it serves."""
        return (
            Model(
                id=MODEL_ID,
                owned_by="deepseek_grpc",
                backend=self.name,
                description=(
                    "A small n-gram model of a built-in text, for offline demos and tests. It is not a DeepSeek model. "
                    "It can think before it answers, call tools and answer in JSON by a schema, to try it all."
                ),
            ),
        )

    async def generate(self, request: GenerateRequest) -> Completion:
        """Returns the whole answer: the events of `stream`, put together."""
        events: list[Event] = []
        async for batch in self.stream(request):
            events += batch
        return collect(events, request.request_id)

    def stream(self, request: GenerateRequest) -> AsyncGenerator[Sequence[Event], None]:
        """Yields batches of events, one delta a token, with a turn of the event loop before each batch.

        With `thinking` it reasons shortly before the same answer. With tools it calls one that it has to call or that
        the user names, with arguments that satisfy the schema as far as it understands it. So does an answer in JSON by
        a schema, whose words are the user's; the model's own have no place in it.

        Raises UnimplementedError for the beginning of such JSON that isn't its own.
        """
        return self._say(take_turn(self._model, request, _seed(request)))

    async def complete(self, request: FimRequest) -> Completion:
        """Returns the whole text: the events of `stream_complete`, put together."""
        events: list[Event] = []
        async for batch in self.stream_complete(request):
            events += batch
        return collect(events, request.request_id)

    def stream_complete(self, request: FimRequest) -> AsyncGenerator[Sequence[Event], None]:
        """Yields batches as `stream` does; the text is made before its first token leaves, to end before the suffix."""
        return self._say(fill(self._model, request, _seed(request)))

    async def balance(self) -> AccountBalance:
        """Returns no balances: nothing is charged."""
        return AccountBalance(available=True)

    async def _say(self, steps: Generator[None, None, Speech]) -> AsyncGenerator[Sequence[Event], None]:
        """Takes the steps that lead to a speech and yields the batches of it."""
        batch: list[Event] = [Started(f"embedded-{uuid.uuid4().hex}", int(time.time()), MODEL_ID, self._fingerprint)]
        turn = await _prepare(steps)
        if self._pace is not None:
            yield batch
            batch = []
        begun = asyncio.get_running_loop().time()
        pause, leaving, finished = 0.0, 0, False
        while not finished:
            await asyncio.sleep(pause)
            if self._pace is None:
                until = time.perf_counter() + _SLICE_SECONDS
                while not finished and time.perf_counter() < until:
                    finished = turn.advance(_TOKENS_PER_LOOK, batch)
            else:
                finished = turn.advance(1, batch)
                leaving += len(batch)
                pause = max(0.0, begun + leaving / self._pace - asyncio.get_running_loop().time())
            if batch:
                yield batch
                batch = []

    async def aclose(self) -> None:
        """Releases nothing; the model goes with the engine."""

    def _warm(self, question: str) -> None:
        """Answers a common question some times, so that its contexts are at hand."""
        for seed in range(4):
            steps = prepare(self._model, GenerateRequest((user(question),)), seed)
            try:
                while True:
                    next(steps)
            except StopIteration as stop:
                generation = stop.value
            while not generation.advance(64, []):
                pass


def _seed(request: GenerateRequest | FimRequest) -> int:
    return int.from_bytes(os.urandom(8), "big") if request.seed is None else request.seed


async def _prepare(steps: Generator[None, None, Speech]) -> Speech:
    """Takes steps in slices; returns what they lead to."""
    await asyncio.sleep(0)
    until = time.perf_counter() + _SLICE_SECONDS
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            speech: Speech = stop.value
            return speech
        if time.perf_counter() >= until:
            await asyncio.sleep(0)
            until = time.perf_counter() + _SLICE_SECONDS
