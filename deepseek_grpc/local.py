"""The gateway inside the program's own process: no server to run, no port, no credential to hand around.

>>> from deepseek_grpc.local import LocalGateway
>>> with LocalGateway() as gateway, gateway.client() as client:
...     client.text.generate("Say hi", max_tokens=16).meta.model
'embedded-ngram'
"""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import secrets
import shutil
import tempfile
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

from deepseek_grpc._async.client import AsyncClient
from deepseek_grpc._sync.client import Client
from deepseek_grpc.auth import AUDIENCE, JWTSigner, Secret, TokenSource
from deepseek_grpc.config import ClientConfig, ClientOptions
from deepseek_grpc.errors import ClosedError, ConfigurationError
from deepseek_grpc.gateway.engines import TextEngine
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.settings import EMBEDDED_MODEL, ClientSettings, Settings, development
from deepseek_grpc.types import UNSET, Unset

__all__ = ["GatewayThread", "LocalGateway"]

T = TypeVar("T")

_PATIENCE: Final = 30.0
"""Seconds that a start, or a stop beyond its grace, may take."""
_SOCKET_PATH: Final = re.compile(r"/[\w./+@=-]{1,102}", re.ASCII)
"""What fits into `sun_path` (108 bytes on Linux, 104 elsewhere) and means the same in a gRPC target."""


class GatewayThread:
    """A gateway in a thread with an event loop of its own; what `LocalGateway` and the fake server have in common.

    Args:
        gateway: Makes the gateway, in the thread, and takes away what it made for it.
        client: The client that `client()` and `async_client()` are.
        audience: What its tokens are for.

    Example:
        >>> gateway = LocalGateway()
        >>> gateway.start()
        >>> with Client(gateway.target, credentials=gateway.credentials()) as client:
        ...     client.health()
        'SERVING'
        >>> gateway.stop(grace=1)
    """

    def __init__(
        self,
        gateway: Callable[[], AbstractAsyncContextManager[Gateway]],
        client: ClientSettings,
        audience: str = AUDIENCE,
    ) -> None:
        self._make = gateway
        self._client = client
        self._audience = audience
        self._current: _Run | None = None
        self._lock = threading.Lock()

    @property
    def target(self) -> str:
        """Where it listens."""
        return self._running().gateway.address

    def start(self) -> None:
        """Starts it; `with` does so too.

        Raises:
            ConfigurationError: It can't be set up like this, or can't listen there. Then nothing of it is left.
        """
        run = self._begin()
        try:
            run.ready.result(_PATIENCE)
        except BaseException:
            self.stop()
            raise

    def stop(self, grace: float = 0) -> None:
        """Stops it; calls that are under way have `grace` seconds to end. `start` starts it again."""
        if (run := self._current) is not None:
            run.end(grace)
            try:
                run.ended.result(_PATIENCE + grace)
            finally:
                self._forget(run)

    def credentials(self) -> TokenSource:
        """Returns credentials that it accepts."""
        return JWTSigner(self._client.id, self._client.key, audience=self._audience)

    def client(
        self,
        *,
        credentials: TokenSource | str | Unset | None = UNSET,
        config: ClientConfig | None = None,
        **options: Unpack[ClientOptions],
    ) -> Client:
        """Makes a client of it; close it, or use it in a `with` block.

        Example:
            >>> with LocalGateway() as gateway, gateway.client(max_concurrency=8) as client:
            ...     client.health()
            'SERVING'
        """
        source = self.credentials() if credentials is UNSET else credentials
        return Client(self.target, credentials=source, config=config, **options)

    def async_client(
        self,
        *,
        credentials: TokenSource | str | Unset | None = UNSET,
        config: ClientConfig | None = None,
        **options: Unpack[ClientOptions],
    ) -> AsyncClient:
        """Makes an async client of it; close it, or use it in an `async with` block.

        Example:
            >>> async def example() -> None:
            ...     async with LocalGateway() as gateway, gateway.async_client() as client:
            ...         print(await client.health())
        """
        source = self.credentials() if credentials is UNSET else credentials
        return AsyncClient(self.target, credentials=source, config=config, **options)

    @property
    def _gateway(self) -> Gateway:
        return self._running().gateway

    def _running(self) -> _Run:
        run = self._current
        if run is None or not run.is_running():
            raise RuntimeError(f"the {type(self).__name__} isn't running; use it in a `with` block")
        return run

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._running().loop).result(_PATIENCE)

    def _begin(self) -> _Run:
        with self._lock:
            if self._current is None or self._current.is_over():
                self._current = _Run(self._make, type(self).__name__)
            return self._current

    def _forget(self, run: _Run) -> None:
        if not run.ended.done():  # nobody waits any longer, but it isn't over
            return
        run.thread.join()
        with self._lock:
            if self._current is run:
                self._current = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        run = self._begin()
        try:
            await asyncio.wait_for(asyncio.wrap_future(run.ready), _PATIENCE)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (run := self._current) is not None:
            run.end(0)
            try:
                await asyncio.wait_for(asyncio.wrap_future(run.ended), _PATIENCE)
            finally:
                self._forget(run)

    def __repr__(self) -> str:
        run = self._current
        where = repr(run.gateway.address) if run is not None and run.is_running() else "not running"
        return f"{type(self).__name__}({where})"


