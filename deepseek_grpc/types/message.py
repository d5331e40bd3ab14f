"""What a conversation is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from deepseek_grpc._value import Value, value

__all__ = [
    "ContentPart",
    "FilePart",
    "ImagePart",
    "Message",
    "Role",
    "TextPart",
    "ToolCall",
    "assistant",
    "system",
    "tool_result",
    "user",
]

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


@value
class TextPart(Value):
    """A piece of plain text within a message."""

    text: str


@value
class ImagePart(Value):
    """An image within a message: an `https:` or `data:` address, and how closely to look (`low`, `high`, `auto`)."""

    url: str
    detail: str = ""


@value
class FilePart(Value):
    """A file that the backend already has, by its id."""

    file_id: str


ContentPart: TypeAlias = TextPart | ImagePart | FilePart


@value
class ToolCall(Value):
    """A call of a tool by the model. `arguments` is JSON text as the model wrote it; it may be malformed."""

    id: str
    name: str
    arguments: str


@value
class Message(Value):
    """One message of a conversation.

    `content` is text or a sequence of parts. `prefix` on a last assistant message asks the model to continue it.
    `reasoning_content` goes back byte for byte on tool turns; None means there was none.
    """

    role: Role
    content: str | Sequence[ContentPart] = ""
    name: str = ""
    reasoning_content: str | None = None
    prefix: bool = False
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


def system(content: str | Sequence[ContentPart], *, name: str = "") -> Message:
    """Makes a system message.

    >>> system("Be brief").role
    'system'
    """
    return Message("system", content, name=name)


def user(content: str | Sequence[ContentPart], *, name: str = "") -> Message:
    """Makes a user message.

    >>> user("Why?").content
    'Why?'
    """
    return Message("user", content, name=name)


def assistant(
    content: str | Sequence[ContentPart] = "",
    *,
    prefix: bool = False,
    reasoning_content: str | None = None,
    tool_calls: Sequence[ToolCall] = (),
    name: str = "",
) -> Message:
    """Makes an assistant message; with `prefix=True` the model continues it.

    >>> assistant("Once upon a", prefix=True).prefix
    True
    """
    return Message("assistant", content, name, reasoning_content, prefix, tuple(tool_calls))


def tool_result(call: ToolCall | str, content: str) -> Message:
    """Makes the message that answers a tool call, given the call or its id.

    >>> tool_result("call_1", '{"celsius": 21}').tool_call_id
    'call_1'
    """
    return Message("tool", content, tool_call_id=call if isinstance(call, str) else call.id)
