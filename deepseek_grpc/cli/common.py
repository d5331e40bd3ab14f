"""What the commands share: options, output, and how errors are reported."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

import typer

from deepseek_grpc import Client
from deepseek_grpc.cli.exits import BROKEN_PIPE, INTERNAL, INTERRUPTED, exit_code
from deepseek_grpc.errors import ConfigurationError, DeepSeekError, InternalError

__all__ = ["AsJson", "Target", "complain", "connect", "emit", "note", "printable", "report", "reporting", "say"]

Target = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="The gateway; takes the place of DEEPSEEK_GRPC_TARGET."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON objects, one a line, errors included.")]

# A terminal obeys control characters: what others wrote shows there without them.
_CONTROLS: Final = dict.fromkeys(code for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A))


def connect(target: str | None) -> Client:
    """Makes a client of the environment."""
    if target is None:
        return Client.from_env()
    return Client.from_env({**os.environ, "DEEPSEEK_GRPC_TARGET": target})


def printable(text: str) -> str:
    r"""Returns text without the control characters that a terminal would obey; tabs and line ends stay.

    >>> printable("a\x1b[31mb")
    'a[31mb'
    """
    return text.translate(_CONTROLS)


def say(text: str, *, end: str = "\n") -> None:
    """Writes text to standard output at once, as it is; a terminal gets it without control characters."""
    _write(sys.stdout, text, end)


def note(text: str, *, end: str = "\n") -> None:
    """Writes dim text to standard error where that is a terminal, and nothing elsewhere."""
    if sys.stderr is not None and sys.stderr.isatty():
        sys.stderr.write(f"\033[2m{printable(text)}\033[0m{end}")
        sys.stderr.flush()


def complain(message: str) -> None:
    """Writes an error to standard error, on one line."""
    _write(sys.stderr, printable(f"error: {' '.join(message.split())}"), "\n")


def emit(type_: str, **fields: Any) -> None:
    """Writes a JSON object to standard output, on one line."""
    _write(sys.stdout, json.dumps({"type": type_, **fields}), "\n")


def _write(file: TextIO | None, text: str, end: str) -> None:
    if file is not None:  # closed by whoever started this
        file.write((printable(text) if file.isatty() else text) + end)
        file.flush()


@contextmanager
def reporting(*, as_json: bool = False) -> Iterator[None]:
    """Turns what a command raises into its report and its exit code; a traceback or a secret is never in it."""
    try:
        with _reported(as_json=as_json):
            yield
    except BrokenPipeError:
        # What is still buffered would be written, and fail again, when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(BROKEN_PIPE) from None


@contextmanager
def _reported(*, as_json: bool) -> Iterator[None]:
    try:
        yield
    except DeepSeekError as error:
        report(error, as_json=as_json)
        raise typer.Exit(exit_code(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001 - the last resort; the text of a foreign exception may quote anything
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace is not None else ""
        defect = InternalError(
            f"a defect of deepseek-grpc: {type(error).__name__}{where}",
            reason="CLIENT_DEFECT",
            advice="Report it with this text.",
        )
        report(defect, as_json=as_json)
        raise typer.Exit(INTERNAL) from None


def report(error: DeepSeekError, *, as_json: bool) -> None:
    """Writes an error to standard error, or as a JSON object to standard output."""
    if as_json:
        emit(
            "error",
            code=error.code.name,
            reason=error.reason,
            message=error.details,
            advice=error.advice,
            request_id=error.request_id,
            retryable=error.retryable,
            retry_after=error.retry_after,
        )
    elif isinstance(error, ConfigurationError):
        for problem in error.details.splitlines():  # a configuration file's are reported all at once, one a line
            complain(problem)
    else:
        complain(str(error))
