"""The engine that says what it is told to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeAlias, TypeVar

import grpc

from deepseek_grpc._codec.answer import collect
from deepseek_grpc.errors import DeepSeekError, FailedPreconditionError, error_class
from deepseek_grpc.gateway.guard import current_call
from deepseek_grpc.types import (
    AccountBalance,
    Balance,
    Completion,
    Event,
    FimRequest,
    Finished,
    GenerateRequest,
    Model,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    Usage,
)

__all__ = [
    "Delay",
    "Fail",
    "Reasoning",
    "Recorded",
    "RecordedCompletion",
    "RecordedRequest",
    "ScriptedEngine",
    "Stall",
    "Step",
    "ToolUse",
]

_Request = TypeVar("_Request", GenerateRequest, FimRequest)

_TEN_DOLLARS: Final = AccountBalance(available=True, balances=(Balance("USD", "10.00", "0.00", "10.00"),))
_CODES: Final = tuple(code.name for code in grpc.StatusCode if code is not grpc.StatusCode.OK)


@dataclass(frozen=True, slots=True)
class Delay:
    """Waits before the next step; `seconds` may be a fraction."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Stall:
    """Says nothing more until the call is cancelled or its deadline passes."""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool call, whole; the answer then ends with `tool_calls`."""

    name: str
    arguments: str = "{}"
    id: str = "call_1"


@dataclass(frozen=True, slots=True)
class Fail:
    """Ends the call with a status: as its first step before anything is sent, later in mid-stream.

    A client tries again after UNAVAILABLE and RESOURCE_EXHAUSTED, each time with the next script, unless something was
    sent or `retryable` is False.

    Raises:
        ValueError: There is no such status, or it is OK.
    """

    code: str
    """A gRPC status by name, for example "UNAVAILABLE"."""
    details: str = "scripted failure"
    reason: str | None = None
    """The ErrorInfo's reason, for example "CONTEXT_LENGTH"; the status's own by default."""
    retry_after: float | None = None
    """Seconds."""
    retryable: bool | None = None

    def __post_init__(self) -> None:
        if self.code not in _CODES:
            raise ValueError(f"Fail({self.code!r}): no status that a call fails with; one of {', '.join(_CODES)}")

    def error(self) -> DeepSeekError:
        """Makes the error."""
        code = grpc.StatusCode[self.code]
        return error_class(code, self.reason or "")(
            self.details, code=code, reason=self.reason, retry_after=self.retry_after, retryable=self.retryable
        )


Step: TypeAlias = str | Delay | Stall | Reasoning | ToolUse | Fail | Finished


@dataclass(frozen=True, slots=True)
class Recorded(Generic[_Request]):
    """A request that reached the engine."""

    request: _Request
    metadata: dict[str, str]
    """What the call carried, without the `authorization`."""
    client_id: str
    streamed: bool
    attempt: int
    """Which of gRPC's tries it was, from 1."""


RecordedRequest: TypeAlias = Recorded[GenerateRequest]
"""A request of `generate` or `stream`."""
RecordedCompletion: TypeAlias = Recorded[FimRequest]
"""A request of `complete` or `stream_complete`."""


