"""`deepseek-grpc generate`: asks for an answer and prints it as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer

from deepseek_grpc import (
    UNSET,
    Client,
    Completion,
    Event,
    Finished,
    GenerateOptions,
    ReasoningDelta,
    Started,
    TextDelta,
    Timeouts,
    ToolCallDelta,
)
from deepseek_grpc.cli.common import AsJson, Target, connect, emit, note, read_argument, reporting, say

__all__ = ["generate"]


def generate(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to answer; '-' reads it from standard input.")],
    *,
    model: Annotated[
        str | None, typer.Option(help="The model's id or alias; the gateway's default if not given.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The most tokens to generate.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 to 2; 0 takes the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Above 0, at most 1.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A string that ends the answer; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable where the backend can.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for the whole answer.", show_default="600")] = None,
    first_token_timeout: Annotated[
        float | None, typer.Option(help="Seconds until the answer begins.", show_default="30")
    ] = None,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Ask for the answer whole.")] = False,
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """Generates an answer and prints it as it comes."""
    with reporting(as_json=as_json):
        options: GenerateOptions = {
            "model": model,
            "system_message": system,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "stop": stop or None,
            "seed": seed,
        }
        limits = Timeouts(
            total=UNSET if timeout is None else timeout,
            first_token=UNSET if first_token_timeout is None else first_token_timeout,
        )
        text = read_argument(prompt, "PROMPT")
        with connect(target) as client:
            ask = _whole if no_stream else _streamed
            ask(client, text, limits, options, as_json=as_json)


def _whole(client: Client, prompt: str, limits: Timeouts, options: GenerateOptions, *, as_json: bool) -> None:
    begun = time.perf_counter()
    answer = client.text.generate(prompt, timeout=limits, **options)
    seconds = time.perf_counter() - begun
    if not as_json:
        with _lines() as write:
            write(answer.text)
        note(f"{seconds * 1000:.0f} ms, {_summary(answer)}")
        return
    if answer.reasoning:
        emit("reasoning", text=answer.reasoning)
    if answer.text:
        emit("text", text=answer.text)
    _emit_end(answer)


def _streamed(client: Client, prompt: str, limits: Timeouts, options: GenerateOptions, *, as_json: bool) -> None:
    begun = time.perf_counter()
    first: float | None = None
    with client.text.stream(prompt, timeout=limits, **options) as stream, _lines() as write:
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
    elif first is not None:
        # The first token opens the span that the others are counted over.
        rate = (answer.usage.completion_tokens - 1) / (ended - first)
        pace = f"{rate:.0f} tokens/s, " if rate > 0 else ""
        note(f"first token {(first - begun) * 1000:.1f} ms, {pace}{_summary(answer)}")


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
