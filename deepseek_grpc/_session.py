"""The session's state machines, one for each end, without I/O.

Frames go in, turns change; turns change, frames come out, batched. Drivers own the stream and the waiting: they hand
every message they read to `receive` and write whatever `take` returns, as soon as the last write is done. That alone
makes frames coalesce under load and leave at once without it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from deepseek_grpc._codec.answer import encode_completion, encode_event
from deepseek_grpc._codec.checks import invalid
from deepseek_grpc._codec.status import decode_status, encode_status
from deepseek_grpc._value import Value, value
from deepseek_grpc.errors import (
    ConflictError,
    DeepSeekError,
    InternalError,
    RequestTooLargeError,
    ServiceUnavailableError,
    StreamInterruptedError,
)
from deepseek_grpc.types import Completion, Event, ReasoningDelta, TextDelta, Upstream
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["BATCH_BYTES", "FRAME_BYTES", "ClientSession", "ClientTurn", "GatewaySession", "StartedTurn", "restated"]

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

    def __init__(self) -> None:
        self._out: _Outbox[pb.SessionRequest] = _Outbox(pb.SessionRequest)
        self._turns: dict[int, ClientTurn] = {}
        self._last_id = 0
        self.session_id = ""
        """The gateway's id of the session, once it is open."""
        self.going_away = False
        """Whether the gateway has asked to move: running turns finish, new ones belong into another session."""
        self._out.batch(8).frames.add().open.SetInParent()

    @property
    def turns(self) -> int:
        """How many turns are not over."""
        return len(self._turns)

    def start(self, request: pb.GenerateRequest, *, stream: bool, deadline_ms: int) -> ClientTurn:
        """Queues the start of a turn; raises RequestTooLargeError where it doesn't fit into a frame."""
        size = request.ByteSize() + 32
        if size > FRAME_BYTES:
            raise RequestTooLargeError(
                f"the request has {size:,} bytes; the limit within a session is {FRAME_BYTES:,} bytes",
                request_id=request.request_id,
            )
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

    def take(self) -> pb.SessionRequest | None:
        """Returns the next batch to write, or None."""
        return self._out.take()

    def receive(self, message: pb.SessionResponse) -> list[ClientTurn]:
        """Takes a batch in and returns the turns that it changed; raises InternalError on a breach of the protocol."""
        changed: list[ClientTurn] = []
        for frame in message.frames:
            match frame.WhichOneof("frame"):
                case "chunk":
                    chunk = frame.chunk
                    turn = self._turns.get(chunk.turn_id)
                    if turn is not None and self._next(turn, chunk.seq):
                        turn.chunks.append(chunk.chunk)
                        turn.seen = True
                        changed.append(turn)
                case "done":
                    done = frame.done
                    turn = self._turns.get(done.turn_id)
                    if turn is not None and self._next(turn, done.seq):
                        del self._turns[done.turn_id]
                        turn.ended = True
                        if done.HasField("response"):
                            turn.response = done.response
                        changed.append(turn)
                case "error":
                    failure = frame.error
                    turn = self._turns.get(failure.turn_id)
                    if turn is not None and self._next(turn, failure.seq):
                        del self._turns[failure.turn_id]
                        turn.ended = True
                        turn.error = decode_status(failure.status, turn.request_id)
                        changed.append(turn)
                case "opened":
                    self.session_id = frame.opened.session_id
                case "go_away":
                    self.going_away = True
                case _:
                    pass  # a newer gateway's frame: not for us
        return changed

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


@value
class StartedTurn(Value):
    """A turn that the client asked for."""

    turn_id: int
    request: pb.GenerateRequest
    stream: bool
    deadline: float | None
    """Seconds from its arrival."""


