"""Reads a token's text strictly (RFC 7515, section 7.1): what is signed has one spelling and one meaning."""

from __future__ import annotations

import base64
import json
from typing import Any, Final, NoReturn

__all__ = ["MAX_TOKEN_BYTES", "read_token"]

MAX_TOKEN_BYTES: Final = 4096


def read_token(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns a token's header and claims, unverified.

    Padding, the other alphabet and stray bits are refused (RFC 7515, section 2), and so is a member that is there
    twice: parsers differ on which of the two counts (RFC 8725, section 2.4).

    Raises:
        ValueError: It isn't a token in this form. The message quotes nothing of it.

    >>> read_token("eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJzdmMtYSJ9.c2lnbmVk")
    ({'alg': 'HS256'}, {'iss': 'svc-a'})
    """
    if not token:
        raise ValueError("there is none")
    if len(token) > MAX_TOKEN_BYTES:
        raise ValueError(f"{len(token)} bytes; the limit is {MAX_TOKEN_BYTES}")
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError(f"{len(parts)} parts instead of three")
    header, claims, _ = (_decoded(part) for part in parts)
    return _object(header), _object(claims)


def _decoded(part: str) -> bytes:
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        spelling = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    except ValueError:
        spelling = ""
    if not part or part != spelling:
        raise ValueError("a part is empty or no base64url")
    return raw


def _object(raw: bytes) -> dict[str, Any]:
    try:
        # Decoded here, because json takes UTF-16 and UTF-32 for JSON too.
        value = json.loads(raw.decode(), object_pairs_hook=_members, parse_constant=_no_constant)
    except _TwiceError:
        raise ValueError("a member is there twice") from None
    except (ValueError, RecursionError):  # the text of both may quote the token
        raise ValueError("a part is no JSON") from None
    if not isinstance(value, dict):
        raise ValueError("a part is no JSON object")  # noqa: TRY004 - the text is wrong, not the caller
    return value


class _TwiceError(Exception):
    """A JSON object has two members of one name."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _TwiceError
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and the infinities, which JSON hasn't
