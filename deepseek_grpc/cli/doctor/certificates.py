"""Whether TLS comes about, and whose certificates are seen in it."""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from deepseek_grpc._pem import pem_problems
from deepseek_grpc.cli.doctor.finding import Finding, blocked, misconfigured, ok, warn
from deepseek_grpc.cli.doctor.network import CLOSED, connect_to, greet
from deepseek_grpc.cli.doctor.target import Place
from deepseek_grpc.tls import TLS

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["check_files", "check_tls"]

_FEW_DAYS: Final = 14

# OpenSSL's codes of what is wrong with a certificate (X509_verify_cert_error_string(3)).
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_UNTRUSTED: Final = (2, 18, 19, 20, 21)
_OTHER_NAME: Final = (62, 64)


def check_files(tls: TLS) -> Finding | None:
    """Looks at the files that were given; None where there are none."""
    problems = pem_problems(ca_file=tls.ca_file, cert_file=tls.cert_file, key_file=tls.key_file)
    if problems:
        listed = "; ".join(f"DEEPSEEK_GRPC_{name.upper()}: {problem}" for name, problem in problems.items())
        return misconfigured("files", listed, "Give PEM files that this user can read.")
    given = [name for name in ("ca_file", "cert_file", "key_file") if getattr(tls, name) is not None]
    return ok("files", f"{', '.join(given)}: PEM, and readable") if given else None


def check_tls(place: Place, host: str, tls: TLS) -> Iterator[Finding]:
    """Shakes hands as the client does, and looks at the gateway's certificate and at whether it wants one."""
    try:
        with _handshake(place, host, tls) as connection:
            version, cipher = connection.version(), connection.cipher()
            yield ok("tls", f"{version}, {cipher[0] if cipher else 'no cipher'}")
            yield _describe(_load(connection), host)
            if connection.selected_alpn_protocol() != "h2":
                yield blocked("protocol", "what listens there speaks TLS, but not HTTP/2", _PORT)
                return
            problem = greet(connection)
    except ssl.SSLCertVerificationError as error:
        yield ok("tls", "the other side speaks TLS")
        yield _distrusted(place, host, error)
        return
    except ssl.SSLError as error:
        yield _refused(error, tls)
        return
    except OSError as error:
        yield blocked("tls", f"the other side ended the handshake ({error.strerror or type(error).__name__})", _PORT)
        return
    if problem == CLOSED:
        # In TLS 1.3 the client's part is over before its certificate is judged (RFC 8446, section 4.4.2.4), and gRPC
        # closes the connection without an alert.
        yield _unwelcome("it ends the connection right after the handshake", tls)
        return
    if problem:
        yield blocked("protocol", problem, _PORT)
        return
    yield ok("protocol", "HTTP/2 over TLS")
    if tls.cert_file is not None:
        yield _client_certificate(place, host, tls)


_PORT: Final = "Check the port, and what stands before the gateway."
_CLIENT_CERTIFICATE: Final = (
    "Set DEEPSEEK_GRPC_CERT_FILE and DEEPSEEK_GRPC_KEY_FILE to a certificate of an authority that the gateway trusts."
)


def _handshake(place: Place, host: str, tls: TLS, *, verify: bool = True) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif tls.ca_file is not None:
        context.load_verify_locations(tls.ca_file)
    else:
        context.load_default_certs()
    if tls.cert_file is not None and tls.key_file is not None:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    connection = connect_to(place)
    try:
        return context.wrap_socket(connection, server_hostname=host)
    except BaseException:
        connection.close()
        raise


def _load(connection: ssl.SSLSocket) -> Certificate:
    from cryptography.x509 import load_der_x509_certificate

    return load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")


def _describe(certificate: Certificate, host: str) -> Finding:
    left = certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
    detail = f"{_who(certificate)}, is good for {host!r}, {_span(left)} left"
    if left < dt.timedelta(days=_FEW_DAYS):
        return warn("certificate", detail, "Have the gateway's certificate renewed soon.")
    return ok("certificate", detail)


