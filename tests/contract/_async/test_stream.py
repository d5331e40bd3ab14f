"""Streamed generation."""

from __future__ import annotations

import asyncio
import gc
import pickle

import pytest

from deepseek_grpc import (
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    Usage,
    system,
    user,
)
from deepseek_grpc.errors import (
    ClosedError,
    ContentPolicyError,
    DeadlineExceededError,
    DeepSeekError,
    StreamInterruptedError,
)
from deepseek_grpc.testing import Delay, Fail, Reasoning, Stall, ToolUse
from tests.contract.concurrency import gather, start_task


async def events_of(stream):
    return [event async for event in stream]


@pytest.fixture(params=["call", "session"])
async def start(request, client):
    """Starts a stream: as a call of its own, and as a turn of a session."""
    if request.param == "call":
        yield client.text.stream
    else:
        async with client.text.session() as session:
            yield session.stream


async def test_events_come_in_order(fake_server, start):
    fake_server.text.script(Reasoning("Hm"), "Hel", "lo", ToolUse("weather", '{"city": "Oslo"}'))
    async with start("Hi", tools=[Tool("weather")]) as stream:
        events = await events_of(stream)
    assert events[:-1] == [
        Started("fake-1", 0, "fake", "fp_fake"),
        ReasoningDelta("Hm"),
        TextDelta("Hel"),
        TextDelta("lo"),
        ToolCallDelta(0, "call_1", "weather"),
        ToolCallDelta(0, arguments='{"city": "Oslo"}'),
    ]
    assert isinstance(events[-1], Finished)
    assert events[-1].finish_reason == "tool_calls"
    assert events[-1].usage == Usage(1, 3, 4)
    assert events[-1].upstream.backend == "scripted"


async def test_final_alone(fake_server, start):
    fake_server.text.script(Reasoning("Hm"), "Hel", "lo", ToolUse("weather"))
    async with start("Hi", request_id="req-1", tools=[Tool("weather")]) as stream:
        answer = await stream.final()
    assert answer.text == "Hello"
    assert answer.reasoning == "Hm"
    assert answer.tool_calls == (ToolCall("call_1", "weather", "{}"),)
    assert answer.finish_reason == "tool_calls"
    assert answer.usage == Usage(1, 3, 4)
    assert answer.meta.request_id == stream.request_id == "req-1"
    assert answer.meta.id == "fake-1"
    assert answer.meta.model == "fake"
    assert answer.meta.upstream.backend == "scripted"


async def test_final_after_iterating(start):
    async with start("Hi") as stream:
        pieces = [event.text async for event in stream if isinstance(event, TextDelta)]
        answer = await stream.final()
        assert await stream.final() == answer
    assert pieces == ["Hello", " from", " the", " fake", " server", "."]
    assert answer.text == "".join(pieces)
    assert answer.finish_reason == "stop"


async def test_final_after_the_block(start):
    async with start("Hi") as stream:
        await stream.final()
    assert (await stream.final()).finish_reason == "stop"


async def test_a_loop_that_was_left_goes_on(start):
    seen = []
    async with start("Hi") as stream:
        async for event in stream:
            seen.append(event)
            if isinstance(event, TextDelta):
                break
        seen += await events_of(stream)
        assert await events_of(stream) == []
    assert [event.text for event in seen if isinstance(event, TextDelta)] == [
        "Hello",
        " from",
        " the",
        " fake",
        " server",
        ".",
    ]
    assert isinstance(seen[0], Started)
    assert isinstance(seen[-1], Finished)


async def test_text_alone(fake_server, start):
    fake_server.text.script(Reasoning("Hm"), "Hel", "lo")
    async with start([system("Be brief"), user("Hi")]) as stream:
        assert [piece async for piece in stream.text()] == ["Hel", "lo"]
        assert (await stream.final()).reasoning == "Hm"
    assert fake_server.text.requests[0].streamed
    assert fake_server.text.requests[0].request.messages == (system("Be brief"), user("Hi"))


async def test_pieces_come_as_they_are_made(fake_server, start):
    fake_server.text.script("first", Stall())
    async with start("Hi") as stream:
        async for piece in stream.text():
            assert piece == "first"
            break
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


