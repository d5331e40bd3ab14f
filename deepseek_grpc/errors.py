"""Every error that this package raises.

    DeepSeekError
    ├── InvalidRequestError              INVALID_ARGUMENT: a field is wrong; `field` names it
    │   ├── RequestTooLargeError         … too many bytes (TOO_LARGE)
    │   ├── ContextLengthError           … more tokens than the model's context holds (CONTEXT_LENGTH)
    │   └── ContentPolicyError           … the backend refuses the content (CONTENT_RISK)
    ├── AuthenticationError              UNAUTHENTICATED: the credential is missing, wrong or expired
    ├── PermissionDeniedError            PERMISSION_DENIED: the credential is good, the permission isn't granted
    ├── NotFoundError                    NOT_FOUND: no such model, data set or job
    ├── FailedPreconditionError          FAILED_PRECONDITION: the state of things forbids it
    │   ├── InsufficientBalanceError     … the account is empty (INSUFFICIENT_BALANCE)
    │   └── ApiVersionError              … the gateway speaks another major version (API_VERSION)
    ├── ConflictError                    ALREADY_EXISTS: the id stands for something else
    ├── RateLimitError                   RESOURCE_EXHAUSTED: come back after `retry_after` seconds
    ├── UnimplementedError               UNIMPLEMENTED: this gateway doesn't serve the method
    ├── ServiceUnavailableError          UNAVAILABLE: nobody answered, or nobody could
    │   └── ConnectError                 … there was no connection to the target at all
    │       └── ConnectTimeoutError      … because none came about in time (Timeouts.connect)
    ├── DeadlineExceededError            DEADLINE_EXCEEDED: the total time is over (Timeouts.total)
    │   ├── FirstTokenTimeoutError       … no content began in time (Timeouts.first_token)
    │   └── IdleTimeoutError             … content stopped for too long (Timeouts.idle)
    ├── StreamInterruptedError           ABORTED: cut after content had come
    ├── CancelledByPeerError             CANCELLED: the other side gave the call up
    ├── OutputError                      raised here: the answer, or a tool's arguments, don't fit what was asked for
    ├── InternalError                    INTERNAL, UNKNOWN, DATA_LOSS: a defect; quote the request id
    │   └── UpstreamAuthError            … the gateway's own key for the backend was refused (UPSTREAM_AUTH)
    ├── ConfigurationError               raised before any call: the client or gateway is set up wrongly
    └── ClosedError                      the client, stream or session was closed by this program

Every error that a stream ends with has in `partial` the text that had come, and in `final()` it is raised again.
The timeout errors are also `TimeoutError`s; InvalidRequestError, OutputError and ConfigurationError are `ValueError`s.
`asyncio.CancelledError` is never translated.
"""

from __future__ import annotations

from typing import Any, ClassVar

import grpc

__all__ = [
    "ApiVersionError",
    "AuthenticationError",
    "CancelledByPeerError",
    "ClosedError",
    "ConfigurationError",
    "ConflictError",
    "ConnectError",
    "ConnectTimeoutError",
    "ContentPolicyError",
    "ContextLengthError",
    "DeadlineExceededError",
    "DeepSeekError",
    "FailedPreconditionError",
    "FirstTokenTimeoutError",
    "IdleTimeoutError",
    "InsufficientBalanceError",
    "InternalError",
    "InvalidRequestError",
    "NotFoundError",
    "OutputError",
    "PermissionDeniedError",
    "RateLimitError",
    "RequestTooLargeError",
    "ServiceUnavailableError",
    "StreamInterruptedError",
    "UnimplementedError",
    "UpstreamAuthError",
    "error_class",
]


