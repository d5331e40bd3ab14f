"""Decides what to do about a connection that a session has lost. Pure: a clock goes in, a decision comes out."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final

import grpc

from deepseek_grpc._session.client import ClientSession, ClientTurn
from deepseek_grpc.config import ClientConfig
from deepseek_grpc.errors import AuthenticationError, DeepSeekError, InvalidRequestError, ServiceUnavailableError

__all__ = ["Recovery", "Verdict", "may_restart", "second_try"]

_ELSEWHERE_TRIES: Final = 3
"""How often a resume may reach the wrong gateway: the balancer may need a moment to find the right one again."""
_MOST_STARTS: Final = 8
"""How often a turn is started, the first time included, where nothing came of it."""
_STEADY_SECONDS: Final = 1.0
"""A connection that has lived so long was of use."""
_RETRIED: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_PASSING: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.DATA_LOSS,
    }
)


def may_restart(turn: ClientTurn, config: ClientConfig) -> bool:
    """Says whether a turn that nothing came of may be started once more: a request may be what ends its gateways."""
    return config.retry.attempts > 1 and turn.tries < _MOST_STARTS


def second_try(
    turn: ClientTurn,
    error: DeepSeekError,
    session: ClientSession[Any],
    config: ClientConfig,
    renews: Callable[[], bool],
) -> float | None:
    """Returns the seconds until a turn that the gateway has refused is started again, None where it isn't.

    It is at once, at 0, with another token, at another gateway or with its whole history; and otherwise what gRPC does
    about calls that fail before anything came (gRFC A6), but for the budget that a channel has.
    """
    error.attempts = max(error.attempts, turn.tries)
    if turn.seen:
        return None
    if session.again(turn, error) and turn.tries < _MOST_STARTS:
        return 0.0
    if turn.tries == 1 and renews():
        return 0.0
    retry = config.retry
    if error.code not in _RETRIED or not error.retryable or turn.tries >= retry.attempts:
        return None
    pause = error.retry_after
    if pause is None:
        pause = min(retry.max_backoff, retry.initial_backoff * retry.multiplier ** (turn.tries - 1))
    left = turn.deadline_ms() / 1000
    return None if left and pause >= left else pause


class Verdict(Enum):
    """What to do next."""

    AGAIN = "again"
    """Connect again, after `Recovery.pause`."""
    MOVE = "move"
    """This gateway's session is gone: another one takes the turns."""
    FAIL = "fail"
    """There is nothing to be done: the turns end in the error."""


class Recovery:
    """One gateway's session's connections: how often they failed, since when, and what of.

    Args:
        config: Its retries, reconnect back-off and `reconnect_seconds`.
        patient: Whether the first connection may take as long as a lost one's successor.
    """

    __slots__ = (
        "_config",
        "_connected_at",
        "_elsewhere",
        "_failures",
        "_lost_at",
        "_patient",
        "_received",
        "_renewed",
        "cause",
        "pause",
    )

    def __init__(self, config: ClientConfig, *, patient: bool) -> None:
        self._config = config
        self._patient = patient
        self._failures = 0
        self._elsewhere = 0
        self._received = 0
        self._connected_at = float("inf")
        self._renewed = False
        self._lost_at: float | None = None
        self.cause: DeepSeekError = ServiceUnavailableError("the gateway closed the session")
        """What ended the last connection that was lost."""
        self.pause = 0.0
        """Seconds to wait before the next one, without jitter."""

    def connected(self, now: float) -> None:
        """The gateway has answered."""
        self._connected_at = now
        self._elsewhere = 0
        self._renewed = False
        self._lost_at = None
        self._patient = True

    @property
    def waits(self) -> bool:
        """Whether the next connection waits for the network instead of failing at once."""
        return self._patient

    def left(self, now: float) -> float:
        """Returns the seconds that the next connection may take to stand."""
        if not self._patient:
            return float("inf")
        if self._lost_at is None:
            self._lost_at = now
        return max(0.0, self._lost_at + self._config.reconnect_seconds - now)

    def decide(
        self, error: DeepSeekError, session: ClientSession[Any], now: float, renews: Callable[[], bool]
    ) -> Verdict:
        """Decides what to do after a connection has failed.

        Args:
            error: What it failed of.
            session: What it carried.
            now: Seconds of any steady clock.
            renews: Says whether there is a better token after one was refused.
        """
        if error.reason == "SESSION_GONE":
            return Verdict.MOVE
        if error.reason == "SESSION_ELSEWHERE":
            self._elsewhere += 1
            self.pause = self._config.reconnect_backoff[0]
            return Verdict.MOVE if self._elsewhere >= _ELSEWHERE_TRIES else Verdict.AGAIN
        if error.code is grpc.StatusCode.UNAUTHENTICATED and not self._renewed and renews():
            self._renewed = True
            self.pause = 0.0
            return Verdict.AGAIN
        if self._renewed:
            error.attempts += 1
        # Where nothing was sent there was no token to be had, and its source may be out for the same reason.
        tokenless = isinstance(error, AuthenticationError) and not error.attempts and bool(session.resume_token)
        if (error.code not in _PASSING and not tokenless) or isinstance(error, InvalidRequestError):
            return Verdict.FAIL  # the latter where a message is too large
        self.cause = error
        opened = bool(session.session_id)
        if opened and not session.resume_token:
            return Verdict.MOVE
        if session.received > self._received or now - self._connected_at > _STEADY_SECONDS:
            self._failures = 0  # it was of use; otherwise the pauses grow
        self._received, self._connected_at = session.received, float("inf")
        self._failures += 1
        first, most = self._config.reconnect_backoff
        self.pause = 0.0 if opened and self._failures == 1 else min(most, first * 2 ** (self._failures - 1))
        if error.retry_after is not None:
            self.pause = max(self.pause, error.retry_after)
        if self._lost_at is None:
            self._lost_at = now
        if not self._patient:
            over = self._failures >= self._config.retry.attempts
        else:
            patience = self._config.reconnect_seconds
            over = now + self.pause - self._lost_at >= patience
        return Verdict.FAIL if over else Verdict.AGAIN
