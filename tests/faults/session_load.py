"""Seeded turns through sessions, what they say when nothing interrupts them, and how long sessions were without one."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.types import GenerateRequest, ReasoningDelta, TextDelta, user
from tests.faults.history import History, Reference, problems

__all__ = ["Load", "Outages", "Turn", "draw", "references"]

_QUESTIONS = (
    "What is a deadline?",
    "How does keepalive notice a dead connection?",
    "What is a JWT?",
    "How do I stream an answer?",
    "What is fine-tuning?",
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One generation: what to ask, and whether as a stream."""

    question: str
    seed: int
    max_tokens: int
    streamed: bool
    thinking: bool = False

    @property
    def options(self) -> dict[str, Any]:
        return {"seed": self.seed, "max_tokens": self.max_tokens, "temperature": 0.7, "thinking": self.thinking}


def draw(seed: int, count: int, *, lengths: Sequence[int] = (2, 10, 40, 200), thinking: bool = True) -> list[Turn]:
    """Draws turns: streamed and whole, short and long, with and without reasoning."""
    numbers = random.Random(seed)
    return [
        Turn(
            numbers.choice(_QUESTIONS),
            numbers.randrange(2**31),
            numbers.choice(lengths),
            numbers.random() < 0.75,
            thinking and numbers.random() < 0.2,
        )
        for _ in range(count)
    ]


async def references(turns: Sequence[Turn], engine: EmbeddedEngine) -> list[Reference]:
    """Has the engine say each turn, with no network in between."""
    found = []
    for turn in turns:
        pieces: list[str] = []
        text, reason = "", ""
        async for batch in engine.stream(GenerateRequest((user(turn.question),), **turn.options)):
            for event in batch:
                if isinstance(event, TextDelta | ReasoningDelta):
                    pieces.append(event.text)
                    text += event.text if isinstance(event, TextDelta) else ""
                reason = getattr(event, "finish_reason", reason)
        found.append(Reference(tuple(pieces), text, reason))
    return found


@dataclass(slots=True)
class Load:
    """Runs turns, some at a time, and keeps what they show.

    All of them, and from the first one again for as long as `goes_on` says so.
    """

    turns: Sequence[Turn]
    references: Sequence[Reference]
    goes_on: Callable[[], bool]
    at_once: int = 20
    history: History = field(default_factory=History)
    begun: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def _next(self) -> int | None:
        with self._lock:
            if self.begun >= len(self.turns) and not self.goes_on():
                return None
            self.begun += 1
            return self.begun - 1

    def turn(self, number: int) -> Turn:
        return self.turns[number % len(self.turns)]

    def reference(self, number: int) -> Reference:
        return self.references[number % len(self.turns)]

    def problems(self) -> list[str]:
        """Says what is wrong with what was seen."""
        streamed = frozenset(i for i in range(self.begun) if self.turn(i).streamed)
        return problems(self.history, {i: self.reference(i) for i in range(self.begun)}, streamed)

    def running(self) -> list[int]:
        """Returns the streamed turns that are in the first four fifths of their text."""
        found = []
        for number, seen in self.history.by_turn().items():
            said = sum(isinstance(event, TextDelta) for event in seen)
            if 0 < said < 0.8 * len(self.reference(number).pieces):
                found.append(number)
        return found

    def answers(self) -> dict[int, Any]:
        """Returns the answers, by turn."""
        return {number: seen[-1] for number, seen in self.history.by_turn().items()}

    async def run(self, sessions: Sequence[Any]) -> None:
        """Runs them over async sessions, one after the other."""
        await asyncio.gather(*(self._work(sessions[i % len(sessions)]) for i in range(self.at_once)))

    async def _work(self, session: Any) -> None:
        while (number := self._next()) is not None:
            turn = self.turn(number)
            try:
                if turn.streamed:
                    async with session.stream(turn.question, **turn.options) as stream:
                        async for event in stream:
                            self.history.saw(number, event)
                        self.history.saw(number, await stream.final())
                else:
                    self.history.saw(number, await session.generate(turn.question, **turn.options))
            except Exception as error:  # noqa: BLE001 - the history says what is wrong
                self.history.saw(number, error)

    def run_sync(self, sessions: Sequence[Any]) -> None:
        """Runs them over sync sessions, in threads."""
        threads = [
            threading.Thread(target=self._work_sync, args=(sessions[i % len(sessions)],), daemon=True)
            for i in range(self.at_once)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _work_sync(self, session: Any) -> None:
        while (number := self._next()) is not None:
            turn = self.turn(number)
            try:
                if turn.streamed:
                    with session.stream(turn.question, **turn.options) as stream:
                        for event in stream:
                            self.history.saw(number, event)
                        self.history.saw(number, stream.final())
                else:
                    self.history.saw(number, session.generate(turn.question, **turn.options))
            except Exception as error:  # noqa: BLE001 - the history says what is wrong
                self.history.saw(number, error)


def _spread(seconds: Sequence[float]) -> str:
    ranked = sorted(seconds) or [0.0]
    return " ".join(f"{ranked[min(len(ranked) - 1, len(ranked) * part // 100)]:.3f}" for part in (50, 99, 100)) + " s"


class Outages(logging.Handler):
    """Listens to what sessions log of their connections.

    Attributes:
        lost: When each loss of a connection was noticed, in seconds since 1970.
        resumed: Seconds from each of them until the session was taken up again, further losses in between included.
        attempts: Seconds from the last such loss.
        moved: How often a session was given up for another one.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lost: list[float] = []
        self.resumed: list[float] = []
        self.moved = 0
        self.attempts: list[float] = []
        self._since: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._changed = threading.Condition()
        self._undo = ExitStack()

    def emit(self, record: logging.LogRecord) -> None:
        _, name, what = record.getMessage().split(" ", 2)
        with self._changed:
            if what.startswith("connection lost"):
                if name not in self._since:
                    self._since[name] = record.created
                    self.lost.append(record.created)
                self._last[name] = record.created
            elif what.startswith("resumed"):
                self.resumed.append(record.created - self._since.pop(name))
                self.attempts.append(record.created - self._last[name])
            elif what.startswith("moved"):
                self.moved += 1
                self._since.pop(name, None)
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[Outages], bool], timeout: float = 30.0) -> None:
        """Waits until something is so; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), timeout):
                raise TimeoutError(f"{len(self.lost)} lost, {len(self.resumed)} resumed, {self.moved} moved")

    def report(self) -> str:
        """Says how long resumes took."""
        return (
            f"{len(self.resumed)} resumes, {self.moved} moves; p50, p99 and most since the first loss "
            f"{_spread(self.resumed)}, since the last one {_spread(self.attempts)}"
        )

    def __enter__(self) -> Self:
        logger = logging.getLogger("deepseek_grpc.session")
        self._undo.callback(logger.setLevel, logger.level)
        self._undo.callback(logger.removeHandler, self)
        logger.setLevel(logging.DEBUG)
        logger.addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()
