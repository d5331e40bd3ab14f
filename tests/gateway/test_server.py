"""The gateway as a whole: where it listens, what it routes, when its engines stop, and how a session may be abused."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from deepseek_grpc import AsyncClient, Client, ClientConfig, JWTSigner, Keepalive, Model, Retry
from deepseek_grpc.errors import ConfigurationError, FailedPreconditionError, NotFoundError
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.settings import ClientSettings, Settings
from deepseek_grpc.testing import Delay, Fail, FakeServer, ScriptedEngine, Stall
from deepseek_rpc.v2 import text_pb2 as pb
from deepseek_rpc.v2.text_pb2_grpc import TextServiceStub
from tests.gateway.raw import RawSession, bearer, channel, error_of, open_frame, reason_of, start_frame

SECRET = "0123456789abcdef0123456789abcdef"
CLIENT = ClientSettings("test-client", SECRET.encode(), roles=("test",))
SIGNER = JWTSigner("test-client", SECRET)
HI = pb.GenerateRequest(prompt="Hi")


def settings(**values):
    return Settings(**{"listen": "127.0.0.1:0", "clients": (CLIENT,), "roles": {"test": ("*",)}, **values})


@pytest.mark.parametrize("delivery", ["call", "metadata"])
def test_a_unix_socket(tmp_path, delivery):
    with FakeServer(listen=f"unix:{tmp_path}/gw.sock") as server:
        assert server.target == f"unix:{tmp_path}/gw.sock"
        with server.client(config=ClientConfig(token_delivery=delivery)) as client:
            assert client.text.generate("Hi").text == "Hello from the fake server."
            assert client.health() == "SERVING"
            with client.text.session() as session:
                assert session.generate("Hi").text == "Hello from the fake server."
        assert {recorded.client_id for recorded in server.text.requests} == {"test-client"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_loopback_by_every_name(host):
    with FakeServer(listen=f"{host}:0") as server, server.client() as client:
        assert server.target.startswith(f"{host}:")
        assert client.text.generate("Hi").text == "Hello from the fake server."


async def test_a_port_in_use(fake_server):
    gateway = Gateway(settings(listen=fake_server.target), backends=[Backend(ScriptedEngine(), ("*",))])
    with pytest.raises(ConfigurationError, match=f"cannot listen on '{fake_server.target}': the address is in use"):
        await gateway.start()
    await gateway.stop()


def test_a_gateway_without_a_backend():
    with pytest.raises(ConfigurationError, match="no backend"):
        Gateway(settings(), backends=[])


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:443", "gateway.internal:443"])
def test_plain_text_beyond_loopback_is_refused(listen):
    with pytest.raises(ConfigurationError, match=r"that needs \[tls\]"):
        settings(listen=listen)


def test_a_role_that_is_not_defined():
    with pytest.raises(ConfigurationError, match="'test', which"):
        settings(roles={})


async def test_models_are_routed_to_the_first_backend_that_serves_them():
    small, large = ScriptedEngine(("small",), "small-1"), ScriptedEngine(("large",), "large-1")
    chosen = settings(aliases={"chat": "small-1"}, default_model="large-1")
    async with (
        Gateway(chosen, backends=[Backend(small, ("small-*",)), Backend(large, ("large-1", "small-2"))]) as gateway,
        AsyncClient(gateway.address, credentials=SIGNER) as client,
    ):
        for model, answer in [("small-1", "small"), ("small-2", "small"), ("chat", "small"), (None, "large")]:
            assert (await client.text.generate("Hi", model=model)).text == answer
        assert [recorded.request.model for recorded in small.requests] == ["small-1", "small-2", "small-1"]
        with pytest.raises(NotFoundError, match="model 'nobody' isn't served here") as caught:
            await client.text.generate("Hi", model="nobody")
        assert caught.value.metadata["field"] == "model"
        async with client.text.session() as session:
            assert (await session.generate("Hi", model="chat")).text == "small"
            with pytest.raises(NotFoundError):
                await session.generate("Hi", model="nobody")
        described = "Says what a test tells it to."
        assert await client.text.models() == [
            Model("small-1", "tests", "scripted", described, ("chat",)),
            Model("large-1", "tests", "scripted", described),
        ]


@pytest.mark.parametrize("method", ["Generate", "StreamGenerate"])
def test_a_call_that_is_given_up_stops_its_engine(fake_server, method):
    fake_server.text.script(Stall())
    with channel(fake_server.target) as raw:
        stub = TextServiceStub(raw)
        request = pb.GenerateRequest(prompt="Hi")
        start = stub.Generate.future if method == "Generate" else stub.StreamGenerate
        call = start(request, metadata=bearer(fake_server))
        fake_server.text.wait_for_requests(1)
        call.cancel()
        fake_server.text.wait_for_cancellations(1)


@pytest.mark.parametrize("method", ["Generate", "StreamGenerate"])
def test_a_deadline_that_passes_stops_the_engine(fake_server, method):
    fake_server.text.script(Stall())
    with channel(fake_server.target) as raw:
        stub = TextServiceStub(raw)
        start = stub.Generate.future if method == "Generate" else stub.StreamGenerate
        call = start(pb.GenerateRequest(prompt="Hi"), metadata=bearer(fake_server), timeout=0.2)
        fake_server.text.wait_for_cancellations(1)
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_client_is_not_sent_away_for_its_pings(fake_server):
    """By default the fifth in a row ends the connection and what runs on it; gRPC sends no more than one a second."""
    fake_server.text.script("a", Delay(6), "b")
    with fake_server.client(config=ClientConfig(keepalive=Keepalive(interval=0.1))) as client:
        assert client.text.stream("Hi").final().text == "ab"


def test_more_calls_than_a_connection_carries_wait_for_their_turn(fake_server):
    """The gateway runs 100 streams of a connection; one of them watches its health."""
    running = 99
    for _ in range(running):
        fake_server.text.script("a", Stall())

    async def main():
        async with fake_server.async_client() as client:
            stalled = [asyncio.ensure_future(client.text.generate("Hi")) for _ in range(running)]
            await asyncio.to_thread(fake_server.text.wait_for_requests, running)
            waiting = [asyncio.ensure_future(client.text.generate("Hi")) for _ in range(20)]
            assert not (await asyncio.wait(waiting, timeout=0.2))[0]
            assert len(fake_server.text.requests) == running
            for call in stalled:
                call.cancel()
            assert {answer.text for answer in await asyncio.gather(*waiting)} == {"Hello from the fake server."}

    asyncio.run(main())


def test_a_client_that_vanishes_stops_its_engines(fake_server):
    fake_server.text.script(Stall())
    with channel(fake_server.target) as raw:
        session = RawSession(raw, bearer(fake_server))
        session.send(open_frame(), start_frame(1))
        fake_server.text.wait_for_requests(1)
    fake_server.text.wait_for_cancellations(1)


def test_the_gateway_checks_requests_too(fake_server):
    with channel(fake_server.target) as raw:
        for request, field in [
            (pb.GenerateRequest(), "prompt"),
            (pb.GenerateRequest(prompt="x", temperature=5), "temperature"),
            (pb.GenerateRequest(messages=[pb.Message(content="x")]), "messages[0].role"),
            (pb.GenerateRequest(prompt="x", stop=["y"] * 17), "stop"),
            (pb.GenerateRequest(prompt="x", request_id="y" * 129), "request_id"),
            (pb.GenerateRequest(prompt="x", extra_json="{"), "extra_json"),
        ]:
            with pytest.raises(grpc.RpcError) as caught:
                TextServiceStub(raw).Generate(request, metadata=bearer(fake_server), timeout=10)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details().startswith(field)
    assert not fake_server.text.requests


MEGABYTE = 1024 * 1024


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_no_message_can_carry_is_made_once(fake_server, caplog, streamed):
    fake_server.text.script("x" * 17 * MEGABYTE)
    with (
        fake_server.client() as client,
        pytest.raises(FailedPreconditionError, match="the limit of a message") as caught,
    ):
        client.text.stream("Hi").final() if streamed else client.text.generate("Hi")
    assert (caught.value.reason, caught.value.retryable) == ("TOO_LARGE", False)
    assert ("StreamGenerate" in caught.value.details) is not streamed
    assert len(fake_server.text.requests) == 1
    assert not caplog.records


class Batch(ScriptedEngine):
    """Says everything at once, where the scripted engine sends every piece alone."""

    async def stream(self, request):
        yield [event async for events in ScriptedEngine.stream(self, request) for event in events]


def test_a_batch_is_split_into_messages_of_256_kilobytes():
    pieces = ["a" * 100_000, "b" * 200_000, "c" * 400_000, "d", "e" * 262_000, *["f" * 1000] * 1000]
    engine = Batch(tuple(pieces))
    with FakeServer(engine=engine) as server, channel(server.target) as raw:
        request = pb.GenerateRequest(prompt="Hi", model="fake")
        messages = list(TextServiceStub(raw).StreamGenerate(request, metadata=bearer(server), timeout=20))
    assert [len(message.chunks) == 1 or message.ByteSize() <= 256 * 1024 for message in messages] == [True] * len(
        messages
    )
    assert all(messages[i].ByteSize() + messages[i + 1].ByteSize() > 256 * 1024 for i in range(len(messages) - 1))
    assert [chunk.text for message in messages for chunk in message.chunks if chunk.text] == pieces


def test_many_pieces_may_make_an_answer_that_no_message_can_carry():
    with FakeServer(engine=Batch(tuple(["x" * MEGABYTE] * 17))) as server, server.client() as client:
        assert len(client.text.stream("Hi").final().text) == 17 * MEGABYTE


def test_pieces_before_one_that_is_too_large_arrive():
    engine = Batch(("some", " text", "x" * 17 * MEGABYTE, "more"))
    with FakeServer(engine=engine) as server, server.client() as client, client.text.stream("Hi") as stream:
        pieces = stream.text()
        assert [next(pieces), next(pieces)] == ["some", " text"]
        with pytest.raises(FailedPreconditionError, match="a piece of the answer"):
            next(pieces)
        assert len(engine.requests) == 1


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_what_would_be_tried_again_is_an_interruption_once_content_has_gone_out(fake_server, code):
    fake_server.text.script("some ", "text", Fail(code, "slow down", retry_after=0.1))
    with channel(fake_server.target) as raw:
        call = TextServiceStub(raw).StreamGenerate(HI, metadata=bearer(fake_server), timeout=10)
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert (reason_of(caught.value), caught.value.details()) == ("INTERRUPTED", "slow down")


@pytest.fixture
def session(fake_server):
    with channel(fake_server.target) as raw:
        yield RawSession(raw, bearer(fake_server))


def refused(session):
    with pytest.raises(grpc.RpcError) as caught:
        session.rest()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(caught.value) == "INVALID_REQUEST"
    return caught.value.details()


def test_a_session_that_does_not_begin_with_open(session):
    session.send(start_frame(1))
    assert "a session begins with open" in refused(session)


def test_a_session_that_begins_with_nothing(session):
    session.send(pb.ClientFrame())
    assert "a session begins with open" in refused(session)


def test_a_second_open(session):
    session.send(open_frame())
    assert session.read().frames[0].opened.session_id
    session.send(open_frame())
    assert "second open" in refused(session)


def test_more_frames_than_a_message_may_have(session):
    session.send(open_frame(), *[start_frame(i) for i in range(1, 10_002)])
    assert "has 10001 entries; the limit of a message is 10000" in refused(session)


def test_a_breach_ends_running_turns(fake_server, session):
    fake_server.text.script(Stall())
    session.send(open_frame(), start_frame(1))
    fake_server.text.wait_for_requests(1)
    session.send(open_frame())
    refused(session)
    fake_server.text.wait_for_cancellations(1)


def ends(session):
    """Reads to the end; returns what each turn ended with."""
    found = {}
    for frame in session.frames():
        if frame.HasField("done"):
            assert found.setdefault(frame.done.turn_id, "done") == "done"
        elif frame.HasField("error"):
            assert frame.error.turn_id not in found
            found[frame.error.turn_id] = error_of(frame.error.status)
    return found


def test_a_turns_id_twice(fake_server, session):
    session.send(open_frame(), start_frame(1), start_frame(2))
    answered = set()
    for frame in session.frames():
        if frame.HasField("done"):
            answered.add(frame.done.turn_id)
        if len(answered) == 2:
            break
    session.send(start_frame(1), start_frame(3))
    session.half_close()
    assert ends(session) == {1: "CONFLICT", 3: "done"}
    assert len(fake_server.text.requests) == 3


def test_a_running_turns_id_again(fake_server, session):
    fake_server.text.script(Stall())
    session.send(open_frame(), start_frame(1))
    fake_server.text.wait_for_requests(1)
    session.send(start_frame(1, prompt="Something else"), start_frame(2))
    session.half_close()
    assert ends(session) == {1: "CONFLICT", 2: "done"}
    fake_server.text.wait_for_cancellations(1)


def test_the_same_start_again_is_the_same_turn(fake_server, session):
    fake_server.text.script(Stall())
    session.send(open_frame(), start_frame(1))
    fake_server.text.wait_for_requests(1)
    session.send(start_frame(1), start_frame(2), pb.ClientFrame(cancel=pb.CancelFrame(turn_id=1)))
    session.half_close()
    assert ends(session) == {1: "CANCELLED", 2: "done"}
    assert len(fake_server.text.requests) == 2


def test_a_turn_without_an_id(session):
    session.send(open_frame(), start_frame(0))
    assert "start.turn_id is 0" in refused(session)


def test_a_turn_with_a_bad_request(session):
    session.send(open_frame(), start_frame(1, temperature=5), start_frame(2, prompt=""), start_frame(3))
    session.half_close()
    assert ends(session) == {1: "INVALID_REQUEST", 2: "INVALID_REQUEST", 3: "done"}


def test_cancelling_what_is_not_there(session):
    session.send(open_frame(), pb.ClientFrame(cancel=pb.CancelFrame(turn_id=7)), start_frame(8))
    session.half_close()
    assert ends(session) == {7: "TURN_UNKNOWN", 8: "done"}


def test_a_cancelled_turn_says_so(fake_server, session):
    fake_server.text.script(Stall())
    session.send(open_frame(), start_frame(1, stream=True))
    fake_server.text.wait_for_requests(1)
    session.send(pb.ClientFrame(cancel=pb.CancelFrame(turn_id=1)))
    session.half_close()
    assert ends(session) == {1: "CANCELLED"}


def test_a_turn_that_is_cancelled_as_it_starts(fake_server, session):
    session.send(open_frame(), start_frame(1), pb.ClientFrame(cancel=pb.CancelFrame(turn_id=1)), start_frame(2))
    session.half_close()
    assert ends(session) == {1: "CANCELLED", 2: "done"}


def test_frames_that_this_gateway_does_not_know_are_passed_over(session):
    session.send(open_frame(), pb.ClientFrame(), start_frame(1))
    session.half_close()
    assert ends(session) == {1: "done"}


def test_a_client_that_closes_its_side_still_gets_its_answers(session):
    session.send(open_frame(), *[start_frame(i, stream=i % 2 == 0) for i in range(1, 21)])
    session.half_close()
    assert ends(session) == dict.fromkeys(range(1, 21), "done")


def test_an_open_that_nothing_follows(session):
    session.send(open_frame())
    session.half_close()
    assert [frame.WhichOneof("frame") for message in session.rest() for frame in message.frames] == ["opened"]


def test_frames_travel_together_under_load(fake_server, session):
    turns = 64
    session.send(open_frame(), *[start_frame(i, stream=True) for i in range(1, turns + 1)])
    session.half_close()
    messages = session.rest()
    frames = [frame for message in messages for frame in message.frames]
    # Opened, and for each turn its head, six pieces, its tail in no more frames than these, and Done.
    assert 1 + turns * 2 <= len(frames) <= 1 + turns * (1 + 6 + 1 + 1)
    assert len(messages) * 2 < len(frames)
    for turn in range(1, turns + 1):
        chunks = [chunk for frame in frames if frame.chunks.turn_id == turn for chunk in frame.chunks.chunks]
        assert "".join(chunk.text for chunk in chunks) == "Hello from the fake server."
        assert (chunks[0].HasField("head"), len(chunks), chunks[-1].HasField("tail")) == (True, 8, True)


def test_batches_stop_at_256_kilobytes(fake_server, session):
    fake_server.text.script(*["x" * 100_000] * 20)
    fake_server.text.script("y" * 1_000_000)
    session.send(open_frame(), start_frame(1, stream=True), start_frame(2, stream=True))
    session.half_close()
    for message in session.rest():
        assert message.ByteSize() <= 300 * 1024 or len(message.frames) == 1
        assert message.ByteSize() <= 8 * 1024 * 1024


def test_64_sessions_at_once(fake_server):
    async def use(client, i):
        async with client.text.session() as session:
            return (await session.generate(f"question {i}")).text

    async def main():
        async with fake_server.async_client() as client:
            return await asyncio.gather(*(use(client, i) for i in range(64)))

    assert asyncio.run(main()) == ["Hello from the fake server."] * 64


def test_a_gateway_that_starts_again_on_its_port():
    config = ClientConfig(retry=Retry(attempts=1), wait_for_ready=True)
    backend = Backend(ScriptedEngine(), ("*",))

    async def main():
        async with Gateway(settings(), backends=[backend]) as gateway:
            address = gateway.address
            client = AsyncClient(address, credentials=SIGNER, config=config)
            await client.text.generate("one")
        async with Gateway(settings(listen=address), backends=[backend]):
            await client.text.generate("two", timeout=10)
            await client.aclose()

    asyncio.run(main())


def test_the_sync_and_the_async_client_side_by_side(fake_server):
    async def main():
        async with fake_server.async_client() as client:
            return (await client.text.generate("Hi")).text

    with fake_server.client() as client:
        assert isinstance(client, Client)
        assert client.text.generate("Hi").text == asyncio.run(main())
