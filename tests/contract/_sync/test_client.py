# Mirrored by scripts/unasync.py from tests/contract/_async/test_client.py: edit that and run `make sync`.
"""The client as an object."""

from __future__ import annotations

import copy
import pickle

import pytest

from deepseek_grpc import Client, ClientConfig
from deepseek_grpc.errors import AuthenticationError, ConnectError


def test_a_client_stays_in_its_process(client):
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="make one in each process"):
            copied(client)


def test_a_client_says_where_it_leads_and_no_secret(client, fake_server):
    assert repr(client) == f"Client({fake_server.target!r})"
    assert isinstance(client, Client)


def test_a_warm_client_has_a_token_and_a_connection(fake_server):
    class Source:
        asked = 0

        def token(self):
            self.asked += 1
            return fake_server.credentials().token()

    source = Source()
    with fake_server.client(credentials=source) as client:
        client.warm()
        assert source.asked >= 1
        assert (client.text.generate("Hi")).text == "Hello from the fake server."


def test_warming_up_says_what_is_missing(fake_server):
    class Empty:
        def token(self):
            raise AuthenticationError("there is none")

    with fake_server.client(credentials=Empty()) as client:
        with pytest.raises(AuthenticationError, match="there is none"):
            client.warm()
    with fake_server.client() as client:
        fake_server.stop()
        with pytest.raises(ConnectError):
            client.warm()


def test_single_fields_of_the_configuration_are_given_by_name(fake_server):
    config = ClientConfig(metadata={"x-team": "a"}, max_concurrency=3)
    with fake_server.client(config=config, max_concurrency=5) as client:
        assert client._link.config == ClientConfig(metadata={"x-team": "a"}, max_concurrency=5)
    with Client.from_env(fake_server.environ, wait_for_ready=True) as client:
        assert client._link.config.wait_for_ready
    for wrong in ({"max_concurency": 5}, {"insecure": True}):
        with pytest.raises(TypeError):
            fake_server.client(**wrong)
        with pytest.raises(TypeError):
            fake_server.client(config=config, **wrong)
