"""Puts the commands together and runs one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated

import typer

from deepseek_grpc.cli import token
from deepseek_grpc.cli.balance import balance
from deepseek_grpc.cli.chat import chat
from deepseek_grpc.cli.common import complain, say
from deepseek_grpc.cli.complete import complete
from deepseek_grpc.cli.doctor import doctor
from deepseek_grpc.cli.exits import EXITS, INTERRUPTED, USAGE
from deepseek_grpc.cli.generate import generate
from deepseek_grpc.cli.health import health
from deepseek_grpc.cli.models import models
from deepseek_grpc.cli.serve import serve

__all__ = ["app", "run"]

app = typer.Typer(
    name="deepseek-grpc",
    help="A gRPC gateway for DeepSeek models, and its client.\n\n"
    "The client takes DEEPSEEK_GRPC_TARGET, DEEPSEEK_GRPC_CLIENT_ID and DEEPSEEK_GRPC_CLIENT_SECRET (or "
    "DEEPSEEK_GRPC_TOKEN) from the environment, and DEEPSEEK_GRPC_CA_FILE, _CERT_FILE and _KEY_FILE for TLS.",
    epilog="\n".join(["Exit codes:", *(f"{code:>4}  {meaning}" for code, (meaning, _) in EXITS.items())]),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (serve, generate, chat, complete, models, balance, health, doctor):
    app.command()(command)
app.add_typer(token.app, name="token")


def _version(wanted: bool) -> None:
    if wanted:
        say(f"deepseek-grpc {version('deepseek-grpc')}")
        raise typer.Exit


@app.callback()
def _top(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def run(args: Sequence[str] | None = None) -> int:
    """Runs the command that the arguments name and returns its exit code."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without Unicode is no reason to fail
    try:
        code = app(args, prog_name="deepseek-grpc", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        # A usage error: click's own class for it, or typer's copy of that, depending on typer's version.
        describe = getattr(error, "format_message", None)
        if describe is None:
            raise
        context = getattr(error, "ctx", None)
        if message := describe():
            complain(f"{message} (see '{context.command_path if context else 'deepseek-grpc'} --help')")
        return USAGE
    return code if isinstance(code, int) else 0
