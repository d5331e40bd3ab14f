"""Credentials: where tokens come from, and how they reach the wire."""

from __future__ import annotations

import base64
import binascii
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

import grpc

from deepseek_grpc.config import TLS, ClientConfig, is_loopback
from deepseek_grpc.errors import AuthenticationError, ConfigurationError, DeepSeekError

__all__ = [
    "AUDIENCE",
    "JWTSigner",
    "StaticToken",
    "TokenSource",
    "call_credentials",
    "channel_credentials",
    "current_token",
    "token_source",
]

AUDIENCE = "deepseek-grpc"
"""The `aud` that gateways expect unless they are configured otherwise."""

_LEEWAY = 30.0  # seconds by which two clocks may differ
_MAX_LIFETIME = 3600
_MIN_SECRET_BYTES = 32  # RFC 7518, section 3.2: an HS256 key has at least the size of the hash


@runtime_checkable
class TokenSource(Protocol):
    """Anything that has a bearer token to give: visible ASCII characters, at least one.

    It is asked where a call is made, in the caller's thread (with asyncio, on the event loop), and again by gRPC in
    threads of its own. So it must not block: keep the token cached, and renew it elsewhere.
    """

    def token(self) -> str:
        """Returns a token that is good now; raises AuthenticationError when there is none.

        What else it raises fails the call as an AuthenticationError that names the exception's type, no more.
        """


def current_token(source: TokenSource) -> str:
    """Returns a source's token, fit for a header; raises AuthenticationError when it has none, or fails."""
    try:
        token = source.token()
    except DeepSeekError:
        raise
    except Exception as error:
        # The exception's own text may quote a secret, and this message travels on.
        raise AuthenticationError(f"the token source failed with {type(error).__name__}") from error
    if not isinstance(token, str):
        raise AuthenticationError(f"the token source returned a {type(token).__name__}; give the token as text")
    if not _fits_a_header(token):
        raise AuthenticationError("the token source's token is empty or has characters that a header can't carry")
    return token


def token_source(credentials: TokenSource | str | None) -> TokenSource | None:
    """Makes a token source of what users give; raises ConfigurationError where it can't be one."""
    if isinstance(credentials, str):
        return StaticToken(credentials)
    if credentials is None or (isinstance(credentials, TokenSource) and not isinstance(credentials, type)):
        return credentials
    kind = f"the class {credentials.__name__}" if isinstance(credentials, type) else f"a {type(credentials).__name__}"
    raise ConfigurationError(
        f"credentials is {kind}; give JWTSigner(client_id, client_secret), a token as text, or None"
    )


def _fits_a_header(token: str) -> bool:
    return token.isascii() and token.isprintable() and " " not in token and token != ""


class StaticToken:
    """A token made elsewhere.

    Where it is a JWT with an `exp`, an expired one is refused before anything is sent.

    >>> StaticToken("opaque-token").token()
    'opaque-token'
    """

    def __init__(self, token: str) -> None:
        if not isinstance(token, str):
            raise ConfigurationError(f"token is a {type(token).__name__}; give the token as text")
        if not _fits_a_header(token):
            raise ConfigurationError("the token is empty or has characters that a header can't carry")
        self._token = token
        self._expires = _expiry(token)

    def token(self) -> str:
        """Returns the token; raises AuthenticationError once it has expired."""
        if self._expires is not None and (late := time.time() - self._expires) > _LEEWAY:
            raise AuthenticationError(f"the token expired {late:.0f} s ago (its `exp` has passed); get a new one")
        return self._token

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


