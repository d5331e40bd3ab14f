"""How a gateway is set up: from a TOML file, the environment and the command line, checked all at once."""

from __future__ import annotations

import os
import re
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from deepseek_grpc.auth import AUDIENCE
from deepseek_grpc.config import is_loopback
from deepseek_grpc.errors import ConfigurationError
from deepseek_grpc.gateway.guard import permission_of
from deepseek_grpc.gateway.router import unserved
from deepseek_rpc.v2 import data_pb2, fine_tune_pb2, text_pb2

__all__ = ["BackendSettings", "ClientSettings", "Settings", "TLSSettings", "development", "load"]

DIALECTS: Final = ("embedded",)
ALGORITHMS: Final = ("HS256", "RS256", "ES256", "EdDSA")
_LISTEN: Final = re.compile(r"unix(-abstract)?:.+|(\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):\d{1,5}")
_LAST_PORT: Final = 65535
_PERMISSIONS: Final = frozenset(
    permission_of(method)
    for contract in (text_pb2, data_pb2, fine_tune_pb2)
    for service in contract.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
EMBEDDED_MODEL: Final = "embedded-ngram"
MIN_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """A backend: its name, what it speaks, and the models asked of it (names or shell patterns)."""

    name: str
    dialect: str = "embedded"
    models: tuple[str, ...] = (EMBEDDED_MODEL,)
    pace: float | None = None
    """Tokens a second that an embedded engine keeps to; None: as fast as it can."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """A client: its id, what verifies its tokens, and what it may do."""

    id: str
    key: bytes = field(repr=False)
    """The shared secret (HS256) or the public key in PEM."""
    algorithm: str = "HS256"
    tenant: str = "default"
    roles: tuple[str, ...] = ()


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

    def __post_init__(self) -> None:
        problems = []
        if not _LISTEN.fullmatch(self.listen):
            problems.append(f"listen: {self.listen!r} is no address; give HOST:PORT, [IPv6]:PORT or unix:PATH")
        elif not self.listen.startswith("unix") and int(self.listen.rpartition(":")[2]) > _LAST_PORT:
            problems.append(f"listen: the port of {self.listen!r} is too large; ports end at {_LAST_PORT}")
        elif not is_loopback(self.listen):
            if self.tls is None:
                problems.append(f"listen: {self.listen!r} is reachable from other machines; that needs [tls]")
            if not self.clients:
                problems.append(f"listen: {self.listen!r} is reachable from other machines; that needs [[clients]]")
        problems += [
            f"clients: {client.id!r} has the role {role!r}, which [roles] doesn't define"
            for client in self.clients
            for role in client.roles
            if role not in self.roles
        ]
        ids = [client.id for client in self.clients]
        problems += [f"clients: {id_!r} is there twice" for id_ in dict.fromkeys(ids) if ids.count(id_) > 1]
        _raise(problems)


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
    if not _is_utf8(secret):
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
    client = ClientSettings(client_id, secret.encode(), roles=("developer",))
    settings = Settings(
        listen=listen,
        backends=(BackendSettings("embedded", pace=pace),),
        aliases={"deepseek-chat": EMBEDDED_MODEL},
        clients=(client,),
        roles={"developer": ("*",)},
    )
    return settings, made


def load(path: str | Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Reads a gateway's TOML file; files that it names are relative to it.

    Raises:
        ConfigurationError: With every problem of the file, one a line, each with its key.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # of the syntax, of UTF-8, or of a number that is too long
        raise ConfigurationError(f"{path}: is no TOML: {error}") from error
    reader = _Reader(path, os.environ if environ is None else environ)
    values = reader.settings(document)
    problems = reader.problems
    try:
        settings = Settings(**values)
    except ConfigurationError as error:
        problems = [*problems, *error.details.splitlines()]
    _raise([f"{path}: {problem}" for problem in problems])
    return settings


def _is_utf8(text: str) -> bool:
    # The environment brings bytes that are no UTF-8 as lone surrogates; the error of encoding them would quote them.
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _verifies(key: bytes, algorithm: str) -> bool:
    """Says whether a key is one that verifies signatures of the algorithm."""
    import jwt

    verifier = jwt.get_algorithm_by_name(algorithm)
    try:
        return not verifier.verify(b"", verifier.prepare_key(key), b"")
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return False


def _raise(problems: list[str]) -> None:
    if problems:
        raise ConfigurationError("\n".join(problems))


class _Reader:
    """Takes a document apart and collects what is wrong with it."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self._folder = path.parent
        self._environ = environ
        self.problems: list[str] = []

    def settings(self, document: dict[str, Any]) -> dict[str, Any]:
        self._known(document, "", ("gateway", "backends", "aliases", "clients", "roles", "tls"))
        gateway = self._table(document, "gateway")
        self._known(gateway, "gateway", ("listen", "default_model", "audience", "drain_seconds"))
        values: dict[str, Any] = {}
        for name, kind in (("listen", str), ("default_model", str), ("audience", str), ("drain_seconds", float)):
            if name in gateway and (value := self._value(gateway, f"gateway.{name}", name, kind)):
                values[name] = value
        values["aliases"] = self._strings(self._table(document, "aliases"), "aliases")
        values["roles"] = {
            name: self._list(permissions, f"roles.{name}")
            for name, permissions in self._table(document, "roles").items()
        }
        grants = {"*", *_PERMISSIONS, *(f"{permission.partition('.')[0]}.*" for permission in _PERMISSIONS)}
        for role, permissions in values["roles"].items():
            self.problems += [
                f"roles.{role}: {permission!r} is no permission of the contract; one of {', '.join(sorted(grants))}"
                for permission in permissions
                if permission not in grants
            ]
        if "backends" in document:
            values["backends"] = tuple(self._backend(*entry) for entry in self._tables(document, "backends"))
        values["clients"] = tuple(self._client(*entry) for entry in self._tables(document, "clients"))
        if "tls" in document:
            values["tls"] = self._tls(self._table(document, "tls"))
        self._together(values)
        return values

    def _together(self, values: dict[str, Any]) -> None:
        """Says what each setting alone doesn't show; what was already found wrong isn't said twice."""
        found = {problem.partition(":")[0] for problem in self.problems}
        defaults = Settings()
        backends = values.get("backends", defaults.backends)
        if not any(key.startswith("backends") for key in found):
            if not backends:
                self.problems.append("backends: there is none; a gateway needs at least one")
            else:
                patterns = [pattern for backend in backends for pattern in backend.models]
                default_model = values.get("default_model", defaults.default_model)
                for key, model in unserved(patterns, values["aliases"], default_model).items():
                    name = "gateway.default_model" if key == "default_model" else key
                    if name not in found:
                        self.problems.append(f"{name}: no backend serves {model!r}")
        if not values["clients"] and "clients" not in found and is_loopback(values.get("listen", defaults.listen)):
            self.problems.append("clients: there is none, so nobody could call; give [[clients]]")

    def _backend(self, key: str, table: dict[str, Any]) -> BackendSettings:
        self._known(table, key, ("name", "dialect", "models", "pace"))
        dialect = self._value(table, f"{key}.dialect", "dialect", str, "embedded")
        if dialect not in DIALECTS:
            self.problems.append(f"{key}.dialect: {dialect!r} is unknown; one of {', '.join(DIALECTS)}")
        backend = BackendSettings(self._value(table, f"{key}.name", "name", str, dialect), dialect)
        if "models" in table:
            backend = replace(backend, models=self._list(table["models"], f"{key}.models"))
        if "pace" in table:
            backend = replace(backend, pace=self._value(table, f"{key}.pace", "pace", float))
        return backend

    def _client(self, key: str, table: dict[str, Any]) -> ClientSettings:
        self._known(table, key, ("id", "secret_file", "secret_env", "public_key_file", "algorithm", "tenant", "roles"))
        client_id = self._value(table, f"{key}.id", "id", str)
        sources = [name for name in ("secret_file", "secret_env", "public_key_file") if name in table]
        material = b""
        if len(sources) != 1:
            self.problems.append(f"{key}: give one of secret_file, secret_env, public_key_file")
        elif sources[0] == "secret_env":
            name = self._value(table, f"{key}.secret_env", "secret_env", str)
            secret = self._environ.get(name, "")
            material = secret.encode() if _is_utf8(secret) else b""
            if secret and not material:
                self.problems.append(f"{key}.secret_env: the variable {name!r} is no UTF-8")
            elif not material:
                self.problems.append(f"{key}.secret_env: the variable {name!r} is not set")
        else:
            material = self._file(table, f"{key}.{sources[0]}", sources[0])
        public = sources == ["public_key_file"]
        algorithm = self._value(table, f"{key}.algorithm", "algorithm", str, "" if public else "HS256")
        if algorithm not in ALGORITHMS or (algorithm == "HS256") == public:
            fitting = ALGORITHMS[1:] if public else ALGORITHMS[:1]
            self.problems.append(f"{key}.algorithm: {algorithm!r} doesn't fit the key; give {' or '.join(fitting)}")
        elif algorithm == "HS256" and material and len(material) < MIN_SECRET_BYTES:
            self.problems.append(
                f"{key}: the secret has {len(material)} bytes; HS256 needs at least {MIN_SECRET_BYTES}"
            )
        elif public and material and not _verifies(material, algorithm):
            self.problems.append(f"{key}.public_key_file: holds no public key for {algorithm}, in PEM")
        return ClientSettings(
            client_id,
            material,
            algorithm,
            self._value(table, f"{key}.tenant", "tenant", str, "default"),
            self._list(table.get("roles", []), f"{key}.roles"),
        )

    def _tls(self, table: dict[str, Any]) -> TLSSettings:
        self._known(table, "tls", ("cert_file", "key_file", "client_ca_file"))
        paths = {}
        for name in ("cert_file", "key_file", "client_ca_file"):
            if name in table or name != "client_ca_file":
                self._file(table, f"tls.{name}", name)
                paths[name] = self._folder / str(table.get(name, ""))
        return TLSSettings(**paths)

    def _file(self, table: dict[str, Any], key: str, name: str) -> bytes:
        relative: str = self._value(table, key, name, str)
        if not relative:
            return b""
        try:
            material = (self._folder / relative).read_bytes().strip()
        except (OSError, ValueError) as error:
            self.problems.append(f"{key}: cannot read {relative!r}: {getattr(error, 'strerror', error)}")
            return b""
        if not material:
            self.problems.append(f"{key}: {relative!r} is empty")
        return material

    def _known(self, table: dict[str, Any], key: str, names: tuple[str, ...]) -> None:
        where = f"{key}." if key else ""
        self.problems += [
            f"{where}{name}: unknown key; known are {', '.join(names)}" for name in table if name not in names
        ]

    def _table(self, document: dict[str, Any], name: str) -> dict[str, Any]:
        value = document.get(name, {})
        if isinstance(value, dict):
            return value
        self.problems.append(f"{name}: is a {type(value).__name__}; give a table, [{name}]")
        return {}

    def _tables(self, document: dict[str, Any], name: str) -> list[tuple[str, dict[str, Any]]]:
        value = document.get(name, [])
        if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
            return [(f"{name}[{index}]", entry) for index, entry in enumerate(value)]
        self.problems.append(f"{name}: is no list of tables; give [[{name}]]")
        return []

    def _value(self, table: dict[str, Any], key: str, name: str, kind: type[str | float], default: Any = None) -> Any:
        value = table.get(name, default)
        if value is None:
            self.problems.append(f"{key}: is missing")
            return kind()
        if kind is str:
            if isinstance(value, str) and (value or name not in table):
                return value
            self.problems.append(f"{key}: is {str(value)[:40]!r}; give a string that isn't empty")
        else:
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9:
                return float(value)
            self.problems.append(f"{key}: is {str(value)[:40]!r}; give a positive number")
        return kind()

    def _list(self, value: Any, key: str) -> tuple[str, ...]:
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            return tuple(value)
        self.problems.append(f"{key}: is no list of strings")
        return ()

    def _strings(self, table: dict[str, Any], key: str) -> dict[str, str]:
        self.problems += [f"{key}.{name}: is no string" for name, value in table.items() if not isinstance(value, str)]
        return {name: str(value) for name, value in table.items()}
