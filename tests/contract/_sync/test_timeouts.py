# Mirrored by scripts/unasync.py from tests/contract/_async/test_timeouts.py: edit that and run `make sync`.
"""Every limit has an error of its own, and only what is slow at the other end counts."""

from __future__ import annotations

import socket
import threading

import pytest

from deepseek_grpc import Client, ClientConfig, Finished, Keepalive, Retry, TextDelta, Timeouts
from deepseek_grpc.errors import (
    ConnectError,
    ConnectTimeoutError,
    DeadlineExceededError,
    FirstTokenTimeoutError,
    IdleTimeoutError,
)
from deepseek_grpc.testing import Delay, Fail, Reasoning, Stall, ToolUse


@pytest.fixture(params=["call", "session"])
def text(request, client):
    """What generates: calls of their own, and turns of a session."""
    if request.param == "call":
        yield client.text
    else:
        with client.text.session() as session:
            yield session


@pytest.fixture
def silent_target():
    """A listening socket that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_connect(silent_target):
    config = ClientConfig(timeouts=Timeouts(connect=0.2), retry=Retry(attempts=1))
    with Client(silent_target, config=config) as client:
        with pytest.raises(ConnectTimeoutError, match=silent_target) as caught:
            client.text.generate("Hi", request_id="req-1")
        with pytest.raises(ConnectTimeoutError):
            client.text.stream("Hi").final()
    assert isinstance(caught.value, ConnectError)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.request_id == "req-1"
    assert caught.value.reason == "CONNECT_TIMEOUT"
    assert caught.value.retryable


def test_connect_with_retries(silent_target):
    with Client(silent_target, config=ClientConfig(timeouts=Timeouts(connect=0.2))) as client:
        with pytest.raises(ConnectTimeoutError):
            client.text.generate("Hi")


def test_connect_of_a_session(silent_target):
    with (
        Client(silent_target, config=ClientConfig(timeouts=Timeouts(connect=0.2))) as client,
        client.text.session() as session,
    ):
        with pytest.raises(ConnectTimeoutError):
            session.generate("Hi")
        with pytest.raises(ConnectTimeoutError):
            session.generate("Hi")


def test_total_covers_connecting_too(silent_target):
    config = ClientConfig(wait_for_ready=True, timeouts=Timeouts(total=0.2))
    with Client(silent_target, config=config) as client:
        with pytest.raises(DeadlineExceededError):
            client.text.generate("Hi")


def test_first_token(fake_server, text):
    fake_server.text.script(Stall())
    with text.stream("Hi", timeout=Timeouts(first_token=0.1), request_id="req-1") as stream:
        with pytest.raises(FirstTokenTimeoutError, match=r"0\.1 s \(Timeouts\.first_token\)") as caught:
            stream.final()
        assert caught.value.request_id == "req-1"
        assert caught.value.reason == "FIRST_TOKEN_TIMEOUT"
    fake_server.text.wait_for_cancellations(1)


@pytest.mark.parametrize("first", [Reasoning("Hm"), ToolUse("f"), "text"])
def test_any_content_is_a_first_token(fake_server, text, first):
    fake_server.text.script(first, Stall())
    with text.stream("Hi", timeout=Timeouts(first_token=5, idle=0.1)) as stream:
        with pytest.raises(IdleTimeoutError):
            stream.final()


def test_idle_keeps_the_text(fake_server, text):
    fake_server.text.script("Hel", "lo", Stall())
    with text.stream("Hi", timeout=Timeouts(idle=0.1), request_id="req-1") as stream:
        with pytest.raises(IdleTimeoutError, match=r"0\.1 s \(Timeouts\.idle\)") as caught:
            stream.final()
        assert caught.value.partial == "Hello"
        assert caught.value.request_id == "req-1"
    fake_server.text.wait_for_cancellations(1)


def test_idle_starts_anew_with_every_piece(fake_server, text):
    fake_server.text.script(*["x", Delay(0.1)] * 6, "y")
    with text.stream("Hi", timeout=Timeouts(idle=0.4)) as stream:
        assert (stream.final()).text == "xxxxxxy"


def test_a_session_survives_a_turn_that_took_too_long(fake_server, client):
    with client.text.session() as session:
        fake_server.text.script(Stall())
        with pytest.raises(FirstTokenTimeoutError):
            session.stream("Hi", timeout=Timeouts(first_token=0.1)).final()
        assert (session.generate("Hi")).text == "Hello from the fake server."


def test_total_of_a_whole_answer(fake_server, text):
    fake_server.text.script(Stall())
    with pytest.raises(DeadlineExceededError) as caught:
        text.generate("Hi", timeout=0.2, request_id="req-1")
    assert type(caught.value) is DeadlineExceededError
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.request_id == "req-1"
    assert caught.value.code.name == "DEADLINE_EXCEEDED"
    fake_server.text.wait_for_cancellations(1)


def test_total_of_a_stream(fake_server, text):
    fake_server.text.script(*["x", Delay(0.05)] * 100)
    with text.stream("Hi", timeout=Timeouts(total=0.3), request_id="req-1") as stream:
        with pytest.raises(DeadlineExceededError) as caught:
            stream.final()
        assert type(caught.value) is DeadlineExceededError
        assert caught.value.request_id == "req-1"
    fake_server.text.wait_for_cancellations(1)


def test_total_of_zero(fake_server, text):
    fake_server.text.script(Stall())
    with pytest.raises(DeadlineExceededError):
        text.generate("Hi", timeout=0)


def test_total_covers_retries(fake_server, client):
    for _ in range(5):
        fake_server.text.script(Delay(0.15), Fail("UNAVAILABLE"))
    with pytest.raises(DeadlineExceededError):
        client.text.generate("Hi", timeout=0.4)
    assert len(fake_server.text.requests) > 1


@pytest.mark.parametrize(
    "timeout", [None, Timeouts(first_token=None, idle=None, total=None), Timeouts(first_token=None)]
)
def test_none_is_no_limit(fake_server, timeout):
    limits = Timeouts(first_token=0.05, idle=5) if isinstance(timeout, Timeouts) else Timeouts(total=0.05)
    with fake_server.client(config=ClientConfig(timeouts=limits)) as client:
        fake_server.text.script(Delay(0.3), "Hi")
        assert (client.text.stream("Hi", timeout=timeout).final()).text == "Hi"
        with client.text.session() as session:
            fake_server.text.script(Delay(0.3), "Hi")
            assert (session.stream("Hi", timeout=timeout).final()).text == "Hi"


def test_no_limit_on_the_first_token_leaves_idle_in_force(fake_server, text):
    fake_server.text.script(Delay(0.3), "Hi", Stall())
    with text.stream("Hi", timeout=Timeouts(first_token=None, idle=0.1)) as stream:
        with pytest.raises(IdleTimeoutError) as caught:
            stream.final()
        assert caught.value.partial == "Hi"


def test_the_clients_limits_hold_where_a_call_gives_none(fake_server):
    limits = Timeouts(first_token=0.1, total=None)
    with fake_server.client(config=ClientConfig(timeouts=limits)) as client:
        fake_server.text.script(Stall())
        with pytest.raises(FirstTokenTimeoutError):
            client.text.stream("Hi", timeout=Timeouts(idle=7)).final()


def pause():
    """Does something else for longer than the limits below."""
    threading.Event().wait(0.3)


def test_a_reader_that_begins_late_is_no_timeout(fake_server, text):
    fake_server.text.script("Hel", "lo")
    with text.stream("Hi", timeout=Timeouts(first_token=0.1, idle=0.1)) as stream:
        fake_server.text.wait_for_requests(1)
        pause()
        assert (stream.final()).text == "Hello"


def test_a_slow_reader_is_no_timeout(fake_server, text):
    fake_server.text.script("a", "b", "c")
    pieces = []
    with text.stream("Hi", timeout=Timeouts(first_token=5, idle=0.1)) as stream:
        for event in stream:
            if isinstance(event, TextDelta):
                pieces.append(event.text)
            pause()
        assert isinstance(event, Finished)
        assert (stream.final()).finish_reason == "stop"
    assert pieces == ["a", "b", "c"]


def test_a_reader_that_thinks_about_the_end_is_no_timeout(fake_server, text):
    fake_server.text.script("a", Delay(0.05))
    with text.stream("Hi", timeout=Timeouts(idle=0.2)) as stream:
        for event in stream:
            if isinstance(event, Finished):
                pause()
        assert (stream.final()).text == "a"


def test_a_gateway_that_can_not_keep_a_turns_deadline(silent_target):
    config = ClientConfig(wait_for_ready=True, keepalive=Keepalive(1, 1))
    with Client(silent_target, config=config) as client, client.text.session() as session:
        with pytest.raises(DeadlineExceededError):
            session.generate("Hi", timeout=0.1)
        unwatched = Timeouts(first_token=None, idle=None, total=0.1)
        with pytest.raises(DeadlineExceededError, match="total"):
            session.stream("Hi", timeout=unwatched).final()


def test_no_time_at_all(fake_server, client):
    with client.text.session() as session:
        for _ in range(20):
            with pytest.raises(DeadlineExceededError):
                session.generate("Hi", timeout=0)
            with pytest.raises(DeadlineExceededError):
                session.stream("Hi", timeout=0)
    assert fake_server.text.requests == []
