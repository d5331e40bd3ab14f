"""What both ends share: the bounds of frames and batches, the outbox, the go-away."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from deepseek_grpc.errors import (
    ServiceUnavailableError,
)
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["BATCH_BYTES", "FRAME_BYTES", "FRAME_OVERHEAD", "MAX_FRAMES", "Outbox", "going_away"]

BATCH_BYTES: Final = 256 * 1024
"""A batch takes no further frame beyond this size; a bigger frame travels alone."""
FRAME_BYTES: Final = 8 * 1024 * 1024
"""No frame is larger than this."""
MAX_FRAMES: Final = 10_000
"""No message has more frames than this."""

FRAME_OVERHEAD: Final = 28
"""Bytes counted for what surrounds a frame. It keeps batches of the smallest frames below MAX_FRAMES too."""
Batch = TypeVar("Batch", pb.SessionRequest, pb.SessionResponse)


class Outbox(Generic[Batch]):
    """Collects frames into batches, in place: a frame is filled in where it will be sent from."""

    __slots__ = ("_make", "_open_bytes", "_queue", "queued_bytes")

    def __init__(self, make: Callable[[], Batch]) -> None:
        self._make: Callable[[], Batch] = make
        self._queue: deque[tuple[Batch, int]] = deque()
        self._open_bytes = 0  # bytes in the newest batch
        self.queued_bytes = 0

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

    def take(self) -> Batch | None:
        """Returns the oldest batch, or None."""
        if not self._queue:
            return None
        batch, size = self._queue.popleft()
        self.queued_bytes -= size
        return batch


def going_away(request_id: str = "") -> ServiceUnavailableError:
    """Makes the error of a turn that was started after the gateway had asked to move."""
    return ServiceUnavailableError(
        "the gateway is about to go; open another session", reason="GOING_AWAY", request_id=request_id
    )
