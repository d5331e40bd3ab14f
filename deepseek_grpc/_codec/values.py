"""Single values of a request: from an argument to what the wire carries, or the error that names the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from deepseek_grpc._codec.checks import invalid

__all__ = ["INT32", "INT64", "boolean", "integer", "json_text", "number", "unknown_option"]

INT32: Final = (-(2**31), 2**31 - 1)
INT64: Final = (-(2**63), 2**63 - 1)


def boolean(field: str, value: Any) -> bool:
    """Returns a bool; raises InvalidRequestError."""
    if not isinstance(value, bool):
        raise invalid(field, f"is a {type(value).__name__}; give a bool")
    return value


def number(field: str, value: Any) -> float:
    """Returns a number as a float, an int beyond every range as infinity; raises InvalidRequestError."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(field, f"is a {type(value).__name__}; give a number")
    try:
        return float(value)
    except OverflowError:  # an int beyond every range
        return float("inf") if value > 0 else float("-inf")


def integer(field: str, value: Any, limits: tuple[int, int]) -> int:
    """Returns an integer within its limits; raises InvalidRequestError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(field, f"is a {type(value).__name__}; give an integer")
    if not limits[0] <= value <= limits[1]:
        # Python refuses to print an integer of more than 4,300 digits, and nobody wants to read one of 40.
        shown = value if abs(value) < 10**40 else f"an integer of {value.bit_length()} bits"
        raise invalid(field, f"is {shown}; give {limits[0]} to {limits[1]}")
    return value


def json_text(field: str, value: Any) -> str:
    """Returns a value as JSON text; raises InvalidRequestError."""
    import json

    try:
        return json.dumps(value, allow_nan=False, default=_plain)
    except RecursionError:
        raise invalid(field, "is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise invalid(field, f"is no JSON ({error}); give what JSON can carry") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):  # of another kind than dict
        return dict(value)
    raise TypeError(f"a {type(value).__name__} has no form in it")


def unknown_option(name: str, options: type, methods: str) -> TypeError:
    """Makes Python's own error for an argument that the methods with these options don't have."""
    if name == "metadata":
        return TypeError("a turn has no argument 'metadata': it travels with its session; give it to text.session()")
    from difflib import get_close_matches

    near = get_close_matches(name, options.__annotations__, 1)
    hint = f"did you mean {near[0]!r}?" if near else "what has no name of its own goes into extra={…}"
    return TypeError(f"{methods} have no argument {name!r}; {hint}")
