"""What a program can see of its calls: observers, told of every call's start and end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import grpc

from deepseek_grpc.types import Usage

__all__ = ["CallRecord", "Observer"]


class CallRecord:
    """One call, stream or session's turn. It fills up as the call goes on; observers get the same object twice.

    Attributes:
        method: `TextService/Generate`; a session's turn is `TextService/Session`.
        target: The client's target.
        request_id: The id that errors and the gateway's log repeat.
        model: As the request names it; empty for the gateway's default.
        started_at: Seconds since 1970-01-01 UTC.
        excerpt: Returns the beginning of what was asked, at most so many characters; it isn't worked out before.
        seconds: How long it took; None before the end.
        first_content_seconds: Until content began, of a stream; None where there was none.
        code: How it ended, as `grpc.StatusCode`; None before the end. Cancelled by this program: CANCELLED.
        error: What the caller got, or None.
        attempts: How often it was tried; 0 where nothing was sent.
        usage: The tokens that it took, where the answer says so.

    Example:
        >>> class Costs:
        ...     tokens = 0
        ...
        ...     def started(self, call: CallRecord) -> None:
        ...         print(f"{call.method} asks {call.excerpt(5)!r}")
        ...
        ...     def ended(self, call: CallRecord) -> None:
        ...         print(f"{call.method} ended with {call.code.name}")
        ...         self.tokens += call.usage.total_tokens
        >>> costs = Costs()
        >>> with Client.from_env(observers=[costs]) as client:
        ...     answer = client.text.generate("What is a deadline?", max_tokens=16)
        TextService/Generate asks 'What '
        TextService/Generate ended with OK
        >>> costs.tokens == answer.usage.total_tokens
        True
    """

    __slots__ = (
        "attempts",
        "code",
        "error",
        "excerpt",
        "first_content_seconds",
        "method",
        "model",
        "request_id",
        "seconds",
        "started_at",
        "target",
        "usage",
    )

    def __init__(
        self,
        method: str,
        target: str,
        request_id: str,
        model: str,
        started_at: float,
        excerpt: Callable[[int], str],
    ) -> None:
        self.method = method
        self.target = target
        self.request_id = request_id
        self.model = model
        self.started_at = started_at
        self.excerpt = excerpt
        self.seconds: float | None = None
        self.first_content_seconds: float | None = None
        self.code: grpc.StatusCode | None = None
        self.error: BaseException | None = None
        self.attempts = 0
        self.usage: Usage | None = None

    def __repr__(self) -> str:
        state = "under way" if self.code is None else self.code.name
        return f"CallRecord({self.method!r}, request_id={self.request_id!r}, {state})"


@runtime_checkable
class Observer(Protocol):
    """Is told of every call: once when it starts and exactly once when it is over.

    It is called where the call is made, in the caller's thread or on its event loop, so it must not block for long.
    What it raises is logged and changes nothing about the call.

    Example:
        >>> class Slow:
        ...     def started(self, call):
        ...         pass
        ...
        ...     def ended(self, call):
        ...         if call.seconds > 10:
        ...             print(f"{call.method} took {call.seconds:.1f} s (request {call.request_id})")
        >>> isinstance(Slow(), Observer)
        True
        >>> with Client.from_env(observers=[Slow()]) as client:
        ...     answer = client.text.generate("Hi", max_tokens=1)
    """

    def started(self, call: CallRecord) -> None:
        """Takes note of a call that is about to be sent."""

    def ended(self, call: CallRecord) -> None:
        """Takes note of how it ended."""
