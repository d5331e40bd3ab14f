"""The gateway's end of a session."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field
from typing import Any, Final

from google.protobuf.message import DecodeError

from deepseek_grpc._codec.answer import encode_completion, encode_event
from deepseek_grpc._codec.checks import invalid
from deepseek_grpc._codec.status import encode_status
from deepseek_grpc._session.frames import (
    BATCH_BYTES,
    FRAME_BYTES,
    MAX_FRAMES,
    REPLAY_BYTES,
    Budget,
    Line,
    going_away,
)
from deepseek_grpc._session.history import History
from deepseek_grpc._value import Value, value
from deepseek_grpc.errors import (
    ConflictError,
    DeepSeekError,
    FailedPreconditionError,
    NotFoundError,
    RequestTooLargeError,
)
from deepseek_grpc.types import Completion, Event, TextDelta, Upstream
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["CancelledTurn", "ClosedSession", "GatewaySession", "GatewayTurn", "RenewedToken", "read_open"]

_CHUNK_OVERHEAD: Final = 12
"""Bytes counted for what surrounds a chunk's text."""
_UINT32: Final = 2**32 - 1
_TELL_BYTES: Final = 16 * 1024
"""A turn tells what it has spent after so much, and at a quarter of smaller credits."""


class GatewayTurn:
    """A turn that the client asked for, until it is over. Whoever runs it derives from this."""

    __slots__ = ("batch", "credit", "frame", "granted", "spent", "start", "tell", "turn_id")

    def __init__(self, start: pb.StartFrame) -> None:
        self.turn_id = start.turn_id
        self.start = start
        self.credit = start.credit or None
        """What it may still send; None: as much as it likes."""
        self.tell = min(_TELL_BYTES, start.credit // 4 + 1)
        self.spent = 0
        """What it has sent since it told."""
        self.batch: pb.SessionResponse | None = None
        self.frame: Any = None
        """Its chunks in that batch, if it waits still."""

    @property
    def held(self) -> bool:
        """Whether it has to wait for credit."""
        return self.credit is not None and self.credit <= 0

    def resume(self) -> None:
        """Tells whoever runs it that there is credit again."""


@value
class CancelledTurn(Value):
    """A turn that the client gave up, or broke the rules with: it is over."""

    turn: GatewayTurn
    error: DeepSeekError | None = None


@value
class RenewedToken(Value):
    """The client's next credential."""

    token: str = field(repr=False)


@value
class ClosedSession(Value):
    """The client wants nothing more."""


def read_open(data: bytes) -> pb.SessionRequest:
    """Reads a connection's first message; raises InvalidRequestError where it isn't one."""
    message = _parsed(data)
    kind = message.frames[0].WhichOneof("frame") if message.frames else "nothing"
    if kind != "open":
        raise invalid("frames[0]", f"is {kind}; a session begins with open")
    opening = message.frames[0].open
    if len(message.frames) > 1 and (opening.resumable or opening.resume_token):
        raise invalid("frames", f"has {len(message.frames)} entries; the open of a resumable session stands alone")
    return message


def _parsed(data: bytes) -> pb.SessionRequest:
    try:
        message = pb.SessionRequest.FromString(data)
    except DecodeError:
        raise invalid("frames", f"can't be decoded: the message of {len(data)} bytes is no SessionRequest") from None
    if len(message.frames) > MAX_FRAMES:
        raise invalid("frames", f"has {len(message.frames)} entries; the limit of a message is {MAX_FRAMES}")
    return message


class GatewaySession:
    """The gateway's end, over as many connections as it takes.

    Turns that are over are remembered by their highest id alone: ids only grow.
    """

    def __init__(
        self,
        session_id: str,
        *,
        resume_token: str = "",
        resume_seconds: float = 0.0,
        budget: Budget | None = None,
        turn: type[GatewayTurn] = GatewayTurn,
    ) -> None:
        self.session_id = session_id
        self.resume_token = resume_token
        self.history = History()
        self.resume_seconds = resume_seconds
        """How long it outlives its connection."""
        self._line: Line[pb.SessionResponse] = Line(pb.SessionResponse, invalid, budget)
        self._line.numbered = bool(resume_token)
        self._greeting: bytes | None = None
        self._turn = turn
        self._turns: dict[int, GatewayTurn] = {}
        self._last_id = 0
        self._refused_bytes = 0
        self._connected = False
        self._leaving = False

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait to be written, or to be acknowledged."""
        return self._line.queued_bytes + self._line.unacked_bytes

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be written."""
        return self._line.queued_bytes

    @property
    def turns(self) -> tuple[GatewayTurn, ...]:
        """The turns that aren't over."""
        return tuple(self._turns.values())

    @property
    def idle(self) -> bool:
        """Whether no turn is under way."""
        return not self._turns

    def connect(self, message: pb.SessionRequest) -> None:
        """Begins a connection with the client's first message: the first, or one in the place of one that was lost.

        Raises:
            InvalidRequestError: The client acknowledges what wasn't sent, or lacks what it had acknowledged.
        """
        if self._connected and self._line.numbered:
            self._line.repeat(message.acked_seq)
        self._connected = True
        greeting = self._line.acknowledging(pb.SessionResponse())
        opened = greeting.frames.add().opened
        opened.session_id = self.session_id
        opened.resume_token = self.resume_token
        opened.resume_window_ms = min(round(self.resume_seconds * 1000), _UINT32) if self.resume_token else 0
        self._greeting = greeting.SerializeToString()

    def receive(self, data: bytes) -> Iterator[GatewayTurn | CancelledTurn | RenewedToken | ClosedSession]:
        """Takes a message in and yields what the client wants, in its order: turns to start, among others.

        Raises:
            InvalidRequestError: The client breaks the protocol; the session ends.
        """
        message = _parsed(data)
        if self._line.accept(message, len(data)):
            yield from self.obey(message.frames)

    def obey(
        self, frames: Iterable[pb.ClientFrame]
    ) -> Iterator[GatewayTurn | CancelledTurn | RenewedToken | ClosedSession]:
        """Takes frames in and yields as `receive` does."""
        for frame in frames:
            kind = frame.WhichOneof("frame")
            if kind == "start":
                yield from self._start(frame.start)
            elif kind == "credit":
                yield from self._grant(frame.credit)
            elif kind == "cancel":
                turn_id = frame.cancel.turn_id
                turn = self._turns.get(turn_id)
                if turn is not None:
                    yield CancelledTurn(turn)
                elif turn_id > self._last_id:
                    self._refuse_unknown(turn_id)
            elif kind == "auth":
                yield RenewedToken(frame.auth.token)
            elif kind == "close":
                yield ClosedSession()
            elif kind == "open":
                raise invalid("frames", "has a second open; a session is opened once")

    def _refuse_unknown(self, turn_id: int) -> None:
        problem = f"turn {turn_id} wasn't started in this session"
        self._refuse(turn_id, NotFoundError(problem, reason="TURN_UNKNOWN", advice="Start it first."))

    def _refuse(self, turn_id: int, error: DeepSeekError) -> None:
        """Queues a refusal, unless so many wait that the client can't be reading."""
        before = self._line.queued_bytes
        if not before:
            self._refused_bytes = 0
        self._fail(turn_id, error)
        self._refused_bytes += self._line.queued_bytes - before
        if self._refused_bytes > REPLAY_BYTES:
            raise invalid("frames", f"bring more refusals than are read: {self._refused_bytes:,} bytes wait")

    def _start(self, start: pb.StartFrame) -> Iterator[GatewayTurn | CancelledTurn]:
        turn_id = start.turn_id
        if turn_id == 0:
            raise invalid("start.turn_id", "is 0; turns are numbered from 1")
        if turn_id <= self._last_id:
            running = self._turns.get(turn_id)
            if running is not None and running.start == start:
                return  # the same start again is the same turn
            conflict = ConflictError(f"turn {turn_id} was used before in this session")
            if running is None:
                self._refuse(turn_id, conflict)
            else:
                yield CancelledTurn(running, conflict)
            return
        self._last_id = turn_id
        refusal: DeepSeekError | None = None
        if self._leaving:
            refusal = going_away()
        elif (size := start.ByteSize()) > FRAME_BYTES:
            refusal = RequestTooLargeError(f"the start has {size:,} bytes; the limit is {FRAME_BYTES:,} bytes")
        elif start.credit > REPLAY_BYTES:
            refusal = invalid("start.credit", f"is {start.credit}; the limit is {REPLAY_BYTES}")
        elif start.WhichOneof("work") is None:
            refusal = invalid("start.request", "is missing, and so is start.completion; give one of them")
        elif start.parent_turn_id and not start.HasField("request"):
            refusal = invalid("start.parent_turn_id", "goes with start.request only; a completion continues nothing")
        if refusal is not None:
            self._refuse(turn_id, refusal)
            return
        turn = self._turns[turn_id] = self._turn(start)
        yield turn

    def _grant(self, credit: pb.CreditFrame) -> Iterator[CancelledTurn]:
        turn = self._turns.get(credit.turn_id)
        if turn is None:
            if credit.turn_id > self._last_id:
                self._refuse_unknown(credit.turn_id)
            return
        if turn.credit is None:
            return
        turn.credit += credit.bytes
        if turn.credit > REPLAY_BYTES:
            problem = f"makes {turn.credit} for turn {turn.turn_id}; the limit is {REPLAY_BYTES}"
            yield CancelledTurn(turn, invalid("credit.bytes", problem))
        elif turn.credit > 0:
            turn.resume()

    def chunks(self, turn: GatewayTurn, events: Sequence[Event], upstream: Upstream) -> None:
        """Queues the events of a streamed turn; of a turn that is over, nothing.

        Raises:
            FailedPreconditionError: An event is larger than a frame may be; those before it are queued.
        """
        if turn.turn_id not in self._turns:
            return
        line = self._line
        for event in events:
            # Whatever can't be encoded raises before it is queued: only its own turn may suffer from it.
            text = ""
            if type(event) is TextDelta and not event.logprobs:
                text = event.text
                size = _CHUNK_OVERHEAD + (len(text) if text.isascii() else len(text.encode()))
                chunk = None
            else:
                chunk = pb.GenerateChunk()
                encode_event(event, upstream, chunk)
                size = _CHUNK_OVERHEAD + chunk.ByteSize()
            if size > BATCH_BYTES:
                _fitting(size)
            batch = line.batch(size)
            if batch is turn.batch:
                frame = turn.frame
            else:
                frame = turn.frame = batch.frames.add().chunks
                frame.turn_id = turn.turn_id
                turn.batch = batch
            if chunk is None:
                frame.chunks.add().text = text
            else:
                frame.chunks.append(chunk)
            if turn.credit is not None:
                turn.credit -= size
                turn.spent += size
                if turn.spent >= turn.tell:
                    frame.spent += turn.spent
                    turn.spent = 0

    def done(self, turn: GatewayTurn, completion: Completion | None, upstream: Upstream) -> None:
        """Queues the good end of a turn, with the whole answer where it wasn't streamed.

        Raises:
            FailedPreconditionError: The answer is larger than a frame may be.
        """
        turn_id = turn.turn_id
        if turn_id not in self._turns:
            return
        if completion is None:
            del self._turns[turn_id]
            self._line.batch(16).frames.add().done.turn_id = turn_id
            return
        frame = pb.ServerFrame()
        frame.done.turn_id = turn_id
        done = frame.done
        encode_completion(completion, upstream, done.response if turn.start.HasField("request") else done.completion)
        size = _fitting(frame.ByteSize())
        del self._turns[turn_id]
        self._line.batch(size).frames.append(frame)

    def fail(self, turn: GatewayTurn, error: DeepSeekError) -> None:
        """Queues the bad end of a turn."""
        if self._turns.pop(turn.turn_id, None) is not None:
            self._fail(turn.turn_id, error)

    def _fail(self, turn_id: int, error: DeepSeekError) -> None:
        frame = pb.ServerFrame()
        frame.error.turn_id = turn_id
        frame.error.status.CopyFrom(encode_status(error))
        self._line.batch(frame.ByteSize()).frames.append(frame)

    def go_away(self, grace_ms: int) -> None:
        """Queues the request to move; from now on new turns are refused."""
        if not self._leaving:
            self._leaving = True
            self._line.batch(16).frames.add().go_away.grace_ms = grace_ms

    def take(self) -> bytes | None:
        """Returns the next message to write, or None."""
        if self._greeting is not None:
            greeting, self._greeting = self._greeting, None
            return greeting
        return self._line.take()

    @property
    def ready(self) -> bool:
        """Whether there may be something to write."""
        return self._line.ready

    def clear(self) -> None:
        """Forgets everything: the session is over."""
        self._turns.clear()
        self._line.clear()
        self.history.clear()


def _fitting(size: int) -> int:
    """Returns a frame's size; raises FailedPreconditionError beyond the limit."""
    if size > FRAME_BYTES:
        raise FailedPreconditionError(
            f"the answer has a piece of {size:,} bytes; the limit within a session is {FRAME_BYTES:,}: stream it",
            reason="TOO_LARGE",
        )
    return size
