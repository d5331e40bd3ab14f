"""What begins with a slash."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from deepseek_grpc import Client
from deepseek_grpc.cli.chat.conversation import Conversation, save
from deepseek_grpc.cli.chat.screen import Screen

__all__ = ["COMMANDS", "QuitChat", "perform"]

COMMANDS: Final = {
    "/help": ("", "shows this"),
    "/system": ("TEXT", "sets the system message, - removes it; without TEXT shows it"),
    "/model": ("NAME", "sets the model; without NAME shows it, and which there are"),
    "/history": ("", "shows the conversation"),
    "/save": ("FILE", "writes the conversation into a file, as Markdown (.md) or JSON (.json)"),
    "/save!": ("FILE", "the same, also over a file that is there"),
    "/reset": ("", "forgets the conversation; the system message stays"),
    "/quit": ("", "leaves"),
}
"""What each command takes, and what it does."""


class QuitChat(Exception):  # noqa: N818 - no error: the user wants to leave
    """Ends a chat."""


def perform(line: str, conversation: Conversation, client: Client, screen: Screen) -> None:
    """Performs the command that a line begins with.

    Raises:
        QuitChat: It was `/quit`.
        DeepSeekError: It failed.
    """
    name, _, argument = line.partition(" ")
    argument = argument.strip()
    match name:
        case "/help":
            _help(screen)
        case "/system" if argument == "-":
            conversation.system = ""
            screen.tell("there is no system message any more, from the next turn on")
        case "/system" if argument:
            conversation.system = argument
            screen.tell("the system message is set, from the next turn on")
        case "/system":
            screen.tell(
                f"system message: {conversation.system}" if conversation.system else "there is no system message"
            )
        case "/model" if argument:
            conversation.model = argument
            screen.tell(f"the model is {argument}, from the next turn on")
        case "/model":
            screen.tell(f"model: {conversation.model or 'the default of the gateway'}")
            screen.tell(f"there are: {', '.join(model.id for model in client.text.models())}")
        case "/history" if conversation.messages:
            screen.review(conversation.messages)
        case "/history":
            screen.tell("nothing has been said yet")
        case "/save" | "/save!" if argument:
            save(conversation.messages, Path(argument), overwrite=name.endswith("!"))
            screen.tell(f"saved {len(conversation.messages)} messages to {argument}")
        case "/save" | "/save!":
            screen.tell(f"give a file's name, for example {name} chat.md")
        case "/reset":
            conversation.turns.clear()
            screen.tell("the conversation begins anew")
        case "/quit":
            raise QuitChat
        case _:
            screen.tell(
                f"there is no command {name!r}; /help lists them (a space before it makes a message of the line)"
            )


def _help(screen: Screen) -> None:
    for name, (takes, does) in COMMANDS.items():
        screen.tell(f"{name} {takes}".ljust(14) + does)
    screen.tell('A line that ends with a backslash goes on in the next; """ begins and ends a message of many lines.')
    screen.tell("What is pasted is one message, however many lines, where the terminal marks it (bracketed paste).")
    screen.tell("Ctrl-C cancels an answer, Ctrl-D leaves.")
