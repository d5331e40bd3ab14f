"""What went wrong: errors ⇄ google.rpc.Status with ErrorInfo and RetryInfo (AIP-193)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import grpc

from deepseek_grpc.errors import (
    AuthenticationError,
    ConnectError,
    DeadlineExceededError,
    DeepSeekError,
    RequestTooLargeError,
    ServiceUnavailableError,
    StreamInterruptedError,
    error_class,
)

if TYPE_CHECKING:
    from google.rpc import status_pb2

__all__ = ["DETAILS_KEY", "DOMAIN", "decode_error", "decode_status", "encode_status"]

DETAILS_KEY: Final = "grpc-status-details-bin"
"""The trailer that carries a google.rpc.Status."""
DOMAIN: Final = "deepseek-grpc"
"""The `domain` of this project's ErrorInfo."""

# Bytes that go on the wire. gRPC rejects trailers above 8 KiB at random; the message travels twice, once of them with
# three bytes for one, and the details with four for three.
_MAX_MESSAGE: Final = 1024
_MAX_METADATA: Final = 1024
_MAX_VALUE: Final = 256
_MAX_NAME: Final = 128
_MAX_DELAY: Final = 365 * 24 * 3600.0

_MAX_SKEW: Final = 30
"""Seconds that clocks may differ; a gateway allows a token as many."""

_NO_TOKEN: Final = "Getting metadata from plugin failed with error: "
"""What gRPC says, in UNAVAILABLE, when a call's credentials have no token."""

_CODES: Final[dict[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}


def encode_status(error: DeepSeekError) -> status_pb2.Status:
    """Makes a google.rpc.Status of an error, bounded in size."""
    from google.protobuf import any_pb2, duration_pb2
    from google.rpc import error_details_pb2, status_pb2

    metadata: dict[str, str] = {}
    room = _MAX_METADATA
    for key, value in error.metadata.items():
        key, value = _bounded(key, _MAX_NAME), _bounded(value, _MAX_VALUE)  # noqa: PLW2901 - the same, shorter
        room -= len(key.encode()) + len(value.encode())
        if value and room >= 0:
            metadata[key] = value
    if error.request_id:
        metadata["request_id"] = _bounded(error.request_id, _MAX_NAME)
    if error.attempts:
        metadata["attempts"] = str(error.attempts)
    if error.retryable != error.default_retryable:
        metadata["retryable"] = str(error.retryable).lower()
    reason = _bounded(error.reason, _MAX_NAME)
    details = [any_pb2.Any()]
    details[0].Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata))
    if error.retry_after is not None and 0 <= error.retry_after <= _MAX_DELAY:
        seconds, nanos = divmod(round(error.retry_after * 1e9), 10**9)
        details.append(any_pb2.Any())
        details[1].Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=seconds, nanos=nanos)))
    return status_pb2.Status(code=error.code.value[0], message=_bounded(error.details, _MAX_MESSAGE), details=details)


def _bounded(text: str, limit: int) -> str:
    """Returns a text that UTF-8 can carry, cut to a number of bytes."""
    return text.encode(errors="replace")[:limit].decode(errors="ignore")


def decode_status(
    status: status_pb2.Status, request_id: str, *, clock: Callable[[], float] = time.time
) -> DeepSeekError:
    """Makes an error of a google.rpc.Status; details that can't be read count as absent.

    `clock` is this machine's, in seconds since the epoch; a refused credential is blamed on it where it is far off.
    """
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2

    code = _CODES.get(status.code or -1, grpc.StatusCode.UNKNOWN)  # OK is no error's code
    reason = ""
    metadata: dict[str, str] = {}
    retry_after: float | None = None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status.details:
        try:
            if detail.Unpack(info):
                reason, metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(retry):
                retry_after = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        except DecodeError:
            continue
    attempts = metadata.pop("attempts", "")
    retryable = metadata.pop("retryable", "")
    message, advice = status.message, None
    if code is grpc.StatusCode.UNAUTHENTICATED and (skew := _skew(metadata.get("gateway_time", ""), clock())):
        message, advice = f"{message}: {skew}", "Set this machine's clock."
    return error_class(code, reason)(
        message,
        code=code,
        reason=reason or None,
        request_id=metadata.pop("request_id", "") or request_id,
        attempts=int(attempts) if attempts.isdecimal() and len(attempts) < 10 else 1,
        retry_after=retry_after,
        retryable={"true": True, "false": False}.get(retryable),
        metadata=metadata,
        advice=advice,
    )


def _skew(gateway_time: str, now: float) -> str:
    """Says how far this machine's clock is from the gateway's; nothing where that is no reason to be refused."""
    if not (gateway_time.isdecimal() and len(gateway_time) < 12):
        return ""
    ahead = round(now - int(gateway_time))
    if abs(ahead) <= _MAX_SKEW:
        return ""
    return f"this machine's clock is {abs(ahead)} s {'ahead of' if ahead > 0 else 'behind'} the gateway's"


def decode_error(
    code: grpc.StatusCode,
    details: str,
    trailers: Iterable[tuple[str, str | bytes]],
    *,
    request_id: str,
    target: str,
    content: bool = False,
    clock: Callable[[], float] = time.time,
) -> DeepSeekError:
    """Makes an error of what a failed call left: status, details and trailers.

    `content` says that content had come before the call failed, which makes a lost connection an interruption;
    `clock` is this machine's.
    """
    for key, value in trailers:
        if key == DETAILS_KEY and isinstance(value, bytes):
            from google.protobuf.message import DecodeError
            from google.rpc import status_pb2

            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                break
            if status.code != code.value[0]:
                break  # not about this status, whatever it is
            return decode_status(status, request_id, clock=clock)
    details = details.replace("; ", ", ")  # gRPC's own words; of this project's, what follows a semicolon is advice
    if code is grpc.StatusCode.UNAVAILABLE:
        if details.startswith(_NO_TOKEN):
            return AuthenticationError(details.removeprefix(_NO_TOKEN), request_id=request_id)
        if content:
            return StreamInterruptedError(
                f"the connection was lost in mid-stream: {details}", request_id=request_id, attempts=1
            )
        from deepseek_grpc._codec.connection import no_connection

        return no_connection(details, request_id, target) or ServiceUnavailableError(
            details or "the connection was lost before an answer began", request_id=request_id, attempts=1
        )
    if code is grpc.StatusCode.UNKNOWN and "target uri is not valid" in details:
        return ConnectError(
            f"the target {target!r} is none that gRPC understands; give for example 'dns:///gateway.internal:443'",
            request_id=request_id,
            retryable=False,
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return RequestTooLargeError(
            details, code=code, request_id=request_id, advice="Send or ask for less, or raise max_message_bytes."
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        more = details.removeprefix("Deadline Exceeded").strip(" ,:")
        return DeadlineExceededError(
            f"the call's total time is over (Timeouts.total){': ' if more else ''}{more}",
            request_id=request_id,
            attempts=1,
        )
    return error_class(code)(details or code.value[1], code=code, request_id=request_id, attempts=1)
