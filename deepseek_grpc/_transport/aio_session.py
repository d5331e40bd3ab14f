"""Sessions over grpc.aio, as the program sees them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

from deepseek_grpc._call import CallOptions
from deepseek_grpc._session.client import Parent, Work, restated
from deepseek_grpc._session.recovery import may_restart
from deepseek_grpc._transport.aio import Link
from deepseek_grpc._transport.aio_leg import Leg
from deepseek_grpc._transport.aio_turn import Turn
from deepseek_grpc._transport.session_stub import TextServiceStub
from deepseek_grpc.errors import ClosedError, DeepSeekError, InternalError

__all__ = ["SessionDriver", "Turn", "open_session"]


def open_session(link: Link, call: CallOptions) -> SessionDriver:
    """Opens a session; raises AuthenticationError when there is no token."""
    return SessionDriver(link, call)


class SessionDriver:
    """A session as the program sees it: it moves from one gateway's session to another's as need be."""

    def __init__(self, link: Link, call: CallOptions) -> None:
        self._link = link
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._on_close = link.room().on_close
        self._legs: list[Leg] = []
        self._paused: set[Turn] = set()
        """The turns that wait for a token, or to be tried again."""
        self._fetches: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = float("inf")
        self._closed: ClosedError | None = None
        link.token()  # a source that can't have one says so here
        self._on_close.append(self.aclose)
        self._moved = False  # so that there was a gateway, and another one may take its time
        self._leg: Leg | None = self._open()

    @property
    def session_id(self) -> str:
        """The gateway's id of the session that new turns go to; empty until it has answered."""
        return "" if self._leg is None else self._leg.machine.session_id

    def _open(self) -> Leg:
        leg = Leg(self, self._link, self._call, patient=self._moved)
        self._moved = False
        self._legs.append(leg)
        return leg

    def start(self, request: Work, call: CallOptions, *, stream: bool, parent: Parent | None = None) -> Turn:
        """Starts a turn; raises ClosedError after `aclose`, and what says that this one can't begin."""
        if self._closed is not None:
            raise restated(self._closed, call.request_id)
        turn = Turn(request, call, stream=stream, parent=parent)
        turn.observation = self._link.observe(TextServiceStub, "Session", request, call)
        try:
            self.place(turn)
        except BaseException as error:
            if turn.observation is not None:
                turn.observation.end(error)
            raise
        self._watch(turn)
        return turn

    def place(self, turn: Turn) -> None:
        """Starts a turn in the session that new turns go to; raises what says that it can't begin."""
        turn.call.left()  # raises when there is no time
        token = self._link.token()
        if token is None and self._link.source is not None:
            self._paused.add(turn)
            task = self._loop.create_task(self._place_later(turn))
            self._fetches.add(task)
            task.add_done_callback(self._fetches.discard)
        else:
            self._place(turn, token)

    async def _place_later(self, turn: Turn) -> None:
        """Waits for a token first; nothing else of the session does."""
        try:
            token = await self._link.fetch(turn.call)
            if self._goes_on(turn):
                self._place(turn, token)
        except DeepSeekError as error:
            self._paused.discard(turn)
            turn.end(error)
        except Exception as defect:
            self._paused.discard(turn)
            turn.end(InternalError(f"the turn couldn't be started: {defect!r}", request_id=turn.request_id))
            raise

    def _place(self, turn: Turn, token: str | None) -> None:
        leg = self._leg
        if leg is None:
            leg = self._leg = self._open()
        leg.start(turn, token)

    def _goes_on(self, turn: Turn) -> bool:
        """Ends a turn's pause; says whether it is still wanted."""
        if turn in self._paused:
            self._paused.discard(turn)
            return not turn.ended
        return False

    def retry(self, turn: Turn, pause: float) -> None:
        """Starts a turn again that nothing came of, after so many seconds, more or less."""
        turn.ended, turn.error = False, None
        self._paused.add(turn)
        self._loop.call_later(pause * random.uniform(0.8, 1.2), self._retry, turn)

    def _retry(self, turn: Turn) -> None:
        if self._goes_on(turn):
            self.restart(turn)

    def move(self, leg: Leg) -> None:
        """Has new turns go elsewhere, because a leg's gateway has asked for it or has lost the session."""
        if leg is self._leg:
            self._leg = None
            self._moved = True

    def over(self, leg: Leg, turns: Sequence[Turn], error: DeepSeekError | None) -> None:
        """Takes note that a leg is over; without an error, its turns are started anew elsewhere where that is safe."""
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
        turn.ended, turn.error = False, None
        try:
            self.place(turn)
        except DeepSeekError as error:
            turn.end(error)
        except Exception as defect:
            turn.end(InternalError(f"the turn couldn't be started again: {defect!r}", request_id=turn.request_id))
            raise

    def _watch(self, turn: Turn) -> None:
        """Has the turn's limits looked at when the first of them may be over. One timer serves all turns."""
        due = self._loop.time() + turn.left()
        if due < self._due:
            if self._timer is not None:
                self._timer.cancel()
            self._due = due
            self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer, self._due = None, float("inf")
        turns = (*self._paused, *(turn for leg in self._legs for turn in leg.turns()))
        wait = min((turn.check() for turn in turns if not turn.ended), default=None)
        if wait is not None and wait < float("inf"):
            self._due = self._loop.time() + wait
            self._timer = self._loop.call_at(self._due, self._look)

    async def aclose(self) -> None:
        """Closes the session; turns that are not over end in ClosedError."""
        if self._closed is None:
            self._closed = ClosedError("the session was closed", request_id=self._call.request_id)
            self._leg = None
            if self._timer is not None:
                self._timer.cancel()
        paused, self._paused = self._paused, set()
        for turn in paused:
            turn.end(restated(self._closed, turn.request_id))
        legs = tuple(self._legs)
        for leg in legs:
            leg.close(self._closed)
        for leg in legs:
            await leg.closed()
        with suppress(ValueError):
            self._on_close.remove(self.aclose)
