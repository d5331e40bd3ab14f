"""The client as an object."""

from __future__ import annotations

import copy
import pickle

import pytest

from deepseek_grpc import AsyncClient, ClientConfig
from deepseek_grpc.errors import AuthenticationError, ConnectError


async def test_a_client_stays_in_its_process(client):
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="make one in each process"):
            copied(client)


async def test_a_client_says_where_it_leads_and_no_secret(client, fake_server):
    assert repr(client) == f"AsyncClient({fake_server.target!r})"
    assert isinstance(client, AsyncClient)


async def test_a_warm_client_has_a_token_and_a_connection(fake_server):
    class Source:
        asked = 0

        def token(self):
            self.asked += 1
            return fake_server.credentials().token()

    source = Source()
    async with fake_server.async_client(credentials=source) as client:
        await client.warm()
        assert source.asked >= 1
        assert (await client.text.generate("Hi")).text == "Hello from the fake server."


async def test_warming_up_says_what_is_missing(fake_server):
    class Empty:
        def token(self):
            raise AuthenticationError("there is none")

    async with fake_server.async_client(credentials=Empty()) as client:
        with pytest.raises(AuthenticationError, match="there is none"):
            await client.warm()
    async with fake_server.async_client() as client:
        fake_server.stop()
        with pytest.raises(ConnectError):
            await client.warm()


async def test_single_fields_of_the_configuration_are_given_by_name(fake_server):
    config = ClientConfig(metadata={"x-team": "a"}, max_concurrency=3)
    async with fake_server.async_client(config=config, max_concurrency=5) as client:
        assert client._link.config == ClientConfig(metadata={"x-team": "a"}, max_concurrency=5)
    async with AsyncClient.from_env(fake_server.environ, wait_for_ready=True) as client:
        assert client._link.config.wait_for_ready
    for wrong in ({"max_concurency": 5}, {"insecure": True}):
        with pytest.raises(TypeError):
            fake_server.async_client(**wrong)
        with pytest.raises(TypeError):
            fake_server.async_client(config=config, **wrong)
