"""Credentials: where tokens come from, how long they are kept, and how they reach the wire."""

from typing import TYPE_CHECKING, Any

from deepseek_grpc._secret import Secret
from deepseek_grpc.auth.channel import call_credentials, channel_credentials
from deepseek_grpc.auth.sources import StaticToken, TokenSource, cached_token, current_token, token_source

if TYPE_CHECKING:
    from deepseek_grpc.auth.oauth2 import OAuth2ClientCredentials
    from deepseek_grpc.auth.signer import AUDIENCE, JWTSigner

__all__ = [
    "AUDIENCE",
    "JWTSigner",
    "OAuth2ClientCredentials",
    "Secret",
    "StaticToken",
    "TokenSource",
    "cached_token",
    "call_credentials",
    "channel_credentials",
    "current_token",
    "token_source",
]

# Loaded when used: a program has one kind of credential, and the start of all others would pay for it (PEP 562).
_KINDS = {"AUDIENCE": "signer", "JWTSigner": "signer", "OAuth2ClientCredentials": "oauth2"}


if not TYPE_CHECKING:  # to a type checker it would mean that every name exists

    def __getattr__(name: str) -> Any:
        module = _KINDS.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
        return found


def __dir__() -> list[str]:
    return __all__
