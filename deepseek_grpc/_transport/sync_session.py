"""Sessions over grpc's threads: what the program sees of them, and their turns.

A driver's lock guards its sessions' state. What a program may have put in (token sources, observers) is called outside
of it, and threads are woken outside of it where that is possible: they would only wait for it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from deepseek_grpc import _forks
from deepseek_grpc._call import CallOptions, ContentWatch
from deepseek_grpc._session.client import DEADLINE_GRACE, ClientTurn, Parent, Work, restated
from deepseek_grpc._session.recovery import may_restart
from deepseek_grpc._transport.session_stub import TextServiceStub
from deepseek_grpc._transport.sync import Link
from deepseek_grpc._transport.sync_leg import Leg
from deepseek_grpc._transport.timers import timers
from deepseek_grpc.errors import CancelledByPeerError, ClosedError, DeadlineExceededError, DeepSeekError, InternalError

if TYPE_CHECKING:
    from deepseek_grpc._codec.observe import Observation
    from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["SessionDriver", "Turn", "open_session"]

_CLOSING_SECONDS: Final = 1.0
"""How long closing waits for the gateway to hear of it."""
_LONGEST_WAIT: Final = 3600.0
"""Seconds after which a turn that has no limit looks again; locks can't wait for any length of time."""


def open_session(link: Link, call: CallOptions) -> SessionDriver:
    """Opens a session; raises AuthenticationError when there is no token."""
    return SessionDriver(link, call)


