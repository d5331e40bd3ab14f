"""`deepseek-grpc health`: asks whether the gateway serves."""

from __future__ import annotations

from typing import Annotated

import typer

from deepseek_grpc import Client
from deepseek_grpc.cli.common import AsJson, Target, connect, emit, reporting, say
from deepseek_grpc.cli.exits import UNHEALTHY
from deepseek_grpc.errors import ConnectError, ServiceUnavailableError
from deepseek_grpc.types import HealthStatus

__all__ = ["health", "status_of"]


def health(
    service: Annotated[
        str, typer.Argument(metavar="SERVICE", help="A service's full name; the gateway as a whole if not given.")
    ] = "",
    *,
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """Asks for the gateway's health (grpc.health.v1); exits with 0 only when it is SERVING.

    Example: deepseek-grpc health --target dns:///gateway.internal:443
    """
    with reporting(as_json=as_json), connect(target) as client:
        status = status_of(client, service)
        if as_json:
            emit("health", service=service, status=status)
        else:
            say(status)
        if status != "SERVING":
            raise typer.Exit(UNHEALTHY)


def status_of(client: Client, service: str = "") -> HealthStatus:
    """Asks for a service's health; raises DeepSeekError.

    A client leaves a gateway that as a whole isn't serving, and so gets no answer from it but that one.
    """
    try:
        return client.health(service)
    except ConnectError:
        raise
    except ServiceUnavailableError:
        return "NOT_SERVING"
