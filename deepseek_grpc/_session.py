"""The session's state machines, one for each end, without I/O.

Frames go in, turns change; turns change, frames come out, batched. Drivers own the stream and the waiting: they hand
every message they read to `receive` and write whatever `take` returns, as soon as the last write is done. That alone
makes frames coalesce under load and leave at once without it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from typing import Final, Generic, TypeVar

from deepseek_grpc._codec.answer import encode_completion, encode_event
from deepseek_grpc._codec.checks import invalid
from deepseek_grpc._codec.status import decode_status, encode_status
from deepseek_grpc._value import Value, value
from deepseek_grpc.errors import (
    ConflictError,
    DeadlineExceededError,
    DeepSeekError,
    FailedPreconditionError,
    InternalError,
    RequestTooLargeError,
    ServiceUnavailableError,
    StreamInterruptedError,
    UnimplementedError,
)
from deepseek_grpc.types import Completion, Event, ReasoningDelta, TextDelta, Upstream
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = [
    "BATCH_BYTES",
    "DEADLINE_GRACE",
    "FRAME_BYTES",
    "CancelledTurn",
    "ClientSession",
    "ClientTurn",
    "GatewaySession",
    "RenewedToken",
    "StartedTurn",
    "deadline_ms",
    "restated",
]

BATCH_BYTES: Final = 256 * 1024
"""A batch takes no further frame beyond this size; a bigger frame travels alone."""
FRAME_BYTES: Final = 8 * 1024 * 1024
"""No frame is larger than this."""
MAX_FRAMES: Final = 10_000
"""No message has more frames than this."""

_FRAME_OVERHEAD: Final = 28
"""Bytes counted for what surrounds a frame. It keeps batches of the smallest frames below MAX_FRAMES too."""
_CHUNK_OVERHEAD: Final = 20
"""Bytes counted beyond that for what surrounds a chunk's text."""
_TEXTUAL: Final = (TextDelta, ReasoningDelta)

DEADLINE_GRACE: Final = 0.25
"""Seconds that a client waits beyond a turn's deadline, which the gateway keeps, for a gateway that can't."""

Batch = TypeVar("Batch", pb.SessionRequest, pb.SessionResponse)


class _Outbox(Generic[Batch]):
    """Collects frames into batches, in place: a frame is filled in where it will be sent from."""

    __slots__ = ("_make", "_open_bytes", "_queue", "queued_bytes")

    def __init__(self, make: Callable[[], Batch]) -> None:
        self._make: Callable[[], Batch] = make
        self._queue: deque[tuple[Batch, int]] = deque()
        self._open_bytes = 0  # bytes in the newest batch
        self.queued_bytes = 0

    def batch(self, size: int) -> Batch:
        """Returns the batch to add a frame of at most this size to."""
        size += _FRAME_OVERHEAD
        self.queued_bytes += size
        if self._queue and self._open_bytes + size <= BATCH_BYTES:
            batch, _ = self._queue[-1]
            self._open_bytes += size
            self._queue[-1] = (batch, self._open_bytes)
            return batch
        batch = self._make()
        self._open_bytes = size
        self._queue.append((batch, size))
        return batch

    def take(self) -> Batch | None:
        """Returns the oldest batch, or None."""
        if not self._queue:
            return None
        batch, size = self._queue.popleft()
        self.queued_bytes -= size
        return batch


class ClientTurn:
    """What the client knows of one turn. The driver waits on it; the machine fills it."""

    __slots__ = ("_seq", "chunks", "ended", "error", "request_id", "response", "seen", "turn_id", "wake")

    def __init__(self, turn_id: int, request_id: str) -> None:
        self.turn_id = turn_id
        self.request_id = request_id
        self.chunks: list[pb.GenerateChunk] = []
        """What came and wasn't taken yet."""
        self.response: pb.GenerateResponse | None = None
        """The whole answer, of a turn that wasn't streamed."""
        self.error: DeepSeekError | None = None
        self.ended = False
        self.seen = False
        """Whether any chunk has come."""
        self.wake: Callable[[], None] | None = None
        """The driver's: called when something came."""
        self._seq = 0

    def accept(self, seq: int) -> bool:
        """Counts a frame; returns whether it is the next one."""
        if seq != self._seq + 1:
            return False
        self._seq = seq
        return True


