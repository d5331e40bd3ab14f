"""Puts a gateway together and runs it: engines, guard, services, health, reflection, drain."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from deepseek_grpc import _forks
from deepseek_grpc.config import MAX_MESSAGE_BYTES
from deepseek_grpc.gateway.certificates import CertificateFiles
from deepseek_grpc.gateway.engines import TextEngine
from deepseek_grpc.gateway.guard import EXEMPT, Guard
from deepseek_grpc.gateway.jwks import KeySet
from deepseek_grpc.gateway.listening import cannot_listen, refuse_if_taken
from deepseek_grpc.gateway.router import Backend, Router
from deepseek_grpc.gateway.services.text import TextService
from deepseek_grpc.gateway.settings import BackendSettings, ClientSettings, JWKSSettings, Settings
from deepseek_grpc.gateway.tokens import ClientKey, Issuer, Principal, TokenVerifier
from deepseek_grpc.tls import is_loopback
from deepseek_rpc.v2 import text_pb2

__all__ = ["Gateway", "run"]

_log = logging.getLogger("deepseek_grpc.gateway")

_TEXT: Final = text_pb2.DESCRIPTOR.services_by_name["TextService"]

_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Nobody is sent away for pinging: it is how clients notice a dead connection, those of this project every 2 s while
    # a call is open. By default a handful within 5 minutes costs a client the connection and all that runs on it.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    # A slow reader holds 100 KB a stream instead of 4 MB.
    ("grpc.http2.bdp_probe", 0),
    # Beside a client that starts and resets streams as fast as it can (CVE-2023-44487), others waited 663 ms at the
    # 99th percentile without a limit and 49 ms with this one. It counts for each connection: what is beyond it waits
    # in its client, and a session is one stream however many turns it has. RFC 9113 (6.5.2) advises against less.
    ("grpc.max_concurrent_streams", 100),
    ("grpc.so_reuseport", 0),
)

_LEAVING_SECONDS: Final = 1.0
"""What balancing clients get to leave after health has turned NOT_SERVING; they take milliseconds, unless busy."""


class Gateway:
    """A gateway within this event loop.

    Args:
        settings: How it is set up.
        backends: Takes the place of the settings' backends, for engines made by the program.

    Raises:
        ConfigurationError: The settings don't fit together.

    Example:
        >>> from deepseek_grpc.gateway.settings import ClientSettings, Settings
        >>> client = ClientSettings("svc-a", Secret("0123456789abcdef0123456789abcdef"), roles=("writer",))
        >>> settings = Settings(listen="127.0.0.1:0", clients=(client,), roles={"writer": ("text.*",)})
        >>> async def main() -> None:
        ...     async with Gateway(settings) as gateway:
        ...         print(gateway.address)
    """

    def __init__(self, settings: Settings, *, backends: Sequence[Backend] | None = None) -> None:
        self.settings = settings
        if backends is None:
            backends = [Backend(_engine(backend), backend.models) for backend in settings.backends]
        self.router = Router(backends, settings.aliases, settings.default_model)
        self._text = TextService(self.router, settings.resume_seconds)
        self._issuers = _issuers(settings)
        verifier = TokenVerifier(_keys(settings), issuers=self._issuers, audience=settings.audience)
        self._guard = Guard(verifier)
        self._server: grpc.aio.Server | None = None
        self._health: _Health | None = None
        self._address = ""

    @property
    def address(self) -> str:
        """Where it listens, as a target for clients; known once it has started."""
        return self._address

    async def start(self) -> None:
        """Starts to serve; raises ConfigurationError when it can't listen there."""
        _forks.check()
        _forks.asyncio_used()
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((self._guard.protect(self._text, _TEXT),))
        self._health = _Health(self._guard)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if is_loopback(self.settings.listen):
            _add_reflection(server, [_TEXT.full_name])
        credentials = _credentials(self.settings)
        refuse_if_taken(self.settings.listen)
        try:
            port = server.add_secure_port(self.settings.listen, credentials)
        except RuntimeError as error:
            raise cannot_listen(self.settings.listen, error) from error
        await server.start()
        for issuer in self._issuers:
            issuer.keys.start()
        host = self.settings.listen
        self._address = host if host.startswith("unix") else f"{host.rpartition(':')[0]}:{port}"
        await self.set_serving(True)
        self._server = server

    async def set_serving(self, serving: bool, service: str | None = None) -> None:
        """Says in its health that it serves, or doesn't: as a whole and in every service, or in the one named.

        Balancing clients leave a gateway that as a whole doesn't; calls that it gets are answered all the same.
        """
        if self._health is None:
            raise RuntimeError("the gateway hasn't started")
        status = health_pb2.HealthCheckResponse
        for name in (
            ("", text_pb2.DESCRIPTOR.services_by_name["TextService"].full_name) if service is None else (service,)
        ):
            await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def stop(self, grace: float | None = None) -> None:
        """Drains: health turns NOT_SERVING, a second later new calls are refused; all have `grace` seconds to end.

        Called again while it drains, with a shorter `grace`, it is over sooner.
        """
        server = self._server
        if server is None or self._health is None:
            return
        grace = self.settings.drain_seconds if grace is None else grace
        until = asyncio.get_running_loop().time() + grace
        await self._health.enter_graceful_shutdown()
        self._text.sessions.go_away(grace)
        # A call that arrives while gRPC closes is CANCELLED, which nobody retries: first, clients hear of it and leave.
        with suppress(TimeoutError):
            await asyncio.wait_for(self._guard.finished(), min(_LEAVING_SECONDS, grace / 2))
        await server.stop(max(0.0, until - asyncio.get_running_loop().time()))
        await self._text.sessions.aclose()
        await self._guard.finished()
        if self._server is not None:
            self._server = None
            for issuer in self._issuers:
                await issuer.keys.aclose()
            await self.router.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop(0)


