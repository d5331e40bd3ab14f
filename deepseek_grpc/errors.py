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
    """The base of every error here; `str()` of it is a sentence with the request id in it.

    Attributes:
        code: The gRPC status, as `grpc.StatusCode`.
        details: The sentence alone.
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

    def __str__(self) -> str:
        return f"{self.details} (request {self.request_id})" if self.request_id else self.details

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

    @property
    def field(self) -> str:
        """The path of the field, or empty."""
        return self.metadata.get("field", "")


class RequestTooLargeError(InvalidRequestError):
    """The request has too many bytes."""

    default_reason = "TOO_LARGE"


class ContextLengthError(InvalidRequestError):
    """The request has more tokens than the model's context holds."""

    default_reason = "CONTEXT_LENGTH"


class ContentPolicyError(InvalidRequestError):
    """The backend refuses the content."""

    default_reason = "CONTENT_RISK"


class AuthenticationError(DeepSeekError):
    """The credential is missing, wrong or expired."""

    default_code = grpc.StatusCode.UNAUTHENTICATED
    default_reason = "UNAUTHENTICATED"


class PermissionDeniedError(DeepSeekError):
    """The credential is good, but its roles don't grant the permission."""

    default_code = grpc.StatusCode.PERMISSION_DENIED
    default_reason = "PERMISSION_DENIED"


class NotFoundError(DeepSeekError):
    """There is no such model, data set or job."""

    default_code = grpc.StatusCode.NOT_FOUND
    default_reason = "NOT_FOUND"


class FailedPreconditionError(DeepSeekError):
    """The state of things forbids the call."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "FAILED_PRECONDITION"


class InsufficientBalanceError(FailedPreconditionError):
    """The account behind the gateway is empty."""

    default_reason = "INSUFFICIENT_BALANCE"


class ApiVersionError(FailedPreconditionError):
    """The gateway speaks another major version of the API."""

    default_reason = "API_VERSION"


class ConflictError(DeepSeekError):
    """The id already stands for something else."""

    default_code = grpc.StatusCode.ALREADY_EXISTS
    default_reason = "CONFLICT"


class RateLimitError(DeepSeekError):
    """Too much, too fast: come back after `retry_after` seconds."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = "RATE_LIMITED"
    default_retryable = True


class UnimplementedError(DeepSeekError):
    """This gateway doesn't serve the method."""

    default_code = grpc.StatusCode.UNIMPLEMENTED
    default_reason = "UNIMPLEMENTED"


class ServiceUnavailableError(DeepSeekError):
    """Nobody answered, or nobody could."""

    default_code = grpc.StatusCode.UNAVAILABLE
    default_reason = "UNAVAILABLE"
    default_retryable = True


class ConnectError(ServiceUnavailableError):
    """There was no connection to the target at all."""

    default_reason = "CONNECT"


class ConnectTimeoutError(ConnectError, TimeoutError):
    """No connection came about within `Timeouts.connect`."""

    default_reason = "CONNECT_TIMEOUT"


class DeadlineExceededError(DeepSeekError, TimeoutError):
    """The total time of the call is over."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED
    default_reason = "DEADLINE_EXCEEDED"


class FirstTokenTimeoutError(DeadlineExceededError):
    """No content began within `Timeouts.first_token`."""

    default_reason = "FIRST_TOKEN_TIMEOUT"


class IdleTimeoutError(DeadlineExceededError):
    """Content stopped for longer than `Timeouts.idle`; `partial` has the text that had come."""

    default_reason = "IDLE_TIMEOUT"


class StreamInterruptedError(DeepSeekError):
    """The stream was cut after content had come; `partial` has the text that had come."""

    default_code = grpc.StatusCode.ABORTED
    default_reason = "INTERRUPTED"
    default_retryable = True


class CancelledByPeerError(DeepSeekError):
    """The other side, or `cancel()` here, gave the call up."""

    default_code = grpc.StatusCode.CANCELLED
    default_reason = "CANCELLED"


class InternalError(DeepSeekError):
    """A defect on the other side; quote the request id to whoever runs it."""

    default_code = grpc.StatusCode.INTERNAL
    default_reason = "INTERNAL"


class UpstreamAuthError(InternalError):
    """The gateway's own key for the backend was refused; the caller can do nothing about it."""

    default_reason = "UPSTREAM_AUTH"


class OutputError(DeepSeekError, ValueError):
    """The answer isn't of the form that was asked for with `output`, or a tool call's arguments don't fit its schema.

    Attributes:
        text: What the model wrote.
    """

    default_reason = "OUTPUT"
    default_retryable = True  # another sample may fit

    def __init__(self, details: str, *, text: str = "", **facts: Any) -> None:
        super().__init__(details, **facts)
        self.text = text


class ConfigurationError(DeepSeekError, ValueError):
    """The client or the gateway is set up wrongly; raised before any call."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "CONFIGURATION"


class ClosedError(DeepSeekError):
    """The client, stream or session was closed by this program."""

    default_code = grpc.StatusCode.CANCELLED
    default_reason = "CLOSED"


_BY_CODE: dict[grpc.StatusCode, type[DeepSeekError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
    grpc.StatusCode.UNAUTHENTICATED: AuthenticationError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.ALREADY_EXISTS: ConflictError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RateLimitError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
    grpc.StatusCode.UNAVAILABLE: ServiceUnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.ABORTED: StreamInterruptedError,
    grpc.StatusCode.CANCELLED: CancelledByPeerError,
}

_BY_REASON: dict[str, type[DeepSeekError]] = {
    cls.default_reason: cls
    for cls in (
        RequestTooLargeError,
        ContextLengthError,
        ContentPolicyError,
        InsufficientBalanceError,
        ApiVersionError,
        ConnectError,
        ConnectTimeoutError,
        FirstTokenTimeoutError,
        IdleTimeoutError,
        StreamInterruptedError,
        UpstreamAuthError,
    )
}


def error_class(code: grpc.StatusCode, reason: str = "") -> type[DeepSeekError]:
    """Returns the class for a gRPC status and a reason; a reason counts only under the status it belongs to.

    >>> error_class(grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_LENGTH").__name__
    'ContextLengthError'
    """
    named = _BY_REASON.get(reason)
    if named is not None and named.default_code is code:
        return named
    return _BY_CODE.get(code, InternalError)
