"""`deepseek-grpc complete`: fills in what is missing between a beginning and an end."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from deepseek_grpc import UNSET, CompleteOptions, Timeouts
from deepseek_grpc.cli.common import AsJson, Target, connect, reporting
from deepseek_grpc.cli.inputs import SOURCES, read_inputs
from deepseek_grpc.cli.output import print_stream, print_whole
from deepseek_grpc.errors import InvalidRequestError

__all__ = ["complete"]


def complete(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help=f"What goes before the gap; {SOURCES}.")
    ] = None,
    *,
    suffix: Annotated[str | None, typer.Option(help=f"What goes after the gap; {SOURCES}.")] = None,
    file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A text with a gap, in the place of PROMPT and --suffix; see --at."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="LINE[:COLUMN]",
            help="Where the gap of --file is, counted from 1: before that column, or at the end of that line.",
            show_default="the file's end",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model's id or alias; the gateway's default if not given.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The most tokens to generate.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 to 2; 0 takes the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Above 0, at most 1.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A string that ends the text; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable where the backend can.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for the whole text.", show_default="600")] = None,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Ask for the text whole.")] = False,
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """Fills in the middle: prints the text that goes between PROMPT and --suffix.

    Example: deepseek-grpc complete --file code.py --at 12:5 --max-tokens 100
    """
    with reporting(as_json=as_json):
        before, after = _read(prompt, suffix, file, at)
        options: CompleteOptions = {
            "model": model,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "stop": stop or None,
            "seed": seed,
        }
        limits = Timeouts(total=UNSET if timeout is None else timeout)
        with connect(target) as client:
            if no_stream:
                print_whole(
                    lambda: client.text.complete(before, suffix=after, timeout=limits, **options), as_json=as_json
                )
            else:
                stream = client.text.stream_complete(before, suffix=after, timeout=limits, **options)
                print_stream(stream, as_json=as_json)


def _read(prompt: str | None, suffix: str | None, file: str | None, at: str | None) -> tuple[str, str]:
    """Returns what goes before the gap and what goes after it."""
    if file is not None:
        if prompt is not None or suffix is not None:
            raise InvalidRequestError("--file holds both sides of the gap; leave PROMPT and --suffix out")
        (content,) = read_inputs({}, {"--file": file})
        return _cut(content or "", at)
    if at is not None:
        raise InvalidRequestError("--at goes with --file")
    before, after = read_inputs({"PROMPT": prompt, "--suffix": suffix})
    if before is None:
        raise InvalidRequestError("PROMPT is missing; give what goes before the gap, '-' for standard input, or --file")
    return before, after or ""


def _cut(text: str, at: str | None) -> tuple[str, str]:
    r"""Cuts a text in two before a column of a line, or at the line's end.

    >>> _cut("ab\ncd\n", "2:2"), _cut("ab\ncd\n", "1"), _cut("ab\n", None)
    (('ab\nc', 'd\n'), ('ab', '\ncd\n'), ('ab\n', ''))
    """
    if at is None:
        return text, ""
    place = re.fullmatch(r"(\d{1,9})(?::(\d{1,9}))?", at, re.ASCII)
    if place is None:
        raise InvalidRequestError(f"--at is {at!r}; give LINE or LINE:COLUMN, counted from 1")
    lines = text.split("\n")
    line = int(place[1])
    if not 1 <= line <= len(lines):
        raise InvalidRequestError(f"--at: there is no line {line}; the file has 1 to {len(lines)}")
    column = len(lines[line - 1]) + 1 if place[2] is None else int(place[2])
    if not 1 <= column <= len(lines[line - 1]) + 1:
        raise InvalidRequestError(f"--at: there is no column {column}; line {line} has 1 to {len(lines[line - 1]) + 1}")
    offset = sum(len(earlier) + 1 for earlier in lines[: line - 1]) + column - 1
    return text[:offset], text[offset:]
