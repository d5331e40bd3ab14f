"""Whether calls go through: health, token, authorisation, round-trip times."""

from __future__ import annotations

import datetime as dt
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from deepseek_grpc import API_VERSION, Client
from deepseek_grpc.auth import JWTSigner, TokenSource, current_token, token_source
from deepseek_grpc.cli.doctor.finding import Finding, fail, ok, warn
from deepseek_grpc.cli.exits import UNHEALTHY
from deepseek_grpc.cli.health import status_of
from deepseek_grpc.errors import ApiVersionError, AuthenticationError, DeepSeekError

__all__ = ["Examined", "check_call", "check_health", "check_round_trips", "check_token"]

_ROUNDS: Final = 10
_LEEWAY: Final = 30  # seconds by which two clocks may differ


class Examined(Client):
    """A client whose token can be looked at before it goes out."""

    def __init__(self, target: str, *, credentials: TokenSource | str | None = None, **options: Any) -> None:
        super().__init__(target, credentials=credentials, **options)
        self.source = token_source(credentials)


def check_health(client: Client) -> Finding:
    """Asks for the gateway's health."""
    try:
        status = status_of(client)
    except DeepSeekError as error:
        return fail("health", error)
    if status == "SERVING":
        return ok("health", "SERVING")
    return Finding(
        "health", "FAIL", f"the gateway answers, but is {status}", "Wait, or ask whoever runs it.", UNHEALTHY
    )


def check_token(client: Examined) -> tuple[Finding, Mapping[str, Any]]:
    """Makes or fetches a token; returns its claims too, which are empty for a token that is no JWT."""
    if client.source is None:
        return warn(
            "token", "none: no credential is set", "A gateway asks for one, unless it stands on this machine."
        ), {}
    try:
        token = current_token(client.source)
    except DeepSeekError as error:
        return fail("token", error), {}
    claims = _claims(token)
    times = [f"{name} {_moment(claims[name])}" for name in ("iat", "nbf", "exp") if name in claims]
    of = f"of {claims['iss']!r}, " if isinstance(claims.get("iss"), str) else ""
    return ok(
        "token", f"{of}{', '.join(times)}" if times else "it isn't a JWT, so that only the gateway can read it"
    ), claims


def _claims(token: str) -> dict[str, Any]:
    import jwt

    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        return {}
    return claims


def _moment(value: Any) -> str:
    try:
        moment = dt.datetime.fromtimestamp(value, dt.UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return "no time"
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def check_call(client: Examined, claims: Mapping[str, Any]) -> Iterator[Finding]:
    """Makes a call that needs the credential and a permission: the list of models, which costs nothing."""
    try:
        models = client.text.models()
    except AuthenticationError as error:
        yield _unauthenticated(error, client.source, claims)
    except ApiVersionError as error:
        yield fail("version", error)
    except DeepSeekError as error:
        yield fail("call", error)
    else:
        yield ok("call", f"{len(models)} model{'s' if len(models) != 1 else ''}: {', '.join(m.id for m in models)}")
        yield ok("version", f"the gateway speaks this client's API {API_VERSION}")


def _unauthenticated(error: AuthenticationError, source: TokenSource | None, claims: Mapping[str, Any]) -> Finding:
    """Says why a token was refused, as far as it shows from here: the gateway gives no reason but its time."""
    found = fail("call", error)
    if source is None:
        return replace(
            found,
            detail=f"{error.details}: no credential is set",
            advice="Set DEEPSEEK_GRPC_CLIENT_ID and DEEPSEEK_GRPC_CLIENT_SECRET, or DEEPSEEK_GRPC_TOKEN.",
        )
    gateway_time = error.metadata.get("gateway_time", "")
    if not gateway_time.isdecimal():
        return found
    now = int(gateway_time)
    if abs(time.time() - now) > _LEEWAY:
        return found  # the error says so itself
    if not claims:
        return replace(
            found,
            detail=f"{error.details}; the token isn't a JWT, so that it can't be looked into",
            advice="Get a new token, and check that it is one for this gateway.",
        )
    issued, begins, expires = (claims.get(name) for name in ("iat", "nbf", "exp"))
    problem = ""
    if not isinstance(expires, int | float):
        problem = "the token says no time at which it expires"
    elif expires < now:
        problem = (
            f"the token expired {now - expires:.0f} s ago by the gateway's clock, which agrees with this machine's"
        )
    elif isinstance(begins, int | float) and begins > now + _LEEWAY:
        problem = f"the token isn't good for another {begins - now:.0f} s by the gateway's clock"
    if isinstance(issued, int | float) and issued > now + _LEEWAY:
        problem = (
            f"the token was issued {issued - now:.0f} s in the future by the gateway's clock: the clock of the machine "
            "that made it is ahead"
        )
    if problem:
        return replace(found, detail=f"{error.details}: {problem}", advice="Get a new token.")
    return replace(
        found,
        detail=f"{error.details}; both clocks agree, and the token is in its time",
        advice="Check the client's id and its secret: they are not those that the gateway has."
        if isinstance(source, JWTSigner)
        else "Check that the token is one for this gateway: its signature, issuer and audience can't be judged here.",
    )


def check_round_trips(client: Client) -> Finding:
    """Measures health checks over the open connection."""
    times = []
    try:
        for _ in range(_ROUNDS):
            begun = time.perf_counter()
            client.health()
            times.append((time.perf_counter() - begun) * 1000)
    except DeepSeekError as error:
        return fail("round trip", error)
    return ok(
        "round trip",
        f"median {statistics.median(times):.2f} ms, min {min(times):.2f} ms, max {max(times):.2f} ms (n={_ROUNDS})",
    )
