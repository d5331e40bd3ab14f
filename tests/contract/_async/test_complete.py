"""Completions between a prompt and a suffix, whole and streamed."""

from __future__ import annotations

import pytest

from deepseek_grpc import Finished, Started, TextDelta, Usage
from deepseek_grpc.errors import (
    ClosedError,
    DeadlineExceededError,
    FailedPreconditionError,
    InvalidRequestError,
    PermissionDeniedError,
    ServiceUnavailableError,
    StreamInterruptedError,
)
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.testing import Fail, FakeServer, Reasoning, Stall, ToolUse
from deepseek_grpc.types import FimRequest


async def test_a_whole_completion(fake_server, client):
    fake_server.text.script("a, b = b, a", " + b")
    answer = await client.text.complete("def fib(n):", suffix="    return a", request_id="r-1", model="x")
    assert (answer.text, answer.finish_reason, answer.usage) == ("a, b = b, a + b", "stop", Usage(1, 2, 3))
    assert (answer.reasoning, answer.tool_calls, answer.logprobs) == (None, (), ())
    assert (answer.meta.request_id, answer.meta.model) == ("r-1", "fake")
    assert (answer.meta.upstream.backend, answer.meta.upstream.attempts) == ("scripted", 1)
    [recorded] = fake_server.text.completions
    assert recorded.request == FimRequest("def fib(n):", "    return a", request_id="r-1", model="x")
    assert (recorded.streamed, recorded.client_id) == (False, "test-client")


async def test_a_streamed_completion(fake_server, client):
    fake_server.text.script("a, b = b, a", " + b")
    async with client.text.stream_complete("def fib(n):", suffix="    return a") as stream:
        events = [event async for event in stream]
    assert events[:-1] == [Started("fake-1", 0, "fake", "fp_fake"), TextDelta("a, b = b, a"), TextDelta(" + b")]
    assert isinstance(events[-1], Finished)
    answer = await stream.final()
    assert (answer.text, answer.usage, answer.meta.request_id) == ("a, b = b, a + b", Usage(1, 2, 3), stream.request_id)
    assert fake_server.text.completions[0].streamed


async def test_every_option_arrives(fake_server, client):
    options = {
        "max_tokens": 5,
        "temperature": 0.0,
        "top_p": 0.5,
        "stop": ("a", "b"),
        "frequency_penalty": -1.0,
        "presence_penalty": 1.5,
        "seed": 7,
        "echo": True,
        "logprobs": 0,
        "user_id": "u",
    }
    await client.text.complete("x", **options, extra={"top_k": 3}, request_id="r-1", metadata={"x-team": "a"})
    [recorded] = fake_server.text.completions
    assert recorded.request == FimRequest("x", request_id="r-1", model="fake", extra_json='{"top_k": 3}', **options)
    assert recorded.metadata["x-team"] == "a"


async def test_a_wrong_field_is_found_before_anything_is_sent(fake_server, client):
    with pytest.raises(InvalidRequestError, match=r"^prompt is empty"):
        await client.text.complete("", suffix="x")
    with pytest.raises(InvalidRequestError, match=r"^logprobs is 21"):
        client.text.stream_complete("x", logprobs=21)
    with pytest.raises(TypeError, match="did you mean 'temperature'"):
        await client.text.complete("x", temprature=1)
    assert fake_server.text.completions == []


async def test_a_completion_is_tried_again(fake_server, client):
    fake_server.text.script(Fail("UNAVAILABLE"))
    fake_server.text.script("b")
    answer = await client.text.complete("a")
    assert (answer.text, answer.meta.upstream.attempts) == ("b", 2)
    assert [recorded.attempt for recorded in fake_server.text.completions] == [1, 2]


async def test_a_failure_is_typed(fake_server, client):
    fake_server.text.script(Fail("UNAVAILABLE", "down", retryable=False))
    with pytest.raises(ServiceUnavailableError, match="down") as caught:
        await client.text.complete("a", request_id="r-1")
    assert caught.value.request_id == "r-1"


async def test_a_failure_after_the_first_piece_is_an_interruption_with_what_had_come(fake_server, client):
    fake_server.text.script("a", "b", Fail("UNAVAILABLE", "down"))
    with pytest.raises(StreamInterruptedError) as caught:
        await client.text.stream_complete("x").final()
    assert caught.value.partial == "ab"


async def test_a_deadline_ends_it_at_the_engine_too(fake_server, client):
    await client.text.complete("x")  # the connection is up
    fake_server.text.script(Stall())
    with pytest.raises(DeadlineExceededError):
        await client.text.complete("x", timeout=1)
    fake_server.text.wait_for_cancellations(1)


async def test_leaving_a_stream_ends_it_at_the_engine_too(fake_server, client):
    fake_server.text.script("a", Stall())
    async with client.text.stream_complete("x") as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                break
    fake_server.text.wait_for_cancellations(1)
    with pytest.raises(ClosedError):
        await stream.final()


async def test_it_needs_its_permission():
    with FakeServer(permissions=["text.generate"]) as server:
        async with server.async_client() as client:
            with pytest.raises(PermissionDeniedError, match=r"text\.complete"):
                await client.text.complete("x")
            with pytest.raises(PermissionDeniedError, match=r"text\.complete"):
                await client.text.stream_complete("x").final()


@pytest.mark.parametrize("step", [Reasoning("Hm"), ToolUse("f")])
async def test_a_scripted_completion_has_text_alone(fake_server, client, step):
    fake_server.text.script(step)
    with pytest.raises(FailedPreconditionError, match=type(step).__name__):
        await client.text.complete("x")


async def test_the_embedded_engine_fills_a_gap():
    with FakeServer(engine=EmbeddedEngine()) as server:
        async with server.async_client() as client:
            prompt, suffix = "gRPC is a framework for remote procedure", " on top of HTTP/2."
            answer = await client.text.complete(prompt, suffix=suffix, temperature=0, logprobs=2)
            assert answer.text == " calls that runs"
            assert [entry.token for entry in answer.logprobs] == [" calls", " that", " runs"]
            stream = client.text.stream_complete(prompt, suffix=suffix, temperature=0, echo=True, logprobs=0)
            echoed = await stream.final()
            assert echoed.text == prompt + answer.text
            assert [entry.token for entry in echoed.logprobs] == [" calls", " that", " runs"]
