# Mirrored by scripts/unasync.py from tests/contract/_async/test_client.py: edit that and run `make sync`.
"""The client as an object."""

from __future__ import annotations

import copy
import pickle

import pytest

from deepseek_grpc import Client


def test_a_client_stays_in_its_process(client):
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="make one in each process"):
            copied(client)


def test_a_client_says_where_it_leads_and_no_secret(client, fake_server):
    assert repr(client) == f"Client({fake_server.target!r})"
    assert isinstance(client, Client)