class SessionDriver:
    """A session as the program sees it: it moves from one gateway's session to another's as need be."""

    def __init__(self, link: Link, call: CallOptions) -> None:
        self.lock = threading.RLock()  # a signal's handler may interrupt a turn, whatever its thread is at
        self._link = link
        self._call = call
        self._legs: list[Leg] = []
        self._paused: set[Turn] = set()  # those that wait to be tried again
        self._closed: ClosedError | None = None
        _forks.check()
        if link.closed:
            raise ClosedError("the client is closed", request_id=call.request_id)
        link.token()  # a source that can't have one says so here
        self._leg: Leg | None = None
        self._moved = False  # so that there was a gateway, and another one may take its time
        self._close_by = 0.0
        link.sessions.append(self)
        with self.lock:  # a leg that is over at once waits for this
            self._leg = self._open()

    @property
    def session_id(self) -> str:
        """The gateway's id of the session that new turns go to; empty until it has answered."""
        leg = self._leg
        return "" if leg is None else leg.machine.session_id

    def _open(self) -> Leg:
        leg = Leg(self, self._link, self._call, patient=self._moved)
        self._moved = False
        leg.begin()
        self._legs.append(leg)
        return leg

    def start(self, request: Work, call: CallOptions, *, stream: bool, parent: Parent | None = None) -> Turn:
        """Starts a turn; raises ClosedError after `close`, and what says that this one can't begin."""
        turn = Turn(self, request, call, stream=stream, parent=parent)
        turn.observation = self._link.observe(TextServiceStub, "Session", request, call)
        try:
            self.place(turn)
        except BaseException as error:
            if turn.observation is not None:
                turn.observation.end(error)
            raise
        return turn

    def place(self, turn: Turn) -> None:
        """Starts a turn in the session that new turns go to; raises what says that it can't begin."""
        turn.call.left()  # raises when there is no time
        token = self._link.fetch(turn.call)
        with self.lock:
            self._paused.discard(turn)
            if self._closed is not None:
                raise restated(self._closed, turn.request_id)
            if turn.stopped:  # meanwhile, by the program
                return
            turn.ended, turn.error = False, None
            leg = self._leg
            if leg is None:
                if self._link.closed:
                    raise ClosedError("the client is closed", request_id=turn.request_id)
                leg = self._leg = self._open()
            gate = leg.start(turn, token)
        if gate is not None:
            gate.release()

    def move(self, leg: Leg) -> None:
        """Has new turns go elsewhere, because a leg's gateway has asked for it or has lost the session."""
        with self.lock:
            if leg is self._leg:
                self._leg = None
                self._moved = True

    def over(self, leg: Leg, error: DeepSeekError | None) -> None:
        """Takes note that a leg is over; without an error, its turns are started anew elsewhere where that is safe."""
        with self.lock:
            turns = leg.machine.lost()
            self._legs.remove(leg)
            if error is None:
                self.move(leg)
            elif leg is self._leg:
                self._leg = None
        for turn in turns:
            if turn.seen or error is not None or not may_restart(turn, self._link.config):
                turn.end(restated(error or leg.cause(), turn.request_id, cut=turn.seen))
            else:
                self.restart(turn)

    def restart(self, turn: Turn) -> None:
        """Starts a turn again that nothing came of."""
        try:
            waits = self._link.token() is None and self._link.source is not None
        except DeepSeekError:
            waits = False
        if not waits:
            self._restart(turn)
        elif self._pause(turn):  # whoever calls has other things to do than to wait for a token
            threading.Thread(target=self._restart, args=(turn,), name="deepseek-grpc-restart", daemon=True).start()

    def _restart(self, turn: Turn) -> None:
        try:
            self.place(turn)
        except DeepSeekError as error:
            self._give_up(turn, error)
        except Exception as defect:
            self._give_up(turn, InternalError(f"it couldn't be started again: {defect!r}", request_id=turn.request_id))
            raise

    def _give_up(self, turn: Turn, error: DeepSeekError) -> None:
        with self.lock:
            self._paused.discard(turn)
            if turn.over:  # the session was closed meanwhile
                return
            turn.ended = False
        turn.end(error)

    def _pause(self, turn: Turn) -> bool:
        """Keeps a turn that is to be started again; not one that was ended from here, or whose session is closed."""
        with self.lock:
            if turn.stopped:
                return False
            turn.ended, turn.error = False, None
            closed = self._closed
            if closed is None:
                self._paused.add(turn)
                return True
        turn.end(restated(closed, turn.request_id))
        return False

    def retry(self, turn: Turn, pause: float) -> None:
        """Starts a turn again that nothing came of, after so many seconds, more or less."""
        if self._pause(turn):
            timers.at(time.monotonic() + pause * random.uniform(0.8, 1.2), partial(self._retry, turn))

    def _retry(self, turn: Turn) -> None:
        with self.lock:
            if turn not in self._paused:
                return
            self._paused.discard(turn)
        if not turn.stopped:
            self.restart(turn)

    def close(self) -> None:
        """Closes the session; turns that are not over end in ClosedError."""
        self.shut()
        self.join()

    def shut(self) -> None:
        """Ends its turns, and begins to tell the gateway."""
        with self.lock:
            if self._closed is None:
                self._closed = ClosedError("the session was closed", request_id=self._call.request_id)
                self._close_by = time.monotonic() + _CLOSING_SECONDS
            self._leg = None
            lost = [*self._paused, *(turn for leg in self._legs for turn in leg.close())]
            self._paused.clear()
        for turn in lost:
            turn.end(restated(self._closed, turn.request_id))

    def join(self) -> None:
        """Waits until the gateway knows, but not for long."""
        for leg in tuple(self._legs):
            leg.join(max(0.0, self._close_by - time.monotonic()))
        with suppress(ValueError):
            self._link.sessions.remove(self)


