"""What both ends share: the bounds of frames and batches, and the line that numbers, keeps and repeats messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from deepseek_grpc.errors import DeepSeekError, ServiceUnavailableError
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = [
    "BATCH_BYTES",
    "CREDIT_BYTES",
    "FRAME_BYTES",
    "FRAME_OVERHEAD",
    "HIGH_WATER",
    "MAX_FRAMES",
    "REPLAY_BYTES",
    "Budget",
    "Line",
    "going_away",
]

BATCH_BYTES: Final = 256 * 1024
"""A batch takes no further frame beyond this size; a bigger frame travels alone."""
FRAME_BYTES: Final = 8 * 1024 * 1024
"""No frame is larger than this."""
MAX_FRAMES: Final = 10_000
"""No message has more frames than this."""
CREDIT_BYTES: Final = 64 * 1024
"""What a client lets a streamed turn send before it has taken any of it."""
REPLAY_BYTES: Final = 4 * 1024 * 1024
"""What a session keeps of messages that weren't acknowledged, and the most credit that a turn may have."""

HIGH_WATER: Final = 1024 * 1024
"""What waits to be written beyond this has to be made later."""

FRAME_OVERHEAD: Final = 28
"""Bytes counted for what surrounds a frame. It keeps batches of the smallest frames below MAX_FRAMES too."""

_ACK_MESSAGES: Final = 16
_ACK_BYTES: Final = 64 * 1024
"""After so much, an acknowledgement doesn't wait for a message that it can ride on."""

Batch = TypeVar("Batch", pb.SessionRequest, pb.SessionResponse)


