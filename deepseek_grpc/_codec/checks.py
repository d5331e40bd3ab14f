"""The checks of a request that both ends make: the client before it sends, the gateway when it receives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Never, TypeAlias

from google.protobuf.message import Message

from deepseek_grpc.config import MAX_MESSAGE_BYTES
from deepseek_grpc.errors import InvalidRequestError, RequestTooLargeError
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["MAX_REQUEST_BYTES", "check_complete", "check_generate", "invalid", "request_limit"]

_Request: TypeAlias = pb.GenerateRequest | pb.CompleteFimRequest
_Check: TypeAlias = Callable[[Any, Any], None]


def request_limit(max_message_bytes: int) -> int:
    """Returns the most bytes that a request may have where a message may have so many.

    It is below gRPC's own limit, so that the answer is INVALID_ARGUMENT with a name instead of RESOURCE_EXHAUSTED.
    """
    return max(max_message_bytes - 64 * 1024, max_message_bytes // 2)


MAX_REQUEST_BYTES: Final = request_limit(MAX_MESSAGE_BYTES)
"""The contract's limit, which holds unless an end is configured otherwise."""
_MAX_REQUEST_ID: Final = 128
_MAX_STOP: Final = 16
_MAX_TOOLS: Final = 128
_MAX_TOP_LOGPROBS: Final = 20
_MAX_USER_ID_BYTES: Final = 512


def check_generate(request: pb.GenerateRequest, max_bytes: int = MAX_REQUEST_BYTES) -> None:
    """Checks ranges and sizes; `max_bytes` is the limit of the whole request.

    Raises:
        InvalidRequestError: A field is out of its range; `field` names it.
        RequestTooLargeError: The request is too large.
    """
    _check(request, _CHECKS, max_bytes)
    if not request.prompt and not request.messages:
        raise invalid("prompt", "is empty, and so is messages; give one of them")


def check_complete(request: pb.CompleteFimRequest, max_bytes: int = MAX_REQUEST_BYTES) -> None:
    """Checks ranges and sizes as `check_generate` does; the prompt is required, the suffix isn't."""
    _check(request, _FIM_CHECKS, max_bytes)
    if not request.prompt:
        raise invalid("prompt", "is empty; give at least 1 character")


def _check(request: _Request, checks: Mapping[str, _Check], max_bytes: int) -> None:
    if request.ByteSize() > max_bytes:
        raise _too_large(request, max_bytes)
    # Only the fields that are set are looked at.
    for field, value in request.ListFields():
        check = checks.get(field.name)
        if check is not None:
            check(value, request)


def invalid(field: str, problem: str) -> InvalidRequestError:
    """Makes the error for a field; the problem completes the sentence that its name begins."""
    return InvalidRequestError(f"{field} {problem}", metadata={"field": field})


def _too_large(request: _Request, max_bytes: int) -> RequestTooLargeError:
    sizes = {"prompt": 0, **dict(_sizes(request))}
    name = max(sizes, key=sizes.__getitem__)
    return RequestTooLargeError(
        f"{name} has {sizes[name]:,} bytes and the request {request.ByteSize():,}; "
        f"the limit of a request is {max_bytes:,}",
        metadata={"field": name},
    )


def _sizes(request: _Request) -> Iterator[tuple[str, int]]:
    """Yields the bytes of what may be long: texts, messages, and the members of lists."""
    for field, value in request.ListFields():
        if isinstance(value, str):
            yield field.name, len(value.encode())
        elif isinstance(value, Message):
            yield field.name, value.ByteSize()
        elif isinstance(value, Sequence):
            for index, member in enumerate(value):
                size = len(member.encode()) if isinstance(member, str) else member.ByteSize()
                yield f"{field.name}[{index}]", size


def _request_id(value: str, _: _Request) -> None:
    if len(value) > _MAX_REQUEST_ID:
        raise invalid("request_id", f"has {len(value)} characters; the limit is {_MAX_REQUEST_ID}")


def _max_tokens(value: int, _: _Request) -> None:
    if value < 1:
        raise invalid("max_tokens", f"is {value}; give at least 1")


def _between(name: str, low: float, high: float) -> Callable[[float, _Request], None]:
    def check(value: float, _: _Request) -> None:
        if not low <= value <= high:
            raise invalid(name, f"is {value:g}; give {low:g} to {high:g}")

    return check


