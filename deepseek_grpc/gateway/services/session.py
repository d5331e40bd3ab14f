"""Runs one session: a task reads, a task for each turn lets its engine work, and the handler writes what is ready."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

from deepseek_grpc._call import new_request_id
from deepseek_grpc._codec.checks import check_generate
from deepseek_grpc._codec.request import decode_generate
from deepseek_grpc._session.gateway import CancelledTurn, GatewaySession, RenewedToken, StartedTurn
from deepseek_grpc.errors import (
    CancelledByPeerError,
    DeadlineExceededError,
    DeepSeekError,
    RateLimitError,
    ServiceUnavailableError,
)
from deepseek_grpc.gateway.guard import Call, interruption, translate
from deepseek_grpc.gateway.router import Router
from deepseek_grpc.types import Upstream
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["SessionRunner"]

HIGH_WATER = 1024 * 1024
"""Bytes that may wait for a slow client before its engines have to."""
TURN_PERMISSION = "text.generate"


class SessionRunner:
    """One open session."""

    def __init__(self, router: Router, call: Call) -> None:
        self._router = router
        self._call = call
        self._machine = GatewaySession(new_request_id())
        self._turns: dict[int, asyncio.Task[None]] = {}
        self._loop = asyncio.get_running_loop()
        self._writable: asyncio.Future[None] | None = None
        self._drained = asyncio.Event()
        self._drained.set()
        self._half_closed = False
        self._leaving = False
        self._failure: DeepSeekError | None = None

    async def run(self, requests: AsyncIterator[pb.SessionRequest]) -> None:
        """Runs until the client has closed its side, or `go_away`, and every turn is over.

        Raises:
            InvalidRequestError: The client broke the protocol.
        """
        reader = self._loop.create_task(self._read(requests))
        write, take = self._call.context.write, self._machine.take
        try:
            while True:
                batch = take()
                if batch is not None:
                    await write(batch)
                    if self._machine.queued_bytes < HIGH_WATER:
                        self._drained.set()
                elif self._failure is not None:
                    raise self._failure
                elif (self._half_closed or self._leaving) and not self._turns:
                    return
                else:
                    self._writable = self._loop.create_future()
                    await self._writable
        finally:
            tasks = [reader, *self._turns.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def go_away(self, grace: float) -> None:
        """Asks the client to move; `grace` is in seconds."""
        self._leaving = True  # when its turns are over the session ends; an idle one shall not hold the drain up
        self._machine.go_away(round(grace * 1000))
        self._wake()

    def _wake(self) -> None:
        writable = self._writable
        if writable is not None:
            self._writable = None
            if not writable.done():
                writable.set_result(None)

    async def _read(self, requests: AsyncIterator[pb.SessionRequest]) -> None:
        try:
            async for message in requests:
                for wanted in self._machine.receive(message):
                    match wanted:
                        case StartedTurn():
                            self._turns[wanted.turn_id] = self._loop.create_task(self._turn(wanted))
                        case CancelledTurn():
                            self._stop(wanted.turn_id, CancelledByPeerError("the turn was cancelled"))
                        case RenewedToken():
                            await self._call.renew(wanted.token)
                self._wake()
        except Exception as error:  # noqa: BLE001 - the handler raises it, and the guard makes a status of it
            self._failure = translate(error, self._call.request_id)
        self._half_closed = True
        self._wake()

    async def _turn(self, start: StartedTurn) -> None:
        turn_id, request = start.turn_id, start.request
        machine = self._machine
        began = time.perf_counter()
        upstream: Upstream | None = None
        timer = None if start.deadline is None else self._loop.call_later(start.deadline, self._expire, turn_id)
        try:
            self._call.authorise(TURN_PERMISSION)
            check_generate(request)
            engine, decoded = self._router.route(decode_generate(request))
            if start.stream:
                async with aclosing(engine.stream(decoded)) as batches:
                    async for events in batches:
                        if upstream is None:
                            upstream = Upstream(engine.name, gateway_ms=(time.perf_counter() - began) * 1000)
                        machine.chunks(turn_id, events, upstream)
                        self._wake()
                        if machine.queued_bytes >= HIGH_WATER:
                            self._drained.clear()
                            await self._drained.wait()
                machine.done(turn_id, None, Upstream())
            else:
                completion = await engine.generate(decoded)
                machine.done(
                    turn_id, completion, Upstream(engine.name, gateway_ms=(time.perf_counter() - began) * 1000)
                )
        except Exception as error:  # noqa: BLE001 - as in the guard
            failure = translate(error, request.request_id or self._call.request_id)
            if upstream is not None and isinstance(failure, ServiceUnavailableError | RateLimitError):
                failure = interruption(failure)
            machine.fail(turn_id, failure)
        finally:
            if timer is not None:
                timer.cancel()
            self._turns.pop(turn_id, None)
            self._wake()

    def _expire(self, turn_id: int) -> None:
        self._stop(turn_id, DeadlineExceededError("the turn's deadline passed"))

    def _stop(self, turn_id: int, error: DeepSeekError) -> None:
        # The end is queued here and not by the task, which may not even have begun; what it still says goes nowhere.
        if task := self._turns.pop(turn_id, None):
            task.cancel()
            self._machine.fail(turn_id, error)  # without a request id: the client knows the turn's
            self._wake()
