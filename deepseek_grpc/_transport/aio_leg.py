"""One gateway's session over grpc.aio: a task that connects and reads, and a task that writes what is ready."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from deepseek_grpc._call import CallOptions
from deepseek_grpc._session.client import ClientSession, restated
from deepseek_grpc._session.recovery import Recovery, Verdict, second_try
from deepseek_grpc._transport.aio import Link, Wire
from deepseek_grpc._transport.aio_turn import Turn
from deepseek_grpc._transport.session_stub import TextServiceStub, session_log
from deepseek_grpc.config import Timeouts
from deepseek_grpc.errors import ClosedError, DeepSeekError, InternalError, ServiceUnavailableError

if TYPE_CHECKING:
    from deepseek_grpc._transport.aio_session import SessionDriver

__all__ = ["Leg"]

_WRITE_FAILED: Final = "Internal error from Core"
_CLOSING_SECONDS: Final = 1.0
"""How long closing waits for the gateway to hear of it."""


def _now(coroutine: Any) -> Any:
    """Returns the result of a coroutine that doesn't wait."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    return None


def _within(call: CallOptions, seconds: float) -> CallOptions:
    """Returns a call's options, to begin now and to be over in time."""
    timeouts = call.timeouts if seconds == float("inf") else Timeouts(total=seconds).over(call.timeouts)
    return CallOptions(call.request_id, call.metadata, timeouts, call.wait_for_ready)


