"""What a program saw of its turns, and what is wrong with it: every chunk once, in order, and one end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from deepseek_grpc.types import Completion, Event, Finished, ReasoningDelta, Started, TextDelta

__all__ = ["History", "Reference", "Seen", "problems"]

Seen: TypeAlias = Event | Completion | BaseException
"""An event of a stream, or the one end of a turn: its answer or its error."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What a turn says when nothing interrupts it."""

    pieces: tuple[str, ...]
    """Of reasoning and text, in order, each as it leaves the engine."""
    text: str
    reason: str


@dataclass(slots=True)
class History:
    """What was seen, in the order in which it was; many threads may write."""

    seen: list[tuple[int, Seen]] = field(default_factory=list)

    def saw(self, turn: int, what: Seen) -> None:
        self.seen.append((turn, what))

    def of(self, turn: int) -> list[Seen]:
        return [what for number, what in tuple(self.seen) if number == turn]

    def by_turn(self) -> dict[int, list[Seen]]:
        found: dict[int, list[Seen]] = {}
        for number, what in tuple(self.seen):
            found.setdefault(number, []).append(what)
        return found


def problems(history: History, references: Mapping[int, Reference], streamed: frozenset[int]) -> list[str]:
    """Says what is wrong with every turn that there is a reference for, and which other turns were seen."""
    by_turn = history.by_turn()
    found = [f"turn {turn}: nobody started it" for turn in by_turn.keys() - references.keys()]
    for turn, reference in references.items():
        wrong = _turn(by_turn.get(turn, ()), reference, streamed=turn in streamed)
        found += [f"turn {turn}: {what}" for what in wrong]
    return found


def _turn(seen: Sequence[Seen], reference: Reference, *, streamed: bool) -> list[str]:
    ends = [what for what in seen if isinstance(what, Completion | BaseException)]
    wrong = [f"failed: {end!r}" for end in ends if isinstance(end, BaseException)]
    if len(ends) != 1:
        wrong.append(f"ended {len(ends)} times")
    if ends and seen[-1] is not ends[0]:
        wrong.append("went on after its end")
    for end in ends:
        if isinstance(end, Completion):
            wrong += _difference("answer", end.text, reference.text)
            wrong += _difference("finish reason", end.finish_reason, reference.reason)
    if streamed:
        wrong += _events([what for what in seen if not isinstance(what, Completion | BaseException)], reference)
    return wrong


def _events(events: Sequence[Event], reference: Reference) -> list[str]:
    wrong = []
    for kind, first in ((Started, True), (Finished, False)):
        count = sum(isinstance(event, kind) for event in events)
        if count != 1:
            wrong.append(f"{count} times {kind.__name__}")
        if events and not isinstance(events[0 if first else -1], kind):
            wrong.append(f"{kind.__name__} isn't its {'first' if first else 'last'} event")
    wrong += [
        line
        for event in events
        if isinstance(event, Finished)
        for line in _difference("finish reason", event.finish_reason, reference.reason)
    ]
    said = tuple(event.text for event in events if isinstance(event, TextDelta | ReasoningDelta))
    if said != reference.pieces:
        wrong += _chunks(said, reference.pieces)
    return wrong


def _chunks(said: tuple[str, ...], wanted: tuple[str, ...]) -> list[str]:
    """Says how pieces that aren't the wanted ones differ from them."""
    more, less = Counter(said) - Counter(wanted), Counter(wanted) - Counter(said)
    doubled = sum(count for piece, count in more.items() if piece in wanted)
    found = {"lost": less.total(), "doubled": doubled, "never said": more.total() - doubled}
    place = next(
        (i for i, (one, other) in enumerate(zip(said, wanted, strict=False)) if one != other),
        min(len(said), len(wanted)),
    )
    if not any(found.values()):
        found["swapped"] = sum(one != other for one, other in zip(said, wanted, strict=True))
    return [f"{count} chunks {what}, from chunk {place} on" for what, count in found.items() if count]


def _difference(name: str, found: str, wanted: str) -> list[str]:
    return [] if found == wanted else [f"{name} is {found!r}, not {wanted!r}"]
