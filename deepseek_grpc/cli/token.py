"""`deepseek-grpc token`: makes tokens, and shows what is in one."""

from __future__ import annotations

import json
import math
import os
import time
from typing import Annotated, Any, Final, Literal, TypeAlias, cast

import typer

from deepseek_grpc.auth import AUDIENCE, JWTSigner
from deepseek_grpc.cli.common import AsJson, emit, reporting, say
from deepseek_grpc.cli.inputs import SOURCES, read_bytes, read_inputs
from deepseek_grpc.errors import ConfigurationError, InvalidRequestError

__all__ = ["app", "inspect", "mint"]

app = typer.Typer(help="Makes tokens, and shows what is in one.", no_args_is_help=True)

_Algorithm: TypeAlias = Literal["HS256", "RS256", "ES256", "EdDSA"]
_ASYMMETRIC: Final = ("RS256", "ES256", "EdDSA")

_UNITS: Final = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def _known(algorithm: str | None) -> str | None:
    if algorithm is not None and algorithm not in _ASYMMETRIC:
        raise typer.BadParameter(f"{algorithm!r} is no private key's; one of {', '.join(_ASYMMETRIC)}")
    return algorithm


@app.command()
def mint(
    *,
    client_id: Annotated[
        str | None, typer.Option(help="Who the token is for; takes the place of DEEPSEEK_GRPC_CLIENT_ID.")
    ] = None,
    secret_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The shared secret; takes the place of DEEPSEEK_GRPC_CLIENT_SECRET."),
    ] = None,
    key_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="A private key in PEM, in the place of a secret.")
    ] = None,
    algorithm: Annotated[
        str | None,
        typer.Option(
            callback=_known,
            metavar="|".join(_ASYMMETRIC),
            help="What the private key signs with; goes with --key-file.",
        ),
    ] = None,
    key_id: Annotated[str | None, typer.Option(help="The `kid` header, where the gateway has several keys.")] = None,
    audience: Annotated[str, typer.Option(help="The `aud` claim; an empty one leaves it out.")] = AUDIENCE,
    lifetime: Annotated[float, typer.Option(help="Seconds, 1 to 3600.")] = 900,
    as_json: AsJson = False,
) -> None:
    """Signs a token with a secret or a private key and prints it, alone.

    A file's '-' reads standard input.

    Example: deepseek-grpc token mint --client-id svc-a --key-file svc-a.pem --algorithm ES256
    """
    with reporting(as_json=as_json):
        name = os.environ.get("DEEPSEEK_GRPC_CLIENT_ID", "") if client_id is None else client_id
        if not name:
            raise ConfigurationError("give --client-id or set DEEPSEEK_GRPC_CLIENT_ID")
        signer = JWTSigner(
            name,
            _key(secret_file, key_file, algorithm),
            algorithm=cast("_Algorithm", algorithm or "HS256"),
            audience=audience or None,
            lifetime=lifetime,
            key_id=key_id,
        )
        if as_json:
            emit("token", token=signer.token())
        else:
            say(signer.token())


def _key(secret_file: str | None, key_file: str | None, algorithm: str | None) -> str | bytes:
    """Returns what to sign with."""
    if (key_file is None) != (algorithm is None):
        raise ConfigurationError("--key-file and --algorithm go together: give both or neither")
    if key_file is not None:
        if secret_file is not None:
            raise ConfigurationError("give --secret-file or --key-file, not both")
        return read_bytes("--key-file", key_file)
    if secret_file is not None:
        return read_bytes("--secret-file", secret_file).strip()
    secret = os.environ.get("DEEPSEEK_GRPC_CLIENT_SECRET", "")
    if not secret:
        raise ConfigurationError(
            "DEEPSEEK_GRPC_CLIENT_SECRET is not set; set it, or give --secret-file or --key-file (a secret among the "
            "arguments would be visible to every process)"
        )
    return secret


@app.command()
def inspect(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help=f"The token; {SOURCES}.")] = "-",  # noqa: S107 - no token, but where it comes from
    *,
    as_json: AsJson = False,
) -> None:
    """Shows a token's header and claims, without verifying them.

    Example: deepseek-grpc token mint | deepseek-grpc token inspect
    """
    with reporting(as_json=as_json):
        (text,) = read_inputs({"TOKEN": token})
        header, claims = _decode((text or "").strip())
        left = _seconds_left(claims, time.time())
        if as_json:
            emit("token", verified=False, header=header, claims=claims, expires_in=left)
            return
        say("not verified: whether the signature is good, only the gateway can say")
        for title, fields in (("header", header), ("claims", claims)):
            say(title)
            for name, value in fields.items():
                say(f"  {json.dumps(name)[1:-1]}: {json.dumps(value)}")
        if left is None:
            say("no expiry: `exp` is missing, or no number")
        else:
            say(f"expires in {_span(left)}" if left >= 0 else f"expired {_span(-left)} ago")


def _decode(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    import jwt

    try:
        parts = jwt.api_jwt.decode_complete(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        # Not chained: what the parser says quotes the token.
        raise InvalidRequestError("TOKEN is no JWT: three parts in base64url, divided by dots, were expected") from None
    return parts["header"], parts["payload"]


def _seconds_left(claims: dict[str, Any], now: float) -> int | None:
    expiry = claims.get("exp")
    if isinstance(expiry, bool) or not isinstance(expiry, int | float) or not math.isfinite(expiry):
        return None
    return math.floor(expiry - now)


def _span(seconds: int) -> str:
    """Puts seconds into words, the two largest units of them.

    >>> _span(604), _span(90061), _span(0)
    ('10 min 4 s', '1 d 1 h', '0 s')
    """
    parts = []
    for unit, size in _UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"
