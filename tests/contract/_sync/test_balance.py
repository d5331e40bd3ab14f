# Mirrored by scripts/unasync.py from tests/contract/_async/test_balance.py: edit that and run `make sync`.
"""What is left on the account behind the gateway."""

from __future__ import annotations

from decimal import Decimal

import pytest

from deepseek_grpc import AccountBalance, Balance
from deepseek_grpc.errors import PermissionDeniedError, UnimplementedError
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.testing import FakeServer
from tests.contract.engines import Uncharged


def test_the_balance_in_each_currency(fake_server, client):
    fake_server.text.account = AccountBalance(
        available=True, balances=(Balance("CNY", "110.00", "10.00", "100.00"), Balance("USD", "0.10"))
    )
    account = client.text.balance()
    assert account == fake_server.text.account
    assert sum(Decimal(entry.total) for entry in account.balances) == Decimal("110.10")


def test_an_empty_account(fake_server, client):
    fake_server.text.account = AccountBalance(available=False, balances=(Balance("USD", "0.00", "0.00", "0.00"),))
    assert not (client.text.balance()).available


def test_the_fake_has_one_to_begin_with(client):
    assert (client.text.balance()).balances == (Balance("USD", "10.00", "0.00", "10.00"),)


def test_the_embedded_engine_charges_nothing():
    with FakeServer(engine=EmbeddedEngine()) as server:
        with server.client() as client:
            assert client.text.balance() == AccountBalance(available=True)


def test_an_engine_that_knows_no_balance():
    with FakeServer(engine=Uncharged()) as server:
        with server.client() as client:
            with pytest.raises(UnimplementedError, match="no backend of this gateway knows a balance"):
                client.text.balance()


def test_it_needs_its_permission():
    with FakeServer(permissions=["text.generate"]) as server:
        with server.client() as client:
            with pytest.raises(PermissionDeniedError, match=r"text\.balance") as caught:
                client.text.balance(request_id="r-1")
            assert caught.value.request_id == "r-1"
