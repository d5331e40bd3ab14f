"""One turn of the model: what it says in answer to a request, in which order, and all of it put together."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from deepseek_grpc.errors import InvalidRequestError, UnimplementedError
from deepseek_grpc.gateway.engines.embedded.arguments import instance
from deepseek_grpc.gateway.engines.embedded.generation import start
from deepseek_grpc.gateway.engines.embedded.model import Model
from deepseek_grpc.gateway.engines.embedded.prompt import analyze, asked_words, beginning
from deepseek_grpc.gateway.engines.embedded.reasoning import Reasoning, Turn
from deepseek_grpc.gateway.engines.embedded.sampling import Draws
from deepseek_grpc.gateway.engines.embedded.schema import parse
from deepseek_grpc.gateway.engines.embedded.tokens import chunks
from deepseek_grpc.gateway.engines.embedded.tools import call, choose
from deepseek_grpc.types import (
    Completion,
    Event,
    Finished,
    GenerateRequest,
    Meta,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCall,
    ToolCallDelta,
)

__all__ = ["Turn", "collect", "take_turn"]


def take_turn(model: Model, request: GenerateRequest, seed: int) -> Generator[None, None, Turn]:
    """Reads a request; pauses at every yield; returns what generates the reasoning, the call or the answer."""
    if request.thinking:
        _check_thinking(request)
    prompt = yield from analyze(model, request)
    words: list[str] = []
    form = request.response_format
    schema = form.schema if form is not None and form.type == "json_schema" else None
    if request.thinking or request.tools or schema is not None:
        words = asked_words(request)
        yield
    turn: Turn
    tool = (yield from choose(request, words)) if request.tools else None
    if tool is not None:
        turn = yield from call(request, tool, words, seed, prompt.tokens)
    else:
        if schema is not None:
            prompt.frame = yield from _written(request, schema, words, seed, prompt.before)
        turn = yield from start(model, request, prompt, seed)
    if not request.thinking:
        return turn
    if beginning(request) is not None:  # It reasoned when it began.
        turn.reasoned(0)
        return turn
    return Reasoning(model, request, prompt, words, seed, turn)


def _check_thinking(request: GenerateRequest) -> None:
    """Refuses what DeepSeek's thinking models refuse, so that a client learns of it offline."""
    choice = request.tool_choice
    if choice is not None and (choice.function or choice.mode == "required"):
        raise _invalid(
            "tool_choice", "makes a tool be called, which thinking excludes; give auto, or leave thinking out"
        )
    for index, message in enumerate(request.messages):
        if message.tool_calls and message.reasoning_content is None:
            raise _invalid(
                f"messages[{index}].reasoning_content",
                "is missing; with thinking, a message that calls tools goes back with the reasoning that it came with",
            )


def _invalid(field: str, problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field} {problem}", metadata={"field": field})


def _written(
    request: GenerateRequest, schema: str, words: Sequence[str], seed: int, before: str
) -> Generator[None, None, list[str]]:
    """Makes the JSON that a schema asks for, in tokens; what comes `before` is its beginning already."""
    document = parse(schema)
    yield
    greedy = request.temperature == 0  # Then chance has no say.
    text = yield from instance(document, words, Draws(0 if greedy else seed, "instance"))
    if not text.startswith(before):
        raise UnimplementedError("embedded-ngram can't continue JSON that it didn't begin itself, with the same seed")
    pieces: list[str] = []
    for chunk in chunks(text[len(before) :]):
        pieces += chunk
        yield
    return pieces


def collect(events: Sequence[Event], request_id: str) -> Completion:
    """Puts the events of a turn together."""
    started, finished = Started(), Finished("")
    texts: list[TextDelta] = []
    reasons: list[ReasoningDelta] = []
    calls: dict[int, ToolCall] = {}
    for event in events:
        if isinstance(event, TextDelta):
            texts.append(event)
        elif isinstance(event, ReasoningDelta):
            reasons.append(event)
        elif isinstance(event, ToolCallDelta):
            known = calls.get(event.index, ToolCall(event.id, event.name, ""))
            calls[event.index] = ToolCall(known.id, known.name, known.arguments + event.arguments)
        elif isinstance(event, Started):
            started = event
        else:
            finished = event
    return Completion(
        text="".join(delta.text for delta in texts),
        finish_reason=finished.finish_reason,
        usage=finished.usage,
        meta=Meta(
            request_id=request_id,
            id=started.id,
            created=started.created,
            model=started.model,
            system_fingerprint=started.system_fingerprint,
            upstream=finished.upstream,
        ),
        reasoning="".join(delta.text for delta in reasons) or None,
        tool_calls=tuple(calls.values()),
        logprobs=tuple(logprob for delta in texts for logprob in delta.logprobs),
        reasoning_logprobs=tuple(logprob for delta in reasons for logprob in delta.logprobs),
    )
