# Mirrored by scripts/unasync.py from deepseek_grpc/_async/stream.py: edit that and run `make sync`.
"""A streamed answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from deepseek_grpc._codec.answer import StreamDecoder
from deepseek_grpc._codec.continuation import Continuation
from deepseek_grpc._codec.structured import with_parsed
from deepseek_grpc._session.exchange import Exchange
from deepseek_grpc._transport import sync as transport
from deepseek_grpc._transport import sync_session as sessions
from deepseek_grpc.errors import ClosedError, DeepSeekError, StreamInterruptedError
from deepseek_grpc.types import Completion, Event, TextDelta

__all__ = ["TextStream"]


class TextStream:
    """A streamed answer: iterate over its events once, then ask for `final()`.

    Leaving the `with` block, or `cancel()`, ends the generation at the gateway and its backend too. A loop that was
    left with `break` can be taken up by another one. What is iterated over is a loop's own iterator, so single steps go
    over one that was made of the stream, not over the stream itself.

    How it ended stays: after an error, `final()` and every further loop raise that error again. `cancel()` is an end
    without an error, and `final()` then has what had come; leaving the `with` block before the end is not, and they
    raise ClosedError. Each of these errors has the text that had come in `partial`.

    Example:
        >>> def example(client: Client) -> None:
        ...     with client.text.stream("Tell me a story") as stream:
        ...         for event in stream:
        ...             match event:
        ...                 case TextDelta(text) | ReasoningDelta(text):
        ...                     print(text, end="")
        ...                 case Finished(reason, usage):
        ...                     print(f"[{reason}, {usage.total_tokens} tokens]")
    """

    def __init__(
        self,
        source: transport.Messages | sessions.Turn,
        request_id: str,
        *,
        logprobs: bool = False,
        output: Any = None,
        continuation: Continuation[transport.Messages | sessions.Turn] | None = None,
        asked: Exchange | None = None,
    ) -> None:
        self._source = source
        self._asked = asked
        self._continuation = continuation
        self._output = output
        self._decoder = StreamDecoder(request_id, logprobs=logprobs)
        self._ready: Iterator[Event] = iter(())
        self._pieces = 0
        self._over = False
        self._error: DeepSeekError | None = None
        self.request_id = request_id
        """The id that errors and the gateway's log repeat."""

    def __iter__(self) -> Iterator[Event]:
        """Yields `Started`, deltas, `Finished`; ends early, without an error, after `cancel()`.

        Raises:
            FirstTokenTimeoutError: No content began in time.
            IdleTimeoutError: Content stopped.
            DeadlineExceededError: The total time is over.
            StreamInterruptedError: The stream was cut, and the answer isn't or can't be continued (`on_interrupt`).
            ClosedError: The client was closed, or the stream was left before its end.
            DeepSeekError: See `deepseek_grpc.errors`. All of them have the text so far in `partial`.
        """
        while True:
            for event in self._ready:
                yield event
            if not self._read():
                return

    def _read(self) -> bool:
        """Takes the next batch in; returns whether there was one."""
        decoder = self._decoder
        chunks = None
        if not self._over:
            try:
                chunks = self._source.read()
            except DeepSeekError as error:
                return self._go_on(error)
            except BaseException:
                # Cancellation and KeyboardInterrupt: nobody reads on, and what was to come is lost.
                self._leave()
                raise
        if chunks is None:
            if not self._over and not decoder.finished:
                return self._go_on(
                    StreamInterruptedError(
                        "the stream ended before the answer did", request_id=self.request_id, attempts=1
                    )
                )
            self._over = True
            if self._error is not None:
                raise self._error
            return False
        self._ready = iter(decoder.feed(chunks))
        if decoder.pieces != self._pieces:
            self._pieces = decoder.pieces
            self._source.content()
        else:
            self._source.pause()
        return True

    def _go_on(self, error: DeepSeekError) -> bool:
        """Takes what comes after an error: the rest of the answer from elsewhere, or the end; returns as `_read` does.

        The stream may have been ended meanwhile, and then that counts.
        """
        if self._over:
            pass
        elif self._continuation is None:
            self._end(error)
        else:
            try:
                rest = self._continuation.after(error, self._decoder)
            except DeepSeekError as last:
                self._end(last)
            except BaseException:
                self._leave()
                raise
            else:
                if isinstance(rest, list):
                    self._over = True
                    self._ready = iter(rest)
                    return True
                self._source = rest
                if not self._over:
                    return True
                rest.cancel()  # whoever ended the stream has cancelled the source before this one
        if self._error is not None:
            raise self._error
        return False

    def _end(self, error: DeepSeekError) -> None:
        """Keeps what the stream ends with, unless it has ended."""
        if not self._over:
            self._over = True
            error.partial = self._decoder.text
            self._error = error

    def _leave(self) -> None:
        """Keeps that nobody waited for the end, unless it had come."""
        if not self._decoder.finished:
            self._end(ClosedError("the stream was left before its end", request_id=self.request_id))
        self._over = True

    def text(self) -> Iterator[str]:
        """Yields the pieces of text alone.

        Example:
            >>> def example(stream: TextStream) -> None:
            ...     for piece in stream.text():
            ...         print(piece, end="")
        """
        for event in self:
            if isinstance(event, TextDelta):
                yield event.text

    def final(self) -> Completion:
        """Reads the rest and returns the whole answer.

        After `cancel()` it is what had come, with the finish reason `cancelled`, and not parsed.

        Raises:
            OutputError: The answer doesn't fit `output`; it is raised here only, not by a loop over the events.
            ClosedError: The `with` block was left, or a reader cancelled, before the answer had ended.
            DeepSeekError: What reading raised, now or before.

        Example:
            >>> def example(stream: TextStream) -> None:
            ...     for piece in stream.text():
            ...         print(piece, end="")
            ...     answer = stream.final()
            ...     print(f"[{answer.finish_reason}, {answer.usage.total_tokens} tokens]")
        """
        try:
            while self._read():
                pass
        finally:
            self._ready = iter(())
        completion = self._completion()
        if self._output is None or not self._decoder.finished:
            return completion
        return with_parsed(completion, self._output)

    def _completion(self) -> Completion:
        """Returns what has come; of a session's turn as what another one can continue."""
        completion, source = self._decoder.completion("cancelled"), self._source
        if not isinstance(source, sessions.Turn):
            return completion
        turn = self._asked
        if turn is not None and self._decoder.finished and not self._decoder.continued:
            turn = turn.at(source.session_id, source.turn_id)
        return replace(completion, meta=replace(completion.meta, resumed=source.resumed), turn=turn)

    def so_far(self) -> Completion | None:
        """Returns the answer of a stream that is over, as far as it had come; None while it goes on.

        A session's `parent=` asks for it: a turn that the user interrupted can be continued like any other.

        Example:
            >>> def example(session: Session) -> None:
            ...     with session.stream("Tell me a story") as stream:
            ...         for piece in stream.text():
            ...             stream.cancel()
            ...     print(stream.so_far().text)
        """
        return self._completion() if self._over or self._decoder.finished else None

    def cancel(self) -> None:
        """Ends the generation here, at the gateway and at its backend; the loop over the events ends without an error.

        Any thread may call it; a session stays up.

        Example:
            >>> def example(stream: TextStream) -> None:
            ...     for piece in stream.text():
            ...         print(piece, end="")
            ...         stream.cancel()  # the first piece is enough
            ...     assert (stream.final()).finish_reason in ("cancelled", "stop")
        """
        self._over = True
        self._source.cancel()

    def close(self) -> None:
        """Cancels the generation unless it is over.

        Example:
            >>> def example(client: Client) -> None:
            ...     stream = client.text.stream("Tell me a story")
            ...     try:
            ...         print((stream.final()).text)
            ...     finally:
            ...         stream.close()
        """
        self._leave()
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
