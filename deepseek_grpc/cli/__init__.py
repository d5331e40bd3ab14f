"""The command line, `deepseek-grpc`: runs a gateway, and asks one."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command that `sys.argv` names and exits with its code; see `deepseek_grpc.cli.exits`."""
    try:
        import typer  # noqa: F401 - only whether it is there
    except ImportError:
        sys.stderr.write('The command line needs typer and rich: pip install "deepseek-grpc[cli]"\n')
        sys.exit(2)
    from deepseek_grpc.cli.app import run

    sys.exit(run())
