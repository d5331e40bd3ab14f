"""How a streamed answer is sent: what is ready together travels together, what is alone leaves at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import grpc.aio

from deepseek_grpc._codec.answer import encode_event
from deepseek_grpc._session.frames import BATCH_BYTES
from deepseek_grpc.config import MAX_MESSAGE_BYTES
from deepseek_grpc.errors import (
    CancelledByPeerError,
    FailedPreconditionError,
    RateLimitError,
    ServiceUnavailableError,
)
from deepseek_grpc.gateway.engines import TextEngine
from deepseek_grpc.gateway.guard import Call, interruption
from deepseek_grpc.gateway.services.collecting import collect
from deepseek_grpc.types import Event, Finished, Upstream
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["send_batches", "too_large", "upstream_of"]

_BACKLOG_BYTES: Final = 64 * 1024
"""When so much waits for a slow reader, its engine waits too."""
_SLICE_SECONDS: Final = 0.00005
"""So long an engine that doesn't wait goes on by itself; a turn of the event loop costs half of that."""
_ENTRY_BYTES: Final = 5
"""What a chunk costs beside its own bytes: its tag and its length, which is under 2**28."""

_Batch: TypeAlias = pb.StreamGenerateResponse | pb.StreamFimResponse


def upstream_of(engine: TextEngine, call: Call) -> Upstream:
    """Says where an answer comes from that begins now."""
    return Upstream(engine.name, attempts=call.attempts, gateway_ms=call.elapsed_ms())


def too_large(what: str, size: int, hint: str = "") -> FailedPreconditionError:
    """Makes the error of an answer that no message can carry."""
    # gRPC would refuse it with RESOURCE_EXHAUSTED, and clients would have the same answer generated again and again.
    return FailedPreconditionError(
        f"{what} has {size:,} bytes; the limit of a message is {MAX_MESSAGE_BYTES:,} bytes{hint}", reason="TOO_LARGE"
    )


async def send_batches(
    batches: AsyncGenerator[Sequence[Event], None], engine: TextEngine, call: Call, make: Callable[[], _Batch]
) -> None:
    """Sends an engine's batches; a failure after the first one is an interruption."""
    upstream: Upstream | None = None
    try:
        async with _Writer(call.context.write, make) as writer, aclosing(batches):
            async for events in batches:
                if upstream is None:
                    upstream = upstream_of(engine, call)
                await writer.send(events, upstream)
    except (ServiceUnavailableError, RateLimitError) as error:
        if upstream is None:
            raise
        raise interruption(error) from error


class _Writer:
    """Writes beside the engine: what comes while a message is being written is collected in the next.

    The engine stays in the task that it began in, because a generator may hold what belongs to a task (a timeout, a
    cancel scope). The writing has a task of its own, for as long as there is something to write.
    """

    __slots__ = ("_loop", "_make", "_message", "_since", "_size", "_task", "_write")

    def __init__(self, write: Callable[[Any], Any], make: Callable[[], _Batch]) -> None:
        self._write = write
        self._make = make
        self._message = make()
        self._size = 0
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._since = 0.0

    async def send(self, events: Sequence[Event], upstream: Upstream) -> None:
        """Takes a batch; comes back when it is being written or waits for that.

        Raises:
            FailedPreconditionError: An event is too large for a message; those before it are sent.
        """
        chunks = self._message.chunks
        for event in events:
            chunk = chunks.add()
            encode_event(event, upstream, chunk)
            size = chunk.ByteSize() + _ENTRY_BYTES
            if size > MAX_MESSAGE_BYTES:
                del chunks[-1]
                raise too_large("a piece of the answer", size)
            self._size += size
        task = self._task
        if task is None:
            if type(events[-1]) is Finished:  # nothing comes that could be collected
                await self._drain()
            else:
                self._task = self._loop.create_task(self._drain())
                await self._yield()  # it begins to write
        elif self._size >= _BACKLOG_BYTES or task.done():  # the latter when it has failed
            await task
        elif self._loop.time() - self._since > _SLICE_SECONDS:
            await self._yield()

    async def _yield(self) -> None:
        await asyncio.sleep(0)
        self._since = self._loop.time()

    async def _drain(self) -> None:
        try:
            while self._size:
                message, size = self._message, self._size
                self._message, self._size = self._make(), 0
                if size <= BATCH_BYTES:
                    await self._write(message)
                else:
                    for part in _split(message, self._make):
                        await self._write(part)
                if self._size:
                    await collect(lambda: self._size)
        except grpc.aio.InternalError as error:  # there is no call any more, and the handler is about to be cancelled
            raise CancelledByPeerError("the call is over") from error
        self._task = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits until all is written, before an error too; a call that is given up writes nothing more."""
        task = self._task
        if kind is None or issubclass(kind, Exception):
            await (self._drain() if task is None else task)
        elif task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _split(message: _Batch, make: Callable[[], _Batch]) -> Iterator[_Batch]:
    """Yields a batch in parts of the size that batches may have; a chunk that is larger goes alone."""
    part, room = make(), BATCH_BYTES
    for chunk in message.chunks:
        size = chunk.ByteSize() + _ENTRY_BYTES
        if size > room and part.chunks:
            yield part
            part, room = make(), BATCH_BYTES
        part.chunks.append(chunk)
        room -= size
    yield part
