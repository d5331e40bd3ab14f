"""Verifies the tokens that callers send."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import jwt
from jwt import PyJWK

from deepseek_grpc.auth import AUDIENCE, Secret
from deepseek_grpc.errors import AuthenticationError, ServiceUnavailableError
from deepseek_grpc.gateway.compact import read_token
from deepseek_grpc.gateway.jwks import KeySet, UnknownKeyError

__all__ = ["ClientKey", "Issuer", "Principal", "RefusedTokenError", "TokenVerifier"]

MAX_LIFETIME: Final = 3600
LEEWAY: Final = 30
_LAST_DATE: Final = 253_402_300_799  # the last second of the year 9999
_CACHE_ENTRIES: Final = 4096
_SIGNATURE_ALONE: Final[Any] = {
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "verify_aud": False,
    "enforce_minimum_key_length": True,
}


class RefusedTokenError(AuthenticationError):
    """A token that isn't accepted: the same sentence for every cause, and the gateway's time.

    The time tells an honest caller that its clock is wrong; it is the same for each cause, and no secret (HTTP has it
    in every answer's Date).

    Attributes:
        cause: What exactly was wrong; for the log, never for whoever is trying.
    """

    def __init__(self, cause: str, now: float) -> None:
        super().__init__(
            "the credential is missing, malformed, expired or not for this gateway",
            metadata={"gateway_time": str(int(now))},
        )
        self.cause = cause


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
    """A client that signs its tokens itself, and is their `iss`."""

    principal: Principal
    algorithm: str
    """What it signs with: the algorithm is the key's, never the token's."""
    key: Secret
    """The shared secret, or the public key in PEM; bytes too."""

    types: ClassVar = ("JWT",)
    needs_audience: ClassVar = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", Secret(self.key))

    @property
    def name(self) -> str:
        """The `iss` of its tokens."""
        return self.principal.client_id

    @property
    def algorithms(self) -> tuple[str, ...]:
        """What its tokens may be signed with."""
        return (self.algorithm,)

    def client_of(self, claims: Mapping[str, Any]) -> Principal:  # noqa: ARG002 - an issuer looks at them
        """Returns whose token it is."""
        return self.principal

    def key_for(self, algorithm: str, key_id: str | None) -> bytes:  # noqa: ARG002 - as above
        """Returns the key that verifies its tokens."""
        return self.key.reveal()


@dataclass(frozen=True, slots=True)
class Issuer:
    """Somebody who signs tokens for several clients, and publishes the keys."""

    name: str
    """The `iss` of its tokens."""
    keys: KeySet
    principals: Mapping[str, Principal]
    """Its clients that may call, by their id at the issuer."""

    types: ClassVar = ("JWT", "AT+JWT", "APPLICATION/AT+JWT")
    needs_audience: ClassVar = True

    @property
    def algorithms(self) -> tuple[str, ...]:
        """What its tokens may be signed with."""
        return self.keys.algorithms

    def client_of(self, claims: Mapping[str, Any]) -> Principal:
        """Returns whose token it is; raises ValueError."""
        client_id = _text(claims, "client_id" if "client_id" in claims else "sub")
        _require(client_id in self.principals, f"{client_id[:64]!a} is no client of the issuer {self.name!a}")
        return self.principals[client_id]

    def key_for(self, algorithm: str, key_id: str | None) -> PyJWK:
        """Returns the key that verifies a token; raises UnknownKeyError and ValueError."""
        return self.keys.find(algorithm, key_id)


class TokenVerifier:
    """Verifies JWTs (RFC 7519, with RFC 8725's advice): algorithm fixed per key, claims checked wherever present.

    A token needs `iss`, `iat` and `exp` and may live for an hour. A client with a key of its own is the `iss`. A token
    of an issuer needs `aud` too, and names its client in `client_id` (RFC 9068, section 2.2) or, where it has none, in
    `sub`. Where it has both, `sub` may be a user, whose name must never pass for a client's (section 5).

    Verified tokens are remembered until they expire, so that a client's second call costs a look-up.
    """

    def __init__(
        self,
        keys: Iterable[ClientKey],
        *,
        issuers: Iterable[Issuer] = (),
        audience: str = AUDIENCE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        issuers = tuple(issuers)
        self._signers: dict[str, ClientKey | Issuer] = {key.name: key for key in keys}
        self._signers |= {issuer.name: issuer for issuer in issuers}
        self._audience = audience
        self._clock = clock
        self._verified: dict[str, tuple[Principal, float]] = {}
        for issuer in issuers:
            issuer.keys.on_change(self._verified.clear)  # a key that was withdrawn vouches for nobody any longer

    def verify(self, token: str) -> Principal:
        """Returns who sent the token; never waits.

        Raises:
            RefusedTokenError: With one message for every cause.
            ServiceUnavailableError: The issuer's keys can't be had now (JWKS_UNAVAILABLE).
        """
        try:
            return self._look_up(token)
        except UnknownKeyError as error:
            if not error.keys.problem:
                raise self.refusal("its issuer has no such key") from None
            raise ServiceUnavailableError(
                "the keys that verify this credential can't be fetched now; try again later",
                reason="JWKS_UNAVAILABLE",
                retry_after=1,
            ) from None
        except ValueError as cause:
            raise self.refusal(str(cause)) from None

    async def admit(self, token: str) -> Principal:
        """Does as `verify`, and where the token names a key that isn't known asks its issuer for new ones first."""
        try:
            return self._look_up(token)
        except UnknownKeyError as error:
            await error.keys.refresh()
        except ValueError as cause:
            raise self.refusal(str(cause)) from None
        return self.verify(token)

    def refusal(self, cause: str) -> RefusedTokenError:
        """Makes the error for a credential that isn't accepted."""
        return RefusedTokenError(cause, self._clock())

    def _look_up(self, token: str) -> Principal:
        """Raises ValueError with what is wrong, UnknownKeyError where only the key is missing."""
        known = self._verified.get(token)
        if known is not None and self._clock() < known[1]:
            return known[0]
        header, claims = read_token(token)
        name = _text(claims, "iss")
        signer = self._signers.get(name)
        if signer is None:
            raise ValueError(f"nobody known here is the issuer {name[:64]!a}")
        algorithm = _text(header, "alg")
        _require(algorithm in signer.algorithms, f"the algorithm isn't {' or '.join(signer.algorithms)}, the key's")
        _check_header(header, signer.types)
        expires = self._check_claims(claims, with_audience=signer.needs_audience or "aud" in claims)
        key = signer.key_for(algorithm, header.get("kid"))
        try:
            # All but the signature was checked above: by this object's clock, and before an issuer is asked for keys.
            jwt.decode(token, key, algorithms=[algorithm], options=_SIGNATURE_ALONE)
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:  # the last: a key of another kind
            raise ValueError(f"the signature is wrong ({type(error).__name__})") from None
        # Last, so that nobody learns an issuer's clients from how a token is refused that isn't the issuer's.
        principal = signer.client_of(claims)
        if len(self._verified) >= _CACHE_ENTRIES:
            self._verified.clear()
        self._verified[token] = (principal, expires + LEEWAY)
        return principal

    def _check_claims(self, claims: dict[str, Any], *, with_audience: bool) -> float:
        """Returns when the token expires; raises ValueError."""
        for name in ("sub", "client_id", "jti"):
            if name in claims:
                _text(claims, name)
        if with_audience:
            audience = claims.get("aud")
            meant = audience if isinstance(audience, list) else [audience]
            _require(all(isinstance(entry, str) for entry in meant), "aud is missing or no text")
            _require(self._audience in meant, f"aud isn't {self._audience!a}")
        now = self._clock()
        issued, expires = _date(claims, "iat"), _date(claims, "exp")
        _require(expires > issued, "exp isn't after iat")
        _require(expires - issued <= MAX_LIFETIME, f"a lifetime of {expires - issued:.0f} s; the limit is an hour")
        _require(expires + LEEWAY > now, f"expired {now - expires:.0f} s ago by this gateway's clock")
        for name in ("iat", "nbf"):
            ahead = _date(claims, name) - now if name in claims else 0
            _require(ahead <= LEEWAY, f"{name} is {ahead:.0f} s ahead of this gateway's clock; one of the two is wrong")
        return expires


def _check_header(header: dict[str, Any], types: tuple[str, ...]) -> None:
    kind = header.get("typ", "JWT")
    _require(isinstance(kind, str) and kind.upper() in types, "typ isn't JWT")
    _require("crit" not in header, "crit names extensions, and there are none")  # RFC 7515, section 4.1.11
    _require("cty" not in header, "cty announces a nested token")  # RFC 7519, section 5.2
    if "kid" in header:
        _text(header, "kid")


def _require(holds: bool, cause: str) -> None:
    if not holds:
        raise ValueError(cause)


def _date(claims: Mapping[str, Any], name: str) -> float:
    """Returns a NumericDate (RFC 7519, section 2): seconds since the epoch, with or without a fraction."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is missing or no number")  # noqa: TRY004 - the token is wrong, not the caller
    _require(0 <= value <= _LAST_DATE, f"{name} is out of all times")
    return float(value)


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is missing, empty or no text")
    return value
