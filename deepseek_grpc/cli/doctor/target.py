"""Takes a gRPC target apart (gRPC name resolution: https://grpc.github.io/grpc/core/md_doc_naming.html)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Final

from deepseek_grpc.tls import is_loopback

__all__ = ["Place", "TargetError", "parse_target", "proxy_variable"]

_DEFAULT_PORT: Final = 443
_LAST_PORT: Final = 65535
_HOST_PORT: Final = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^:/\[\]]+))(?::(?P<port>[^:]*))?")
_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a gateway listens: a host and port, or a Unix socket (with a NUL before an abstract name)."""

    host: str
    port: int
    socket: str = ""

    def __str__(self) -> str:
        if self.socket:
            return self.socket.replace("\0", "@")
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class TargetError(ValueError):
    """What is wrong with a target."""


def parse_target(target: str) -> list[Place]:
    """Returns the places that a target names; raises TargetError.

    >>> [str(place) for place in parse_target("dns:///gw.internal:8443")]
    ['gw.internal:8443']
    >>> parse_target("unix:/run/gw.sock")[0].socket
    '/run/gw.sock'
    """
    if target.startswith("unix-abstract:"):
        return [Place("", 0, "\0" + target.removeprefix("unix-abstract:"))]
    if target.startswith("unix:"):
        path = target.removeprefix("unix:")
        return [Place("", 0, path.removeprefix("//"))]
    if "://" in target and not target.startswith("dns://"):
        raise TargetError(f"{target!r} is an address of another kind than gRPC's")
    if target.startswith(("ipv4:", "ipv6:")):
        return [_place(part) for part in target[5:].split(",")]
    return [_place(re.sub(r"^dns:(?://[^/]*/)?", "", target))]


def _place(text: str) -> Place:
    found = _HOST_PORT.fullmatch(text)
    if found is None:
        raise TargetError(f"{text!r} is no host and port")
    port = str(_DEFAULT_PORT) if found["port"] is None else found["port"]
    if not (port.isascii() and port.isdecimal()) or not 1 <= int(port[:6]) <= _LAST_PORT:
        raise TargetError(f"the port of {text!r} is none from 1 to {_LAST_PORT}")
    return Place(found["v6"] or found["host"], int(port))


def proxy_variable(target: str, environ: Mapping[str, str]) -> str:
    """Returns the variable with the proxy that gRPC takes for a target; empty where there is none.

    Source: gRPC Core's HTTP proxy mapper (https://github.com/grpc/grpc/blob/master/doc/http_proxy_mapper.md).

    >>> proxy_variable("gw.internal:443", {"https_proxy": "http://proxy:3128", "no_proxy": "localhost, .internal"})
    ''
    """
    variable = next((name for name in _PROXIES if name in environ), "")
    # An empty one, or one of another scheme, is the end of it: gRPC doesn't look at the next.
    if is_loopback(target) or not environ.get(variable, "").startswith("http://") or _is_excepted(target, environ):
        return ""
    return variable


def _is_excepted(target: str, environ: Mapping[str, str]) -> bool:
    """Says whether `no_grpc_proxy`, or else `no_proxy`, has the target: its name, a domain above it, or its network.

    As gRPC 1.85 does it; 1.76 takes any end of a name for a domain, and a leading dot by the letter.
    """
    places = parse_target(target)
    if len(places) > 1:  # gRPC compares the whole list, which no entry fits
        return False
    host = places[0].host.lower()
    entries = environ.get("no_grpc_proxy", environ.get("no_proxy", "")).split(",")
    return any(_has(entry.strip().lower(), host) for entry in entries)


def _has(entry: str, host: str) -> bool:
    if "/" not in entry:
        name = entry.removeprefix(".")
        return bool(name) and f".{host}".endswith(f".{name}")
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        return False