def _who(certificate: Certificate) -> str:
    return f"{certificate.subject.rfc4514_string()!r} by {certificate.issuer.rfc4514_string()!r}"


def _span(time: dt.timedelta) -> str:
    """Puts a time into words.

    >>> _span(dt.timedelta(days=3, hours=5)), _span(dt.timedelta(minutes=61))
    ('3 days', '1 h')
    """
    if abs(time.days) > 1:
        return f"{time.days} days"
    hours, minutes = divmod(int(time.total_seconds()) // 60, 60)
    return f"{hours} h" if hours else f"{minutes} min"


def _distrusted(place: Place, host: str, error: ssl.SSLCertVerificationError) -> Finding:
    """Says what is wrong with a certificate, and whose it is."""
    try:
        with _handshake(place, host, TLS(), verify=False) as connection:
            certificate = _load(connection)
    except OSError:  # it wants to see a certificate before it shows its own
        return blocked("certificate", f"the gateway's certificate is not good: {error.verify_message}", _PORT)
    who = _who(certificate)
    now = dt.datetime.now(dt.UTC)
    if error.verify_code == _EXPIRED:
        ago = _span(now - certificate.not_valid_after_utc)
        return blocked(
            "certificate",
            f"the gateway's certificate {who} expired {ago} ago",
            "Have it renewed, or set this machine's clock.",
        )
    if error.verify_code == _NOT_YET_VALID:
        return blocked(
            "certificate",
            f"the gateway's certificate {who} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only",
            "Set this machine's clock, or wait.",
        )
    if error.verify_code in _UNTRUSTED:
        return blocked(
            "certificate",
            f"the gateway's certificate {who} is of an authority that isn't trusted here",
            "Set DEEPSEEK_GRPC_CA_FILE to the certificate of that authority, if it is the right one.",
        )
    if error.verify_code in _OTHER_NAME:
        names = ", ".join(_names(certificate)) or "no host"
        return blocked(
            "certificate",
            f"the gateway's certificate {who} is not for {host!r}, but for {names}",
            "Use one of these names in the target.",
        )
    return blocked("certificate", f"the gateway's certificate {who} is not good: {error.verify_message}", _PORT)


def _names(certificate: Certificate) -> list[str]:
    from cryptography.x509 import DNSName, ExtensionNotFound, IPAddress, SubjectAlternativeName

    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    except (ExtensionNotFound, ValueError):
        return []
    return [str(name.value) for name in names if isinstance(name, DNSName | IPAddress)]


_ABOUT_CERTIFICATES = ("CERT", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "ACCESS_DENIED")
"""What alerts are called that are about the client's certificate."""


def _refused(error: ssl.SSLError, tls: TLS) -> Finding:
    """Says why TLS ended: by the other side's alert (RFC 8446, section 6.2), or because it speaks none."""
    reason = error.reason or ""
    if "ALERT" in reason and any(word in reason for word in _ABOUT_CERTIFICATES):
        return _unwelcome(reason.lower().replace("_", " "), tls)
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE"):
        return blocked(
            "tls",
            "what listens there speaks no TLS",
            "Check the port; a gateway on this machine that has no certificate needs no DEEPSEEK_GRPC_CA_FILE.",
        )
    return blocked("tls", f"no TLS comes about: {reason.lower().replace('_', ' ') or type(error).__name__}", _PORT)


def _unwelcome(how: str, tls: TLS) -> Finding:
    wants = (
        "wants a client certificate, and none is set" if tls.cert_file is None else "refuses this client's certificate"
    )
    return blocked("client certificate", f"the gateway {wants} ({how})", _CLIENT_CERTIFICATE)


def _client_certificate(place: Place, host: str, tls: TLS) -> Finding:
    """Looks whether it would do without a client's certificate."""
    try:
        with _handshake(place, host, TLS(ca_file=tls.ca_file)) as connection:
            wanted = bool(greet(connection))
    except OSError:  # ssl.SSLError is one
        wanted = True
    return ok("client certificate", "asked for, given and accepted" if wanted else "given, but the gateway needs none")
