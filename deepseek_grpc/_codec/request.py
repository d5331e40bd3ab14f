"""What is asked: requests from arguments, checks that both ends make, and requests back into `types`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Never, TypeAlias, TypedDict

from deepseek_rpc.v2 import text_pb2 as pb

from deepseek_grpc.config import MAX_MESSAGE_BYTES
from deepseek_grpc.errors import InvalidRequestError, RequestTooLargeError
from deepseek_grpc.types import (
    FilePart,
    GenerateRequest,
    ImagePart,
    Message,
    ResponseFormat,
    Role,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)

__all__ = ["GenerateOptions", "Prompt", "check_generate", "decode_generate", "encode_generate", "encode_message"]

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


_ROLES: Final[dict[str, pb.Role]] = {
    "system": pb.ROLE_SYSTEM,
    "user": pb.ROLE_USER,
    "assistant": pb.ROLE_ASSISTANT,
    "tool": pb.ROLE_TOOL,
}
_ROLE_NAMES: Final[dict[int, Role]] = {
    pb.ROLE_SYSTEM: "system",
    pb.ROLE_USER: "user",
    pb.ROLE_ASSISTANT: "assistant",
    pb.ROLE_TOOL: "tool",
}
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
_THINKING: Final = (pb.THINKING_UNSPECIFIED, pb.THINKING_ENABLED, pb.THINKING_DISABLED)

_MAX_REQUEST_BYTES: Final = MAX_MESSAGE_BYTES - 64 * 1024
"""Below gRPC's own limit, so that the answer is INVALID_ARGUMENT with a name instead of RESOURCE_EXHAUSTED."""
_MAX_STOP: Final = 16
_MAX_TOOLS: Final = 128
_MAX_TOP_LOGPROBS: Final = 20
_MAX_USER_ID_BYTES: Final = 512
_INT32: Final = (-(2**31), 2**31 - 1)
_INT64: Final = (-(2**63), 2**63 - 1)