class _Run:
    """One run of a gateway, from start to end. Whatever happens in between, the thread cleans up behind itself."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Gateway]], name: str) -> None:
        self._make = make
        self._stop = asyncio.Event()
        self._grace: float = 0
        self.gateway: Gateway
        self.ready: Future[None] = Future()
        self.ended: Future[None] = Future()
        for future in (self.ready, self.ended):
            future.set_running_or_notify_cancel()  # whoever gives up waiting doesn't end it for the others
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._main, name=name, daemon=True)
        try:
            self.thread.start()
        except BaseException:
            self.loop.close()
            raise

    def is_running(self) -> bool:
        # In a fork, which has the parent's objects but not its threads, it isn't alive.
        return self.thread.is_alive() and self.ready.done() and self.ready.exception() is None

    def is_over(self) -> bool:
        return self._stop.is_set() or not self.thread.is_alive()

    def end(self, grace: float) -> None:
        """Has it end, without waiting for that; a shorter grace counts even while it drains."""
        if not self.thread.is_alive():
            if not self.ended.done():  # in a fork: the run is the parent's
                self.ended.set_result(None)
            return
        with suppress(RuntimeError):  # its loop has just been closed
            self.loop.call_soon_threadsafe(self._end, grace)

    def _end(self, grace: float) -> None:
        if not self._stop.is_set():
            self._grace = grace
            self._stop.set()
        elif grace < self._grace and self.ready.done():
            self._grace = grace
            self._hurry = self.loop.create_task(self.gateway.stop(grace))

    def _main(self) -> None:
        _RUNS.add(self)
        failure: BaseException | None = None
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            failure = error
        finally:
            _RUNS.discard(self)
            if not self.ready.done():
                self.ready.set_exception(failure or ClosedError("the gateway was stopped while it started"))
                failure = None
            if failure is None:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(failure)

    async def _serve(self) -> None:
        async with self._make() as self.gateway:
            try:
                await self.gateway.start()
            except BaseException:
                await self.gateway.router.aclose()
                raise
            try:
                if not self._stop.is_set():
                    self.ready.set_result(None)
                await self._stop.wait()
            finally:
                await self.gateway.stop(self._grace)


_RUNS: Final[set[_Run]] = set()


@atexit.register
def _end_all() -> None:
    """Ends what the program leaves running, so that no socket stays behind."""
    runs = tuple(_RUNS)
    for run in runs:
        run.end(0)
    for run in runs:
        run.thread.join(_PATIENCE)


class LocalGateway(GatewayThread):
    """The gateway inside this process, over a Unix socket in a directory that only this user can enter.

    Clients come from `client()` and `async_client()`; they may do everything. Their credential is made for this object
    and never leaves the process. Works as `with` and as `async with`, from any thread, any number of times. One that is
    never stopped ends with the process; only a process that is killed leaves its socket's directory behind.

    Args:
        settings: What it serves: backends, aliases, clients and roles. Where to listen and TLS don't count. By default
            the embedded engine.
        engine: Serves every model, in place of the settings' backends; closed when the gateway stops.
        pace: Tokens a second that the embedded engine keeps to; None: as fast as it can.

    Raises:
        ConfigurationError: `pace` was given together with what it isn't for.

    Example:
        >>> with LocalGateway() as gateway, gateway.client() as client:
        ...     client.health()
        'SERVING'
    """

    def __init__(
        self, settings: Settings | None = None, *, engine: TextEngine | None = None, pace: float | None = None
    ) -> None:
        if pace is not None and (settings is not None or engine is not None):
            raise ConfigurationError("pace is for the embedded engine alone; settings have one for each backend")
        name = f"local-{secrets.token_hex(8)}"
        client = ClientSettings(name, Secret(secrets.token_urlsafe(36)), tenant="local", roles=(name,))
        if settings is None:
            base = development({}, pace=pace)[0] if engine is None else Settings()
            settings = replace(base, clients=(), roles={})
        settings = replace(
            settings,
            listen="unix:gw",  # in the directory that each start makes
            tls=None,
            clients=(*settings.clients, client),
            roles={**settings.roles, name: ("*",)},
        )
        super().__init__(lambda: _on_socket(settings, engine), client, settings.audience)


@asynccontextmanager
async def _on_socket(settings: Settings, engine: TextEngine | None) -> AsyncGenerator[Gateway]:
    backends = None
    if engine is not None:
        backends = [Backend(engine, ("*",))]
        models = [model.id for model in await engine.models()]
        if models and settings.default_model == EMBEDDED_MODEL and EMBEDDED_MODEL not in models:  # nobody chose one
            settings = replace(settings, default_model=models[0])
    folder = _private_directory()
    try:
        yield Gateway(replace(settings, listen=f"unix:{folder / 'gw'}"), backends=backends)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _private_directory() -> Path:
    """Makes a directory that only this user can enter, with a path that fits into a socket's address."""
    temporary = tempfile.gettempdir()
    if not _SOCKET_PATH.fullmatch(os.path.join(temporary, "deepseek-12345678", "gw")):  # noqa: PTH118 - it stays text
        temporary = "/tmp"  # noqa: S108 - the directory in it is new, private and has a random name
    try:
        return Path(tempfile.mkdtemp(prefix="deepseek-", dir=temporary))
    except OSError as error:
        raise ConfigurationError(
            f"cannot make a directory for the socket in {temporary!r}: {error.strerror}"
        ) from error
