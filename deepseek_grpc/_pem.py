"""Looks at PEM files before gRPC does, which says of a bad one no more than that it can't connect or listen."""

from __future__ import annotations

import os
import ssl
from stat import S_ISFIFO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["pem_problems"]


def pem_problems(
    *,
    ca_file: str | Path | None = None,
    cert_file: str | Path | None = None,
    key_file: str | Path | None = None,
) -> dict[str, str]:
    """Returns what is wrong with each file, by the parameter's name: no PEM in it, a key of another certificate.

    Whether the certificates are valid, trusted and for the right host shows when a connection is made. Pipes are passed
    over, as they can be read once only.

    >>> pem_problems(ca_file="missing.pem")
    {'ca_file': "cannot read 'missing.pem': No such file or directory"}
    """
    problems = {}
    given = {"ca_file": ca_file, "cert_file": cert_file, "key_file": key_file}
    files = {name: path for name, path in given.items() if path is not None and not _is_pipe(path)}
    for name, path in files.items():
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs 2 ms of import time
                text = file.read().decode("ascii", "ignore")  # what isn't ASCII is between the blocks
        except (OSError, ValueError) as error:
            problems[name] = f"cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}"
        else:
            if name == "key_file":
                if "ENCRYPTED" in text:
                    problems[name] = f"{str(path)!r} is locked with a password; give the key without one"
            elif not _holds_certificates(text):
                problems[name] = f"{str(path)!r} holds no certificate in PEM"
    if {"cert_file", "key_file"} <= files.keys() - problems.keys() and (
        problem := _pair_problem(files["cert_file"], files["key_file"])
    ):
        problems["key_file"] = problem
    return problems


def _is_pipe(path: str | Path) -> bool:
    try:
        return S_ISFIFO(os.stat(path).st_mode)  # noqa: PTH116 - pathlib, see above
    except (OSError, ValueError):
        return False


def _holds_certificates(text: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _pair_problem(cert_file: str | Path, key_file: str | Path) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert_file, key_file, password=lambda: b"")  # without it OpenSSL asks on the terminal
    except ssl.SSLError as error:
        if error.reason and "MISMATCH" in error.reason:
            return f"{str(key_file)!r} isn't the key of the certificate in {str(cert_file)!r}"
        return f"{str(key_file)!r} holds no private key in PEM"
    except OSError as error:  # gone since
        return f"cannot read {str(key_file)!r}: {error.strerror}"
    return None