class Leg:
    """One gateway's session, over one connection after the other."""

    def __init__(self, driver: SessionDriver, link: Link, call: CallOptions, *, patient: bool) -> None:
        self.machine: ClientSession[Turn] = ClientSession(max_message_bytes=link.config.max_message_bytes)
        self.resumes = 0
        self._driver = driver
        self._link = link
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._recovery = Recovery(link.config, patient=patient)
        self._token: str | None = None
        self._wire: Wire | None = None
        self._counts = link.config.connections > 1
        self._counted = 0
        self._rpc: Any = None
        self._status: grpc.aio.AioRpcError | None = None
        self._writable: asyncio.Future[None] | None = None
        self._task = self._loop.create_task(self._run())

    def turns(self) -> Sequence[Turn]:
        """Returns those that aren't over."""
        return self.machine.turns

    def cause(self) -> DeepSeekError:
        """Returns what ended the last connection."""
        return self._recovery.cause

    def start(self, turn: Turn, token: str | None) -> None:
        """Starts a turn here, with the token that is good now."""
        if token is not None and token != self._token and self._rpc is not None:
            self._renew(token)
        self.machine.start(turn)
        turn.leg, turn.resumes, turn.token = self, self.resumes, token
        self._count()
        self.wake()

    def _renew(self, token: str) -> None:
        self._token = token
        self.machine.renew(token)

    def _count(self) -> None:
        """Has the connection know how many turns it carries, where there are several to choose from."""
        if self._counts and self._wire is not None:
            turns = self.machine.active
            self._wire.turns += turns - self._counted
            self._counted = turns

    def wake(self) -> None:
        """Has what is ready written."""
        writable = self._writable
        if writable is not None:
            self._writable = None
            if not writable.done():
                writable.set_result(None)

    async def _run(self) -> None:
        """Connects, again and again, until the session is over."""
        machine, recovery = self.machine, self._recovery
        error: DeepSeekError | None = None
        try:
            while True:
                failure, broken = await self._connection()
                if machine.closing or (machine.going_away and machine.idle):
                    return
                if machine.session_id:
                    session_log().debug("session %s: connection lost: %s", machine.session_id, failure.details)
                renews = partial(self._renews, failure, self._token)
                if broken or (verdict := recovery.decide(failure, machine, self._loop.time(), renews)) is Verdict.FAIL:
                    error = failure
                    return
                if verdict is Verdict.MOVE:
                    session_log().debug("session %s: moved", machine.session_id)
                    return
                if recovery.pause:
                    await asyncio.sleep(recovery.pause * random.uniform(0.5, 1.0))
        except DeepSeekError as failed:  # there is no token to be had
            error = failed
        except asyncio.CancelledError:
            error = ClosedError("the session was closed", request_id=self._call.request_id)
            raise
        except BaseException as defect:
            error = InternalError(f"the session failed: {defect!r}", request_id=self._call.request_id)
            raise
        finally:
            self._driver.over(self, machine.lost(), error)

    async def _connection(self) -> tuple[DeepSeekError, bool]:
        """Runs over one connection; returns what it ended with, and whether the gateway has broken the rules."""
        link, machine, recovery = self._link, self.machine, self._recovery
        error: DeepSeekError = ServiceUnavailableError("the gateway closed the session", attempts=1)
        self._status = None
        left = recovery.left(self._loop.time())
        try:
            self._token = link.token()
            if self._token is None and link.source is not None and link.config.token_delivery == "metadata":
                self._token = await link.fetch(_within(self._call, left))
        except DeepSeekError as failure:
            return failure, False
        wire = self._wire = link.room().wire
        machine.connect()
        rpc = self._rpc = wire.method(TextServiceStub, "Session")(
            metadata=link.sent(self._call, self._token),
            wait_for_ready=recovery.waits or self._call.wait_for_ready,
        )
        wire.track(rpc)
        self._count()
        rpc.add_done_callback(self._settle)
        limit = None if left == float("inf") else self._loop.call_later(left, rpc.cancel)
        writer = self._loop.create_task(self._write(rpc))
        read, receive = rpc.read, machine.receive
        try:
            while (data := await read()) is not grpc.aio.EOF:
                if not machine.connected:
                    self._opened(data, limit)
                    continue
                changed = receive(data)
                if machine.going_away:
                    self._driver.move(self)
                for turn in changed:
                    if turn.error is None:
                        turn.wake()
                    else:
                        self._failed(turn, turn.error)
                self._count()
                if machine.going_away and machine.idle and not machine.closing:
                    machine.close()
                if machine.ready:
                    self.wake()
        except grpc.aio.AioRpcError as failure:
            cause = await self._cause(failure)
            if cause.code() is not grpc.StatusCode.OK:  # which a write that came too late makes a failure of
                error = link.error(cause, self._call.request_id)
        except asyncio.CancelledError:
            if self._task.cancelling():
                raise
            error = ServiceUnavailableError(
                f"no connection within {link.config.reconnect_seconds:g} s (reconnect_seconds)", attempts=1
            )
        except DeepSeekError as failure:
            return failure, True
        finally:
            if limit is not None:
                limit.cancel()
            writer.cancel()
            rpc.cancel()
            wire.turns -= self._counted
            self._counted, self._wire = 0, None
        return error, False

    def _renews(self, error: DeepSeekError, token: str | None) -> bool:
        """Says whether there is a better token; not where its source fails: what the gateway says is told then."""
        try:
            return self._link.renews(error, token)
        except Exception:  # noqa: BLE001 - a program's own source may raise anything
            return False

    def _failed(self, turn: Turn, error: DeepSeekError) -> None:
        """Has a turn that has failed started again where that mends it, and otherwise tells of it."""
        pause = second_try(turn, error, self.machine, self._link.config, lambda: self._renews(error, turn.token))
        if pause is None:
            turn.wake()
        elif pause:
            self._driver.retry(turn, pause)
        else:
            self._driver.restart(turn)

    def _opened(self, data: bytes, limit: asyncio.TimerHandle | None) -> None:
        """Takes the gateway's first message in."""
        machine = self.machine
        resumed = bool(machine.resume_token)
        machine.receive(data)
        if limit is not None:
            limit.cancel()
        self._recovery.connected(self._loop.time())
        if resumed:
            self.resumes += 1
            session_log().debug("session %s: resumed", machine.session_id)
        token = None
        with suppress(DeepSeekError):  # its source may be out for the same reason as the network was
            token = self._link.token()
        if token is not None and token != self._token:  # one that was renewed meanwhile
            self._renew(token)
        self.wake()  # what the gateway lacks may be sent now

    async def _write(self, rpc: Any) -> None:
        write, take = rpc.write, self.machine.take
        try:
            while True:
                data = take()
                if data is not None:
                    await write(data)
                    if self.machine.ready:
                        await asyncio.sleep(0)  # under load, what this turn of the event loop brings travels along
                elif self.machine.closing:
                    await rpc.done_writing()
                    return
                else:
                    self._writable = self._loop.create_future()
                    await self._writable
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the reader sees why

    def _settle(self, rpc: Any) -> None:
        """Keeps the status that the gateway ended the stream with.

        A write that fails because the stream has ended makes grpc.aio put INTERNAL in that status's place, for good or
        until it arrives. Its accessors are coroutines that don't wait once there is a status.
        """
        details = _now(rpc.details())
        if rpc is self._rpc and self._status is None and details != _WRITE_FAILED:
            self._status = grpc.aio.AioRpcError(
                _now(rpc.code()), grpc.aio.Metadata(), _now(rpc.trailing_metadata()), details
            )

    async def _cause(self, failure: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """Returns what really ended the stream."""
        for _ in range(100):
            if failure.details() != _WRITE_FAILED:
                break
            await asyncio.sleep(0.01)
            failure = self._status or failure
        return failure

    def cancel(self, turn: Turn) -> None:
        """Ends a turn at both ends."""
        self.machine.cancel(turn)
        self.wake()

    def taken(self, turn: Turn) -> None:
        """Gives credit for what the program has taken of a turn."""
        if self.machine.taken(turn):
            self.wake()

    def close(self, error: DeepSeekError) -> None:
        """Ends the turns, and tells the gateway that nothing more is wanted."""
        turns = self.machine.lost()
        self.machine.close()
        for turn in turns:
            turn.end(restated(error, turn.request_id))
        if self._rpc is not None and self.machine.reaches:
            self.wake()
        else:
            self._task.cancel()

    async def closed(self) -> None:
        """Waits until the gateway has heard of it, but not for long."""
        await asyncio.wait((self._task,), timeout=_CLOSING_SECONDS)
        self._task.cancel()
        await asyncio.wait((self._task,))
