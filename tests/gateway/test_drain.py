"""A gateway that is told to stop lets what runs come to its end, but not for ever."""

from __future__ import annotations

import signal
import threading
import time

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deepseek_grpc import ClientConfig, Retry
from deepseek_grpc.errors import ServiceUnavailableError, StreamInterruptedError
from deepseek_grpc.testing import Delay, FakeServer, Stall
from tests.gateway.raw import channel

ONCE = ClientConfig(retry=Retry(attempts=1), reconnect_seconds=0.2)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def wait_until_it_leaves(client):
    """Returns when the client has heard that the gateway is about to stop; until then its calls are answered."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            assert client.text.generate("Hi").text == "whole"
        except ServiceUnavailableError:
            return
    pytest.fail("the client doesn't leave")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_stream_finishes(start_gateway, number):
    gateway = start_gateway()
    with gateway.client(config=ONCE) as client, channel(gateway.target) as raw:
        health = health_pb2_grpc.HealthStub(raw).Watch(health_pb2.HealthCheckRequest(), timeout=20)
        assert next(health).status == SERVING
        with client.text.stream("Hi") as stream:
            pieces = stream.text()
            assert next(pieces) == "one"
            gateway.process.send_signal(number)
            assert next(health).status == NOT_SERVING
            health.cancel()
            wait_until_it_leaves(client)
            with gateway.client(config=ONCE) as other, pytest.raises(ServiceUnavailableError):
                other.text.generate("Hi")
            gateway.open_gate()
            assert list(pieces) == ["two"]
            assert stream.final().finish_reason == "stop"
        status, output = gateway.rest()
    assert status == 0
    assert output == "engine closed\n"


def test_a_running_turn_finishes(start_gateway):
    gateway = start_gateway()
    with gateway.client(config=ONCE) as client, channel(gateway.target) as raw:
        health = health_pb2_grpc.HealthStub(raw).Watch(health_pb2.HealthCheckRequest(), timeout=20)
        assert next(health).status == SERVING
        with client.text.session() as session, session.stream("Hi") as turn:
            pieces = turn.text()
            assert next(pieces) == "one"
            gateway.terminate()
            assert next(health).status == NOT_SERVING
            health.cancel()
            gateway.open_gate()
            assert list(pieces) == ["two"]
        assert gateway.rest()[0] == 0


def test_a_busy_session_does_not_hold_it_up(fake_server: FakeServer):
    """A client that goes on starting turns is told to go elsewhere; the turns that run come to their end."""
    fake_server.text.default = ("a", Delay(0.05), "b")
    ended: list[BaseException] = []
    answers: list[str] = []
    with fake_server.client(config=ONCE) as client, client.text.session() as session:

        def ask() -> None:
            try:
                while True:
                    answers.append(session.generate("Hi", timeout=30).text)
            except BaseException as error:  # noqa: BLE001 - the test looks at it
                ended.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        fake_server.text.wait_for_requests(8)
        fake_server.stop(grace=20)  # far longer than the test may take: it has to end by itself
        for thread in threads:
            thread.join()
    assert {type(error) for error in ended} == {ServiceUnavailableError}
    assert {error.reason for error in ended} <= {"GOING_AWAY", "UNAVAILABLE"}
    assert set(answers) == {"ab"}
    assert len(answers) == len(fake_server.text.requests)


def test_a_session_with_nothing_to_do_does_not_hold_it_up(start_gateway):
    gateway = start_gateway()
    with gateway.client(config=ONCE) as client, client.text.session() as session:
        session.generate("Hi")
        gateway.terminate()
        assert gateway.rest() == (0, "engine closed\n")
        with pytest.raises(ServiceUnavailableError):
            session.generate("Hi")


def test_a_stream_that_takes_too_long_is_cut(start_gateway):
    gateway = start_gateway(drain_seconds=0.3)
    with gateway.client(config=ONCE) as client, client.text.stream("Hi", on_interrupt="raise") as stream:
        pieces = stream.text()
        assert next(pieces) == "one"
        gateway.terminate()
        with pytest.raises(StreamInterruptedError) as caught:
            next(pieces)
        assert caught.value.partial == "one"
        status, output = gateway.rest()
    assert status == 0
    assert output == "engine closed\n"


def test_a_gateway_with_nothing_to_do_stops_at_once(start_gateway):
    gateway = start_gateway()
    with gateway.client() as client:
        client.text.generate("Hi")
        gateway.terminate()
        assert gateway.rest() == (0, "engine closed\n")


def test_calls_get_the_grace_they_are_given():
    server = FakeServer()
    with server, server.client(config=ONCE) as client:
        server.text.script("a", Delay(0.2), "b")
        with client.text.stream("Hi") as stream:
            server.text.wait_for_requests(1)
            server.stop(grace=20)
            assert stream.final().text == "ab"


@pytest.mark.parametrize("kind", ["stream", "turn"])
def test_no_grace_at_all(kind):
    server = FakeServer()
    with server, server.client(config=ONCE) as client, client.text.session() as session:
        server.text.script(Stall())
        stream = (client.text if kind == "stream" else session).stream("Hi")
        server.text.wait_for_requests(1)
        server.stop()
        with pytest.raises(ServiceUnavailableError):
            stream.final()
        assert server.text.cancelled == 1
