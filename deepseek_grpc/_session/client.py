"""The client's end of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, TypeAlias, TypeVar

from google.protobuf.message import DecodeError

from deepseek_grpc._codec.status import decode_status
from deepseek_grpc._session.frames import CREDIT_BYTES, FRAME_BYTES, FRAME_OVERHEAD, HIGH_WATER, Line, going_away
from deepseek_grpc.errors import (
    DeepSeekError,
    InternalError,
    RequestTooLargeError,
    ServiceUnavailableError,
    StreamInterruptedError,
)
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["DEADLINE_GRACE", "ClientSession", "ClientTurn", "Parent", "Work", "restated"]

DEADLINE_GRACE: Final = 0.25
"""Seconds that a client waits beyond a turn's deadline, which the gateway keeps, for a gateway that can't."""

Work: TypeAlias = pb.GenerateRequest | pb.CompleteFimRequest


class Parent:
    """What a turn continues: its number, if this session's gateway may have it, or else the whole conversation."""

    __slots__ = ("messages", "session_id", "turn_id")

    def __init__(self, session_id: str, turn_id: int, messages: Callable[[], Iterable[pb.Message]]) -> None:
        self.session_id = session_id
        self.turn_id = turn_id
        self.messages = messages

    def before(self, request: pb.GenerateRequest) -> pb.GenerateRequest:
        """Returns the request with the conversation before it."""
        whole = pb.GenerateRequest()
        whole.CopyFrom(request)
        own = list(request.messages)
        if request.prompt:
            own.append(pb.Message(role=pb.ROLE_USER, content=request.prompt))
        whole.ClearField("prompt")
        whole.ClearField("messages")
        whole.messages.extend(self.messages())
        whole.messages.extend(own)
        return whole


class ClientTurn:
    """What the client knows of one turn. Drivers derive from it, and wait on it; the machine fills it."""

    __slots__ = (
        "chunks",
        "ended",
        "error",
        "owed",
        "parent",
        "request",
        "request_id",
        "response",
        "seen",
        "stream",
        "tries",
        "turn_id",
    )

    def __init__(self, request: Work, request_id: str, *, stream: bool, parent: Parent | None = None) -> None:
        self.request = request
        self.request_id = request_id
        self.stream = stream
        self.parent = parent
        self.turn_id = 0
        """Its number in the session that it was started in last."""
        self.tries = 0
        """How often it was started."""
        self.chunks: Sequence[pb.GenerateChunk] = ()
        """What came and wasn't taken yet."""
        self.owed = 0
        """The credit to give when that is taken."""
        self.response: pb.GenerateResponse | pb.CompleteFimResponse | None = None
        """The whole answer, of a turn that wasn't streamed."""
        self.error: DeepSeekError | None = None
        self.ended = False
        self.seen = False
        """Whether any chunk has come."""

    def deadline_ms(self) -> int:
        """Returns the milliseconds that it has left, as frames carry them: 0 for no end."""
        return 0

    def wake(self) -> None:
        """Tells the driver that something came, or that it is over."""

    def end(self, error: DeepSeekError) -> None:
        """Ends it, unless it is over."""
        if not self.ended:
            self.ended = True
            self.error = error
            self.wake()


_Turn = TypeVar("_Turn", bound=ClientTurn)


