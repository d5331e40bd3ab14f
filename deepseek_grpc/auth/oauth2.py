"""Tokens of an OAuth 2.0 token endpoint: the client credentials grant (RFC 6749, section 4.4)."""

from __future__ import annotations

import base64
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote_plus, urlencode

from deepseek_grpc._http import Answer
from deepseek_grpc._secret import Secret
from deepseek_grpc.auth.endpoint import Endpoint
from deepseek_grpc.auth.renewal import TokenCache
from deepseek_grpc.auth.sources import fits_a_header
from deepseek_grpc.errors import AuthenticationError, ConfigurationError

__all__ = ["OAuth2ClientCredentials"]

_ASSUMED_LIFETIME = 300.0  # seconds, where the endpoint doesn't say
_MAX_LIFETIME = 86_400.0  # whatever it says
_MAX_RETRY_AFTER = 3600.0
_ERROR_CODE = re.compile(r"[a-z][a-z_]{0,39}")  # those of RFC 6749 and its extensions; a secret seldom looks like it
_ADVICE = {
    "invalid_client": "the client id or the secret is wrong, or the endpoint takes them the other way (auth=…)",
    "invalid_request": "it wants a parameter that wasn't sent, perhaps an audience or a scope",
    "invalid_scope": "the scope is unknown, or not this client's",
    "invalid_target": "the audience is unknown, or not this client's",
    "unauthorized_client": "this client may not use the client credentials grant",
    "unsupported_grant_type": "it doesn't know the client credentials grant",
}


class OAuth2ClientCredentials:
    """Fetches tokens from an OAuth 2.0 token endpoint with a client's own credentials (RFC 6749, section 4.4).

    A token is kept, and renewed in the background when four fifths of its life are over; callers wait for the endpoint
    only when there is no token that is good. However many ask, one renewal is under way at a time.

    Args:
        token_url: The endpoint: https, or http on this machine.
        client_id: The id under which the authorization server knows the client.
        client_secret: Its secret.
        scope: What is asked for, separated by spaces.
        audience: The `audience` parameter, which some servers want.
        auth: How the client shows who it is: `basic` in a header, `body` in the form (RFC 6749, section 2.3.1).
        ca_file: The authorities that the endpoint's certificate may come from, in PEM; None trusts the system's.
        timeout: Seconds for one exchange; looking up the host's name isn't counted.
        extra: Further parameters of the form.
        clock: Seconds since the epoch; for tests.

    Raises:
        ConfigurationError: An argument can't be used.

    `token()` raises AuthenticationError with the reason TOKEN_ENDPOINT where the endpoint gives none; it is `retryable`
    when the endpoint couldn't be reached or answered 429 or 5xx. A token whose lifetime isn't told is kept for 300 s,
    and none for more than a day.

    Example:
        >>> credentials = OAuth2ClientCredentials(
        ...     "https://login.example.com/oauth2/token", "svc-a", "s3cret", scope="deepseek.generate"
        ... )
        >>> credentials
        OAuth2ClientCredentials('https://login.example.com/oauth2/token', 'svc-a', …)
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str | bytes | Secret,
        *,
        scope: str | None = None,
        audience: str | None = None,
        auth: Literal["basic", "body"] = "basic",
        ca_file: str | Path | None = None,
        timeout: float = 10.0,
        extra: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(client_id, str) or not client_id:
            raise ConfigurationError(f"client_id is {client_id!r}; give the id that the endpoint knows the client by")
        if not isinstance(client_secret, str | bytes | Secret):
            raise ConfigurationError(f"client_secret is a {type(client_secret).__name__}; give the secret")
        if not client_secret:
            raise ConfigurationError("client_secret is empty; give the secret that belongs to client_id")
        if auth not in ("basic", "body"):
            raise ConfigurationError(f"auth is {auth!r}; give 'basic' or 'body'")
        self._secret = Secret(client_secret)  # the first that a pickler meets, and it says why it refuses
        self._endpoint = Endpoint(token_url, ca_file=ca_file, timeout=timeout)
        self._client_id = client_id
        self._form, self._authorization = _request(client_id, self._secret, auth, scope, audience, extra)
        self._clock = clock
        self._cache = TokenCache(self._fetch, clock, ahead=True)

    def token(self) -> str:
        """Returns a token that is good now; waits for the endpoint if there is none; raises AuthenticationError."""
        return self._cache.token()

    def cached(self) -> str | None:
        """Returns the token that is good now, or None where `token()` would have to wait; never waits itself."""
        return self._cache.cached()

    def invalidate(self, token: str) -> None:
        """Makes the next `token()` fetch another, unless one has taken this token's place."""
        self._cache.invalidate(token)

    def _fetch(self) -> tuple[Secret, float]:
        answer = self._endpoint.post(self._form, self._authorization)
        fields = _json_object(answer.body)
        if answer.status != 200:
            raise self._refusal(answer, fields)
        if fields is None:
            raise self._endpoint.error("answered with something that isn't a JSON object; is it the right URL?")
        token = fields.get("access_token")
        if not isinstance(token, str) or not token:
            raise self._endpoint.error("answered without an access_token; is it the right URL?")
        kind = fields.get("token_type", "bearer")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise self._endpoint.error("gave a token that isn't a bearer token; gateways take no other kind")
        if not fits_a_header(token):
            raise self._endpoint.error("gave a token with characters that a header can't carry")
        lifetime = _lifetime(fields.get("expires_in"))
        if lifetime is None:
            raise self._endpoint.error("gave a token whose expires_in is no positive number of seconds")
        return Secret(token), lifetime

    def _refusal(self, answer: Answer, fields: dict[str, Any] | None) -> AuthenticationError:
        problem = f"answered {answer.status}"
        code = (fields or {}).get("error")
        # The description isn't shown: it is free text, and may quote what was sent.
        if (
            isinstance(code, str)
            and _ERROR_CODE.fullmatch(code)
            and self._secret.reveal().decode("latin-1") not in code
        ):
            problem += f" {code}"
            if code in _ADVICE:
                problem += f": {_ADVICE[code]}"
        elif 300 <= answer.status < 400:
            problem += ", a redirect, and none is followed: give the URL that it leads to"
        elif answer.status in (404, 405):
            problem += "; is it the right URL?"
        return self._endpoint.error(
            problem,
            retryable=answer.status == 429 or answer.status >= 500,
            retry_after=_retry_after(answer.retry_after, self._clock()),
        )

    def __repr__(self) -> str:
        return f"OAuth2ClientCredentials({self._endpoint.name!r}, {self._client_id!r}, …)"


