"""Connections that are lost, by the protos alone: what was under way comes again, and to nobody else."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, nullcontext

import grpc
import pytest

from deepseek_grpc import JWTSigner
from deepseek_grpc._session.frames import HIGH_WATER
from deepseek_grpc.auth import Secret
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.services import session as service
from deepseek_grpc.gateway.settings import ClientSettings, Settings
from deepseek_grpc.local import GatewayThread
from deepseek_grpc.testing import FakeServer, ScriptedEngine, Stall
from deepseek_rpc.v2 import text_pb2 as pb
from tests.gateway.raw import (
    RawSession,
    ResumableSession,
    bearer,
    cancel_frame,
    channel,
    credit_frame,
    ends_of,
    open_frame,
    start_frame,
    until,
)

GONE = (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_GONE")
ELSEWHERE = (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_ELSEWHERE")
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
SECRET = Secret("0123456789abcdef0123456789abcdef")
CLOSE = pb.ClientFrame(close=pb.CloseFrame())


@contextmanager
def gateway(resume_seconds=30.0, engine=None):
    """A gateway with three clients, two of them of one tenant."""
    engine = ScriptedEngine() if engine is None else engine
    clients = tuple(
        ClientSettings(name, SECRET, tenant=tenant, roles=("all",))
        for name, tenant in (("test-client", "tests"), ("colleague", "tests"), ("stranger", "others"))
    )
    settings = Settings(
        "127.0.0.1:0",
        clients=clients,
        roles={"all": ("*",)},
        default_model=engine.model,
        resume_seconds=resume_seconds,
    )
    made = GatewayThread(lambda: nullcontext(Gateway(settings, backends=[Backend(engine, ("*",))])), clients[0])
    made.text = engine
    with made:
        yield made


def token_of(name):
    return (("authorization", f"Bearer {JWTSigner(name, SECRET).token()}"),)


@pytest.fixture
def raw(fake_server):
    with channel(fake_server.target) as made:
        yield made


@pytest.fixture
def session(fake_server, raw):
    made = ResumableSession()
    assert made.connect(raw, bearer(fake_server)) == 0
    return made


def sessions(server):
    return server._gateway._text.sessions


def hosted(server):
    [one] = sessions(server)._sessions.values()
    return one


def lost(server):
    return hosted(server).lost_at is not None


def pieces(count):
    return [f"{i}," for i in range(count)]


def texts(frames, turn_id):
    return "".join(c.text for f in frames if f.chunks.turn_id == turn_id for c in f.chunks.chunks)


def rest_of(session, *turn_ids):
    """Reads until these turns are over."""
    seen = []
    left = set(turn_ids)
    for frame in session.frames():
        seen.append(frame)
        left -= {frame.done.turn_id, frame.error.turn_id}
        if not left:
            return seen
    raise AssertionError(f"the connection ended before {left}")


# Taken up again


@pytest.mark.parametrize("how", ["cancel", "half-close", "open connection"])
def test_what_was_under_way_comes_again(fake_server, raw, session, how):
    fake_server.text.script(*pieces(500))
    session.send(start_frame(1, stream=True, credit=1000))
    first = list(session.read().frames)
    old = session.wire
    if how == "cancel":
        old.cancel()
    elif how == "half-close":
        old.half_close()
    session.connect(raw, bearer(fake_server))
    session.send(credit_frame(1, 1_000_000))
    seen = first + rest_of(session, 1)
    assert texts(seen, 1) == "".join(pieces(500))
    assert ends_of(seen) == {1: "done"}
    assert len(fake_server.text.requests) == 1
    if how == "open connection":
        assert old.refused()[:2] == (grpc.StatusCode.ABORTED, "SESSION_TAKEN")


def test_over_and_over(fake_server, raw, session):
    """Each connection is taken over while the gateway believes in the last one, at whatever moment that is."""
    fake_server.text.script(*pieces(2000))
    fake_server.text.script("whole")
    session.send(start_frame(1, stream=True, credit=1000), start_frame(2))
    seen = []
    wires = []
    for round_ in range(20):
        wires.append(session.wire)
        session.connect(raw, bearer(fake_server))
        session.send(credit_frame(1, 1000))
        if round_ % 3 == 0:
            seen += session.read().frames
        assert len(sessions(fake_server)) == 1
    session.send(credit_frame(1, 1_000_000))
    left = {1, 2} - set(ends_of(seen))
    seen += rest_of(session, *left) if left else []
    assert texts(seen, 1) == "".join(pieces(2000))
    assert ends_of(seen) == {1: "done", 2: "done"}
    assert len(fake_server.text.requests) == 2
    for wire in wires:
        assert wire.refused()[:2] == (grpc.StatusCode.ABORTED, "SESSION_TAKEN")


def test_what_the_client_said_is_heard_once(fake_server, raw, session):
    """It repeats what wasn't acknowledged, whether that had arrived or not."""
    for _ in range(5):
        session.send(start_frame(len(session.sent) + 1))
    fake_server.text.wait_for_requests(5)
    session.wire.cancel()
    assert session.connect(raw, bearer(fake_server)) == 5
    for message in session.sent:  # and again, for good measure
        session.wire.send_message(message)
    session.send(start_frame(6))
    assert ends_of(rest_of(session, 1, 2, 3, 4, 5, 6)) == dict.fromkeys(range(1, 7), "done")
    assert len(fake_server.text.requests) == 6


