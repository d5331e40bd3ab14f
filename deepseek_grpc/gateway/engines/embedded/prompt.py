"""What a request asks: its tokens, its topic, and the beginning of an answer that is to be continued.

Everything here works in small steps, because a prompt may have a megabyte and the event loop has other things to do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from deepseek_grpc.gateway.engines.embedded.model import UNKNOWN, Focus, Model
from deepseek_grpc.gateway.engines.embedded.relevance import terms
from deepseek_grpc.gateway.engines.embedded.tokens import chunks
from deepseek_grpc.types import GenerateRequest, Message, TextPart

__all__ = ["JSON_HEAD", "JSON_TAIL", "Prompt", "analyze", "asked_text", "asked_words", "beginning"]

JSON_HEAD, JSON_TAIL = '{"answer": "', '"}'
"""What an answer stands between when a JSON object is asked for; the corpus has nothing to escape."""

_HEARD_CHARS = 1500  # of each end of a message: a topic shows at its beginning or its end
_HEARD_MESSAGES = 4
_WORD = re.compile(r"\w{1,40}")
_LAST_USER_WEIGHT = 12  # over messages before it
_TOOL_RESULT_WEIGHT = 18  # the same, of a last message that is a tool's result


@dataclass(slots=True)
class Prompt:
    """A request as the model sees it.

    `answered` has the tokens of the answer's beginning, without the frame of a JSON object; its last token, whose text
    is `partial`, may be cut short and is not among them. `frame` is to be written first, piece by piece, and `closing`
    behind the answer's own text, which is over already if `over`. `before` is the beginning as it was given.
    """

    focus: Focus
    tokens: int
    answered: list[int]
    partial: str
    before: str
    frame: Sequence[str]
    closing: str
    over: bool


def analyze(model: Model, request: GenerateRequest) -> Generator[None, None, Prompt]:
    """Analyses a request, pausing at every yield; returns the result."""
    messages = request.messages
    prefix = beginning(request)
    tokens = 0
    for message in messages:
        for text in (_text(message), message.reasoning_content or ""):
            for chunk in chunks(text):
                tokens += len(chunk)
                yield
        yield
    bag: Counter[str] = Counter()
    heard = messages[:-1] if prefix else messages
    asked = next((i for i in reversed(range(len(heard))) if heard[i].role == "user"), -1)
    latest = set(range(max(0, len(heard) - _HEARD_MESSAGES), len(heard)))
    for i in sorted(latest | {asked} if asked >= 0 else latest):
        weight = _LAST_USER_WEIGHT if i == asked else 1
        if i == len(heard) - 1 and heard[i].role == "tool":
            weight = _TOOL_RESULT_WEIGHT
        for chunk in chunks(_ends(_text(heard[i]))):
            for term in terms(chunk):
                bag[term] += weight
            yield
    topic = model.index.topic(bag)
    for passage, _ in topic.passages:
        yield
        model.tables(passage)
    yield
    focus = model.focus(topic)
    yield

    before = _text(prefix) if prefix else ""
    body, head, closing, over = before, "", "", False
    form = request.response_format.type if request.response_format is not None else "text"
    if form == "json_object":
        body, head, closing, over = _unframe(before)
    elif form == "json_schema":  # None of it is the model's own text.
        body, over = "", True
    answered: list[int] = []
    partial = ""
    if body:
        # As in training: the answer's first word is the token with a space, which is not written.
        for chunk in chunks(" " + body):
            answered.extend(model.ids.get(token, UNKNOWN) for token in chunk)
            partial = chunk[-1]
            yield
        answered.pop()
    return Prompt(focus, tokens, answered, partial, before, (head,) if head else (), closing, over)


def beginning(request: GenerateRequest) -> Message | None:
    """Returns the message with the beginning of the answer, if the request has one."""
    last = request.messages[-1] if request.messages else None
    return last if last is not None and last.role == "assistant" and last.prefix else None


def asked_text(request: GenerateRequest) -> str:
    """Returns the text of the last message of the user."""
    return next((_text(message) for message in reversed(request.messages) if message.role == "user"), "")


def asked_words(request: GenerateRequest) -> list[str]:
    """Returns the words that say what the last message of the user is about, as written and in their order."""
    return [word for word in _WORD.findall(_ends(asked_text(request))) if terms((word,))]


def _unframe(before: str) -> tuple[str, str, str, bool]:
    """Splits the beginning of a JSON object into the answer's own text, what to write before and behind, and `over`."""
    if JSON_HEAD.startswith(before):
        return "", JSON_HEAD[len(before) :], JSON_TAIL, False
    for size in range(len(JSON_TAIL), 0, -1):
        if before.startswith(JSON_HEAD) and before.endswith(JSON_TAIL[:size]):
            return "", JSON_TAIL[size:], "", True
    return before.removeprefix(JSON_HEAD), "", JSON_TAIL, False


def _text(message: Message) -> str:
    """Returns the text of a message; images and files say nothing to this model."""
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content if isinstance(part, TextPart))


def _ends(text: str) -> str:
    if len(text) <= 2 * _HEARD_CHARS:
        return text
    return text[:_HEARD_CHARS] + "\n" + text[-_HEARD_CHARS:]
