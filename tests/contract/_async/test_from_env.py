"""Credentials that a client takes from the environment."""

from __future__ import annotations

import pytest

from deepseek_grpc import AsyncClient
from deepseek_grpc.errors import ConfigurationError

TARGET = {"DEEPSEEK_GRPC_TARGET": "127.0.0.1:1"}
PAIR = {"DEEPSEEK_GRPC_CLIENT_ID": "a", "DEEPSEEK_GRPC_CLIENT_SECRET": "0123456789abcdef0123456789abcdef"}
URL = {"DEEPSEEK_GRPC_TOKEN_URL": "https://login.example.com/token"}
SCOPE = {"DEEPSEEK_GRPC_SCOPE": "text"}


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        (URL, "set DEEPSEEK_GRPC_CLIENT_ID and DEEPSEEK_GRPC_CLIENT_SECRET too"),
        (PAIR | {"DEEPSEEK_GRPC_TOKEN": "a.b.c"}, "both set; give one"),
        (
            PAIR | {"DEEPSEEK_GRPC_KEY_FILE": "key.pem"},
            "DEEPSEEK_GRPC_CERT_FILE and DEEPSEEK_GRPC_KEY_FILE go together",
        ),
        (PAIR | {"DEEPSEEK_GRPC_CERT_FILE": "a.pem"}, "DEEPSEEK_GRPC_CERT_FILE and DEEPSEEK_GRPC_KEY_FILE go together"),
        (PAIR | SCOPE, "DEEPSEEK_GRPC_SCOPE is for DEEPSEEK_GRPC_TOKEN_URL"),
        (PAIR | {"DEEPSEEK_GRPC_TOKEN_URL": "http://login.example.com/"}, "give an https URL"),
    ],
)
async def test_half_a_credential_is_refused(environ, says):
    with pytest.raises(ConfigurationError, match=says):
        AsyncClient.from_env(TARGET | environ)


@pytest.mark.parametrize("environ", [{}, PAIR, PAIR | URL, PAIR | URL | SCOPE, {"DEEPSEEK_GRPC_TOKEN": "a.b.c"}])
async def test_a_whole_one_is_taken_without_a_call(environ):
    async with AsyncClient.from_env(TARGET | environ) as client:
        assert "0123456789abcdef" not in repr(client)
