"""How a gateway is set up."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from deepseek_grpc.auth import AUDIENCE, Secret
from deepseek_grpc.errors import ConfigurationError
from deepseek_grpc.gateway.jwks import ALGORITHMS as PUBLIC_ALGORITHMS
from deepseek_grpc.tls import is_loopback

__all__ = [
    "BackendSettings",
    "ClientSettings",
    "JWKSSettings",
    "Problem",
    "Settings",
    "TLSSettings",
    "development",
    "is_utf8",
    "key_of",
    "problems_of",
]

DIALECTS: Final = ("embedded",)
_LISTEN: Final = re.compile(r"unix(-abstract)?:.+|(\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):\d{1,5}")
_LAST_PORT: Final = 65535
EMBEDDED_MODEL: Final = "embedded-ngram"
MIN_SECRET_BYTES: Final = 32

Problem = tuple[tuple[str | int, ...], str]
"""Where something is wrong, and what."""


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """A backend: its name, what it speaks, and the models asked of it (names or shell patterns)."""

    name: str
    dialect: str = "embedded"
    models: tuple[str, ...] = (EMBEDDED_MODEL,)
    pace: float | None = None
    """Tokens a second that an embedded engine keeps to; None: as fast as it can."""


@dataclass(frozen=True, slots=True)
class JWKSSettings:
    """An issuer that signs a client's tokens, and publishes the keys."""

    url: str
    """Where the key set is (RFC 7517): https, or http on this machine."""
    issuer: str
    """The `iss` of its tokens."""
    algorithms: tuple[str, ...] = ("RS256",)
    """What it may sign with."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """A client: its id, what verifies its tokens, and what it may do."""

    id: str
    key: Secret = Secret(b"")  # noqa: RUF009 - it can't be changed
    """The shared secret (HS256) or the public key in PEM, bytes too; empty where the client has `jwks`."""
    algorithm: str = "HS256"
    tenant: str = "default"
    roles: tuple[str, ...] = ()
    jwks: JWKSSettings | None = None
    """Who signs its tokens, if not the client itself; `id` is then its id there."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", Secret(self.key))


@dataclass(frozen=True, slots=True)
class TLSSettings:
    """The gateway's certificate, and whose clients' certificates it wants to see (mutual TLS), as PEM files."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a gateway needs to run."""

    listen: str = "127.0.0.1:50051"
    """HOST:PORT, with port 0 for a free one, or `unix:/path`."""
    backends: tuple[BackendSettings, ...] = (BackendSettings("embedded"),)
    aliases: Mapping[str, str] = field(default_factory=dict)
    default_model: str = EMBEDDED_MODEL
    clients: tuple[ClientSettings, ...] = ()
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tls: TLSSettings | None = None
    audience: str = AUDIENCE
    drain_seconds: float = 30.0
    """How long running calls may go on after SIGTERM."""
    resume_seconds: float = 30.0
    """How long a session that lost its connection waits for its client, while its turns go on; 0: not at all."""

    def __post_init__(self) -> None:
        if problems := problems_of(self.listen, self.clients, self.roles, self.tls):
            raise ConfigurationError("\n".join(f"{key_of(path)}: {what}" for path, what in problems))


def key_of(path: Sequence[str | int]) -> str:
    """Writes a path as a key.

    >>> key_of(("clients", 0, "roles"))
    'clients[0].roles'
    """
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def problems_of(
    listen: str, clients: Sequence[ClientSettings], roles: Mapping[str, object], tls: TLSSettings | None
) -> list[Problem]:
    """Returns what of some settings doesn't fit together, each with the place where it stands in a file."""
    problems: list[Problem] = []
    where = ("gateway", "listen")
    if not _LISTEN.fullmatch(listen):
        problems.append((where, f"{listen!r} is no address; give HOST:PORT, [IPv6]:PORT or unix:PATH"))
    elif not listen.startswith("unix") and int(listen.rpartition(":")[2]) > _LAST_PORT:
        problems.append((where, f"the port of {listen!r} is too large; ports end at {_LAST_PORT}"))
    elif not is_loopback(listen):
        reachable = f"{listen!r} is reachable from other machines; that needs"
        problems += [(where, f"{reachable} [tls]")] if tls is None else []
        problems += [(where, f"{reachable} [[clients]]")] if not clients else []
    ids: set[str] = set()
    issuers: dict[str, JWKSSettings] = {}
    for place, client in enumerate(clients):
        at = ("clients", place)
        problems += [
            ((*at, "roles"), f"{client.id!r} has the role {role!r}, which [roles] doesn't define")
            for role in client.roles
            if role not in roles
        ]
        if client.id in ids:
            problems.append(((*at, "id"), f"{client.id!r} is there twice"))
        ids |= {client.id} if client.id else set()
        if client.jwks is None and client.algorithm == "HS256" and len(client.key) < MIN_SECRET_BYTES:
            problems.append(((*at, "key"), f"has {len(client.key)} bytes; HS256 needs at least {MIN_SECRET_BYTES}"))
        if client.jwks is not None:
            first = issuers.setdefault(client.jwks.issuer, client.jwks)
            if client.jwks != first:
                problems.append(((*at, "jwks_url"), f"{client.jwks.issuer!r} has another key set, or other algorithms"))
            problems += [((*at, key), what) for key, what in _jwks_problems(client.jwks)]
    problems += [
        (("clients", place, "id"), f"{client.id!r} is also the issuer of other clients' tokens")
        for place, client in enumerate(clients)
        if client.jwks is None and client.id in issuers
    ]
    return problems