def test_what_the_gateway_never_got_is_repeated(fake_server, raw, session):
    session.sent = [pb.SessionRequest(frames=[start_frame(i)], seq=i) for i in (1, 2)]  # lost on their way
    session.seq = 2
    session.wire.cancel()
    assert session.connect(raw, bearer(fake_server)) == 0
    assert ends_of(rest_of(session, 1, 2)) == {1: "done", 2: "done"}


def test_a_turn_ends_while_nobody_is_there(fake_server, raw, session):
    fake_server.text.script(*pieces(10))
    session.wire.cancel()
    until(lambda: lost(fake_server))
    session.sent.append(pb.SessionRequest(frames=[start_frame(1, stream=True), start_frame(2)], seq=1))
    session.seq = 1
    session.connect(raw, bearer(fake_server))
    fake_server.text.wait_for_requests(2)
    session.wire.cancel()
    until(lambda: hosted(fake_server).machine.idle)
    session.connect(raw, bearer(fake_server))
    seen = rest_of(session, 1, 2)
    assert (texts(seen, 1), ends_of(seen)) == ("".join(pieces(10)), {1: "done", 2: "done"})


def test_turns_go_on_within_their_credit(fake_server, raw, session):
    fake_server.text.script(*["x" * 1000] * 100)
    session.send(start_frame(1, stream=True, credit=10_000))
    fake_server.text.wait_for_requests(1)
    session.wire.cancel()
    until(lambda: lost(fake_server))
    until(lambda: hosted(fake_server).machine.turns[0].held)
    session.connect(raw, bearer(fake_server))
    seen = []
    while len(texts(seen, 1)) < 10_000:
        seen += session.read().frames
    assert len(texts(seen, 1)) == 10_000
    session.send(credit_frame(1, 1_000_000))
    assert len(texts(seen + rest_of(session, 1), 1)) == 100_000


def test_a_turn_can_be_cancelled_after_a_resume(fake_server, raw, session):
    fake_server.text.script("a", Stall())
    session.send(start_frame(1, stream=True))
    fake_server.text.wait_for_requests(1)
    session.wire.cancel()
    session.connect(raw, bearer(fake_server))
    session.send(cancel_frame(1))
    assert ends_of(rest_of(session, 1)) == {1: "CANCELLED"}
    fake_server.text.wait_for_cancellations(1)


def test_history_outlives_a_connection(fake_server, raw, session):
    session.send(start_frame(1, prompt="one"))
    assert ends_of(rest_of(session, 1)) == {1: "done"}
    session.wire.cancel()
    session.connect(raw, bearer(fake_server))
    session.send(start_frame(2, prompt="two", parent_turn_id=1))
    assert ends_of(rest_of(session, 2)) == {2: "done"}
    assert [message.content for message in fake_server.text.requests[1].request.messages][::2] == ["one", "two"]


def test_no_more_than_4_mib_is_kept_for_a_client_that_acknowledges_nothing(fake_server, raw, session):
    fake_server.text.script(*["x" * 100_000] * 100)
    session.send(start_frame(1, stream=True))
    fake_server.text.wait_for_requests(1)
    machine = hosted(fake_server).machine
    until(lambda: machine.waiting_bytes >= HIGH_WATER)
    session.wire.cancel()
    until(lambda: lost(fake_server))
    assert HIGH_WATER <= machine.waiting_bytes <= HIGH_WATER + 200_000
    session.connect(raw, bearer(fake_server))
    seen = []
    while len(texts(seen, 1)) < 10_000_000:
        seen += session.read().frames
        session.wire.send_message(pb.SessionRequest(acked_seq=session.heard))
    assert texts(seen, 1) == "x" * 10_000_000
    assert machine.waiting_bytes <= HIGH_WATER + 200_000


# Not taken up


