"""What is left on the account behind a gateway."""

from __future__ import annotations

from deepseek_grpc._value import Value, value

__all__ = ["AccountBalance", "Balance"]


@value
class Balance(Value):
    """The balance in one currency (ISO 4217). Amounts are decimal numbers as text, as the backend gives them.

    `total` is what was `granted` and hasn't expired, and what was `topped_up`, together. Count with `decimal.Decimal`.
    """

    currency: str
    total: str
    granted: str = ""
    topped_up: str = ""


@value
class AccountBalance(Value):
    """Whether there is enough for calls, and the balances, one a currency; none where nothing is charged."""

    available: bool
    balances: tuple[Balance, ...] = ()
