"""The text service: decode, route, let the engine work, encode."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeAlias, TypeVar

from deepseek_grpc._codec.account import encode_balance
from deepseek_grpc._codec.answer import encode_completion, encode_event, encode_models
from deepseek_grpc._codec.checks import check_complete, check_generate
from deepseek_grpc._codec.fim import decode_complete
from deepseek_grpc._codec.request import decode_generate
from deepseek_grpc._session.frames import BATCH_BYTES
from deepseek_grpc.config import MAX_MESSAGE_BYTES
from deepseek_grpc.errors import FailedPreconditionError, RateLimitError, ServiceUnavailableError
from deepseek_grpc.gateway.engines import TextEngine
from deepseek_grpc.gateway.guard import Call, interruption
from deepseek_grpc.gateway.router import Router
from deepseek_grpc.gateway.services.session import SessionRunner
from deepseek_grpc.types import Completion, Event, FimRequest, GenerateRequest, Upstream
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["TextService"]

_ENTRY_BYTES: Final = 5
"""What a chunk costs beside its own bytes: its tag and its length, which is under 2**28."""

_Batch: TypeAlias = pb.StreamGenerateResponse | pb.StreamFimResponse
_Whole = TypeVar("_Whole", pb.GenerateResponse, pb.CompleteFimResponse)


class TextService:
    """Answers TextService's methods; those that have no method here are UNIMPLEMENTED."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.sessions: set[SessionRunner] = set()
        """The sessions that are open."""

    async def Generate(self, request: pb.GenerateRequest, call: Call) -> pb.GenerateResponse:  # noqa: N802
        """Generates one answer."""
        engine, decoded = self._generation(request)
        completion = await engine.generate(decoded)
        return _whole(completion, _upstream(engine, call), pb.GenerateResponse(), "StreamGenerate")

    async def StreamGenerate(self, request: pb.GenerateRequest, call: Call) -> None:  # noqa: N802
        """Generates one answer, a message for each batch of events that is ready."""
        engine, decoded = self._generation(request)
        await _send(engine.stream(decoded), engine, call, pb.StreamGenerateResponse)

    async def CompleteFim(self, request: pb.CompleteFimRequest, call: Call) -> pb.CompleteFimResponse:  # noqa: N802
        """Completes the text between a prompt and a suffix."""
        engine, decoded = self._completion(request)
        completion = await engine.complete(decoded)
        return _whole(completion, _upstream(engine, call), pb.CompleteFimResponse(), "StreamFim")

    async def StreamFim(self, request: pb.CompleteFimRequest, call: Call) -> None:  # noqa: N802
        """Completes the text between a prompt and a suffix, a message for each batch of events that is ready."""
        engine, decoded = self._completion(request)
        await _send(engine.stream_complete(decoded), engine, call, pb.StreamFimResponse)

    async def Session(self, requests: AsyncIterator[pb.SessionRequest], call: Call) -> None:  # noqa: N802
        """Runs a session until the client ends it."""
        runner = SessionRunner(self._router, call)
        self.sessions.add(runner)
        try:
            await runner.run(requests)
        finally:
            self.sessions.discard(runner)

    async def ListModels(self, request: Any, call: Call) -> pb.ListModelsResponse:  # noqa: ARG002, N802
        """Lists the models."""
        return encode_models(await self._router.models(), self._router.default_model)

    async def GetBalance(self, request: Any, call: Call) -> pb.GetBalanceResponse:  # noqa: ARG002, N802
        """Says what is left on the account."""
        return encode_balance(await self._router.balance())

    def _generation(self, request: pb.GenerateRequest) -> tuple[TextEngine, GenerateRequest]:
        check_generate(request)
        return self._router.route(decode_generate(request))

    def _completion(self, request: pb.CompleteFimRequest) -> tuple[TextEngine, FimRequest]:
        check_complete(request)
        return self._router.route(decode_complete(request))


def _upstream(engine: TextEngine, call: Call) -> Upstream:
    return Upstream(engine.name, attempts=call.attempts, gateway_ms=call.elapsed_ms())


def _whole(completion: Completion, upstream: Upstream, response: _Whole, streamed: str) -> _Whole:
    """Fills in an answer that a message can carry; `streamed` is the method that has no such limit."""
    encode_completion(completion, upstream, response)
    if (size := response.ByteSize()) > MAX_MESSAGE_BYTES:
        raise _too_large("the answer", size, f"; {streamed} sends it piece by piece")
    return response


async def _send(
    batches: AsyncGenerator[Sequence[Event], None], engine: TextEngine, call: Call, make: Callable[[], _Batch]
) -> None:
    """Sends an engine's batches; a failure after the first one is an interruption."""
    upstream: Upstream | None = None
    try:
        async with aclosing(batches):
            async for events in batches:
                if upstream is None:
                    upstream = _upstream(engine, call)
                message = make()
                for event in events:
                    encode_event(event, upstream, message.chunks.add())
                if message.ByteSize() <= BATCH_BYTES:
                    await call.context.write(message)
                else:
                    for part in _split(message, make):
                        await call.context.write(part)
    except (ServiceUnavailableError, RateLimitError) as error:
        if upstream is None:
            raise
        raise interruption(error) from error


def _split(message: _Batch, make: Callable[[], _Batch]) -> Iterator[_Batch]:
    """Yields a batch in parts of the size that batches may have; a chunk that is larger goes alone."""
    part, room = make(), BATCH_BYTES
    for chunk in message.chunks:
        size = chunk.ByteSize() + _ENTRY_BYTES
        if size > room and part.chunks:
            yield part
            part, room = make(), BATCH_BYTES
        if size > MAX_MESSAGE_BYTES:
            raise _too_large("a piece of the answer", size)
        part.chunks.append(chunk)
        room -= size
    yield part


def _too_large(what: str, size: int, hint: str = "") -> FailedPreconditionError:
    # gRPC would refuse it with RESOURCE_EXHAUSTED, and clients would have the same answer generated again and again.
    return FailedPreconditionError(
        f"{what} has {size:,} bytes; the limit of a message is {MAX_MESSAGE_BYTES:,} bytes{hint}", reason="TOO_LARGE"
    )
