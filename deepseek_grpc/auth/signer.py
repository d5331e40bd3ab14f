"""Tokens that the client signs itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Literal

from deepseek_grpc._secret import Secret
from deepseek_grpc.auth.renewal import TokenCache
from deepseek_grpc.errors import ConfigurationError

__all__ = ["AUDIENCE", "JWTSigner"]

AUDIENCE = "deepseek-grpc"
"""The `aud` that gateways expect unless they are configured otherwise."""

_MAX_LIFETIME = 3600
_MIN_SECRET_BYTES = 32  # RFC 7518, section 3.2: an HS256 key has at least the size of the hash


class JWTSigner:
    """Signs short-lived JWTs with a client secret (HS256) or a private key (RS256, ES256, EdDSA).

    Claims: `iss` and `sub` are the client's id, `aud` the audience, `iat` now, `exp` at most an hour later, `jti`
    random (RFC 7519). The token is cached and renewed when four fifths of its life are over, by one caller for all.

    Args:
        client_id: The id under which the gateway knows the client.
        client_secret: The shared secret, at least 32 bytes; or the private key in PEM, with `algorithm`.
        algorithm: `HS256`, `RS256`, `ES256` or `EdDSA`.
        audience: The `aud` claim; None leaves it out.
        lifetime: Seconds, 1 to 3600.
        key_id: The `kid` header, for gateways with several keys.
        clock: Seconds since the epoch; for tests.

    Raises:
        ConfigurationError: The secret is too short, the algorithm unknown or the lifetime out of range.

    >>> JWTSigner("svc-a", "0123456789abcdef0123456789abcdef").token().count(".")
    2
    """

    def __init__(
        self,
        client_id: str,
        client_secret: str | bytes | Secret,
        *,
        algorithm: Literal["HS256", "RS256", "ES256", "EdDSA"] = "HS256",
        audience: str | None = AUDIENCE,
        lifetime: float = 900,
        key_id: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(client_id, str) or not client_id:
            raise ConfigurationError(f"client_id is {client_id!r}; give the id that the gateway knows the client by")
        if not isinstance(client_secret, str | bytes | Secret):
            raise ConfigurationError(
                f"client_secret is a {type(client_secret).__name__}; give the secret, or a private key in PEM"
            )
        if isinstance(lifetime, bool) or not isinstance(lifetime, int | float):
            raise ConfigurationError(f"lifetime is {lifetime!r}; give seconds, 1 to {_MAX_LIFETIME}")
        if algorithm not in ("HS256", "RS256", "ES256", "EdDSA"):
            raise ConfigurationError(f"algorithm is {algorithm!r}; one of HS256, RS256, ES256, EdDSA")
        if not 1 <= lifetime <= _MAX_LIFETIME:
            raise ConfigurationError(f"lifetime is {lifetime} s; gateways accept 1 to {_MAX_LIFETIME}")
        if key_id is not None and (not isinstance(key_id, str) or not key_id):
            raise ConfigurationError(f"key_id is {key_id!r}; give the key's name at the gateway, or None")
        key = Secret(client_secret)
        if algorithm == "HS256" and len(key) < _MIN_SECRET_BYTES:
            raise ConfigurationError(f"client_secret has {len(key)} bytes; HS256 needs at least {_MIN_SECRET_BYTES}")
        self._client_id = client_id
        self._key = key
        self._algorithm = algorithm
        self._audience = audience
        self._lifetime = lifetime
        self._key_id = key_id
        self._clock = clock
        self._cache = TokenCache(self._sign, clock, ahead=False)

    def token(self) -> str:
        """Returns a token with at least a fifth of its life ahead."""
        return self._cache.token()

    def invalidate(self, token: str) -> None:
        """Makes the next `token()` sign anew, unless another token has taken this one's place."""
        self._cache.invalidate(token)

    def _sign(self) -> tuple[Secret, float]:
        import jwt

        now = self._clock()
        claims: dict[str, Any] = {
            "iss": self._client_id,
            "sub": self._client_id,
            "iat": int(now),
            "exp": int(now + self._lifetime),
            "jti": os.urandom(16).hex(),
        }
        if self._audience is not None:
            claims["aud"] = self._audience
        header = {"kid": self._key_id} if self._key_id else None
        try:
            return Secret(jwt.encode(claims, self._key.reveal(), self._algorithm, header)), self._lifetime
        except (ValueError, TypeError, jwt.PyJWTError) as error:
            # Never chained: a parser's message may quote the key.
            problem = type(error).__name__
        raise ConfigurationError(f"the key can't sign with {self._algorithm} ({problem}); is it the right PEM?")

    def __repr__(self) -> str:
        return f"JWTSigner({self._client_id!r}, …, algorithm={self._algorithm!r})"
