"""What is asked: requests from arguments, and requests back into `types`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Never, TypeAlias, TypedDict

from deepseek_grpc._codec.checks import MAX_REQUEST_BYTES, check_generate, invalid
from deepseek_grpc._codec.message import decode_message, encode_message, several_of, text_of
from deepseek_grpc._codec.structured import output_format
from deepseek_grpc._codec.values import INT32, INT64, boolean, integer, json_text, number, unknown_option
from deepseek_grpc.types import (
    GenerateRequest,
    Message,
    ResponseFormat,
    Tool,
    ToolChoice,
)
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["GenerateOptions", "Prompt", "decode_generate", "encode_generate"]

Prompt: TypeAlias = str | Message | Sequence[Message]
"""What to answer: one user message as text, one message, or a conversation, oldest first."""


class GenerateOptions(TypedDict, total=False):
    """The options of a generation; each may be left out, and None means the same as leaving it out."""

    model: str | None
    """The model's id or alias; the gateway's default model if not given."""
    system_message: str | None
    """A system message put before everything else."""
    max_tokens: int | None
    """The most tokens to generate, at least 1."""
    temperature: float | None
    """0 to 2; 0 takes the likeliest token."""
    top_p: float | None
    """Above 0, at most 1."""
    stop: str | Sequence[str] | None
    """Up to 16 strings that end the generation and aren't part of it."""
    frequency_penalty: float | None
    """-2 to 2."""
    presence_penalty: float | None
    """-2 to 2."""
    seed: int | None
    """Makes sampling repeatable where the backend can; 64 bits, signed."""
    response_format: ResponseFormat | None
    """`json_object` or `json_schema(…)`; text if not given."""
    output: Any
    """The type that the answer is parsed into, as `Completion.parsed`: a dataclass, a TypedDict, a pydantic model or
    whatever else pydantic's TypeAdapter takes. Its JSON Schema is the `response_format`. Where the backend knows JSON
    objects only, as DeepSeek's API does, give `response_format=json_object` too: then the schema isn't sent, and the
    prompt has to describe the object. Needs the extra `structured`."""
    thinking: bool | None
    """Whether the model reasons first; its default if not given."""
    reasoning_effort: str | None
    """As the backend spells it, for example "high"."""
    tools: Sequence[Tool] | None
    """Up to 128 functions that the model may call."""
    tool_choice: ToolChoice | str | None
    """`"auto"`, `"none"`, `"required"`, or a ToolChoice that names a function."""
    logprobs: bool | None
    """Whether to return log probabilities."""
    top_logprobs: int | None
    """0 to 20 alternatives for each token; needs `logprobs`."""
    user_id: str | None
    """The end user, for abuse detection; at most 512 bytes."""
    extra: Mapping[str, Any] | None
    """Fields for the backend that have no name here."""


_FORMATS: Final[dict[str, pb.ResponseFormat.Type]] = {
    "text": pb.ResponseFormat.TYPE_TEXT,
    "json_object": pb.ResponseFormat.TYPE_JSON_OBJECT,
    "json_schema": pb.ResponseFormat.TYPE_JSON_SCHEMA,
}
_FORMAT_NAMES: Final[dict[int, Any]] = {value: name for name, value in _FORMATS.items()}
_MODES: Final[dict[str, pb.ToolChoice.Mode]] = {
    "auto": pb.ToolChoice.MODE_AUTO,
    "none": pb.ToolChoice.MODE_NONE,
    "required": pb.ToolChoice.MODE_REQUIRED,
}
_MODE_NAMES: Final[dict[int, Any]] = {value: name for name, value in _MODES.items()}


def encode_generate(
    prompt: Prompt,
    *,
    request_id: str,
    max_bytes: int = MAX_REQUEST_BYTES,
    model: str | None = None,
    system_message: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    stop: str | Sequence[str] | None = None,
    frequency_penalty: float | None = None,
    presence_penalty: float | None = None,
    seed: int | None = None,
    response_format: ResponseFormat | None = None,
    output: Any = None,
    thinking: bool | None = None,
    reasoning_effort: str | None = None,
    tools: Sequence[Tool] | None = None,
    tool_choice: ToolChoice | str | None = None,
    logprobs: bool | None = None,
    top_logprobs: int | None = None,
    user_id: str | None = None,
    extra: Mapping[str, Any] | None = None,
    **unknown: Never,
) -> pb.GenerateRequest:
    """Makes a checked request, of at most `max_bytes`, of the arguments of `generate` and `stream`.

    Raises:
        TypeError: There is no such option.
        InvalidRequestError: A field is wrong; `field` names it.
        RequestTooLargeError: The request is larger than a message may be.
        ConfigurationError: `output` needs pydantic, which isn't installed.
    """
    if unknown:
        raise unknown_option(next(iter(unknown)), GenerateOptions, "generate and stream")
    request = pb.GenerateRequest(request_id=request_id)
    if isinstance(prompt, str):
        request.prompt = text_of("prompt", prompt)
        if not prompt:
            raise invalid("prompt", "is empty; give at least 1 character")
    else:
        messages = (
            (prompt,) if isinstance(prompt, Message) else several_of("prompt", prompt, "text, a Message or several")
        )
        for index, message in enumerate(messages):
            encode_message(message, request.messages.add(), f"messages[{index}]")
        if not messages:
            raise invalid("messages", "is empty: the argument prompt has none; give text or at least 1 Message")
    if output is not None:
        response_format = output_format(output, response_format)
    stops = () if stop is None else (stop,) if isinstance(stop, str) else several_of("stop", stop, "text or several")
    try:
        if model is not None:
            request.model = model
        if system_message is not None:
            request.system_message = system_message
        if max_tokens is not None:
            request.max_tokens = integer("max_tokens", max_tokens, INT32)
        if temperature is not None:
            request.temperature = number("temperature", temperature)
        if top_p is not None:
            request.top_p = number("top_p", top_p)
        if stops:
            request.stop.extend(stops)
        if frequency_penalty is not None:
            request.frequency_penalty = number("frequency_penalty", frequency_penalty)
        if presence_penalty is not None:
            request.presence_penalty = number("presence_penalty", presence_penalty)
        if seed is not None:
            request.seed = integer("seed", seed, INT64)
        if response_format is not None:
            _encode_format(response_format, request.response_format)
        if thinking is not None:
            request.thinking = pb.THINKING_ENABLED if boolean("thinking", thinking) else pb.THINKING_DISABLED
        if reasoning_effort is not None:
            request.reasoning_effort = reasoning_effort
        if tools is not None:
            for index, tool in enumerate(several_of("tools", tools, "several Tools")):
                _encode_tool(tool, request.tools.add(), f"tools[{index}]")
        if tool_choice is not None:
            _encode_choice(tool_choice, request.tool_choice)
        if logprobs is not None:
            request.logprobs = boolean("logprobs", logprobs)
        if top_logprobs is not None:
            request.top_logprobs = integer("top_logprobs", top_logprobs, INT32)
        if user_id is not None:
            request.user_id = user_id
        if extra is not None:
            if not isinstance(extra, Mapping):
                raise invalid("extra", f"is a {type(extra).__name__}; give an object, as a mapping")
            request.extra_json = json_text("extra", extra)
    except (TypeError, UnicodeEncodeError) as error:
        # What protobuf says doesn't name the field; this does, for the fields that have no check of their own.
        plain = {
            "model": model,
            "system_message": system_message,
            "reasoning_effort": reasoning_effort,
            "user_id": user_id,
            **{f"stop[{i}]": text for i, text in enumerate(stops)},
        }
        for name, value in plain.items():
            if value is not None:
                text_of(name, value)
        raise invalid("request", f"can't be encoded ({error})") from error
    check_generate(request, max_bytes)
    return request


