"""A gRPC-first client for DeepSeek models, with the gateway that it talks to.

>>> from deepseek_grpc import Client
>>> def example() -> None:
...     with Client.from_env() as client:  # or Client("dns:///gateway.internal:443", credentials=JWTSigner(…))
...         print(client.text.generate("Say hi").text)
"""

from typing import TYPE_CHECKING, Any

from deepseek_grpc import errors
from deepseek_grpc._codec.fim import CompleteOptions
from deepseek_grpc._codec.request import GenerateOptions, Prompt
from deepseek_grpc.auth import Secret, StaticToken, TokenSource
from deepseek_grpc.config import API_VERSION, ClientConfig, ClientOptions, Keepalive, Retry, Timeouts
from deepseek_grpc.errors import DeepSeekError
from deepseek_grpc.telemetry import CallRecord, Observer
from deepseek_grpc.tls import TLS
from deepseek_grpc.types import (
    UNSET,
    AccountBalance,
    Balance,
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

if TYPE_CHECKING:
    from deepseek_grpc._async.client import AsyncClient
    from deepseek_grpc._async.session import AsyncSession
    from deepseek_grpc._async.stream import AsyncTextStream
    from deepseek_grpc._sync.client import Client
    from deepseek_grpc._sync.session import Session
    from deepseek_grpc._sync.stream import TextStream
    from deepseek_grpc.audit import AuditLog
    from deepseek_grpc.auth import JWTSigner, OAuth2ClientCredentials

__all__ = [
    "API_VERSION",
    "TLS",
    "UNSET",
    "AccountBalance",
    "AsyncClient",
    "AsyncSession",
    "AsyncTextStream",
    "AuditLog",
    "Balance",
    "CallRecord",
    "Client",
    "ClientConfig",
    "ClientOptions",
    "CompleteOptions",
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
    "OAuth2ClientCredentials",
    "Observer",
    "Prompt",
    "ReasoningDelta",
    "ResponseFormat",
    "Retry",
    "Secret",
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

# A program lives in one of the two worlds; the other one isn't loaded, nor what few programs need (PEP 562).
_WORLDS = {
    "AsyncClient": "_async.client",
    "AsyncSession": "_async.session",
    "AsyncTextStream": "_async.stream",
    "AuditLog": "audit",
    "Client": "_sync.client",
    "JWTSigner": "auth.signer",
    "OAuth2ClientCredentials": "auth.oauth2",
    "Session": "_sync.session",
    "TextStream": "_sync.stream",
}


if not TYPE_CHECKING:  # to a type checker it would mean that every name exists

    def __getattr__(name: str) -> Any:
        module = _WORLDS.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
        return found


def __dir__() -> list[str]:
    return __all__