class ClientSession:
    """The client's end."""

    def __init__(self, *, max_message_bytes: int = 2 * FRAME_BYTES) -> None:
        self._max_frame_bytes = min(max_message_bytes - 2 * _FRAME_OVERHEAD, FRAME_BYTES)
        self._out: _Outbox[pb.SessionRequest] = _Outbox(pb.SessionRequest)
        self._turns: dict[int, ClientTurn] = {}
        self._last_id = 0
        self.session_id = ""
        """The gateway's id of the session, once it is open."""
        self.going_away = False
        """Whether the gateway has asked to move: running turns finish, new ones belong into another session."""
        self._out.batch(8).frames.add().open.SetInParent()

    def start(self, request: pb.GenerateRequest, *, stream: bool, deadline_ms: int) -> ClientTurn:
        """Queues the start of a turn.

        Raises:
            RequestTooLargeError: It doesn't fit into a frame.
            ServiceUnavailableError: The gateway is about to go; another session will find another gateway.
        """
        size = request.ByteSize() + 32
        if size > self._max_frame_bytes:
            raise RequestTooLargeError(
                f"the request has {size:,} bytes; the limit within a session is {self._max_frame_bytes:,} bytes",
                request_id=request.request_id,
            )
        if self.going_away:
            raise going_away(request.request_id)
        self._last_id += 1
        turn = ClientTurn(self._last_id, request.request_id)
        self._turns[turn.turn_id] = turn
        frame = self._out.batch(size).frames.add().start
        frame.turn_id = turn.turn_id
        frame.request.CopyFrom(request)
        frame.stream = stream
        frame.deadline_ms = deadline_ms
        return turn

    def cancel(self, turn: ClientTurn) -> None:
        """Ends a turn here at once, and queues the frame that ends it there."""
        if self._turns.pop(turn.turn_id, None) is not None:
            turn.ended = True
            self._out.batch(16).frames.add().cancel.turn_id = turn.turn_id

    def renew(self, token: str) -> None:
        """Queues the next credential."""
        self._out.batch(len(token)).frames.add().auth.token = token

    def take(self) -> pb.SessionRequest | None:
        """Returns the next batch to write, or None."""
        return self._out.take()

    def receive(self, message: pb.SessionResponse) -> list[ClientTurn]:
        """Takes a batch in and returns the turns that it changed; raises InternalError on a breach of the protocol."""
        changed: dict[int, ClientTurn] = {}
        for frame in message.frames:
            match frame.WhichOneof("frame"):
                case "chunk":
                    chunk = frame.chunk
                    turn = self._turns.get(chunk.turn_id)
                    if turn is not None and self._next(turn, chunk.seq):
                        turn.chunks.append(chunk.chunk)
                        turn.seen = True
                        changed[chunk.turn_id] = turn
                case "done":
                    done = frame.done
                    turn = self._turns.get(done.turn_id)
                    if turn is not None and self._next(turn, done.seq):
                        del self._turns[done.turn_id]
                        turn.ended = True
                        if done.HasField("response"):
                            turn.response = done.response
                        changed[done.turn_id] = turn
                case "error":
                    failure = frame.error
                    turn = self._turns.get(failure.turn_id)
                    if turn is not None and self._next(turn, failure.seq):
                        del self._turns[failure.turn_id]
                        turn.ended = True
                        turn.error = decode_status(failure.status, turn.request_id)
                        changed[failure.turn_id] = turn
                case "opened":
                    self.session_id = frame.opened.session_id
                case "go_away":
                    self.going_away = True
                case _:
                    pass  # a newer gateway's frame: not for us
        return list(changed.values())

    def _next(self, turn: ClientTurn, seq: int) -> bool:
        if not turn.accept(seq):
            raise InternalError(f"turn {turn.turn_id}: frame {seq} came out of order", request_id=turn.request_id)
        return True

    def lost(self, error: DeepSeekError) -> list[ClientTurn]:
        """Ends every turn that isn't over, because the stream has ended; returns them."""
        turns = list(self._turns.values())
        self._turns.clear()
        for turn in turns:
            turn.ended = True
            cut = turn.seen and isinstance(error, ServiceUnavailableError)
            cls = StreamInterruptedError if cut else type(error)
            turn.error = restated(error, cls, turn.request_id)
        return turns


def deadline_ms(total: float | None, request_id: str) -> int:
    """Returns a turn's deadline as frames carry it; raises DeadlineExceededError when there is no time at all."""
    if total is None:
        return 0
    if total <= 0:
        raise DeadlineExceededError(f"the total time of {total:g} s is over before it begins", request_id=request_id)
    return max(1, round(total * 1000))


def restated(error: DeepSeekError, cls: type[DeepSeekError], request_id: str, prefix: str = "") -> DeepSeekError:
    """Makes of what ended a session the error of one of its turns, as the class that it is for the turn."""
    same = cls is type(error)
    return cls(
        prefix + error.details,
        code=error.code if same else None,
        reason=error.reason if same else None,
        request_id=request_id,
        attempts=1,
        retry_after=error.retry_after,
        retryable=error.retryable if same else None,
        metadata=dict(error.metadata),
    )


def going_away(request_id: str = "") -> ServiceUnavailableError:
    """Makes the error of a turn that was started after the gateway had asked to move."""
    return ServiceUnavailableError(
        "the gateway is about to go; open another session", reason="GOING_AWAY", request_id=request_id
    )


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
        self._out: _Outbox[pb.SessionResponse] = _Outbox(pb.SessionResponse)
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
            if running is not None:
                yield CancelledTurn(turn_id)
            self._seqs.setdefault(turn_id, 0)
            self.fail(turn_id, ConflictError(f"turn {turn_id} was used before in this session"))
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
