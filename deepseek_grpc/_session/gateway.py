"""The gateway's end of a session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Final

from deepseek_grpc._codec.answer import encode_completion, encode_event
from deepseek_grpc._codec.checks import invalid
from deepseek_grpc._codec.status import encode_status
from deepseek_grpc._session.frames import FRAME_BYTES, MAX_FRAMES, Outbox, going_away
from deepseek_grpc._value import Value, value
from deepseek_grpc.errors import (
    ConflictError,
    DeepSeekError,
    FailedPreconditionError,
    RequestTooLargeError,
    UnimplementedError,
)
from deepseek_grpc.types import Completion, Event, ReasoningDelta, TextDelta, Upstream
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["CancelledTurn", "GatewaySession", "RenewedToken", "StartedTurn"]

_CHUNK_OVERHEAD: Final = 20
"""Bytes counted beyond that for what surrounds a chunk's text."""
_TEXTUAL: Final = (TextDelta, ReasoningDelta)


@value
class StartedTurn(Value):
    """A turn that the client asked for."""

    turn_id: int
    request: pb.GenerateRequest
    stream: bool
    deadline: float | None
    """Seconds from its arrival."""


@value
class CancelledTurn(Value):
    """A turn that the client gave up."""

    turn_id: int


@value
class RenewedToken(Value):
    """The client's next credential."""

    token: str = field(repr=False)


class GatewaySession:
    """The gateway's end. Turns that are over are remembered by their highest id alone: ids only grow."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self._out: Outbox[pb.SessionResponse] = Outbox(pb.SessionResponse)
        self._open = False
        self._leaving = False
        self._last_id = 0
        self._seqs: dict[int, int] = {}
        self._starts: dict[int, pb.StartFrame] = {}

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be written."""
        return self._out.queued_bytes

    def receive(self, message: pb.SessionRequest) -> Iterator[StartedTurn | CancelledTurn | RenewedToken]:
        """Takes a batch in and yields what the client wants, in its order.

        Raises:
            InvalidRequestError: The client breaks the protocol; the session ends.
            UnimplementedError: It asks for what this gateway doesn't serve; the session ends.
        """
        if len(message.frames) > MAX_FRAMES:
            raise invalid("frames", f"has {len(message.frames)} entries; the limit of a message is {MAX_FRAMES}")
        for frame in message.frames:
            kind = frame.WhichOneof("frame")
            if not self._open:
                if kind != "open":
                    raise invalid("frames[0]", f"is {kind}; a session begins with open")
                if frame.open.resume_token:
                    raise UnimplementedError("this gateway doesn't resume sessions")
                self._open = True
                self._out.batch(64).frames.add().opened.session_id = self.session_id
            elif kind == "start":
                yield from self._start(frame.start)
            elif kind == "cancel":
                if frame.cancel.turn_id in self._seqs:
                    yield CancelledTurn(frame.cancel.turn_id)
            elif kind == "auth":
                yield RenewedToken(frame.auth.token)
            elif kind == "credit":
                raise UnimplementedError("this gateway has no flow control by credit")
            elif kind == "open":
                raise invalid("frames", "has a second open; a session is opened once")

    def _start(self, start: pb.StartFrame) -> Iterator[StartedTurn | CancelledTurn]:
        turn_id = start.turn_id
        if turn_id == 0:
            raise invalid("start.turn_id", "is 0; turns are numbered from 1")
        if turn_id <= self._last_id:
            running = self._starts.get(turn_id)
            if running == start:
                return  # the same start again is the same turn
            self._seqs.setdefault(turn_id, 0)
            self.fail(turn_id, ConflictError(f"turn {turn_id} was used before in this session"))
            if running is not None:
                yield CancelledTurn(turn_id)  # its end is queued already: a turn has one
            return
        self._last_id = turn_id
        self._seqs[turn_id] = 0
        refusal: DeepSeekError | None = None
        if self._leaving:
            refusal = going_away()
        elif start.ByteSize() > FRAME_BYTES:
            refusal = RequestTooLargeError(
                f"the start has {start.ByteSize():,} bytes; the limit is {FRAME_BYTES:,} bytes"
            )
        elif start.parent_turn_id or start.credit:
            name = "parent_turn_id" if start.parent_turn_id else "credit"
            refusal = UnimplementedError(f"this gateway doesn't serve start.{name}")
        if refusal is not None:
            self.fail(turn_id, refusal)
            return
        self._starts[turn_id] = start
        deadline = start.deadline_ms / 1000 if start.deadline_ms else None
        yield StartedTurn(turn_id, start.request, start.stream, deadline)

    def chunks(self, turn_id: int, events: Sequence[Event], upstream: Upstream) -> None:
        """Queues the events of a streamed turn; of a turn that is over, nothing.

        Raises:
            FailedPreconditionError: An event is larger than a frame may be; those before it are queued.
        """
        seq = self._seqs.get(turn_id)
        if seq is None:
            return
        for event in events:
            seq += 1
            # Whatever can't be encoded raises before its frame is queued: only its own turn may suffer from it.
            if isinstance(event, _TEXTUAL) and not event.logprobs:
                text = event.text
                size = _CHUNK_OVERHEAD + (len(text) if text.isascii() else len(text.encode()))
                chunk = self._out.batch(_fitting(size)).frames.add().chunk
                chunk.turn_id = turn_id
                chunk.seq = seq
                encode_event(event, upstream, chunk.chunk)
            else:
                frame = pb.ServerFrame()
                frame.chunk.turn_id = turn_id
                frame.chunk.seq = seq
                encode_event(event, upstream, frame.chunk.chunk)
                self._out.batch(_fitting(frame.ByteSize())).frames.append(frame)
            self._seqs[turn_id] = seq

    def done(self, turn_id: int, completion: Completion | None, upstream: Upstream) -> None:
        """Queues the good end of a turn, with the whole answer where it wasn't streamed.

        Raises:
            FailedPreconditionError: The answer is larger than a frame may be.
        """
        seq = self._seqs.get(turn_id)
        if seq is None:
            return
        frame = pb.ServerFrame()
        frame.done.turn_id = turn_id
        frame.done.seq = seq + 1
        if completion is not None:
            encode_completion(completion, upstream, frame.done.response)
        size = _fitting(frame.ByteSize())
        self._forget(turn_id)
        self._out.batch(size).frames.append(frame)

    def fail(self, turn_id: int, error: DeepSeekError) -> None:
        """Queues the bad end of a turn."""
        seq = self._seqs.get(turn_id)
        if seq is None:
            return
        self._forget(turn_id)
        frame = pb.ServerFrame()
        frame.error.turn_id = turn_id
        frame.error.seq = seq + 1
        frame.error.status.CopyFrom(encode_status(error))
        self._out.batch(frame.ByteSize()).frames.append(frame)

    def go_away(self, grace_ms: int) -> None:
        """Queues the request to move; from now on new turns are refused."""
        self._leaving = True
        self._out.batch(16).frames.add().go_away.grace_ms = grace_ms

    def _forget(self, turn_id: int) -> None:
        self._seqs.pop(turn_id, None)
        self._starts.pop(turn_id, None)

    def take(self) -> pb.SessionResponse | None:
        """Returns the next batch to write, or None."""
        return self._out.take()


def _fitting(size: int) -> int:
    """Returns a frame's size; raises FailedPreconditionError beyond the limit."""
    if size > FRAME_BYTES:
        raise FailedPreconditionError(
            f"the answer has a piece of {size:,} bytes; the limit within a session is {FRAME_BYTES:,}: stream it",
            reason="TOO_LARGE",
        )
    return size
