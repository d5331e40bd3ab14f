"""The text service: decode, route, let the engine work, encode."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, TypeVar

from deepseek_grpc._codec.account import encode_balance
from deepseek_grpc._codec.answer import encode_completion, encode_models
from deepseek_grpc._codec.checks import check_complete, check_generate
from deepseek_grpc._codec.fim import decode_complete
from deepseek_grpc._codec.request import decode_generate
from deepseek_grpc.config import MAX_MESSAGE_BYTES
from deepseek_grpc.gateway.engines import TextEngine
from deepseek_grpc.gateway.guard import Call, raw
from deepseek_grpc.gateway.router import Router
from deepseek_grpc.gateway.services.session import Sessions
from deepseek_grpc.gateway.services.streaming import send_batches, too_large, upstream_of
from deepseek_grpc.types import Completion, FimRequest, GenerateRequest, Upstream
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["TextService"]

_Whole = TypeVar("_Whole", pb.GenerateResponse, pb.CompleteFimResponse)


class TextService:
    """Answers TextService's methods; those that have no method here are UNIMPLEMENTED."""

    def __init__(self, router: Router, resume_seconds: float) -> None:
        self._router = router
        self.sessions = Sessions(router, resume_seconds)
        """The sessions that are open, or wait for their clients to come back."""

    async def Generate(self, request: pb.GenerateRequest, call: Call) -> pb.GenerateResponse:  # noqa: N802
        """Generates one answer."""
        engine, decoded = self._generation(request)
        completion = await engine.generate(decoded)
        return _whole(completion, upstream_of(engine, call), pb.GenerateResponse(), "StreamGenerate")

    async def StreamGenerate(self, request: pb.GenerateRequest, call: Call) -> None:  # noqa: N802
        """Generates one answer, a message for each batch of events that is ready."""
        engine, decoded = self._generation(request)
        await send_batches(engine.stream(decoded), engine, call, pb.StreamGenerateResponse)

    async def CompleteFim(self, request: pb.CompleteFimRequest, call: Call) -> pb.CompleteFimResponse:  # noqa: N802
        """Completes the text between a prompt and a suffix."""
        engine, decoded = self._completion(request)
        completion = await engine.complete(decoded)
        return _whole(completion, upstream_of(engine, call), pb.CompleteFimResponse(), "StreamFim")

    async def StreamFim(self, request: pb.CompleteFimRequest, call: Call) -> None:  # noqa: N802
        """Completes the text between a prompt and a suffix, a message for each batch of events that is ready."""
        engine, decoded = self._completion(request)
        await send_batches(engine.stream_complete(decoded), engine, call, pb.StreamFimResponse)

    @raw
    async def Session(self, requests: AsyncIterator[bytes], call: Call) -> None:  # noqa: N802
        """Runs a session over one connection."""
        await self.sessions.serve(requests, call)

    async def ListModels(self, request: Any, call: Call) -> pb.ListModelsResponse:  # noqa: ARG002, N802
        """Lists the models."""
        return encode_models(await self._router.models(), self._router.default_model)

    async def GetBalance(self, request: Any, call: Call) -> pb.GetBalanceResponse:  # noqa: ARG002, N802
        """Says what is left on the account."""
        return encode_balance(await self._router.balance())

    def _generation(self, request: pb.GenerateRequest) -> tuple[TextEngine, GenerateRequest]:
        check_generate(request)
        engine, model = self._router.resolve(request.model)
        return engine, decode_generate(request, model)

    def _completion(self, request: pb.CompleteFimRequest) -> tuple[TextEngine, FimRequest]:
        check_complete(request)
        engine, model = self._router.resolve(request.model)
        return engine, decode_complete(request, model)


def _whole(completion: Completion, upstream: Upstream, response: _Whole, streamed: str) -> _Whole:
    """Fills in an answer that a message can carry; `streamed` is the method that has no such limit."""
    encode_completion(completion, upstream, response)
    if (size := response.ByteSize()) > MAX_MESSAGE_BYTES:
        raise too_large("the answer", size, f"; {streamed} sends it piece by piece")
    return response
