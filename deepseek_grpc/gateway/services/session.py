"""The sessions of a gateway: who opens one, who finds his again, and how much they may keep."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator
from typing import Final
from weakref import WeakValueDictionary

from deepseek_grpc._call import new_request_id
from deepseek_grpc._codec.checks import invalid
from deepseek_grpc._session.frames import Budget, going_away
from deepseek_grpc._session.gateway import GatewaySession, GatewayTurn, read_open
from deepseek_grpc.errors import FailedPreconditionError
from deepseek_grpc.gateway.guard import Call
from deepseek_grpc.gateway.router import Router
from deepseek_grpc.gateway.services.hosted import HostedSession, HostedTurn

__all__ = ["Sessions"]

TENANT_BYTES: Final = 64 * 1024 * 1024
"""What all sessions of a tenant may keep of messages that weren't acknowledged."""
OPEN_SECONDS: Final = 10.0
"""How long a connection has to send its Open."""


class Sessions:
    """The sessions of this gateway."""

    def __init__(self, router: Router, resume_seconds: float) -> None:
        self._router = router
        self._resume_seconds = resume_seconds
        self._gateway_id = secrets.token_hex(8)
        self._sessions: dict[str, HostedSession] = {}
        self._budgets: WeakValueDictionary[str, Budget] = WeakValueDictionary()
        self._ending: set[asyncio.Task[None]] = set()
        self._grace: float | None = None

    async def serve(self, requests: AsyncIterator[bytes], call: Call) -> None:
        """Runs a session over one connection, until that is over.

        Raises:
            InvalidRequestError: The client broke the protocol.
            FailedPreconditionError: The session that it wants to resume isn't here.
            ServiceUnavailableError: The gateway is about to go.
        """
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                first = await anext(requests, b"")
        except TimeoutError:
            raise invalid("frames", f"didn't come within {OPEN_SECONDS:g} s; a session begins with open") from None
        message = read_open(first)
        opening = message.frames[0].open
        if opening.resume_token:
            session = self._find(opening.resume_token, call)
        elif self._grace is not None:
            raise going_away(call.request_id)
        else:
            session = self._new(call, resumable=opening.resumable)
        await session.serve(message, requests, call)

    def _new(self, call: Call, *, resumable: bool) -> HostedSession:
        session_id = new_request_id()
        resumable = resumable and self._resume_seconds > 0
        token = f"{self._gateway_id}.{session_id}.{secrets.token_urlsafe(16)}" if resumable else ""
        tenant = call.principal.tenant
        budget = self._budgets.get(tenant)
        if budget is None:
            budget = self._budgets[tenant] = Budget(TENANT_BYTES)
        machine = GatewaySession(
            session_id, resume_token=token, resume_seconds=self._resume_seconds, budget=budget, turn=HostedTurn
        )
        session = HostedSession(self, self._router, machine, budget, call)
        self._sessions[session_id] = session
        return session

    def _find(self, token: str, call: Call) -> HostedSession:
        gateway_id, _, rest = token.partition(".")
        if gateway_id != self._gateway_id:
            raise FailedPreconditionError("another gateway may have this session", reason="SESSION_ELSEWHERE")
        session = self._sessions.get(rest.partition(".")[0])
        # A token alone is no credential; whose it is, nobody else learns.
        if (
            session is None
            or not hmac.compare_digest(session.machine.resume_token.encode(), token.encode())
            or session.call.principal != call.principal
        ):
            raise FailedPreconditionError("there is no such session (any more)", reason="SESSION_GONE")
        return session

    def forget(self, session: HostedSession) -> None:
        """Takes note that a session is over."""
        self._sessions.pop(session.machine.session_id, None)

    def relieve(self, budget: Budget) -> bool:
        """Ends the session that has waited longest for its client, of a tenant that keeps too much; says if any."""
        lost = [s for s in self._sessions.values() if s.budget is budget and s.lost_at is not None]
        if lost:
            min(lost, key=lambda session: session.lost_at or 0.0).end()
        return bool(lost)

    def go_away(self, grace: float) -> None:
        """Asks all clients to move; `grace` is in seconds."""
        self._grace = grace
        for session in tuple(self._sessions.values()):
            session.go_away(grace)

    async def aclose(self) -> None:
        """Ends all sessions, those without a connection too."""
        for session in tuple(self._sessions.values()):
            session.end()
        while self._ending:
            await asyncio.wait(self._ending)

    def cancel(self, turn: GatewayTurn) -> None:
        """Stops the work on a turn."""
        if isinstance(turn, HostedTurn) and turn.task is not None and not turn.task.done():
            turn.task.cancel()
            self._ending.add(turn.task)
            turn.task.add_done_callback(self._ending.discard)

    def __len__(self) -> int:
        return len(self._sessions)
