"""The responses of a server-streaming call over grpc's threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc

from deepseek_grpc._call import CallOptions, ContentWatch, weakly
from deepseek_grpc._transport.timers import Timer, timers
from deepseek_grpc.errors import ClosedError, DeadlineExceededError, DeepSeekError

if TYPE_CHECKING:
    from deepseek_grpc._transport.places import Places
    from deepseek_grpc._transport.sync import Link
    from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["Messages"]


class Messages:
    """The responses of a server-streaming call, each a batch of chunks.

    It is begun at once; where it needs a place and none is free, when it is first read.
    """

    __slots__ = (
        "__weakref__",
        "_call",
        "_cancelled",
        "_ended",
        "_held",
        "_link",
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
        self._held: list[Callable[[], None]] = []
        self._rpc: Any = None
        self._token: str | None = None
        self._watch = ContentWatch(call.timeouts)
        self._timer: Timer | None = None
        self._timeout: DeadlineExceededError | None = None
        self._cancelled = False
        self._settled = False
        self._refused = 0
        self._seen = False
        self._places = link.places
        self._observation = link.observe(service, name, request, call)
        self._ended = False
        try:
            if self._places is None:
                self._begin()
            elif self._places.take():
                self._held.append(self._places.give)
                self._begin()
        except BaseException as error:
            self._end(error)
            raise

    def _begin(self) -> None:
        """Makes the call, with the time that is left, and has its content watched."""
        link, call = self._link, self._call
        self._token = link.token()
        left, wire = call.left(), link.wire()
        self._held.append(wire.leave)
        try:
            self._rpc = wire.method(self._service, self._name)(
                self._request,
                timeout=left,
                metadata=link.sent(call, self._token),
                credentials=link.own_credentials(self._token),
                wait_for_ready=call.wait_for_ready,
            )
        except ValueError:
            if link.closed:
                raise ClosedError("the client is closed", request_id=call.request_id) from None
            raise
        if self._cancelled:  # from another thread, while there was nothing to cancel
            self._rpc.cancel()
        self._watch = ContentWatch(call.timeouts)
        if self._watch.active:
            self._check()

    def _check(self) -> None:
        now = time.monotonic()
        wait = self._watch.check(now)
        if wait > 0:
            self._timer = timers.at(now + wait, weakly(self._tick))
        else:
            self._timeout = self._watch.error(self._call.request_id)
            self._rpc.cancel()

    def _tick(self) -> None:
        if not self._ended:
            self._check()

    def _stop_watching(self) -> None:
        if self._timer is not None:
            timers.cancel(self._timer)

    def content(self) -> None:
        """Tells the watch that the last batch had content in it."""
        self._seen = True
        self._watch.content()

    def pause(self) -> None:
        """Tells the watch that there was no content in the last batch."""
        self._watch.pause(time.monotonic())

    def read(self) -> Sequence[pb.GenerateChunk] | None:
        """Returns the next batch, or None at the end; raises a DeepSeekError."""
        if self._ended:
            return None
        try:
            chunks = self._next()
        except DeepSeekError as error:
            self._end(error)
            raise
        except BaseException as error:
            # KeyboardInterrupt, above all: nobody will read on.
            self._cancel()
            self._end(error)
            raise
        if chunks is None:
            self._end()
        elif self._observation is not None:
            self._observation.chunks(chunks)
        return chunks

    def _next(self) -> Sequence[pb.GenerateChunk] | None:
        if self._rpc is None and self._places is not None and not self._admit(self._places):
            return None
        self._watch.waiting(time.monotonic())
        while True:
            try:
                message = next(self._rpc)
            except StopIteration:
                return None
            except grpc.RpcError as error:
                if self._timeout is not None:
                    raise self._timeout from None
                if self._cancelled:
                    return None
                failure = self._link.error(error, self._call.request_id, content=self._seen)
                failure.attempts += self._refused
                if self._settled or not self._link.renews(failure, self._token):
                    raise failure from error
                self._settled = True  # one renewal is enough
                self._refused = failure.attempts
            else:
                self._settled = True
                return message.chunks  # type: ignore[no-any-return]
            self._stop_watching()
            self._link.fetch(self._call)
            if self._cancelled:
                return None
            self._begin()
            self._watch.waiting(time.monotonic())

    def _admit(self, places: Places) -> bool:
        """Waits for a place and begins; returns whether it did, or was cancelled."""
        if not places.wait(self._call.left(), lambda: self._cancelled or self._link.closed):
            if self._cancelled:
                return False
            raise self._link.left_outside(self._call)
        self._held.append(places.give)
        if self._cancelled:
            return False
        self._begin()
        return True

    def cancel(self) -> None:
        """Ends the call; from any thread."""
        if not self._ended:
            self._cancelled = True
            self._cancel()
            self._end()

    def _cancel(self) -> None:
        if self._rpc is not None:
            self._rpc.cancel()
        elif self._places is not None:
            self._places.wake()

    def close(self) -> None:
        """Cancels the call unless it is over."""
        self.cancel()

    def __del__(self) -> None:
        if not self._ended:
            self.close()

    def _end(self, error: BaseException | None = None) -> None:
        self._ended = True
        self._stop_watching()
        with suppress(IndexError):  # given back already, perhaps by another thread: `pop` is atomic
            while True:
                self._held.pop()()
        if self._observation is not None:
            self._observation.end(error, cancelled=self._cancelled)
