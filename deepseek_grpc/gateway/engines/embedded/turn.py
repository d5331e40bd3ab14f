"""One turn of the model: what it says in answer to a request, in which order, and all of it put together."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from deepseek_grpc.gateway.engines.embedded.generation import start
from deepseek_grpc.gateway.engines.embedded.model import Model
from deepseek_grpc.gateway.engines.embedded.prompt import analyze, asked_words, beginning
from deepseek_grpc.gateway.engines.embedded.reasoning import Reasoning, Turn
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
    prompt = yield from analyze(model, request)
    words: list[str] = []
    if request.thinking or request.tools:
        words = asked_words(request)
        yield
    turn: Turn
    tool = (yield from choose(request, words)) if request.tools else None
    if tool is not None:
        turn = yield from call(request, tool, words, seed, prompt.tokens)
    else:
        turn = yield from start(model, request, prompt, seed)
    if not request.thinking:
        return turn
    if beginning(request) is not None:  # It reasoned when it began.
        turn.reasoned(0)
        return turn
    return Reasoning(model, request, prompt, words, seed, turn)


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
