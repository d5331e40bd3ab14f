"""The n-gram model: counts of the corpus, and what may follow two tokens when the talk is of some topic."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from deepseek_grpc.gateway.engines.embedded.corpus import Passage
from deepseek_grpc.gateway.engines.embedded.relevance import Index, Topic
from deepseek_grpc.gateway.engines.embedded.sampling import Distribution, distribution
from deepseek_grpc.gateway.engines.embedded.tokens import MAX_TOKEN_CHARS, split, stem
from deepseek_grpc.types import TextDelta

__all__ = ["EARLY", "END", "LATE", "MIDDLE", "START", "UNKNOWN", "Focus", "Model"]

END, START, UNKNOWN = 0, 1, 2
"""Tokens without a text of their own."""

EARLY, MIDDLE, LATE = 0, 1, 2
"""How far an answer has come: too short to end, long enough to end, or to be ended with this sentence."""

MAX_CANDIDATES = 32

_PARTS = 1_000_000
_TOPIC_PHRASE, _TOPIC_TRIGRAM, _TRIGRAM, _TOPIC_BIGRAM, _BIGRAM = 64, 10, 3, 2, 1
"""How much each source of candidates weighs; each is shared out by its counts."""
_PROMPT_FACTOR = 4
"""How much more a word of the prompt weighs."""

_MAX_FOCUSES = 32
_MAX_CONTEXTS = 2048

Counts: TypeAlias = tuple[tuple[int, int], ...]
"""Tokens with their weights, the heaviest first and then the lowest id."""
Table: TypeAlias = dict[int, Counts]
"""What follows so many tokens, by the number that they form; the weights are shares of `_PARTS`."""


class Model:
    """A trigram model with back-off over passages. It never changes after it is made, but for bounded memos."""

    def __init__(self, passages: Sequence[Passage], fallback: str) -> None:
        """Trains on the passages' answers; `fallback` is the question that is answered where nothing matches."""
        self.index = Index(passages, fallback)
        self.texts: list[str] = ["<|end|>", "<|start|>", "<|unknown|>"]
        self.ids: dict[str, int] = {}
        self.passages: list[tuple[int, ...]] = []
        for passage in passages:
            # The space lets the first word be the same token as elsewhere; answers leave it out again.
            tokens = split(" " + passage.answer)
            self.passages.append((START, START, START, *(self._id(token) for token in tokens), END))
        self.deltas = tuple(TextDelta(text) for text in self.texts)
        self.size = len(self.texts)
        self.sentence_marks = frozenset(self.ids[mark] for mark in ".?!" if mark in self.ids)
        self.only_full_stop = distribution(((self.ids["."], 1),), 0.0, 1.0)
        self.stems: dict[str, list[int]] = {}
        for token, i in self.ids.items():
            self.stems.setdefault(stem(token), []).append(i)
        self.trigrams = _count(self.passages, 2, self.size)
        self.bigrams = _count(self.passages, 1, self.size)
        unigrams = Counter(token for tokens in self.passages for token in tokens if self.is_spaced_word(token))
        self.unigrams = _shares(unigrams)
        self._tables: dict[int, tuple[Table, Table, Table]] = {}
        self._focuses: OrderedDict[Topic, Focus] = OrderedDict()

    def _id(self, token: str) -> int:
        found = self.ids.get(token)
        if found is None:
            if len(token) >= MAX_TOKEN_CHARS:
                raise ValueError(f"the word {token!r} is too long to be one token")
            found = self.ids[token] = len(self.texts)
            self.texts.append(token)
        return found

    def is_spaced_word(self, token: int) -> bool:
        """Tells whether a token is a word with a space before it, which may follow any token."""
        text = self.texts[token]
        return text[0] == " " and text[1:].isalpha()

    def glues(self, token: int) -> bool:
        """Tells whether a token is a word without a space, which continues what is before it."""
        return token > UNKNOWN and self.texts[token][0].isalnum()

    def ends_sentence(self, before: int, token: int) -> bool:
        """Tells whether a token ends a sentence; the point in `0.95` doesn't."""
        if token not in self.sentence_marks:
            return False
        return not all(self.glues(after) for after, _ in self.trigrams.get(before * self.size + token, ((END, 1),)))

    def tables(self, passage: int) -> tuple[Table, Table, Table]:
        """Returns what follows three, two and one tokens in a passage, counted when first asked for."""
        found = self._tables.get(passage)
        if found is None:
            texts = self.passages[passage : passage + 1]
            # Up to one token more than elsewhere: within its topic the model should speak in whole phrases.
            found = self._tables[passage] = (
                _count(texts, 3, self.size),
                _count(texts, 2, self.size),
                _count(texts, 1, self.size),
            )
        return found

    def focus(self, topic: Topic) -> Focus:
        """Returns the model as it speaks about a topic; the latest topics are kept."""
        found = self._focuses.get(topic)
        if found is None:
            found = self._focuses[topic] = Focus(self, topic)
            if len(self._focuses) > _MAX_FOCUSES:
                self._focuses.popitem(last=False)
        self._focuses.move_to_end(topic)
        return found


