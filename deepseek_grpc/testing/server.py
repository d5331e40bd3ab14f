"""The real gateway in a thread of its own, with a scripted engine."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from deepseek_grpc.auth import Secret
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.settings import ClientSettings, Settings
from deepseek_grpc.local import GatewayThread
from deepseek_grpc.testing.script import ScriptedEngine

__all__ = ["FakeServer"]


class FakeServer(GatewayThread):
    """A gateway on a free loopback port; sync and async tests use it alike.

    Args:
        permissions: What its client may do; everything by default.
        engine: Another engine than the scripted one, for example the embedded.
        listen: Where to listen.

    Attributes:
        text: The scripted engine: `script(…)` what it says next, look at its `requests`.

    Example:
        >>> with FakeServer() as fake, fake.client() as client:
        ...     fake.text.script("Hi")
        ...     client.text.generate("Say hi").text
        'Hi'
    """

    def __init__(self, *, permissions: Sequence[str] = ("*",), engine: Any = None, listen: str = "127.0.0.1:0") -> None:
        self.client_id = "test-client"
        self.client_secret = secrets.token_urlsafe(36)
        self.text = ScriptedEngine()
        backend = Backend(self.text if engine is None else engine, ("*",))
        client = ClientSettings(self.client_id, Secret(self.client_secret), tenant="tests", roles=("test",))
        settings = Settings(
            listen=listen, clients=(client,), roles={"test": tuple(permissions)}, default_model=self.text.model
        )
        super().__init__(lambda: nullcontext(Gateway(settings, backends=[backend])), client)

    def set_serving(self, serving: bool, service: str | None = None) -> None:
        """Says in its health that it serves, or doesn't: as a whole and in every service, or in the one named.

        Balancing clients leave a gateway that as a whole doesn't; calls that it gets are answered all the same.
        """
        self._do(self._gateway.set_serving(serving, service))

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment that makes `from_env()` talk to it."""
        return {
            "DEEPSEEK_GRPC_TARGET": self.target,
            "DEEPSEEK_GRPC_CLIENT_ID": self.client_id,
            "DEEPSEEK_GRPC_CLIENT_SECRET": self.client_secret,
        }