class DeepSeekError(Exception):
    """The base of every error here; `str()` of it says what happened, to which request, and what to do next.

    >>> str(RateLimitError("10 calls a second are allowed", request_id="r1", attempts=4, retry_after=2.5))
    '10 calls a second are allowed (request r1, 4 attempts). Try again in 2.5 s.'

    Attributes:
        code: The gRPC status, as `grpc.StatusCode`.
        details: The first sentence alone. After a semicolon it may say what to do; `advice` isn't added to it then.
        advice: What to do next, in a sentence: the class's, unless the error has one of its own. May be empty.
        reason: The machine-readable reason, stable between versions, for example "RATE_LIMITED".
        request_id: The id that the gateway's log repeats; empty when nothing was sent.
        attempts: How often the call was tried; 0 when nothing was sent.
        retry_after: Seconds to wait before trying again, or None.
        retryable: Whether the same call may go through later.
        metadata: Further facts from the gateway, for example `http_status` and `backend`.
        partial: The text that had come before a stream failed, whatever it failed of; empty everywhere else.
    """

    default_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    default_reason: ClassVar[str] = ""
    default_retryable: ClassVar[bool] = False
    advice: str = ""

    def __init__(
        self,
        details: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str | None = None,
        request_id: str = "",
        attempts: int = 0,
        retry_after: float | None = None,
        retryable: bool | None = None,
        metadata: dict[str, str] | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(details)
        self.details = details
        self.code = self.default_code if code is None else code
        self.reason = self.default_reason if reason is None else reason
        self.request_id = request_id
        self.attempts = attempts
        self.retry_after = retry_after
        self.retryable = self.default_retryable if retryable is None else retryable
        self.metadata: dict[str, str] = {} if metadata is None else metadata
        self.partial = ""
        if advice is not None:
            self.advice = advice

    def __str__(self) -> str:
        facts = [f"request {self.request_id}"] if self.request_id else []
        if self.attempts > 1 or (self.attempts and self.retryable):
            facts.append(f"{self.attempts} attempt{'s' if self.attempts > 1 else ''}")
        text = f"{self.details} ({', '.join(facts)})" if facts else self.details
        advice = self._advice()
        if not advice:
            return text
        return f"{text}{'' if text.endswith(('.', '!', '?', '…')) else '.'} {advice}"

    def _advice(self) -> str:
        if self.retry_after is not None:
            wait = f"{round(self.retry_after, 3):.12g} s"
            return "" if wait in self.details else f"Try again in {wait}."
        if "; " in self.details or "\n" in self.details:  # says it itself, or is a list of things to mend
            return ""
        if self.default_retryable and not self.retryable and "advice" not in self.__dict__:
            return "Trying again won't help."
        return self.advice

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword-only arguments don't pickle by themselves; errors cross process borders all the time.
        return _rebuild, (type(self), self.details, dict(self.__dict__))


def _rebuild(cls: type[DeepSeekError], details: str, state: dict[str, Any]) -> DeepSeekError:
    error = cls.__new__(cls, details)
    error.args = (details,)  # OSError, which the timeouts are too, leaves that to its own __init__
    error.__dict__.update(state)
    return error


class InvalidRequestError(DeepSeekError, ValueError):
    """A field of the request is wrong; `field` names it, as a path such as `messages[2].role`."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "INVALID_REQUEST"
    advice = "Correct the request, as it fails every time."

    @property
    def field(self) -> str:
        """The path of the field, or empty."""
        return self.metadata.get("field", "")


class RequestTooLargeError(InvalidRequestError):
    """The request has too many bytes."""

    default_reason = "TOO_LARGE"
    advice = "Send less, for example fewer of the old messages."


class ContextLengthError(InvalidRequestError):
    """The request has more tokens than the model's context holds."""

    default_reason = "CONTEXT_LENGTH"
    advice = "Shorten the conversation, or lower max_tokens."


class ContentPolicyError(InvalidRequestError):
    """The backend refuses the content."""

    default_reason = "CONTENT_RISK"
    advice = "Change the content, as it is refused every time."


class AuthenticationError(DeepSeekError):
    """The credential is missing, wrong or expired."""

    default_code = grpc.StatusCode.UNAUTHENTICATED
    default_reason = "UNAUTHENTICATED"
    advice = "Check the client's id and secret, and this machine's clock."


class PermissionDeniedError(DeepSeekError):
    """The credential is good, but its roles don't grant the permission."""

    default_code = grpc.StatusCode.PERMISSION_DENIED
    default_reason = "PERMISSION_DENIED"
    advice = "Ask whoever runs the gateway for a role with that permission."


class NotFoundError(DeepSeekError):
    """There is no such model, data set or job."""

    default_code = grpc.StatusCode.NOT_FOUND
    default_reason = "NOT_FOUND"
    advice = "Check the name (client.text.models() lists the models)."


class FailedPreconditionError(DeepSeekError):
    """The state of things forbids the call."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "FAILED_PRECONDITION"
    advice = "Change what stands in the way, or the call fails every time."


class InsufficientBalanceError(FailedPreconditionError):
    """The account behind the gateway is empty."""

    default_reason = "INSUFFICIENT_BALANCE"
    advice = "Top up the account behind the gateway."


class ApiVersionError(FailedPreconditionError):
    """The gateway speaks another major version of the API."""

    default_reason = "API_VERSION"
    advice = "Install the client of the gateway's major version."


class ConflictError(DeepSeekError):
    """The id already stands for something else."""

    default_code = grpc.StatusCode.ALREADY_EXISTS
    default_reason = "CONFLICT"
    advice = "Use another id."


class RateLimitError(DeepSeekError):
    """Too much, too fast: come back after `retry_after` seconds."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = "RATE_LIMITED"
    default_retryable = True
    advice = "Slow down, and try again later."


class UnimplementedError(DeepSeekError):
    """This gateway doesn't serve the method."""

    default_code = grpc.StatusCode.UNIMPLEMENTED
    default_reason = "UNIMPLEMENTED"
    advice = "Use a gateway that serves it."


class ServiceUnavailableError(DeepSeekError):
    """Nobody answered, or nobody could."""

    default_code = grpc.StatusCode.UNAVAILABLE
    default_reason = "UNAVAILABLE"
    default_retryable = True
    advice = "It may pass: try again in a moment."


class ConnectError(ServiceUnavailableError):
    """There was no connection to the target at all."""

    default_reason = "CONNECT"
    advice = "Check the target, and that the gateway is up."


class ConnectTimeoutError(ConnectError, TimeoutError):
    """No connection came about within `Timeouts.connect`."""

    default_reason = "CONNECT_TIMEOUT"
    advice = "Check the target and the network, or allow more time (Timeouts.connect)."


class DeadlineExceededError(DeepSeekError, TimeoutError):
    """The total time of the call is over."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED
    default_reason = "DEADLINE_EXCEEDED"
    advice = "Allow more time, or ask for less."


class FirstTokenTimeoutError(DeadlineExceededError):
    """No content began within `Timeouts.first_token`."""

    default_reason = "FIRST_TOKEN_TIMEOUT"
    advice = "Allow more time, or try again when the gateway is less busy."


class IdleTimeoutError(DeadlineExceededError):
    """Content stopped for longer than `Timeouts.idle`; `partial` has the text that had come."""

    default_reason = "IDLE_TIMEOUT"
    advice = "Go on from `partial`, or allow more time."


class StreamInterruptedError(DeepSeekError):
    """The stream was cut after content had come; `partial` has the text that had come."""

    default_code = grpc.StatusCode.ABORTED
    default_reason = "INTERRUPTED"
    default_retryable = True
    advice = "Go on from `partial`, or start again."


class CancelledByPeerError(DeepSeekError):
    """The other side, or `cancel()` here, gave the call up."""

    default_code = grpc.StatusCode.CANCELLED
    default_reason = "CANCELLED"
    advice = "Call again if the answer is still wanted."


class OutputError(DeepSeekError, ValueError):
    """The answer isn't of the form that was asked for with `output`, or a tool call's arguments don't fit its schema.

    Attributes:
        text: What the model wrote.
    """

    default_reason = "OUTPUT"
    default_retryable = True  # another sample may fit
    advice = "Try again, or describe the form in the prompt too."

    def __init__(self, details: str, *, text: str = "", **facts: Any) -> None:
        super().__init__(details, **facts)
        self.text = text


class InternalError(DeepSeekError):
    """A defect on the other side; quote the request id to whoever runs it."""

    default_code = grpc.StatusCode.INTERNAL
    default_reason = "INTERNAL"
    advice = "Report it, request id included, to whoever runs the gateway."


class UpstreamAuthError(InternalError):
    """The gateway's own key for the backend was refused; the caller can do nothing about it."""

    default_reason = "UPSTREAM_AUTH"
    advice = "Tell whoever runs the gateway that its key for the backend is refused."


class ConfigurationError(DeepSeekError, ValueError):
    """The client or the gateway is set up wrongly; raised before any call."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "CONFIGURATION"
    advice = "Correct what the client or gateway is set up with."


class ClosedError(DeepSeekError):
    """The client, stream or session was closed by this program."""

    default_code = grpc.StatusCode.CANCELLED
    default_reason = "CLOSED"
    advice = "Keep it open until the last answer is read."


def _with_kinds(cls: type[DeepSeekError]) -> list[type[DeepSeekError]]:
    return [cls, *(named for kind in cls.__subclasses__() for named in _with_kinds(kind))]


# What a call can end in; taken from the tree here and now, before programs add classes of their own to it.
_BY_CODE: dict[grpc.StatusCode, type[DeepSeekError]] = {
    cls.default_code: cls
    for cls in DeepSeekError.__subclasses__()
    if cls not in (OutputError, ConfigurationError, ClosedError)
} | {grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError}
_BY_REASON = {named.default_reason: named for cls in _BY_CODE.values() for named in _with_kinds(cls)}


def error_class(code: grpc.StatusCode, reason: str = "") -> type[DeepSeekError]:
    """Returns the class for a gRPC status and a reason; a reason counts only under the status it belongs to.

    >>> error_class(grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_LENGTH").__name__
    'ContextLengthError'
    """
    named = _BY_REASON.get(reason)
    if named is not None and named.default_code is code:
        return named
    return _BY_CODE.get(code, InternalError)
