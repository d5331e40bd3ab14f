"""The client's end of a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from deepseek_grpc._codec.status import decode_status
from deepseek_grpc._session.frames import FRAME_BYTES, FRAME_OVERHEAD, Outbox, going_away
from deepseek_grpc.errors import (
    DeadlineExceededError,
    DeepSeekError,
    InternalError,
    RequestTooLargeError,
    ServiceUnavailableError,
    StreamInterruptedError,
)
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["DEADLINE_GRACE", "ClientSession", "ClientTurn", "deadline_ms", "restated"]

DEADLINE_GRACE: Final = 0.25
"""Seconds that a client waits beyond a turn's deadline, which the gateway keeps, for a gateway that can't."""


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
        self._max_frame_bytes = min(max_message_bytes - 2 * FRAME_OVERHEAD, FRAME_BYTES)
        self._out: Outbox[pb.SessionRequest] = Outbox(pb.SessionRequest)
        self._turns: dict[int, ClientTurn] = {}
        self._last_id = 0
        self._begun = False
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
        """Queues the next credential, before every turn that waits to start."""
        batch = self._out.urgent if self._begun else self._out.batch  # nothing goes before Open
        batch(len(token)).frames.add().auth.token = token

    def take(self) -> pb.SessionRequest | None:
        """Returns the next batch to write, or None."""
        self._begun = True
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
        advice=error.__dict__.get("advice") if same else None,
    )
