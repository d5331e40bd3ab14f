"""`deepseek-grpc balance`: shows what is left of the account behind the gateway."""

from __future__ import annotations

from dataclasses import asdict

from deepseek_grpc.cli.common import AsJson, Target, connect, emit, reporting, say

__all__ = ["balance"]


def balance(*, target: Target = None, as_json: AsJson = False) -> None:
    """Shows the balance of the account that the gateway's backend charges.

    Example: deepseek-grpc balance --json
    """
    with reporting(as_json=as_json), connect(target) as client:
        account = client.text.balance()
        if as_json:
            emit("balance", **asdict(account))
            return
        if account.balances:
            rows = [("currency", "total", "granted", "topped up")]
            rows += [(b.currency, b.total, b.granted, b.topped_up) for b in account.balances]
            first, *others = ([*map(len, column)] for column in zip(*rows, strict=True))
            for row in rows:
                amounts = [f"{cell:>{max(widths)}}" for cell, widths in zip(row[1:], others, strict=True)]
                say("  ".join([f"{row[0]:{max(first)}}", *amounts]))
        elif account.available:
            say("nothing is charged")
        if not account.available:
            say("not enough for further calls")
