# Mirrored by scripts/unasync.py from tests/contract/_async/test_renewal.py: edit that and run `make sync`.
"""A refused token is renewed once, and the call made again."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from deepseek_grpc import ClientConfig, Timeouts
from deepseek_grpc.errors import (
    AuthenticationError,
    DeadlineExceededError,
    FirstTokenTimeoutError,
    ServiceUnavailableError,
)
from deepseek_grpc.testing import Delay, Fail, Stall
from tests.contract.concurrency import gather_threads, start_thread

HELLO = "Hello from the fake server."


class Source:
    """Gives a stale token until it is told that it was refused."""

    def __init__(self, good, renewable=True):
        self.good = good
        self.current = "stale"
        self.refused = []
        if renewable:
            self.invalidate = self._invalidate

    def token(self):
        return self.current

    def _invalidate(self, token):
        self.refused.append(token)
        self.current = self.good


class Slow:
    """A source that has to wait for its token."""

    def __init__(self, good):
        self.good = good
        self.current = None
        self.fetched = 0
        self.ready = threading.Event()
        self.refused = threading.Event()
        self._lock = threading.Lock()

    def cached(self):
        return self.current

    def token(self):
        with self._lock:
            if self.current is None:
                self.ready.wait(30)
                self.current = self.good
                self.fetched += 1
            return self.current

    def invalidate(self, token):
        if token == self.current:
            self.current = None
            self.refused.set()


@pytest.fixture(params=["call", "metadata"])
def config(request):
    return ClientConfig(token_delivery=request.param)


@pytest.fixture
def good(fake_server):
    return fake_server.credentials().token()


def generate(client):
    return (client.text.generate("Hi")).text


def stream(client):
    with client.text.stream("Hi") as answer:
        return (answer.final()).text


def turn(client):
    with client.text.session() as session:
        return (session.generate("Hi")).text


@pytest.mark.parametrize("call", [generate, stream, turn])
def test_the_call_goes_through(fake_server, config, good, call):
    source = Source(good)
    with fake_server.client(credentials=source, config=config) as client:
        assert call(client) == HELLO
        assert call(client) == HELLO
    assert source.refused == ["stale"]


@pytest.mark.parametrize("call", [generate, stream, turn])
def test_once_is_enough(fake_server, config, call):
    source = Source("just-as-bad")
    with fake_server.client(credentials=source, config=config) as client:
        with pytest.raises(AuthenticationError) as caught:
            call(client)
    assert source.refused == ["stale"]
    assert caught.value.attempts == 2
    assert fake_server.text.requests == []


@pytest.mark.parametrize("call", [generate, stream, turn])
def test_a_source_that_has_one_token_only_is_not_asked_again(fake_server, config, good, call):
    with fake_server.client(credentials=Source(good, renewable=False), config=config) as client:
        with pytest.raises(AuthenticationError) as caught:
            call(client)
    assert caught.value.attempts == 1


@pytest.mark.parametrize("call", [generate, stream, turn])
def test_a_source_may_take_its_time(fake_server, config, good, call):
    source = Slow(good)
    source.ready.set()
    with fake_server.client(credentials=source, config=config) as client:
        assert call(client) == HELLO
        source.current = None
        assert call(client) == HELLO
    assert source.fetched == 2


def test_a_turn_waits_for_the_token_that_ran_out(fake_server, config, good):
    source = Slow(good)
    source.ready.set()
    with fake_server.client(credentials=source, config=config) as client, client.text.session() as session:
        assert (session.generate("Hi")).text == HELLO
        source.current = None
        assert (session.generate("Hi")).text == HELLO
        assert source.fetched == 2


def test_many_calls_wait_for_one_renewal(fake_server, config, good):
    source = Slow(good)
    with fake_server.client(credentials=source, config=config) as client:

        def ask():
            return generate(client)

        def release():
            source.ready.set()

        assert gather_threads(*[ask] * 50, release) == [HELLO] * 50 + [None]
    assert source.fetched == 1


def test_waiting_for_a_token_counts_toward_the_total_time(fake_server, good):
    source = Slow(good)
    with fake_server.client(credentials=source) as client:
        try:
            with pytest.raises(DeadlineExceededError):
                client.text.generate("Hi", timeout=0.1)
            with pytest.raises(DeadlineExceededError):
                client.text.stream("Hi", timeout=0.1).final()
            with pytest.raises(DeadlineExceededError):
                client.warm(timeout=0.1)
        finally:
            source.ready.set()


class Stale(Slow):
    """Has a stale token at once, and takes its time for a good one."""

    def __init__(self, good):
        super().__init__(good)
        self.current = "stale"


def test_a_stream_that_is_cancelled_while_its_token_is_renewed_is_not_sent(fake_server, good):
    source = Stale(good)
    with fake_server.client(credentials=source, max_concurrency=1) as client:
        with client.text.stream("Hi") as stream:
            reading = start_thread(stream.final)
            source.refused.wait(30)
            stream.cancel()
            source.ready.set()
            assert (reading.result()).finish_reason == "cancelled"
        assert fake_server.text.requests == []
        assert (client.text.generate("Hi")).text == HELLO


@pytest.mark.parametrize(
    "limits", [Timeouts(first_token=0.2, total=30), Timeouts(idle=None, first_token=0.2, total=30)]
)
def test_the_first_token_is_waited_for_from_the_renewed_call_on(fake_server, good, limits):
    fake_server.text.script(Stall())
    source = Source(good)
    with fake_server.client(credentials=source) as client:
        with pytest.raises(FirstTokenTimeoutError):
            client.text.stream("Hi", timeout=Timeouts(first_token=0.2, total=30)).final()
    assert source.refused == ["stale"]


@pytest.mark.parametrize("problem", [ServiceUnavailableError("the endpoint is down"), KeyError("foreign")])
def test_a_session_survives_a_source_that_fails(fake_server, good, problem):
    source = Slow(good)
    source.ready.set()

    def fail():
        raise problem

    with fake_server.client(credentials=source) as client, client.text.session() as session:
        assert (session.generate("Hi")).text == HELLO
        source.current, token, source.token = None, source.token, fail
        with suppress(AuthenticationError, ServiceUnavailableError):  # threads wait for the token before they send
            session.generate("Hi", timeout=20)
        source.token = token
        assert (session.generate("Hi")).text == HELLO


class Failing:
    """Has one token, and then none to be had."""

    def __init__(self, token):
        self._token = token

    def token(self):
        if self._token is None:
            raise AuthenticationError("the issuer doesn't answer")
        return self._token

    def invalidate(self, token):
        self._token = None


def test_a_source_that_fails_ends_no_turn_that_runs(fake_server, config, good):
    fake_server.text.script("a", Delay(0.3), "b")
    fake_server.text.script(Fail("UNAUTHENTICATED", "not this one"))
    with (
        fake_server.client(credentials=Failing(good), config=config) as client,
        client.text.session() as session,
    ):
        stream = session.stream("Hi")
        fake_server.text.wait_for_requests(1)
        with pytest.raises(AuthenticationError, match="not this one"):
            session.generate("Hi", timeout=20)
        assert (stream.final()).text == "ab"


def test_turns_refused_together_are_renewed_together(fake_server, config, good):
    source = Source(good)
    with fake_server.client(credentials=source, config=config) as client, client.text.session() as session:
        answers = gather_threads(*(lambda: session.generate("Hi") for _ in range(16)))
    assert [answer.text for answer in answers] == [HELLO] * 16
    assert source.refused == ["stale"]
