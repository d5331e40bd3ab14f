"""The balance, both directions."""

from __future__ import annotations

from deepseek_grpc.types import AccountBalance, Balance
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["decode_balance", "encode_balance"]


def decode_balance(response: pb.GetBalanceResponse) -> AccountBalance:
    """Makes an AccountBalance of the answer to GetBalance."""
    return AccountBalance(
        response.available,
        tuple(Balance(entry.currency, entry.total, entry.granted, entry.topped_up) for entry in response.balances),
    )


def encode_balance(account: AccountBalance) -> pb.GetBalanceResponse:
    """Makes the answer to GetBalance."""
    response = pb.GetBalanceResponse(available=account.available)
    for entry in account.balances:
        response.balances.add(
            currency=entry.currency, total=entry.total, granted=entry.granted, topped_up=entry.topped_up
        )
    return response