class Budget:
    """The bytes that several sessions may keep together."""

    __slots__ = ("__weakref__", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @property
    def spent(self) -> bool:
        """Whether there is nothing left."""
        return self.used >= self.limit


class Line(Generic[Batch]):
    """One end's messages: those that wait, those that weren't acknowledged yet, and how far the other end's have come.

    Frames are collected in batches, in place: a frame is filled in where it will be sent from. In a session that is
    `numbered`, a message is kept until the other end has acknowledged it, and sent again after a resume.

    Args:
        make: Makes an empty batch.
        breach: Makes the error to raise when the other end breaks the rules, of a field and what is wrong with it.
        budget: What the session shares with others; by default it has one of its own.
    """

    __slots__ = (
        "_again",
        "_breach",
        "_budget",
        "_heard",
        "_heard_bytes",
        "_make",
        "_open_bytes",
        "_queue",
        "_seq",
        "_told",
        "_unacked",
        "numbered",
        "queued_bytes",
        "unacked_bytes",
    )

    def __init__(
        self, make: Callable[[], Batch], breach: Callable[[str, str], DeepSeekError], budget: Budget | None = None
    ) -> None:
        self._make: Callable[[], Batch] = make
        self._breach = breach
        self._budget = budget or Budget(REPLAY_BYTES)
        self._queue: deque[tuple[Batch, int]] = deque()
        self._open_bytes = 0  # bytes in the newest batch
        self._unacked: deque[bytes] = deque()
        self._again: deque[bytes] = deque()
        self._seq = 0  # of the last message sent
        self._heard = 0  # of the last message received
        self._told = 0  # what the other end knows of that
        self._heard_bytes = 0  # since then
        self.numbered = False
        self.queued_bytes = 0
        self.unacked_bytes = 0

    def batch(self, size: int) -> Batch:
        """Returns the batch to add a frame of at most this size to."""
        size += FRAME_OVERHEAD
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

    def urgent(self, size: int) -> Batch:
        """Returns a batch that goes before everything that waits, for a frame of at most this size."""
        if not self._queue:
            return self.batch(size)
        size += FRAME_OVERHEAD
        self.queued_bytes += size
        batch = self._make()
        self._queue.appendleft((batch, size))
        return batch

    @property
    def held(self) -> bool:
        """Whether what is new has to wait: for what is sent again, or for the other end to acknowledge what it has."""
        if self._again:
            return True
        if not self.numbered or (self.unacked_bytes < REPLAY_BYTES and not self._budget.spent):
            return False
        # What the other end needn't acknowledge by itself may always be under way, or this would be for ever.
        return len(self._unacked) >= _ACK_MESSAGES or self.unacked_bytes >= _ACK_BYTES

    def take(self) -> bytes | None:
        """Returns the next message to write, or None."""
        if self._again:
            return self._again.popleft()
        if self._queue:
            if not self.numbered:
                batch, size = self._queue.popleft()
                self.queued_bytes -= size
                return batch.SerializeToString()
            if not self.held:
                batch, size = self._queue.popleft()
                self.queued_bytes -= size
                self._seq += 1
                batch.seq = self._seq
                return self._keep(self.acknowledging(batch).SerializeToString())
        if self._owes:
            return self.acknowledging(self._make()).SerializeToString()
        return None

    @property
    def _owes(self) -> bool:
        """Whether an acknowledgement doesn't wait any longer."""
        return self._heard - self._told >= _ACK_MESSAGES or self._heard_bytes >= _ACK_BYTES

    @property
    def ready(self) -> bool:
        """Whether there may be something to write."""
        return bool(self._queue or self._again) or self._owes

    def acknowledging(self, batch: Batch) -> Batch:
        """Has a message say what has come."""
        batch.acked_seq = self._told = self._heard
        self._heard_bytes = 0
        return batch

    def _keep(self, data: bytes) -> bytes:
        self._unacked.append(data)
        self.unacked_bytes += len(data)
        self._budget.used += len(data)
        return data

    def accept(self, message: pb.SessionRequest | pb.SessionResponse, size: int) -> bool:
        """Takes note of a message of so many bytes; returns whether its frames are to be looked at.

        Raises:
            DeepSeekError: It isn't the next one, or acknowledges what wasn't sent.
        """
        if not self.numbered:
            return True
        if message.acked_seq:
            self.acknowledged(message.acked_seq)
        seq = message.seq
        if seq != self._heard + 1:
            if seq > self._heard:
                raise self._breach("seq", f"is {seq}, and the last was {self._heard}; messages are counted from 1")
            if seq == 0 and message.frames:
                raise self._breach("seq", "is 0 in a message with frames; in a resumable session these are counted")
            return False  # it has come before
        self._heard = seq
        self._heard_bytes += size
        return True

    def acknowledged(self, seq: int) -> None:
        """Forgets the messages that the other end has."""
        if seq > self._seq:
            raise self._breach("acked_seq", f"is {seq}, and the last message sent was {self._seq}")
        for _ in range(len(self._unacked) - (self._seq - seq)):
            size = len(self._unacked.popleft())
            self.unacked_bytes -= size
            self._budget.used -= size

    def repeat(self, acked_seq: int) -> None:
        """Begins a connection after one that was lost: what the other end doesn't have goes first.

        Raises:
            DeepSeekError: It has what wasn't sent, or lacks what it had acknowledged.
        """
        if acked_seq < self._seq - len(self._unacked):
            first = self._seq - len(self._unacked) + 1
            raise self._breach("acked_seq", f"is {acked_seq}, and messages are kept from {first} only")
        self.acknowledged(acked_seq)
        self._again = deque(self._unacked)

    def revise(self, change: Callable[[Batch], None]) -> None:
        """Changes the messages that are kept, before they are sent again."""
        for place, data in enumerate(self._unacked):
            batch = self._make()
            batch.ParseFromString(data)
            change(batch)
            self._unacked[place] = batch.SerializeToString()
            changed = len(self._unacked[place]) - len(data)
            self.unacked_bytes += changed
            self._budget.used += changed

    def plain(self) -> None:
        """Stops numbering: the other end keeps nothing."""
        self.numbered = False
        self._again.clear()
        self.acknowledged(self._seq)

    @property
    def heard(self) -> int:
        """The `seq` of the last message that came."""
        return self._heard

    def clear(self) -> None:
        """Forgets everything that waits or is kept."""
        self._queue.clear()
        self._again.clear()
        self.queued_bytes = 0
        self.acknowledged(self._seq)


def going_away(request_id: str = "") -> ServiceUnavailableError:
    """Makes the error of a turn that was started after the gateway had asked to move."""
    return ServiceUnavailableError(
        "the gateway is about to go; open another session", reason="GOING_AWAY", request_id=request_id
    )
