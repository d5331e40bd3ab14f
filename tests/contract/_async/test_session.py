"""Many generations over one stream."""

from __future__ import annotations

import asyncio

import pytest

from deepseek_grpc import ClientConfig, Finished, Started, TextDelta, system, user
from deepseek_grpc.errors import (
    ClosedError,
    DeepSeekError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    ServiceUnavailableError,
    StreamInterruptedError,
)
from deepseek_grpc.testing import Delay, Fail, FakeServer, Stall
from tests.contract.concurrency import gather, start_task

HELLO = "Hello from the fake server."


@pytest.fixture
async def session(client):
    async with client.text.session() as session:
        yield session


async def text_of(stream):
    async with stream:
        return "".join([piece async for piece in stream.text()])


async def test_a_whole_answer(fake_server, session):
    fake_server.text.script("Hel", "lo")
    answer = await session.generate("Hi", request_id="req-1", system_message="Be brief", temperature=0.5)
    assert answer.text == "Hello"
    assert answer.finish_reason == "stop"
    assert answer.usage.total_tokens == 4
    assert answer.meta.request_id == "req-1"
    assert answer.meta.model == "fake"
    assert answer.meta.upstream.backend == "scripted"
    recorded = fake_server.text.requests[0]
    assert recorded.request.messages == (system("Be brief"), user("Hi"))
    assert recorded.request.temperature == 0.5
    assert recorded.request.request_id == "req-1"
    assert recorded.client_id == "test-client"


async def test_a_streamed_answer(fake_server, session):
    fake_server.text.script("Hel", "lo")
    async with session.stream("Hi") as stream:
        events = [event async for event in stream]
    assert events[:3] == [Started("fake-1", 0, "fake", "fp_fake"), TextDelta("Hel"), TextDelta("lo")]
    assert isinstance(events[3], Finished)
    assert len(events) == 4


async def test_it_has_an_id(session):
    await session.generate("Hi")
    assert len(session.session_id) == 32


async def test_its_metadata(fake_server):
    async with (
        fake_server.async_client(config=ClientConfig(metadata={"x-team": "a"})) as client,
        client.text.session(metadata={"x-trace": "b"}, request_id="ses-1") as session,
    ):
        await session.generate("Hi", request_id="req-1")
    metadata = fake_server.text.requests[0].metadata
    assert (metadata["x-team"], metadata["x-trace"], metadata["x-request-id"]) == ("a", "b", "ses-1")


async def test_turns_one_after_the_other(session):
    for i in range(20):
        assert (await session.generate(f"question {i}")).text == HELLO


async def test_64_turns_at_once(fake_server, session):
    def ask(i):
        if i % 2:
            return lambda: session.generate(f"question {i}")
        return lambda: text_of(session.stream(f"question {i}"))

    answers = await gather(*(ask(i) for i in range(64)))
    assert [answer if isinstance(answer, str) else answer.text for answer in answers] == [HELLO] * 64
    asked = {recorded.request.messages[0].content for recorded in fake_server.text.requests}
    assert asked == {f"question {i}" for i in range(64)}


async def test_turns_do_not_wait_for_each_other(fake_server, session):
    fake_server.text.script(Stall())
    slow = session.stream("slow")
    await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
    assert (await session.generate("quick")).text == HELLO
    await slow.cancel()
    assert (await slow.final()).finish_reason == "cancelled"


async def test_a_reader_that_stands_still_leaves_others(fake_server, session):
    fake_server.text.script(*["x" * 10_000] * 500)
    async with session.stream("long") as stream:
        async for _ in stream.text():
            break
        for _ in range(5):
            assert (await session.generate("quick")).text == HELLO
        assert (await stream.final()).text == "x" * 5_000_000


async def test_cancelling_one_leaves_others(fake_server, session):
    for _ in range(3):
        fake_server.text.script("a", Delay(0.2), "b")
    streams = []
    for i in range(3):
        streams.append(session.stream("Hi"))
        await asyncio.to_thread(fake_server.text.wait_for_requests, i + 1)
    await streams[1].cancel()
    assert (await streams[1].final()).finish_reason == "cancelled"
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)
    assert (await streams[0].final()).text == "ab"
    assert (await streams[2].final()).text == "ab"
    assert fake_server.text.cancelled == 1


