"""Secrets and tokens show nowhere: not in logs, errors, tracebacks or reprs, at either end."""

from __future__ import annotations

import gc
import logging
import traceback

import pytest

from deepseek_grpc import JWTSigner
from deepseek_grpc.errors import DeepSeekError
from deepseek_grpc.gateway.guard import Call
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.testing import FakeServer
from deepseek_grpc.testing.script import ScriptedEngine

OTHER = "another-canary-0123456789abcdef0123456789"


class Broken(ScriptedEngine):
    """Fails as foreign code does, with the call at hand."""

    async def generate(self, request):
        raise KeyError("something foreign")


def calls(fake):
    """Makes good calls and bad ones; returns the tokens that were sent and the errors that came."""
    signers = [
        fake.credentials(),
        JWTSigner(fake.client_id, OTHER),
        JWTSigner("nobody", OTHER),
        JWTSigner(fake.client_id, OTHER, audience="elsewhere"),
    ]
    tokens = [signer.token() for signer in signers]
    tokens += [tokens[0][:-4] + "AAAA", "opaque-canary-token", tokens[0] + ".more"]
    errors = []
    for token in tokens:
        with fake.client(credentials=token) as client:
            for ask in (client.text.generate, lambda _, c=client: c.text.session().generate("Hi")):
                try:
                    ask("Hi")
                except DeepSeekError as error:
                    errors.append(error)
    return tokens, errors


@pytest.mark.parametrize("engine", [ScriptedEngine(), Broken()], ids=lambda engine: type(engine).__name__)
def test_secrets_and_tokens_show_nowhere(caplog, capfd, engine):
    caplog.set_level(logging.DEBUG)
    with FakeServer(engine=engine) as fake:
        tokens, errors = calls(fake)
        things = [thing for thing in gc.get_objects() if isinstance(thing, Gateway | Call | FakeServer | JWTSigner)]
        shown = [repr(thing) for thing in things] + [repr(fake._gateway.settings), repr(fake.text.requests)]
    assert len(errors) >= 12
    for error in errors:
        shown += [str(error), repr(error), repr(vars(error)), *traceback.format_exception(error)]
    shown += [caplog.text, *(repr(record.__dict__) for record in caplog.records), *capfd.readouterr()]
    everything = "\n".join(shown)
    assert "token refused" in caplog.text
    assert ("something foreign" in caplog.text) == isinstance(engine, Broken)
    for secret in (fake.client_secret, OTHER, *tokens):
        assert secret not in everything
        assert secret.rpartition(".")[2] not in everything  # a token's signature
