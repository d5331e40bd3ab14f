"""Streamed generations whose connection is cut, or whose gateway is killed, and that go on."""

from __future__ import annotations

import asyncio
import threading

import pytest

from deepseek_grpc import AsyncClient, Client, ClientConfig, TextDelta, Timeouts
from deepseek_grpc.errors import ServiceUnavailableError, StreamInterruptedError
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.testing import Fail, FakeServer, Stall
from tests.faults.proxy import Proxy

QUESTION = "What is a deadline in gRPC?"
STUBBORN = ClientConfig(wait_for_ready=True, timeouts=Timeouts(total=40))


@pytest.fixture(scope="module")
def server():
    with FakeServer(engine=EmbeddedEngine(pace=400)) as server:
        yield server


@pytest.mark.parametrize("thinking", [False, True])
def test_cut_connections(server, thinking):
    options = {"temperature": 0.7, "seed": 5, "thinking": thinking}
    with Proxy(server.target) as proxy, Client(proxy.address, credentials=server.credentials(), config=STUBBORN) as cut:
        whole = cut.text.generate(QUESTION, **options)
        stream = cut.text.stream(QUESTION, **options)
        for pieces, _ in enumerate(stream.text()):
            if pieces in (1, 5, 30):
                proxy.cut()
        answer = stream.final()
    assert (answer.text, answer.reasoning) == (whole.text, whole.reasoning)
    assert answer.usage.completion_tokens == whole.usage.completion_tokens
    assert 1 <= answer.meta.continued <= 3  # two cuts may strike one connection


async def test_cut_connections_async(server):
    options = {"temperature": 0.7, "seed": 6}
    with Proxy(server.target) as proxy:
        async with AsyncClient(proxy.address, credentials=server.credentials(), config=STUBBORN) as cut:
            whole = await cut.text.generate(QUESTION, **options)
            stream = cut.text.stream(QUESTION, **options)
            pieces = 0
            async for event in stream:
                pieces += isinstance(event, TextDelta)
                if pieces in (2, 40) and isinstance(event, TextDelta):
                    await asyncio.to_thread(proxy.cut)
            answer = await stream.final()
    assert answer.text == whole.text
    assert answer.usage.completion_tokens == whole.usage.completion_tokens
    assert 1 <= answer.meta.continued <= 2


def test_a_killed_gateway_that_is_replaced(start_gateway):
    gateway = start_gateway()
    with gateway.client(config=STUBBORN) as client, client.text.stream("Hi") as stream:
        pieces = stream.text()
        assert next(pieces) == "one"
        gateway.kill()
        again = start_gateway(listen=gateway.target)
        assert next(pieces) == "one"
        again.open_gate()
        answer = stream.final()
    assert (answer.text, answer.meta.continued) == ("oneonetwo", 1)


class Canceller:
    """An observer that cancels a stream, from another thread, while its second call begins."""

    def __init__(self):
        self.calls = 0
        self.codes = []
        self.stream = None

    def started(self, call):
        self.calls += 1
        if self.calls == 2:
            thread = threading.Thread(target=self.stream.cancel)
            thread.start()
            thread.join()

    def ended(self, call):
        self.codes.append(call.code.name)


def test_a_stream_that_is_cancelled_while_it_is_taken_up_again():
    canceller = Canceller()
    with FakeServer() as fake, fake.client(config=ClientConfig(observers=[canceller])) as client:
        fake.text.script("Hel", Fail("UNAVAILABLE"))
        fake.text.script("lo", Stall())
        canceller.stream = client.text.stream("Hi")
        answer = canceller.stream.final()
    assert (answer.text, answer.finish_reason) == ("Hel", "cancelled")
    assert canceller.codes == ["ABORTED", "CANCELLED"]


def test_a_killed_gateway_that_nobody_replaces(start_gateway):
    gateway = start_gateway()
    with gateway.client() as client, client.text.stream("Hi", request_id="req-1") as stream:
        pieces = stream.text()
        assert next(pieces) == "one"
        gateway.kill()
        with pytest.raises(
            StreamInterruptedError, match="and the answer couldn't be continued: no connection"
        ) as caught:
            next(pieces)
    assert (caught.value.partial, caught.value.request_id) == ("one", "req-1")
    assert isinstance(caught.value.__cause__, ServiceUnavailableError)
