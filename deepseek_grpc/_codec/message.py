"""Messages of a conversation, both directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from deepseek_grpc._codec.checks import invalid
from deepseek_grpc.types import FilePart, ImagePart, Message, Role, TextPart, ToolCall
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["decode_message", "decode_tool_calls", "encode_message", "several_of", "text_of"]

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
        out.content = text_of(f"{field}.content", content)
    else:
        for index, part in enumerate(several_of(f"{field}.content", content, "text or several parts")):
            match part:
                case TextPart(text):
                    out.parts.add().text = text_of(f"{field}.content[{index}].text", text)
                case ImagePart(url, detail):
                    image = out.parts.add().image_url
                    image.url = text_of(f"{field}.content[{index}].url", url)
                    image.detail = text_of(f"{field}.content[{index}].detail", detail)
                case FilePart(file_id):
                    out.parts.add().file_id = text_of(f"{field}.content[{index}].file_id", file_id)
                case _:
                    raise invalid(f"{field}.content[{index}]", f"is a {type(part).__name__}; give text, image or file")
    if message.name:
        out.name = text_of(f"{field}.name", message.name)
    if message.reasoning_content is not None:
        out.reasoning_content = text_of(f"{field}.reasoning_content", message.reasoning_content)
    if message.prefix:
        out.prefix = True
    if message.tool_calls:
        for index, call in enumerate(several_of(f"{field}.tool_calls", message.tool_calls, "several ToolCalls")):
            _encode_call(call, out.tool_calls.add(), f"{field}.tool_calls[{index}]")
    if message.tool_call_id:
        out.tool_call_id = text_of(f"{field}.tool_call_id", message.tool_call_id)


def _encode_call(call: ToolCall, out: pb.ToolCall, field: str) -> None:
    if not isinstance(call, ToolCall):
        raise invalid(field, f"is a {type(call).__name__}; give a ToolCall")
    out.id = text_of(f"{field}.id", call.id)
    out.name = text_of(f"{field}.name", call.name)
    out.arguments_json = text_of(f"{field}.arguments", call.arguments)


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


def text_of(field: str, value: Any) -> str:
    """Returns a text that UTF-8 can carry; raises InvalidRequestError."""
    if not isinstance(value, str):
        raise invalid(field, f"is a {type(value).__name__}; give text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise invalid(field, "has a lone surrogate, which UTF-8 can't carry") from None
    return value


def several_of(field: str, value: Any, wanted: str) -> Sequence[Any]:
    """Returns the members of a list, or of anything else that can be gone through once; raises InvalidRequestError."""
    if isinstance(value, list | tuple):
        return value
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise invalid(field, f"is a {type(value).__name__}; give {wanted}")
    return tuple(value)
