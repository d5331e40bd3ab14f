"""One gateway's session over grpc's threads: one thread connects and reads; gRPC's own one writes what is ready."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc

from deepseek_grpc._call import CallOptions
from deepseek_grpc._session.client import ClientSession
from deepseek_grpc._session.recovery import Recovery, Verdict, second_try
from deepseek_grpc._transport.session_stub import TextServiceStub, session_log
from deepseek_grpc._transport.sync import Link, Wire
from deepseek_grpc._transport.timers import Timer, timers
from deepseek_grpc.config import Timeouts
from deepseek_grpc.errors import ClosedError, DeepSeekError, InternalError, ServiceUnavailableError

if TYPE_CHECKING:
    from deepseek_grpc._transport.sync_session import SessionDriver, Turn

__all__ = ["Leg"]

_MOMENT_SECONDS: Final = 0.001
"""How long frames may wait for others while enough is under way."""


class Leg:
    """One gateway's session, over one connection after the other."""

    def __init__(self, driver: SessionDriver, link: Link, call: CallOptions, *, patient: bool) -> None:
        self.machine: ClientSession[Turn] = ClientSession(max_message_bytes=link.config.max_message_bytes)
        self.resumes = 0
        self._driver = driver
        self._lock = driver.lock
        self._link = link
        self._call = call
        self._recovery = Recovery(link.config, patient=patient)
        self._observed = bool(link.config.observers)
        self._counts = link.config.connections > 1
        self._counted = 0
        self._token: str | None = None
        self._wire: Wire | None = None
        self._rpc: Any = None
        self._gate: threading.Lock | None = None  # the connection's, where its writer waits
        self._waits = False  # for anything to write
        self._holds = False  # for an acknowledgement, with something to write
        self._ready: bytes | None = None  # the next message, where it has been taken already
        self._last = 0  # the latest message's bytes
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deepseek-grpc-session", daemon=True)

    def begin(self) -> None:
        """Starts to connect."""
        self._thread.start()

    def cause(self) -> DeepSeekError:
        """Returns what ended the last connection."""
        return self._recovery.cause

    # The following are called with the driver's lock held. Where they return a gate, it is to be released without it.

    def start(self, turn: Turn, token: str | None) -> threading.Lock | None:
        """Starts a turn here, with the token that is good now."""
        if token is not None and token != self._token and self._rpc is not None:
            self._renew(token)
        self.machine.start(turn)
        turn.leg, turn.resumes, turn.token = self, self.resumes, token
        self.count()
        return self.writer()

    def _renew(self, token: str) -> None:
        self._token = token
        self.machine.renew(token)

    def count(self) -> None:
        """Has the connection know how many turns it carries, where there are several to choose from."""
        if self._counts and self._wire is not None:
            turns = self.machine.active
            self._wire.turns += turns - self._counted
            self._counted = turns

    def writer(self) -> threading.Lock | None:
        """Returns the writer's gate, if it waits there, to have it write what is ready."""
        if not self._waits:
            return None
        self._waits = False
        return self._gate

    def close(self) -> Sequence[Turn]:
        """Tells the gateway that nothing more is wanted; returns the turns that weren't over."""
        turns = self.machine.lost()
        if not self.machine.closing:
            self.machine.close()
        self._closing.set()
        if not self.machine.reaches and self._rpc is not None:
            self._rpc.cancel()
        if (gate := self.writer()) is not None:
            gate.release()
        return turns

    # These aren't.

    def join(self, seconds: float) -> None:
        """Waits until the gateway has heard of the end, but not for long."""
        if threading.current_thread() is self._thread:  # an observer's doing; it ends by itself
            return
        self._thread.join(seconds)
        if self._thread.is_alive() and self._rpc is not None:
            self._rpc.cancel()

    def _run(self) -> None:
        error: DeepSeekError | None = InternalError("the session's thread has failed", request_id=self._call.request_id)
        try:
            error = self._connections()
        except DeepSeekError as failed:  # there is no token to be had, or the client was closed
            error = failed
        finally:
            self._driver.over(self, error)

    def _connections(self) -> DeepSeekError | None:
        """Connects, again and again; returns what the session has failed of, or None when it is over or gone."""
        link, machine, recovery = self._link, self.machine, self._recovery
        while not machine.closing:
            failure, broken = self._connection()
            if machine.closing or (machine.going_away and machine.idle):
                break
            if machine.session_id:
                session_log().debug("session %s: connection lost: %s", machine.session_id, failure.details)
            if broken or link.closed:
                return failure
            verdict = recovery.decide(failure, machine, time.monotonic(), partial(self._renews, failure, self._token))
            if verdict is Verdict.FAIL:
                return failure
            if verdict is Verdict.MOVE:
                session_log().debug("session %s: moved", machine.session_id)
                break
            self._closing.wait(recovery.pause * random.uniform(0.5, 1.0))
        return None

    def _connection(self) -> tuple[DeepSeekError, bool]:
        """Runs over one connection; returns what it ended with, and whether the gateway has broken the rules."""
        link, machine, recovery, call = self._link, self.machine, self._recovery, self._call
        error: DeepSeekError = ServiceUnavailableError("the gateway closed the session", attempts=1)
        left = recovery.left(time.monotonic())
        try:
            token = link.token()
            if token is None and link.config.token_delivery == "metadata":
                timeouts = call.timeouts if left == float("inf") else Timeouts(total=left).over(call.timeouts)
                token = link.fetch(CallOptions(call.request_id, call.metadata, timeouts, call.wait_for_ready))
        except DeepSeekError as failure:
            return failure, False
        wire = link.wire()
        gate = threading.Lock()
        gate.acquire()
        limit: Timer | None = None
        try:
            with self._lock:
                if machine.closing:
                    return error, False
                machine.connect()
                self._token, self._wire, self._gate = token, wire, gate
                self.count()
                self._rpc = wire.method(TextServiceStub, "Session")(
                    self._messages(gate),
                    metadata=link.sent(call, token),
                    wait_for_ready=recovery.waits or call.wait_for_ready,
                )
            if left < float("inf"):
                limit = timers.at(time.monotonic() + left, self._rpc.cancel)
            for data in self._rpc:
                self._received(data, limit)
        except grpc.RpcError as failure:
            error = link.error(failure, call.request_id)
            if limit is not None and limit.callback is None and not machine.connected and not link.closed:
                error = ServiceUnavailableError(
                    f"no connection within {link.config.reconnect_seconds:g} s (reconnect_seconds)", attempts=1
                )
        except ValueError:  # what a closed channel raises
            if not link.closed:
                raise
            error = ClosedError("the client is closed", request_id=call.request_id)
        except DeepSeekError as failure:
            return failure, True
        finally:
            self._disconnect(limit)
            wire.leave()
        return error, False

    def _disconnect(self, limit: Timer | None) -> None:
        """Ends a connection, and its writer."""
        if limit is not None:
            timers.cancel(limit)
        with self._lock:
            if self._wire is not None:
                self._wire.turns -= self._counted
            self._counted = 0
            gate = self._gate if self._waits or self._holds else None
            self._waits = self._holds = False
            self._wire = self._gate = self._ready = None
        if gate is not None:
            gate.release()
        if self._rpc is not None:
            self._rpc.cancel()

    def _received(self, data: bytes, limit: Timer | None) -> None:
        """Takes a message in."""
        machine = self.machine
        if not machine.connected:
            self._opened(data, limit)
            return
        with self._lock:
            changed = machine.receive(data)
            if self._observed:
                for turn in changed:
                    turn.note()
            if self._counts:
                self.count()
            gate = None
            if self._holds and not self._crowded():
                self._holds = False
                gate = self._gate
            if machine.going_away:
                self._driver.move(self)
                if machine.idle and not machine.closing:
                    machine.close()
                    gate = self.writer() or gate
            if self._waits:  # it is only woken if there is something for it
                self._ready = machine.take()
                if self._ready is not None:
                    gate = self.writer() or gate
        for turn in changed:
            if turn.error is None:
                turn.wake()
            else:
                self._failed(turn, turn.error)
        if gate is not None:
            gate.release()

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

    def _opened(self, data: bytes, limit: Timer | None) -> None:
        """Takes the gateway's first message in."""
        machine, token = self.machine, None
        with suppress(DeepSeekError):  # its source may be out for the same reason as the network was
            token = self._link.token()
        with self._lock:
            resumed = bool(machine.resume_token)
            machine.receive(data)
            if resumed:
                self.resumes += 1
            if token is not None and token != self._token:  # one that was renewed meanwhile
                self._renew(token)
            gate = self.writer()
        if limit is not None:
            timers.cancel(limit)
        self._recovery.connected(time.monotonic())
        if gate is not None:
            gate.release()
        if resumed:
            session_log().debug("session %s: resumed", machine.session_id)

    def _messages(self, gate: threading.Lock) -> Iterator[bytes]:
        """Yields what is ready; gRPC asks for the next message when the last one is written."""
        machine, lock = self.machine, self._lock
        while True:
            with lock:
                if self._gate is not gate:  # the connection is over
                    return
                data, self._ready = self._ready, None
                if data is None:
                    data = machine.take()
                    if data is None:
                        if machine.closing:
                            return
                        self._waits = True
            if data is not None:
                self._last = len(data)
                yield data
            else:
                gate.acquire()
                self._hold(gate)

    def _crowded(self) -> bool:
        """Says whether the gateway hasn't acknowledged more than the latest message."""
        return self.machine.unacked_bytes > self._last

    def _hold(self, gate: threading.Lock) -> None:
        """Has what is ready wait a moment while enough is under way, so that more goes along.

        Without this (Nagle's algorithm) small messages stay small, however many there are: each answer sets the threads
        free that make the next one. With 64 threads it halves the work.
        """
        with self._lock:
            self._holds = self._gate is gate and self._crowded()
            if not self._holds:
                return
        if not gate.acquire(timeout=_MOMENT_SECONDS):
            with self._lock:
                held, self._holds = self._holds, False
            if not held:  # somebody has just released it
                gate.acquire()
