"""What a chat's user types: messages of one line or several, with line editing and a history that is kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

__all__ = ["Keyboard", "history_file", "read_message"]

_HISTORY_LINES: Final = 1000
_PROMPT: Final = "> "
_CONTINUED: Final = "... "
_QUOTES: Final = '"""'


def read_message(read_line: Callable[[str], str]) -> str:
    r'''Reads a message: one line, lines that end with a backslash and the one after them, or lines between `"""`.

    `read_line` takes the prompt. Raises EOFError when there is no more; in the midst of a message, that is its end.

    >>> lines = iter(["one\\", "two", '"""three', '', 'four"""'])
    >>> read_message(lambda _: next(lines)), read_message(lambda _: next(lines))
    ('one\ntwo', 'three\n\nfour')
    '''
    line = read_line(_PROMPT)
    lines = []
    try:
        if line.startswith(_QUOTES):
            line = line[len(_QUOTES) :]
            while not line.endswith(_QUOTES):
                lines.append(line)
                line = read_line(_CONTINUED)
            line = line.removesuffix(_QUOTES)
        else:
            while line.endswith("\\"):
                lines.append(line[:-1])
                line = read_line(_CONTINUED)
        lines.append(line)
    except EOFError:
        pass
    return "\n".join(lines).strip("\n")


def history_file() -> Path:
    """Returns where the history is kept: under XDG_STATE_HOME, or ~/.local/state (XDG Base Directory 0.8)."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if Path(state).is_absolute() else Path("~/.local/state").expanduser()
    return folder / "deepseek-grpc" / "history"


class Keyboard:
    """Line editing by readline, on a terminal.

    Args:
        commands: Completed by the tab key.
        history: The file to keep what is typed in, readable by its owner only; None keeps nothing.

    Attributes:
        problem: Why there is no history, or empty.
    """

    def __init__(self, commands: Sequence[str], history: Path | None) -> None:
        import readline

        self._readline = readline
        self._commands = commands
        self._history = history
        self.problem = ""
        readline.set_history_length(_HISTORY_LINES)
        readline.set_completer_delims(" ")
        readline.set_completer(self._complete)
        readline.parse_and_bind("tab: complete")
        # What is pasted is one input, its line ends included; Python switches this off by itself.
        readline.parse_and_bind("set enable-bracketed-paste on")
        if history is not None:
            try:
                history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(history, os.O_RDWR | os.O_CREAT, 0o600))
                history.chmod(0o600)
                readline.read_history_file(history)
            except OSError as error:
                self._history = None
                self.problem = f"the history isn't kept: {history}: {error.strerror or error}"

    def read(self) -> str:
        """Reads a message; raises EOFError at Ctrl-D, KeyboardInterrupt at Ctrl-C."""
        try:
            return read_message(input)
        finally:
            self._keep()

    def _keep(self) -> None:
        if self._history is not None:
            try:
                self._readline.write_history_file(self._history)
            except OSError:
                self._history = None  # the disk is full, or the folder gone: no reason to end the chat

    def _complete(self, text: str, state: int) -> str | None:
        found = [command for command in self._commands if text and command.startswith(text)]
        return found[state] if state < len(found) else None
