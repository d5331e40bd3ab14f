"""What a turn was asked, for those that continue it."""

from __future__ import annotations

from typing import Any

from deepseek_grpc._codec.checks import invalid
from deepseek_grpc._codec.message import encode_message
from deepseek_grpc._session.client import Parent
from deepseek_grpc.types import Completion, Message
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["Exchange", "parent_of"]


class Exchange:
    """One turn's side of a conversation: what was asked, what came before, and where the gateway may have it."""

    __slots__ = ("parent", "request", "session_id", "turn_id")

    def __init__(
        self, request: pb.GenerateRequest, parent: Parent | None, session_id: str = "", turn_id: int = 0
    ) -> None:
        self.request = request
        self.parent = parent
        self.session_id = session_id
        """Where its conversation is kept under `turn_id`; empty where only the client has it."""
        self.turn_id = turn_id

    def at(self, session_id: str, turn_id: int) -> Exchange:
        """Returns the same, kept elsewhere."""
        return Exchange(self.request, self.parent, session_id, turn_id)

    def answered(self, answer: Message) -> Parent:
        """Returns what a turn needs that goes on from an answer."""
        return Parent(self.session_id, self.turn_id, _Conversation(self, answer))


class _Conversation:
    """Puts together the messages up to an answer, however many turns ago it began."""

    __slots__ = ("answer", "exchange")

    def __init__(self, exchange: Exchange, answer: Message) -> None:
        self.exchange = exchange
        self.answer = answer

    def __call__(self) -> list[pb.Message]:
        parts: list[_Conversation] = []
        part: Any = self
        while isinstance(part, _Conversation):
            parts.append(part)
            parent = part.exchange.parent
            part = None if parent is None else parent.messages
        messages: list[pb.Message] = []
        for part in reversed(parts):
            _extend(messages, part.exchange.request, part.answer)
        return messages


def _extend(messages: list[pb.Message], request: pb.GenerateRequest, answer: Message) -> None:
    """Adds what one turn asked and answered; an answer goes on where the last message was to be continued."""
    if request.system_message:
        messages.append(pb.Message(role=pb.ROLE_SYSTEM, content=request.system_message))
    messages += request.messages
    if request.prompt:
        messages.append(pb.Message(role=pb.ROLE_USER, content=request.prompt))
    last = pb.Message()
    encode_message(answer, last)
    beginning = messages[-1]
    if beginning.prefix and not beginning.parts:
        messages.pop()
        last.content = beginning.content + last.content
        last.name = beginning.name
        if beginning.HasField("reasoning_content"):
            last.reasoning_content = beginning.reasoning_content
    messages.append(last)


def parent_of(given: Any, request: pb.GenerateRequest) -> Parent | None:
    """Returns what a turn continues, of the argument `parent`: a session's stream or answer.

    Raises:
        InvalidRequestError: It is neither, or isn't over; or the request has a system message of its own.
    """
    if given is None:
        return None
    if request.system_message:
        raise invalid("system_message", "is given, and so is a parent, whose own stands; leave it out")
    answer = given
    if not isinstance(given, Completion):
        so_far = getattr(given, "so_far", None)
        if so_far is None:
            raise invalid("parent", f"is a {type(given).__name__}; give a session's stream or answer")
        answer = so_far()
        if answer is None:
            raise invalid("parent", "isn't over; read it to its end, or cancel it")
    if not isinstance(answer.turn, Exchange):
        raise invalid("parent", "didn't come in a session; give the conversation's messages instead")
    return answer.turn.answered(answer.message)
