"""Every limit has an error of its own, and only what is slow at the other end counts."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from deepseek_grpc import AsyncClient, ClientConfig, Finished, Keepalive, Retry, TextDelta, Timeouts
from deepseek_grpc.errors import (
    ConnectError,
    ConnectTimeoutError,
    DeadlineExceededError,
    FirstTokenTimeoutError,
    IdleTimeoutError,
)
from deepseek_grpc.testing import Delay, Fail, Reasoning, Stall, ToolUse


@pytest.fixture(params=["call", "session"])
async def text(request, client):
    """What generates: calls of their own, and turns of a session."""
    if request.param == "call":
        yield client.text
    else:
        async with client.text.session() as session:
            yield session


@pytest.fixture
def silent_target():
    """A listening socket that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


async def test_connect(silent_target):
    config = ClientConfig(timeouts=Timeouts(connect=0.2), retry=Retry(attempts=1))
    async with AsyncClient(silent_target, config=config) as client:
        with pytest.raises(ConnectTimeoutError, match=silent_target) as caught:
            await client.text.generate("Hi", request_id="req-1")
        with pytest.raises(ConnectTimeoutError):
            await client.text.stream("Hi").final()
    assert isinstance(caught.value, ConnectError)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.request_id == "req-1"
    assert caught.value.reason == "CONNECT_TIMEOUT"
    assert caught.value.retryable


async def test_connect_with_retries(silent_target):
    async with AsyncClient(silent_target, config=ClientConfig(timeouts=Timeouts(connect=0.2))) as client:
        with pytest.raises(ConnectTimeoutError):
            await client.text.generate("Hi")


async def test_connect_of_a_session(silent_target):
    async with (
        AsyncClient(silent_target, config=ClientConfig(timeouts=Timeouts(connect=0.2))) as client,
        client.text.session() as session,
    ):
        with pytest.raises(ConnectTimeoutError):
            await session.generate("Hi")
        with pytest.raises(ConnectTimeoutError):
            await session.generate("Hi")


async def test_total_covers_connecting_too(silent_target):
    config = ClientConfig(wait_for_ready=True, timeouts=Timeouts(total=0.2))
    async with AsyncClient(silent_target, config=config) as client:
        with pytest.raises(DeadlineExceededError):
            await client.text.generate("Hi")


async def test_first_token(fake_server, text):
    fake_server.text.script(Stall())
    async with text.stream("Hi", timeout=Timeouts(first_token=0.1), request_id="req-1") as stream:
        with pytest.raises(FirstTokenTimeoutError, match=r"0\.1 s \(Timeouts\.first_token\)") as caught:
            await stream.final()
        assert caught.value.request_id == "req-1"
        assert caught.value.reason == "FIRST_TOKEN_TIMEOUT"
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


@pytest.mark.parametrize("first", [Reasoning("Hm"), ToolUse("f"), "text"])
async def test_any_content_is_a_first_token(fake_server, text, first):
    fake_server.text.script(first, Stall())
    async with text.stream("Hi", timeout=Timeouts(first_token=5, idle=0.1)) as stream:
        with pytest.raises(IdleTimeoutError):
            await stream.final()


async def test_idle_keeps_the_text(fake_server, text):
    fake_server.text.script("Hel", "lo", Stall())
    async with text.stream("Hi", timeout=Timeouts(idle=0.1), request_id="req-1") as stream:
        with pytest.raises(IdleTimeoutError, match=r"0\.1 s \(Timeouts\.idle\)") as caught:
            await stream.final()
        assert caught.value.partial == "Hello"
        assert caught.value.request_id == "req-1"
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


async def test_idle_starts_anew_with_every_piece(fake_server, text):
    fake_server.text.script(*["x", Delay(0.1)] * 6, "y")
    async with text.stream("Hi", timeout=Timeouts(idle=0.4)) as stream:
        assert (await stream.final()).text == "xxxxxxy"


async def test_a_session_survives_a_turn_that_took_too_long(fake_server, client):
    async with client.text.session() as session:
        fake_server.text.script(Stall())
        with pytest.raises(FirstTokenTimeoutError):
            await session.stream("Hi", timeout=Timeouts(first_token=0.1)).final()
        assert (await session.generate("Hi")).text == "Hello from the fake server."


async def test_total_of_a_whole_answer(fake_server, text):
    fake_server.text.script(Stall())
    with pytest.raises(DeadlineExceededError) as caught:
        await text.generate("Hi", timeout=0.2, request_id="req-1")
    assert type(caught.value) is DeadlineExceededError
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.request_id == "req-1"
    assert caught.value.code.name == "DEADLINE_EXCEEDED"
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