async def test_a_long_answer_arrives_whole(fake_server, start):
    pieces = [f"{i:06} " * 50 for i in range(1500)]
    fake_server.text.script(*pieces)
    async with start("Hi") as stream:
        assert [piece async for piece in stream.text()] == pieces


async def test_leaving_the_block_cancels_at_the_engine(fake_server, start):
    fake_server.text.script("first", Stall())
    async with start("Hi") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)
    for rest in (stream.final, lambda: events_of(stream)):
        with pytest.raises(ClosedError, match="left before its end") as caught:
            await rest()
        assert caught.value.partial == "first"
        assert caught.value.request_id == stream.request_id


async def test_what_was_cancelled_stays_so_after_the_block(fake_server, start):
    fake_server.text.script("first", Stall())
    async with start("Hi") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                await stream.cancel()
    assert (await stream.final()).finish_reason == "cancelled"
    assert await events_of(stream) == []


async def test_leaving_the_block_after_the_last_event_is_no_early_end(start):
    async with start("Hi") as stream:
        async for event in stream:
            if isinstance(event, Finished):
                break
    assert (await stream.final()).finish_reason == "stop"


async def test_leaving_the_block_by_an_error_cancels_at_the_engine(fake_server, start):
    fake_server.text.script("first", Stall())

    async def fail():
        async with start("Hi") as stream:
            async for event in stream:
                assert isinstance(event, Finished)

    with pytest.raises(AssertionError):
        await fail()
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


async def test_cancelling_within_the_loop_ends_it(fake_server, start):
    fake_server.text.script("one", "two", Stall())
    pieces = []
    async with start("Hi") as stream:
        async for piece in stream.text():
            pieces.append(piece)
            if len(pieces) == 2:
                await stream.cancel()
        answer = await stream.final()
    assert pieces == ["one", "two"]
    assert answer.text == "onetwo"
    assert answer.finish_reason == "cancelled"
    assert answer.usage == Usage()
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


async def test_cancelling_from_elsewhere_ends_the_loop_without_an_error(fake_server, start):
    fake_server.text.script("one", Stall())
    async with start("Hi") as stream:
        events = start_task(lambda: events_of(stream))
        await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
        await stream.cancel()
        for event in await events.result():
            assert isinstance(event, Started | TextDelta)
        assert (await stream.final()).finish_reason == "cancelled"
        await stream.cancel()
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


async def test_cancelling_before_anything_came(fake_server, start):
    fake_server.text.script(Stall())
    async with start("Hi") as stream:
        await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
        await stream.cancel()
        assert await events_of(stream) == []
        answer = await stream.final()
    assert answer.text == ""
    assert answer.finish_reason == "cancelled"
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


async def test_cancelling_what_is_over_changes_nothing(fake_server, start):
    async with start("Hi") as stream:
        await stream.final()
        await stream.cancel()
        assert (await stream.final()).finish_reason == "stop"
    assert fake_server.text.cancelled == 0


async def test_cancelling_an_answer_that_nobody_reads(fake_server, start):
    """The gateway is stopped by flow control then, in the middle of a write."""
    fake_server.text.script(*["x" * 10_000] * 2000)
    async with start("Hi") as stream:
        async for _ in stream.text():
            break
        await stream.cancel()
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


@pytest.mark.parametrize("script", [("one", Stall()), (Stall(),)])
async def test_closing_the_client_ends_streams_in_closed_error(fake_server, script):
    fake_server.text.script(*script)
    client = fake_server.async_client()
    async with client.text.stream("Hi") as stream:
        events = start_task(lambda: events_of(stream))
        await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
        await client.aclose()
        with pytest.raises(ClosedError) as caught:
            await events.result()
    assert caught.value.request_id == stream.request_id
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


async def test_closing_the_client_ends_calls_in_closed_error(fake_server):
    fake_server.text.script(Stall())
    client = fake_server.async_client()
    call = start_task(lambda: client.text.generate("Hi", request_id="req-1"))
    await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
    await client.aclose()
    with pytest.raises(ClosedError) as caught:
        await call.result()
    assert caught.value.request_id == "req-1"
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


