"""The vocabulary that users see: messages, requests, answers and the events of a stream.

Everything here is a frozen dataclass with slots: cheap, hashable where its fields are, and safe to share between tasks
and threads. Nothing here knows protobuf or gRPC. Field names and ranges follow DeepSeek's chat completion API
(https://api-docs.deepseek.com/api/create-chat-completion).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

from deepseek_grpc._value import Value, value

__all__ = [
    "UNSET",
    "Completion",
    "ContentPart",
    "Event",
    "FilePart",
    "FinishReason",
    "Finished",
    "GenerateRequest",
    "HealthStatus",
    "ImagePart",
    "Message",
    "Meta",
    "Model",
    "ReasoningDelta",
    "ResponseFormat",
    "Role",
    "Started",
    "TextDelta",
    "TextPart",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "Unset",
    "Upstream",
    "Usage",
    "assistant",
    "json_object",
    "json_schema",
    "system",
    "tool_result",
    "user",
]


class Unset(Enum):
    """The type of `UNSET`, which stands for "use the default" where None means "no limit"."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]

FinishReason: TypeAlias = str
"""`stop`, `length`, `tool_calls`, `content_filter`, `insufficient_system_resource`, or the backend's own word."""

HealthStatus: TypeAlias = Literal["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"]
"""What grpc.health.v1 answers."""


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


@value
class Tool(Value):
    """A function that the model may call. `parameters` is a JSON Schema, as a mapping or as JSON text."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | str = ""
    strict: bool = False


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
class Usage(Value):
    """Tokens that a call consumed. The cache and reasoning counts are None where the backend reports none."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_cache_hit_tokens: int | None = None
    prompt_cache_miss_tokens: int | None = None
    reasoning_tokens: int | None = None
    extra_json: str = ""


@value
class Upstream(Value):
    """Where an answer came from. `gateway_ms` is the time from request to first reply inside the gateway."""

    backend: str = ""
    request_id: str = ""
    attempts: int = 1
    gateway_ms: float = 0.0
    cache_hit: bool = False


@value
class TokenLogprob(Value):
    """A token, its natural-log probability, its UTF-8 bytes where known, and the likeliest tokens at its place."""

    token: str
    logprob: float
    token_bytes: bytes = b""
    top: tuple[TokenLogprob, ...] = ()


@value
class Meta(Value):
    """What is known about an answer besides its content."""

    request_id: str = ""
    """The id that logs and errors repeat."""
    id: str = ""
    """The backend's id of the answer."""
    created: int = 0
    """Seconds since 1970-01-01 UTC."""
    model: str = ""
    """The model that answered, under its true name."""
    system_fingerprint: str = ""
    """Identifies the backend's configuration."""
    upstream: Upstream = field(default_factory=Upstream)
    """Where it came from and what it took."""
    extra_json: str = ""
    """Fields of the backend's answer that have no name here, as one JSON object."""


@value
class Completion(Value):
    """A whole answer.

    `text` may be empty when the model only reasoned or only called tools; `finish_reason` says why it ended.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    meta: Meta
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    reasoning_logprobs: tuple[TokenLogprob, ...] = ()

    @property
    def message(self) -> Message:
        """The answer as a message, to go into the next request's conversation (reasoning and tool calls included)."""
        return Message("assistant", self.text, reasoning_content=self.reasoning, tool_calls=self.tool_calls)


@value
class Started(Value):
    """The first event of a stream: who answers."""

    id: str = ""
    created: int = 0
    model: str = ""
    system_fingerprint: str = ""


@value
class TextDelta(Value):
    """A piece of the answer's text, never empty."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@value
class ReasoningDelta(Value):
    """A piece of the reasoning, never empty."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@value
class ToolCallDelta(Value):
    """A piece of a tool call: `index` says of which; `id` and `name` come on its first piece only."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@value
class Finished(Value):
    """The last event of a stream that went well."""

    finish_reason: FinishReason
    usage: Usage = field(default_factory=Usage)
    upstream: Upstream = field(default_factory=Upstream)
    extra_json: str = ""


Event: TypeAlias = Started | TextDelta | ReasoningDelta | ToolCallDelta | Finished
"""What a stream yields, in this order: one Started, any number of deltas, one Finished."""


@value
class Model(Value):
    """A model that a request may name. `context_length` is 0 where unknown."""

    id: str
    owned_by: str = ""
    backend: str = ""
    description: str = ""
    aliases: tuple[str, ...] = ()
    context_length: int = 0
    extra_json: str = ""
