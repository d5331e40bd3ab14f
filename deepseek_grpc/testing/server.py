"""The real gateway in a thread of its own, with a scripted engine."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from deepseek_grpc._async.client import AsyncClient
from deepseek_grpc._sync.client import Client
from deepseek_grpc.auth import JWTSigner, TokenSource
from deepseek_grpc.config import ClientConfig
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.settings import ClientSettings, Settings
from deepseek_grpc.testing.script import ScriptedEngine
from deepseek_grpc.types import UNSET, Unset

__all__ = ["FakeServer"]

T = TypeVar("T")


class FakeServer:
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
        client = ClientSettings(self.client_id, self.client_secret.encode(), tenant="tests", roles=("test",))
        settings = Settings(
            listen=listen, clients=(client,), roles={"test": tuple(permissions)}, default_model=self.text.model
        )
        self._settings = settings
        self._backends = [backend]
        self._gateway: Gateway | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def target(self) -> str:
        """Where it listens."""
        if self._gateway is None:
            raise RuntimeError("the fake server isn't running; use it in a `with` block")
        return self._gateway.address

    def start(self) -> None:
        """Starts it; `with` does so too."""
        if self._gateway is not None:
            return
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="fake-server", daemon=True)
            self._thread.start()

        async def start() -> Gateway:
            gateway = Gateway(self._settings, backends=self._backends)
            await gateway.start()
            return gateway

        try:
            self._gateway = self._run(start())
        except BaseException:
            self.stop()
            raise

    def stop(self, grace: float = 0) -> None:
        """Stops it; calls that are under way have `grace` seconds to end."""
        if self._gateway is not None:
            self._run(self._gateway.stop(grace), grace)
            self._gateway = None
        loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()

    def set_serving(self, serving: bool, service: str | None = None) -> None:
        """Says in its health that it serves, or doesn't: as a whole and in every service, or in the one named.

        Balancing clients leave a gateway that as a whole doesn't; calls that it gets are answered all the same.
        """
        if self._gateway is None:
            raise RuntimeError("the fake server isn't running; use it in a `with` block")
        self._run(self._gateway.set_serving(serving, service))

    def _run(self, work: Coroutine[Any, Any, T], grace: float = 0) -> T:
        if self._loop is None:
            raise RuntimeError("the fake server isn't running; use it in a `with` block")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30 + grace)

    def credentials(self) -> TokenSource:
        """Returns credentials that it accepts."""
        return JWTSigner(self.client_id, self.client_secret)

    def client(
        self, *, credentials: TokenSource | str | Unset | None = UNSET, config: ClientConfig | None = None
    ) -> Client:
        """Makes a client of it; close it, or use it in a `with` block."""
        return Client(
            self.target, credentials=self.credentials() if credentials is UNSET else credentials, config=config
        )

    def async_client(
        self, *, credentials: TokenSource | str | Unset | None = UNSET, config: ClientConfig | None = None
    ) -> AsyncClient:
        """Makes an async client of it; close it, or use it in an `async with` block."""
        return AsyncClient(
            self.target, credentials=self.credentials() if credentials is UNSET else credentials, config=config
        )

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment that makes `from_env()` talk to it."""
        return {
            "DEEPSEEK_GRPC_TARGET": self.target,
            "DEEPSEEK_GRPC_CLIENT_ID": self.client_id,
            "DEEPSEEK_GRPC_CLIENT_SECRET": self.client_secret,
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
