"""A token that many callers share: kept while it is good, renewed by one of them for all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import copy

from deepseek_grpc import _forks
from deepseek_grpc._secret import Secret
from deepseek_grpc.errors import AuthenticationError, DeepSeekError

__all__ = ["Renewal", "TokenCache"]

_RENEW_AT = 0.8  # of a token's life
_BACKWARD = 30.0  # seconds that a clock may go back before a token of its future is distrusted
_BACKOFF = 1.0  # seconds before the attempt after a failure; doubled with each that follows
_MAX_BACKOFF = 60.0
_TRIED = 5.0  # seconds for which a token in the place of a refused one is kept, even if it is refused too


class _Held:
    """A token and its times, frozen, so that it can be read without a lock."""

    __slots__ = ("expires", "made", "renew", "replacement", "token")

    def __init__(self, token: Secret, made: float, lifetime: float, *, replacement: bool) -> None:
        self.token = token
        self.replacement = replacement  # for one that was refused
        self.made = made
        self.renew = made + _RENEW_AT * lifetime
        self.expires = made + lifetime


class Renewal:
    """Decides about one token, given the time: hand it out, renew it ahead of its end, or let the callers wait.

    Pure: it starts nothing and locks nothing. `good` and `due` may be asked by any thread at any time; whoever changes
    something holds a lock.

    Args:
        ahead: Whether a token is good to its end and renewed before it. Otherwise it is good until it is to be renewed,
            for a renewal that is so quick that callers can wait for it.
    """

    def __init__(self, *, ahead: bool) -> None:
        self._ahead = ahead
        self._held: _Held | None = None
        self._refused: Secret | None = None
        self._failures = 0
        self._failed_at = 0.0
        self._wait = 0.0

    def good(self, now: float) -> Secret | None:
        """Returns the token that may be handed out now, or None."""
        held = self._held
        if held is None:
            return None
        end = held.expires if self._ahead else held.renew
        return held.token if held.made - _BACKWARD <= now < end else None

    def due(self, now: float) -> bool:
        """Says whether it is time to renew a token that is still good."""
        held = self._held
        return held is not None and now >= held.renew and not self.rest(now)

    def rest(self, now: float) -> float:
        """Returns the seconds for which nobody is to be asked after a failure; 0 where no clock says so any more."""
        since = now - self._failed_at
        return self._wait - since if 0 <= since < self._wait else 0.0

    def renewed(self, started: float, now: float, token: Secret, lifetime: float) -> bool:
        """Takes a token whose life began, at the latest, when the renewal `started`; False when it is over already."""
        if now >= started + lifetime:
            return False
        replacement = self._held is None and self._refused is not None
        self._held = _Held(token, started, lifetime, replacement=replacement)
        self._failures = 0
        self._wait = 0.0
        return True

    def failed(self, now: float, retry_after: float | None = None) -> None:
        """Takes note of a failure: the next renewal waits a little, longer from failure to failure."""
        wait = min(_BACKOFF * 2.0 ** min(self._failures, 10), _MAX_BACKOFF)
        self._failures += 1
        self._failed_at = now
        self._wait = max(wait, retry_after or 0.0)

    def refused(self, token: Secret, now: float) -> None:
        """Drops a token, if it is the one that is held and another may be better.

        A source that gives out the refused token once more has no better one, and a gateway that refuses its
        replacement too would refuse the next; renewing it at each call wouldn't help.
        """
        held = self._held
        if held is None or held.token != token or token == self._refused:
            return
        if not (held.replacement and 0 <= now - held.made < _TRIED):
            self._held = None
            self._refused = token


class _Flight:
    """One renewal under way, and what it failed with."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: DeepSeekError | None = None


