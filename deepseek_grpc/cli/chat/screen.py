"""Where a chat is shown: on a terminal, as plain text, or as JSON."""

from __future__ import annotations

import signal
import sys
import termios
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from deepseek_grpc import Event, ReasoningDelta, TextDelta, TextStream
from deepseek_grpc.cli.common import emit, printable, report, say
from deepseek_grpc.cli.output import print_stream
from deepseek_grpc.errors import DeepSeekError
from deepseek_grpc.types import Message

if TYPE_CHECKING:
    from deepseek_grpc.cli.chat.growing import Growing

__all__ = ["JsonLines", "Plain", "Screen", "Terminal"]


class Screen(Protocol):
    """What a chat needs to be shown."""

    def play(self, stream: TextStream) -> None:
        """Shows an answer as it comes, to its end; Ctrl-C ends it with KeyboardInterrupt."""

    def tell(self, text: str) -> None:
        """Shows what the program has to say."""

    def fail(self, error: DeepSeekError) -> None:
        """Shows an error."""

    def review(self, messages: Sequence[Message]) -> None:
        """Shows a conversation."""


class Plain:
    """Text and nothing but text: for pipes and files."""

    def play(self, stream: TextStream) -> None:
        """Prints an answer as it comes."""
        print_stream(stream, as_json=False)

    def tell(self, text: str) -> None:
        """Prints a line."""
        say(text)

    def fail(self, error: DeepSeekError) -> None:
        """Prints an error to standard error."""
        report(error, as_json=False)

    def review(self, messages: Sequence[Message]) -> None:
        """Prints a conversation, a role before each message."""
        for message in messages:
            say(f"{message.role}: {message.content}")


class JsonLines:
    """An object a line."""

    def play(self, stream: TextStream) -> None:
        """Prints the events of an answer."""
        print_stream(stream, as_json=True)

    def tell(self, text: str) -> None:
        """Prints a `note`."""
        emit("note", text=text)

    def fail(self, error: DeepSeekError) -> None:
        """Prints an `error`."""
        report(error, as_json=True)

    def review(self, messages: Sequence[Message]) -> None:
        """Prints a `message` each."""
        for message in messages:
            emit("message", role=message.role, content=message.content)


class Terminal:
    """Markdown that is typeset while it comes, reasoning dimmed."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(markup=False, highlight=False, emoji=False)

    def play(self, stream: TextStream) -> None:
        """Shows an answer as it comes; Ctrl-C gets through where the gateway is waited for, never while drawing."""
        kind: type[Any] | None = None
        with _Interrupts() as interrupts, _silent_keyboard():
            with ExitStack() as part:
                for event in interrupts.through(stream):
                    if not isinstance(event, TextDelta | ReasoningDelta):
                        continue
                    if kind is not type(event):
                        part.close()
                        if kind is not None:
                            self._console.print()
                        kind = type(event)
                        shown = part.enter_context(self._growing(reasoning=kind is ReasoningDelta))
                    shown.feed(printable(event.text))
            ended = stream.final().finish_reason
        if ended != "stop":
            self.tell(f"(ended by {ended})")

    def _growing(self, *, reasoning: bool) -> Growing:
        from deepseek_grpc.cli.chat.growing import Growing, split_blocks, split_lines, thoughts, typeset

        if reasoning:
            return Growing(self._console, thoughts, split_lines, apart=False)
        return Growing(self._console, typeset, split_blocks, apart=True)

    def tell(self, text: str) -> None:
        """Shows a dim line."""
        self._console.print(printable(text), style="dim")

    def fail(self, error: DeepSeekError) -> None:
        """Shows an error in red, where there are colours."""
        self._console.print(f"error: {printable(str(error))}", style="red")

    def review(self, messages: Sequence[Message]) -> None:
        """Shows a conversation, typeset."""
        from deepseek_grpc.cli.chat.growing import typeset

        for message in messages:
            self._console.print(f"{message.role}:", style="bold")
            content = printable(str(message.content))
            self._console.print(typeset(content) if message.role == "assistant" else content)
            self._console.print()


class _Interrupts:
    """Holds Ctrl-C back while something is drawn; a second one always gets through."""

    def __init__(self) -> None:
        self._open = self._asked = False
        self._before: Any = signal.SIG_DFL

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._open or self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def through(self, events: Iterable[Event]) -> Iterator[Event]:
        """Passes events on; Ctrl-C is allowed while the next one is waited for."""
        coming = iter(events)
        while True:
            self._open = True
            try:
                if self._asked:
                    raise KeyboardInterrupt
                event = next(coming, None)
            finally:
                self._open = False
            if event is None:
                return
            yield event

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)


@contextmanager
def _silent_keyboard() -> Iterator[None]:
    """Keeps what is typed from being echoed into the drawing; it stays there for the next prompt."""
    before = termios.tcgetattr(sys.stdin)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
