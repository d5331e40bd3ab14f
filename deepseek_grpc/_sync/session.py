# Mirrored by scripts/unasync.py from deepseek_grpc/_async/session.py: edit that and run `make sync`.
"""A session: many generations over one stream."""

from __future__ import annotations

from types import TracebackType
from typing import Self, Unpack

from deepseek_grpc._call import Timeout, call_options
from deepseek_grpc._codec.answer import decode_completion
from deepseek_grpc._codec.checks import request_limit
from deepseek_grpc._codec.request import GenerateOptions, Prompt, encode_generate
from deepseek_grpc._codec.structured import with_parsed
from deepseek_grpc._sync.stream import TextStream
from deepseek_grpc._transport import sync as transport
from deepseek_grpc._transport import sync_session as sessions
from deepseek_grpc.types import UNSET, Completion

__all__ = ["Session"]


class Session:
    """One bidirectional stream that carries any number of generations at once.

    What is ready travels together, so that many concurrent generations cost far less than a call each. Every start is
    authorised like a call, and a renewed credential goes along by itself. When the connection is lost, or the gateway
    is about to go, the session ends and its turns raise: open another one.

    Use it in a `with` block: an open session holds a stream here and at the gateway. Turns that nobody reads pile up in
    memory, because there is no flow control for each of them.

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
        """The gateway's id of the session, for logs; empty until it has answered."""
        return self._driver.session_id

    def generate(
        self,
        prompt: Prompt,
        *,
        timeout: Timeout = UNSET,
        request_id: str | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Completion:
        """Generates one answer and returns it whole; see `client.text.generate`.

        Example:
            >>> def example(session: Session) -> None:
            ...     answer = session.generate("What is TLS?", max_tokens=40)
            ...     print(answer.text)
        """
        call = call_options(self._link.config, timeout, None, request_id)
        request = encode_generate(prompt, request_id=call.request_id, max_bytes=self._max_bytes, **options)
        turn = self._driver.start(request, call, stream=False)
        completion = decode_completion(turn.result(), call.request_id)
        output = options.get("output")
        return completion if output is None else with_parsed(completion, output)

    def stream(
        self,
        prompt: Prompt,
        *,
        timeout: Timeout = UNSET,
        request_id: str | None = None,
        **options: Unpack[GenerateOptions],
    ) -> TextStream:
        """Starts a generation and returns its stream at once; see `client.text.stream`.

        Cancelling it ends the turn and leaves the session up.

        Example:
            >>> def example(session: Session) -> None:
            ...     with session.stream("Tell me a story") as stream:
            ...         for piece in stream.text():
            ...             print(piece, end="")
        """
        call = call_options(self._link.config, timeout, None, request_id)
        request = encode_generate(prompt, request_id=call.request_id, max_bytes=self._max_bytes, **options)
        turn = self._driver.start(request, call, stream=True)
        return TextStream(turn, call.request_id, logprobs=request.logprobs, output=options.get("output"))

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