class ClientSession(Generic[_Turn]):
    """The client's end of one session with one gateway, over as many connections as it takes."""

    def __init__(self, *, max_message_bytes: int = 2 * FRAME_BYTES) -> None:
        self._max_frame_bytes = min(max_message_bytes - 2 * FRAME_OVERHEAD, FRAME_BYTES)
        self._line: Line[pb.SessionRequest] = Line(pb.SessionRequest, _breach)
        self._line.numbered = True
        self._turns: dict[int, _Turn] = {}
        self._waiting: dict[int, tuple[_Turn, Work, int, int]] = {}
        self._last_id = 0
        self._greeting: bytes | None = None
        self._resuming = False
        self._token: str | None = None  # the next credential, while it waits
        self._renewed = False  # whether messages that are kept may have one
        self.connected = False
        """Whether the gateway has answered on this connection."""
        self.session_id = ""
        """The gateway's id of the session, once it is open."""
        self.resume_token = ""
        """What takes it up again; empty before it is open, and where the gateway can't."""
        self.resume_seconds = 0.0
        """How long the gateway keeps the session when its connection is lost."""
        self.going_away = False
        """Whether the gateway has asked to move: running turns finish, new ones belong into another session."""
        self.closing = False
        """Whether the session ends as soon as everything is written."""

    def connect(self) -> None:
        """Begins a connection: the first, or one in the place of one that was lost; its credential is the newest."""
        self.connected = False
        self._token = None
        self._resuming = bool(self.resume_token)
        if not self._resuming:  # what was sent ahead on a connection that never stood goes into a new session
            self._repeat(0)
        greeting = self._line.acknowledging(pb.SessionRequest())
        greeting.frames.add().open.resume_token = self.resume_token
        greeting.frames[0].open.resumable = True
        self._greeting = greeting.SerializeToString()

    @property
    def turns(self) -> tuple[_Turn, ...]:
        """Returns those that aren't over."""
        return tuple(self._turns.values())

    @property
    def idle(self) -> bool:
        """Whether no turn is under way."""
        return not self._turns

    @property
    def active(self) -> int:
        """How many there are of them."""
        return len(self._turns)

    @property
    def received(self) -> int:
        """How many of the gateway's messages have come."""
        return self._line.heard

    @property
    def reaches(self) -> bool:
        """Whether what is written now reaches the gateway, as far as one can know here."""
        return self.connected or (self._greeting is None and not self._resuming)

    def start(self, turn: _Turn) -> None:
        """Queues the start of a turn, which waits while the gateway takes what there is more slowly than it is made.

        Raises:
            RequestTooLargeError: It doesn't fit into a frame.
            ServiceUnavailableError: The gateway is about to go; another session will find another gateway.
        """
        if self.going_away:
            raise going_away(turn.request_id)
        request, parent_id = turn.request, 0
        if (parent := turn.parent) is not None and isinstance(request, pb.GenerateRequest):
            if parent.session_id == self.session_id and parent.session_id:
                parent_id = parent.turn_id
            else:
                request = parent.before(request)
        size = request.ByteSize() + 48
        if size > self._max_frame_bytes:
            raise RequestTooLargeError(
                f"the request has {size:,} bytes; the limit within a session is {self._max_frame_bytes:,} bytes",
                request_id=turn.request_id,
            )
        self._last_id += 1
        turn.turn_id = self._last_id
        turn.tries += 1
        self._turns[turn.turn_id] = turn
        if self._waiting or self._line.queued_bytes >= HIGH_WATER:
            self._waiting[turn.turn_id] = (turn, request, parent_id, size)
        else:
            self._encode(turn, request, parent_id, size)

    def _encode(self, turn: _Turn, request: Work, parent_id: int, size: int) -> None:
        frame = self._line.batch(size).frames.add().start
        frame.turn_id = turn.turn_id
        if isinstance(request, pb.GenerateRequest):
            frame.request.CopyFrom(request)
        else:
            frame.completion.CopyFrom(request)
        if turn.stream:
            frame.stream = True
            frame.credit = CREDIT_BYTES
        frame.deadline_ms = turn.deadline_ms()
        frame.parent_turn_id = parent_id

    def cancel(self, turn: _Turn) -> None:
        """Ends a turn here at once, and queues the frame that ends it there."""
        known = self._turns.pop(turn.turn_id, None) is turn
        if known and self._waiting.pop(turn.turn_id, None) is None:
            self._line.batch(16).frames.add().cancel.turn_id = turn.turn_id
        turn.ended = True

    def taken(self, turn: _Turn) -> bool:
        """Gives the credit back for what the application has taken; returns whether there is a frame to be sent."""
        owed, turn.owed = turn.owed, 0
        if not owed or turn.ended:
            return False
        frame = self._line.batch(24).frames.add().credit
        frame.turn_id = turn.turn_id
        frame.bytes = owed
        return True

    def renew(self, token: str) -> None:
        """Queues the next credential, before every turn that waits to start."""
        self._token = token

    def close(self) -> None:
        """Queues the end of the session; its turns are the caller's to end."""
        self.lost()
        self.closing = True
        self._line.batch(8).frames.add().close.SetInParent()

    def take(self) -> bytes | None:
        """Returns the next message to write, or None."""
        if self._greeting is not None:
            greeting, self._greeting = self._greeting, None
            return greeting
        if self._resuming:  # what the gateway has, it says first
            return None
        while self._waiting and self._line.queued_bytes < HIGH_WATER:
            self._encode(*self._waiting.pop(next(iter(self._waiting))))
        if self._token is not None and not self._line.held:
            self._line.urgent(len(self._token)).frames.add().auth.token = self._token
            self._token, self._renewed = None, True
        return self._line.take()

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be written."""
        return self._line.queued_bytes

    @property
    def unacked_bytes(self) -> int:
        """Bytes that the gateway hasn't said to have."""
        return self._line.unacked_bytes

    @property
    def ready(self) -> bool:
        """Whether there may be something to write."""
        return self._token is not None or bool(self._waiting) or self._line.ready

    def receive(self, data: bytes) -> list[_Turn]:
        """Takes a message in and returns the turns that it changed; raises InternalError where it breaks the rules."""
        try:
            message = pb.SessionResponse.FromString(data)
        except DecodeError:
            raise InternalError(f"the gateway sent {len(data)} bytes that are no SessionResponse") from None
        frames = message.frames
        if not self.connected:
            if len(frames) != 1 or not frames[0].HasField("opened"):
                raise InternalError("the gateway didn't answer with Opened")
            self._open(frames[0].opened, message.acked_seq)
            return []
        if not self._line.accept(message, len(data)):
            return []
        turns, changed = self._turns, list[_Turn]()
        for frame in frames:
            kind = frame.WhichOneof("frame")
            if kind == "chunks":
                chunks = frame.chunks
                turn = turns.get(chunks.turn_id)
                if turn is None:
                    continue
                turn.seen = True
                if chunks.spent:
                    turn.owed += chunks.spent
                if not turn.chunks:
                    turn.chunks = chunks.chunks
                elif isinstance(turn.chunks, list):
                    turn.chunks += chunks.chunks
                else:
                    turn.chunks = [*turn.chunks, *chunks.chunks]
            elif kind == "done":
                turn = turns.pop(frame.done.turn_id, None)
                if turn is None:
                    continue
                turn.ended = True
                answer = frame.done.WhichOneof("answer")
                if answer is not None:
                    turn.response = frame.done.response if answer == "response" else frame.done.completion
            elif kind == "error":
                turn = turns.pop(frame.error.turn_id, None)
                if turn is None:
                    continue
                turn.ended = True
                turn.error = decode_status(frame.error.status, turn.request_id)
            else:
                self.going_away = self.going_away or kind == "go_away"
                continue  # or a newer gateway's frame: not for us
            changed.append(turn)
        return changed

    def _open(self, opened: pb.OpenedFrame, acked_seq: int) -> None:
        if self._resuming:
            self._repeat(acked_seq)
            self._resuming = False
        elif not opened.resume_token:
            self._line.plain()
        self.session_id = opened.session_id
        self.resume_token = opened.resume_token
        self.resume_seconds = opened.resume_window_ms / 1000
        self.connected = True

    def _repeat(self, acked_seq: int) -> None:
        if self._renewed:  # the connection's own credential is newer than those of messages that are kept
            self._line.revise(_without_credentials)
            self._renewed = False
        self._line.repeat(acked_seq)

    def again(self, turn: _Turn, error: DeepSeekError) -> bool:
        """Says whether a turn that has failed is only to be started again: with its history, or at another gateway."""
        if error.reason == "PARENT_GONE" and turn.parent is not None and turn.parent.session_id:
            turn.parent.session_id = ""
            return True
        return error.reason == "GOING_AWAY"

    def lost(self) -> tuple[_Turn, ...]:
        """Gives the session up; returns the turns that weren't over, which are the caller's to end or to start anew."""
        turns = self.turns
        self._turns.clear()
        self._waiting.clear()
        self._line.clear()
        return turns


def _breach(field: str, problem: str) -> DeepSeekError:
    return InternalError(f"the gateway broke the session's rules: {field} {problem}")


def _without_credentials(batch: pb.SessionRequest) -> None:
    kept = [frame for frame in batch.frames if not frame.HasField("auth")]
    del batch.frames[:]
    batch.frames.extend(kept)


def restated(error: DeepSeekError, request_id: str, *, cut: bool = False) -> DeepSeekError:
    """Makes of what ended a session the error of one of its turns; `cut`: content had come."""
    cut = cut and isinstance(error, ServiceUnavailableError)
    cls = StreamInterruptedError if cut else type(error)
    return cls(
        error.details,
        code=None if cut else error.code,
        reason=None if cut else error.reason,
        request_id=request_id,
        attempts=max(1, error.attempts),
        retry_after=error.retry_after,
        retryable=None if cut else error.retryable,
        metadata=dict(error.metadata),
        advice=None if cut else error.__dict__.get("advice"),
    )
