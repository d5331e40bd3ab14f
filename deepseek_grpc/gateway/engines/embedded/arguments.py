"""A JSON value that satisfies a schema, in the words of the prompt where it has any: a tool's arguments, an answer."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Sequence
from fractions import Fraction
from typing import Any

from deepseek_grpc.gateway.engines.embedded.sampling import Draws
from deepseek_grpc.gateway.engines.embedded.schema import Schema, bound

__all__ = ["arguments", "instance"]

_MAX_VALUES = 400  # tried in all; what is left then stays empty
_OPTIONAL_DEPTH = 3  # below it only what is required
_MAX_DEPTH = 10
_MAX_ITEMS = 64
_MAX_CHARS, _MAX_ALL_CHARS = 4096, 40_000  # of a string that has to be long, and of all of them
_SPAN = 10  # of the numbers to choose from
_PLAIN_WORDS = ("example", "value", "text")
_FORMATS = {
    "date": "2025-01-31",
    "date-time": "2025-01-31T12:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "time": "12:00:00Z",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def arguments(document: dict[str, Any], words: Sequence[str], draws: Draws) -> Generator[None, None, str]:
    """Makes a JSON object, as text; pauses at every yield. It satisfies the schema where the schema is understood."""
    text = yield from _text(document, {"allOf": [document], "type": "object"}, words, draws)
    return text if text.startswith("{") else "{}"


def instance(document: dict[str, Any], words: Sequence[str], draws: Draws) -> Generator[None, None, str]:
    """Makes a JSON value of any type, as text, as `arguments` does an object."""
    return (yield from _text(document, document, words, draws))


def _text(document: dict[str, Any], part: Any, words: Sequence[str], draws: Draws) -> Generator[None, None, str]:
    maker = _Maker(Schema(document), words or _PLAIN_WORDS, draws)
    try:
        found = yield from maker.value(part, 0)
        text = json.dumps(found, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(found)
    except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError):
        return "{}"  # The schema isn't one.
    return text


class _Maker:
    def __init__(self, schema: Schema, words: Sequence[str], draws: Draws) -> None:
        self._schema = schema
        self._words = words
        self._draws = draws
        self._drawn = 0
        self._values = 0
        self._chars = _MAX_ALL_CHARS

    def value(self, part: Any, depth: int) -> Generator[None, None, Any]:
        """Makes a value for a part of the schema, which satisfies it if any attempt does."""
        self._values += 1
        yield
        flat = self._schema.flat(part)
        for ready in _ready(flat):
            if self._schema.allows(ready, flat):
                return ready
        if depth > _MAX_DEPTH or self._values > _MAX_VALUES:
            return None
        if isinstance(flat.get("enum"), list):
            rest = {key: value for key, value in flat.items() if key != "enum"}
            fitting = [one for one in flat["enum"][:_MAX_ITEMS] if self._schema.allows(one, rest)]
            return fitting[self._draw(len(fitting))] if fitting else None
        found = None
        for word in ("anyOf", "oneOf"):
            branches = flat.get(word)
            if isinstance(branches, list) and branches:
                rest = {key: value for key, value in flat.items() if key != word}
                tried = []
                branches = branches[:_MAX_ITEMS]
                if depth > _OPTIONAL_DEPTH:  # What refers to itself has to end.
                    branches.sort(key=lambda branch: isinstance(branch, dict) and "$ref" in branch)
                for branch in branches:
                    tried.append((yield from self.value({"allOf": [branch, rest]}, depth + 1)))
                    if self._schema.allows(tried[-1], flat):
                        return tried[-1]
                return tried[0]
        names = self._schema.types(flat)
        for name in names:
            found = yield from self._of_type(name, flat, depth)
            if name == names[-1] or self._schema.allows(found, flat):
                break
        return found

    def _of_type(self, name: str, flat: dict[str, Any], depth: int) -> Generator[None, None, Any]:
        if name == "object":
            return (yield from self._object(flat, depth))
        if name == "array":
            return (yield from self._array(flat, depth))
        if name == "string":
            return self._string(flat)
        if name in ("integer", "number"):
            return self._number(flat, whole=name == "integer")
        return bool(self._draw(2)) if name == "boolean" else None

    def _object(self, flat: dict[str, Any], depth: int) -> Generator[None, None, dict[str, Any]]:
        properties = flat.get("properties")
        known = properties if isinstance(properties, dict) else {}
        names = flat.get("required")
        required = {name: True for name in names if isinstance(name, str)} if isinstance(names, list) else {}
        found: dict[str, Any] = {}
        for name in dict.fromkeys([*known, *required]):
            part = known.get(name, flat.get("additionalProperties", {}))
            if name in required:
                found[name] = yield from self.value(part, depth + 1)
            elif depth < _OPTIONAL_DEPTH and self._values < _MAX_VALUES // 2 and self._draw(2):
                made = yield from self.value(part, depth + 1)
                if self._schema.allows(made, part):
                    found[name] = made
        return found

    def _array(self, flat: dict[str, Any], depth: int) -> Generator[None, None, list[Any]]:
        low, high = bound(flat, "minItems"), bound(flat, "maxItems")
        least = max(0, math.ceil(low)) if low is not None else 0
        wanted = max(least, 1 + self._draw(2)) if depth < _OPTIONAL_DEPTH else least
        if high is not None:
            wanted = max(0, min(wanted, math.floor(high)))
        found: list[Any] = []
        while len(found) < min(wanted, _MAX_ITEMS):
            part = self._schema.member(flat, len(found))
            made = yield from self.value(part, depth + 1)
            if len(found) >= least and not self._schema.allows(made, part):
                break
            found.append(made)
        return found

    def _string(self, flat: dict[str, Any]) -> str:
        low, high = bound(flat, "minLength"), bound(flat, "maxLength")
        least = min(_MAX_CHARS, self._chars, max(0, math.ceil(low))) if low is not None else 0
        most = max(0, math.floor(high)) if high is not None else _MAX_CHARS
        usual = _FORMATS.get(str(flat.get("format")))
        if usual is not None and least <= len(usual) <= most:
            return usual
        place = self._draw(len(self._words))
        text = " ".join(self._words[place : place + 1 + self._draw(3)])
        while len(text) < least:
            place += 1
            text += " " + self._words[place % len(self._words)]
        text = text[:most].rstrip() if len(text[:most].rstrip()) >= least else text[:most]
        self._chars = max(0, self._chars - len(text))
        return text

    def _number(self, flat: dict[str, Any], *, whole: bool) -> float | None:
        step = abs(bound(flat, "multipleOf") or Fraction(1))
        if whole:
            step = Fraction(step.numerator)  # whose multiples are the whole ones among the fraction's
        low, above = bound(flat, "minimum"), bound(flat, "exclusiveMinimum")
        high, below = bound(flat, "maximum"), bound(flat, "exclusiveMaximum")
        lows = [math.ceil(low / step)] if low is not None else []
        lows += [math.floor(above / step) + 1] if above is not None else []
        highs = [math.floor(high / step)] if high is not None else []
        highs += [math.ceil(below / step) - 1] if below is not None else []
        most = min(highs) if highs else max([1, *lows]) + _SPAN - 1
        least = max(lows) if lows else min(1, most - _SPAN + 1)
        if least <= most:
            first = max(least, min(1, most))  # Small positive numbers look best.
            made = (first + self._draw(min(_SPAN, most - first + 1))) * step
            return int(made) if made == int(made) else float(made)
        if whole or "multipleOf" in flat:
            return None
        floors = [edge for edge in (low, above) if edge is not None]
        ceilings = [edge for edge in (high, below) if edge is not None]
        return float((max(floors) + min(ceilings)) / 2)

    def _draw(self, count: int) -> int:
        """Returns a random number below `count`."""
        self._drawn += 1
        return self._draws.number(self._drawn) * count >> 64


def _ready(flat: dict[str, Any]) -> list[Any]:
    """Returns the values that a schema itself brings."""
    found = [flat[word] for word in ("const", "default") if word in flat]
    examples = flat.get("examples")
    return [*found, *(examples[:_MAX_ITEMS] if isinstance(examples, list) else ())]