def test_tokens_that_are_none(fake_server, raw, session):
    gateway_id, session_id, secret = session.token.split(".")
    for token, expected in {
        "garbage": ELSEWHERE,
        ".": ELSEWHERE,
        "..": ELSEWHERE,
        "思思.思.思": ELSEWHERE,
        f"{gateway_id}x.{session_id}.{secret}": ELSEWHERE,
        gateway_id: GONE,
        f"{gateway_id}.": GONE,
        f"{gateway_id}..{secret}": GONE,
        f"{gateway_id}.{session_id}": GONE,
        f"{gateway_id}.{session_id}.": GONE,
        f"{gateway_id}.{session_id}.{secret}x": GONE,
        f"{gateway_id}.{session_id}.{secret[:-1]}思": GONE,
        f"{gateway_id}.{session_id}.{secret[::-1]}": GONE,
        f"{gateway_id}.{'0' * 32}.{secret}": GONE,
    }.items():
        wire = RawSession(raw, bearer(fake_server))
        wire.send(open_frame(token))
        code, reason, details = wire.refused()
        assert ((code, reason), token) == (expected, token)
        assert session_id not in details
    session.send(start_frame(1))
    assert ends_of(rest_of(session, 1)) == {1: "done"}


def test_anothers_session_is_none():
    """Not a colleague's of the same tenant, and not a stranger's; nobody learns that there is one."""
    with gateway() as server, channel(server.target) as raw:
        server.text.script("a", Stall())
        mine = ResumableSession()
        mine.connect(raw, token_of("test-client"))
        mine.send(start_frame(1, stream=True))
        server.text.wait_for_requests(1)
        answers = set()
        for name in ("colleague", "stranger"):
            for token in (mine.token, mine.token[:-1] + "~"):
                wire = RawSession(raw, token_of(name))
                wire.send(open_frame(token, resumable=True))
                answers.add(wire.refused())
        assert {answer[:2] for answer in answers} == {GONE}
        assert len(answers) == 1
        mine.wire.cancel()
        until(lambda: lost(server))
        wire = RawSession(raw, token_of("stranger"))
        wire.send(open_frame(mine.token))
        assert wire.refused()[:2] == GONE
        mine.connect(raw, token_of("test-client"))
        mine.send(cancel_frame(1))
        assert ends_of(rest_of(mine, 1)) == {1: "CANCELLED"}


def test_a_credential_comes_first(fake_server, raw, session):
    wire = RawSession(raw, (("authorization", "Bearer garbage"),))
    wire.send(open_frame(session.token))
    assert wire.refused()[0] is grpc.StatusCode.UNAUTHENTICATED
    session.send(start_frame(1))
    assert ends_of(rest_of(session, 1)) == {1: "done"}


def test_another_gateways_session_is_elsewhere(session):
    with FakeServer() as other, channel(other.target) as raw:
        wire = RawSession(raw, bearer(other))
        wire.send(open_frame(session.token))
        assert wire.refused()[:2] == ELSEWHERE


def test_a_closed_session_is_gone(fake_server, raw, session):
    session.send(CLOSE)
    assert session.wire.rest() == []
    with pytest.raises(grpc.RpcError) as caught:
        session.connect(raw, bearer(fake_server))
    assert caught.value.code() is GONE[0]
    assert len(sessions(fake_server)) == 0


def tasks(server):
    async def count():
        return len(asyncio.all_tasks())

    return server._do(count())


def test_a_client_that_stays_away_leaves_nothing():
    with gateway(resume_seconds=0.3) as server, channel(server.target) as raw:
        before = tasks(server)
        for _ in range(3):
            server.text.script("a", Stall())
        session = ResumableSession()
        session.connect(raw, token_of("test-client"))
        session.send(*[start_frame(i, stream=True, prompt="x" * 100_000) for i in (1, 2, 3)])
        server.text.wait_for_requests(3)
        [budget] = sessions(server)._budgets.values()
        session.wire.cancel()
        server.text.wait_for_cancellations(3)
        until(lambda: len(sessions(server)) == 0)
        until(lambda: tasks(server) == before)
        assert budget.used == 0
        with pytest.raises(grpc.RpcError) as caught:
            session.connect(raw, token_of("test-client"))
        assert caught.value.code() is GONE[0]


def test_a_client_that_comes_back_in_time_has_all_its_time_again():
    with gateway(resume_seconds=1.5) as server, channel(server.target) as raw:
        session = ResumableSession()
        session.connect(raw, token_of("test-client"))
        first = hosted(server)
        for _ in range(3):
            session.wire.cancel()
            until(lambda: lost(server))
            session.connect(raw, token_of("test-client"))
            assert first._expiry.cancelled()
        session.send(start_frame(1))
        assert ends_of(rest_of(session, 1)) == {1: "done"}
        assert hosted(server) is first


def test_a_gateway_that_keeps_none():
    with gateway(resume_seconds=0) as server, channel(server.target) as raw:
        server.text.script("a", Stall())
        wire = RawSession(raw, token_of("test-client"))
        opened = wire.open(resumable=True)
        assert (opened.resume_token, opened.resume_window_ms) == ("", 0)
        wire.send(start_frame(1, stream=True))  # without a number
        server.text.wait_for_requests(1)
        wire.cancel()
        server.text.wait_for_cancellations(1)
        until(lambda: len(sessions(server)) == 0)