async def test_a_failing_turn_leaves_others(fake_server, session):
    fake_server.text.script(Delay(0.05), Fail("RESOURCE_EXHAUSTED", retry_after=7))
    fake_server.text.script("a", Delay(0.1), "b")
    failing = session.stream("Hi")
    await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
    fine = session.stream("Hi")
    with pytest.raises(DeepSeekError) as caught:
        await failing.final()
    assert caught.value.retry_after == 7
    assert (await fine.final()).text == "ab"
    assert (await session.generate("Hi")).text == HELLO


async def test_a_bad_request_leaves_others(fake_server, session):
    with pytest.raises(InvalidRequestError) as caught:
        await session.generate("Hi", temperature=5)
    assert caught.value.field == "temperature"
    with pytest.raises(InvalidRequestError):
        session.stream("")
    assert (await session.generate("Hi")).text == HELLO
    assert len(fake_server.text.requests) == 1


async def test_a_model_that_is_not_there(fake_server, session):
    fake_server.text.script(Fail("NOT_FOUND", "no such model"))
    with pytest.raises(NotFoundError, match="no such model"):
        await session.generate("Hi", model="nobody", request_id="req-1")
    assert (await session.generate("Hi")).text == HELLO


async def test_turns_need_their_own_permission():
    with FakeServer(permissions=["text.session"]) as fake_server:
        async with fake_server.async_client() as client, client.text.session() as session:
            for _ in range(2):
                with pytest.raises(PermissionDeniedError, match=r"text\.generate") as caught:
                    await session.generate("Hi", request_id="req-1")
                assert caught.value.request_id == "req-1"
            with pytest.raises(PermissionDeniedError):
                await session.stream("Hi").final()
        assert not fake_server.text.requests


async def test_closing_it_ends_its_turns(fake_server, client):
    fake_server.text.script(Stall())
    fake_server.text.script("a", Stall())
    session = client.text.session()
    whole = start_task(lambda: session.generate("Hi", request_id="req-1"))
    await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
    stream = session.stream("Hi", request_id="req-2")
    await asyncio.to_thread(fake_server.text.wait_for_requests, 2)
    await session.aclose()
    with pytest.raises(ClosedError) as caught:
        await whole.result()
    assert caught.value.request_id == "req-1"
    with pytest.raises(ClosedError) as caught:
        await stream.final()
    assert caught.value.request_id == "req-2"
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 2)
    assert (await client.text.generate("Hi")).text == HELLO


async def test_a_closed_session_starts_nothing(client):
    session = client.text.session()
    await session.generate("Hi")
    await session.aclose()
    await session.aclose()
    with pytest.raises(ClosedError):
        await session.generate("Hi")
    with pytest.raises(ClosedError):
        session.stream("Hi")


async def test_closing_the_client_ends_its_turns(fake_server):
    fake_server.text.script(Stall())
    client = fake_server.async_client()
    session = client.text.session()
    call = start_task(lambda: session.generate("Hi"))
    await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
    await client.aclose()
    with pytest.raises(ClosedError):
        await call.result()
    with pytest.raises(ClosedError):
        await session.generate("Hi")
    await session.aclose()
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


async def test_a_gateway_that_dies_ends_every_turn():
    with FakeServer() as fake_server:
        fake_server.text.script("a", Stall())
        fake_server.text.script(Stall())
        async with fake_server.async_client() as client, client.text.session() as session:
            begun = session.stream("Hi", request_id="req-1")
            async for event in begun:
                if isinstance(event, TextDelta):
                    break
            waiting = start_task(lambda: session.generate("Hi", request_id="req-2"))
            await asyncio.to_thread(fake_server.text.wait_for_requests, 2)
            await asyncio.to_thread(fake_server.stop)
            with pytest.raises(StreamInterruptedError) as cut:
                await begun.final()
            assert cut.value.partial == "a"
            assert cut.value.request_id == "req-1"
            with pytest.raises(ServiceUnavailableError) as lost:
                await waiting.result()
            assert lost.value.request_id == "req-2"
            assert lost.value.retryable
            with pytest.raises(ServiceUnavailableError, match="the session is over") as over:
                await session.generate("Hi", request_id="req-3")
            assert over.value.request_id == "req-3"


async def test_sessions_beside_each_other(client):
    async with client.text.session() as one, client.text.session() as two:
        await gather(lambda: one.generate("x"), lambda: two.generate("y"))
        assert one.session_id != two.session_id


async def test_a_session_that_is_never_used(client):
    async with client.text.session():
        pass
    assert (await client.text.generate("Hi")).text == HELLO