def _top_p(value: float, _: _Request) -> None:
    if not 0 < value <= 1:
        raise invalid("top_p", f"is {value:g}; give more than 0 and at most 1")


def _top_logprobs(value: int, request: pb.GenerateRequest) -> None:
    if not 0 <= value <= _MAX_TOP_LOGPROBS:
        raise invalid("top_logprobs", f"is {value}; give 0 to {_MAX_TOP_LOGPROBS}")
    if not request.logprobs:
        raise invalid("top_logprobs", "is given without logprobs; set logprobs to true")


def _fim_logprobs(value: int, _: _Request) -> None:
    if not 0 <= value <= _MAX_TOP_LOGPROBS:
        raise invalid("logprobs", f"is {value}; give 0 to {_MAX_TOP_LOGPROBS}")


def _user_id(value: str, _: _Request) -> None:
    length = len(value.encode())
    if length > _MAX_USER_ID_BYTES:
        raise invalid("user_id", f"has {length} bytes; the limit is {_MAX_USER_ID_BYTES}")


def _thinking(value: int, _: _Request) -> None:
    if value not in pb.Thinking.values():
        raise invalid("thinking", f"is {value}, which this version doesn't know")


def _format(value: pb.ResponseFormat, _: _Request) -> None:
    if value.type not in pb.ResponseFormat.Type.values():
        raise invalid("response_format.type", f"is {value.type}, which this version doesn't know")
    if value.type == pb.ResponseFormat.TYPE_JSON_SCHEMA:
        _json("response_format.json_schema", value.json_schema)


def _messages(messages: Sequence[pb.Message], request: pb.GenerateRequest) -> None:
    if request.prompt:
        raise invalid("prompt", "and messages are both given; give one of them")
    last = len(messages) - 1
    for index, message in enumerate(messages):
        role = message.role
        if role not in _ROLES:
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


def _stop(stop: Sequence[str], _: _Request) -> None:
    if len(stop) > _MAX_STOP:
        raise invalid("stop", f"has {len(stop)} strings; the limit is {_MAX_STOP}")
    for index, string in enumerate(stop):
        if not string:
            raise invalid(f"stop[{index}]", "is empty; give at least 1 character")


def _tools(tools: Sequence[pb.Tool], _: _Request) -> None:
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
            _json(f"tools[{index}].parameters", tool.parameters_json)
        names.add(name)


def _tool_choice(choice: pb.ToolChoice, request: pb.GenerateRequest) -> None:
    kind = choice.WhichOneof("choice")
    if kind is None or (kind == "mode" and choice.mode not in _MODES):
        raise invalid("tool_choice", "is not set; give auto, none, required or a function's name")
    if kind == "function" and choice.function not in {tool.name for tool in request.tools}:
        raise invalid("tool_choice.function", f"is {choice.function[:64]!r}, which none of the tools is called")
    if kind == "mode" and choice.mode == pb.ToolChoice.MODE_REQUIRED and not request.tools:
        raise invalid("tool_choice", "is required, but there are no tools")


def _json(field: str, text: str) -> None:
    import json

    try:
        value = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise invalid(field, "is nested too deeply") from None
    except ValueError as error:
        raise invalid(field, f"is no JSON ({error}); give one JSON object, as {{…}}") from None
    if not isinstance(value, dict):
        raise invalid(field, "is JSON, but no object; give one, as {…}")


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is no JSON number")


_MODES: Final = frozenset(pb.ToolChoice.Mode.values()) - {pb.ToolChoice.MODE_UNSPECIFIED}
_ROLES: Final = frozenset(pb.Role.values()) - {pb.ROLE_UNSPECIFIED}

_CHECKS: Final[dict[str, _Check]] = {
    "request_id": _request_id,
    "messages": _messages,
    "max_tokens": _max_tokens,
    "temperature": _between("temperature", 0, 2),
    "top_p": _top_p,
    "stop": _stop,
    "frequency_penalty": _between("frequency_penalty", -2, 2),
    "presence_penalty": _between("presence_penalty", -2, 2),
    "response_format": _format,
    "thinking": _thinking,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "top_logprobs": _top_logprobs,
    "user_id": _user_id,
    "extra_json": lambda value, _: _json("extra_json", value),
}
_FIM_CHECKS: Final = _CHECKS | {"logprobs": _fim_logprobs}
