# Mirrored by scripts/unasync.py from tests/contract/_async/test_health_models.py: edit that and run `make sync`.
"""Health and the list of models."""

from __future__ import annotations

import pytest

from deepseek_grpc import ClientConfig, Model, StaticToken
from deepseek_grpc.errors import AuthenticationError, NotFoundError, PermissionDeniedError
from deepseek_grpc.testing import FakeServer


def test_a_gateway_that_serves(client):
    assert client.health() == "SERVING"
    assert client.health("deepseek_rpc.v2.TextService") == "SERVING"


def test_a_service_that_it_does_not_know(client):
    with pytest.raises(NotFoundError):
        client.health("nobody")


def test_health_needs_no_credential(fake_server):
    with fake_server.client(credentials=None) as client:
        assert client.health() == "SERVING"


@pytest.mark.parametrize("delivery", ["call", "metadata"])
def test_health_does_not_ask_for_the_credential(fake_server, delivery):
    config = ClientConfig(token_delivery=delivery)
    expired = StaticToken("e30.eyJleHAiOiAwfQ.x")
    with fake_server.client(credentials=expired, config=config) as client:
        assert client.health() == "SERVING"
        with pytest.raises(AuthenticationError, match="expired"):
            client.text.generate("Hi")


def test_models(client):
    assert client.text.models() == [
        Model("fake", "tests", "scripted", "Says what a test tells it to.", aliases=(), context_length=0)
    ]


def test_models_need_their_permission():
    with FakeServer(permissions=["text.generate"]) as fake_server:
        with fake_server.client() as client:
            with pytest.raises(PermissionDeniedError, match=r"text\.models") as caught:
                client.text.models(request_id="req-1")
            assert caught.value.request_id == "req-1"