async def test_total_of_a_stream(fake_server, text):
    fake_server.text.script(*["x", Delay(0.05)] * 100)
    async with text.stream("Hi", timeout=Timeouts(total=0.3), request_id="req-1") as stream:
        with pytest.raises(DeadlineExceededError) as caught:
            await stream.final()
        assert type(caught.value) is DeadlineExceededError
        assert caught.value.request_id == "req-1"
    await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


async def test_total_of_zero(fake_server, text):
    fake_server.text.script(Stall())
    with pytest.raises(DeadlineExceededError):
        await text.generate("Hi", timeout=0)


async def test_total_covers_retries(fake_server, client):
    for _ in range(5):
        fake_server.text.script(Delay(0.15), Fail("UNAVAILABLE"))
    with pytest.raises(DeadlineExceededError):
        await client.text.generate("Hi", timeout=0.4)
    assert len(fake_server.text.requests) > 1


@pytest.mark.parametrize(
    "timeout", [None, Timeouts(first_token=None, idle=None, total=None), Timeouts(first_token=None)]
)
async def test_none_is_no_limit(fake_server, timeout):
    limits = Timeouts(first_token=0.05, idle=5) if isinstance(timeout, Timeouts) else Timeouts(total=0.05)
    async with fake_server.async_client(config=ClientConfig(timeouts=limits)) as client:
        fake_server.text.script(Delay(0.3), "Hi")
        assert (await client.text.stream("Hi", timeout=timeout).final()).text == "Hi"
        async with client.text.session() as session:
            fake_server.text.script(Delay(0.3), "Hi")
            assert (await session.stream("Hi", timeout=timeout).final()).text == "Hi"


async def test_no_limit_on_the_first_token_leaves_idle_in_force(fake_server, text):
    fake_server.text.script(Delay(0.3), "Hi", Stall())
    async with text.stream("Hi", timeout=Timeouts(first_token=None, idle=0.1)) as stream:
        with pytest.raises(IdleTimeoutError) as caught:
            await stream.final()
        assert caught.value.partial == "Hi"


async def test_the_clients_limits_hold_where_a_call_gives_none(fake_server):
    limits = Timeouts(first_token=0.1, total=None)
    async with fake_server.async_client(config=ClientConfig(timeouts=limits)) as client:
        fake_server.text.script(Stall())
        with pytest.raises(FirstTokenTimeoutError):
            await client.text.stream("Hi", timeout=Timeouts(idle=7)).final()


async def pause():
    """Does something else for longer than the limits below."""
    await asyncio.to_thread(threading.Event().wait, 0.3)


async def test_a_reader_that_begins_late_is_no_timeout(fake_server, text):
    fake_server.text.script("Hel", "lo")
    async with text.stream("Hi", timeout=Timeouts(first_token=0.1, idle=0.1)) as stream:
        await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
        await pause()
        assert (await stream.final()).text == "Hello"


async def test_a_slow_reader_is_no_timeout(fake_server, text):
    fake_server.text.script("a", "b", "c")
    pieces = []
    async with text.stream("Hi", timeout=Timeouts(first_token=5, idle=0.1)) as stream:
        async for event in stream:
            if isinstance(event, TextDelta):
                pieces.append(event.text)
            await pause()
        assert isinstance(event, Finished)
        assert (await stream.final()).finish_reason == "stop"
    assert pieces == ["a", "b", "c"]


async def test_a_reader_that_thinks_about_the_end_is_no_timeout(fake_server, text):
    fake_server.text.script("a", Delay(0.05))
    async with text.stream("Hi", timeout=Timeouts(idle=0.2)) as stream:
        async for event in stream:
            if isinstance(event, Finished):
                await pause()
        assert (await stream.final()).text == "a"


async def test_a_gateway_that_can_not_keep_a_turns_deadline(silent_target):
    config = ClientConfig(wait_for_ready=True, keepalive=Keepalive(1, 1))
    async with AsyncClient(silent_target, config=config) as client, client.text.session() as session:
        with pytest.raises(DeadlineExceededError):
            await session.generate("Hi", timeout=0.1)
        unwatched = Timeouts(first_token=None, idle=None, total=0.1)
        with pytest.raises(DeadlineExceededError, match="total"):
            await session.stream("Hi", timeout=unwatched).final()


async def test_no_time_at_all(fake_server, client):
    async with client.text.session() as session:
        for _ in range(20):
            with pytest.raises(DeadlineExceededError):
                await session.generate("Hi", timeout=0)
            with pytest.raises(DeadlineExceededError):
                session.stream("Hi", timeout=0)
    assert fake_server.text.requests == []
