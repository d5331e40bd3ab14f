"""Runs one session: a task that reads, a task for each turn, and the connection's handler, which writes.

A session outlives its connection: its turns go on within their credit, and the client that comes back in time gets what
it lacks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc.aio

from deepseek_grpc._codec.checks import check_complete, check_generate
from deepseek_grpc._codec.fim import decode_complete
from deepseek_grpc._codec.request import decode_generate
from deepseek_grpc._session.frames import HIGH_WATER, Budget
from deepseek_grpc._session.gateway import CancelledTurn, ClosedSession, GatewaySession, GatewayTurn, RenewedToken
from deepseek_grpc._session.history import answer_of, conversation
from deepseek_grpc.errors import (
    CancelledByPeerError,
    DeadlineExceededError,
    DeepSeekError,
    FailedPreconditionError,
    RateLimitError,
    ServiceUnavailableError,
    StreamInterruptedError,
)
from deepseek_grpc.gateway.guard import Call, interruption, translate
from deepseek_grpc.gateway.router import Router
from deepseek_grpc.gateway.services.collecting import collect
from deepseek_grpc.types import Event, Message, Upstream
from deepseek_rpc.v2 import text_pb2 as pb

if TYPE_CHECKING:
    from deepseek_grpc.gateway.services.session import Sessions

__all__ = ["HostedSession", "HostedTurn"]


class HostedTurn(GatewayTurn):
    """A turn and the task that works on it."""

    __slots__ = ("arrived", "begun", "task", "timer", "waiter")

    def __init__(self, start: pb.StartFrame) -> None:
        super().__init__(start)
        self.arrived = time.perf_counter()
        self.begun = False
        """Whether any of its answer has gone out."""
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.waiter: asyncio.Future[None] | None = None

    def resume(self) -> None:
        """Lets the engine go on."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def upstream(self, backend: str) -> Upstream:
        """Says where its answer comes from, and how long that has taken until now."""
        return Upstream(backend, gateway_ms=(time.perf_counter() - self.arrived) * 1000)


