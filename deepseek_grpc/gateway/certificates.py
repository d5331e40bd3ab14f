"""Looks at a gateway's certificates before gRPC does, which says of a bad one no more than that it can't listen."""

from __future__ import annotations

import ssl
from pathlib import Path

__all__ = ["check_certificates"]


def check_certificates(cert_file: Path, key_file: Path, client_ca_file: Path | None = None) -> list[str]:
    """Returns what is wrong with the PEM files, a line for each, with the setting's name before it."""
    files = {"tls.cert_file": cert_file, "tls.key_file": key_file, "tls.client_ca_file": client_ca_file}
    problems = {}
    for name, path in files.items():
        if path is None:
            continue
        try:
            text = path.read_bytes().decode("ascii", "ignore")  # what isn't ASCII is between the blocks
        except (OSError, ValueError) as error:
            problems[name] = f"cannot read {str(path)!r}: {getattr(error, 'strerror', error)}"
        else:
            if name != "tls.key_file" and not _holds_certificates(text):
                problems[name] = f"{str(path)!r} holds no certificate in PEM"
    if not problems.keys() & {"tls.cert_file", "tls.key_file"} and (problem := _pair_problem(cert_file, key_file)):
        problems["tls.key_file"] = problem
    return [f"{name}: {problem}" for name, problem in problems.items()]


def _holds_certificates(text: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _pair_problem(cert_file: Path, key_file: Path) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert_file, key_file, password=lambda: b"")  # without it OpenSSL asks on the terminal
    except ssl.SSLError as error:
        if error.reason and "MISMATCH" in error.reason:
            return f"{str(key_file)!r} isn't the key of the certificate in {str(cert_file)!r}"
        return f"{str(key_file)!r} holds no private key in PEM, or one with a password"
    return None