def test_a_gateway_that_stops_ends_sessions_without_a_client():
    engine = ScriptedEngine()
    with gateway(engine=engine) as server, channel(server.target) as raw:
        engine.script("a", Stall())
        session = ResumableSession()
        session.connect(raw, token_of("test-client"))
        session.send(start_frame(1, stream=True))
        engine.wait_for_requests(1)
        session.wire.cancel()
        until(lambda: lost(server))
    assert engine.cancelled == 1


# Numbers that can't be


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (pb.SessionRequest(frames=[start_frame(1)], seq=2), "seq is 2, and the last was 0"),
        (pb.SessionRequest(frames=[start_frame(1)], seq=2**64 - 1), "seq is 18446744073709551615, and the last was 0"),
        (pb.SessionRequest(seq=7), "seq is 7, and the last was 0"),
        (pb.SessionRequest(frames=[start_frame(1)]), "seq is 0 in a message with frames"),
        (pb.SessionRequest(acked_seq=1), "acked_seq is 1, and the last message sent was 0"),
        (pb.SessionRequest(frames=[start_frame(1)], seq=1, acked_seq=2**64 - 1), "the last message sent was 0"),
    ],
)
def test_numbers_from_the_future(fake_server, session, message, problem):
    session.wire.send_message(message)
    code, reason, details = session.wire.refused()
    assert (code, reason) == INVALID
    assert problem in details
    assert not fake_server.text.requests
    until(lambda: len(sessions(fake_server)) == 0)


def test_a_gap(fake_server, session):
    fake_server.text.script(Stall())
    session.send(start_frame(1))
    fake_server.text.wait_for_requests(1)
    session.seq += 1
    session.send(start_frame(2))
    assert session.wire.refused()[:2] == INVALID
    fake_server.text.wait_for_cancellations(1)


@pytest.mark.parametrize("acked", [1, 2**64 - 1])
def test_a_resume_that_has_what_was_never_sent(fake_server, raw, session, acked):
    """Its connection is refused; the session goes on with the one that it has."""
    wire = RawSession(raw, bearer(fake_server))
    wire.send_message(pb.SessionRequest(frames=[open_frame(session.token)], acked_seq=acked))
    code, reason, details = wire.refused()
    assert (code, reason) == INVALID
    assert f"acked_seq is {acked}, and the last message sent was 0" in details
    session.send(start_frame(1))
    assert ends_of(rest_of(session, 1)) == {1: "done"}


def test_a_resume_that_lacks_what_it_had_acknowledged(fake_server, raw, session):
    session.send(start_frame(1))
    rest_of(session, 1)
    session.send(start_frame(2))
    rest_of(session, 2)
    wire = RawSession(raw, bearer(fake_server))
    wire.send_message(pb.SessionRequest(frames=[open_frame(session.token)]))
    code, reason, details = wire.refused()
    assert (code, reason) == INVALID
    assert "acked_seq is 0, and messages are kept from" in details
    session.connect(raw, bearer(fake_server))  # it hasn't hurt
    session.send(start_frame(3))
    assert ends_of(rest_of(session, 3)) == {3: "done"}


def test_acknowledgements_go_alone_after_16_messages(fake_server, session):
    fake_server.text.script(Stall())
    session.send(start_frame(1))
    for _ in range(15):
        session.send(credit_frame(1, 0))
    message = session.read()
    assert (message.seq, message.acked_seq, len(message.frames)) == (0, 16, 0)
    session.send(CLOSE)


# What a tenant's sessions keep together


def test_a_tenant_that_keeps_too_much_loses_the_session_that_waits_longest(monkeypatch):
    monkeypatch.setattr(service, "TENANT_BYTES", 300_000)
    with gateway() as server, channel(server.target) as raw:
        away = []
        for _ in range(2):
            server.text.script("x" * 250_000, Stall())
            session = ResumableSession()
            session.connect(raw, token_of("test-client"))
            session.send(start_frame(1, stream=True))
            while not texts(session.read().frames, 1):
                pass
            session.wire.cancel()
            until(lambda: all(one.lost_at is not None for one in sessions(server)._sessions.values()))
            away.append(session)
        other = RawSession(raw, token_of("stranger"))  # nothing of another tenant's
        other.open(resumable=True)
        server.text.script("done")
        here = ResumableSession()
        here.connect(raw, token_of("colleague"))
        here.send(start_frame(1))
        assert ends_of(rest_of(here, 1)) == {1: "done"}
        until(lambda: len(sessions(server)) == 3)
        with pytest.raises(grpc.RpcError) as caught:
            away[0].connect(raw, token_of("test-client"))
        assert caught.value.code() is GONE[0]
        away[1].connect(raw, token_of("test-client"))
        here.wire.cancel()
        other.cancel()
