"""Whether there is a way to the gateway: names, connections, and what speaks at the other end."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Final

from deepseek_grpc.cli.doctor.finding import Finding, blocked, ok, warn
from deepseek_grpc.cli.doctor.target import Place

__all__ = ["CLOSED", "TIMEOUT", "check_plain", "connect_to", "greet", "reach", "resolve"]

TIMEOUT: Final = 5.0
"""Seconds that a peer has for each step."""

CLOSED: Final = "what listens there closes the connection"
"""What `greet` says where the other side said nothing."""

# The client's half of HTTP/2's start: the preface and an empty SETTINGS frame (RFC 9113, section 3.4).
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
_FRAME_HEADER: Final = 9
_SETTINGS: Final = 4


def resolve(places: Sequence[Place]) -> tuple[Finding, list[Place]]:
    """Looks up the addresses of names."""
    found: list[Place] = []
    for place in places:
        if place.socket:
            return ok("resolve", f"a Unix socket: {place}"), [place]
        try:
            infos = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # the latter: a label of a name that is too long
            why = getattr(error, "strerror", None) or type(error).__name__
            return blocked(
                "resolve",
                f"{place.host!r} doesn't resolve: {why}",
                "Check the name in the target, and this machine's DNS.",
            ), []
        found += [Place(str(info[4][0]), place.port) for info in infos]
    found = list(dict.fromkeys(found))
    return ok("resolve", ", ".join(str(place) for place in found)), found


def reach(places: Sequence[Place]) -> tuple[Finding, Place | None]:
    """Connects to each address; returns the first that can be reached."""
    reached: list[Place] = []
    problems: list[str] = []
    for place in places:
        try:
            connect_to(place).close()
        except (OSError, ValueError) as error:  # the latter: a NUL in a socket's path
            problems.append(f"{place}: {_why(error)}")
        else:
            reached.append(place)
    if not reached:
        return blocked(
            "connect",
            "; ".join(problems),
            "Check the path, and that the gateway runs."
            if places[0].socket
            else "Check the port, that the gateway runs, and that no firewall stands between.",
        ), None
    if problems:
        return warn("connect", f"{reached[0]} can be reached, but not {'; '.join(problems)}"), reached[0]
    return ok("connect", ", ".join(str(place) for place in reached)), reached[0]


def _why(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return f"nobody listens there ({(error.strerror or '').lower()})"
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    return getattr(error, "strerror", None) or str(error)


def connect_to(place: Place) -> socket.socket:
    """Opens a connection; raises OSError."""
    if not place.socket:
        return socket.create_connection((place.host, place.port), TIMEOUT)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(TIMEOUT)
        connection.connect(place.socket)
    except BaseException:
        connection.close()
        raise
    return connection


def greet(connection: socket.socket) -> str:
    """Begins to speak HTTP/2; returns what is wrong with the answer, empty where it is HTTP/2's.

    Raises:
        ssl.SSLError: The other side ended TLS.
    """
    answer = b""
    try:
        connection.sendall(_PREFACE)
        while len(answer) < _FRAME_HEADER and (piece := connection.recv(_FRAME_HEADER - len(answer))):
            answer += piece
    except TimeoutError:
        return f"what listens there says nothing for {TIMEOUT:g} s"
    except ssl.SSLError:
        raise
    except OSError:  # it closed the connection before it had read all
        pass
    if len(answer) == _FRAME_HEADER and answer[3] == _SETTINGS:
        return ""
    if answer.startswith((b"HTTP/", b"<")):  # the latter: a page, without a head for a version that it doesn't know
        return "what listens there is a web server that speaks HTTP/1, not gRPC"
    return "what listens there speaks no gRPC" if answer else CLOSED


def check_plain(place: Place) -> Finding:
    """Looks whether a port that is used without TLS speaks HTTP/2."""
    with connect_to(place) as connection:
        problem = greet(connection)
    if problem and _speaks_tls(place):
        return blocked(
            "protocol",
            "what listens there speaks TLS, and this client plain text, as it does to its own machine",
            "Set DEEPSEEK_GRPC_CA_FILE to the certificate of the gateway's authority.",
        )
    if problem:
        return blocked(
            "protocol", problem, f"Check the {'path' if place.socket else 'port'}, and what stands before the gateway."
        )
    return ok("protocol", "HTTP/2, in plain text that stays on this machine")


def _speaks_tls(place: Place) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with connect_to(place) as connection, context.wrap_socket(connection):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")
    except OSError:
        return False