async def test_a_stream_that_fails_first_is_tried_again(fake_server, client):
    fake_server.text.script(Fail("UNAVAILABLE"))
    fake_server.text.script(Delay(0.01), Fail("UNAVAILABLE"))
    fake_server.text.script("Hi")
    async with client.text.stream("Hi") as stream:
        answer = await stream.final()
    assert answer.text == "Hi"
    assert answer.meta.upstream.attempts == 3
    assert [recorded.attempt for recorded in fake_server.text.requests] == [1, 2, 3]


async def test_a_stream_that_is_cut_keeps_its_text(fake_server, start):
    fake_server.text.script("Hel", "lo", Fail("UNAVAILABLE", "the backend is gone"))
    async with start("Hi", request_id="req-1", on_interrupt="raise") as stream:
        seen = []

        async def read():
            async for piece in stream.text():
                seen.extend([piece])

        with pytest.raises(StreamInterruptedError, match="the backend is gone") as caught:
            await read()
        with pytest.raises(StreamInterruptedError) as again:
            await events_of(stream)
        assert again.value is caught.value
        with pytest.raises(StreamInterruptedError, match="the backend is gone"):
            await stream.final()
    with pytest.raises(StreamInterruptedError, match="the backend is gone"):
        await stream.final()
    assert seen == ["Hel", "lo"]
    assert caught.value.partial == "Hello"
    assert caught.value.code.name == "ABORTED"
    assert caught.value.reason == "INTERRUPTED"
    assert caught.value.request_id == "req-1"
    assert caught.value.retryable
    assert len(fake_server.text.requests) == 1


async def test_final_of_a_stream_that_is_cut_keeps_its_text(fake_server, start):
    fake_server.text.script("Hel", "lo", Fail("UNAVAILABLE"))
    async with start("Hi", on_interrupt="raise") as stream:
        with pytest.raises(StreamInterruptedError) as caught:
            await stream.final()
        assert caught.value.partial == "Hello"


async def test_other_failures_in_mid_stream_stay_what_they_are(fake_server, start):
    fake_server.text.script("Hel", Fail("INVALID_ARGUMENT", reason="CONTENT_RISK"))
    async with start("Hi") as stream:
        with pytest.raises(ContentPolicyError) as caught:
            await stream.final()
        assert caught.value.partial == "Hel"
        with pytest.raises(ContentPolicyError):
            await events_of(stream)
        await stream.cancel()
        with pytest.raises(ContentPolicyError):
            await stream.final()


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "INTERNAL", "NOT_FOUND"])
async def test_whatever_ends_a_stream_leaves_its_text(fake_server, start, code):
    fake_server.text.script("Hel", "lo", Fail(code))
    async with start("Hi", on_interrupt="raise") as stream:
        with pytest.raises(DeepSeekError) as caught:
            await stream.final()
    assert caught.value.partial == "Hello"
    assert pickle.loads(pickle.dumps(caught.value)).partial == "Hello"


async def test_the_total_time_leaves_the_text(fake_server, start):
    fake_server.text.script("Hel", "lo", Stall())
    async with start("Hi", timeout=1) as stream:
        with pytest.raises(DeadlineExceededError) as caught:
            await stream.final()
    assert caught.value.partial == "Hello"


async def test_a_stream_that_nobody_holds_is_cancelled(fake_server, client):
    fake_server.text.script("one", Stall())
    stream = client.text.stream("Hi")
    await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
    del stream
    gc.collect()
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


async def test_a_stream_that_was_read_and_nobody_holds_is_cancelled(fake_server, client):
    async def read():
        async for event in client.text.stream("Hi"):
            if isinstance(event, TextDelta):
                break

    fake_server.text.script("one", Stall())
    await read()
    gc.collect()
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


async def test_many_streams_at_once(fake_server, start):
    async def read(i):
        async with start(f"question {i}") as stream:
            return [piece async for piece in stream.text()]

    answers = await gather(*(lambda i=i: read(i) for i in range(16)))
    assert answers == [["Hello", " from", " the", " fake", " server", "."]] * 16
