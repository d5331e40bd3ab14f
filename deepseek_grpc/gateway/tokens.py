"""Verifies the tokens that callers send."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import jwt

from deepseek_grpc.auth import AUDIENCE
from deepseek_grpc.errors import AuthenticationError

__all__ = ["ClientKey", "Principal", "TokenVerifier"]

_log = logging.getLogger("deepseek_grpc.gateway.auth")

MAX_TOKEN_BYTES: Final = 4096
MAX_LIFETIME: Final = 3600
LEEWAY: Final = 30
_CACHE_ENTRIES: Final = 4096

# One sentence for every cause: what exactly was wrong goes to the log, not to whoever is trying.
_REFUSED: Final = "the credential is missing, malformed, expired or not for this gateway"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls, and what the caller's roles permit."""

    client_id: str
    tenant: str
    permissions: frozenset[str]
    """Permissions as granted: names, or wildcards such as `text.*` and `*`."""

    def may(self, permission: str) -> bool:
        """Says whether a permission is granted; what is not granted is denied.

        >>> Principal("a", "t", frozenset({"text.*"})).may("text.generate")
        True
        """
        granted = self.permissions
        return permission in granted or "*" in granted or f"{permission.partition('.')[0]}.*" in granted


@dataclass(frozen=True, slots=True)
class ClientKey:
    """What verifies one client's tokens: the algorithm is the key's, never the token's."""

    principal: Principal
    algorithm: str
    key: bytes = field(repr=False)
    """The shared secret, or the public key in PEM."""


class TokenVerifier:
    """Verifies JWTs (RFC 7519, with RFC 8725's advice): algorithm fixed per client, claims checked wherever present.

    A token needs `iss`, `iat` and `exp` and may live for an hour. Verified tokens are remembered until they expire, so
    that a client's second call costs a look-up.
    """

    def __init__(
        self, keys: Iterable[ClientKey], *, audience: str = AUDIENCE, clock: Callable[[], float] = time.time
    ) -> None:
        self._keys = {key.principal.client_id: key for key in keys}
        self._audience = audience
        self._clock = clock
        self._verified: dict[str, tuple[Principal, float]] = {}

    def verify(self, token: str) -> Principal:
        """Returns who sent the token; raises AuthenticationError, with one message for every cause."""
        known = self._verified.get(token)
        if known is not None and self._clock() < known[1]:
            return known[0]
        try:
            principal, expires = self._check(token)
        except _RefusedError as refusal:
            _log.warning("token refused: %s", refusal)
            raise AuthenticationError(_REFUSED) from None
        if len(self._verified) >= _CACHE_ENTRIES:
            self._verified.clear()
        self._verified[token] = (principal, expires)
        return principal

    def _check(self, token: str) -> tuple[Principal, float]:
        if not token or len(token) > MAX_TOKEN_BYTES:
            raise _RefusedError(f"{len(token)} bytes")
        header, claims = _unverified(token)
        client = self._keys.get(_string(claims, "iss") or "")
        if client is None:
            raise _RefusedError("unknown issuer")
        if header.get("alg") != client.algorithm:
            raise _RefusedError(f"algorithm isn't the client's {client.algorithm}")
        if str(header.get("typ", "JWT")).upper() != "JWT":
            raise _RefusedError("typ isn't JWT")
        if "crit" in header:
            raise _RefusedError("crit names extensions, and there are none")  # RFC 7515, section 4.1.11
        try:
            claims = jwt.decode(
                token,
                client.key,
                algorithms=[client.algorithm],
                audience=self._audience if "aud" in claims else None,
                options={
                    # The times are checked below, by this object's clock.
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                    "require": ["iss", "iat", "exp"],
                    "verify_aud": "aud" in claims,
                    "enforce_minimum_key_length": True,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:  # the last: a key of another kind
            raise _RefusedError(type(error).__name__) from None
        now = self._clock()
        issued, expires = _number(claims, "iat"), _number(claims, "exp")
        if not 0 < expires - issued <= MAX_LIFETIME:
            raise _RefusedError("lifetime over an hour")
        if expires + LEEWAY <= now:
            raise _RefusedError("expired")
        if issued - LEEWAY > now or ("nbf" in claims and _number(claims, "nbf") - LEEWAY > now):
            raise _RefusedError("not yet valid")
        if "sub" in claims and _string(claims, "sub") is None:
            raise _RefusedError("sub isn't text")
        return client.principal, float(expires) + LEEWAY


class _RefusedError(Exception):
    """Why a token was refused; for the log alone."""


def _unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads header and claims to find the client whose key verifies them."""
    parts = token.split(".")
    if len(parts) != 3:
        raise _RefusedError("not three parts")
    decoded = []
    for part in parts[:2]:
        try:
            value = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        except (ValueError, binascii.Error, RecursionError):
            raise _RefusedError("not base64url JSON") from None
        if not isinstance(value, dict):
            raise _RefusedError("not a JSON object")
        decoded.append(value)
    return decoded[0], decoded[1]


def _number(claims: dict[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _RefusedError(f"{name} isn't a number")
    return value


def _string(claims: dict[str, Any], name: str) -> str | None:
    value = claims.get(name)
    return value if isinstance(value, str) and value else None
