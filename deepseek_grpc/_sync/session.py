# Mirrored by scripts/unasync.py from deepseek_grpc/_async/session.py: edit that and run `make sync`.
"""A session: many generations over one stream."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Self, Unpack

from deepseek_grpc._call import Timeout, call_options
from deepseek_grpc._codec.answer import decode_completion
from deepseek_grpc._codec.checks import request_limit
from deepseek_grpc._codec.continuation import Continuation, OnInterrupt, continues, seeded
from deepseek_grpc._codec.fim import CompleteOptions, encode_complete
from deepseek_grpc._codec.request import GenerateOptions, Prompt, encode_generate
from deepseek_grpc._codec.structured import with_parsed
from deepseek_grpc._session.exchange import Exchange, parent_of
from deepseek_grpc._sync.stream import TextStream
from deepseek_grpc._transport import sync as transport
from deepseek_grpc._transport import sync_session as sessions
from deepseek_grpc.types import UNSET, Completion

__all__ = ["Session"]


class Session:
    """One bidirectional stream that carries any number of generations at once.

    What is ready travels together, so that many concurrent generations cost far less than a call each. Every start is
    authorised like a call, and a renewed credential goes along by itself.

    A session outlives its connection. When that is lost, it is taken up again within moments, and nothing is lost or
    comes twice (`Meta.resumed` counts). When the gateway's process is lost, or asks to move, another one takes over:
    what had not begun is started there, and a streamed generation that had is continued from the text so far
    (`on_interrupt`, `Meta.continued`). After `ClientConfig.reconnect_seconds` without success its turns raise; the next
    one tries anew.

    A turn that nobody reads stops its own generation after 64 KiB, and no other.

    Use it in a `with` block: an open session holds a stream here and at the gateway.

    Example:
        >>> def example(client: Client) -> None:
        ...     with client.text.session() as session:
        ...         with session.stream("What is TLS?") as tls, session.stream("What is JWT?") as jwt:
        ...             print((tls.final()).text, (jwt.final()).text)  # both were under way at once
    """

    def __init__(self, link: transport.Link, driver: sessions.SessionDriver) -> None:
        self._link = link
        self._max_bytes = request_limit(link.config.max_message_bytes)
        self._driver = driver

    @property
    def session_id(self) -> str:
        """The gateway's id of the session, for logs; empty until it has answered. It changes when the session moves."""
        return self._driver.session_id

    def generate(
        self,
        prompt: Prompt,
        *,
        parent: TextStream | Completion | None = None,
        timeout: Timeout = UNSET,
        request_id: str | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Completion:
        """Generates one answer and returns it whole; see `client.text.generate`.

        Args:
            prompt: What to answer; with a parent only what is new.
            parent: A stream or an answer of a session, whose conversation this one continues: its messages and its
                answer come before the prompt, without being sent again. Options, tools among them, aren't inherited.
            timeout: Total seconds, or a Timeouts; None for no limit.
            request_id: Repeated by errors and logs; made up if not given.
            **options: See `GenerateOptions`.

        Raises:
            InvalidRequestError: A field is wrong, or the parent is not over or no session's.
            DeepSeekError: See `deepseek_grpc.errors`.

        Example:
            >>> def example(session: Session) -> None:
            ...     answer = session.generate("What is TLS?", max_tokens=40)
            ...     shorter = session.generate("Shorter, please.", parent=answer)
            ...     print(shorter.text)
        """
        call = call_options(self._link.config, timeout, None, request_id)
        request = encode_generate(prompt, request_id=call.request_id, max_bytes=self._max_bytes, **options)
        before = parent_of(parent, request)
        turn = self._driver.start(request, call, stream=False, parent=before)
        completion = decode_completion(
            turn.result(),
            call.request_id,
            resumed=turn.resumed,
            attempts=turn.tries,
            turn=Exchange(request, before, turn.session_id, turn.turn_id),
        )
        output = options.get("output")
        return completion if output is None else with_parsed(completion, output)

    def stream(
        self,
        prompt: Prompt,
        *,
        parent: TextStream | Completion | None = None,
        on_interrupt: OnInterrupt = UNSET,
        timeout: Timeout = UNSET,
        request_id: str | None = None,
        **options: Unpack[GenerateOptions],
    ) -> TextStream:
        """Starts a generation and returns its stream at once; see `client.text.stream`, and `generate` for `parent`.

        Cancelling it ends the turn and leaves the session up: that is how a user interrupts. What had come until then
        is a parent like any other.

        Example:
            >>> def example(session: Session) -> None:
            ...     with session.stream("Tell me a story") as stream:
            ...         for piece in stream.text():
            ...             print(piece, end="")
            ...             stream.cancel()
            ...     answer = session.generate("A shorter one, please.", parent=stream)
        """
        goes_on = continues(on_interrupt, self._link.config.on_interrupt)
        call = call_options(self._link.config, timeout, None, request_id)
        if goes_on:
            options = seeded(options)
        request = encode_generate(prompt, request_id=call.request_id, max_bytes=self._max_bytes, **options)
        before = parent_of(parent, request)
        again = partial(self._driver.start, call=call, stream=True, parent=before)
        return TextStream(
            again(request),
            call.request_id,
            logprobs=request.logprobs,
            output=options.get("output"),
            continuation=Continuation(request, again) if goes_on else None,
            asked=Exchange(request, before),
        )

    def complete(
        self,
        prompt: str,
        *,
        suffix: str | None = None,
        timeout: Timeout = UNSET,
        request_id: str | None = None,
        **options: Unpack[CompleteOptions],
    ) -> Completion:
        """Completes the text between a prompt and a suffix and returns it whole; see `client.text.complete`.

        Example:
            >>> def example(session: Session) -> None:
            ...     filled = session.complete("def fib(n):", suffix="    return a", max_tokens=64)
            ...     print(filled.text)
        """
        call = call_options(self._link.config, timeout, None, request_id)
        request = encode_complete(
            prompt, suffix=suffix, request_id=call.request_id, max_bytes=self._max_bytes, **options
        )
        turn = self._driver.start(request, call, stream=False)
        return decode_completion(turn.result(), call.request_id, resumed=turn.resumed, attempts=turn.tries)

    def stream_complete(
        self,
        prompt: str,
        *,
        suffix: str | None = None,
        timeout: Timeout = UNSET,
        request_id: str | None = None,
        **options: Unpack[CompleteOptions],
    ) -> TextStream:
        """Starts a completion and returns its stream at once; see `client.text.stream_complete`.

        Example:
            >>> def example(session: Session) -> None:
            ...     with session.stream_complete("A deadline is", suffix=" of the client.") as stream:
            ...         for piece in stream.text():
            ...             print(piece, end="")
        """
        call = call_options(self._link.config, timeout, None, request_id)
        request = encode_complete(
            prompt, suffix=suffix, request_id=call.request_id, max_bytes=self._max_bytes, **options
        )
        turn = self._driver.start(request, call, stream=True)
        return TextStream(turn, call.request_id, logprobs=request.HasField("logprobs"))

    def close(self) -> None:
        """Closes the session; turns that are not over end in ClosedError.

        Example:
            >>> def example(client: Client) -> None:
            ...     session = client.text.session()
            ...     try:
            ...         print((session.generate("What is TLS?")).text)
            ...     finally:
            ...         session.close()
        """
        self._driver.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