@dataclass(slots=True)
class ScriptedEngine:
    """Says what the scripts tell it, one script a request in the order given, and `default` when there is none left.

    A completion takes its script from the same queue; it has text alone, so reasoning and tool calls fail in it.

    Example:
        >>> with FakeServer() as fake, fake.client() as client:
        ...     fake.text.script(Reasoning("Hm."), ToolUse("weather", '{"city": "Bern"}'))
        ...     fake.text.script("21 °C", Finished("length"))
        ...     fake.text.script(Stall())
        ...     client.text.generate("How warm is it?").tool_calls[0].name
        ...     client.text.generate("How warm is it?", metadata={"x-team": "a"}).finish_reason
        ...     client.text.stream("How warm is it?").close()
        ...     asked = fake.text.wait_for_requests(2)
        ...     asked[1].metadata["x-team"]
        'weather'
        'length'
        'a'
    """

    default: tuple[Step, ...] = ("Hello", " from", " the", " fake", " server", ".")
    model: str = "fake"
    requests: list[RecordedRequest] = field(default_factory=list)
    """Every request of `generate` and `stream` that arrived, oldest first; retries are requests of their own."""
    completions: list[RecordedCompletion] = field(default_factory=list)
    """Every request of `complete` and `stream_complete`, likewise."""
    account: AccountBalance = _TEN_DOLLARS
    """What `balance` answers; put another in its place."""
    cancelled: int = 0
    """How many generations were given up by their callers."""
    most_at_once: int = 0
    """How many generations ran at the same time, at most."""
    _scripts: deque[tuple[Step, ...]] = field(default_factory=deque)
    _running: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        _check(self.default)

    @property
    def name(self) -> str:
        """The backend's name."""
        return "scripted"

    def script(self, *steps: Step) -> None:
        """Adds a script for one request.

        Text comes piece by piece; a `Finished` as the last step replaces the usual end.

        Raises:
            TypeError: A step is of no kind that there is.
            ValueError: A `Finished` isn't the last step, or a `Delay` is no number of seconds.
        """
        _check(steps)
        self._scripts.append(steps)

    def wait_for_requests(self, count: int, timeout: float = 10.0) -> list[RecordedRequest]:
        """Waits until that many requests have arrived and returns them; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.requests) >= count, timeout):
                raise TimeoutError(f"{len(self.requests)} of {count} requests arrived within {timeout:g} s")
            return list(self.requests)

    def wait_for_cancellations(self, count: int, timeout: float = 10.0) -> None:
        """Waits until that many generations were given up; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.cancelled >= count, timeout):
                raise TimeoutError(f"{self.cancelled} of {count} cancellations came within {timeout:g} s")

    async def generate(self, request: GenerateRequest) -> Completion:
        """Plays the script and returns the whole."""
        return collect([event async for events in self._play(request, streamed=False) for event in events])

    def stream(self, request: GenerateRequest) -> AsyncGenerator[Sequence[Event], None]:
        """Plays the script, every piece a batch of its own."""
        return self._play(request, streamed=True)

    async def complete(self, request: FimRequest) -> Completion:
        """Plays the script and returns the whole."""
        return collect([event async for events in self._play(request, streamed=False) for event in events])

    def stream_complete(self, request: FimRequest) -> AsyncGenerator[Sequence[Event], None]:
        """Plays the script, every piece a batch of its own."""
        return self._play(request, streamed=True)

    async def balance(self) -> AccountBalance:
        """Returns `account`."""
        return self.account

    async def _play(
        self, request: GenerateRequest | FimRequest, *, streamed: bool
    ) -> AsyncGenerator[Sequence[Event], None]:
        call = current_call()
        client_id, attempts = call.principal.client_id, call.attempts
        with self._changed:
            metadata = {key: value for key, value in call.metadata.items() if key != "authorization"}
            if isinstance(request, FimRequest):
                self.completions.append(Recorded(request, metadata, client_id, streamed, attempts))
                heard = 1
            else:
                self.requests.append(Recorded(request, metadata, client_id, streamed, attempts))
                heard = len(request.messages)
            self._changed.notify_all()
        steps = self._scripts.popleft() if self._scripts else self.default
        started: tuple[Event, ...] = (Started("fake-1", 0, self.model, "fp_fake"),)
        calls = tokens = 0
        end: Finished | None = None
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        try:
            for step in steps:
                match step:
                    case str():
                        tokens += 1
                        yield (*started, TextDelta(step))
                        started = ()
                    case Reasoning() | ToolUse() if isinstance(request, FimRequest):
                        raise FailedPreconditionError(f"the script has {step!r}; a completion has text alone")
                    case Reasoning(text):
                        tokens += 1
                        yield (*started, ReasoningDelta(text))
                        started = ()
                    case ToolUse(name, arguments, call_id):
                        yield (*started, ToolCallDelta(calls, call_id, name), ToolCallDelta(calls, arguments=arguments))
                        started = ()
                        calls += 1
                    case Delay(seconds):
                        await asyncio.sleep(seconds)
                    case Stall():
                        await asyncio.Event().wait()
                    case Fail():
                        raise step.error()
                    case Finished():
                        end = step
        except (asyncio.CancelledError, GeneratorExit):  # the latter when the gateway was waiting for a slow reader
            with self._changed:
                self.cancelled += 1
                self._changed.notify_all()
            raise
        finally:
            self._running -= 1
        usage = Usage(heard, tokens, heard + tokens)
        yield (*started, end or Finished("tool_calls" if calls else "stop", usage))

    async def models(self) -> Sequence[Model]:
        """Returns the one model."""
        return [Model(self.model, "tests", description="Says what a test tells it to.")]

    async def aclose(self) -> None:
        """Has nothing to release."""


def _check(steps: Sequence[Any]) -> None:
    """Refuses what the engine would have to pass over: it shall fail in the test, not in the gateway."""
    if isinstance(steps, str):
        raise TypeError(f"the steps are the text {steps!r}; give a tuple of steps")
    for number, step in enumerate(steps, 1):
        match step:
            case str() | Stall() | Fail() | Reasoning(str()) | ToolUse(str(), str(), str()):
                pass
            case Delay(seconds):
                if not isinstance(seconds, int | float) or not 0 <= seconds < threading.TIMEOUT_MAX:
                    raise ValueError(f"step {number} is {step!r}; give seconds from 0")
            case Finished():
                if number < len(steps):
                    raise ValueError(f"step {number} is {step!r}, and more follows; it can only be the last")
            case _:
                raise TypeError(
                    f"step {number} is {step!r}; steps are str, Delay(seconds), Stall(), Reasoning(text), "
                    "ToolUse(name, arguments, id), Fail(code) and Finished(reason), each an argument of its own"
                )
