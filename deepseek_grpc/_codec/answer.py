"""What comes back: whole answers, the chunks of a stream, models. Both directions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

from deepseek_grpc._codec.message import decode_tool_calls, encode_message, text_of
from deepseek_grpc._codec.usage import decode_upstream, decode_usage, encode_upstream, encode_usage
from deepseek_grpc.errors import InternalError, InvalidRequestError
from deepseek_grpc.types import (
    Completion,
    Event,
    Finished,
    FinishReason,
    Meta,
    Model,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Upstream,
)
from deepseek_rpc.v2 import text_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

__all__ = [
    "StreamDecoder",
    "collect",
    "decode_completion",
    "decode_models",
    "encode_completion",
    "encode_event",
    "encode_models",
]

_REASONS: Final[dict[str, pb.FinishReason]] = {
    "stop": pb.FINISH_REASON_STOP,
    "length": pb.FINISH_REASON_LENGTH,
    "tool_calls": pb.FINISH_REASON_TOOL_CALLS,
    "content_filter": pb.FINISH_REASON_CONTENT_FILTER,
    "insufficient_system_resource": pb.FINISH_REASON_INSUFFICIENT_SYSTEM_RESOURCE,
}
_REASON_NAMES: Final[dict[int, str]] = {value: name for name, value in _REASONS.items()}

_NOWHERE: Final = Upstream()


_fill_text = vars(TextDelta)["text"].__set__
_fill_logprobs = vars(TextDelta)["logprobs"].__set__


def _text_deltas(texts: list[str]) -> list[Event]:
    """Makes a TextDelta of each text, without a Python frame for each: they are made once a token."""
    events: list[Event] = list(map(object.__new__, repeat(TextDelta, len(texts))))
    deque(map(_fill_text, events, texts), 0)
    deque(map(_fill_logprobs, events, repeat(())), 0)
    return events


class StreamDecoder:
    """Turns a stream's chunks into events and keeps what the whole answer is made of."""

    __slots__ = (
        "_calls",
        "_finished",
        "_logprobs",
        "_reasoning",
        "_reasoning_logprobs",
        "_request_id",
        "_started",
        "_text",
        "_thought_at",
        "_want_logprobs",
        "continued",
        "heads",
        "lost",
        "pieces",
    )

    def __init__(self, request_id: str, *, logprobs: bool = False) -> None:
        self._request_id = request_id
        self._want_logprobs = logprobs
        self._started: Started | None = None
        self._finished: Finished | None = None
        self._text: list[str] = []
        self._reasoning: list[str] | None = None
        self._calls: dict[int, list[str]] = {}
        self._logprobs: list[TokenLogprob] = []
        self._reasoning_logprobs: list[TokenLogprob] = []
        self._thought_at = 0  # how many pieces of text had come before the latest of reasoning
        self.pieces = 0
        """How many pieces of content (text, reasoning, tool calls) have come."""
        self.heads = 0
        """How many answers have begun: each continues the one before, and the stream has the first one's head."""
        self.lost = 0
        """How many tokens have come of answers whose tail never did; the last one's usage has them added."""
        self.continued = 0
        """How many answers begin with the text of those before."""

    @property
    def finished(self) -> bool:
        """Whether the answer is complete."""
        return self._finished is not None

    @property
    def in_text(self) -> bool:
        """Whether what came last is text, and nothing before it a tool call."""
        return len(self._text) > self._thought_at and not self._calls

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    def feed(self, chunks: Sequence[pb.GenerateChunk]) -> list[Event]:
        """Returns the events of a batch of chunks."""
        if not self._want_logprobs:
            texts = [chunk.text for chunk in chunks]
            if all(texts):
                # The common case, once a token: nothing but text, and nothing else is looked at.
                self._text += texts
                self.pieces += len(texts)
                return _text_deltas(texts)
        found = [self._text_event(chunk) if chunk.text else self._event(chunk) for chunk in chunks]
        return [event for event in found if event is not None]

    def _text_event(self, chunk: pb.GenerateChunk) -> TextDelta:
        self.pieces += 1
        self._text.append(chunk.text)
        logprobs = _decode_logprobs(chunk.logprobs)
        self._logprobs += logprobs
        return TextDelta(chunk.text, logprobs)

    def _event(self, chunk: pb.GenerateChunk) -> Event | None:
        match chunk.WhichOneof("event"):
            case "reasoning":
                if self._reasoning is None:
                    self._reasoning = []
                if not chunk.reasoning:  # no content, but it tells an empty reasoning from none
                    return None
                self.pieces += 1
                self._thought_at = len(self._text)
                self._reasoning.append(chunk.reasoning)
                logprobs = _decode_logprobs(chunk.logprobs)
                self._reasoning_logprobs += logprobs
                return ReasoningDelta(chunk.reasoning, logprobs)
            case "tool_call":
                self.pieces += 1
                return self._tool_call(chunk.tool_call)
            case "tail":
                self._finished = _decode_tail(chunk.tail, self.lost)
                return self._finished
            case "head":
                head = chunk.head
                self.heads += 1
                if self._started is not None:
                    return None
                self._started = Started(head.id, head.created, head.model, head.system_fingerprint)
                return self._started
            case _:
                return None  # a newer gateway's event, or an empty piece: not for us

    def _tool_call(self, delta: pb.ToolCallDelta) -> ToolCallDelta:
        call = self._calls.setdefault(delta.index, ["", "", ""])
        call[0] += delta.id
        call[1] += delta.name
        call[2] += delta.arguments_json
        return ToolCallDelta(delta.index, delta.id, delta.name, delta.arguments_json)

    def completion(self, finish_reason: FinishReason = "") -> Completion:
        """Returns the answer as far as it has come; `finish_reason` stands in where the stream gave none."""
        started = self._started or Started()
        finished = self._finished or Finished(finish_reason)
        return Completion(
            text=self.text,
            finish_reason=finished.finish_reason,
            usage=finished.usage,
            meta=Meta(
                request_id=self._request_id,
                id=started.id,
                created=started.created,
                model=started.model,
                system_fingerprint=started.system_fingerprint,
                upstream=finished.upstream,
                extra_json=finished.extra_json,
                continued=self.continued,
            ),
            reasoning=None if self._reasoning is None else "".join(self._reasoning),
            tool_calls=tuple(ToolCall(*self._calls[index]) for index in sorted(self._calls)),
            logprobs=tuple(self._logprobs),
            reasoning_logprobs=tuple(self._reasoning_logprobs),
        )


