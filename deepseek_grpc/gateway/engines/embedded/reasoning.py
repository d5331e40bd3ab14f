"""Reasoning: a short thought before the answer, in the words of the prompt and of the model."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from deepseek_grpc.gateway.engines.embedded.generation import Generation
from deepseek_grpc.gateway.engines.embedded.model import Model
from deepseek_grpc.gateway.engines.embedded.prompt import Prompt
from deepseek_grpc.gateway.engines.embedded.tokens import split
from deepseek_grpc.types import Event, GenerateRequest, ReasoningDelta, TextDelta, TokenLogprob

__all__ = ["Reasoning", "Speech", "Turn"]

_SENTENCE_TOKENS = 22  # of the model's own sentence, at most, before its full stop
_NAMED_WORDS = 2  # of the prompt


class Speech(Protocol):
    """What a model says, token by token."""

    def advance(self, tokens: int, events: list[Event]) -> bool:
        """Generates up to so many tokens, adds their events, and tells whether all is said."""


class Turn(Speech, Protocol):
    """What a model says in answer to a conversation, which reasoning may precede."""

    def reasoned(self, tokens: int) -> None:
        """Counts the tokens of the reasoning before it, which share its limit; called before `advance`."""


class Reasoning:
    """Says what the question is about and one sentence on that, and then what comes after the reasoning.

    Its random numbers are a stream of their own, and it leaves no trace in the answer, which is the same without it.
    """

    def __init__(
        self, model: Model, request: GenerateRequest, prompt: Prompt, words: list[str], seed: int, then: Turn
    ) -> None:
        self._then = then
        self._logprobs = request.logprobs
        self._limit = request.max_tokens
        self._count = 0
        self._opening = split(_opening(words))
        alone = replace(prompt, answered=[], partial="", before="", frame=(), closing="", over=False)
        plain = replace(request, max_tokens=None, stop=(), response_format=None)
        self._sentence = Generation(model, plain, alone, seed, aside="reasoning", sentence=_SENTENCE_TOKENS)
        self._over = False

    def reasoned(self, tokens: int) -> None:
        """Counts tokens before these."""
        self._count += tokens

    def advance(self, tokens: int, events: list[Event]) -> bool:
        """Generates up to so many tokens of the reasoning or, when that is over, of what comes then."""
        if self._over:
            return self._then.advance(tokens, events)
        for _ in range(tokens):
            if self._count == self._limit or self._sentence.at_sentence_end:
                return self._end()
            if self._count < len(self._opening):
                token = self._opening[self._count]
                logprobs = (TokenLogprob(token, 0.0, token.encode()),) if self._logprobs else ()
                events.append(ReasoningDelta(token, logprobs))
            else:
                said: list[Event] = []
                if self._sentence.advance(1, said) or not said:  # The model has nothing to say.
                    return self._end()
                events.extend(ReasoningDelta(event.text, event.logprobs) for event in said if type(event) is TextDelta)
            self._count += 1
        return False

    def _end(self) -> bool:
        self._over = True
        self._then.reasoned(self._count)
        return False


def _opening(words: list[str]) -> str:
    named = list(dict.fromkeys(words))[:_NAMED_WORDS]
    if not named:
        return "The question has no word that I know."
    return f"The question is about {' and '.join(named)}."