class TokenCache:
    """Fetches tokens, one renewal at a time for any number of threads.

    While a token is good, callers get it at once; near its end one thread renews it in the background. When there is
    none, one of the callers fetches it and all others wait. When that fails, callers get the same error for a while (a
    second, longer from failure to failure, or as long as the error says), and nothing is fetched.

    Args:
        fetch: Returns a token and its lifetime in seconds, or raises a DeepSeekError, which all who wait get.
        clock: Seconds, of which fractions count.
        ahead: See Renewal.
    """

    def __init__(self, fetch: Callable[[], tuple[Secret, float]], clock: Callable[[], float], *, ahead: bool) -> None:
        self._fetch = fetch
        self._clock = clock
        self._renewal = Renewal(ahead=ahead)
        self._ahead = ahead
        self._error: DeepSeekError | None = None  # of the last fetch
        self.forked()
        _forks.register(self)

    def forked(self) -> None:
        """Forgets the renewal that is under way: a fork takes no threads along, and leaves locks as they were."""
        self._lock = threading.Lock()
        self._flight: _Flight | None = None

    def token(self) -> str:
        """Returns a good token; waits for one if there is none, or raises again what the last fetch raised."""
        while (token := self.cached()) is None:
            with self._lock:
                now = self._clock()
                if self._renewal.good(now) is not None:
                    continue  # renewed between the two looks
                flight = self._flight
                mine = flight is None
                if flight is None:
                    if self._error is not None and (rest := self._renewal.rest(now)):
                        raise _again(self._error, rest)
                    flight = self._flight = _Flight()
            if mine:
                self._renew(flight)
            else:
                flight.done.wait()
            if flight.error is not None:
                raise copy(flight.error)  # one each: an exception carries the traceback of its thread
        return token

    def cached(self) -> str | None:
        """Returns the token that is good now, or None; never waits."""
        now = self._clock()
        token = self._renewal.good(now)
        if token is None:
            return None
        if self._ahead and self._renewal.due(now):
            self._renew_ahead()
        return token.reveal().decode()

    def invalidate(self, token: str) -> None:
        """Drops a token that was refused, unless another has taken its place."""
        with self._lock:
            self._renewal.refused(Secret(token), self._clock())

    def _renew_ahead(self) -> None:
        with self._lock:
            if self._flight is not None or not self._renewal.due(self._clock()):
                return
            flight = self._flight = _Flight()
        try:
            threading.Thread(target=self._renew, args=(flight,), name="deepseek-grpc-token", daemon=True).start()
        except RuntimeError:  # no more threads, or the interpreter is about to end; the token is still good
            self._end(flight, failed=True)

    def _renew(self, flight: _Flight) -> None:
        good = False
        try:
            started = self._clock()
            token, lifetime = self._fetch()
            with self._lock:
                good = self._renewal.renewed(started, self._clock(), token, lifetime)
            if not good:
                flight.error = AuthenticationError(
                    f"a token came whose life of {lifetime:g} s was over when it arrived; "
                    "look at this machine's clock, and at the lifetime that tokens are given",
                    retryable=True,
                )
        except DeepSeekError as error:
            flight.error = copy(error)  # without its traceback, whose frames know the secret
        finally:
            # In any case, Ctrl-C included: who waited and finds neither token nor error tries for himself.
            self._end(flight, failed=not good)

    def _end(self, flight: _Flight, *, failed: bool) -> None:
        with self._lock:
            now = self._clock()
            self._error = flight.error
            if failed:
                self._renewal.failed(now, flight.error.retry_after if flight.error else None)
            unnoticed = failed and self._renewal.good(now) is not None
            if self._flight is flight:  # not so in a child that forked meanwhile
                self._flight = None
        flight.done.set()
        if unnoticed and flight.error is not None:
            import logging

            logging.getLogger(__name__).warning("the token was not renewed ahead of its end: %s", flight.error)


def _again(error: DeepSeekError, rest: float) -> DeepSeekError:
    """Makes an error to be raised once more; where waiting helps, it says for how long."""
    error = copy(error)
    if error.retryable:
        error.retry_after = rest
    return error
