"""Health and the list of models."""

from __future__ import annotations

import pytest

from deepseek_grpc import ClientConfig, Model, StaticToken
from deepseek_grpc.errors import AuthenticationError, NotFoundError, PermissionDeniedError
from deepseek_grpc.testing import FakeServer


async def test_a_gateway_that_serves(client):
    assert await client.health() == "SERVING"
    assert await client.health("deepseek_rpc.v2.TextService") == "SERVING"


async def test_a_service_that_it_does_not_know(client):
    with pytest.raises(NotFoundError):
        await client.health("nobody")


async def test_health_needs_no_credential(fake_server):
    async with fake_server.async_client(credentials=None) as client:
        assert await client.health() == "SERVING"


@pytest.mark.parametrize("delivery", ["call", "metadata"])
async def test_health_does_not_ask_for_the_credential(fake_server, delivery):
    config = ClientConfig(token_delivery=delivery)
    expired = StaticToken("e30.eyJleHAiOiAwfQ.x")
    async with fake_server.async_client(credentials=expired, config=config) as client:
        assert await client.health() == "SERVING"
        with pytest.raises(AuthenticationError, match="expired"):
            await client.text.generate("Hi")


async def test_models(client):
    assert await client.text.models() == [
        Model("fake", "tests", "scripted", "Says what a test tells it to.", aliases=(), context_length=0)
    ]


async def test_models_need_their_permission():
    with FakeServer(permissions=["text.generate"]) as fake_server:
        async with fake_server.async_client() as client:
            with pytest.raises(PermissionDeniedError, match=r"text\.models") as caught:
                await client.text.models(request_id="req-1")
            assert caught.value.request_id == "req-1"
