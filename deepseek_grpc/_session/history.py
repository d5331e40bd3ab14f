"""What a gateway remembers of a session's turns, so that others can continue them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from deepseek_grpc.types import Completion, Event, Message, ReasoningDelta, TextDelta, ToolCall, ToolCallDelta

__all__ = ["HISTORY_BYTES", "History", "answer_of", "conversation"]

HISTORY_BYTES: Final = 1024 * 1024
"""What a session's history may have; beyond it, the turn that was asked for least recently goes."""


class History:
    """The conversations that ended in a session's last turns, least recently used first."""

    __slots__ = ("_bytes", "_entries")

    def __init__(self) -> None:
        self._entries: OrderedDict[int, tuple[tuple[Message, ...], int]] = OrderedDict()
        self._bytes = 0

    def put(self, turn_id: int, messages: tuple[Message, ...], size: int) -> None:
        """Remembers a turn's conversation, its answer included, of about so many bytes."""
        if size > HISTORY_BYTES:
            return
        self._entries[turn_id] = (messages, size)
        self._bytes += size
        while self._bytes > HISTORY_BYTES:
            _, (_, size) = self._entries.popitem(last=False)
            self._bytes -= size

    def get(self, turn_id: int) -> tuple[tuple[Message, ...], int] | None:
        """Returns a turn's conversation and its size, or None."""
        entry = self._entries.get(turn_id)
        if entry is not None:
            self._entries.move_to_end(turn_id)
        return entry

    def clear(self) -> None:
        """Forgets everything."""
        self._entries.clear()
        self._bytes = 0


def conversation(messages: Sequence[Message], answer: Message) -> tuple[Message, ...]:
    """Returns a conversation with its answer, which goes on where the last message was to be continued.

    >>> from deepseek_grpc.types import assistant, user
    >>> [message.content for message in conversation((user("Hi"), assistant("Hel", prefix=True)), assistant("lo"))]
    ['Hi', 'Hello']
    """
    last = messages[-1] if messages else None
    if last is None or not last.prefix or not isinstance(last.content, str) or not isinstance(answer.content, str):
        return (*messages, answer)
    reasoning = answer.reasoning_content if last.reasoning_content is None else last.reasoning_content
    whole = replace(answer, content=last.content + answer.content, name=last.name, reasoning_content=reasoning)
    return (*messages[:-1], whole)


def answer_of(events: Sequence[Event] | Completion) -> Message:
    """Makes the message of an answer's events.

    >>> answer_of([TextDelta("Hel"), TextDelta("lo")]).content
    'Hello'
    """
    if isinstance(events, Completion):
        return events.message
    texts: list[str] = []
    reasoning: list[str] | None = None
    calls: dict[int, list[str]] = {}
    for event in events:
        match event:
            case TextDelta(text):
                texts.append(text)
            case ReasoningDelta(text):
                reasoning = reasoning or []
                reasoning.append(text)
            case ToolCallDelta(index, call_id, name, arguments):
                call = calls.setdefault(index, ["", "", ""])
                call[0] += call_id
                call[1] += name
                call[2] += arguments
            case _:
                pass
    return Message(
        "assistant",
        "".join(texts),
        reasoning_content=None if reasoning is None else "".join(reasoning),
        tool_calls=tuple(ToolCall(*calls[index]) for index in sorted(calls)),
    )
