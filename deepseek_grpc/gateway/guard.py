"""The one place that every call passes: verify, authorise, observe, and turn every exception into a status."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from deepseek_grpc._call import new_request_id
from deepseek_grpc._codec.status import DETAILS_KEY, encode_status
from deepseek_grpc.auth import Secret
from deepseek_grpc.config import API_VERSION
from deepseek_grpc.errors import (
    ApiVersionError,
    AuthenticationError,
    ConfigurationError,
    DeadlineExceededError,
    DeepSeekError,
    InternalError,
    PermissionDeniedError,
    StreamInterruptedError,
    UnimplementedError,
)
from deepseek_grpc.gateway.refusals import RefusalLog
from deepseek_grpc.gateway.tokens import Principal, TokenVerifier
from deepseek_rpc.v2 import auth_pb2

__all__ = ["EXEMPT", "Call", "Guard", "current_call", "interruption", "permission_of", "raw", "translate"]

_log = logging.getLogger("deepseek_grpc.gateway")

EXEMPT: Final = (
    "grpc.health.v1.Health",  # probes have no token
    "grpc.reflection.v1alpha.ServerReflection",  # served on loopback only
)
"""Services that need no credential. Everything else is guarded or not served."""

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}\Z")
_MAJOR = API_VERSION.partition(".")[0]


@dataclass(slots=True)
class Call:
    """What a service knows about the call that it answers."""

    context: grpc.aio.ServicerContext[Any, Any]
    principal: Principal
    request_id: str
    attempts: int
    """Which try of gRPC's retries this is, from 1."""
    metadata: dict[str, str]
    """What came with it, the credential left out."""
    started: float
    """When the gateway began to read it, in `time.perf_counter()`'s seconds."""
    token: Secret
    verifier: TokenVerifier = field(repr=False)
    refusals: RefusalLog = field(repr=False)

    def authorise(self, permission: str) -> None:
        """Checks the credential, which may have expired since, and the permission.

        Raises:
            AuthenticationError: The credential isn't good any more.
            PermissionDeniedError: The caller lacks the permission.
        """
        try:
            principal = self.verifier.verify(self.token.reveal().decode())
        except AuthenticationError as error:
            raise self._noted(error) from None
        if not principal.may(permission):
            denied = f"client {principal.client_id!r} lacks the permission {permission!r}"
            raise self._noted(PermissionDeniedError(denied))

    async def renew(self, token: str) -> None:
        """Puts another token of the same client in the place of the first; raises AuthenticationError."""
        try:
            principal = await self.verifier.admit(token)
        except AuthenticationError as error:
            raise self._noted(error) from None
        if principal != self.principal:
            whose = f"it isn't a token of {self.principal.client_id!a}, who opened the session"
            raise self._noted(self.verifier.refusal(whose))
        self.token = Secret(token)

    def _noted(self, error: DeepSeekError) -> DeepSeekError:
        self.refusals.write(error, self.context.peer(), self.request_id)
        return error

    def elapsed_ms(self) -> float:
        """Returns the milliseconds since then."""
        return (time.perf_counter() - self.started) * 1000


_current: ContextVar[Call] = ContextVar("deepseek_grpc_call")


def current_call() -> Call:
    """Returns the call that the running task answers; for engines that look at more than the request."""
    return _current.get()


Handler = Callable[[Any, Call], Awaitable[Any]]
_Method = TypeVar("_Method", bound=Callable[..., Any])

_MAKERS: Final = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def raw(method: _Method) -> _Method:
    """Marks a service's method that takes and sends messages as the bytes that they are on the wire."""
    method.raw = True  # type: ignore[attr-defined]
    return method


