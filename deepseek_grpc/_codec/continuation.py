"""What becomes of a streamed generation that was cut off: the model is asked to go on with the text so far."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, Generic, Literal, TypeAlias, TypeVar

from deepseek_grpc._codec.answer import StreamDecoder
from deepseek_grpc._codec.checks import invalid
from deepseek_grpc._codec.request import GenerateOptions
from deepseek_grpc.errors import (
    ClosedError,
    DeadlineExceededError,
    DeepSeekError,
    ServiceUnavailableError,
    StreamInterruptedError,
)
from deepseek_grpc.types import UNSET, Event, Unset
from deepseek_rpc.v2 import common_pb2
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["Continuation", "OnInterrupt", "continues", "follow_up", "seeded"]

OnInterrupt: TypeAlias = Literal["continue", "raise"] | Unset
"""What users give: one of the words, or nothing for the client's own (`ClientConfig.on_interrupt`)."""

_MOST_IN_VAIN: Final = 3
"""How many requests in a row may be cut off without any content."""

_Source_co = TypeVar("_Source_co", covariant=True)


def continues(on_interrupt: OnInterrupt, default: Literal["continue", "raise"]) -> bool:
    """Says whether a stream goes on after an interruption; raises InvalidRequestError for another word."""
    word = default if on_interrupt is UNSET else on_interrupt
    if word not in ("continue", "raise"):
        raise invalid("on_interrupt", f"is {str(word)[:32]!r}; give 'continue' or 'raise'")
    return word == "continue"


def seeded(options: GenerateOptions) -> GenerateOptions:
    """Returns the options with a seed, so that a backend that honours it goes on as it would have."""
    if options.get("seed") is None:
        options["seed"] = int.from_bytes(os.urandom(8), "big") >> 1  # unlike `random`'s, other ones after a fork
    return options


def follow_up(request: pb.GenerateRequest, text: str, reasoning: str | None, tokens: int) -> pb.GenerateRequest:
    """Makes the request for the rest of an answer of which `text` has come, in so many tokens.

    It is the same request, whose last message is the answer's beginning.
    """
    rest = pb.GenerateRequest()
    rest.CopyFrom(request)
    if rest.prompt:
        rest.messages.add(role=pb.ROLE_USER, content=rest.prompt)
        rest.ClearField("prompt")
    if not rest.messages or not rest.messages[-1].prefix:
        rest.messages.add(role=pb.ROLE_ASSISTANT, prefix=True)
    beginning = rest.messages[-1]
    if not beginning.parts:
        beginning.content += text
    elif beginning.parts[-1].WhichOneof("part") == "text":
        beginning.parts[-1].text += text
    else:
        beginning.parts.add(text=text)
    if reasoning is not None:
        beginning.reasoning_content += reasoning
    if rest.HasField("max_tokens"):
        rest.max_tokens -= tokens
    return rest


class Continuation(Generic[_Source_co]):
    """Goes on with one streamed generation, as often as it is cut off.

    `again` starts a generation and returns the source of its chunks; it may raise a DeepSeekError.
    """

    __slots__ = ("_again", "_attempts", "_cut", "_heads", "_in_vain", "_pieces", "_request")

    def __init__(self, request: pb.GenerateRequest, again: Callable[[pb.GenerateRequest], _Source_co]) -> None:
        self._request = request
        self._again = again
        self._cut: DeepSeekError | None = None  # the latest error that ended a source with content
        self._attempts = 0
        self._in_vain = 0
        self._pieces = self._heads = 0  # of the decoder's, before the source that is read now

    def after(self, error: DeepSeekError, decoder: StreamDecoder) -> _Source_co | list[Event]:
        """Returns the source of the rest; or the rest itself, where nothing is to be generated any more.

        Args:
            error: What the source that was read last has ended with.
            decoder: What all that came was fed to.

        Raises:
            DeepSeekError: The stream ends with it: it can't go on, or isn't to.
        """
        fruitful = decoder.pieces > self._pieces
        began = fruitful or decoder.heads > self._heads
        error.attempts += self._attempts
        if not (began and error.retryable and isinstance(error, StreamInterruptedError | ServiceUnavailableError)):
            raise self._last(error, decoder, fruitful=fruitful)
        if decoder.finished:
            return []  # what was lost is no more than the end of the call
        if decoder.pieces and not decoder.in_text:
            raise error
        if fruitful:
            self._in_vain = 0
        elif self._in_vain == _MOST_IN_VAIN:
            raise self._last(error, decoder, fruitful=False)
        if fruitful or self._cut is None:
            self._cut = error
        self._in_vain += 1
        self._attempts = error.attempts
        self._pieces, self._heads = decoder.pieces, decoder.heads
        try:
            return self._go_on(decoder) if decoder.pieces else self._again(self._request)
        except DeepSeekError as failure:
            failure.attempts += self._attempts
            raise self._last(failure, decoder, fruitful=False)  # noqa: B904 - it has its cause

    def _go_on(self, decoder: StreamDecoder) -> _Source_co | list[Event]:
        """Asks for the rest of a text, unless `max_tokens` leaves nothing of it."""
        so_far = decoder.completion()
        # A piece is a token at least.
        tokens = decoder.lost = max(decoder.pieces, len(so_far.logprobs) + len(so_far.reasoning_logprobs))
        request = self._request
        if request.HasField("max_tokens") and request.max_tokens <= tokens:
            tail = pb.GenerateTail(
                finish_reason=pb.FINISH_REASON_LENGTH, upstream=common_pb2.Upstream(attempts=self._attempts)
            )
            return decoder.feed((pb.GenerateChunk(tail=tail),))
        decoder.continued += 1
        return self._again(follow_up(request, so_far.text, so_far.reasoning, tokens))

    def _last(self, error: DeepSeekError, decoder: StreamDecoder, *, fruitful: bool) -> DeepSeekError:
        """Returns what the stream ends with: of a request for the rest that brought nothing, an interruption."""
        cut = self._cut
        if cut is None or fruitful or not decoder.pieces or isinstance(error, DeadlineExceededError | ClosedError):
            return error
        interruption = StreamInterruptedError(
            f"{cut.details}, and the answer couldn't be continued: {error.details}",
            request_id=error.request_id or cut.request_id,
            attempts=error.attempts,
            retry_after=error.retry_after,
            metadata=dict(cut.metadata),
        )
        interruption.__cause__ = error
        return interruption
