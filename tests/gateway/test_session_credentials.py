"""A session may live longer than a credential; what it starts may not."""

import base64
import json
import time

import grpc
import pytest

from deepseek_grpc import JWTSigner, StaticToken
from deepseek_grpc.errors import AuthenticationError
from deepseek_grpc.testing import FakeServer
from deepseek_rpc.v2 import text_pb2 as pb
from deepseek_rpc.v2.text_pb2_grpc import TextServiceStub
from tests.gateway.raw import ResumableSession, bearer, channel, ends_of, start_frame

LEEWAY = 30


class Clock:
    """A clock that a test turns."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


@pytest.fixture
def clock(fake_server):
    clock = Clock()
    fake_server._gateway._guard._verifier._clock = clock
    return clock


def claims(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def test_nothing_starts_with_a_credential_that_has_expired(fake_server: FakeServer, clock):
    token = JWTSigner(fake_server.client_id, fake_server.client_secret, lifetime=60).token()
    fake_server.text.script("one", "two")
    with fake_server.client(credentials=StaticToken(token)) as client, client.text.session() as session:
        with session.stream("begun in time") as turn:
            pieces = turn.text()
            assert next(pieces) == "one"
            clock.ahead = 60 + LEEWAY + 1
            with pytest.raises(AuthenticationError):
                session.generate("too late")
            assert list(pieces) == ["two"]  # what runs goes on
        with pytest.raises(AuthenticationError):
            session.stream("too late").final()
        assert [seen.request.messages[0].content for seen in fake_server.text.requests] == ["begun in time"]


def test_a_session_renews_its_credential_by_itself(fake_server: FakeServer, clock):
    signer = JWTSigner(fake_server.client_id, fake_server.client_secret, lifetime=60, clock=clock)
    with fake_server.client(credentials=signer) as client, client.text.session() as session:
        first = claims(signer.token())["exp"]
        session.generate("with the first")
        clock.ahead = 10 * 60
        session.generate("with the next")
        assert claims(signer.token())["exp"] > first
        assert session.session_id


def refused(fake_server, frame):
    """Opens a session, sends one more frame, and returns the status that the session ends with."""
    opening = pb.ClientFrame(open=pb.OpenFrame())
    with channel(fake_server.target) as raw:
        requests = iter([pb.SessionRequest(frames=[opening, frame])])
        with pytest.raises(grpc.RpcError) as caught:
            list(TextServiceStub(raw).Session(requests, metadata=bearer(fake_server), timeout=20))
    return caught.value.code()


def test_a_session_is_not_handed_to_another_client(fake_server: FakeServer):
    other = JWTSigner("somebody-else", fake_server.client_secret).token()
    frame = pb.ClientFrame(auth=pb.AuthFrame(token=other))
    assert refused(fake_server, frame) is grpc.StatusCode.UNAUTHENTICATED


def test_a_renewed_credential_counts_from_there_on(fake_server: FakeServer, clock):
    """And what is resumed goes by the credential of its connection, not by one that came before it."""
    signer = JWTSigner(fake_server.client_id, fake_server.client_secret, lifetime=60, clock=clock)

    def metadata():
        return (("authorization", f"Bearer {signer.token()}"),)

    with channel(fake_server.target) as raw:
        session = ResumableSession()
        session.connect(raw, metadata())
        session.send(start_frame(1))
        assert ends_of(session.frames(), 1) == {1: "done"}
        clock.ahead = 60 + LEEWAY + 1
        session.send(start_frame(2))
        assert ends_of(session.frames(), 1) == {2: "UNAUTHENTICATED"}
        session.send(pb.ClientFrame(auth=pb.AuthFrame(token=signer.token())), start_frame(3))
        assert ends_of(session.frames(), 1) == {3: "done"}
        clock.ahead = 2 * (60 + LEEWAY + 1)
        session.wire.cancel()
        session.connect(raw, metadata())
        session.send(start_frame(4))
        assert ends_of(session.frames(), 1) == {4: "done"}
        session.send(pb.ClientFrame(close=pb.CloseFrame()))


@pytest.mark.parametrize("token", ["", "garbage", "a.b.c", "x" * 100_000])
def test_a_bad_credential_ends_the_session(fake_server: FakeServer, token):
    assert refused(fake_server, pb.ClientFrame(auth=pb.AuthFrame(token=token))) is grpc.StatusCode.UNAUTHENTICATED
    assert len(fake_server._gateway._text.sessions) == 0
