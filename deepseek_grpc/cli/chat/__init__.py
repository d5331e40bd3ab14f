"""`deepseek-grpc chat`: a conversation."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from deepseek_grpc import GenerateOptions
from deepseek_grpc.cli.common import AsJson, Target, connect, reporting
from deepseek_grpc.cli.inputs import SOURCES, read_inputs

__all__ = ["chat"]


def chat(
    *,
    model: Annotated[
        str | None, typer.Option(help="The model's id or alias; the gateway's default if not given.")
    ] = None,
    system: Annotated[str | None, typer.Option(help=f"A system message; {SOURCES}.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 to 2; 0 takes the likeliest token.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="The most tokens of an answer.")] = None,
    thinking: Annotated[
        bool | None, typer.Option("--thinking/--no-thinking", help="Whether it reasons first; the model's own default.")
    ] = None,
    no_history: Annotated[
        bool, typer.Option("--no-history", help="Keep nothing of what is typed after the program ends.")
    ] = False,
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """Talks with a model.

    Ctrl-C cancels an answer, Ctrl-D leaves; /help lists the commands.

    Where standard input or output is no terminal, each line is a turn and the answers are plain text.

    What is typed is kept in ~/.local/state/deepseek-grpc/history (or under XDG_STATE_HOME), for the arrow keys.

    Example: deepseek-grpc chat --system @persona.txt --temperature 0.7
    """
    with reporting(as_json=as_json):
        from deepseek_grpc.cli.chat.conversation import Conversation
        from deepseek_grpc.cli.chat.talk import Talk

        if system in ("-", "@-"):
            raise typer.BadParameter("standard input is the conversation; give '@FILE'", param_hint="--system")
        (system_message,) = read_inputs({"--system": system})
        options: GenerateOptions = {"temperature": temperature, "max_tokens": max_tokens, "thinking": thinking}
        conversation = Conversation(system_message or "", model or "")
        interactive = not as_json and sys.stdin.isatty() and sys.stdout.isatty()
        with connect(target) as client:
            talk = Talk(client, conversation, options)
            code = talk.on_terminal(keep_history=not no_history) if interactive else talk.on_pipe(as_json=as_json)
        if code:
            raise typer.Exit(code)
