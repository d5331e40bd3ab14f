"""Renewed credentials, spent budgets and connections that are lost at the worst moment: nothing waits for ever."""

import asyncio
import threading

import pytest

from deepseek_grpc._session.client import ClientSession
from deepseek_grpc._session.frames import Budget
from deepseek_grpc.errors import InternalError
from deepseek_grpc.gateway.services import session as service
from deepseek_grpc.testing import FakeServer, Stall
from deepseek_grpc.types import TextDelta
from deepseek_rpc.v2 import text_pb2 as pb
from tests.gateway.raw import ResumableSession, bearer, cancel_frame, channel, ends_of, start_frame, until
from tests.unit.session_pair import NOWHERE, Pair, taken


def tokens(client):
    messages = [pb.SessionRequest.FromString(data) for data in taken(client)]
    return [frame.auth.token for message in messages for frame in message.frames if frame.HasField("auth")]


def test_a_spent_budget_is_no_reason_to_wait_for_ever():
    """The gateway waits for an acknowledgement that a client which has read everything doesn't owe yet."""
    budget = Budget(10)
    budget.used = 10  # other sessions'
    pair = Pair(budget=budget)
    turn, running = pair.both()
    for _ in range(3):
        pair.gateway.chunks(running, [TextDelta("x")], NOWHERE)
        pair.carry()
    assert len(turn.chunks) == 3


def test_of_two_renewals_the_newer_counts():
    pair = Pair()
    pair.carry()
    pair.client.renew("1")
    pair.start()
    pair.client.renew("2")
    assert tokens(pair.client)[-1] == "2"


def test_a_renewal_from_before_a_connection_is_older_than_its_credential():
    pair = Pair()
    pair.carry()
    pair.client.renew("1")  # while there is no connection; then one is made with "2"
    pair.connect()
    pair.carry()
    assert [wanted.token for wanted in pair.others] == []


def test_a_renewal_while_it_resumes_is_dropped_when_it_resumes_again():
    pair = Pair()
    pair.carry()
    pair.connect()  # with "1"
    pair.client.renew("2")
    pair.down += taken(pair.gateway)
    pair.client.receive(pair.down.popleft())  # Opened
    taken(pair.client)  # "2" is on its way, and lost
    pair.connect()  # with "3"
    pair.carry()
    assert [wanted.token for wanted in pair.others] == []


def test_bytes_that_are_no_message_break_the_rules():
    client = ClientSession()
    client.connect()
    with pytest.raises(InternalError):
        client.receive(b"\xff")


def test_where_there_are_no_numbers_nothing_is_kept():
    pair = Pair(resumable=False)
    pair.start("x" * 1000)
    taken(pair.client)  # before the gateway has said that there will be no token
    for data in taken(pair.gateway):
        pair.client.receive(data)
    assert pair.client._line.unacked_bytes == 0


def test_a_session_goes_on_when_another_was_ended_for_it(monkeypatch):
    """Whoever waited for the tenant's bytes hears that there are some again."""
    monkeypatch.setattr(service, "TENANT_BYTES", 300_000)
    with FakeServer() as server, channel(server.target) as raw:
        away, here = ResumableSession(), ResumableSession()
        here.connect(raw, bearer(server))
        away.connect(raw, bearer(server))
        server.text.script("x" * 400_000, Stall())
        away.send(start_frame(1, stream=True))
        server.text.wait_for_requests(1)
        while not any(frame.chunks.chunks for frame in away.read().frames):
            pass
        server.text.script("a", "b", "c")
        here.send(start_frame(1, stream=True))
        server.text.wait_for_requests(2)
        here.send(start_frame(2), cancel_frame(2))  # two messages and more have to come, unacknowledged
        away.wire.cancel()
        assert set(ends_of(here.frames(), 2)) == {1, 2}


def test_a_connection_that_is_lost_while_a_token_is_looked_at(fake_server: FakeServer):
    """A message that was acknowledged takes effect as a whole: a start behind an auth isn't lost with it."""
    verifier = fake_server._gateway._guard._verifier
    admit, gate, waiting = verifier.admit, asyncio.Event(), threading.Event()
    renewed = fake_server.credentials().token()

    async def slow(token):  # as one that has to fetch its issuer's keys
        if waiting.is_set() or token != renewed or not armed.is_set():
            return await admit(token)
        waiting.set()
        await gate.wait()
        return await admit(token)

    armed = threading.Event()
    verifier.admit = slow
    with channel(fake_server.target) as raw:
        session = ResumableSession()
        session.connect(raw, bearer(fake_server))
        armed.set()
        session.send(pb.ClientFrame(auth=pb.AuthFrame(token=renewed)), start_frame(1))
        assert waiting.wait(20)
        session.wire.cancel()
        [hosted] = fake_server._gateway._text.sessions._sessions.values()
        until(lambda: hosted.lost_at is not None)
        session.connect(raw, bearer(fake_server))
        fake_server._gateway._text.sessions._sessions[session.session_id]._loop.call_soon_threadsafe(gate.set)
        session.send(start_frame(2))
        assert ends_of(session.frames(), 2) == {1: "done", 2: "done"}