class Focus:
    """What may follow two tokens when the talk is of one topic, memoised."""

    def __init__(self, model: Model, topic: Topic) -> None:
        self._model = model
        tables = [(share, model.tables(passage)) for passage, share in topic.passages]
        self._phrases = [(share, phrases) for share, (phrases, _, _) in tables]
        self._trigrams = [(share, trigrams) for share, (_, trigrams, _) in tables]
        self._bigrams = [(share, bigrams) for share, (_, _, bigrams) in tables]
        self._phrase_contexts = frozenset(context for _, phrases in self._phrases for context in phrases)
        self._boosted = frozenset(token for word in topic.stems for token in model.stems.get(word, ()))
        self._candidates: Table = {}
        self._tables: dict[tuple[float, float], dict[int, Distribution]] = {}
        self._filled = 0

    def table(self, temperature: float, top_p: float) -> dict[int, Distribution]:
        """Returns the memo of a way of sampling, from `key` to distribution; `fill` adds to it and may replace it."""
        return self._tables.setdefault((temperature, top_p), {})

    def fill(self, key: int, temperature: float, top_p: float) -> Distribution:
        """Computes and memoises what may follow a context."""
        found = distribution(self.candidates(key), temperature, top_p)
        self._filled += 1
        if self._filled > _MAX_CONTEXTS:
            self._tables.clear()
            self._filled = 1
        self.table(temperature, top_p)[key] = found
        return found

    def key(self, first: int, second: int, third: int, phase: int) -> int:
        """Numbers a context of three tokens. The phase matters behind a sentence only and is EARLY elsewhere."""
        size = self._model.size
        context = (first * size + second) * size + third
        if context not in self._phrase_contexts:
            # Then the first token makes no difference, and one number serves them all.
            context = (UNKNOWN * size + second) * size + third
        return context * 3 + phase

    def candidates(self, key: int) -> Counts:
        """Returns at most `MAX_CANDIDATES` tokens with their weights, the heaviest and then the lowest id first."""
        found = self._candidates.get(key)
        if found is None:
            if len(self._candidates) >= _MAX_CONTEXTS:
                self._candidates.clear()
            found = self._candidates[key] = self._weigh(*divmod(key, 3))
        return found

    def _weigh(self, context: int, phase: int) -> Counts:
        model = self._model
        pair, last = context % (model.size * model.size), context % model.size
        sentence_end = model.ends_sentence(pair // model.size, last)
        if sentence_end and phase == LATE:
            return ((END, 1),)
        weights: dict[int, int] = {}
        _mix(weights, _TOPIC_PHRASE, self._phrases, context)
        if last != START:  # The topic alone says how an answer begins.
            _mix(weights, _TOPIC_TRIGRAM, self._trigrams, pair)
            _add(weights, 100 * _TRIGRAM, model.trigrams.get(pair, ()))
        if sentence_end and phase == EARLY:
            weights.pop(END, None)
        if not weights:
            _mix(weights, _TOPIC_BIGRAM, self._bigrams, last)
            _add(weights, 100 * _BIGRAM, model.bigrams.get(last, ()))
            # Backing off must not glue parts of words that never stood together.
            weights = {token: weight for token, weight in weights.items() if token != END and not model.glues(token)}
        if not weights:
            _add(weights, 1, model.unigrams)
        for token in self._boosted.intersection(weights):
            weights[token] *= _PROMPT_FACTOR
        if sentence_end and phase == MIDDLE:
            weights[END] = weights.get(END, 0) + sum(weights.values()) // 4
        return _top(weights)


def _count(texts: Iterable[Sequence[int]], order: int, size: int) -> Table:
    found: dict[int, dict[int, int]] = {}
    modulus = size**order
    for tokens in texts:
        context = 0
        for i, token in enumerate(tokens):
            if i >= order:
                # What a passage says first matters most; so without chance, an answer begins like the passage.
                weight = 200 - i if i < 150 else 50
                after = found.get(context)
                if after is None:
                    found[context] = {token: weight}
                else:
                    after[token] = after.get(token, 0) + weight
            context = (context * size + token) % modulus
    return {context: _shares(after) for context, after in found.items()}


def _shares(weights: Mapping[int, int]) -> Counts:
    if len(weights) == 1:
        return tuple((token, _PARTS) for token in weights)
    counts = _top(weights)
    total = sum(weight for _, weight in counts)
    return tuple((token, _PARTS * weight // total) for token, weight in counts)


def _top(weights: Mapping[int, int]) -> Counts:
    if len(weights) == 1:
        return tuple(weights.items())
    # Sorting is stable, also in reverse: equal weights stay in the order of their ids.
    ranked = sorted(sorted(weights), key=weights.__getitem__, reverse=True)[:MAX_CANDIDATES]
    return tuple([(token, weights[token]) for token in ranked])


def _add(weights: dict[int, int], factor: int, counts: Counts) -> None:
    for token, share in counts:
        weights[token] = weights.get(token, 0) + factor * share


def _mix(weights: dict[int, int], factor: int, tables: Sequence[tuple[int, Table]], context: int) -> None:
    """Adds what the passages that know a context say, each with its share in the topic."""
    known = [(share, table[context]) for share, table in tables if context in table]
    total = sum(share for share, _ in known)
    for share, counts in known:
        _add(weights, 100 * factor * share // total, counts)
