# Mirrored by scripts/unasync.py from tests/contract/_async/test_stream.py: edit that and run `make sync`.
"""Streamed generation."""

from __future__ import annotations

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
from tests.contract.concurrency import gather_threads, start_thread


def events_of(stream):
    return list(stream)


@pytest.fixture(params=["call", "session"])
def start(request, client):
    """Starts a stream: as a call of its own, and as a turn of a session."""
    if request.param == "call":
        yield client.text.stream
    else:
        with client.text.session() as session:
            yield session.stream


def test_events_come_in_order(fake_server, start):
    fake_server.text.script(Reasoning("Hm"), "Hel", "lo", ToolUse("weather", '{"city": "Oslo"}'))
    with start("Hi", tools=[Tool("weather")]) as stream:
        events = events_of(stream)
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


def test_final_alone(fake_server, start):
    fake_server.text.script(Reasoning("Hm"), "Hel", "lo", ToolUse("weather"))
    with start("Hi", request_id="req-1", tools=[Tool("weather")]) as stream:
        answer = stream.final()
    assert answer.text == "Hello"
    assert answer.reasoning == "Hm"
    assert answer.tool_calls == (ToolCall("call_1", "weather", "{}"),)
    assert answer.finish_reason == "tool_calls"
    assert answer.usage == Usage(1, 3, 4)
    assert answer.meta.request_id == stream.request_id == "req-1"
    assert answer.meta.id == "fake-1"
    assert answer.meta.model == "fake"
    assert answer.meta.upstream.backend == "scripted"


def test_final_after_iterating(start):
    with start("Hi") as stream:
        pieces = [event.text for event in stream if isinstance(event, TextDelta)]
        answer = stream.final()
        assert stream.final() == answer
    assert pieces == ["Hello", " from", " the", " fake", " server", "."]
    assert answer.text == "".join(pieces)
    assert answer.finish_reason == "stop"


def test_final_after_the_block(start):
    with start("Hi") as stream:
        stream.final()
    assert (stream.final()).finish_reason == "stop"


def test_a_loop_that_was_left_goes_on(start):
    seen = []
    with start("Hi") as stream:
        for event in stream:
            seen.append(event)
            if isinstance(event, TextDelta):
                break
        seen += events_of(stream)
        assert events_of(stream) == []
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


def test_text_alone(fake_server, start):
    fake_server.text.script(Reasoning("Hm"), "Hel", "lo")
    with start([system("Be brief"), user("Hi")]) as stream:
        assert list(stream.text()) == ["Hel", "lo"]
        assert (stream.final()).reasoning == "Hm"
    assert fake_server.text.requests[0].streamed
    assert fake_server.text.requests[0].request.messages == (system("Be brief"), user("Hi"))


def test_pieces_come_as_they_are_made(fake_server, start):
    fake_server.text.script("first", Stall())
    with start("Hi") as stream:
        for piece in stream.text():
            assert piece == "first"
            break
    fake_server.text.wait_for_cancellations(1)


def test_a_long_answer_arrives_whole(fake_server, start):
    pieces = [f"{i:06} " * 50 for i in range(1500)]
    fake_server.text.script(*pieces)
    with start("Hi") as stream:
        assert list(stream.text()) == pieces


def test_leaving_the_block_cancels_at_the_engine(fake_server, start):
    fake_server.text.script("first", Stall())
    with start("Hi") as stream:
        for event in stream:
            if isinstance(event, TextDelta):
                break
    fake_server.text.wait_for_cancellations(1)
    for rest in (stream.final, lambda: events_of(stream)):
        with pytest.raises(ClosedError, match="left before its end") as caught:
            rest()
        assert caught.value.partial == "first"
        assert caught.value.request_id == stream.request_id


def test_what_was_cancelled_stays_so_after_the_block(fake_server, start):
    fake_server.text.script("first", Stall())
    with start("Hi") as stream:
        for event in stream:
            if isinstance(event, TextDelta):
                stream.cancel()
    assert (stream.final()).finish_reason == "cancelled"
    assert events_of(stream) == []


