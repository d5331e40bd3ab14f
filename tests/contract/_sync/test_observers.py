# Mirrored by scripts/unasync.py from tests/contract/_async/test_observers.py: edit that and run `make sync`.
"""Observers: told of every call's start, and once of its end."""

from __future__ import annotations

import grpc
import pytest

from deepseek_grpc import ClientConfig, Observer, Retry, system, user
from deepseek_grpc.errors import AuthenticationError, ConfigurationError, ServiceUnavailableError
from deepseek_grpc.testing import Fail, Reasoning, Stall
from tests.contract.concurrency import start_thread

ONCE = ClientConfig(retry=Retry(attempts=1))


class Watcher:
    """Keeps what it is told."""

    def __init__(self):
        self.begun = []
        self.over = []

    def started(self, call):
        assert call.code is None
        self.begun.append(call)

    def ended(self, call):
        assert call in self.begun
        assert call.code is not None
        self.over.append(call)

    @property
    def only(self):
        (call,) = self.over
        assert self.begun == [call]
        return call


@pytest.fixture
def watcher():
    return Watcher()


@pytest.fixture
def client(fake_server, watcher):
    with fake_server.client(config=ONCE, observers=[watcher]) as client:
        yield client


def generate(client, prompt="Hi", **options):
    client.text.generate(prompt, **options)


def stream(client, prompt="Hi", **options):
    with client.text.stream(prompt, **options) as answer:
        answer.final()


def turn(client, prompt="Hi", **options):
    with client.text.session() as session:
        session.generate(prompt, **options)


def streamed_turn(client, prompt="Hi", **options):
    with client.text.session() as session, session.stream(prompt, **options) as answer:
        answer.final()


CALLS = [
    (generate, "TextService/Generate"),
    (stream, "TextService/StreamGenerate"),
    (turn, "TextService/Session"),
    (streamed_turn, "TextService/Session"),
]


@pytest.mark.parametrize(("call", "method"), CALLS)
def test_a_call_that_goes_well(fake_server, watcher, client, call, method):
    fake_server.text.script(Reasoning("Hm"), "one ", "two")
    call(client, [system("Be brief"), user("Why is the sky blue?")], model="m", request_id="req-1")
    seen = watcher.only
    assert (seen.method, seen.target, seen.request_id, seen.model) == (method, fake_server.target, "req-1", "m")
    assert (seen.code, seen.error, seen.attempts) == (grpc.StatusCode.OK, None, 1)
    assert seen.usage.completion_tokens == 3
    assert (seen.excerpt(3), seen.excerpt(100)) == ("Why", "Why is the sky blue?")
    assert 0 < seen.seconds < 60
    assert (seen.first_content_seconds is not None) == (call in (stream, streamed_turn))
    assert "OK" in repr(seen)


@pytest.mark.parametrize(("call", "method"), CALLS)
def test_a_call_that_fails(fake_server, watcher, client, call, method):
    fake_server.text.script(Fail("UNAVAILABLE"))
    with pytest.raises(ServiceUnavailableError) as caught:
        call(client)
    seen = watcher.only
    assert (seen.method, seen.code) == (method, grpc.StatusCode.UNAVAILABLE)
    assert seen.error is caught.value
    assert seen.attempts == 1


@pytest.mark.parametrize("session", [False, True])
def test_a_stream_that_is_left(fake_server, watcher, client, session):
    fake_server.text.script("one", Stall())
    with client.text.session() as ses:
        with (ses if session else client.text).stream("Hi") as stream:
            for _ in stream.text():
                break
        seen = watcher.only
        assert seen.code is grpc.StatusCode.CANCELLED
        assert seen.usage is None
        assert seen.first_content_seconds is not None


def test_a_stream_that_is_cancelled(fake_server, watcher, client):
    fake_server.text.script("one", Stall())
    with client.text.stream("Hi") as stream:
        reading = start_thread(stream.final)
        fake_server.text.wait_for_requests(1)
        stream.cancel()
        reading.result()
    assert watcher.only.code is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("how", ["closed", "cancelled", "forgotten"])
def test_a_turn_that_nobody_reads_ends_too(fake_server, watcher, client, how):
    fake_server.text.script(*(["one"] if how == "forgotten" else ["one", Stall()]))
    with client.text.session() as session:
        stream = session.stream("Hi")
        fake_server.text.wait_for_requests(1)
        if how == "cancelled":
            stream.cancel()
        elif how == "forgotten":
            del stream
            session.generate("Hi")
    assert len(watcher.begun) == len(watcher.over) == (2 if how == "forgotten" else 1)
    codes = {"closed": "CANCELLED", "cancelled": "CANCELLED", "forgotten": "OK"}
    assert [call.code.name for call in watcher.over] == [codes[how]] * len(watcher.over)


def test_health_is_observed_too(fake_server, watcher, client):
    client.warm()
    assert (watcher.only.method, watcher.only.code.name) == ("Health/Check", "OK")


def test_a_call_that_has_no_token(fake_server, watcher):
    class Empty:
        def token(self):
            raise AuthenticationError("there is none")

    with fake_server.client(credentials=Empty(), observers=[watcher]) as client:
        with pytest.raises(AuthenticationError):
            client.text.models()
    assert (watcher.only.code, watcher.only.attempts) == (grpc.StatusCode.UNAUTHENTICATED, 0)


def test_a_request_that_is_wrong_is_no_call(watcher, client):
    with pytest.raises(ValueError, match="temperature"):
        client.text.generate("Hi", temperature=5)
    assert watcher.begun == []


def test_an_observer_that_fails_changes_nothing(fake_server, caplog):
    class Broken:
        def started(self, call):
            raise RuntimeError("at its start")

        def ended(self, call):
            raise RuntimeError("at its end")

    with fake_server.client(observers=[Broken()]) as client:
        assert (client.text.generate("Hi")).text == "Hello from the fake server."
    assert "at its start" in caplog.text
    assert "at its end" in caplog.text


def test_what_is_no_observer_is_refused(fake_server):
    assert isinstance(Watcher(), Observer)
    for wrong in (["calls.log"], "calls.log", Watcher(), [None]):
        with pytest.raises(ConfigurationError, match="observers"):
            fake_server.client(observers=wrong)
