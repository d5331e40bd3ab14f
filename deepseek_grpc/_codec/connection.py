"""Why there was no connection: gRPC says so in words only, and these are its own at the supported versions."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from deepseek_grpc.errors import ConnectError, ConnectTimeoutError, ServiceUnavailableError

__all__ = ["no_connection"]


class _Cause(NamedTuple):
    words: str
    """A pattern that gRPC's text has in it, in lower case."""
    says: str
    advice: str
    retryable: bool = False
    """Whether the same call may go through later, although nobody does anything about it."""


# The first that fits counts. What a client is told of a handshake depends on when the other side closes the
# connection, so that "Socket closed" has several causes: a certificate that is missing or not trusted is refused after
# the client's own part of a TLS 1.3 handshake is over.
_CAUSES: Final = (
    _Cause(
        r"certificate has expired",
        "the gateway's certificate has expired",
        "Have it renewed, or set this machine's clock.",
    ),
    _Cause(
        r"certificate is not yet valid",
        "the gateway's certificate isn't valid yet",
        "Set this machine's clock, or wait for the certificate's first day.",
    ),
    _Cause(
        r"local issuer certificate|self.signed certificate|unable to verify the first certificate",
        "the gateway's certificate is signed by an authority that this client doesn't trust",
        "Give the authority's certificate: TLS(ca_file=…).",
    ),
    _Cause(
        r"hostname verification check failed|is not in peer certificate",
        "the gateway's certificate is made out to another name",
        "Use a name of the certificate in the target, or give it: TLS(server_name=…).",
    ),
    _Cause(
        r"certificate_verify_failed",
        "the gateway's certificate is not good",
        "Look at it with `openssl s_client`.",
    ),
    _Cause(
        r"wrong_version_number|http_request",
        "what listens there speaks no TLS",
        "Check the port, or leave `tls` out for a gateway on this machine that has no certificate.",
    ),
    _Cause(
        r"alpn property",
        "what listens there speaks TLS, but not HTTP/2",
        "Check the port, and what stands before the gateway.",
    ),
    _Cause(
        r"failed parsing http/2",
        "what listens there speaks no gRPC",
        "Check the port.",
    ),
    _Cause(
        r"security handshaker",
        "the client's certificate, key or CA file is of no use",
        "Check that they are PEM, and that TLS.key_file is the key of TLS.cert_file.",
    ),
    _Cause(
        r"alert_(?:certificate_required|unknown_ca|bad_certificate|certificate)|handshake_failure",
        "the gateway refuses this client's certificate, or wants one",
        "Give one of an authority that it trusts: TLS(cert_file=…, key_file=…).",
    ),
    _Cause(
        r"socket closed|connection reset|broken pipe",
        "the connection was closed as soon as it stood",
        "If the gateway isn't stopping, it wants TLS, or a client certificate that it trusts: "
        "TLS(cert_file=…, key_file=…).",
        retryable=True,
    ),
    _Cause(
        r"connection refused|no such file",
        "nobody listens there",
        "Check the target, and that the gateway runs.",
        retryable=True,
    ),
)

_FAILED: Final = re.compile(r"(?:failed to connect to all addresses|connections to all backends failing)")
_NO_NAME: Final = re.compile(r"(?:name|dns) resolution|errors resolving|hostname lookup")
_TIMED_OUT: Final = re.compile(r"time(?:d )?out|deadline|handshake read failed(?!.*socket closed)")
_PREFIX: Final = re.compile(r".*last error: (?:[A-Z_]+: )?", re.DOTALL)


def no_connection(details: str, request_id: str, target: str) -> ServiceUnavailableError | None:
    """Makes an error of gRPC's text of an UNAVAILABLE; None if there had been a connection."""
    low = details.lower()
    if _NO_NAME.search(low):
        return ConnectError(
            f"{target!r} doesn't resolve: {details}", request_id=request_id, advice="Check the name in the target."
        )
    if not _FAILED.search(low) and "connection refused" not in low:
        return None
    if "backend unhealthy" in low:
        return ServiceUnavailableError(
            f"{target!r} can be reached, but says that it isn't serving", request_id=request_id
        )
    where = f"no connection to {target!r}"
    for cause in _CAUSES:
        if re.search(cause.words, low):
            return ConnectError(
                f"{where}: {cause.says}", request_id=request_id, advice=cause.advice, retryable=cause.retryable
            )
    cls = ConnectTimeoutError if _TIMED_OUT.search(low) else ConnectError
    return cls(f"{where}: {_PREFIX.sub('', details)}", request_id=request_id)
