"""`deepseek-grpc doctor`: looks for what keeps calls from the gateway."""

from __future__ import annotations

import os
from dataclasses import asdict

import typer

from deepseek_grpc.cli.common import AsJson, Target, emit, reporting, say

__all__ = ["doctor"]


def doctor(*, target: Target = None, as_json: AsJson = False) -> None:
    """Checks the way to the gateway step by step, and says what is wrong and what to do.

    Environment, certificate files, target, name, connection, TLS, token, health, a call, round-trip times: a line each,
    `ok`, `warn` or `FAIL`.

    Exits with 0 where nothing failed, otherwise with the code that a call would.

    Example: deepseek-grpc doctor --target dns:///gateway.internal:443
    """
    with reporting(as_json=as_json):
        from deepseek_grpc.cli.doctor.examination import examine

        environ = dict(os.environ) if target is None else {**os.environ, "DEEPSEEK_GRPC_TARGET": target}
        code = 0
        for found in examine(environ):
            code = code or found.code
            if as_json:
                emit("check", **asdict(found))
                continue
            say(f"{found.status:4}  {found.check:18}  {found.detail}")
            if found.advice:
                say(f"{'':26}{found.advice}")
        if code:
            raise typer.Exit(code)