def _encode_format(value: ResponseFormat, out: pb.ResponseFormat) -> None:
    if not isinstance(value, ResponseFormat) or value.type not in _FORMATS:
        raise invalid("response_format", "is unknown; give a ResponseFormat of text, json_object or json_schema")
    out.type = _FORMATS[value.type]
    out.json_schema = text_of("response_format.json_schema", value.schema)


def _encode_tool(tool: Tool, out: pb.Tool, field: str) -> None:
    if not isinstance(tool, Tool):
        raise invalid(field, f"is a {type(tool).__name__}; give a Tool")
    out.name = text_of(f"{field}.name", tool.name)
    out.description = text_of(f"{field}.description", tool.description)
    out.strict = boolean(f"{field}.strict", tool.strict)
    parameters = tool.parameters
    field = f"{field}.parameters"
    if not isinstance(parameters, str | Mapping):
        raise invalid(field, f"is a {type(parameters).__name__}; give a JSON Schema, as a mapping or as JSON text")
    out.parameters_json = text_of(field, parameters if isinstance(parameters, str) else json_text(field, parameters))


def _encode_choice(choice: ToolChoice | str, out: pb.ToolChoice) -> None:
    if not isinstance(choice, str | ToolChoice):
        raise invalid("tool_choice", f"is a {type(choice).__name__}; give a word or a ToolChoice")
    mode = choice if isinstance(choice, str) else choice.mode
    if not isinstance(choice, str) and choice.function:
        if mode is not None:
            raise invalid("tool_choice", "has a mode and a function; give one of them")
        out.function = text_of("tool_choice.function", choice.function)
    elif mode in _MODES:
        out.mode = _MODES[mode]
    else:
        raise invalid("tool_choice", f"is {str(mode)[:32]!r}; give auto, none, required or ToolChoice(function=…)")


def decode_generate(request: pb.GenerateRequest, model: str = "") -> GenerateRequest:
    """Makes of a checked request what engines take, for a model: sugar resolved, absent fields None."""
    messages = [decode_message(message) for message in request.messages]
    if request.prompt:
        messages.append(Message("user", request.prompt))
    if request.system_message:
        messages.insert(0, Message("system", request.system_message))
    has = request.HasField
    return GenerateRequest(
        messages=tuple(messages),
        request_id=request.request_id,
        model=model or request.model,
        max_tokens=request.max_tokens if has("max_tokens") else None,
        temperature=request.temperature if has("temperature") else None,
        top_p=request.top_p if has("top_p") else None,
        stop=tuple(request.stop),
        frequency_penalty=request.frequency_penalty if has("frequency_penalty") else None,
        presence_penalty=request.presence_penalty if has("presence_penalty") else None,
        seed=request.seed if has("seed") else None,
        response_format=_decode_format(request.response_format) if has("response_format") else None,
        thinking=request.thinking == pb.THINKING_ENABLED if request.thinking else None,
        reasoning_effort=request.reasoning_effort,
        tools=tuple(Tool(tool.name, tool.description, tool.parameters_json, tool.strict) for tool in request.tools),
        tool_choice=_decode_choice(request.tool_choice) if has("tool_choice") else None,
        logprobs=request.logprobs,
        top_logprobs=request.top_logprobs if has("top_logprobs") else None,
        user_id=request.user_id,
        extra_json=request.extra_json,
    )


def _decode_format(value: pb.ResponseFormat) -> ResponseFormat:
    return ResponseFormat(_FORMAT_NAMES.get(value.type, "text"), value.json_schema)


def _decode_choice(choice: pb.ToolChoice) -> ToolChoice:
    if choice.WhichOneof("choice") == "function":
        return ToolChoice(function=choice.function)
    return ToolChoice(_MODE_NAMES[choice.mode])