class _Health(health_aio.HealthServicer):
    """Health, with its watchers among the handlers that a stopped gateway waits for: every balancing client has one."""

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self._guard = guard

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - the service's name for it
        """Streams a service's health."""
        self._guard.track()
        await super().Watch(request, context)


def _engine(backend: BackendSettings) -> TextEngine:
    from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine

    return EmbeddedEngine(pace=backend.pace)


def _principal(settings: Settings, client: ClientSettings) -> Principal:
    permissions = frozenset(permission for role in client.roles for permission in settings.roles[role])
    return Principal(client.id, client.tenant, permissions)


def _keys(settings: Settings) -> list[ClientKey]:
    return [
        ClientKey(_principal(settings, client), client.algorithm, client.key)
        for client in settings.clients
        if client.jwks is None
    ]


def _issuers(settings: Settings) -> list[Issuer]:
    clients: dict[JWKSSettings, list[ClientSettings]] = {}
    for client in settings.clients:
        if client.jwks is not None:
            clients.setdefault(client.jwks, []).append(client)
    return [
        Issuer(
            jwks.issuer,
            KeySet(jwks.url, jwks.algorithms, clients=[client.id for client in theirs]),
            {client.id: _principal(settings, client) for client in theirs},
        )
        for jwks, theirs in clients.items()
    ]


def _credentials(settings: Settings) -> grpc.ServerCredentials:
    if settings.tls is not None:
        return CertificateFiles(settings.tls).credentials()
    unix = settings.listen.startswith("unix")
    return grpc.local_server_credentials(grpc.LocalConnectionType.UDS if unix else grpc.LocalConnectionType.LOCAL_TCP)


def _add_reflection(server: grpc.aio.Server, services: list[str]) -> None:
    try:
        from grpc_reflection.v1alpha import reflection
    except ImportError:  # the extra `reflection` isn't installed
        return
    reflection.enable_server_reflection([*services, *EXEMPT], server)


async def run(gateway: Gateway) -> None:
    """Serves until SIGTERM or SIGINT, then drains, and after a second one stops at once.

    Says where it listens once it can be called.
    """
    stopped, hurried = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (hurried if stopped.is_set() else stopped).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await gateway.start()
    # What stands now stays; without this a full collection looks at the engine's tables and holds the loop for 10 ms.
    gc.collect()
    gc.freeze()
    print(f"listening on {gateway.address}", flush=True)  # noqa: T201 - the line that scripts wait for
    await stopped.wait()
    _log.info("draining for up to %g s; a second signal stops at once", gateway.settings.drain_seconds)
    drain, hurry = loop.create_task(gateway.stop()), loop.create_task(hurried.wait())
    await asyncio.wait((drain, hurry), return_when=asyncio.FIRST_COMPLETED)
    if not drain.done():
        _log.info("stopping at once")
        await gateway.stop(0)
    hurry.cancel()
    await drain
