"""What a token source is, and a token that was made elsewhere."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from deepseek_grpc._secret import Secret
from deepseek_grpc.errors import AuthenticationError, ConfigurationError, DeepSeekError

__all__ = ["StaticToken", "TokenSource", "cached_token", "current_token", "fits_a_header", "token_source"]

_LEEWAY = 30.0  # seconds by which two clocks may differ


@runtime_checkable
class TokenSource(Protocol):
    """Anything that has a bearer token to give: visible ASCII characters, at least one.

    It is asked where a call is made, in the caller's thread (with asyncio, on the event loop), and again by gRPC in
    threads of its own. So `token()` must not block, unless the source has two more methods, which are looked for by
    name:

    `cached() -> str | None` returns the token that is good now without ever blocking, or None where `token()` would
    have to wait for one; then `token()` is called in a thread that may wait.

    `invalidate(token: str) -> None` says that the gateway refused this token: unless another has taken its place
    meanwhile, the next `token()` returns a new one.

    >>> class Vault:
    ...     def token(self) -> str:
    ...         return "opaque-token"  # from wherever tokens are kept
    >>> with Client("dns:///gateway.internal:443", credentials=Vault()) as client:
    ...     client
    Client('dns:///gateway.internal:443')
    """

    def token(self) -> str:
        """Returns a token that is good now; raises AuthenticationError when there is none.

        What else it raises fails the call as an AuthenticationError that names the exception's type, no more.
        """


def current_token(source: TokenSource) -> str:
    """Returns a source's token, fit for a header; raises AuthenticationError when it has none, or fails.

    >>> current_token(StaticToken("opaque-token"))
    'opaque-token'
    """
    return _checked(_asked(source.token))


def cached_token(cached: Callable[[], str | None]) -> str | None:
    """Returns what a source's `cached` says, fit for a header; raises AuthenticationError when it fails.

    >>> cached_token(lambda: None) is None
    True
    """
    token = _asked(cached)
    return None if token is None else _checked(token)


def _asked(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except DeepSeekError:
        raise
    except Exception as error:
        # The exception's own text may quote a secret, and this message travels on.
        raise AuthenticationError(
            f"the token source failed with {type(error).__name__}", advice="Its own error is the cause (__cause__)."
        ) from error


def _checked(token: Any) -> str:
    if not isinstance(token, str):
        raise AuthenticationError(f"the token source returned a {type(token).__name__}; give the token as text")
    if not fits_a_header(token):
        raise AuthenticationError("the token source's token is empty or has characters that a header can't carry")
    return token


def token_source(credentials: TokenSource | str | Secret | None) -> TokenSource | None:
    """Makes a token source of what users give; raises ConfigurationError where it can't be one.

    >>> token_source("opaque-token")
    StaticToken(…)
    """
    if isinstance(credentials, str | Secret):
        return StaticToken(credentials)
    if credentials is None or (isinstance(credentials, TokenSource) and not isinstance(credentials, type)):
        return credentials
    kind = f"the class {credentials.__name__}" if isinstance(credentials, type) else f"a {type(credentials).__name__}"
    raise ConfigurationError(
        f"credentials is {kind}; give JWTSigner(client_id, client_secret), a token as text, or None"
    )


def fits_a_header(token: str) -> bool:
    """Says whether a token is visible ASCII characters, at least one."""
    return token.isascii() and token.isprintable() and " " not in token and token != ""


class StaticToken:
    """A token made elsewhere.

    Where it is a JWT with an `exp`, an expired one is refused before anything is sent.

    >>> StaticToken("opaque-token").token()
    'opaque-token'
    """

    def __init__(self, token: str | Secret) -> None:
        if not isinstance(token, str | Secret):
            raise ConfigurationError(f"token is a {type(token).__name__}; give the token as text")
        self._token = Secret(token)
        text = self._token.reveal().decode("utf-8", "replace")
        if not fits_a_header(text):
            raise ConfigurationError("the token is empty or has characters that a header can't carry")
        self._expires = _expiry(text)

    def token(self) -> str:
        """Returns the token; raises AuthenticationError once it has expired."""
        if self._expires is not None and (late := time.time() - self._expires) > _LEEWAY:
            raise AuthenticationError(f"the token expired {late:.0f} s ago (its `exp` has passed); get a new one")
        return self._token.reveal().decode()

    def __repr__(self) -> str:
        return "StaticToken(…)"


def _expiry(token: str) -> float | None:
    """Reads `exp` without verifying anything: the gateway verifies, this only spares a call that can't succeed."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    import json

    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(claims["exp"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, binascii.Error):
        return None
