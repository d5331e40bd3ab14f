"""One POST to a token endpoint: https, no redirects, bounded in time and size."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit
from urllib.request import getproxies, proxy_bypass

from deepseek_grpc._secret import Secret
from deepseek_grpc.errors import AuthenticationError, ConfigurationError
from deepseek_grpc.tls import is_loopback

__all__ = ["Answer", "Endpoint"]

_MAX_BYTES = 64 * 1024
_MAX_TIMEOUT = 600
_CERTIFICATE_ADVICE = {  # by OpenSSL's X509_V_ERR_*
    9: "look at this machine's clock",  # not valid yet
    10: "have it renewed, or look at this machine's clock",  # expired
    62: "give the host as the certificate names it",
    64: "give the host as the certificate names it",  # an IP address
}


class Answer(NamedTuple):
    """What an endpoint answered; the body, which has a token in it, as a secret."""

    status: int
    retry_after: str
    body: Secret


class Endpoint:
    """A token endpoint's address, and how it is spoken to.

    Proxies come from the environment (`https_proxy`, `no_proxy`), never for this machine. The system's authorities are
    trusted, or those of `SSL_CERT_FILE`, unless there is a `ca_file`.

    Raises:
        ConfigurationError: The URL can't be used, or the CA file can't be read.
    """

    def __init__(self, url: str, *, ca_file: str | Path | None, timeout: float) -> None:
        self._url = parts = _parse(url)
        self.name = f"{parts.scheme}://{parts.netloc}{parts.path}"  # without the query, which may hold a key
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= _MAX_TIMEOUT:
            raise ConfigurationError(f"timeout is {timeout!r}; give seconds, more than 0 and up to {_MAX_TIMEOUT}")
        self._timeout = timeout
        self._tls = _context(ca_file) if parts.scheme == "https" else None

    def post(self, form: Secret, authorization: Secret | None) -> Answer:
        """Posts a form; raises AuthenticationError where no whole answer comes in time."""
        again = True
        try:
            return self._exchange(form, authorization)
        except ssl.SSLCertVerificationError as error:
            again = False
            advice = _CERTIFICATE_ADVICE.get(error.verify_code, "give the authority that signed it as ca_file")
            problem = f"has a certificate that isn't accepted: {error.verify_message.rstrip('.')}; {advice}"
        except ssl.SSLError as error:
            problem = f"can't be reached over TLS: {error.reason or 'the handshake failed'}; is it an https port?"
        except TimeoutError:
            problem = f"didn't answer within {self._timeout:g} s"
        except socket.gaierror as error:
            problem = f"can't be found: {error.strerror}; is the host's name right?"
        except http.client.RemoteDisconnected:
            problem = "hung up without an answer"
        except http.client.IncompleteRead:
            problem = "broke off in the middle of its answer"
        except http.client.HTTPException as error:
            problem = f"answered with something that isn't HTTP ({type(error).__name__})"
        except OSError as error:
            problem = f"can't be reached: {error.strerror or 'the proxy refuses to connect'}"
        # Raised here, out of reach of what was caught: those frames know the secret, and texts may quote the answer.
        raise self.error(problem, retryable=again)

    def error(self, problem: str, *, retryable: bool = False, retry_after: float | None = None) -> AuthenticationError:
        """Returns an error that names the endpoint."""
        return AuthenticationError(
            f"the token endpoint {self.name} {problem}",
            reason="TOKEN_ENDPOINT",
            retryable=retryable,
            retry_after=retry_after,
            advice="Try again in a moment." if retryable else "Ask whoever runs the token endpoint.",
        )

    def _exchange(self, form: Secret, authorization: Secret | None) -> Answer:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        path = self._url.path or "/"
        connection = self._connection()
        connection.set_debuglevel(0)  # a program that prints its HTTP traffic doesn't want this in it
        end = time.monotonic() + self._timeout
        cut = threading.Event()
        try:
            connection.connect()
            # A socket's timeout starts anew with each byte that comes.
            timer = threading.Timer(end - time.monotonic(), _cut, (connection.sock, cut))
            timer.daemon = True
            timer.start()
            try:
                connection.request(
                    "POST",
                    f"{path}?{self._url.query}" if self._url.query else path,
                    form.reveal(),
                    headers | ({"Authorization": authorization.reveal().decode()} if authorization else {}),
                )
                response = connection.getresponse()
                body = Secret(response.read(_MAX_BYTES + 1))
            except (OSError, http.client.HTTPException):
                if not cut.is_set():
                    raise
            finally:
                timer.cancel()
            if cut.is_set():  # also where the cut looks like the end of the answer
                raise TimeoutError
        finally:
            connection.close()
        if len(body) > _MAX_BYTES:
            raise self.error(f"answered with more than {_MAX_BYTES} bytes; is it the right URL?")
        return Answer(response.status, response.getheader("Retry-After", ""), body)

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._tls is None:
            return http.client.HTTPConnection(host, port, timeout=self._timeout)
        proxy = "" if _is_here(host) or proxy_bypass(host) else getproxies().get("https", "")
        if not proxy:
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._tls)
        via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        headers = {}
        if via.username is not None:
            login = unquote_to_bytes(via.username) + b":" + unquote_to_bytes(via.password or "")
            headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        connection = http.client.HTTPSConnection(
            via.hostname or "", via.port or 80, timeout=self._timeout, context=self._tls
        )
        connection.set_tunnel(host, port, headers)
        return connection


def _cut(sock: socket.socket, cut: threading.Event) -> None:
    cut.set()
    with suppress(OSError):  # closed meanwhile
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # the plain one: TLS's own forgets its state under the reader


def _is_here(host: str) -> bool:
    return is_loopback(f"[{host}]" if ":" in host else host)


def _parse(url: str) -> SplitResult:
    """Takes a URL apart; the messages don't quote it, as there may be a password in it."""
    if not isinstance(url, str):
        raise ConfigurationError(f"token_url is a {type(url).__name__}; give it as text")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or port == 0 or not (url.isascii() and url.isprintable()) or " " in url:
        raise ConfigurationError("token_url isn't a URL; give for example 'https://login.example.com/oauth2/token'")
    if "@" in parts.netloc:
        raise ConfigurationError("token_url has a user in it; give client_id and client_secret instead")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_here(host)):
        raise ConfigurationError(
            f"token_url is {parts.scheme or 'nothing'!r} to {host!r}; give an https URL: the client's secret would "
            "cross the network readable (http is for this machine only)"
        )
    return parts


def _context(ca_file: str | Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)  # TLS 1.2 at least
    except ssl.SSLError:
        raise ConfigurationError(f"ca_file: {str(ca_file)!r} holds no certificate in PEM") from None
    except OSError as error:
        raise ConfigurationError(f"ca_file: cannot read {str(ca_file)!r}: {error.strerror}") from None
    except (TypeError, ValueError):
        raise ConfigurationError(f"ca_file is {ca_file!r}; give the path of a PEM file") from None
