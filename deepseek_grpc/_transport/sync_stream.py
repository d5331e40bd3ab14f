"""The responses of a server-streaming call over grpc's threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc

from deepseek_grpc._call import CallOptions, ContentWatch, weakly
from deepseek_grpc._transport.link import left
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
        "_began",
        "_call",
        "_cancelled",
        "_ended",
        "_held",
        "_link",
        "_method",
        "_observation",
        "_places",
        "_refused",
        "_request",
        "_rpc",
        "_seen",
        "_settled",
        "_timeout",
        "_timer",
        "_token",
        "_watch",
    )

    def __init__(self, link: Link, method: Callable[..., Any], request: Any, call: CallOptions) -> None:
        self._ended = True  # until it stands
        self._link = link
        self._method = method
        self._request = request
        self._call = call
        self._places = link.places
        self._held: list[Places] = []
        if self._places is not None and self._places.take():
            self._held.append(self._places)
        self._rpc: Any = None
        self._token: str | None = None
        self._watch = ContentWatch(call.timeouts)
        self._timer: Timer | None = None
        self._timeout: DeadlineExceededError | None = None
        self._cancelled = False
        self._settled = False
        self._refused = 0
        self._seen = False
        self._began = time.monotonic()
        self._observation = link.observe(method, request, call)
        if self._places is None or self._held:
            try:
                self._begin(call.total)
            except BaseException as error:
                self._end(error)
                raise
        self._ended = False

    def _begin(self, total: float | None) -> None:
        link, call = self._link, self._call
        self._token = link.fetch()
        try:
            self._rpc = self._method(
                self._request,
                timeout=total,
                metadata=link.sent(call, self._token),
                wait_for_ready=call.wait_for_ready,
            )
        except ValueError:
            if link.closed:
                raise ClosedError("the client is closed", request_id=call.request_id) from None
            raise
        if self._watch.active and self._timer is None:
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
                self._begin(left(self._call, self._began, time.monotonic()))
                continue
            self._settled = True
            return message.chunks  # type: ignore[no-any-return]

    def _admit(self, places: Places) -> bool:
        """Waits for a place and begins; returns whether it did, or was cancelled."""
        wait = left(self._call, self._began, time.monotonic())
        if not places.wait(wait, lambda: self._cancelled or self._link.closed):
            if self._cancelled:
                return False
            raise self._link.left_outside(self._call)
        self._held.append(places)
        if self._cancelled:
            return False
        self._begin(left(self._call, self._began, time.monotonic()))
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
        if self._timer is not None:
            timers.cancel(self._timer)
        with suppress(IndexError):  # given back already, perhaps by another thread: `pop` is atomic
            self._held.pop().give()
        if self._observation is not None:
            self._observation.end(error, cancelled=self._cancelled)
