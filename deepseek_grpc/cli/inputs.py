"""What the commands are given: arguments, files, standard input."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deepseek_grpc.errors import InvalidRequestError

__all__ = ["SOURCES", "read_bytes", "read_inputs"]

SOURCES: Final = "'-' reads standard input, '@FILE' a file, '@@…' is text that begins with '@'"
"""For a command's help: what an argument with text may be."""


def read_inputs(arguments: Mapping[str, str | None], files: Mapping[str, str | None] | None = None) -> list[str | None]:
    """Returns the texts of arguments, then of files, both given by name; None stays None.

    An argument is text, `-` for standard input, or `@FILE` for what a file holds, without the line end that it closes
    with; text that begins with an `@` is given with two. A file is a path, or `-`.

    Raises:
        InvalidRequestError: A file can't be read or isn't UTF-8, or two of them want standard input.

    >>> read_inputs({"PROMPT": "Why?", "--system": "@@home"}, {"--tools": None})
    ['Why?', '@home', None]
    """
    paths = {name: _path(value) for name, value in arguments.items()} | dict(files or {})
    piped = [name for name, path in paths.items() if path == "-"]
    if len(piped) > 1:
        raise InvalidRequestError(f"{' and '.join(piped)} can't both be read from standard input; put one into a file")
    texts = [
        _text(name, path).removesuffix("\n") if (path := paths[name]) is not None else value and _unescaped(value)
        for name, value in arguments.items()
    ]
    return texts + [None if path is None else _text(name, path) for name, path in (files or {}).items()]


def _path(value: str | None) -> str | None:
    if value == "-":
        return value
    return value[1:] if value and value.startswith("@") and not value.startswith("@@") else None


def _unescaped(value: str) -> str:
    return value[1:] if value.startswith("@@") else value


def _text(name: str, path: str) -> str:
    content = read_bytes(name, path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = "standard input" if path == "-" else repr(path)
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidRequestError(
            f"{name}: {where} is no UTF-8 (line {line}, byte {error.start})", advice="Give text in UTF-8."
        ) from error


def read_bytes(name: str, path: str) -> bytes:
    """Returns what is in the file that an argument names, `-` for standard input; raises InvalidRequestError."""
    try:
        if path != "-":
            return Path(path).read_bytes()
        if sys.stdin is not None:
            return sys.stdin.buffer.read()
    except (OSError, ValueError) as error:  # the latter: a NUL in the name
        raise InvalidRequestError(
            f"{name}: cannot read {path!r}: {getattr(error, 'strerror', error)}", advice="Give a file that can be read."
        ) from error
    raise InvalidRequestError(f"{name}: standard input is closed")
