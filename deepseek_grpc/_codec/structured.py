"""Structured output: a type's JSON Schema goes out with the request, and the answer's text comes back as the type."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias, get_origin

from deepseek_grpc._codec.checks import invalid
from deepseek_grpc.errors import OutputError
from deepseek_grpc.types import Completion, ResponseFormat, json_schema

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["output_format", "with_parsed"]

_Prepared: TypeAlias = "tuple[TypeAdapter[Any], str]"

_TYPING: Final = ("typing", "typing_extensions", "types")
"""Where what stands for a type without being a class comes from: aliases, unions, Any."""


def output_format(output: Any, given: ResponseFormat | None) -> ResponseFormat:
    """Returns the form of answer to ask for: JSON by the type's schema, or JSON objects if the request says so.

    DeepSeek's API knows `json_object` only. Then the schema isn't sent, and the prompt has to describe the object.

    Raises:
        InvalidRequestError: `output` is no type that pydantic can handle, or there is another `response_format`.
        ConfigurationError: pydantic isn't installed.
    """
    _, schema = _prepare(output)
    if given is None:
        return json_schema(schema)
    if isinstance(given, ResponseFormat) and given.type != "json_object":
        raise invalid("response_format", "is given, and so is output, which asks for its own; give json_object or none")
    return given


def with_parsed(completion: Completion, output: Any) -> Completion:
    """Returns the answer with its text parsed; as it is if it calls tools instead.

    Raises:
        OutputError: The text is blank or cut off, or doesn't fit the type.
    """
    from pydantic import ValidationError

    from deepseek_grpc.types._arguments import describe

    reason, text = completion.finish_reason, completion.text
    if completion.tool_calls and reason != "length":
        return completion
    if reason == "length":
        raise _misfit(completion, f"is cut off after {len(text):,} characters; raise max_tokens")
    if not text.strip():
        raise _misfit(completion, f"is blank (finish reason {reason[:64]!r})")
    adapter, _ = _prepare(output)
    try:
        return replace(completion, parsed=adapter.validate_json(text))
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        misfits = describe([(one["loc"], one["msg"]) for one in found])
        raise _misfit(completion, f"doesn't fit {_name(output)}: {misfits}") from None


def _prepare(output: Any) -> _Prepared:
    try:
        hash(output)
    except TypeError:  # an Annotated with a list in it, for example
        return _make(output)
    return _made(output)


def _make(output: Any) -> _Prepared:
    """Returns what parses a type, and its JSON Schema; making them takes milliseconds."""
    try:
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticSchemaGenerationError
    except ImportError as error:
        from deepseek_grpc.types._arguments import extra_missing

        raise extra_missing("output", "pydantic") from error
    # Pydantic makes something of other values too: it would evaluate a text and call a function.
    if not isinstance(output, type) and get_origin(output) is None and type(output).__module__ not in _TYPING:
        raise invalid("output", f"is a {type(output).__name__}; give a type")
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(output)
        adapter.rebuild()
        return adapter, _dumps(adapter.json_schema())
    except PydanticSchemaGenerationError as error:  # its own advice is about a setting that wouldn't help
        problem = "which is a class that pydantic can't read, or has one in it"
        raise invalid(
            "output", f"is {_name(output)}, {problem}; give a BaseModel, a dataclass or a TypedDict"
        ) from error
    except Exception as error:  # a type's own hooks may raise anything
        said = str(error).partition("\n")[0][:200]
        raise invalid("output", f"is {_name(output)}, of which pydantic makes no JSON Schema: {said}") from error


_made = lru_cache(maxsize=256)(_make)


def _dumps(schema: dict[str, Any]) -> str:
    import json

    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def _name(output: Any) -> str:
    return str(getattr(output, "__name__", output))[:64]


def _misfit(completion: Completion, problem: str) -> OutputError:
    return OutputError(f"the answer {problem}", text=completion.text, request_id=completion.meta.request_id)
