"""`deepseek-grpc serve`: runs a gateway until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from deepseek_grpc.cli.common import reporting, say

__all__ = ["serve"]

_DEFAULT_LISTEN = "127.0.0.1:50051"


def _known(engine: str | None) -> str | None:
    from deepseek_grpc.gateway.settings import DIALECTS

    if engine is not None and engine not in DIALECTS:
        raise typer.BadParameter(f"{engine!r} is unknown; one of {', '.join(DIALECTS)}")
    return engine


def serve(
    *,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A gateway's TOML file; without one: loopback, one client.")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Where to listen; port 0 picks a free one.", show_default=_DEFAULT_LISTEN
        ),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(callback=_known, help="What answers: 'embedded', a small n-gram model for trying out.")
    ] = None,
    pace: Annotated[
        float | None, typer.Option(help="Tokens a second of the embedded engine; as fast as it can if not given.")
    ] = None,
) -> None:
    """Runs a gateway until SIGTERM or Ctrl-C, then lets running calls end.

    Prints `listening on HOST:PORT` once it can be called.

    Without --config it is for development: on loopback only, and with one client.

    That client is the one of DEEPSEEK_GRPC_CLIENT_ID and DEEPSEEK_GRPC_CLIENT_SECRET.

    Where they are not set it makes one up and prints it.

    Example: deepseek-grpc serve --listen 127.0.0.1:0 --pace 40
    """
    with reporting():
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        if config is not None and (engine is not None or pace is not None):
            raise typer.BadParameter("the file given with --config says it", param_hint="--engine or --pace")
        asyncio.run(_serve(config, listen, pace))


async def _serve(config: Path | None, listen: str | None, pace: float | None) -> None:
    from deepseek_grpc.gateway.server import Gateway, run
    from deepseek_grpc.gateway.settings import development
    from deepseek_grpc.gateway.settings_file import load

    class Announced(Gateway):
        """Prints the credential that was made for it once its address is known."""

        async def start(self) -> None:
            await super().start()
            client = self.settings.clients[0]
            say(f"export DEEPSEEK_GRPC_TARGET={shlex.quote(self.address)}")
            say(f"export DEEPSEEK_GRPC_CLIENT_ID={client.id}")
            say(f"export DEEPSEEK_GRPC_CLIENT_SECRET={client.key.reveal().decode()}")

    if config is None:
        settings, made = development(os.environ, listen=listen or _DEFAULT_LISTEN, pace=pace)
    else:
        settings, made = load(config), False
        if listen is not None:
            settings = replace(settings, listen=listen)
    await run(Announced(settings) if made else Gateway(settings))