def encode_generate(
    prompt: Prompt,
    *,
    request_id: str,
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
    thinking: bool | None = None,
    reasoning_effort: str | None = None,
    tools: Sequence[Tool] | None = None,
    tool_choice: ToolChoice | str | None = None,
    logprobs: bool | None = None,
    top_logprobs: int | None = None,
    user_id: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> pb.GenerateRequest:
    """Makes a checked request of the arguments of `generate` and `stream`.

    Raises:
        InvalidRequestError: A field is wrong; `field` names it.
        RequestTooLargeError: The request is larger than a message may be.
    """
    request = pb.GenerateRequest(request_id=request_id)
    if isinstance(prompt, str):
        request.prompt = _text("prompt", prompt)
        if not prompt:
            raise invalid("prompt", "is empty; give at least 1 character")
    else:
        messages = (
            (prompt,) if isinstance(prompt, Message) else _several("prompt", prompt, "text, a Message or several")
        )
        for index, message in enumerate(messages):
            encode_message(message, request.messages.add(), f"messages[{index}]")
        if not messages:
            raise invalid("messages", "is empty; give at least 1 message")
    stops = () if stop is None else (stop,) if isinstance(stop, str) else _several("stop", stop, "text or several")
    try:
        if model is not None:
            request.model = model
        if system_message is not None:
            request.system_message = system_message
        if max_tokens is not None:
            request.max_tokens = _integer("max_tokens", max_tokens, _INT32)
        if temperature is not None:
            request.temperature = _number("temperature", temperature)
        if top_p is not None:
            request.top_p = _number("top_p", top_p)
        if stops:
            request.stop.extend(stops)
        if frequency_penalty is not None:
            request.frequency_penalty = _number("frequency_penalty", frequency_penalty)
        if presence_penalty is not None:
            request.presence_penalty = _number("presence_penalty", presence_penalty)
        if seed is not None:
            request.seed = _integer("seed", seed, _INT64)
        if response_format is not None:
            _encode_format(response_format, request.response_format)
        if thinking is not None:
            request.thinking = pb.THINKING_ENABLED if _boolean("thinking", thinking) else pb.THINKING_DISABLED
        if reasoning_effort is not None:
            request.reasoning_effort = reasoning_effort
        if tools is not None:
            for index, tool in enumerate(_several("tools", tools, "several Tools")):
                _encode_tool(tool, request.tools.add(), f"tools[{index}]")
        if tool_choice is not None:
            _encode_choice(tool_choice, request.tool_choice)
        if logprobs is not None:
            request.logprobs = _boolean("logprobs", logprobs)
        if top_logprobs is not None:
            request.top_logprobs = _integer("top_logprobs", top_logprobs, _INT32)
        if user_id is not None:
            request.user_id = user_id
        if extra is not None:
            if not isinstance(extra, Mapping):
                raise invalid("extra", f"is a {type(extra).__name__}; give an object, as a mapping")
            request.extra_json = _json("extra", extra)
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
                _text(name, value)
        raise invalid("request", f"can't be encoded ({error})") from error
    check_generate(request)
    return request


def check_generate(request: pb.GenerateRequest) -> None:
    """Checks ranges and sizes; the client does so before it sends, the gateway when it receives.

    Raises:
        InvalidRequestError: A field is out of its range; `field` names it.
        RequestTooLargeError: The request is too large.
    """
    size = request.ByteSize()
    if size > _MAX_REQUEST_BYTES:
        fields = [("prompt", len(request.prompt.encode())), ("system_message", len(request.system_message.encode()))]
        fields += [
            ("extra_json", len(request.extra_json.encode())),
            ("response_format", request.response_format.ByteSize()),
        ]
        fields += [(f"messages[{i}]", message.ByteSize()) for i, message in enumerate(request.messages)]
        fields += [(f"tools[{i}]", tool.ByteSize()) for i, tool in enumerate(request.tools)]
        fields += [(f"stop[{i}]", len(text.encode())) for i, text in enumerate(request.stop)]
        name, most = max(fields, key=lambda field: field[1])
        raise RequestTooLargeError(
            f"{name} has {most:,} bytes and the request {size:,}; the limit of a request is {_MAX_REQUEST_BYTES:,}",
            metadata={"field": name},
        )
    if request.messages:
        if request.prompt:
            raise invalid("prompt", "and messages are both given; give one of them")
        _check_messages(request.messages)
    elif not request.prompt:
        raise invalid("prompt", "is empty, and so is messages; give one of them")
    if len(request.request_id) > 128:
        raise invalid("request_id", f"has {len(request.request_id)} characters; the limit is 128")
    if request.HasField("max_tokens") and request.max_tokens < 1:
        raise invalid("max_tokens", f"is {request.max_tokens}; give at least 1")
    if request.HasField("temperature") and not 0 <= request.temperature <= 2:
        raise invalid("temperature", f"is {request.temperature:g}; give 0 to 2")
    if request.HasField("top_p") and not 0 < request.top_p <= 1:
        raise invalid("top_p", f"is {request.top_p:g}; give more than 0 and at most 1")
    if request.HasField("frequency_penalty") and not -2 <= request.frequency_penalty <= 2:
        raise invalid("frequency_penalty", f"is {request.frequency_penalty:g}; give -2 to 2")
    if request.HasField("presence_penalty") and not -2 <= request.presence_penalty <= 2:
        raise invalid("presence_penalty", f"is {request.presence_penalty:g}; give -2 to 2")
    if request.stop:
        _check_stop(request.stop)
    if request.tools:
        _check_tools(request.tools)
    if request.HasField("tool_choice"):
        _check_choice(request)
    if request.HasField("top_logprobs"):
        if not 0 <= request.top_logprobs <= _MAX_TOP_LOGPROBS:
            raise invalid("top_logprobs", f"is {request.top_logprobs}; give 0 to {_MAX_TOP_LOGPROBS}")
        if not request.logprobs:
            raise invalid("top_logprobs", "is given without logprobs; set logprobs to true")
    if request.user_id and (length := len(request.user_id.encode())) > _MAX_USER_ID_BYTES:
        raise invalid("user_id", f"has {length} bytes; the limit is {_MAX_USER_ID_BYTES}")
    if request.thinking not in _THINKING:
        raise invalid("thinking", f"is {request.thinking}, which this version doesn't know")
    if request.HasField("response_format"):
        _check_format(request.response_format)
    if request.extra_json:
        _check_json("extra_json", request.extra_json)


def _check_format(value: pb.ResponseFormat) -> None:
    if value.type and value.type not in _FORMAT_NAMES:
        raise invalid("response_format.type", f"is {value.type}, which this version doesn't know")
    if value.type == pb.ResponseFormat.TYPE_JSON_SCHEMA:
        _check_json("response_format.json_schema", value.json_schema)


def _check_messages(messages: Sequence[pb.Message]) -> None:
    last = len(messages) - 1
    for index, message in enumerate(messages):
        role = message.role
        if role not in _ROLE_NAMES:
            raise invalid(f"messages[{index}].role", f"is {role}; one of system, user, assistant, tool")
        if message.prefix and (role != pb.ROLE_ASSISTANT or index != last):
            raise invalid(f"messages[{index}].prefix", "is set; only a last message by the assistant can be continued")
        if role == pb.ROLE_TOOL:
            if not message.tool_call_id:
                raise invalid(f"messages[{index}].tool_call_id", "is empty; name the call that the message answers")
        elif role != pb.ROLE_ASSISTANT and not message.content and not message.parts:
            raise invalid(f"messages[{index}].content", "is empty; give at least 1 character")
        for number, part in enumerate(message.parts):
            if part.WhichOneof("part") is None:
                raise invalid(f"messages[{index}].content[{number}]", "is empty; give text, image or file")


def _check_stop(stop: Sequence[str]) -> None:
    if len(stop) > _MAX_STOP:
        raise invalid("stop", f"has {len(stop)} strings; the limit is {_MAX_STOP}")
    for index, string in enumerate(stop):
        if not string:
            raise invalid(f"stop[{index}]", "is empty; give at least 1 character")


def _check_tools(tools: Sequence[pb.Tool]) -> None:
    if len(tools) > _MAX_TOOLS:
        raise invalid("tools", f"has {len(tools)} functions; the limit is {_MAX_TOOLS}")
    names = set()
    strict = tools[0].strict
    for index, tool in enumerate(tools):
        name = tool.name
        if not 1 <= len(name) <= 64 or not all(c.isascii() and (c.isalnum() or c in "_-") for c in name):
            raise invalid(
                f"tools[{index}].name", f"is {name[:64]!r}; give 1 to 64 letters, digits, underscores or dashes"
            )
        if name in names:
            raise invalid(f"tools[{index}].name", f"is {name!r}, which another tool has too")
        if tool.strict != strict:
            raise invalid(f"tools[{index}].strict", "differs from the other tools'; all are strict or none")
        if tool.parameters_json:
            _check_json(f"tools[{index}].parameters", tool.parameters_json)
        names.add(name)


def _check_choice(request: pb.GenerateRequest) -> None:
    choice = request.tool_choice
    kind = choice.WhichOneof("choice")
    if kind is None or (kind == "mode" and choice.mode not in _MODE_NAMES):
        raise invalid("tool_choice", "is not set; give auto, none, required or a function's name")
    if kind == "function" and choice.function not in {tool.name for tool in request.tools}:
        raise invalid("tool_choice.function", f"is {choice.function[:64]!r}, which none of the tools is called")
    if kind == "mode" and choice.mode == pb.ToolChoice.MODE_REQUIRED and not request.tools:
        raise invalid("tool_choice", "is required, but there are no tools")


def _check_json(field: str, text: str) -> None:
    import json

    try:
        value = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise invalid(field, "is nested too deeply") from None
    except ValueError as error:
        raise invalid(field, f"is no JSON ({error})") from None
    if not isinstance(value, dict):
        raise invalid(field, f"is a JSON {type(value).__name__}; give an object")


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is no JSON number")


def encode_message(message: Message, out: pb.Message, field: str = "message") -> None:
    """Fills in a protobuf message; raises InvalidRequestError with the field's path."""
    if not isinstance(message, Message):
        raise invalid(field, f"is a {type(message).__name__}; give a Message: user(…), system(…), assistant(…)")
    role = _ROLES.get(message.role) if isinstance(message.role, str) else None
    if role is None:
        raise invalid(f"{field}.role", f"is {str(message.role)[:32]!r}; one of system, user, assistant, tool")
    out.role = role
    content = message.content
    if isinstance(content, str):
        out.content = _text(f"{field}.content", content)
    else:
        for index, part in enumerate(_several(f"{field}.content", content, "text or several parts")):
            match part:
                case TextPart(text):
                    out.parts.add().text = _text(f"{field}.content[{index}].text", text)
                case ImagePart(url, detail):
                    image = out.parts.add().image_url
                    image.url = _text(f"{field}.content[{index}].url", url)
                    image.detail = _text(f"{field}.content[{index}].detail", detail)
                case FilePart(file_id):
                    out.parts.add().file_id = _text(f"{field}.content[{index}].file_id", file_id)
                case _:
                    raise invalid(f"{field}.content[{index}]", f"is a {type(part).__name__}; give text, image or file")
    if message.name:
        out.name = _text(f"{field}.name", message.name)
    if message.reasoning_content is not None:
        out.reasoning_content = _text(f"{field}.reasoning_content", message.reasoning_content)
    if message.prefix:
        out.prefix = True
    if message.tool_calls:
        for index, call in enumerate(_several(f"{field}.tool_calls", message.tool_calls, "several ToolCalls")):
            _encode_call(call, out.tool_calls.add(), f"{field}.tool_calls[{index}]")
    if message.tool_call_id:
        out.tool_call_id = _text(f"{field}.tool_call_id", message.tool_call_id)


def _encode_call(call: ToolCall, out: pb.ToolCall, field: str) -> None:
    if not isinstance(call, ToolCall):
        raise invalid(field, f"is a {type(call).__name__}; give a ToolCall")
    out.id = _text(f"{field}.id", call.id)
    out.name = _text(f"{field}.name", call.name)
    out.arguments_json = _text(f"{field}.arguments", call.arguments)


def _encode_format(value: ResponseFormat, out: pb.ResponseFormat) -> None:
    if not isinstance(value, ResponseFormat) or value.type not in _FORMATS:
        raise invalid("response_format", "is unknown; give a ResponseFormat of text, json_object or json_schema")
    out.type = _FORMATS[value.type]
    out.json_schema = _text("response_format.json_schema", value.schema)


def _encode_tool(tool: Tool, out: pb.Tool, field: str) -> None:
    if not isinstance(tool, Tool):
        raise invalid(field, f"is a {type(tool).__name__}; give a Tool")
    out.name = _text(f"{field}.name", tool.name)
    out.description = _text(f"{field}.description", tool.description)
    out.strict = _boolean(f"{field}.strict", tool.strict)
    parameters = tool.parameters
    field = f"{field}.parameters"
    out.parameters_json = _text(field, parameters if isinstance(parameters, str) else _json(field, parameters))


def _encode_choice(choice: ToolChoice | str, out: pb.ToolChoice) -> None:
    if not isinstance(choice, str | ToolChoice):
        raise invalid("tool_choice", f"is a {type(choice).__name__}; give a word or a ToolChoice")
    mode = choice if isinstance(choice, str) else choice.mode
    if not isinstance(choice, str) and choice.function:
        if mode is not None:
            raise invalid("tool_choice", "has a mode and a function; give one of them")
        out.function = _text("tool_choice.function", choice.function)
    elif mode in _MODES:
        out.mode = _MODES[mode]
    else:
        raise invalid("tool_choice", f"is {str(mode)[:32]!r}; give auto, none, required or ToolChoice(function=…)")


def _several(field: str, value: Any, wanted: str) -> Sequence[Any]:
    if isinstance(value, list | tuple):
        return value
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise invalid(field, f"is a {type(value).__name__}; give {wanted}")
    return tuple(value)


def _boolean(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise invalid(field, f"is a {type(value).__name__}; give a bool")
    return value


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise invalid(field, f"is a {type(value).__name__}; give text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise invalid(field, "has a lone surrogate, which UTF-8 can't carry") from None
    return value


def _number(field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(field, f"is a {type(value).__name__}; give a number")
    try:
        return float(value)
    except OverflowError:  # an int beyond every range
        return float("inf") if value > 0 else float("-inf")


def _integer(field: str, value: Any, limits: tuple[int, int]) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(field, f"is a {type(value).__name__}; give an integer")
    if not limits[0] <= value <= limits[1]:
        # Python refuses to print an integer of more than 4,300 digits, and nobody wants to read one of 40.
        shown = value if abs(value) < 10**40 else f"an integer of {value.bit_length()} bits"
        raise invalid(field, f"is {shown}; give {limits[0]} to {limits[1]}")
    return value


def _json(field: str, value: Any) -> str:
    import json

    try:
        return json.dumps(value, allow_nan=False, default=_plain)
    except RecursionError:
        raise invalid(field, "is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise invalid(field, f"is no JSON ({error})") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):  # of another kind than dict
        return dict(value)
    raise TypeError(f"a {type(value).__name__} has no form in it")


def invalid(field: str, problem: str) -> InvalidRequestError:
    """Makes the error for a field; the problem completes the sentence that its name begins."""
    return InvalidRequestError(f"{field} {problem}", metadata={"field": field})


def decode_generate(request: pb.GenerateRequest) -> GenerateRequest:
    """Makes of a checked request what engines take: sugar resolved, absent fields None."""
    messages = [decode_message(message) for message in request.messages]
    if request.prompt:
        messages.append(Message("user", request.prompt))
    if request.system_message:
        messages.insert(0, Message("system", request.system_message))
    has = request.HasField
    return GenerateRequest(
        messages=tuple(messages),
        request_id=request.request_id,
        model=request.model,
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


def decode_message(message: pb.Message) -> Message:
    """Makes a `types.Message` of a protobuf one."""
    content: str | tuple[Any, ...] = message.content
    if message.parts:
        content = tuple(_decode_part(part) for part in message.parts)
    return Message(
        _ROLE_NAMES[message.role],
        content,
        message.name,
        message.reasoning_content if message.HasField("reasoning_content") else None,
        message.prefix,
        decode_tool_calls(message.tool_calls),
        message.tool_call_id,
    )


def decode_tool_calls(calls: Sequence[pb.ToolCall]) -> tuple[ToolCall, ...]:
    """Makes `types.ToolCall`s of protobuf ones."""
    return tuple([ToolCall(call.id, call.name, call.arguments_json) for call in calls]) if calls else ()


def _decode_part(part: pb.ContentPart) -> TextPart | ImagePart | FilePart:
    match part.WhichOneof("part"):
        case "image_url":
            return ImagePart(part.image_url.url, part.image_url.detail)
        case "file_id":
            return FilePart(part.file_id)
        case _:
            return TextPart(part.text)


def _decode_format(value: pb.ResponseFormat) -> ResponseFormat:
    return ResponseFormat(_FORMAT_NAMES.get(value.type, "text"), value.json_schema)


def _decode_choice(choice: pb.ToolChoice) -> ToolChoice:
    if choice.WhichOneof("choice") == "function":
        return ToolChoice(function=choice.function)
    return ToolChoice(_MODE_NAMES[choice.mode])
