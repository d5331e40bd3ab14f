"""`deepseek-grpc generate`: asks for an answer and prints it as it comes."""

from __future__ import annotations

from typing import Annotated

import typer

from deepseek_grpc import UNSET, GenerateOptions, Prompt, Timeouts, Tool, user
from deepseek_grpc.cli.common import AsJson, Target, connect, reporting
from deepseek_grpc.cli.conversation import parse_messages, parse_tools
from deepseek_grpc.cli.inputs import SOURCES, read_inputs
from deepseek_grpc.cli.output import print_stream, print_whole
from deepseek_grpc.errors import InvalidRequestError

__all__ = ["generate"]


def generate(
    prompt: Annotated[str | None, typer.Argument(metavar="PROMPT", help=f"What to answer; {SOURCES}.")] = None,
    *,
    messages: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A conversation that goes before PROMPT: a JSON array of messages, as DeepSeek's API has them; '-' "
            "reads standard input.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model's id or alias; the gateway's default if not given.")
    ] = None,
    system: Annotated[str | None, typer.Option(help=f"A system message; {SOURCES}.")] = None,
    tools: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Tools that it may call: a JSON array, as DeepSeek's API has them."),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The most tokens to generate.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 to 2; 0 takes the likeliest token.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Above 0, at most 1.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A string that ends the answer; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable where the backend can.")] = None,
    thinking: Annotated[
        bool | None, typer.Option("--thinking/--no-thinking", help="Whether it reasons first; the model's own default.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for the whole answer.", show_default="600")] = None,
    first_token_timeout: Annotated[
        float | None, typer.Option(help="Seconds until the answer begins.", show_default="30")
    ] = None,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Ask for the answer whole.")] = False,
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """Generates an answer and prints it as it comes.

    A tool call is printed as NAME(ARGUMENTS). Reasoning is shown where standard error is a terminal, and with --json.

    Example: git diff | deepseek-grpc generate - --system "Review this change" --max-tokens 500
    """
    with reporting(as_json=as_json):
        asked, system_message, offered = _read(prompt, system, messages, tools)
        options: GenerateOptions = {
            "model": model,
            "system_message": system_message,
            "tools": offered,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "stop": stop or None,
            "seed": seed,
            "thinking": thinking,
        }
        limits = Timeouts(
            total=UNSET if timeout is None else timeout,
            first_token=UNSET if first_token_timeout is None else first_token_timeout,
        )
        with connect(target) as client:
            if no_stream:
                print_whole(lambda: client.text.generate(asked, timeout=limits, **options), as_json=as_json)
            else:
                print_stream(client.text.stream(asked, timeout=limits, **options), as_json=as_json)


def _read(
    prompt: str | None, system: str | None, messages: str | None, tools: str | None
) -> tuple[Prompt, str | None, list[Tool] | None]:
    """Returns what is asked, the system message and the tools."""
    question, system_message, conversation, offered = read_inputs(
        {"PROMPT": prompt, "--system": system}, {"--messages": messages, "--tools": tools}
    )
    found = None if offered is None else parse_tools(f"--tools {tools}", offered)
    if conversation is not None:
        earlier = parse_messages(f"--messages {messages}", conversation)
        return [*earlier, *([] if question is None else [user(question)])], system_message, found
    if question is None:
        raise InvalidRequestError("PROMPT is missing; give what to answer, '-' for standard input, or --messages FILE")
    return question, system_message, found