def _jwks_problems(jwks: JWKSSettings) -> list[tuple[str, str]]:
    problems = []
    try:
        parts = urlsplit(jwks.url)
        host, user, _ = parts.hostname or "", parts.username, parts.port
    except ValueError:
        parts, host, user = urlsplit(""), "", None
    local = is_loopback(f"[{host}]" if ":" in host else host)
    if parts.scheme not in ("https", "http") or not host or user is not None or not jwks.url.isprintable():
        problems.append(("jwks_url", "is no address of a key set; give https://HOST/PATH, without a user in it"))
    elif parts.scheme == "http" and not local:
        problems.append(("jwks_url", f"{jwks.url!r} isn't https; whoever can change what it answers could sign tokens"))
    if not jwks.issuer:
        problems.append(("issuer", "is missing; a key set needs to know whose tokens it verifies"))
    if not jwks.algorithms or not set(jwks.algorithms) <= set(PUBLIC_ALGORITHMS):
        problems.append(("algorithms", f"pin one or more of {', '.join(PUBLIC_ALGORITHMS)}"))
    return problems


def development(
    environ: Mapping[str, str], *, listen: str = "127.0.0.1:0", pace: float | None = None
) -> tuple[Settings, bool]:
    """Makes the settings of a gateway without a configuration file: loopback, embedded engine, one client.

    The client is `DEEPSEEK_GRPC_CLIENT_ID` with `_CLIENT_SECRET` where they are set, otherwise a random one.

    Returns:
        The settings, and whether the credential was made here (and so may be printed).

    Raises:
        ConfigurationError: Half of the pair is set, the secret is short, or `listen` isn't loopback.
    """
    client_id = environ.get("DEEPSEEK_GRPC_CLIENT_ID", "")
    secret = environ.get("DEEPSEEK_GRPC_CLIENT_SECRET", "")
    if not is_utf8(secret):
        raise ConfigurationError("DEEPSEEK_GRPC_CLIENT_SECRET is no UTF-8")
    if bool(client_id) != bool(secret):
        raise ConfigurationError(
            "DEEPSEEK_GRPC_CLIENT_ID and DEEPSEEK_GRPC_CLIENT_SECRET go together: set both or neither"
        )
    if secret and len(secret.encode()) < MIN_SECRET_BYTES:
        raise ConfigurationError(
            f"DEEPSEEK_GRPC_CLIENT_SECRET has {len(secret.encode())} bytes; HS256 needs at least {MIN_SECRET_BYTES}"
        )
    if not is_loopback(listen):
        raise ConfigurationError(
            f"listen is {listen!r}: without a configuration file the gateway listens on loopback only; "
            "give --config with [tls] and [[clients]]"
        )
    made = not client_id
    if made:
        client_id, secret = f"dev-{secrets.token_hex(3)}", secrets.token_urlsafe(36)
    client = ClientSettings(client_id, Secret(secret), roles=("developer",))
    settings = Settings(
        listen=listen,
        backends=(BackendSettings("embedded", pace=pace),),
        aliases={"deepseek-chat": EMBEDDED_MODEL},
        clients=(client,),
        roles={"developer": ("*",)},
    )
    return settings, made


def is_utf8(text: str) -> bool:
    """Says whether UTF-8 can carry a text.

    The environment brings bytes that are no UTF-8 as lone surrogates; the error of encoding them would quote them.
    """
    return not any("\ud800" <= character <= "\udfff" for character in text)
