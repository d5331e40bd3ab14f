"""A chat's conversation, and how it is saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deepseek_grpc.cli.conversation import dump_messages
from deepseek_grpc.errors import InvalidRequestError
from deepseek_grpc.types import Message, assistant, system, user

__all__ = ["Conversation", "save"]

_TITLES: Final = {"system": "System", "user": "User", "assistant": "Assistant", "tool": "Tool"}


@dataclass(slots=True)
class Conversation:
    """What has been said, without the system message, and what the next turn goes by."""

    system: str = ""
    model: str = ""
    turns: list[Message] = field(default_factory=list)

    @property
    def messages(self) -> list[Message]:
        """The whole of it, as a request takes it."""
        return [*([system(self.system)] if self.system else []), *self.turns]

    def add(self, question: str, answer: str) -> None:
        """Adds a turn."""
        self.turns += [user(question), assistant(answer)]


def save(messages: Sequence[Message], path: Path, *, overwrite: bool) -> None:
    """Writes messages into a file, as Markdown (`.md`) or JSON (`.json`).

    Raises:
        InvalidRequestError: The name ends otherwise, the file is there already, or can't be written.
    """
    if path.suffix not in (".md", ".json"):
        raise InvalidRequestError(f"{str(path)!r} ends neither with .md nor with .json; give one of them")
    text = dump_messages(messages) if path.suffix == ".json" else _markdown(messages)
    try:
        with path.expanduser().open("w" if overwrite else "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError as error:
        raise InvalidRequestError(f"{str(path)!r} is there already; /save! overwrites it") from error
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name, a home that nobody has
        raise InvalidRequestError(
            f"cannot write {str(path)!r}: {getattr(error, 'strerror', error)}", advice="Give another place."
        ) from error


def _markdown(messages: Sequence[Message]) -> str:
    return "\n".join(f"## {_TITLES[message.role]}\n\n{str(message.content).strip()}\n" for message in messages)