def _decode_tail(tail: pb.GenerateTail, lost: int) -> Finished:
    usage = decode_usage(tail.usage)
    if lost:
        completed = usage.completion_tokens + lost
        usage = replace(usage, completion_tokens=completed, total_tokens=usage.prompt_tokens + completed)
    return Finished(
        _REASON_NAMES.get(tail.finish_reason, tail.raw_finish_reason),
        usage,
        decode_upstream(tail.upstream),
        tail.extra_json,
    )


def encode_event(event: Event, upstream: Upstream, chunk: pb.GenerateChunk) -> None:
    """Fills in a chunk; `upstream` goes into the last one of a stream."""
    match event:
        case TextDelta():
            chunk.text = event.text
            if event.logprobs:
                _encode_logprobs(event.logprobs, chunk.logprobs)
        case ReasoningDelta():
            chunk.reasoning = event.text
            if event.logprobs:
                _encode_logprobs(event.logprobs, chunk.logprobs)
        case ToolCallDelta(index, call_id, name, arguments):
            chunk.tool_call.index = index
            chunk.tool_call.id = call_id
            chunk.tool_call.name = name
            chunk.tool_call.arguments_json = arguments
            chunk.tool_call.SetInParent()
        case Started(answer_id, created, model, fingerprint):
            chunk.head.id = answer_id
            chunk.head.created = created
            chunk.head.model = model
            chunk.head.system_fingerprint = fingerprint
            chunk.head.SetInParent()
        case Finished(reason, usage, _, extra):
            tail = chunk.tail
            tail.finish_reason, tail.raw_finish_reason = _encode_reason(reason)
            encode_usage(usage, tail.usage)
            encode_upstream(upstream, tail.upstream)
            tail.extra_json = extra


