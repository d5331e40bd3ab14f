"""Who may do what, and what goes out when something breaks."""

from __future__ import annotations

import logging
import time

import grpc
import jwt
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from deepseek_grpc.errors import (
    AuthenticationError,
    ConfigurationError,
    DeadlineExceededError,
    DeepSeekError,
    InternalError,
    PermissionDeniedError,
)
from deepseek_grpc.gateway.guard import Guard, current_call
from deepseek_grpc.gateway.services.text import TextService
from deepseek_grpc.gateway.tokens import TokenVerifier
from deepseek_grpc.testing import Fail, FakeServer, ScriptedEngine
from deepseek_grpc.types import Started, TextDelta
from deepseek_rpc.v2 import auth_pb2, data_pb2, data_pb2_grpc, fine_tune_pb2, fine_tune_pb2_grpc
from deepseek_rpc.v2 import text_pb2 as pb
from deepseek_rpc.v2.text_pb2_grpc import TextServiceStub
from tests.gateway.raw import bearer, channel, reason_of

HI = pb.GenerateRequest(prompt="Hi")


def generate(client):
    client.text.generate("Hi")


def stream(client):
    client.text.stream("Hi").final()


def session(client):
    with client.text.session() as session:
        session.generate("Hi")


def streamed_turn(client):
    with client.text.session() as session:
        session.stream("Hi").final()


def models(client):
    client.text.models()


CALLS = [generate, stream, session, streamed_turn, models]


@pytest.mark.parametrize(
    ("permissions", "allowed"),
    [
        (["*"], CALLS),
        (["text.*"], CALLS),
        (["text.generate"], [generate, stream]),
        (["text.models"], [models]),
        (["text.session"], []),
        (["text.session", "text.generate"], [generate, stream, session, streamed_turn]),
        (["data.*", "text.generate_more", "text"], []),
        ([], []),
    ],
)
def test_what_is_not_granted_is_denied(permissions, allowed):
    with FakeServer(permissions=permissions) as server, server.client() as client:
        for call in CALLS:
            if call in allowed:
                call(client)
            else:
                with pytest.raises(PermissionDeniedError, match=r"client 'test-client' lacks the permission 'text\."):
                    call(client)


def token(server, secret=None, algorithm="HS256", **claims):
    now = int(time.time())
    claims = {"iss": server.client_id, "iat": now, "exp": now + 60, **claims}
    secret = None if algorithm == "none" else secret or server.client_secret
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, secret, algorithm)


BAD = {
    "missing": lambda server: None,
    "garbage": lambda server: "garbage",
    "three parts of garbage": lambda server: "a.b.c",
    "somebody else's signature": lambda server: token(server, "another secret, 32 bytes or more"),
    "somebody unknown": lambda server: token(server, iss="stranger"),
    "unsigned": lambda server: token(server, algorithm="none"),
    "another algorithm": lambda server: token(server, server.client_secret * 2, "HS512"),
    "issued in the future": lambda server: token(server, iat=int(time.time()) + 600, exp=int(time.time()) + 900),
    "a life of two hours": lambda server: token(server, exp=int(time.time()) + 7200),
    "without an end": lambda server: token(server, exp=None),
    "without a beginning": lambda server: token(server, iat=None),
    "for another audience": lambda server: token(server, aud="somebody-else"),
    "not yet good": lambda server: token(server, nbf=int(time.time()) + 600),
    "long": lambda server: token(server, padding="x" * 5000),
}


@pytest.mark.parametrize("name", BAD)
def test_every_bad_credential_gets_the_same_answer(fake_server, name):
    with fake_server.client(credentials=BAD[name](fake_server)) as client:
        answers = set()
        for call in CALLS:
            with pytest.raises(AuthenticationError) as caught:
                call(client)
            # A session that was refused before its first turn began says so, and then the same.
            answers.add((caught.value.details.removeprefix("the session is over: "), caught.value.reason))
    assert answers == {("the credential is missing, malformed, expired or not for this gateway", "UNAUTHENTICATED")}
    assert not fake_server.text.requests


