"""A tool call's arguments against the tool's JSON Schema, and how a misfit is described."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Never, TypeAlias

from deepseek_grpc.errors import ConfigurationError, InvalidRequestError, OutputError

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

__all__ = ["describe", "extra_missing", "parse_arguments"]

_SHOWN: Final = 3
"""How many of many misfits are described."""
_MAX_CHARS: Final = 160
"""Of one of them: what doesn't fit may be large, or not for a log."""
_NO_PARAMETERS: Final = '{"additionalProperties": false}'
_SAFE: Final = ("required", "dependentRequired", "additionalProperties", "unevaluatedProperties", "propertyNames")
"""Keywords whose messages speak of names; the others' repeat the value."""

Misfit: TypeAlias = tuple[Iterable[str | int], str]
"""Where in a JSON value something doesn't fit, and how."""


def parse_arguments(name: str, parameters: Mapping[str, Any] | str, arguments: str) -> dict[str, Any]:
    """Returns a call's arguments; see `Tool.parse`."""
    validator = _validator(_schema_text(parameters))
    try:
        found = _read(arguments) if arguments.strip() else {}
    except RecursionError:
        raise _misfit(name, "they are nested too deeply", arguments) from None
    except ValueError as error:
        raise _misfit(name, f"they are no JSON ({error})", arguments) from None
    if not isinstance(found, dict):
        raise _misfit(name, "they are no JSON object", arguments)
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    try:
        # Of the branches of an `anyOf`, the one that was meant says more than that none fits.
        misfits = [best_match([error]) or error for error in validator.iter_errors(found)]
    except Unresolvable as error:
        raise _bad_schema(f"refers to {str(error.ref)[:64]!r}, which it doesn't contain") from None
    except RecursionError:
        raise _bad_schema("refers to itself without end") from None
    if misfits:
        raise _misfit(name, describe([(error.absolute_path, _problem(error)) for error in misfits]), arguments)
    return found


def _read(text: str) -> Any:
    return json.loads(
        text, object_pairs_hook=_once, parse_int=_integer, parse_float=_finite, parse_constant=_no_constant
    )


def describe(misfits: Sequence[Misfit]) -> str:
    """Returns a sentence about the first misfits, of bounded length.

    >>> describe([(["days", 2, "high"], "not an integer"), ([], "too short")])
    'days[2].high: not an integer; too short'
    """
    said = []
    for path, problem in misfits[:_SHOWN]:
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
        said.append(f"{_short(place)}: {_short(problem)}" if place else _short(problem))
    if len(misfits) > _SHOWN:
        said.append(f"and {len(misfits) - _SHOWN} more")
    return "; ".join(said)


def extra_missing(what: str, library: str) -> ConfigurationError:
    """Makes the error for a library that isn't installed."""
    return ConfigurationError(f'{what} needs {library}; pip install "deepseek-grpc[structured]"')


def _schema_text(parameters: Mapping[str, Any] | str) -> str:
    if isinstance(parameters, str):
        return parameters or _NO_PARAMETERS
    if not isinstance(parameters, Mapping):
        raise _bad_schema(f"is a {type(parameters).__name__}; give a JSON Schema, as a mapping or as JSON text")
    try:
        return json.dumps(parameters, allow_nan=False, default=_plain)
    except RecursionError:
        raise _bad_schema("is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise _bad_schema(f"is no JSON ({error}); give a JSON Schema, as a mapping or as JSON text") from None


@lru_cache(maxsize=128)
def _validator(text: str) -> Validator:
    """Returns what checks values against a schema: as expensive to make as it is cheap to use."""
    try:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import Draft202012Validator, validator_for
        from referencing.jsonschema import EMPTY_REGISTRY
    except ImportError as error:
        raise extra_missing("Tool.parse", "jsonschema") from error
    try:
        schema = json.loads(text)
    except RecursionError:
        raise _bad_schema("is nested too deeply") from None
    except ValueError as error:
        raise _bad_schema(f"is no JSON ({error}); give a JSON Schema, as a mapping or as JSON text") from None
    if not isinstance(schema, dict):
        raise _bad_schema("is no JSON object; give a JSON Schema, as a mapping or as JSON text")
    try:
        kind = validator_for(schema, default=Draft202012Validator)
        kind.check_schema(schema)
    except SchemaError as error:
        raise _bad_schema(f"is no JSON Schema: {describe([(error.absolute_path, error.message)])}") from None
    except (AttributeError, RecursionError, TypeError, ValueError):  # its `$schema` is no address, or it has no end
        raise _bad_schema("is no JSON Schema") from None
    # With a registry of its own it fetches nothing that the schema refers to.
    return kind(schema, registry=EMPTY_REGISTRY)


def _problem(error: ValidationError | Any) -> str:
    if error.validator in _SAFE:
        return str(error.message)
    return f'doesn\'t satisfy "{error.validator}": {json.dumps(error.validator_value, default=str)}'


def _short(text: str) -> str:
    return text if len(text) <= _MAX_CHARS else f"{text[: _MAX_CHARS - 1]}…"


def _misfit(name: str, problem: str, arguments: str) -> OutputError:
    return OutputError(f"the arguments for {name} don't fit: {problem}", text=arguments)


def _bad_schema(problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"parameters {problem}", metadata={"field": "parameters"})


def _plain(value: Any) -> dict[Any, Any]:
    if isinstance(value, Mapping):  # of another kind than dict
        return dict(value)
    raise TypeError(f"a {type(value).__name__} has no form in it")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name[:64]!r} is there twice")
        found[name] = value
    return found


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:
        raise ValueError(f"an integer has {len(digits):,} digits; they are too many") from None


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{_short(digits)} is too large a number")
    return number


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is no JSON number")
