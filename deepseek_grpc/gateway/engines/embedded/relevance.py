"""Which passages a prompt is about: a small TF-IDF index, in whole numbers so that every machine ranks alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deepseek_grpc.gateway.engines.embedded.corpus import Passage
from deepseek_grpc.gateway.engines.embedded.tokens import split, stem

__all__ = ["Index", "Topic", "terms"]

MAX_PASSAGES = 3
MAX_TERMS = 12

_QUESTION_WEIGHT = 5  # a word of the question counts as much as so many of the answer
_STOP_WORDS = """
a about an and any are as at be been but by can could did do does explain for from give had has have how i if in into is
it its just like made make makes many may me mean means more most much my need no not of on one or our out please shall
should so some tell than that the their them then there these they this those to two us use used using very want was way
we were what when where which while who whom why will with without would write you your yours
"""
_UNSPOKEN = frozenset(map(stem, _STOP_WORDS.split()))


def terms(tokens: Iterable[str]) -> list[str]:
    """Returns the stems of the tokens that say what a text is about."""
    stems = (stem(token) for token in tokens)
    return [word for word in stems if word and word not in _UNSPOKEN and (word.isalnum() or "_" in word)]


@dataclass(frozen=True, slots=True)
class Topic:
    """What an answer should be about: passages by their index, with shares in percent, and the prompt's own stems."""

    passages: tuple[tuple[int, int], ...]
    stems: tuple[str, ...]


class Index:
    """Finds the passages for a bag of weighted terms."""

    def __init__(self, passages: Sequence[Passage], fallback: str) -> None:
        """Indexes the passages; the one with the question `fallback` stands in where nothing matches."""
        self._fallback = next(i for i, passage in enumerate(passages) if passage.question == fallback)
        bags: list[Counter[str]] = []
        for passage in passages:
            bag = Counter(dict.fromkeys(terms(split(passage.answer)), 1))
            for term in terms(split(passage.question)):
                bag[term] += _QUESTION_WEIGHT
            bags.append(bag)
        frequency = Counter(term for bag in bags for term in bag)
        self._idf = {term: round(64 * math.log(1 + len(bags) / count)) for term, count in frequency.items()}
        self._postings: dict[str, list[tuple[int, int]]] = {}
        for i, bag in enumerate(bags):
            asked = set(terms(split(passages[i].question)))
            # Only the question's length normalises: all answers are about equally long.
            norm = math.isqrt(sum((_QUESTION_WEIGHT * self._idf[term]) ** 2 for term in asked)) + 300
            for term, count in bag.items():
                self._postings.setdefault(term, []).append((i, 1000 * count * self._idf[term] // norm))

    def topic(self, bag: Mapping[str, int]) -> Topic:
        """Returns the best passages for a prompt's terms and their weights."""
        scores: Counter[int] = Counter()
        weights = {term: count * self._idf[term] for term, count in bag.items() if term in self._idf}
        known = sorted(weights, key=lambda term: (-weights[term], term))
        for term in known[: 2 * MAX_TERMS]:
            for passage, score in self._postings[term]:
                scores[passage] += weights[term] * score
        ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:MAX_PASSAGES]
        if not ranked:
            return Topic(((self._fallback, 100),), ())
        # Cubes, so that a passage must come close to the best one to be heard.
        heard = [(passage, (100 * score // ranked[0][1]) ** 3 // 10_000) for passage, score in ranked]
        audible = tuple((passage, share) for passage, share in heard if share >= 10)
        return Topic(audible, tuple(sorted(known[:MAX_TERMS])))