def test_an_expired_token_gets_the_same_answer(fake_server):
    """Clients of this project don't even send one."""
    expired = token(fake_server, iat=int(time.time()) - 600, exp=int(time.time()) - 300)
    with channel(fake_server.target) as raw:
        with pytest.raises(grpc.RpcError) as caught:
            TextServiceStub(raw).Generate(HI, metadata=(("authorization", f"Bearer {expired}"),), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert caught.value.details() == "the credential is missing, malformed, expired or not for this gateway"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_token_of_the_public_guide(fake_server, scheme):
    """It has iss, iat and exp, and nothing else."""
    with channel(fake_server.target) as raw:
        metadata = (("authorization", f"{scheme} {token(fake_server)}"),)
        assert TextServiceStub(raw).Generate(HI, metadata=metadata, timeout=10).finish_reason == pb.FINISH_REASON_STOP


def test_another_scheme_is_no_credential(fake_server):
    with channel(fake_server.target) as raw:
        with pytest.raises(grpc.RpcError) as caught:
            TextServiceStub(raw).Generate(HI, metadata=(("authorization", f"Basic {token(fake_server)}"),), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("version", ["3.0.0", "1.9", "22.0", "", "two"])
def test_another_major_version_is_refused(fake_server, version):
    with channel(fake_server.target) as raw:
        with pytest.raises(grpc.RpcError) as caught:
            TextServiceStub(raw).Generate(HI, metadata=bearer(fake_server, ("x-api-version", version)), timeout=10)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert reason_of(caught.value) == "API_VERSION"
        assert "this gateway speaks 2." in caught.value.details()
    assert not fake_server.text.requests


@pytest.mark.parametrize("more", [(), (("x-api-version", "2.0.0"),), (("x-api-version", "2.99.7"),)])
def test_the_same_major_version_or_none(fake_server, more):
    with channel(fake_server.target) as raw:
        TextServiceStub(raw).Generate(HI, metadata=bearer(fake_server, *more), timeout=10)


def test_a_request_id_that_can_not_be_logged_is_replaced(fake_server, caplog):
    with channel(fake_server.target) as raw:
        with pytest.raises(grpc.RpcError) as caught:
            TextServiceStub(raw).Generate(HI, metadata=(("x-request-id", "two words"),), timeout=10)
        assert "two words" not in str(caught.value.trailing_metadata())


class Exploding:
    """Breaks with something in its exception that nobody else may see."""

    name = "exploding"

    def __init__(self, error, *, late=False):
        self._error = error
        self._late = late

    async def generate(self, request):
        raise self._error

    async def stream(self, request):
        if self._late:
            yield Started(), TextDelta("some text")
        raise self._error

    async def models(self):
        raise self._error

    async def aclose(self):
        pass


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_the_text_of_a_foreign_exception_stays_in_the_log(caplog, call, late):
    engine = Exploding(RuntimeError("key sk-secret refused"), late=late)
    with FakeServer(engine=engine) as server, server.client() as client, caplog.at_level(logging.ERROR):
        with pytest.raises(InternalError) as caught:
            call(client)
        error = caught.value
        assert error.reason == "INTERNAL"
        assert error.code is grpc.StatusCode.INTERNAL
        assert "secret" not in str(error) + repr(error.metadata)
        assert error.request_id
        assert f"request {error.request_id} failed" in caplog.text
        assert "sk-secret" in caplog.text


@pytest.mark.parametrize("call", CALLS)
def test_a_timeout_within_an_engine(call):
    with FakeServer(engine=Exploding(TimeoutError("to sk-secret"))) as server, server.client() as client:
        with pytest.raises(DeadlineExceededError) as caught:
            call(client)
        assert caught.value.details == "the deadline passed"


def test_an_error_with_everything_large_still_arrives():
    error = DeepSeekError("x" * 50_000, metadata={f"key-{i}": "y" * 5000 for i in range(100)})
    with FakeServer(engine=Exploding(error)) as server, server.client() as client:
        with pytest.raises(InternalError) as caught:
            generate(client)
        assert caught.value.code is grpc.StatusCode.UNKNOWN
        assert caught.value.details == "x" * 1024


@pytest.mark.parametrize(
    ("failure", "pushback"),
    [
        (Fail("RESOURCE_EXHAUSTED", retry_after=0.6), "600"),
        (Fail("UNAVAILABLE", retry_after=0), "2"),
        (Fail("UNAVAILABLE", retry_after=11), "-1"),  # beyond the deadline
        (Fail("UNAVAILABLE", retryable=False), "-1"),
        (Fail("UNAVAILABLE"), None),  # the client's own back-off
        (Fail("INTERNAL", retry_after=1), None),  # not retried anyhow
    ],
)
def test_a_failure_says_when_to_try_again(fake_server, failure, pushback):
    fake_server.text.script(failure)
    with channel(fake_server.target) as raw, pytest.raises(grpc.RpcError) as caught:
        TextServiceStub(raw).Generate(HI, metadata=bearer(fake_server), timeout=10)
    assert dict(caught.value.trailing_metadata()).get("grpc-retry-pushback-ms") == pushback


def test_a_method_that_is_not_built(monkeypatch):
    monkeypatch.delattr(TextService, "GetBalance")
    with FakeServer() as server, channel(server.target) as raw:
        with pytest.raises(grpc.RpcError) as caught:
            TextServiceStub(raw).GetBalance(pb.GetBalanceRequest(), metadata=bearer(server), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert reason_of(caught.value) == "UNIMPLEMENTED"
        with pytest.raises(grpc.RpcError) as caught:
            TextServiceStub(raw).GetBalance(pb.GetBalanceRequest(), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_services_that_are_not_built(fake_server):
    with channel(fake_server.target) as raw:
        calls = [
            (data_pb2_grpc.DataServiceStub(raw).ListDatasets, data_pb2.ListDatasetsRequest()),
            (fine_tune_pb2_grpc.FineTuneServiceStub(raw).ListFineTuneJobs, fine_tune_pb2.ListFineTuneJobsRequest()),
        ]
        for method, request in calls:
            with pytest.raises(grpc.RpcError) as caught:
                method(request, metadata=bearer(fake_server), timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_method_without_a_permission_stops_the_start():
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/open.proto", package="tests", dependency=["deepseek_rpc/v2/auth.proto"]
    )
    file.message_type.add(name="Nothing")
    service = file.service.add(name="OpenService")
    for name, permission in (("Closed", "test.closed"), ("Open", "")):
        method = service.method.add(name=name, input_type=".tests.Nothing", output_type=".tests.Nothing")
        if permission:
            method.options.Extensions[auth_pb2.permission] = permission
    pool = descriptor_pool.Default()
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    descriptor = pool.FindServiceByName("tests.OpenService")
    with pytest.raises(ConfigurationError, match=r"tests\.OpenService\.Open has no \(permission\) option"):
        Guard(TokenVerifier([])).protect(object(), descriptor)


def test_a_refused_turn_stands_in_the_log_with_its_request(caplog):
    with (
        FakeServer(permissions=["text.session"]) as server,
        server.client() as client,
        client.text.session() as session,
        pytest.raises(PermissionDeniedError),
    ):
        session.generate("Hi")
    [said] = [record.getMessage() for record in caplog.records if record.name == "deepseek_grpc.gateway.auth"]
    assert said.startswith("call refused: client 'test-client' lacks the permission 'text.generate' (from ipv")
    assert ", request " in said


class Witness(ScriptedEngine):
    """Keeps the calls that it answers."""

    def __init__(self):
        super().__init__()
        self.calls = []

    async def generate(self, request):
        self.calls.append(current_call())
        return await super().generate(request)


def test_what_a_call_knows_shows_no_token():
    engine = Witness()
    with FakeServer(engine=engine) as server, channel(server.target) as raw:
        TextServiceStub(raw).Generate(
            pb.GenerateRequest(prompt="Hi", model="fake"), metadata=bearer(server), timeout=10
        )
    [call] = engine.calls
    token = call.token.reveal().decode()
    assert token.count(".") == 2
    assert token not in repr(call)
    assert token not in str(call.metadata)
