"""One POST to a token endpoint: https, no redirects, bounded in time and size."""

from __future__ import annotations

import http.client
import socket
import ssl
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from deepseek_grpc._http import Answer, exchange, is_here
from deepseek_grpc._secret import Secret
from deepseek_grpc.errors import AuthenticationError, ConfigurationError

__all__ = ["Endpoint"]

_MAX_BYTES = 64 * 1024
_MAX_TIMEOUT = 600
_CERTIFICATE_ADVICE = {  # by OpenSSL's X509_V_ERR_*
    9: "look at this machine's clock",  # not valid yet
    10: "have it renewed, or look at this machine's clock",  # expired
    62: "give the host as the certificate names it",
    64: "give the host as the certificate names it",  # an IP address
}


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
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        again = True
        try:
            answer = exchange(
                self._url,
                tls=self._tls,
                timeout=self._timeout,
                max_bytes=_MAX_BYTES,
                headers=headers,
                body=form,
                authorization=authorization,
            )
            if len(answer.body) <= _MAX_BYTES:
                return answer
            again = False
            problem = f"answered with more than {_MAX_BYTES} bytes; is it the right URL?"
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
    if parts.scheme != "https" and not (parts.scheme == "http" and is_here(host)):
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
