"""Why a gateway can't listen at an address; gRPC says of all causes that it failed to bind."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Final

from deepseek_grpc.errors import ConfigurationError

__all__ = ["cannot_listen", "refuse_if_taken"]

_CAUSES: Final = {
    errno.EADDRINUSE: "the address is in use by another program; stop it, or choose another",
    errno.EADDRNOTAVAIL: "the address isn't one of this machine's",
    errno.ENOENT: "the directory doesn't exist",
    errno.ENOTDIR: "a part of the path is no directory",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "this user has no right to; ports below 1024 are the system's, and a socket needs a directory that "
    "the user may write to",
}


def refuse_if_taken(listen: str) -> None:
    """Refuses a Unix socket that another program serves: gRPC would put its own in that one's place.

    Raises:
        ConfigurationError: Somebody listens there, or there is a file that is no socket.
    """
    if not listen.startswith("unix:"):
        return
    path = listen.removeprefix("unix:")
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)  # noqa: PTH116 - a path of gRPC's, as text
        if is_socket:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1)
                probe.connect(path)
    except (OSError, ValueError):  # nothing there, nobody behind it, or no right to look
        return
    cause = _CAUSES[errno.EADDRINUSE] if is_socket else "there is a file that is no socket"
    raise ConfigurationError(f"cannot listen on {listen!r}: {cause}")


def cannot_listen(listen: str, error: Exception) -> ConfigurationError:
    """Makes the error for an address where gRPC couldn't listen, with the system's reason for it."""
    found = _bind(listen)
    cause = str(error) if found is None else _CAUSES.get(found.errno or 0) or found.strerror or str(found)
    return ConfigurationError(f"cannot listen on {listen!r}: {cause}")


def _bind(listen: str) -> OSError | None:
    """Tries what failed for gRPC with a plain socket; returns how that fails."""
    try:
        if listen.startswith("unix:"):
            path = listen.removeprefix("unix:")
            with socket.socket(socket.AF_UNIX) as probe:
                probe.bind(path)
            os.unlink(path)  # noqa: PTH108 - as above
        elif not listen.startswith("unix"):
            host, _, port = listen.rpartition(":")
            for family, kind, protocol, _, address in socket.getaddrinfo(
                host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                with socket.socket(family, kind, protocol) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(address)
    except (socket.gaierror, UnicodeError) as error:  # the second: no name could be like this
        return OSError(0, f"the name doesn't resolve ({error})")
    except OSError as error:
        return error
    return None
