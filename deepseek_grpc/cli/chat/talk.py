"""The conversation itself: turn after turn, whatever happens in one."""

from __future__ import annotations

import sys

from deepseek_grpc import Client, GenerateOptions, TextStream, user
from deepseek_grpc.cli.chat.commands import COMMANDS, QuitChat, perform
from deepseek_grpc.cli.chat.conversation import Conversation
from deepseek_grpc.cli.chat.keyboard import Keyboard, history_file, read_message
from deepseek_grpc.cli.chat.screen import JsonLines, Plain, Screen, Terminal
from deepseek_grpc.cli.exits import exit_code
from deepseek_grpc.errors import DeepSeekError, InvalidRequestError, NotFoundError

__all__ = ["Talk"]


class Talk:
    """Takes turns with a model over one client."""

    def __init__(self, client: Client, conversation: Conversation, options: GenerateOptions) -> None:
        self._client = client
        self._conversation = conversation
        self._options = options

    def on_terminal(self, *, keep_history: bool) -> int:
        """Talks with whoever sits there, until they leave; returns the exit code."""
        screen = Terminal()
        keyboard = Keyboard(list(COMMANDS), history_file() if keep_history else None)
        if keyboard.problem:
            screen.tell(keyboard.problem)
        screen.tell("/help lists the commands; Ctrl-C cancels an answer, Ctrl-D leaves")
        while True:
            try:
                line = keyboard.read()
                if line.strip():
                    self._respond(line, screen)
            except KeyboardInterrupt:
                print()  # noqa: T201 - the prompt stays on a line of its own
                screen.tell("(Ctrl-D or /quit leaves)")
            except EOFError:
                print()  # noqa: T201
                return 0
            except QuitChat:
                return 0
            except DeepSeekError as error:
                screen.fail(error)

    def on_pipe(self, *, as_json: bool) -> int:
        """Answers each line of standard input; returns the exit code of the first turn that failed, or 0."""
        screen: Screen = JsonLines() if as_json else Plain()
        code = 0
        while True:
            try:
                line = read_message(_read_line)
                if line.strip():
                    self._respond(line, screen)
            except (EOFError, QuitChat):
                return code
            except DeepSeekError as error:
                screen.fail(error)
                code = code or exit_code(error)

    def _respond(self, line: str, screen: Screen) -> None:
        if line.startswith("/"):
            perform(line, self._conversation, self._client, screen)
        else:
            self._turn(line, screen)

    def _turn(self, question: str, screen: Screen) -> None:
        """Asks and shows the answer; what came of it stays in the conversation, however it ended."""
        conversation = self._conversation
        options: GenerateOptions = {**self._options, "model": conversation.model or None}
        stream = self._client.text.stream([*conversation.messages, user(question)], **options)
        try:
            with stream:
                screen.play(stream)
        except KeyboardInterrupt:
            if not isinstance(screen, Terminal):
                raise
            screen.tell("(cancelled)")
        except NotFoundError as error:
            error.advice = "/model lists the models; /model NAME sets one."
            raise
        finally:
            if answer := _arrived(stream):
                conversation.add(question, answer)


def _arrived(stream: TextStream) -> str:
    """Returns the text that had come when a stream ended."""
    try:
        return stream.final().text
    except DeepSeekError as error:
        return error.partial


def _read_line(prompt: str) -> str:  # noqa: ARG001 - nobody would see it
    line = sys.stdin.buffer.readline()
    if not line:
        raise EOFError
    try:
        return line.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"a line of standard input is no UTF-8 (byte {error.start})") from error
