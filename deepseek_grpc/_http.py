"""One HTTP exchange: over TLS unless it is on this machine, no redirects, bounded in time and size."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit
from urllib.request import getproxies, proxy_bypass

from deepseek_grpc._secret import Secret
from deepseek_grpc.tls import is_loopback

__all__ = ["Answer", "exchange", "is_here"]


class Answer(NamedTuple):
    """What was answered; the body, which may have a token in it, as a secret."""

    status: int
    retry_after: str
    body: Secret


def exchange(
    url: SplitResult,
    *,
    tls: ssl.SSLContext | None,
    timeout: float,
    max_bytes: int,
    headers: Mapping[str, str],
    body: Secret | None = None,
    authorization: Secret | None = None,
) -> Answer:
    """Posts a body, or gets what is there without one.

    Proxies come from the environment (`https_proxy`, `no_proxy`), never for this machine.

    Args:
        url: Where; http without `tls`.
        tls: Whom to trust; None speaks plain HTTP.
        timeout: Seconds for all of it; looking up the host's name isn't counted.
        max_bytes: A larger answer comes back cut after one byte more.
        headers: The request's.
        body: What is posted.
        authorization: The header of this name.

    Raises:
        OSError: There is no connection, no good certificate, or no whole answer in time (TimeoutError).
        http.client.HTTPException: The answer isn't HTTP, or broke off.
    """
    connection = _connection(url, tls, timeout)
    connection.set_debuglevel(0)  # a program that prints its HTTP traffic doesn't want this in it
    path = url.path or "/"
    end = time.monotonic() + timeout
    cut = threading.Event()
    try:
        connection.connect()
        # A socket's timeout starts anew with each byte that comes.
        timer = threading.Timer(end - time.monotonic(), _cut, (connection.sock, cut))
        timer.daemon = True
        timer.start()
        try:
            connection.request(
                "GET" if body is None else "POST",
                f"{path}?{url.query}" if url.query else path,
                None if body is None else body.reveal(),
                {**headers} | ({"Authorization": authorization.reveal().decode()} if authorization else {}),
            )
            response = connection.getresponse()
            found = Secret(response.read(max_bytes + 1))
        except (OSError, http.client.HTTPException):
            if not cut.is_set():
                raise
        finally:
            timer.cancel()
        if cut.is_set():  # also where the cut looks like the end of the answer
            raise TimeoutError
    finally:
        connection.close()
    return Answer(response.status, response.getheader("Retry-After", ""), found)


def is_here(host: str) -> bool:
    """Says whether a URL's host is this machine."""
    return is_loopback(f"[{host}]" if ":" in host else host)


def _connection(url: SplitResult, tls: ssl.SSLContext | None, timeout: float) -> http.client.HTTPConnection:
    host, port = url.hostname or "", url.port
    if tls is None:
        return http.client.HTTPConnection(host, port, timeout=timeout)
    proxy = "" if is_here(host) or proxy_bypass(host) else getproxies().get("https", "")
    if not proxy:
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=tls)
    via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    headers = {}
    if via.username is not None:
        login = unquote_to_bytes(via.username) + b":" + unquote_to_bytes(via.password or "")
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login).decode()}"
    connection = http.client.HTTPSConnection(via.hostname or "", via.port or 80, timeout=timeout, context=tls)
    connection.set_tunnel(host, port, headers)
    return connection


def _cut(sock: socket.socket, cut: threading.Event) -> None:
    cut.set()
    with suppress(OSError):  # closed meanwhile
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # the plain one: TLS's own forgets its state under the reader