class JWTSigner:
    """Signs short-lived JWTs with a client secret (HS256) or a private key (RS256, ES256, EdDSA).

    Claims: `iss` and `sub` are the client's id, `aud` the audience, `iat` now, `exp` at most an hour later, `jti`
    random (RFC 7519). The token is cached and renewed when four fifths of its life are over, by one caller at a time.

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
        client_secret: str | bytes,
        *,
        algorithm: Literal["HS256", "RS256", "ES256", "EdDSA"] = "HS256",
        audience: str | None = AUDIENCE,
        lifetime: float = 900,
        key_id: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(client_id, str) or not client_id:
            raise ConfigurationError(f"client_id is {client_id!r}; give the id that the gateway knows the client by")
        if not isinstance(client_secret, str | bytes):
            raise ConfigurationError(
                f"client_secret is a {type(client_secret).__name__}; give the secret, or a private key in PEM"
            )
        if isinstance(lifetime, bool) or not isinstance(lifetime, int | float):
            raise ConfigurationError(f"lifetime is {lifetime!r}; give seconds, 1 to {_MAX_LIFETIME}")
        if algorithm not in ("HS256", "RS256", "ES256", "EdDSA"):
            raise ConfigurationError(f"algorithm is {algorithm!r}; one of HS256, RS256, ES256, EdDSA")
        if not 1 <= lifetime <= _MAX_LIFETIME:
            raise ConfigurationError(f"lifetime is {lifetime} s; gateways accept 1 to {_MAX_LIFETIME}")
        try:
            secret = client_secret.encode() if isinstance(client_secret, str) else client_secret
        except UnicodeEncodeError:
            raise ConfigurationError("client_secret has a lone surrogate, which UTF-8 can't carry") from None
        if algorithm == "HS256" and len(secret) < _MIN_SECRET_BYTES:
            raise ConfigurationError(f"client_secret has {len(secret)} bytes; HS256 needs at least {_MIN_SECRET_BYTES}")
        self._client_id = client_id
        self._key = secret
        self._algorithm = algorithm
        self._audience = audience
        self._lifetime = lifetime
        self._key_id = key_id
        self._clock = clock
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = 0.0

    def token(self) -> str:
        """Returns a token with at least a fifth of its life ahead."""
        now = self._clock()
        if now < self._renew_at:
            return self._token
        with self._lock:
            if now >= self._renew_at:
                self._token = self._sign(now)
                self._renew_at = now + 0.8 * self._lifetime
            return self._token

    def _sign(self, now: float) -> str:
        import jwt

        claims: dict[str, Any] = {
            "iss": self._client_id,
            "sub": self._client_id,
            "iat": int(now),
            "exp": int(now + self._lifetime),
            "jti": os.urandom(16).hex(),
        }
        if self._audience is not None:
            claims["aud"] = self._audience
        try:
            return jwt.encode(claims, self._key, self._algorithm, {"kid": self._key_id} if self._key_id else None)
        except (ValueError, TypeError, jwt.PyJWTError) as error:
            # Never chained: a parser's message may quote the key.
            problem = type(error).__name__
            raise ConfigurationError(
                f"the key can't sign with {self._algorithm} ({problem}); is it the right PEM?"
            ) from None

    def __repr__(self) -> str:
        return f"JWTSigner({self._client_id!r}, …, algorithm={self._algorithm!r})"


_HEALTH = "/grpc.health.v1.Health"


class _Plugin(grpc.AuthMetadataPlugin):
    def __init__(self, source: TokenSource) -> None:
        self._source = source

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        try:
            metadata = (("authorization", f"Bearer {current_token(self._source)}"),)
        except DeepSeekError as error:
            # Handed over, because gRPC turns it into the call's status and a raise would lose the thread. Health needs
            # no credential: without one, the channel's own health check would report that there is no connection.
            callback((), None if context.service_url.endswith(_HEALTH) else error)
        else:
            callback(metadata, None)


def call_credentials(source: TokenSource) -> grpc.CallCredentials:
    """Makes gRPC call credentials of a token source; they work on every kind of call over a secure or local channel."""
    return grpc.metadata_call_credentials(_Plugin(source), name="deepseek-grpc-jwt")


def channel_credentials(target: str, config: ClientConfig, source: TokenSource | None) -> grpc.ChannelCredentials:
    """Makes the credentials of a channel to a target.

    Loopback gets local credentials, which carry call credentials without TLS because nothing leaves the machine;
    everything else gets TLS.

    Raises:
        ConfigurationError: A plain-text channel to another host was asked for, or a certificate can't be read.
    """
    local = is_loopback(target)
    if config.tls is False and not local:
        raise ConfigurationError(
            f"a plain-text channel to {target!r} is refused: tokens and prompts would cross the network readable. "
            "Leave `tls` unset or give TLS(ca_file=…); plain text is for loopback and Unix sockets only"
        )
    if local and not isinstance(config.tls, TLS) and config.tls is not True:
        kind = grpc.LocalConnectionType.UDS if target.startswith("unix") else grpc.LocalConnectionType.LOCAL_TCP
        credentials = grpc.local_channel_credentials(kind)
    else:
        tls = config.tls if isinstance(config.tls, TLS) else TLS()
        ca, key, cert = tls.read()
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
    if source is None or config.token_delivery == "metadata":
        return credentials
    return grpc.composite_channel_credentials(credentials, call_credentials(source))
