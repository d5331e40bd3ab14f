"""`deepseek-grpc models`: lists what a request may name."""

from __future__ import annotations

from dataclasses import asdict

from deepseek_grpc.cli.common import AsJson, Target, connect, emit, reporting, say

__all__ = ["models"]


def models(*, target: Target = None, as_json: AsJson = False) -> None:
    """Lists the models that the gateway offers, in its order of preference.

    Example: deepseek-grpc models --json
    """
    with reporting(as_json=as_json), connect(target) as client:
        found = client.text.models()
        if as_json:
            for model in found:
                emit("model", **asdict(model))
            return
        names = max((len(model.id) for model in found), default=0)
        backends = max((len(model.backend) for model in found), default=0)
        for model in found:
            aliases = f" (also {', '.join(model.aliases)})" if model.aliases else ""
            say(f"{model.id:{names}}  {model.backend:{backends}}  {model.description}{aliases}".rstrip())
