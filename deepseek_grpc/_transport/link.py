"""What the links of both worlds share: tokens, observers, certificates that change."""

from __future__ import annotations

import time
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import grpc

from deepseek_grpc import _forks
from deepseek_grpc._call import CallOptions
from deepseek_grpc.auth import TokenSource, cached_token, call_credentials, channel_credentials, current_token
from deepseek_grpc.config import ClientConfig
from deepseek_grpc.errors import ConfigurationError, DeadlineExceededError, DeepSeekError
from deepseek_grpc.tls import TLS

if TYPE_CHECKING:
    from deepseek_grpc._codec.observe import Observation

__all__ = ["LinkBase", "late_token", "least_loaded"]

_LOOK_SECONDS = 1.0
"""How often, at most, the certificates' files are looked at."""


class LinkBase:
    """The target, the configuration and the credential of a link.

    Calls name their method by the stub's class and a name: what they are made with is looked up when they are sent,
    because certificates may have changed while they waited for a place or a token.
    """

    def __init__(self, target: str, config: ClientConfig, source: TokenSource | None) -> None:
        self.target = target
        self.config = config
        self.source = source
        self._cached = getattr(source, "cached", None)
        self._invalidate = getattr(source, "invalidate", None)
        _forks.check()  # before anything of gRPC's, which may hang
        self._credentials = channel_credentials(target, config, source)
        self._tls = config.tls if isinstance(config.tls, TLS) else None
        self._stamp = None if self._tls is None else self._tls.stamp()
        self._look_at = time.monotonic() + _LOOK_SECONDS

    def token(self) -> str | None:
        """Returns the token that is good now, or None: without credentials, or where the source would have to wait.

        Raises:
            AuthenticationError: There is no token to be had.
        """
        if self._cached is not None:
            return cached_token(self._cached)
        return None if self.source is None else current_token(self.source)

    def sent(self, call: CallOptions, token: str | None) -> tuple[tuple[str, str], ...]:
        """Returns the metadata that a call sends."""
        if token is not None and self.config.token_delivery == "metadata":
            return (*call.metadata, ("authorization", f"Bearer {token}"))
        return call.metadata

    def own_credentials(self, token: str | None) -> grpc.CallCredentials | None:
        """Returns a call's own credentials, where it would go out without: gRPC waits for the source in a thread."""
        if token is None and self.source is not None and self.config.token_delivery == "metadata":
            return call_credentials(self.source)
        return None

    def renews(self, error: DeepSeekError, token: str | None) -> bool:
        """Has the source forget a token that the gateway has refused; returns whether there may be a better one."""
        if error.code is not grpc.StatusCode.UNAUTHENTICATED or not error.attempts or self._invalidate is None:
            return False
        if token is None:
            token = self.token()  # fetched in the meantime, by gRPC's thread
        if token is None:
            return False
        self._invalidate(token)
        return self.token() != token  # the same again, where it was renewed just now and refused all the same

    def observe(self, service: Any, name: str, request: Any, call: CallOptions) -> Observation | None:
        """Begins the record of a call, if anybody observes."""
        if not self.config.observers:
            return None
        from deepseek_grpc._codec.observe import Observation

        method = f"{service.__name__.removesuffix('Stub')}/{name}"
        return Observation(self.config.observers, method, self.target, request, call)

    def has_new_certificates(self) -> bool:
        """Says whether the certificates' files have changed to good ones, and makes credentials of them."""
        if self._tls is None or time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + _LOOK_SECONDS
        stamp = self._tls.stamp()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._credentials = channel_credentials(self.target, self.config, self.source)
        except ConfigurationError as error:
            import logging

            logging.getLogger("deepseek_grpc").warning(
                "the changed certificates aren't used, the old ones stay: %s", error.details
            )
            return False
        return True

    def no_place(self, call: CallOptions) -> DeadlineExceededError:
        """Makes the error of a call that waited for its turn until its time was over."""
        return DeadlineExceededError(
            f"no turn within {call.total:g} s (Timeouts.total): the client's {self.config.max_concurrency} places were "
            "taken (max_concurrency)",
            request_id=call.request_id,
        )


def late_token(call: CallOptions) -> DeadlineExceededError:
    """Makes the error of a call that waited for a token until its time was over."""
    return DeadlineExceededError(
        f"no token within {call.total:g} s (Timeouts.total): the token source takes its time",
        request_id=call.request_id,
    )


class _Loaded(Protocol):
    @property
    def load(self) -> int: ...


_Wire = TypeVar("_Wire", bound=_Loaded)
_LOAD: Final = attrgetter("load")


def least_loaded(wires: list[_Wire], most: int, make: Callable[[], _Wire]) -> _Wire:
    """Returns the wire with the least to do; a new one where each of them has something to do, up to so many."""
    wire = min(wires, key=_LOAD, default=None)
    if wire is None or (wire.load and len(wires) < most):
        wire = make()
        wires.append(wire)
    return wire
