"""Tool calls: which tool a request wants called, and the call of it in pieces."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Sequence

from deepseek_grpc.gateway.engines.embedded.arguments import arguments
from deepseek_grpc.gateway.engines.embedded.prompt import asked_text, beginning
from deepseek_grpc.gateway.engines.embedded.relevance import terms
from deepseek_grpc.gateway.engines.embedded.sampling import Draws
from deepseek_grpc.gateway.engines.embedded.schema import parse
from deepseek_grpc.gateway.engines.embedded.tokens import chunks, split
from deepseek_grpc.types import Event, Finished, GenerateRequest, Tool, ToolCallDelta, Upstream, Usage

__all__ = ["Call", "call", "choose"]

_WINDOW_CHARS = 16_384  # of a message, searched in one step
_NAME_CHARS = 256
_DESCRIPTION_CHARS = 400


def choose(request: GenerateRequest, words: Sequence[str]) -> Generator[None, None, Tool | None]:
    """Returns the tool to call, if any; pauses at every yield.

    Behind a tool's result and behind the beginning of an answer there is text only.
    """
    choice = request.tool_choice
    mode = (choice.mode if choice else None) or "auto"
    last = request.messages[-1].role if request.messages else "user"
    if not request.tools or last == "tool" or beginning(request) is not None:
        return None
    if choice is not None and choice.function:
        return next((tool for tool in request.tools if tool.name == choice.function), None)
    if mode == "none":
        return None
    named = yield from _named(request)
    if named is not None or mode != "required":
        return named
    asked = set(terms(words))
    best, best_score = request.tools[0], 0
    for tool in request.tools:
        yield
        about = f"{tool.name[:_NAME_CHARS]} {tool.description[:_DESCRIPTION_CHARS]}"
        score = len(asked.intersection(terms(split(re.sub(r"[_-]", " ", about)))))
        if score > best_score:
            best, best_score = tool, score
    return best


def call(
    request: GenerateRequest, tool: Tool, words: Sequence[str], seed: int, prompt_tokens: int
) -> Generator[None, None, Call]:
    """Makes the call of a tool; pauses at every yield."""
    names = {tool.name, *re.split(r"\W", tool.name)}
    spoken = [word for word in words if word not in names]
    yield
    document = parse(tool.parameters)
    yield
    greedy = request.temperature == 0  # Then chance has no say.
    text = yield from arguments(document, spoken, Draws(0 if greedy else seed, "arguments"))
    digest = hashlib.sha256(b"%d %d" % (seed, len(request.messages))).hexdigest()
    pieces: list[str] = []
    for chunk in chunks(text):
        pieces += chunk
        yield
    return Call(f"call_{digest[:24]}", tool.name, pieces, request.max_tokens, prompt_tokens)


class Call:
    """One call, a token of its arguments at a time; a limit cuts them short, as with any model."""

    def __init__(self, id_: str, name: str, pieces: list[str], limit: int | None, prompt_tokens: int) -> None:
        self._id, self._name = id_, name
        self._pieces = pieces
        self._place = -1  # The first piece is the name.
        self._limit = limit
        self._prompt_tokens = prompt_tokens
        self._completion_tokens = 0
        self._reasoning_tokens: int | None = None

    def reasoned(self, tokens: int) -> None:
        """Counts the tokens of the reasoning before the call."""
        self._completion_tokens = self._reasoning_tokens = tokens

    def advance(self, tokens: int, events: list[Event]) -> bool:
        """Adds up to so many pieces, and tells whether the call is complete."""
        for _ in range(tokens):
            if self._place == len(self._pieces):
                events.append(self._finished("tool_calls"))
                return True
            if self._completion_tokens == self._limit:
                events.append(self._finished("length"))
                return True
            if self._place < 0:
                events.append(ToolCallDelta(0, self._id, self._name))
            else:
                events.append(ToolCallDelta(0, arguments=self._pieces[self._place]))
                self._completion_tokens += 1
            self._place += 1
        return False

    def _finished(self, reason: str) -> Finished:
        prompt, completion = self._prompt_tokens, self._completion_tokens
        usage = Usage(prompt, completion, prompt + completion, reasoning_tokens=self._reasoning_tokens)
        return Finished(reason, usage, Upstream(backend="embedded"))


def _named(request: GenerateRequest) -> Generator[None, None, Tool | None]:
    """Returns the tool that the last message of the user names first, as a word of its own."""
    text = asked_text(request)
    for start in range(0, len(text), _WINDOW_CHARS):
        window = text[max(0, start - 1) : start + _WINDOW_CHARS + _NAME_CHARS]  # with the character before
        found: tuple[int, Tool] | None = None
        for tool in request.tools:
            yield
            if tool.name and tool.name in window:
                place = re.search(rf"(?<![\w-]){re.escape(tool.name[:_NAME_CHARS])}(?![\w-])", window)
                if place is not None and (found is None or place.start() < found[0]):
                    found = place.start(), tool
        if found is not None:
            return found[1]
    return None
