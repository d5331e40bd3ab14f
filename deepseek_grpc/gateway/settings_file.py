"""Reads a gateway's TOML file, and says everything that is wrong with it at once, each with its line and key."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from deepseek_grpc.auth import Secret
from deepseek_grpc.errors import ConfigurationError
from deepseek_grpc.gateway.guard import permission_of
from deepseek_grpc.gateway.jwks import ALGORITHMS as PUBLIC_ALGORITHMS
from deepseek_grpc.gateway.router import unserved
from deepseek_grpc.gateway.settings import (
    DIALECTS,
    MIN_SECRET_BYTES,
    BackendSettings,
    ClientSettings,
    JWKSSettings,
    Problem,
    Settings,
    TLSSettings,
    is_utf8,
    key_of,
    problems_of,
)
from deepseek_grpc.gateway.toml_lines import Path as Place
from deepseek_grpc.gateway.toml_lines import line_of, lines_of
from deepseek_grpc.tls import is_loopback
from deepseek_rpc.v2 import data_pb2, fine_tune_pb2, text_pb2

__all__ = ["load"]

_PERMISSIONS: Final = frozenset(
    permission_of(method)
    for contract in (text_pb2, data_pb2, fine_tune_pb2)
    for service in contract.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
_GRANTS: Final = tuple(sorted({"*", *_PERMISSIONS, *(f"{p.partition('.')[0]}.*" for p in _PERMISSIONS)}))
_SOURCES: Final = ("secret_file", "secret_env", "public_key_file", "jwks_url")
_CLIENT: Final = ("id", *_SOURCES, "issuer", "algorithm", "algorithms", "tenant", "roles")


def load(path: str | Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Reads a gateway's TOML file; files that it names are relative to it.

    Raises:
        ConfigurationError: With every problem of the file, one a line: `gateway.toml:12: clients[0].roles: …`.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode()
        document = tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # of the syntax, of UTF-8, or of a number that is too long
        raise ConfigurationError(f"{path}: is no TOML: {error}") from error
    except RecursionError:
        raise ConfigurationError(f"{path}: is no TOML that can be read: nested too deep") from None
    reader = _Reader(path, os.environ if environ is None else environ)
    settings = reader.settings(document)
    if reader.problems:
        raise ConfigurationError("\n".join(_sorted_lines(path, lines_of(text), reader.problems)))
    return settings


def _sorted_lines(path: Path, lines: dict[Place, int], problems: Iterable[Problem]) -> list[str]:
    """Writes problems in the order of the file; what is missing from all of it comes last."""
    found = [(line_of(lines, place), f"{key_of(place)}: {what}") for place, what in problems]
    found.sort(key=lambda problem: float("inf") if problem[0] is None else problem[0])
    return [f"{path}{'' if line is None else f':{line}'}: {what}" for line, what in found]


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]}? " if near else ""


def _verifies(key: bytes, algorithm: str) -> bool:
    """Says whether a key is one that verifies signatures of the algorithm."""
    import jwt

    verifier = jwt.get_algorithm_by_name(algorithm)
    try:
        return not verifier.verify(b"", verifier.prepare_key(key), b"")
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return False


_GATEWAY: Final[dict[str, type]] = {
    "listen": str,
    "default_model": str,
    "audience": str,
    "drain_seconds": float,
    "resume_seconds": float,
}


class _Reader:
    """Takes a document apart and collects what is wrong with it."""

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        self._folder = path.parent
        self._environ = environ
        self.problems: list[Problem] = []

    def settings(self, document: dict[str, Any]) -> Settings:
        """Reads everything; what it returns counts only where it found no problem."""
        self._known(document, (), ("gateway", "backends", "aliases", "clients", "roles", "tls"))
        gateway = self._table(document, "gateway")
        self._known(gateway, ("gateway",), tuple(_GATEWAY))
        values: dict[str, Any] = {}
        for name, kind in _GATEWAY.items():
            if name in gateway and (value := self._value(gateway, ("gateway", name), kind)):
                values[name] = value
        values["aliases"] = self._strings(self._table(document, "aliases"), "aliases")
        values["roles"] = {
            name: self._list(permissions, ("roles", name))
            for name, permissions in self._table(document, "roles").items()
        }
        for role, permissions in values["roles"].items():
            for permission in permissions:
                if permission not in _GRANTS:
                    self._say(
                        ("roles", role),
                        f"{permission!r} is no permission of the contract; {_hint(permission, _GRANTS)}"
                        f"one of {', '.join(_GRANTS)}",
                    )
        if "backends" in document:
            values["backends"] = tuple(self._backend(*entry) for entry in self._tables(document, "backends"))
        values["clients"] = tuple(self._client(*entry) for entry in self._tables(document, "clients"))
        if "tls" in document:
            values["tls"] = self._tls(self._table(document, "tls"))
        self._together(values)
        return Settings() if self.problems else Settings(**values)

    def _together(self, values: dict[str, Any]) -> None:
        """Says what each setting alone doesn't show; what was already found wrong isn't said twice."""
        found = {place for place, _ in self.problems}
        parts = {place[0] for place in found}
        defaults = Settings()
        listen = values.get("listen", defaults.listen)
        if "backends" not in parts:
            backends = values.get("backends", defaults.backends)
            patterns = [pattern for backend in backends for pattern in backend.models]
            default_model = values.get("default_model", defaults.default_model)
            missing = unserved(patterns, values["aliases"], default_model) if backends else {}
            if not backends:
                self._say(("backends",), "there is none; a gateway needs at least one")
            for key, model in missing.items():
                part, _, name = key.partition(".")
                place = (part, name) if name else ("gateway", key)
                if place not in found:
                    self._say(place, f"no backend serves {model!r}")
        fits = problems_of(listen, values["clients"], values["roles"], values.get("tls"))
        keyless = {place[:2] for place in found}  # what is wrong with a key is said at what names it
        self.problems += [
            (at, what) for at, what in fits if at not in found and (at[-1] != "key" or at[:2] not in keyless)
        ]
        if not values["clients"] and "clients" not in parts and is_loopback(listen):
            self._say(("clients",), "there is none, so nobody could call; give [[clients]]")

    def _backend(self, at: Place, table: dict[str, Any]) -> BackendSettings:
        self._known(table, at, ("name", "dialect", "models", "pace"))
        dialect = self._value(table, (*at, "dialect"), str, "embedded")
        if dialect not in DIALECTS:
            self._say((*at, "dialect"), f"{dialect!r} is unknown; one of {', '.join(DIALECTS)}")
        backend = BackendSettings(self._value(table, (*at, "name"), str, dialect), dialect)
        if "models" in table:
            backend = replace(backend, models=self._list(table["models"], (*at, "models")))
        if "pace" in table:
            backend = replace(backend, pace=self._value(table, (*at, "pace"), float))
        return backend

    def _client(self, at: Place, table: dict[str, Any]) -> ClientSettings:
        self._known(table, at, _CLIENT)
        client = ClientSettings(
            self._value(table, (*at, "id"), str),
            tenant=self._value(table, (*at, "tenant"), str, "default"),
            roles=self._list(table.get("roles", []), (*at, "roles")),
        )
        sources = [name for name in _SOURCES if name in table]
        if len(sources) != 1:
            self._say(at, f"give one of {', '.join(_SOURCES)}")
            return client
        for name in ("algorithm",) if sources == ["jwks_url"] else ("issuer", "algorithms"):
            if name in table:
                self._say((*at, name), f"doesn't go with {sources[0]}")
        match sources[0]:
            case "jwks_url":
                return replace(client, jwks=self._jwks(at, table))
            case "public_key_file":
                return self._with_public_key(client, at, table)
            case source:
                return self._with_secret(client, at, table, source)

    def _jwks(self, at: Place, table: dict[str, Any]) -> JWKSSettings:
        return JWKSSettings(
            self._value(table, (*at, "jwks_url"), str),
            self._value(table, (*at, "issuer"), str),
            self._list(table["algorithms"], (*at, "algorithms")) if "algorithms" in table else (),
        )

    def _with_public_key(self, client: ClientSettings, at: Place, table: dict[str, Any]) -> ClientSettings:
        key = self._file(table, (*at, "public_key_file"))
        algorithm = self._value(table, (*at, "algorithm"), str, "")
        if algorithm not in PUBLIC_ALGORITHMS:
            self._say((*at, "algorithm"), f"{algorithm!r} doesn't fit the key; give {' or '.join(PUBLIC_ALGORITHMS)}")
        elif key and not _verifies(key, algorithm):
            self._say((*at, "public_key_file"), f"holds no public key for {algorithm}, in PEM")
        return replace(client, key=Secret(key), algorithm=algorithm)

    def _with_secret(self, client: ClientSettings, at: Place, table: dict[str, Any], source: str) -> ClientSettings:
        place = (*at, source)
        if source == "secret_file":
            secret = self._file(table, place)
        elif name := self._value(table, place, str):
            value = self._environ.get(name, "")
            secret = value.encode() if is_utf8(value) else b""
            if not secret:
                self._say(place, f"the variable {name!r} is {'no UTF-8' if value else 'not set'}")
        else:
            secret = b""
        algorithm = self._value(table, (*at, "algorithm"), str, "HS256")
        if algorithm != "HS256":
            self._say((*at, "algorithm"), f"{algorithm!r} doesn't fit the key; give HS256")
        elif secret and len(secret) < MIN_SECRET_BYTES:
            self._say(place, f"the secret has {len(secret)} bytes; HS256 needs at least {MIN_SECRET_BYTES}")
            secret = b""
        elif secret and not _verifies(secret, "HS256"):
            self._say(place, "holds a key of another kind (PEM or SSH); HS256 needs a secret of random characters")
            secret = b""
        return replace(client, key=Secret(secret))

    def _tls(self, table: dict[str, Any]) -> TLSSettings:
        names = ("cert_file", "key_file", "client_ca_file")
        self._known(table, ("tls",), names)
        paths = {}
        for name in names:
            if name in table or name != "client_ca_file":
                self._file(table, ("tls", name))
                paths[name] = self._folder / str(table.get(name, ""))
        return TLSSettings(**paths)

    def _file(self, table: dict[str, Any], at: Place) -> bytes:
        relative: str = self._value(table, at, str)
        if not relative:
            return b""
        try:
            material = (self._folder / relative).read_bytes().strip()
        except (OSError, ValueError) as error:
            self._say(at, f"cannot read {relative!r}: {getattr(error, 'strerror', error)}")
            return b""
        if not material:
            self._say(at, f"{relative!r} is empty")
        return material

    def _say(self, at: Place, what: str) -> None:
        self.problems.append((at, what))

    def _known(self, table: dict[str, Any], at: Place, names: tuple[str, ...]) -> None:
        for name in table:
            if name not in names:
                self._say((*at, name), f"unknown key; {_hint(name, names)}known are {', '.join(names)}")

    def _table(self, document: dict[str, Any], name: str) -> dict[str, Any]:
        value = document.get(name, {})
        if isinstance(value, dict):
            return value
        self._say((name,), f"is a {type(value).__name__}; give a table, [{name}]")
        return {}

    def _tables(self, document: dict[str, Any], name: str) -> list[tuple[Place, dict[str, Any]]]:
        value = document.get(name, [])
        if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
            return [((name, index), entry) for index, entry in enumerate(value)]
        self._say((name,), f"is no list of tables; give [[{name}]]")
        return []

    def _value(self, table: dict[str, Any], at: Place, kind: type[str | float], default: Any = None) -> Any:
        name = at[-1]
        value = table.get(str(name), default)
        if value is None:
            self._say(at, "is missing")
            return kind()
        huge = isinstance(value, int) and value.bit_length() > 64  # beyond 4300 digits it couldn't be written
        shown = "a huge number" if huge else repr(str(value)[:40])
        if kind is str:
            if isinstance(value, str) and (value or name not in table):
                return value
            self._say(at, f"is {shown}; give a string that isn't empty")
        else:
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e9:
                return float(value)
            self._say(at, f"is {shown}; give a positive number")
        return kind()

    def _list(self, value: Any, at: Place) -> tuple[str, ...]:
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            return tuple(value)
        self._say(at, "is no list of strings")
        return ()

    def _strings(self, table: dict[str, Any], key: str) -> dict[str, str]:
        for name, value in table.items():
            if not isinstance(value, str):
                self._say((key, name), "is no string")
        return {name: str(value) for name, value in table.items()}
