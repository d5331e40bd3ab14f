"""A gRPC-first client for DeepSeek models, with the gateway that it talks to.

from deepseek_grpc import Client, JWTSigner

with Client("dns:///gateway.internal:443", credentials=JWTSigner("svc-a", secret)) as client:
    print(client.text.generate("Say hi").text)
"""

from deepseek_grpc import errors
from deepseek_grpc._async.client import AsyncClient
from deepseek_grpc._async.session import AsyncSession
from deepseek_grpc._async.stream import AsyncTextStream
from deepseek_grpc._codec.request import GenerateOptions, Prompt
from deepseek_grpc._sync.client import Client
from deepseek_grpc._sync.session import Session
from deepseek_grpc._sync.stream import TextStream
from deepseek_grpc.auth import JWTSigner, StaticToken, TokenSource
from deepseek_grpc.config import API_VERSION, TLS, ClientConfig, Keepalive, Retry, Timeouts
from deepseek_grpc.errors import DeepSeekError
from deepseek_grpc.types import (
    UNSET,
    Completion,
    ContentPart,
    Event,
    FilePart,
    Finished,
    ImagePart,
    Message,
    Meta,
    Model,
    ReasoningDelta,
    ResponseFormat,
    Started,
    TextDelta,
    TextPart,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    Upstream,
    Usage,
    assistant,
    json_object,
    json_schema,
    system,
    tool_result,
    user,
)

__all__ = [
    "API_VERSION",
    "TLS",
    "UNSET",
    "AsyncClient",
    "AsyncSession",
    "AsyncTextStream",
    "Client",
    "ClientConfig",
    "Completion",
    "ContentPart",
    "DeepSeekError",
    "Event",
    "FilePart",
    "Finished",
    "GenerateOptions",
    "ImagePart",
    "JWTSigner",
    "Keepalive",
    "Message",
    "Meta",
    "Model",
    "Prompt",
    "ReasoningDelta",
    "ResponseFormat",
    "Retry",
    "Session",
    "Started",
    "StaticToken",
    "TextDelta",
    "TextPart",
    "TextStream",
    "Timeouts",
    "TokenLogprob",
    "TokenSource",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "Upstream",
    "Usage",
    "assistant",
    "errors",
    "json_object",
    "json_schema",
    "system",
    "tool_result",
    "user",
]