def decode_completion(
    response: pb.GenerateResponse | pb.CompleteFimResponse,
    request_id: str,
    *,
    resumed: int = 0,
    attempts: int = 1,
    turn: Any = None,
) -> Completion:
    """Makes a Completion of a whole answer; `resumed`, `attempts` and `turn` are of one that came in a session."""
    upstream = decode_upstream(response.upstream)
    if attempts > 1:
        upstream = replace(upstream, attempts=attempts)
    if isinstance(response, pb.CompleteFimResponse):
        message = pb.Message(content=response.text)
        reasoning_logprobs: tuple[TokenLogprob, ...] = ()
    else:
        message = response.message
        reasoning_logprobs = _decode_logprobs(response.reasoning_logprobs)
    return Completion(
        text=message.content,
        finish_reason=_REASON_NAMES.get(response.finish_reason, response.raw_finish_reason),
        usage=decode_usage(response.usage),
        meta=Meta(
            request_id,
            response.id,
            response.created,
            response.model,
            response.system_fingerprint,
            upstream,
            response.extra_json,
            resumed,
        ),
        reasoning=message.reasoning_content if message.HasField("reasoning_content") else None,
        tool_calls=decode_tool_calls(message.tool_calls),
        logprobs=_decode_logprobs(response.logprobs),
        reasoning_logprobs=reasoning_logprobs,
        turn=turn,
    )


def encode_completion(
    completion: Completion, upstream: Upstream, response: pb.GenerateResponse | pb.CompleteFimResponse
) -> None:
    """Fills in a whole answer; `upstream` says where it came from."""
    meta = completion.meta
    response.id = meta.id
    response.created = meta.created
    response.model = meta.model
    response.system_fingerprint = meta.system_fingerprint
    response.extra_json = meta.extra_json
    try:
        if isinstance(response, pb.CompleteFimResponse):
            response.text = text_of("text", completion.text)
        else:
            encode_message(completion.message, response.message)
            if completion.reasoning_logprobs:
                _encode_logprobs(completion.reasoning_logprobs, response.reasoning_logprobs)
    except InvalidRequestError as error:  # the backend's fault, not the caller's
        raise InternalError(f"the answer can't be sent: {error.details}") from error
    response.finish_reason, response.raw_finish_reason = _encode_reason(completion.finish_reason)
    encode_usage(completion.usage, response.usage)
    encode_upstream(upstream, response.upstream)
    if completion.logprobs:
        _encode_logprobs(completion.logprobs, response.logprobs)


def collect(events: Iterable[Event]) -> Completion:
    """Makes a Completion of a whole stream of events: how an engine that only streams answers a unary call."""
    batch = pb.StreamGenerateResponse()
    for event in events:
        encode_event(event, _NOWHERE, batch.chunks.add())
    decoder = StreamDecoder("", logprobs=True)
    decoder.feed(batch.chunks)
    return decoder.completion()


def _encode_reason(reason: str) -> tuple[pb.FinishReason, str]:
    known = _REASONS.get(reason)
    return (pb.FINISH_REASON_UNSPECIFIED, reason) if known is None else (known, "")


def _decode_logprobs(logprobs: Sequence[pb.TokenLogprob]) -> tuple[TokenLogprob, ...]:
    if not logprobs:
        return ()
    return tuple(
        TokenLogprob(entry.token, entry.logprob, entry.token_bytes, _decode_logprobs(entry.top)) for entry in logprobs
    )


def _encode_logprobs(logprobs: Sequence[TokenLogprob], out: RepeatedCompositeFieldContainer[pb.TokenLogprob]) -> None:
    for entry in logprobs:
        added = out.add(token=entry.token, logprob=entry.logprob, token_bytes=entry.token_bytes)
        if entry.top:
            _encode_logprobs(entry.top, added.top)


def decode_models(response: pb.ListModelsResponse) -> list[Model]:
    """Makes the list of models."""
    return [
        Model(
            model.id,
            model.owned_by,
            model.backend,
            model.description,
            tuple(model.aliases),
            model.context_length,
            model.extra_json,
        )
        for model in response.models
    ]


def encode_models(models: Iterable[Model], default_model: str) -> pb.ListModelsResponse:
    """Makes the answer to ListModels."""
    response = pb.ListModelsResponse(default_model=default_model)
    for model in models:
        response.models.add(
            id=model.id,
            owned_by=model.owned_by,
            backend=model.backend,
            description=model.description,
            aliases=model.aliases,
            context_length=model.context_length,
            extra_json=model.extra_json,
        )
    return response
