"""The responses of a server-streaming call over grpc.aio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc.aio

from deepseek_grpc._call import CallOptions, ContentWatch, weakly
from deepseek_grpc.errors import ClosedError, DeadlineExceededError, DeepSeekError

if TYPE_CHECKING:
    from deepseek_grpc._codec.observe import Observation
    from deepseek_grpc._transport.aio import Link
    from deepseek_grpc._transport.places import AsyncPlaces
    from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["Messages", "cancellations"]


def cancellations() -> int:
    """Returns how often this task was cancelled: more than before means that whoever cancelled it wants the error.

    The number alone says nothing, because in the cleanup of a cancelled task it isn't zero.
    """
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


class Messages:
    """The responses of a server-streaming call, each a batch of chunks.

    It is begun at once; where it needs a place and none is free, when it is first read.
    """

    __slots__ = (
        "__weakref__",
        "_asked",
        "_call",
        "_cancelled",
        "_ended",
        "_link",
        "_loop",
        "_name",
        "_observation",
        "_places",
        "_refused",
        "_request",
        "_rpc",
        "_seen",
        "_service",
        "_settled",
        "_timeout",
        "_timer",
        "_token",
        "_watch",
    )

    def __init__(self, link: Link, service: Callable[[Any], Any], name: str, request: Any, call: CallOptions) -> None:
        self._ended = True  # until it stands
        self._link = link
        self._service = service
        self._name = name
        self._request = request
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._asked: asyncio.Future[None] | None = None
        self._rpc: Any = None
        self._token: str | None = None
        self._watch = ContentWatch(call.timeouts)
        self._timer: asyncio.TimerHandle | None = None
        self._timeout: DeadlineExceededError | None = None
        self._cancelled = False
        self._settled = False
        self._refused = 0
        self._seen = False
        self._places = link.room().places
        self._observation = link.observe(service, name, request, call)
        self._ended = False
        if self._places is not None and not self._places.take():
            self._asked = self._places.ask()
            return
        try:
            self._begin()
        except BaseException as error:
            self._end(error)
            raise

    def _begin(self) -> None:
        """Makes the call, with the time that is left, and has its content watched."""
        link, call = self._link, self._call
        self._token = link.token()
        left, wire = call.left(), link.room().wire
        self._rpc = wire.method(self._service, self._name)(
            self._request,
            timeout=left,
            metadata=link.sent(call, self._token),
            credentials=link.own_credentials(self._token),
            wait_for_ready=call.wait_for_ready,
        )
        wire.track(self._rpc)
        self._watch = ContentWatch(call.timeouts)
        if self._watch.active:
            self._check()

    def _check(self) -> None:
        wait = self._watch.check(self._loop.time())
        if wait > 0:
            self._timer = self._loop.call_later(wait, weakly(self._check))
        else:
            self._timeout = self._watch.error(self._call.request_id)
            self._rpc.cancel()

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def content(self) -> None:
        """Tells the watch that the last batch had content in it."""
        self._seen = True
        self._watch.content()

    def pause(self) -> None:
        """Tells the watch that there was no content in the last batch."""
        self._watch.pause(self._loop.time())

    async def read(self) -> Sequence[pb.GenerateChunk] | None:
        """Returns the next batch, or None at the end; raises a DeepSeekError."""
        if self._ended:
            return None
        before = cancellations()
        try:
            chunks = await self._next()
        except DeepSeekError as error:
            self._end(error)
            raise
        except asyncio.CancelledError as error:
            if self._rpc is not None:  # which isn't always cancelled with the reader
                self._rpc.cancel()
            outcome: DeepSeekError | None = self._timeout
            if outcome is None and self._link.closed and not self._cancelled:
                outcome = ClosedError("the client was closed during the stream", request_id=self._call.request_id)
            if cancellations() > before or (outcome is None and not self._cancelled):  # the latter: by itself
                self._end(error)
                raise
            self._end(outcome)
            if outcome is not None:
                raise outcome from None
            return None
        except BaseException as error:
            self._end(error)
            raise
        if chunks is None:
            self._end()
        elif self._observation is not None:
            self._observation.chunks(chunks)
        return chunks

    async def _next(self) -> Sequence[pb.GenerateChunk] | None:
        if self._asked is not None:
            await self._link.wait_for_place(self._asked, self._call)
            self._asked = None
            self._begin_unless_cancelled()
        self._watch.waiting(self._loop.time())
        while True:
            try:
                message = await self._rpc.read()
            except grpc.aio.AioRpcError as error:
                failure = self._link.error(error, self._call.request_id, content=self._seen)
                failure.attempts += self._refused
                if self._settled or not self._link.renews(failure, self._token):
                    raise failure from error
                self._settled = True  # one renewal is enough
                self._refused = failure.attempts
            else:
                self._settled = True
                return None if message is grpc.aio.EOF else message.chunks
            self._stop_watching()
            await self._link.fetch(self._call)
            self._begin_unless_cancelled()
            self._watch.waiting(self._loop.time())

    def _begin_unless_cancelled(self) -> None:
        if self._cancelled:
            raise asyncio.CancelledError
        self._begin()

    def cancel(self) -> None:
        """Ends the call; from any task of its event loop."""
        if not self._ended:
            self._cancelled = True
            if self._rpc is not None:
                self._rpc.cancel()
            self._end()

    async def aclose(self) -> None:
        """Cancels the call unless it is over."""
        self.cancel()

    def __del__(self) -> None:
        # grpc.aio keeps a call alive that nobody holds. The collector runs in any thread, the call in its loop's.
        if self._ended:
            return
        try:
            self._loop.call_soon_threadsafe(_forget, self._rpc, self._places, self._asked, self._observation)
        except RuntimeError:  # its loop is closed, and so the call is over
            if self._observation is not None:
                self._observation.end(cancelled=True)

    def _end(self, error: BaseException | None = None) -> None:
        if self._ended:  # by `cancel`, from another task
            return
        self._ended = True
        self._stop_watching()
        if self._places is not None:
            _leave(self._places, self._asked)
        if self._observation is not None:
            self._observation.end(error, cancelled=self._cancelled)


def _leave(places: AsyncPlaces, asked: asyncio.Future[None] | None) -> None:
    """Gives a stream's place back, or the question for one."""
    if asked is None:
        places.give()
    else:
        places.withdraw(asked)


def _forget(
    rpc: Any, places: AsyncPlaces | None, asked: asyncio.Future[None] | None, observation: Observation | None
) -> None:
    """Ends what is left of a stream that nobody holds any more."""
    if rpc is not None:
        rpc.cancel()
    if places is not None:
        _leave(places, asked)
    if observation is not None:
        observation.end(cancelled=True)
