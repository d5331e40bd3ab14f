"""How an answer is printed: its text as it comes, or events as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from deepseek_grpc import (
    Completion,
    Event,
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
    TextStream,
    ToolCallDelta,
)
from deepseek_grpc.cli.common import emit, note, say

__all__ = ["print_stream", "print_whole"]


def print_whole(ask: Callable[[], Completion], *, as_json: bool) -> Completion:
    """Asks for an answer and prints it once it is there."""
    begun = time.perf_counter()
    answer = ask()
    seconds = time.perf_counter() - begun
    if not as_json:
        with _lines() as write:
            write(answer.text)
        _say_tool_calls(answer)
        note(f"{seconds * 1000:.0f} ms, {_summary(answer)}")
        return answer
    if answer.reasoning:
        emit("reasoning", text=answer.reasoning)
    if answer.text:
        emit("text", text=answer.text)
    for index, call in enumerate(answer.tool_calls):
        emit("tool_call", index=index, **asdict(call))
    _emit_end(answer)
    return answer


def print_stream(stream: TextStream, *, as_json: bool) -> Completion:
    """Prints an answer as it comes, and ends its last line also when an error comes in between."""
    begun = time.perf_counter()
    first: float | None = None
    with stream, _lines() as write:
        for event in stream:
            if first is None and not isinstance(event, Started):
                first = time.perf_counter()
            if as_json:
                _emit(event)
            elif isinstance(event, TextDelta):
                write(event.text)
            elif isinstance(event, ReasoningDelta):
                note(event.text, end="")
        answer = stream.final()
    ended = time.perf_counter()
    if as_json:
        _emit_end(answer)
        return answer
    _say_tool_calls(answer)
    if first is not None:
        # The first token opens the span that the others are counted over.
        rate = (answer.usage.completion_tokens - 1) / (ended - first)
        pace = f"{rate:.0f} tokens/s, " if rate > 0 else ""
        note(f"first token {(first - begun) * 1000:.1f} ms, {pace}{_summary(answer)}")
    return answer


@contextmanager
def _lines() -> Iterator[Callable[[str], None]]:
    """Gives a function that prints pieces of text; the last line is ended, also when an error comes in between."""
    last = "\n"

    def write(piece: str) -> None:
        nonlocal last
        last = piece[-1:] or last  # first: Ctrl-C comes at any time, and what may be on the screen counts
        say(piece, end="")

    try:
        yield write
    finally:
        if last != "\n":
            say("")


def _say_tool_calls(answer: Completion) -> None:
    for call in answer.tool_calls:
        say(f"{call.name}({call.arguments})")


def _summary(answer: Completion) -> str:
    usage = answer.usage
    ended = "" if answer.finish_reason == "stop" else f", ended by {answer.finish_reason}"
    return f"{usage.prompt_tokens} + {usage.completion_tokens} tokens, {answer.meta.model}{ended}"


def _emit(event: Event) -> None:
    match event:
        case Started():
            emit("started", **asdict(event))
        case TextDelta(text):
            emit("text", text=text)
        case ReasoningDelta(text):
            emit("reasoning", text=text)
        case ToolCallDelta():
            emit("tool_call", **asdict(event))
        case Finished():
            pass  # `_emit_end` knows more


def _emit_end(answer: Completion) -> None:
    emit("finished", finish_reason=answer.finish_reason, usage=asdict(answer.usage), meta=asdict(answer.meta))