class Guard:
    """Stands in front of services."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier
        self._refusals = RefusalLog()
        self._running: set[asyncio.Task[Any]] = set()

    def track(self) -> None:
        """Counts the running task among the handlers that `finished` waits for."""
        task = asyncio.current_task()
        if task is not None and task not in self._running:
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def finished(self) -> None:
        """Waits until every handler has ended and cleaned up; a stopped server has cancelled them, no more."""
        while self._running:
            await asyncio.wait(self._running)

    def protect(self, servicer: object, service: ServiceDescriptor) -> grpc.GenericRpcHandler:
        """Wraps a service's methods for a server; each takes (request or request iterator, Call).

        Raises:
            ConfigurationError: A method has no `(permission)` option in the protos.
        """
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        for method in service.methods:
            handler = getattr(servicer, method.name, None) or _unimplemented(method)
            make = _MAKERS[method.client_streaming, method.server_streaming]
            guarded = self._wrap(handler, permission_of(method))
            if getattr(handler, "raw", False):
                handlers[method.name] = make(guarded)
            else:
                handlers[method.name] = make(
                    guarded,
                    request_deserializer=GetMessageClass(method.input_type).FromString,
                    response_serializer=GetMessageClass(method.output_type).SerializeToString,
                )
        return grpc.method_handlers_generic_handler(service.full_name, handlers)

    def _wrap(self, handler: Handler, permission: str) -> Callable[[Any, Any], Awaitable[Any]]:
        async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            self.track()
            sent = context.invocation_metadata() or ()
            metadata = {key: value for key, value in sent if isinstance(value, str)}
            if len(metadata) < len(sent) and sum(key == "authorization" for key, _ in sent) > 1:
                metadata["authorization"] = ""  # which of them counts, nobody can say
            request_id = metadata.get("x-request-id", "")
            if not _REQUEST_ID.match(request_id):
                request_id = new_request_id()
            try:
                call = await self._admit(context, metadata, request_id)
                call.authorise(permission)
                _current.set(call)
                return await handler(request, call)
            except Exception as error:  # noqa: BLE001 - the catch-all: an unhandled exception's text would go out
                failure = translate(error, request_id)
                failure.attempts = failure.attempts or _attempts(metadata)
                await _refuse(context, failure)

        return guarded

    async def _admit(
        self, context: grpc.aio.ServicerContext[Any, Any], metadata: dict[str, str], request_id: str
    ) -> Call:
        version = metadata.get("x-api-version")
        if version is not None and version.partition(".")[0] != _MAJOR:
            raise ApiVersionError(f"x-api-version is {version[:32]!r}, and this gateway speaks {API_VERSION}")
        scheme, _, token = metadata.pop("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            token = ""
        try:
            principal = await self._verifier.admit(token)
        except AuthenticationError as error:
            self._refusals.write(error, context.peer(), request_id)
            raise
        began = time.perf_counter()
        return Call(
            context,
            principal,
            request_id,
            _attempts(metadata),
            metadata,
            began,
            Secret(token),
            self._verifier,
            self._refusals,
        )


def _attempts(metadata: dict[str, str]) -> int:
    previous = metadata.get("grpc-previous-rpc-attempts", "0")
    return int(previous) + 1 if previous.isdecimal() else 1


def permission_of(method: MethodDescriptor) -> str:
    """Returns a method's `(permission)`; raises ConfigurationError where it has none."""
    permission: str = method.GetOptions().Extensions[auth_pb2.permission]  # type: ignore[index]
    if not permission:
        raise ConfigurationError(f"{method.full_name} has no (permission) option; nobody could be allowed to call it")
    return permission


def _unimplemented(method: MethodDescriptor) -> Handler:
    async def handler(request: Any, call: Call) -> Any:  # noqa: ARG001
        raise UnimplementedError(f"this gateway doesn't serve {method.full_name}")

    return handler


def translate(error: BaseException, request_id: str) -> DeepSeekError:
    """Makes of any exception an error that may go out: foreign ones become INTERNAL, and their text goes to the log."""
    if isinstance(error, DeepSeekError):
        if not error.request_id:
            error.request_id = request_id
        return error
    if isinstance(error, TimeoutError):
        return DeadlineExceededError("the deadline passed", request_id=request_id)
    _log.error("request %s failed", request_id, exc_info=error)
    return InternalError("the gateway failed; its log has the cause under this request id", request_id=request_id)


def interruption(error: DeepSeekError) -> StreamInterruptedError:
    """Makes of a failure in mid-stream, after content has gone out, what it is for the caller: an interruption."""
    return StreamInterruptedError(error.details, request_id=error.request_id, metadata=dict(error.metadata))


async def _refuse(context: grpc.aio.ServicerContext[Any, Any], error: DeepSeekError) -> None:
    """Ends a call with an error's status, its details, and what gRPC's retries shall do about it."""
    status = encode_status(error)
    trailers: list[tuple[str, str | bytes]] = [(DETAILS_KEY, status.SerializeToString())]
    if error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        pushback = _pushback(error, context.time_remaining())
        if pushback is not None:
            trailers.append(("grpc-retry-pushback-ms", str(pushback)))
    await context.abort(error.code, status.message, tuple(trailers))


def _pushback(error: DeepSeekError, remaining: float | None) -> int | None:
    """Returns milliseconds until the next try, -1 for none at all, None to leave it to the client's back-off."""
    if not error.retryable:
        return -1
    if error.retry_after is None:
        return None
    # A pushback beyond the deadline would burn it and hide this status; under 2 ms gRPC Core can stall.
    if remaining is not None and error.retry_after >= remaining:
        return -1
    return max(2, round(error.retry_after * 1000))
