"""The gateway's certificates: looked at before gRPC does, which says of a bad one no more than that it can't listen."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import grpc

from deepseek_grpc._pem import pem_problems
from deepseek_grpc.errors import ConfigurationError
from deepseek_grpc.gateway.settings import TLSSettings

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["CertificateFiles", "check_certificates"]

_log = logging.getLogger("deepseek_grpc.gateway")

_LOOK_EVERY: Final = 1.0  # seconds
_SETTINGS: Final = {"cert_file": "tls.cert_file", "key_file": "tls.key_file", "ca_file": "tls.client_ca_file"}


def check_certificates(tls: TLSSettings) -> list[str]:
    """Returns what is wrong with the PEM files, a line for each, with the setting's name before it."""
    found = pem_problems(ca_file=tls.client_ca_file, cert_file=tls.cert_file, key_file=tls.key_file)
    problems = {_SETTINGS[name]: problem for name, problem in found.items()}
    for name, path in _files(tls).items():
        if name == "tls.key_file" or name in problems:
            continue
        certificates = _certificates(path)
        if not certificates:
            problem = "holds no certificate in PEM"
        elif name == "tls.cert_file":
            problem = _date_problem(certificates[0]) or _use_problem(certificates[0])
        else:  # of several authorities, one that is good will do
            dates = [_date_problem(certificate) for certificate in certificates]
            problem = dates[0] if all(dates) else ""
        if problem:
            problems[name] = f"{str(path)!r} {problem}"
    return [f"{name}: {problems[name]}" for name in _files(tls) if name in problems]


def _files(tls: TLSSettings) -> dict[str, Path]:
    files = {"tls.cert_file": tls.cert_file, "tls.key_file": tls.key_file}
    return files if tls.client_ca_file is None else {**files, "tls.client_ca_file": tls.client_ca_file}


def _certificates(path: Path) -> list[Certificate]:
    from cryptography.x509 import load_pem_x509_certificates

    try:
        return load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):  # the former: gone since
        return []


def _date_problem(certificate: Certificate) -> str:
    now = dt.datetime.now(dt.UTC)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if ends < now:
        return f"expired on {ends:%Y-%m-%d at %H:%M} UTC; no client would accept it, give a new one"
    if begins > now:
        return f"isn't valid before {begins:%Y-%m-%d at %H:%M} UTC; is this machine's clock right?"
    return ""


def _use_problem(certificate: Certificate) -> str:
    """Says what a certificate is for, if not for a server (RFC 5280, sections 4.2.1.3 and 4.2.1.12)."""
    from cryptography.x509 import ExtendedKeyUsage, ExtensionNotFound, KeyUsage
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        usage = certificate.extensions.get_extension_for_class(KeyUsage).value
        if usage.key_cert_sign and not usage.digital_signature:
            return "is an authority's certificate, which signs others; give the one that it signed for this gateway"
    except (ExtensionNotFound, ValueError):
        pass
    try:
        purposes = certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value
    except (ExtensionNotFound, ValueError):
        return ""
    if {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}.isdisjoint(purposes):
        return "isn't for servers: its extended key usage lacks serverAuth"
    return ""


class CertificateFiles:
    """Certificates that may be replaced while the gateway runs.

    gRPC asks at each handshake. Files that have changed, and are good together, count from then on; until all of them
    are, the old ones do. Connections that exist stay as they are.

    Args:
        tls: The files.
        clock: Seconds, for looking at the files once a second at most.

    Raises:
        ConfigurationError: With everything that is wrong with them.
    """

    def __init__(self, tls: TLSSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._tls = tls
        self._clock = clock
        self._looked = clock()
        self._seen = self._stamps()
        if problems := check_certificates(tls):
            raise ConfigurationError("\n".join(problems))
        self._first = self._read()

    def credentials(self) -> grpc.ServerCredentials:
        """Returns credentials for a server; with `client_ca_file` its clients need certificates too."""
        # Its types don't know that None means "no change"; its documentation does.
        renewed = cast("Callable[[], grpc.ServerCertificateConfiguration]", self._renewed)
        return grpc.dynamic_ssl_server_credentials(self._first, renewed, self._tls.client_ca_file is not None)

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns what counts from now on, None for what counted before; whatever happens, it doesn't raise."""
        now = self._clock()
        if now - self._looked < _LOOK_EVERY:
            return None
        self._looked = now
        try:
            stamps = self._stamps()
            if stamps == self._seen:
                return None
            problems = check_certificates(self._tls)
            configuration = None if problems else self._read()
            if self._stamps() != stamps:  # somebody is writing them: again at the next handshake
                return None
            self._seen = stamps
        except Exception as error:  # noqa: BLE001 - raised here it would fail the handshake
            problems, configuration = [f"tls: {error}"], None
        if configuration is None:
            _log.error("the new certificates aren't used, the old ones stay: %s", "; ".join(problems))
        else:
            _log.info("new certificates from %s", ", ".join(str(path) for path in _files(self._tls).values()))
        return configuration

    def _read(self) -> grpc.ServerCertificateConfiguration:
        pair = (self._tls.key_file.read_bytes(), self._tls.cert_file.read_bytes())
        client_ca = self._tls.client_ca_file.read_bytes() if self._tls.client_ca_file else None
        return grpc.ssl_server_certificate_configuration([pair], client_ca)

    def _stamps(self) -> list[tuple[int, ...]]:
        return [_stamp(path) for path in _files(self._tls).values()]


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns
