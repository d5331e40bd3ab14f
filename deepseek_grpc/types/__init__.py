"""The vocabulary that users see: messages, requests, answers and the events of a stream.

Everything here is a frozen dataclass with slots: cheap, hashable where its fields are, and safe to share between tasks
and threads. Nothing here knows protobuf or gRPC. Field names and ranges follow DeepSeek's chat completion API
(https://api-docs.deepseek.com/api/create-chat-completion).
"""

from deepseek_grpc._value import UNSET, Unset
from deepseek_grpc.types.account import AccountBalance, Balance
from deepseek_grpc.types.answer import (
    Completion,
    Event,
    Finished,
    FinishReason,
    HealthStatus,
    Meta,
    Model,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Upstream,
    Usage,
)
from deepseek_grpc.types.message import (
    ContentPart,
    FilePart,
    ImagePart,
    Message,
    Role,
    TextPart,
    ToolCall,
    assistant,
    system,
    tool_result,
    user,
)
from deepseek_grpc.types.request import (
    FimRequest,
    GenerateRequest,
    ResponseFormat,
    Tool,
    ToolChoice,
    json_object,
    json_schema,
)

__all__ = [
    "UNSET",
    "AccountBalance",
    "Balance",
    "Completion",
    "ContentPart",
    "Event",
    "FilePart",
    "FimRequest",
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
