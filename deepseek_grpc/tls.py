"""TLS of a channel: certificates in files, and the targets that need none."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from deepseek_grpc._value import Value, value
from deepseek_grpc.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["TLS", "is_loopback"]


@value
class TLS(Value):
    """Certificates for an encrypted channel, as PEM files. Without a CA file the system's authorities are trusted.

    The files are looked at again while the client lives: when they change, new connections use what is in them then.
    """

    ca_file: str | Path | None = None
    cert_file: str | Path | None = None
    """This client's certificate chain, for mutual TLS; needs `key_file`."""
    key_file: str | Path | None = None
    server_name: str | None = None
    """The name expected in the gateway's certificate where it differs from the target's host."""

    def __post_init__(self) -> None:
        for name in ("ca_file", "cert_file", "key_file"):
            path = getattr(self, name)
            if path is not None and not isinstance(path, str | os.PathLike):
                raise ConfigurationError(f"TLS.{name} is a {type(path).__name__}; give the path of a PEM file")
        if self.server_name is not None and (not isinstance(self.server_name, str) or not self.server_name):
            raise ConfigurationError(
                f"TLS.server_name is {self.server_name!r}; give a host's name, or None for the target's"
            )
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigurationError("TLS.cert_file and TLS.key_file go together: give both or neither")

    def stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        """Returns what changes when a file does: of each its inode, size and time of change, or None."""
        return tuple(_stamp(path) for path in (self.ca_file, self.cert_file, self.key_file))

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Returns the bytes of (CA, key, certificate); raises ConfigurationError naming a file that can't be read."""
        return _read("ca_file", self.ca_file), _read("key_file", self.key_file), _read("cert_file", self.cert_file)


def _stamp(path: str | Path | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        found = os.stat(path)  # noqa: PTH116 - pathlib costs 2 ms of import time
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(name: str, path: str | Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs 2 ms of import time
            return file.read()
    except OSError as error:
        raise ConfigurationError(f"TLS.{name}: cannot read {str(path)!r}: {error.strerror}") from error


# An authority (`dns://8.8.8.8/localhost`) is none of ours: that server says what "localhost" is.
_HOST = r"^(?:(?:dns|ipv4|ipv6):(?:///)?)?(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:,/]+))(?::\d+)?\Z"


def is_loopback(target: str) -> bool:
    """Says whether a gRPC target can only mean this machine: a Unix socket, localhost, 127.0.0.0/8 or ::1.

    >>> is_loopback("unix:/run/gw.sock"), is_loopback("127.0.0.1:8443"), is_loopback("dns:///gw.internal:443")
    (True, True, False)
    """
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    import ipaddress

    scheme, _, addresses = target.partition(":")
    if scheme in ("ipv4", "ipv6") and "," in addresses:  # several gateways
        return all(is_loopback(f"{scheme}:{address}") for address in addresses.split(","))
    match = re.match(_HOST, target)
    if match is None:
        return False
    host = match["v6"] or match["host"]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