def test_leaving_the_block_after_the_last_event_is_no_early_end(start):
    with start("Hi") as stream:
        for event in stream:
            if isinstance(event, Finished):
                break
    assert (stream.final()).finish_reason == "stop"


def test_leaving_the_block_by_an_error_cancels_at_the_engine(fake_server, start):
    fake_server.text.script("first", Stall())

    def fail():
        with start("Hi") as stream:
            for event in stream:
                assert isinstance(event, Finished)

    with pytest.raises(AssertionError):
        fail()
    fake_server.text.wait_for_cancellations(1)


def test_cancelling_within_the_loop_ends_it(fake_server, start):
    fake_server.text.script("one", "two", Stall())
    pieces = []
    with start("Hi") as stream:
        for piece in stream.text():
            pieces.append(piece)
            if len(pieces) == 2:
                stream.cancel()
        answer = stream.final()
    assert pieces == ["one", "two"]
    assert answer.text == "onetwo"
    assert answer.finish_reason == "cancelled"
    assert answer.usage == Usage()
    fake_server.text.wait_for_cancellations(1)


def test_cancelling_from_elsewhere_ends_the_loop_without_an_error(fake_server, start):
    fake_server.text.script("one", Stall())
    with start("Hi") as stream:
        events = start_thread(lambda: events_of(stream))
        fake_server.text.wait_for_requests(1)
        stream.cancel()
        for event in events.result():
            assert isinstance(event, Started | TextDelta)
        assert (stream.final()).finish_reason == "cancelled"
        stream.cancel()
    fake_server.text.wait_for_cancellations(1)


def test_cancelling_before_anything_came(fake_server, start):
    fake_server.text.script(Stall())
    with start("Hi") as stream:
        fake_server.text.wait_for_requests(1)
        stream.cancel()
        assert events_of(stream) == []
        answer = stream.final()
    assert answer.text == ""
    assert answer.finish_reason == "cancelled"
    fake_server.text.wait_for_cancellations(1)


def test_cancelling_what_is_over_changes_nothing(fake_server, start):
    with start("Hi") as stream:
        stream.final()
        stream.cancel()
        assert (stream.final()).finish_reason == "stop"
    assert fake_server.text.cancelled == 0


def test_cancelling_an_answer_that_nobody_reads(fake_server, start):
    """The gateway is stopped by flow control then, in the middle of a write."""
    fake_server.text.script(*["x" * 10_000] * 2000)
    with start("Hi") as stream:
        for _ in stream.text():
            break
        stream.cancel()
    fake_server.text.wait_for_cancellations(1)


@pytest.mark.parametrize("script", [("one", Stall()), (Stall(),)])
def test_closing_the_client_ends_streams_in_closed_error(fake_server, script):
    fake_server.text.script(*script)
    client = fake_server.client()
    with client.text.stream("Hi") as stream:
        events = start_thread(lambda: events_of(stream))
        fake_server.text.wait_for_requests(1)
        client.close()
        with pytest.raises(ClosedError) as caught:
            events.result()
    assert caught.value.request_id == stream.request_id
    fake_server.text.wait_for_cancellations(1)


def test_closing_the_client_ends_calls_in_closed_error(fake_server):
    fake_server.text.script(Stall())
    client = fake_server.client()
    call = start_thread(lambda: client.text.generate("Hi", request_id="req-1"))
    fake_server.text.wait_for_requests(1)
    client.close()
    with pytest.raises(ClosedError) as caught:
        call.result()
    assert caught.value.request_id == "req-1"
    fake_server.text.wait_for_cancellations(1)


