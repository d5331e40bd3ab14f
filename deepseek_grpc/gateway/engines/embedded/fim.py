"""Filling in the middle: several continuations of the prompt, and of them the one that leads best to the suffix."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from deepseek_grpc.gateway.engines.embedded.generation import Generation
from deepseek_grpc.gateway.engines.embedded.model import START, UNKNOWN, Model, Table
from deepseek_grpc.gateway.engines.embedded.prompt import Prompt, analyze
from deepseek_grpc.gateway.engines.embedded.tokens import chunks, split
from deepseek_grpc.types import (
    Event,
    FimRequest,
    Finished,
    GenerateRequest,
    TextDelta,
    TokenLogprob,
    Usage,
    assistant,
    user,
)

__all__ = ["Filling", "fill"]

_DRAFTS: Final = 16
_STEP_TOKENS: Final = 4  # of a draft before a pause
_TAIL_TOKENS: Final = 32  # of the prompt that a draft goes on from; they count towards its length
_HEARD_CHARS: Final = 1400  # of either side of the gap say what the talk is of
_SUFFIX_CHARS: Final = 200  # are looked at for its first two tokens

_NO_END, _SENTENCE, _WORD, _PHRASE, _FITTING = range(5)
"""How well a text ends before the suffix, from not at all to as well as this model can tell."""


class Filling:
    """A text that is made already, said token by token."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = deque(events)

    def advance(self, tokens: int, events: list[Event]) -> bool:
        """Adds up to so many events, and tells whether all is said."""
        events.extend(self._events.popleft() for _ in range(min(tokens, len(self._events))))
        return not self._events


def fill(model: Model, request: FimRequest, seed: int) -> Generator[None, None, Filling]:
    """Reads a request and fills its gap; pauses at every yield.

    Without a suffix the text goes on as an answer does and ends like one. With one it ends where the model knows how
    to go on with the suffix, or else with a sentence.
    """
    tokens = 0
    for chunk in chunks(request.suffix):
        tokens += len(chunk)
        yield
    tail: list[str] = []
    for chunk in chunks(request.prompt):
        tokens += len(chunk)
        tail = [*tail, *chunk][-_TAIL_TOKENS:]
        yield
    plain = _plain(request, "".join(tail))
    prompt = yield from analyze(model, plain)
    prompt.tokens, prompt.before = tokens, ""
    begun = request.suffix[:_SUFFIX_CHARS]
    ending = _Ending(model, begun) if begun.strip() else None
    best, text, finished = _NO_END, [], Finished("")
    # Without chance every draft is the same.
    for number in range(_DRAFTS if ending is not None and request.temperature != 0 else 1):
        said, end = yield from _draft(model, plain, prompt, seed, number)
        fit, size = (_NO_END, len(said)) if ending is None else ending.find(tail, said)
        if number == 0 or fit > best:
            best, text, finished = fit, said[:size], end
        if best == _FITTING:
            break
    if ending is not None and best > _NO_END:
        text += ending.space(request, text)
        finished = replace(finished, finish_reason="stop", usage=Usage(tokens, len(text), tokens + len(text)))
    echo = [TextDelta(request.prompt)] if request.echo and request.prompt else []
    return Filling([*echo, *text, finished])


def _plain(request: FimRequest, tail: str) -> GenerateRequest:
    """Returns the request for an answer that begins with the end of the prompt and is about both sides of the gap."""
    heard = f"{request.prompt[-_HEARD_CHARS:]}\n{request.suffix[:_HEARD_CHARS]}"
    return GenerateRequest(
        (user(heard), assistant(tail, prefix=True)),
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        stop=request.stop,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        logprobs=request.logprobs is not None,
        top_logprobs=request.logprobs,
    )


def _draft(
    model: Model, request: GenerateRequest, prompt: Prompt, seed: int, number: int
) -> Generator[None, None, tuple[list[TextDelta], Finished]]:
    """Goes on from the prompt, each draft with random numbers of its own; pauses at every yield."""
    generation = Generation(model, request, prompt, seed, aside=f"filling {number}")
    for token in prompt.answered:
        generation.take(token)
    events: list[Event] = []
    yield
    while not generation.advance(_STEP_TOKENS, events):
        yield
    said = [event for event in events if isinstance(event, TextDelta)]
    return said, next(event for event in events if isinstance(event, Finished))


def _follows(token: int, table: Table, context: int) -> bool:
    return any(token == known for known, _ in table.get(context, ()))


class _Ending:
    """Where a text may end before a suffix, which is more than blanks."""

    def __init__(self, model: Model, suffix: str) -> None:
        self._model = model
        begun = suffix.lstrip()
        before = suffix[: len(suffix) - len(begun)]
        self._paragraph = "\n" in before
        word = begun[0].isascii() and begun[0].isalnum()
        self._space = word and not before
        first, *rest = [model.ids.get(token, UNKNOWN) for token in split((" " if word or before else "") + begun)[:2]]
        self._first = first
        self._second = rest[0] if rest else None

    def find(self, tail: Sequence[str], said: Sequence[TextDelta]) -> tuple[int, int]:
        """Returns how well a text ends where it ends best, and how many of its pieces lie before; the first of many."""
        # The first piece may complete the prompt's last word.
        text = "".join([*tail[-2:], *(delta.text for delta in said)])
        ids = [START, *(self._model.ids.get(token, UNKNOWN) for token in split(text))]
        fits = [self._fit(before, last) for before, last in pairwise(ids[len(ids) - len(said) - 1 :])]
        best = max(fits, default=_NO_END)
        return best, fits.index(best) + 1 if best > _NO_END else len(said)

    def _fit(self, before: int, last: int) -> int:
        model, first = self._model, self._first
        known = _follows(first, model.trigrams, before * model.size + last)
        if self._paragraph or not (known or _follows(first, model.bigrams, last)):
            ends = model.ends_sentence(before, last)
            return _NO_END if not ends else _FITTING if self._paragraph else _SENTENCE
        if self._second is not None and not _follows(self._second, model.trigrams, last * model.size + first):
            return _WORD
        return _FITTING if known else _PHRASE

    def space(self, request: FimRequest, said: Sequence[TextDelta]) -> list[TextDelta]:
        """Returns the space before a suffix that begins with a word, where it may be said."""
        text = "".join(delta.text for delta in said) + " "
        if not self._space or len(said) == request.max_tokens or text.endswith(request.stop):
            return []
        return [TextDelta(" ", (TokenLogprob(" ", 0.0, b" "),) if request.logprobs is not None else ())]