class GatewaySession:
    """The gateway's end. Turns that are over are remembered by their highest id alone: ids only grow."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self._out: _Outbox[pb.SessionResponse] = _Outbox(pb.SessionResponse)
        self._open = False
        self._last_id = 0
        self._seqs: dict[int, int] = {}

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be written."""
        return self._out.queued_bytes

    def receive(self, message: pb.SessionRequest) -> tuple[list[StartedTurn], list[int]]:
        """Takes a batch in; returns the turns to start and the ids of those to cancel.

        Raises:
            InvalidRequestError: The client breaks the protocol; the session ends.
        """
        if len(message.frames) > MAX_FRAMES:
            raise invalid("frames", f"has {len(message.frames)} entries; the limit of a message is {MAX_FRAMES}")
        starts: list[StartedTurn] = []
        cancels: list[int] = []
        for frame in message.frames:
            kind = frame.WhichOneof("frame")
            if not self._open:
                if kind != "open":
                    raise invalid("frames[0]", f"is {kind}; a session begins with open")
                self._open = True
                self._out.batch(64).frames.add().opened.session_id = self.session_id
            elif kind == "start":
                self._start(frame.start, starts, cancels)
            elif kind == "cancel":
                if frame.cancel.turn_id in self._seqs:
                    cancels.append(frame.cancel.turn_id)
            elif kind == "open":
                raise invalid("frames", "has a second open; a session is opened once")
        return starts, cancels

    def _start(self, start: pb.StartFrame, starts: list[StartedTurn], cancels: list[int]) -> None:
        turn_id = start.turn_id
        if turn_id <= self._last_id:
            if turn_id in self._seqs:
                cancels.append(turn_id)
            else:
                self._seqs[turn_id] = 0
            self.fail(turn_id, ConflictError(f"turn {turn_id} was used before in this session"))
            return
        self._last_id = turn_id
        self._seqs[turn_id] = 0
        if start.ByteSize() > FRAME_BYTES:
            self.fail(
                turn_id,
                RequestTooLargeError(f"the start has {start.ByteSize():,} bytes; the limit is {FRAME_BYTES:,} bytes"),
            )
            return
        deadline = start.deadline_ms / 1000 if start.deadline_ms else None
        starts.append(StartedTurn(turn_id, start.request, start.stream, deadline))

    def chunks(self, turn_id: int, events: Sequence[Event], upstream: Upstream) -> None:
        """Queues the events of a streamed turn; of a turn that is over, nothing.

        Raises:
            RequestTooLargeError: An event is larger than a frame may be; those before it are queued.
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
        """Queues the good end of a turn, with the whole answer where it wasn't streamed."""
        seq = self._seqs.get(turn_id)
        if seq is None:
            return
        frame = pb.ServerFrame()
        frame.done.turn_id = turn_id
        frame.done.seq = seq + 1
        if completion is not None:
            encode_completion(completion, upstream, frame.done.response)
        size = frame.ByteSize()
        if size > FRAME_BYTES:
            self.fail(
                turn_id, RequestTooLargeError(f"the answer has {size:,} bytes; stream answers over {FRAME_BYTES:,}")
            )
            return
        del self._seqs[turn_id]
        self._out.batch(size).frames.append(frame)

    def fail(self, turn_id: int, error: DeepSeekError) -> None:
        """Queues the bad end of a turn."""
        seq = self._seqs.pop(turn_id, None)
        if seq is None:
            return
        frame = pb.ServerFrame()
        frame.error.turn_id = turn_id
        frame.error.seq = seq + 1
        frame.error.status.CopyFrom(encode_status(error))
        self._out.batch(frame.ByteSize()).frames.append(frame)

    def go_away(self, grace_ms: int) -> None:
        """Queues the request to move."""
        self._out.batch(16).frames.add().go_away.grace_ms = grace_ms

    def take(self) -> pb.SessionResponse | None:
        """Returns the next batch to write, or None."""
        return self._out.take()


def _fitting(size: int) -> int:
    """Returns the size of a chunk's frame; raises RequestTooLargeError beyond the limit."""
    if size > FRAME_BYTES:
        raise RequestTooLargeError(f"a piece of the answer has {size:,} bytes; the limit is {FRAME_BYTES:,}")
    return size
