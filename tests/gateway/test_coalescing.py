"""Streams: what is ready together travels together, what is alone leaves at once."""

from __future__ import annotations

import asyncio
import threading

import grpc
import pytest

from deepseek_grpc.testing import Fail, FakeServer, ScriptedEngine
from deepseek_grpc.types import Finished, Started, TextDelta
from deepseek_rpc.v2 import text_pb2 as pb
from deepseek_rpc.v2.text_pb2_grpc import TextServiceStub
from tests.gateway.raw import bearer, channel, reason_of

BOTH = pytest.mark.parametrize("method", ["StreamGenerate", "StreamFim"])
START = Started("a1", 0, "fake", "")


class Piecewise(ScriptedEngine):
    """Yields a batch for each piece and never waits for anything."""

    made = 0
    closed_in = None
    begun_in = None

    def __init__(self, *pieces):
        super().__init__()
        self.pieces = pieces
        self.over = threading.Event()

    async def stream(self, request):
        self.begun_in = asyncio.current_task()
        try:
            yield [START]
            for piece in self.pieces:
                yield [TextDelta(piece)]
                self.made += 1
            yield [Finished("stop")]
        finally:
            self.closed_in = asyncio.current_task()
            self.over.set()

    stream_complete = stream


def calling(server, raw, method="StreamGenerate"):
    kind = pb.GenerateRequest if method == "StreamGenerate" else pb.CompleteFimRequest
    return getattr(TextServiceStub(raw), method)(kind(prompt="Hi", model="fake"), metadata=bearer(server), timeout=30)


def texts(messages):
    return [chunk.text for message in messages for chunk in message.chunks if chunk.text]


@BOTH
def test_an_engine_that_is_faster_than_the_wire(method):
    pieces = [f"{number} " for number in range(2000)]
    with FakeServer(engine=Piecewise(*pieces)) as server, channel(server.target) as raw:
        messages = list(calling(server, raw, method))
    assert texts(messages) == pieces
    assert messages[0].chunks[0].HasField("head")
    assert messages[-1].chunks[-1].HasField("tail")
    assert len(messages) < len(pieces) / 4


class Paced(Piecewise):
    """Yields the next piece when it is told to."""

    def __init__(self, *pieces):
        super().__init__(*pieces)
        self.told = threading.Semaphore(0)

    async def stream(self, request):
        async for batch in Piecewise.stream(self, request):
            await asyncio.to_thread(self.told.acquire)
            yield batch

    stream_complete = stream


@BOTH
def test_a_piece_that_is_alone_leaves_at_once(method):
    """None of them waits for the next, which comes only after it has arrived."""
    engine = Paced("one", "two", "three")
    with FakeServer(engine=engine) as server, channel(server.target) as raw:
        call = calling(server, raw, method)
        arrived = []
        for _ in range(5):
            engine.told.release()
            arrived.append(next(call))
        engine.told.release()
        assert list(call) == []
    assert texts(arrived) == ["one", "two", "three"]
    assert [len(message.chunks) for message in arrived] == [1] * 5


def test_pieces_before_an_error_arrive_before_it():
    pieces = [f"{number} " for number in range(500)]
    with FakeServer() as server, channel(server.target) as raw:
        server.text.script(*pieces, Fail("UNAVAILABLE", "gone"))
        call, arrived = calling(server, raw), []
        with pytest.raises(grpc.RpcError) as caught:
            arrived.extend(call)  # keeps what came before it was raised
    assert texts(arrived) == pieces
    assert (caught.value.code(), reason_of(caught.value)) == (grpc.StatusCode.ABORTED, "INTERRUPTED")


class Breaking(ScriptedEngine):
    """Fails with what no caller is told."""

    async def stream(self, request):
        yield [START, TextDelta("first")]
        yield [TextDelta("last")]
        raise ZeroDivisionError


def test_so_they_do_before_a_failure_of_the_gateway(caplog):
    with FakeServer(engine=Breaking()) as server, channel(server.target) as raw:
        call, arrived = calling(server, raw), []
        with pytest.raises(grpc.RpcError) as caught:
            arrived.extend(call)
    assert texts(arrived) == ["first", "last"]
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "ZeroDivisionError" in caplog.text


@BOTH
def test_a_failure_before_the_first_batch_is_what_it_is(fake_server, method):
    fake_server.text.script(Fail("UNAVAILABLE", "not yet", retryable=False))
    with channel(fake_server.target) as raw, pytest.raises(grpc.RpcError) as caught:
        list(calling(fake_server, raw, method))
    assert (caught.value.code(), reason_of(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")


def until_still(engine):
    """Waits until the engine waits: what a connection holds on its way is bounded."""
    pause, seen = threading.Event(), -1
    while seen != engine.made:
        seen = engine.made
        pause.wait(0.2)


def test_an_engine_waits_for_a_reader_that_is_slow():
    pieces = [f"{number:05} " + "x" * 1018 for number in range(20_000)]
    engine = Piecewise(*pieces)
    with FakeServer(engine=engine) as server, channel(server.target) as raw:
        call = calling(server, raw)
        first = next(call)
        until_still(engine)
        assert engine.made < len(pieces) / 2
        assert texts([first, *call]) == pieces


class Endless(Piecewise):
    """Says the same until it is closed."""

    async def stream(self, request):
        self.loop, self.begun_in, self.others = asyncio.get_running_loop(), asyncio.current_task(), asyncio.all_tasks()
        try:
            yield [START]
            while True:
                yield [TextDelta(self.pieces[0])]
                self.made += 1
                await asyncio.sleep(0)
        finally:
            self.closed_in = asyncio.current_task()
            self.over.set()


@pytest.mark.parametrize("messages", [1, 100], ids=["while the engine waits", "while it works"])
def test_a_call_that_is_given_up_closes_its_engine_and_leaves_no_task(messages, caplog):
    engine = Endless("x" * 1000)

    async def left():
        async with asyncio.timeout(20):
            while asyncio.all_tasks() - engine.others - {asyncio.current_task()}:  # noqa: ASYNC110 - nothing says so
                await asyncio.sleep(0.005)

    with FakeServer(engine=engine) as server, channel(server.target) as raw:
        call = calling(server, raw)
        for _ in range(messages):
            next(call)
        if messages == 1:
            until_still(engine)
        call.cancel()
        assert engine.over.wait(20)
        assert engine.closed_in is engine.begun_in
        asyncio.run_coroutine_threadsafe(left(), engine.loop).result(30)
    assert not caplog.records
