"""`deepseek-grpc health`: asks whether the gateway serves."""

from __future__ import annotations

from typing import Annotated

import typer

from deepseek_grpc.cli.common import AsJson, Target, connect, emit, reporting, say
from deepseek_grpc.cli.exits import UNHEALTHY

__all__ = ["health"]


def health(
    service: Annotated[
        str, typer.Argument(metavar="SERVICE", help="A service's full name; the gateway as a whole if not given.")
    ] = "",
    *,
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """Asks for the gateway's health (grpc.health.v1); exits with 0 only when it is SERVING."""
    with reporting(as_json=as_json), connect(target) as client:
        status = client.health(service)
        if as_json:
            emit("health", service=service, status=status)
        else:
            say(status)
        if status != "SERVING":
            raise typer.Exit(UNHEALTHY)
