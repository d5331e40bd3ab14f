"""Completions between a prompt and a suffix as the gateway serves them: the same ways as generations."""

from __future__ import annotations

import grpc
import pytest

from deepseek_grpc import AsyncClient, JWTSigner, Secret
from deepseek_grpc.errors import FailedPreconditionError, NotFoundError
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.settings import ClientSettings, Settings
from deepseek_grpc.testing import Fail, FakeServer, ScriptedEngine
from deepseek_grpc.types import AccountBalance, Balance
from deepseek_rpc.v2 import text_pb2 as pb
from deepseek_rpc.v2.text_pb2_grpc import TextServiceStub
from tests.gateway.raw import bearer, channel, reason_of

SECRET = "0123456789abcdef0123456789abcdef"
MEGABYTE = 1024 * 1024
ASK = pb.CompleteFimRequest(prompt="x")


class Batch(ScriptedEngine):
    """Says everything at once, where the scripted engine sends every piece alone."""

    async def stream_complete(self, request):
        yield [event async for events in ScriptedEngine.stream_complete(self, request) for event in events]


async def test_completions_are_routed_and_the_first_account_is_the_gateways():
    small, large = ScriptedEngine(("small",), "small-1"), ScriptedEngine(("large",), "large-1")
    small.account, large.account = AccountBalance(available=True), AccountBalance(False, (Balance("USD", "0.00"),))
    client = ClientSettings("test-client", Secret(SECRET), roles=("test",))
    settings = Settings(
        listen="127.0.0.1:0",
        clients=(client,),
        roles={"test": ("*",)},
        aliases={"code": "small-1"},
        default_model="large-1",
    )
    backends = [Backend(small, ("small-*",)), Backend(large, ("large-1",))]
    async with (
        Gateway(settings, backends=backends) as gateway,
        AsyncClient(gateway.address, credentials=JWTSigner("test-client", SECRET)) as asked,
    ):
        for model, answer in [("small-2", "small"), ("code", "small"), (None, "large")]:
            assert (await asked.text.complete("x", model=model)).text == answer
        assert [recorded.request.model for recorded in small.completions] == ["small-2", "small-1"]
        with pytest.raises(NotFoundError, match="'tiny'"):
            await asked.text.stream_complete("x", model="tiny").final()
        assert await asked.text.balance() == large.account


@pytest.mark.parametrize("fields", [{}, {"suffix": "x"}, {"prompt": "x", "logprobs": 21}, {"prompt": "x", "top_p": 0}])
@pytest.mark.parametrize("method", ["CompleteFim", "StreamFim"])
def test_what_is_wrong_is_refused_here_too(fake_server, method, fields):
    with channel(fake_server.target) as raw:
        call = getattr(TextServiceStub(raw), method)
        with pytest.raises(grpc.RpcError) as caught:
            list(call(pb.CompleteFimRequest(**fields), metadata=bearer(fake_server), timeout=10))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert fake_server.text.completions == []


def test_a_batch_is_split_into_messages_of_256_kilobytes():
    pieces = ["a" * 100_000, "b" * 200_000, "c" * 400_000, "d", *["f" * 1000] * 1000]
    with FakeServer(engine=Batch(tuple(pieces))) as server, channel(server.target) as raw:
        messages = list(TextServiceStub(raw).StreamFim(ASK, metadata=bearer(server), timeout=20))
    assert all(len(message.chunks) == 1 or message.ByteSize() <= 256 * 1024 for message in messages)
    assert len(messages) == 7
    assert [chunk.text for message in messages for chunk in message.chunks if chunk.text] == pieces


def test_an_answer_that_no_message_can_carry():
    with FakeServer(engine=Batch(tuple(["x" * MEGABYTE] * 17))) as server, server.client() as client:
        with pytest.raises(FailedPreconditionError, match="; StreamFim sends it piece by piece"):
            client.text.complete("x")
        assert len(client.text.stream_complete("x").final().text) == 17 * MEGABYTE


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_what_would_be_tried_again_is_an_interruption_once_content_has_gone_out(fake_server, code):
    fake_server.text.script("some ", "text", Fail(code, "slow down", retry_after=0.1))
    with channel(fake_server.target) as raw, pytest.raises(grpc.RpcError) as caught:
        list(TextServiceStub(raw).StreamFim(ASK, metadata=bearer(fake_server), timeout=10))
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert (reason_of(caught.value), caught.value.details()) == ("INTERRUPTED", "slow down")
