"""What is asked of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from deepseek_grpc._value import Value, value
from deepseek_grpc.types.message import Message, ToolCall

__all__ = [
    "FimRequest",
    "GenerateRequest",
    "ResponseFormat",
    "Tool",
    "ToolChoice",
    "json_object",
    "json_schema",
]


@value
class Tool(Value):
    """A function that the model may call. `parameters` is a JSON Schema, as a mapping or as JSON text."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | str = ""
    strict: bool = False

    def parse(self, call: ToolCall) -> dict[str, Any]:
        """Returns the arguments of a call of this tool, checked against its schema. Needs the extra `structured`.

        Blank arguments are none. What the schema refers to outside of itself isn't fetched, and formats aren't checked.

        Raises:
            OutputError: The call is another tool's, or its arguments aren't JSON or don't fit; it says where and how.
            InvalidRequestError: `parameters` is no JSON Schema.
            ConfigurationError: jsonschema isn't installed.

        Example:
            >>> schema = {"properties": {"city": {"type": "string"}}, "required": ["city"]}
            >>> weather = Tool("weather", "Tells the weather", schema)
            >>> weather.parse(ToolCall("call_1", "weather", '{"city": "Bern"}'))
            {'city': 'Bern'}
        """
        from deepseek_grpc.errors import InvalidRequestError, OutputError
        from deepseek_grpc.types._arguments import parse_arguments

        if not isinstance(call, ToolCall):
            raise InvalidRequestError(f"call is a {type(call).__name__}; give a ToolCall", metadata={"field": "call"})
        if not isinstance(call.arguments, str):
            problem = f"call.arguments is a {type(call.arguments).__name__}; give JSON text"
            raise InvalidRequestError(problem, metadata={"field": "call"})
        if call.name != self.name:
            raise OutputError(
                f"the call is of {str(call.name)[:64]!r}, and this tool is {self.name!r}", text=call.arguments
            )
        return parse_arguments(self.name, self.parameters, call.arguments)


@value
class ToolChoice(Value):
    """Which tools the model may or must call: a mode (`auto`, `none`, `required`) or one function's name."""

    mode: Literal["auto", "none", "required"] | None = None
    function: str = ""


@value
class ResponseFormat(Value):
    """The form of an answer: `text`, `json_object`, or `json_schema` with a JSON Schema as text."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    schema: str = ""


json_object: Final = ResponseFormat("json_object")
"""Asks for one JSON object; the prompt has to mention JSON too."""


def json_schema(schema: str) -> ResponseFormat:
    """Asks for JSON that satisfies a JSON Schema (as JSON text), on backends that can enforce one.

    >>> json_schema('{"type": "object"}').type
    'json_schema'
    """
    return ResponseFormat("json_schema", schema)


@value
class GenerateRequest(Value):
    """One generation, as engines see it. None and empty mean "not given"; ranges are checked before it is sent."""

    messages: tuple[Message, ...]
    request_id: str = ""
    model: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    response_format: ResponseFormat | None = None
    thinking: bool | None = None
    reasoning_effort: str = ""
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    user_id: str = ""
    extra_json: str = ""


@value
class FimRequest(Value):
    """One completion between a prompt and a suffix, as engines see it. None and empty mean "not given"."""

    prompt: str
    suffix: str = ""
    request_id: str = ""
    model: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    echo: bool = False
    logprobs: int | None = None
    user_id: str = ""
    extra_json: str = ""