class HostedSession:
    """One session, with a connection or waiting for its client to come back."""

    def __init__(self, sessions: Sessions, router: Router, machine: GatewaySession, budget: Budget, call: Call) -> None:
        self.machine = machine
        self.budget = budget
        self.call = call
        """The connection's, of which the last one counts."""
        self.lost_at: float | None = None
        """When its connection was lost, in the event loop's seconds; None while it has one."""
        self._sessions = sessions
        self._router = router
        self._loop = asyncio.get_running_loop()
        self._connection: object = None
        self._writable: asyncio.Future[None] | None = None
        self._drained: asyncio.Event | None = None
        self._over = False
        self._half_closed = False
        self._leaving = False
        self._failure: DeepSeekError | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def serve(self, message: pb.SessionRequest, requests: AsyncIterator[bytes], call: Call) -> None:
        """Runs over one connection, until that is over or taken over by another; raises DeepSeekErrors."""
        self.machine.connect(message)
        me = self._connection = object()
        self.call, self.lost_at = call, None
        self._half_closed = False
        if self._expiry is not None:
            self._expiry.cancel()
        self._wake()  # whoever ran it before sees that it is out
        reader = self._loop.create_task(self._read(message.frames[1:], requests, me))
        try:
            await self._write(me)
        finally:
            reader.cancel()
            if self._connection is me:
                self._lose()

    async def _write(self, me: object) -> None:
        machine = self.machine
        write, take, queued = self.call.context.write, machine.take, lambda: machine.queued_bytes
        while self._connection is me and not self._over:
            data = take()
            if data is not None:
                try:
                    await write(data)
                except grpc.aio.InternalError as error:  # there is no call any more, and this is about to be cancelled
                    raise CancelledByPeerError("the connection is lost") from error
                self._relax()
                if self.machine.ready:
                    await collect(queued)
            elif self._failure is not None:
                raise self._failure
            elif (self._half_closed or self._leaving) and self.machine.idle:
                return
            else:
                if self.budget.spent and self._sessions.relieve(self.budget):
                    continue
                self._writable = self._loop.create_future()
                await self._writable
        if self._connection is not me:
            raise StreamInterruptedError("the session was taken up by another connection", reason="SESSION_TAKEN")

    def _lose(self) -> None:
        """Takes note that there is no connection any more: for some time the client may come back."""
        self._connection = None
        if self._over or self._failure is not None or not self.machine.resume_token:
            self.end()
            return
        self.lost_at = self._loop.time()
        self._expiry = self._loop.call_later(self.machine.resume_seconds, self.end)

    def end(self) -> None:
        """Ends the session and all its turns."""
        self._over = True
        if self._expiry is not None:
            self._expiry.cancel()
        for turn in self.machine.turns:
            self._sessions.cancel(turn)
        self.machine.clear()
        self._sessions.forget(self)
        self._wake()

    def go_away(self, grace: float) -> None:
        """Asks the client to move; `grace` is in seconds."""
        self._leaving = True  # when its turns are over the session ends; an idle one shall not hold the drain up
        self.machine.go_away(round(grace * 1000))
        self._wake()

    def _wake(self) -> None:
        writable = self._writable
        if writable is not None:
            self._writable = None
            if not writable.done():
                writable.set_result(None)

    async def _read(self, first: Sequence[pb.ClientFrame], requests: AsyncIterator[bytes], me: object) -> None:
        failure: DeepSeekError | None = None
        try:
            await self._obey(self.machine.obey(first))
            async for data in requests:
                if self._connection is not me:
                    return
                await self._obey(self.machine.receive(data))
                if self._over:
                    return
                self._relax()
                if self.machine.ready:
                    self._wake()
        except Exception as error:  # noqa: BLE001 - the handler raises it, and the guard makes a status of it
            failure = translate(error, self.call.request_id)
        if self._connection is me:
            self._failure = failure
            self._half_closed = True
            self._wake()

    async def _obey(self, wanted: Iterable[GatewayTurn | CancelledTurn | RenewedToken | ClosedSession]) -> None:
        for one in wanted:
            match one:
                case HostedTurn():
                    one.task = self._loop.create_task(self._run(one))
                case CancelledTurn(turn, error):
                    self._stop(turn, error or CancelledByPeerError("the turn was cancelled"))
                case RenewedToken(token):
                    self._renewal = self._loop.create_task(self._renew(token, self.call, self._renewal))
                case ClosedSession():
                    self.end()
                    return

    async def _renew(self, token: str, call: Call, before: asyncio.Task[None] | None) -> None:
        """Takes the next credential, which may need its issuer's keys; meanwhile the connection may be lost."""
        if before is not None:
            await before
        try:
            await call.renew(token)
        except ServiceUnavailableError:  # its issuer's keys can't be had now: the old one counts as long as it is good
            return
        except Exception as error:  # noqa: BLE001 - the handler raises it, and the guard makes a status of it
            if call is self.call:
                self._failure = translate(error, call.request_id)
                self._wake()

    async def _run(self, turn: HostedTurn) -> None:
        start = turn.start
        if start.deadline_ms:
            turn.timer = self._loop.call_later(start.deadline_ms / 1000, self._expire, turn)
        try:
            if self._renewal is not None and not self._renewal.done():
                await asyncio.wait((self._renewal,))
            if start.HasField("request"):
                await self._generate(turn, start.request)
            else:
                await self._complete(turn, start.completion)
        except Exception as error:  # noqa: BLE001 - as in the guard
            work = start.request if start.HasField("request") else start.completion
            failure = translate(error, work.request_id or self.call.request_id)
            if turn.begun and isinstance(failure, ServiceUnavailableError | RateLimitError):
                failure = interruption(failure)
            self.machine.fail(turn, failure)
        finally:
            if turn.timer is not None:
                turn.timer.cancel()
            self._wake()

    async def _generate(self, turn: HostedTurn, request: pb.GenerateRequest) -> None:
        self.call.authorise("text.generate")
        check_generate(request)
        engine, model = self._router.resolve(request.model)
        decoded, size = decode_generate(request, model), request.ByteSize()
        if turn.start.parent_turn_id:
            before = self.machine.history.get(turn.start.parent_turn_id)
            if before is None:
                raise FailedPreconditionError(
                    f"the conversation up to turn {turn.start.parent_turn_id} isn't kept any more; send it whole",
                    reason="PARENT_GONE",
                )
            decoded = replace(decoded, messages=before[0] + decoded.messages)
            size += before[1]
        if turn.start.stream:
            answer = answer_of(await self._send(turn, engine.stream(decoded), engine.name))
            self.machine.done(turn, None, Upstream())
        else:
            completion = await engine.generate(decoded)
            await self._patience(turn)
            self.machine.done(turn, completion, turn.upstream(engine.name))
            answer = completion.message
        self.machine.history.put(turn.turn_id, conversation(decoded.messages, answer), size + _size(answer))

    async def _complete(self, turn: HostedTurn, request: pb.CompleteFimRequest) -> None:
        self.call.authorise("text.complete")
        check_complete(request)
        engine, model = self._router.resolve(request.model)
        decoded = decode_complete(request, model)
        if turn.start.stream:
            await self._send(turn, engine.stream_complete(decoded), engine.name)
            self.machine.done(turn, None, Upstream())
        else:
            completion = await engine.complete(decoded)
            await self._patience(turn)
            self.machine.done(turn, completion, turn.upstream(engine.name))

    async def _send(
        self, turn: HostedTurn, batches: AsyncGenerator[Sequence[Event], None], backend: str
    ) -> list[Event]:
        """Queues an engine's batches as fast as the client takes them; returns all that it said."""
        machine, said = self.machine, list[Event]()
        upstream: Upstream | None = None
        async with aclosing(batches):
            async for events in batches:
                if upstream is None:
                    upstream = turn.upstream(backend)
                    turn.begun = True
                machine.chunks(turn, events, upstream)
                said += events
                self._wake()
                if turn.held or machine.waiting_bytes >= HIGH_WATER:
                    await self._patience(turn)
        return said

    async def _patience(self, turn: HostedTurn) -> None:
        """Waits until the client has given the turn credit, and taken what the session has for it."""
        while turn.held:
            turn.waiter = self._loop.create_future()
            await turn.waiter
        while self.machine.waiting_bytes >= HIGH_WATER:
            self._drained = self._drained or asyncio.Event()
            await self._drained.wait()

    def _relax(self) -> None:
        """Lets the engines go on that wait for the client to take what there is."""
        if self._drained is not None and self.machine.waiting_bytes < HIGH_WATER:
            self._drained.set()
            self._drained = None

    def _expire(self, turn: HostedTurn) -> None:
        self._stop(turn, DeadlineExceededError("the turn's deadline passed"))

    def _stop(self, turn: GatewayTurn, error: DeepSeekError) -> None:
        # The end is queued here and not by the task, which may not even have begun; what it still says goes nowhere.
        self.machine.fail(turn, error)  # without a request id: the client knows the turn's
        self._sessions.cancel(turn)
        self._wake()


def _size(message: Message) -> int:
    text = message.content if isinstance(message.content, str) else ""
    calls = sum(len(call.arguments) for call in message.tool_calls)
    return len(text.encode()) + len((message.reasoning_content or "").encode()) + calls
