"""What a model answers: whole, and as the events of a stream."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal, TypeAlias

from deepseek_grpc._value import Value, value
from deepseek_grpc.types.message import Message, ToolCall

__all__ = [
    "Completion",
    "Event",
    "FinishReason",
    "Finished",
    "HealthStatus",
    "Meta",
    "Model",
    "ReasoningDelta",
    "Started",
    "TextDelta",
    "TokenLogprob",
    "ToolCallDelta",
    "Upstream",
    "Usage",
]

FinishReason: TypeAlias = str
"""`stop`, `length`, `tool_calls`, `content_filter`, `insufficient_system_resource`, or the backend's own word."""

HealthStatus: TypeAlias = Literal["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"]
"""What grpc.health.v1 answers."""


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
    resumed: int = 0
    """How often its session's connection was lost and taken up again while it was under way; nothing was lost."""
    continued: int = 0
    """How often it was cut off for good, and the model was asked to go on from the text so far (`on_interrupt`); each
    time the prompt and that text were billed again."""


@value
class Completion(Value):
    """A whole answer.

    `text` may be empty when the model only reasoned or only called tools; `finish_reason` says why it ended. `parsed`
    is the text as the type that `output` asked for; None without one, and where the model calls tools instead.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    meta: Meta
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    reasoning_logprobs: tuple[TokenLogprob, ...] = ()
    parsed: Any = None
    turn: Any = field(default=None, repr=False, compare=False)
    """Of an answer that came in a session: what `parent=` there goes by. No part of the value: it isn't compared, and
    doesn't pickle."""

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