class Turn(ClientTurn):
    """One generation or completion within a session, with the face of `Messages` when it is streamed."""

    __slots__ = (
        "_cancelled",
        "_driver",
        "_gate",
        "_timeout",
        "_until",
        "_watch",
        "call",
        "leg",
        "observation",
        "over",
        "resumes",
        "stopped",
        "token",
    )

    def __init__(
        self, driver: SessionDriver, request: Work, call: CallOptions, *, stream: bool, parent: Parent | None
    ) -> None:
        super().__init__(request, call.request_id, stream=stream, parent=parent)
        self._driver = driver
        self._gate = threading.Lock()
        self._gate.acquire()
        self.over = False
        """Whether it has ended, and isn't to be started again."""
        self._watch = ContentWatch(call.timeouts) if stream else None
        self._timeout: DeepSeekError | None = None
        self._cancelled = False
        total = call.total
        # The gateway ends the turn at its deadline; this is for a gateway that can't.
        self._until = None if total is None else call.began + total + DEADLINE_GRACE
        self.call = call
        self.leg: Leg | None = None
        self.resumes = 0
        self.token: str | None = None
        """What it was started with last."""
        self.stopped = False
        """Whether it was ended from here."""
        self.observation: Observation | None = None

    def deadline_ms(self) -> int:
        """Returns the milliseconds that it has left."""
        until = self._until
        return 0 if until is None else max(1, round((until - DEADLINE_GRACE - time.monotonic()) * 1000))

    @property
    def resumed(self) -> int:
        """How often its connection was taken up again."""
        return 0 if self.leg is None else self.leg.resumes - self.resumes

    @property
    def session_id(self) -> str:
        """The gateway's id of the session that it is a turn of."""
        return "" if self.leg is None else self.leg.machine.session_id

    def wake(self) -> None:
        """Tells whoever waits that something came, or that it is over."""
        if self.ended:
            self.over = True
            if self.observation is not None:
                error = self._timeout if self.stopped else self.error
                self.observation.end(error, cancelled=self._cancelled)
        if self._gate.locked():
            with suppress(RuntimeError):  # another thread was faster
                self._gate.release()

    def note(self) -> None:
        """Fills the turn's record in, whether anybody reads or not; the driver's lock is held."""
        if self.observation is not None:
            if self.chunks:
                self.observation.chunks(self.chunks)
            if self.response is not None:
                self.observation.response(self.response)

    def _left(self, now: float) -> float:
        """Returns the seconds until one of its limits may be over."""
        left = _LONGEST_WAIT if self._until is None else self._until - now
        watch = self._watch
        return min(left, watch.check(now)) if watch is not None and watch.active else left

    def _wait(self) -> None:
        """Waits until something has come; ends the turn when that takes too long."""
        now = time.monotonic()
        left = self._left(now)
        if left <= 0:
            self._stop(self._overdue(now))
            return
        try:
            self._gate.acquire(timeout=min(left, _LONGEST_WAIT))
        except BaseException:  # KeyboardInterrupt, above all
            self.cancel()
            raise
        if self.over:
            self.wake()  # it stays open, should another thread wait too

    def _overdue(self, now: float) -> DeepSeekError:
        if self._watch is not None and (self._until is None or now < self._until):
            return self._watch.error(self.request_id)
        return DeadlineExceededError(
            f"no answer within {self.call.total:g} s (Timeouts.total)", request_id=self.request_id
        )

    def content(self) -> None:
        """Tells the watch that the last batch had content in it."""
        if self._watch is not None:
            self._watch.content()

    def pause(self) -> None:
        """Tells the watch that there was no content in the last batch."""
        if self._watch is not None:
            self._watch.pause(time.monotonic())

    def read(self) -> Sequence[pb.GenerateChunk] | None:
        """Returns what has come since, or None at the end; raises a DeepSeekError."""
        if not self.chunks and not self.over:
            if self._watch is not None:
                self._watch.waiting(time.monotonic())
            while not self.chunks and not self.over:
                self._wait()
        if self.chunks and not self._cancelled:
            return self._take()
        self._raise()
        return None

    def _take(self) -> Sequence[pb.GenerateChunk]:
        """Takes what has come, and gives credit for it."""
        gate = None
        with self._driver.lock:
            chunks, self.chunks = self.chunks, ()
            if self.owed and self.leg is not None and self.leg.machine.taken(self):
                gate = self.leg.writer()
        if gate is not None:
            gate.release()
        return chunks

    def result(self) -> Any:
        """Returns the whole answer; raises a DeepSeekError."""
        while not self.over:
            self._wait()
        self._raise()
        if self.response is None:
            raise CancelledByPeerError("the turn was cancelled", request_id=self.request_id)
        return self.response

    def _raise(self) -> None:
        if self._timeout is not None:
            raise self._timeout
        if self.error is not None and not self._cancelled:
            raise self.error

    def cancel(self) -> None:
        """Ends the turn and leaves the session up; from any thread."""
        self._stop(None)

    def _stop(self, timeout: DeepSeekError | None) -> None:
        """Ends the turn at both ends, unless it is over."""
        gate = None
        with self._driver.lock:
            if self.over or self.stopped:
                return
            self.stopped = True
            self._timeout, self._cancelled = timeout, timeout is None
            if self.leg is not None:
                self.leg.machine.cancel(self)
                gate = self.leg.writer()
        if gate is not None:
            gate.release()
        self.wake()

    def close(self) -> None:
        """Cancels the turn unless it is over."""
        self.cancel()
