"""From weights to a token: temperature, top_p, penalties, and random numbers that depend on (seed, position) alone.

Weights are rounded to whole numbers after every logarithm and exponential, so that the last digit of a machine's
mathematics library cannot change a text.
"""

from __future__ import annotations

import hashlib
import math
import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["Distribution", "Draws", "distribution"]

_SCALE = 1 << 30  # a weight of the likeliest token
_BLOCK = 64  # random numbers from one hash
_NUMBERS = struct.Struct(f"<{_BLOCK}Q")


class Distribution(NamedTuple):
    """Tokens, the likeliest first and then by id, with their weights summed up to each."""

    sums: tuple[int, ...]
    tokens: tuple[int, ...]

    def draw(self, number: int) -> int:
        """Returns the place of the token that a random number below 2**64 stands for."""
        return bisect_right(self.sums, number * self.sums[-1] >> 64)

    def logprob(self, index: int) -> float:
        """Returns the natural logarithm of the probability of the token at a place."""
        below = self.sums[index - 1] if index else 0
        return math.log((self.sums[index] - below) / self.sums[-1])


def distribution(
    candidates: Sequence[tuple[int, int]],
    temperature: float,
    top_p: float,
    less: Mapping[int, float] | None = None,
) -> Distribution:
    """Shapes candidates (token, weight > 0) into what is sampled from; `less` holds the penalties by token."""
    if len(candidates) == 1:
        return Distribution((1,), (candidates[0][0],))
    if temperature == 1 and not less:
        ranked = [(-weight, token) for token, weight in candidates]
        ranked.sort()
    else:
        ranked = _rank(candidates, temperature, less or {})
    enough = -sum([weight for weight, _ in ranked]) * min(_SCALE, round(top_p * _SCALE))
    sums, tokens = [], []
    so_far = 0
    for weight, token in ranked:
        so_far -= weight
        sums.append(so_far)
        tokens.append(token)
        if so_far * _SCALE >= enough:
            break
    return Distribution(tuple(sums), tuple(tokens))


def _rank(
    candidates: Sequence[tuple[int, int]], temperature: float, less: Mapping[int, float]
) -> list[tuple[int, int]]:
    """Returns (minus the weight, token) of what is left of the candidates, the likeliest first."""
    logits = [math.log(weight) - less.get(token, 0.0) for token, weight in candidates]
    best = max(logits)
    if temperature <= 0:
        # Rounded here too: logits that are equal but for an ulp are a tie, and ties go to the lower id.
        return [(-1, min(token for logit, (token, _) in zip(logits, candidates, strict=True) if best - logit < 1e-9))]
    weights = [round(_SCALE * math.exp((logit - best) / temperature)) for logit in logits]
    return sorted([(-weight, token) for weight, (token, _) in zip(weights, candidates, strict=True) if weight])


class Draws:
    """Random numbers below 2**64, one for each position, by hashing the seed, the stream and the position."""

    def __init__(self, seed: int, stream: str = "") -> None:
        """Draws from one of the seed's independent streams; the answer's own has no name."""
        self._seed = f"embedded-ngram {stream}{' ' if stream else ''}{seed} ".encode()
        self._block = -1
        self._numbers: tuple[int, ...] = ()

    def number(self, position: int) -> int:
        """Returns the number of a position (from 0), the same whichever was asked for before."""
        block = position // _BLOCK
        if block != self._block:
            digest = hashlib.shake_128(self._seed + b"%d" % block).digest(_NUMBERS.size)
            self._block, self._numbers = block, _NUMBERS.unpack(digest)
        return self._numbers[position % _BLOCK]