def test_a_stream_that_fails_first_is_tried_again(fake_server, client):
    fake_server.text.script(Fail("UNAVAILABLE"))
    fake_server.text.script(Delay(0.01), Fail("UNAVAILABLE"))
    fake_server.text.script("Hi")
    with client.text.stream("Hi") as stream:
        answer = stream.final()
    assert answer.text == "Hi"
    assert answer.meta.upstream.attempts == 3
    assert [recorded.attempt for recorded in fake_server.text.requests] == [1, 2, 3]


def test_a_stream_that_is_cut_keeps_its_text(fake_server, start):
    fake_server.text.script("Hel", "lo", Fail("UNAVAILABLE", "the backend is gone"))
    with start("Hi", request_id="req-1", on_interrupt="raise") as stream:
        seen = []

        def read():
            for piece in stream.text():
                seen.extend([piece])

        with pytest.raises(StreamInterruptedError, match="the backend is gone") as caught:
            read()
        with pytest.raises(StreamInterruptedError) as again:
            events_of(stream)
        assert again.value is caught.value
        with pytest.raises(StreamInterruptedError, match="the backend is gone"):
            stream.final()
    with pytest.raises(StreamInterruptedError, match="the backend is gone"):
        stream.final()
    assert seen == ["Hel", "lo"]
    assert caught.value.partial == "Hello"
    assert caught.value.code.name == "ABORTED"
    assert caught.value.reason == "INTERRUPTED"
    assert caught.value.request_id == "req-1"
    assert caught.value.retryable
    assert len(fake_server.text.requests) == 1


def test_final_of_a_stream_that_is_cut_keeps_its_text(fake_server, start):
    fake_server.text.script("Hel", "lo", Fail("UNAVAILABLE"))
    with start("Hi", on_interrupt="raise") as stream:
        with pytest.raises(StreamInterruptedError) as caught:
            stream.final()
        assert caught.value.partial == "Hello"


def test_other_failures_in_mid_stream_stay_what_they_are(fake_server, start):
    fake_server.text.script("Hel", Fail("INVALID_ARGUMENT", reason="CONTENT_RISK"))
    with start("Hi") as stream:
        with pytest.raises(ContentPolicyError) as caught:
            stream.final()
        assert caught.value.partial == "Hel"
        with pytest.raises(ContentPolicyError):
            events_of(stream)
        stream.cancel()
        with pytest.raises(ContentPolicyError):
            stream.final()


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "INTERNAL", "NOT_FOUND"])
def test_whatever_ends_a_stream_leaves_its_text(fake_server, start, code):
    fake_server.text.script("Hel", "lo", Fail(code))
    with start("Hi", on_interrupt="raise") as stream:
        with pytest.raises(DeepSeekError) as caught:
            stream.final()
    assert caught.value.partial == "Hello"
    assert pickle.loads(pickle.dumps(caught.value)).partial == "Hello"


def test_the_total_time_leaves_the_text(fake_server, start):
    fake_server.text.script("Hel", "lo", Stall())
    with start("Hi", timeout=1) as stream:
        with pytest.raises(DeadlineExceededError) as caught:
            stream.final()
    assert caught.value.partial == "Hello"


def test_a_stream_that_nobody_holds_is_cancelled(fake_server, client):
    fake_server.text.script("one", Stall())
    stream = client.text.stream("Hi")
    fake_server.text.wait_for_requests(1)
    del stream
    gc.collect()
    fake_server.text.wait_for_cancellations(1)


def test_a_stream_that_was_read_and_nobody_holds_is_cancelled(fake_server, client):
    def read():
        for event in client.text.stream("Hi"):
            if isinstance(event, TextDelta):
                break

    fake_server.text.script("one", Stall())
    read()
    gc.collect()
    fake_server.text.wait_for_cancellations(1)


def test_many_streams_at_once(fake_server, start):
    def read(i):
        with start(f"question {i}") as stream:
            return list(stream.text())

    answers = gather_threads(*(lambda i=i: read(i) for i in range(16)))
    assert answers == [["Hello", " from", " the", " fake", " server", "."]] * 16
