"""JSON Schema, as far as tools use it: references and combinations made flat, and whether a value satisfies one.

What isn't understood (`pattern`, `format`, `not`, …) is passed over. Schemas come from strangers, so every check may
take so many steps only; a check that runs out of them fails.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

__all__ = ["Schema", "bound", "equal", "parse", "same_type"]

_MAX_CHARS = 40_000  # of a schema: parsing it is one step
_MAX_HOPS = 32  # from reference to reference
_MAX_STEPS = 2_000  # of one check
_MAX_COMPARED = 50  # of a list, with each of another
_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")


def parse(parameters: Mapping[str, Any] | str) -> dict[str, Any]:
    """Returns the schema of a tool's parameters as plain JSON; an empty one if it isn't any or is too long."""
    try:
        text = parameters if isinstance(parameters, str) else json.dumps(parameters, default=dict)
        found = json.loads(text) if len(text) <= _MAX_CHARS else {}
    except (TypeError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def equal(one: Any, other: Any) -> bool:
    """Tells whether two JSON values are equal: 1 and 1.0 are, 1 and true aren't."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return bool(one == other)


def same_type(value: Any, name: Any) -> bool:
    """Tells whether a JSON value is of the type with this name."""
    match value:
        case None:
            return bool(name == "null")
        case bool():
            return bool(name == "boolean")
        case int():
            return name in ("integer", "number")
        case float():
            return bool(name == "number" or (name == "integer" and value.is_integer()))
        case str():
            return bool(name == "string")
        case list():
            return bool(name == "array")
        case _:
            return bool(name == "object")


def bound(flat: Mapping[str, Any], keyword: str) -> Fraction | None:
    """Returns the number that a keyword gives, exactly, if it gives one."""
    found = flat.get(keyword)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return None
    return Fraction(found) if isinstance(found, int) else Fraction(repr(found))


