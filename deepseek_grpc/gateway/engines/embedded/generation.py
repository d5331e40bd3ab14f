"""One answer, token by token: no clock, no event loop, no randomness but the seed's."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Generator, Sequence

from deepseek_grpc.gateway.engines.embedded.model import EARLY, END, LATE, MIDDLE, START, UNKNOWN, Model
from deepseek_grpc.gateway.engines.embedded.prompt import Prompt, analyze
from deepseek_grpc.gateway.engines.embedded.sampling import Distribution, Draws, distribution
from deepseek_grpc.gateway.engines.embedded.stops import StopFilter
from deepseek_grpc.types import Event, Finished, GenerateRequest, TextDelta, TokenLogprob, Upstream, Usage

__all__ = ["Generation", "prepare", "start"]

_EARLY_TOKENS, _LATE_TOKENS = 56, 96  # an answer ends between these, at the end of a sentence
_SENTENCE_TOKENS = 60  # a sentence that circles is ended by force
_SAID_BEFORE = math.log(16)  # off the logit of a token for each time that it followed the same three tokens already
_SAID_KEPT = 7  # such times


def prepare(model: Model, request: GenerateRequest, seed: int) -> Generator[None, None, Generation]:
    """Reads a request, the beginning of its answer included; pauses at every yield; returns what generates the rest."""
    prompt = yield from analyze(model, request)
    return (yield from start(model, request, prompt, seed))


def start(model: Model, request: GenerateRequest, prompt: Prompt, seed: int) -> Generator[None, None, Generation]:
    """Takes over the beginning of the answer from an analysed request; pauses and returns as `prepare` does."""
    generation = Generation(model, request, prompt, seed)
    for i, token in enumerate(prompt.answered):
        generation.take(token)
        if i % 64 == 0:
            yield
    return generation


class Generation:
    """Samples the tokens of one answer.

    A token's random number depends on the seed and on its position within the answer, and its candidates on the answer
    so far. So it doesn't matter which part of the answer was generated here and which came with the request.
    """

    def __init__(
        self, model: Model, request: GenerateRequest, prompt: Prompt, seed: int, *, aside: str = "", sentence: int = 0
    ) -> None:
        """Generates the answer; or what is said `aside`, behind another text and from the seed's stream of that name.

        A sentence that circles is ended after `sentence` tokens, if given.
        """
        self._model = model
        self._focus = prompt.focus
        self._prompt_tokens = prompt.tokens
        self._draws = Draws(seed, aside)
        self._spaced = bool(aside)
        self._sentence_tokens = sentence or _SENTENCE_TOKENS
        self._temperature = 1.0 if request.temperature is None else request.temperature
        self._top_p = 1.0 if request.top_p is None else request.top_p
        self._frequency = request.frequency_penalty or 0.0
        self._presence = request.presence_penalty or 0.0
        self._penalised = bool(self._frequency or self._presence)
        self._logprobs = request.logprobs
        self._top_logprobs = request.top_logprobs or 0
        self._limit = request.max_tokens
        self._completion_tokens = 0
        self._reasoning_tokens: int | None = None
        self._stops = StopFilter(request.stop, prompt.before) if any(request.stop) else None
        self._frame, self._closing, self._over = deque(prompt.frame), prompt.closing, prompt.over

        self._first = self._second = self._third = START
        self._position = 0
        self._sentence = 0  # the position where the sentence began
        self._counts: Counter[int] = Counter()
        self._said: dict[int, tuple[int, ...]] = {}  # what followed three tokens, by their number
        self._partial = prompt.partial
        self._table = self._focus.table(self._temperature, self._top_p)

    def advance(self, tokens: int, events: list[Event]) -> bool:
        """Generates up to so many tokens, adds their events, and tells whether the answer is finished."""
        self._table = self._focus.table(self._temperature, self._top_p)
        return any(self._step(events) for _ in range(tokens))

    def reasoned(self, tokens: int) -> None:
        """Counts the tokens of the reasoning before the answer, which share its limit; called before `advance`."""
        self._completion_tokens = self._reasoning_tokens = tokens

    @property
    def at_sentence_end(self) -> bool:
        """Whether the latest token ended a sentence."""
        return self._sentence == self._position > 0

    def _step(self, events: list[Event]) -> bool:
        if self._partial:
            return self._complete(events)
        if self._frame:
            if self._completion_tokens == self._limit:
                return self._finish("length", events)
            frame = self._frame.popleft()
            return self._emit(frame, (TokenLogprob(frame, 0.0, frame.encode()),) if self._logprobs else (), events)
        if self._over:
            return self._finish("stop", events)
        if self._completion_tokens == self._limit:
            return self._finish("length", events)
        found = self._distribution()
        index = found.draw(self._draws.number(self._position))
        token = found.tokens[index]
        if token == END:
            if self._closing:
                self._frame.append(self._closing)
            self._over = True
            return False
        text = self._text(token)
        logprobs = self._describe(found, index) if self._logprobs else ()
        plain = self._stops is None and not logprobs and self._position > 0
        self.take(token)
        if plain:  # The common case, without making anything.
            self._completion_tokens += 1
            events.append(self._model.deltas[token])
            return False
        return self._emit(text, logprobs, events)

    def _complete(self, events: list[Event]) -> bool:
        """Redraws the last token of a beginning, which may have been cut short, and writes what it lacks."""
        partial, self._partial = self._partial, ""
        found = self._distribution()
        number = self._draws.number(self._position)
        index = found.draw(number)
        token = found.tokens[index]
        known = self._model.ids.get(partial)
        texts = self._model.texts
        if token == END or not texts[token].startswith(partial):
            # Not a beginning of this model's: take the token as it is, or complete it if only that makes it a word.
            candidates = self._focus.candidates(self._key())
            fitting = [pair for pair in candidates if pair[0] != END and texts[pair[0]].startswith(partial)]
            if known is not None or not fitting:
                self.take(UNKNOWN if known is None else known)
                return False
            found = self._shape(fitting)
            index = found.draw(number)
            token = found.tokens[index]
        rest = texts[token][len(partial) :]
        logprobs = self._describe(found, index) if self._logprobs and rest else ()
        self.take(token)
        return bool(rest) and self._emit(rest, logprobs, events)

    def take(self, token: int) -> None:
        """Adds a token to the answer, whoever generated it."""
        said = self._context()
        self._said[said] = (*self._said.get(said, ())[-_SAID_KEPT:], token)
        self._first, self._second, self._third = self._second, self._third, token
        self._position += 1
        if token in self._model.sentence_marks and self._model.ends_sentence(self._second, token):
            self._sentence = self._position
        if self._penalised:
            self._counts[token] += 1

    def _key(self) -> int:
        phase = EARLY
        if self._sentence == self._position > _EARLY_TOKENS:
            phase = MIDDLE if self._position < _LATE_TOKENS else LATE
        return self._focus.key(self._first, self._second, self._third, phase)

    def _context(self) -> int:
        size = self._model.size
        return (self._first * size + self._second) * size + self._third

    def _distribution(self) -> Distribution:
        if self._position - self._sentence >= self._sentence_tokens:
            return self._model.only_full_stop
        key = self._key()
        if self._counts or self._context() in self._said:
            return self._shape(self._focus.candidates(key))
        found = self._table.get(key)
        return self._focus.fill(key, self._temperature, self._top_p) if found is None else found

    def _shape(self, candidates: Sequence[tuple[int, int]]) -> Distribution:
        counts = self._counts
        less = {token: self._frequency * counts[token] + self._presence for token, _ in candidates if token in counts}
        for token in self._said.get(self._context(), ()):
            less[token] = less.get(token, 0.0) + _SAID_BEFORE
        return distribution(candidates, self._temperature, self._top_p, less)

    def _text(self, token: int) -> str:
        text = self._model.texts[token]
        return text if self._position or self._spaced else text.removeprefix(" ")

    def _describe(self, found: Distribution, index: int) -> tuple[TokenLogprob, ...]:
        def one(place: int, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
            text = self._text(found.tokens[place])
            return TokenLogprob(text, found.logprob(place), text.encode(), top)

        return (one(index, tuple(one(place) for place in range(min(self._top_logprobs, len(found.tokens))))),)

    def _emit(self, text: str, logprobs: tuple[TokenLogprob, ...], events: list[Event]) -> bool:
        self._completion_tokens += 1
        delta = TextDelta(text, logprobs)
        if self._stops is None:
            events.append(delta)
            return False
        released, stopped = self._stops.feed(delta)
        events.extend(released)
        if stopped:
            events.append(self._finished("stop"))
        return stopped

    def _finish(self, reason: str, events: list[Event]) -> bool:
        if self._stops is not None:
            events.extend(self._stops.flush())
        events.append(self._finished(reason))
        return True

    def _finished(self, reason: str) -> Finished:
        prompt, completion = self._prompt_tokens, self._completion_tokens
        usage = Usage(prompt, completion, prompt + completion, reasoning_tokens=self._reasoning_tokens)
        return Finished(reason, usage, Upstream(backend="embedded"))