def _request(
    client_id: str,
    secret: Secret,
    auth: str,
    scope: str | None,
    audience: str | None,
    extra: Mapping[str, str] | None,
) -> tuple[Secret, Secret | None]:
    """Returns the form and the Authorization header, which stay the same from request to request."""
    form: dict[str, str | bytes] = {"grant_type": "client_credentials"}
    for name, given in (("scope", scope), ("audience", audience)):
        if given is not None and (not isinstance(given, str) or not given):
            raise ConfigurationError(f"{name} is {given!r}; give text, or None to leave it out")
        if given is not None:
            form[name] = given
    if auth == "body":
        form |= {"client_id": client_id, "client_secret": secret.reveal()}
    if extra is not None and not isinstance(extra, Mapping):
        raise ConfigurationError(f"extra is a {type(extra).__name__}; give a mapping of text to text")
    for name, given in (extra or {}).items():
        if not isinstance(name, str) or not isinstance(given, str):
            raise ConfigurationError("extra isn't text only; give a mapping of text to text")
        if name in form or name in ("scope", "audience", "client_id", "client_secret"):
            raise ConfigurationError(f"extra has {name!r}, which is made of the other arguments")
        form[name] = given
    try:
        login = f"{quote_plus(client_id)}:{quote_plus(secret.reveal())}"
        encoded = urlencode(form)
    except UnicodeEncodeError:
        encoded = None
    if encoded is None:  # raised here, because the other error has the text with it
        raise ConfigurationError("a parameter has a lone surrogate, which UTF-8 can't carry; give text without")
    basic = Secret(f"Basic {base64.b64encode(login.encode()).decode()}") if auth == "basic" else None
    return Secret(encoded), basic


def _json_object(body: Secret) -> dict[str, Any] | None:
    try:
        found = json.loads(body.reveal())
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _lifetime(given: Any) -> float | None:
    """Reads `expires_in`: seconds, as a number or, as some servers have it, as text."""
    if given is None:
        return _ASSUMED_LIFETIME
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return None
    try:
        seconds = float(given)
    except (ValueError, OverflowError):
        return None
    return min(seconds, _MAX_LIFETIME) if math.isfinite(seconds) and seconds > 0 else None


def _retry_after(text: str, now: float) -> float | None:
    """Reads `Retry-After`: seconds or a date (RFC 9110, section 10.2.3)."""
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER)