class Schema:
    """The document of a schema, in which its parts are looked up."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def flat(self, part: Any) -> dict[str, Any]:
        """Returns a part of the document without `$ref` and `allOf`: what they say is merged into it."""
        return self._flat(part, [_MAX_HOPS])

    def types(self, flat: Mapping[str, Any]) -> list[str]:
        """Returns the types that a flat part allows, in its order; what it speaks of where it doesn't say."""
        found = flat.get("type")
        names = [found] if isinstance(found, str) else found
        if isinstance(names, list):
            return sorted((name for name in names if name in _TYPES), key="null".__eq__)  # Null is a last resort.
        for words, name in (
            (("properties", "required"), "object"),
            (("items", "minItems", "prefixItems"), "array"),
            (("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), "number"),
        ):
            if any(word in flat for word in words):
                return [name]
        return ["string"]

    def member(self, flat: Mapping[str, Any], index: int) -> Any:
        """Returns the part of the document that the member of a list at this place has to satisfy."""
        first = flat.get("prefixItems")
        return first[index] if isinstance(first, list) and index < len(first) else flat.get("items", {})

    def allows(self, value: Any, part: Any) -> bool:
        """Tells whether a value satisfies a part of the document."""
        return self._allows(value, part, [_MAX_STEPS])

    def _flat(self, part: Any, hops: list[int]) -> dict[str, Any]:
        if part is False:
            return {"enum": []}
        if not isinstance(part, dict):
            return {}
        reference, parts = part.get("$ref"), part.get("allOf")
        if reference is None and not isinstance(parts, list):
            return part
        hops[0] -= 1
        if hops[0] < 0:
            return {"enum": []}
        flat = {key: value for key, value in part.items() if key not in ("$ref", "allOf")}
        if isinstance(reference, str):
            flat = _merge(flat, self._flat(self._find(reference), hops))
        for other in parts if isinstance(parts, list) else ():
            flat = _merge(flat, self._flat(other, hops))
        return flat

    def _find(self, reference: str) -> Any:
        if not reference.startswith("#"):
            return None
        found: Any = self.document
        for name in reference[1:].split("/")[1:]:
            key = name.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                return None
        return found

    def _allows(self, value: Any, part: Any, steps: list[int]) -> bool:
        steps[0] -= 1
        if steps[0] < 0 or part is False:
            return False
        hops = [_MAX_HOPS]
        flat = self._flat(part, hops)
        steps[0] -= _MAX_HOPS - hops[0]
        found = flat.get("type")
        names = [found] if isinstance(found, str) else found
        if isinstance(names, list) and not any(same_type(value, name) for name in names):
            return False
        if isinstance(flat.get("enum"), list) and not any(equal(value, one) for one in flat["enum"]):
            return False
        if "const" in flat and not equal(value, flat["const"]):
            return False
        for word in ("anyOf", "oneOf"):
            branches = flat.get(word)
            if isinstance(branches, list):
                fits = sum(self._allows(value, branch, steps) for branch in branches)
                if not fits or (word == "oneOf" and fits > 1):
                    return False
        if isinstance(value, dict):
            return self._allows_object(value, flat, steps)
        if isinstance(value, list):
            return _sized(len(value), flat, "Items") and all(
                self._allows(one, self.member(flat, index), steps) for index, one in enumerate(value)
            )
        if isinstance(value, str):
            return _sized(len(value), flat, "Length")
        return isinstance(value, bool | None) or _counted(value, flat)

    def _allows_object(self, value: dict[str, Any], flat: dict[str, Any], steps: list[int]) -> bool:
        required, properties = flat.get("required"), flat.get("properties")
        if isinstance(required, list) and any(isinstance(name, str) and name not in value for name in required):
            return False
        known = properties if isinstance(properties, dict) else {}
        others = flat.get("additionalProperties", {})
        return all(self._allows(one, known.get(name, others), steps) for name, one in value.items())


def _sized(size: int, flat: Mapping[str, Any], what: str) -> bool:
    low, high = bound(flat, f"min{what}"), bound(flat, f"max{what}")
    return (low is None or size >= low) and (high is None or size <= high)


def _counted(value: float, flat: Mapping[str, Any]) -> bool:
    exact = bound({"value": value}, "value")
    if exact is None:
        return False
    low, above = bound(flat, "minimum"), bound(flat, "exclusiveMinimum")
    high, below = bound(flat, "maximum"), bound(flat, "exclusiveMaximum")
    step = bound(flat, "multipleOf")
    return (
        (low is None or exact >= low)
        and (above is None or exact > above)
        and (high is None or exact <= high)
        and (below is None or exact < below)
        and (not step or (exact / step).denominator == 1)
    )


def _merge(one: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what both say. Where that has no simple form `one` has its way, and a check finds out."""
    merged = dict(one)
    for key, value in other.items():
        have = merged.get(key)
        if key not in merged:
            merged[key] = value
        elif key == "properties" and isinstance(have, dict) and isinstance(value, dict):
            both = {name: {"allOf": [have[name], value[name]]} for name in have.keys() & value.keys()}
            merged[key] = {name: both.get(name, part) for name, part in {**have, **value}.items()}
        elif key == "required" and isinstance(have, list) and isinstance(value, list):
            merged[key] = [*have, *value]
        elif key == "enum" and isinstance(have, list) and isinstance(value, list):
            short = value[:_MAX_COMPARED]
            merged[key] = [one for one in have[:_MAX_COMPARED] if any(equal(one, other) for other in short)]
        elif key == "type":
            merged[key] = _common(have, value)
        elif key == "items":
            merged[key] = {"allOf": [have, value]}
        elif key in _LOWER + _UPPER:
            mine, yours = bound(merged, key), bound(other, key)
            if mine is None or (yours is not None and (yours > mine if key in _LOWER else yours < mine)):
                merged[key] = value
    return merged


def _common(one: Any, other: Any) -> list[Any]:
    names = [one] if isinstance(one, str) else list(one or ())
    others = [other] if isinstance(other, str) else list(other or ())
    if "number" in others and "integer" in names and "integer" not in others:
        others.append("integer")
    if "number" in names and "integer" in others and "integer" not in names:
        names.append("integer")
    return [name for name in names if name in others]
