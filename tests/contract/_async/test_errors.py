"""Whatever goes wrong, what is raised is one of `deepseek_grpc.errors` and says what, where and whether to retry."""

from __future__ import annotations

import pickle
import socket
import time

import grpc
import jwt
import pytest

from deepseek_grpc import (
    TLS,
    AsyncClient,
    ClientConfig,
    JWTSigner,
    Message,
    ResponseFormat,
    Retry,
    Tool,
    ToolChoice,
    assistant,
    errors,
    tool_result,
    user,
)
from deepseek_grpc.testing import Delay, Fail, FakeServer

ONCE = ClientConfig(retry=Retry(attempts=1), on_interrupt="raise")


@pytest.fixture
def dead_target():
    """An address that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


async def generate(client, **options):
    await client.text.generate("Hi", **options)


async def stream(client, **options):
    async with client.text.stream("Hi", **options) as answer:
        await answer.final()


async def turn(client, **options):
    async with client.text.session() as session:
        await session.generate("Hi", **options)


async def streamed_turn(client, **options):
    async with client.text.session() as session, session.stream("Hi", **options) as answer:
        await answer.final()


CALLS = [generate, stream, turn, streamed_turn]

# status, reason, class, retryable
TABLE = [
    ("INVALID_ARGUMENT", "INVALID_REQUEST", errors.InvalidRequestError, False),
    ("INVALID_ARGUMENT", "CONTEXT_LENGTH", errors.ContextLengthError, False),
    ("INVALID_ARGUMENT", "CONTENT_RISK", errors.ContentPolicyError, False),
    ("INVALID_ARGUMENT", "TOO_LARGE", errors.RequestTooLargeError, False),
    ("NOT_FOUND", "NOT_FOUND", errors.NotFoundError, False),
    ("INTERNAL", "UPSTREAM_AUTH", errors.UpstreamAuthError, False),
    ("INTERNAL", "INTERNAL", errors.InternalError, False),
    ("UNAUTHENTICATED", "UNAUTHENTICATED", errors.AuthenticationError, False),
    ("FAILED_PRECONDITION", "INSUFFICIENT_BALANCE", errors.InsufficientBalanceError, False),
    ("FAILED_PRECONDITION", "FAILED_PRECONDITION", errors.FailedPreconditionError, False),
    ("PERMISSION_DENIED", "PERMISSION_DENIED", errors.PermissionDeniedError, False),
    ("ALREADY_EXISTS", "CONFLICT", errors.ConflictError, False),
    ("RESOURCE_EXHAUSTED", "RATE_LIMITED", errors.RateLimitError, True),
    ("UNAVAILABLE", "UNAVAILABLE", errors.ServiceUnavailableError, True),
    ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", errors.DeadlineExceededError, False),
    ("ABORTED", "INTERRUPTED", errors.StreamInterruptedError, True),
    ("CANCELLED", "CANCELLED", errors.CancelledByPeerError, False),
    ("UNIMPLEMENTED", "UNIMPLEMENTED", errors.UnimplementedError, False),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("status", "reason", "cls", "retryable"), TABLE)
async def test_the_status_table(fake_server, call, status, reason, cls, retryable):
    # A refused token is renewed, once, and the call made again.
    attempts = 2 if status == "UNAUTHENTICATED" else 1
    for _ in range(attempts):
        fake_server.text.script(Fail(status, "what went wrong", reason))
    async with fake_server.async_client(config=ONCE) as client:
        with pytest.raises(errors.DeepSeekError) as caught:
            await call(client, request_id="req-1")
    error = caught.value
    assert type(error) is cls
    assert error.code is grpc.StatusCode[status]
    assert error.reason == reason
    assert error.retryable is retryable
    assert error.request_id == "req-1"
    assert error.attempts == attempts
    assert error.details == "what went wrong"
    tries = ", 2 attempts" if attempts == 2 else ", 1 attempt" if retryable else ""
    assert str(error) == f"what went wrong (request req-1{tries}). {cls.advice}"
    assert len(fake_server.text.requests) == attempts
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.__dict__) == (cls, error.__dict__)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [status.name for status in grpc.StatusCode if status is not grpc.StatusCode.OK])
async def test_no_status_escapes_untyped(fake_server, call, status):
    for _ in range(2):  # the second for the one renewal of a refused token
        fake_server.text.script(Fail(status))
    async with fake_server.async_client(config=ONCE) as client:
        with pytest.raises(errors.DeepSeekError) as caught:
            await call(client)
    assert caught.value.code is grpc.StatusCode[status]
    assert caught.value.reason


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [status.name for status in grpc.StatusCode if status is not grpc.StatusCode.OK])
async def test_no_status_escapes_untyped_in_mid_stream(fake_server, call, status):
    for _ in range(2):
        fake_server.text.script("some ", "text", Fail(status))
    async with fake_server.async_client(config=ONCE) as client:
        with pytest.raises(errors.DeepSeekError):
            await call(client)


async def test_unavailable_is_retried(fake_server, client):
    fake_server.text.script(Fail("UNAVAILABLE"))
    fake_server.text.script(Fail("UNAVAILABLE"))
    fake_server.text.script("at last")
    answer = await client.text.generate("Hi", request_id="req-1")
    assert answer.text == "at last"
    assert answer.meta.upstream.attempts == 3
    assert [recorded.attempt for recorded in fake_server.text.requests] == [1, 2, 3]
    assert {recorded.request.request_id for recorded in fake_server.text.requests} == {"req-1"}


async def test_retries_end(fake_server, client):
    for i in range(6):
        fake_server.text.script(Fail("UNAVAILABLE", f"failure {i}"))
    with pytest.raises(errors.ServiceUnavailableError, match="failure 3") as caught:
        await client.text.generate("Hi")
    assert caught.value.attempts == 4
    assert len(fake_server.text.requests) == 4


async def test_the_text_of_an_error_says_how_often_it_was_tried(fake_server, client):
    for _ in range(4):
        fake_server.text.script(Fail("UNAVAILABLE", "the engine is down"))
    with pytest.raises(errors.ServiceUnavailableError) as caught:
        await client.text.generate("Hi", request_id="req-1")
    assert str(caught.value) == (
        f"the engine is down (request req-1, 4 attempts). {errors.ServiceUnavailableError.advice}"
    )


async def test_a_rate_limit_is_retried_after_its_pushback(fake_server):
    fake_server.text.script(Fail("RESOURCE_EXHAUSTED", retry_after=0.05))
    config = ClientConfig(retry=Retry(initial_backoff=600, max_backoff=600))
    async with fake_server.async_client(config=config) as client:
        answer = await client.text.generate("Hi", timeout=20)  # the client's own back-off would outlast it
    assert answer.meta.upstream.attempts == 2


async def test_a_pushback_beyond_the_deadline_is_an_error_at_once(fake_server, client):
    fake_server.text.script(Fail("RESOURCE_EXHAUSTED", retry_after=90.5))
    with pytest.raises(errors.RateLimitError) as caught:
        await client.text.generate("Hi", timeout=30)
    assert caught.value.retry_after == 90.5
    assert str(caught.value).endswith(", 1 attempt). Try again in 90.5 s.")
    assert len(fake_server.text.requests) == 1


@pytest.mark.parametrize("call", CALLS)
async def test_what_is_not_worth_retrying_is_not_retried(fake_server, client, call):
    fake_server.text.script(Fail("UNAVAILABLE", retryable=False))
    with pytest.raises(errors.ServiceUnavailableError) as caught:
        await call(client)
    assert caught.value.retryable is False
    assert len(fake_server.text.requests) == 1


@pytest.mark.parametrize("status", ["INVALID_ARGUMENT", "INTERNAL", "ABORTED", "DEADLINE_EXCEEDED", "NOT_FOUND"])
async def test_other_failures_are_not_retried(fake_server, client, status):
    fake_server.text.script(Fail(status))
    with pytest.raises(errors.DeepSeekError):
        await client.text.generate("Hi")
    assert len(fake_server.text.requests) == 1


@pytest.mark.parametrize("call", CALLS)
async def test_retries_can_be_switched_off(fake_server, call):
    fake_server.text.script(Fail("UNAVAILABLE"))
    async with fake_server.async_client(config=ONCE) as client:
        with pytest.raises(errors.ServiceUnavailableError):
            await call(client)
        assert len(fake_server.text.requests) == 1


async def test_turns_are_retried_as_calls_are(fake_server, client):
    fake_server.text.script(Fail("UNAVAILABLE"))
    await turn(client)
    assert len(fake_server.text.requests) == 2


async def test_a_long_request_is_retried_too(fake_server, client):
    fake_server.text.script(Fail("UNAVAILABLE"))
    answer = await client.text.generate("x" * 2_000_000)
    assert answer.meta.upstream.attempts == 2


BAD = {
    "empty prompt": ("", {}, "prompt"),
    "empty conversation": ([], {}, "messages"),
    "no message": (["Hi"], {}, "messages[0]"),
    "unknown role": ([Message("robot", "Hi")], {}, "messages[0].role"),
    "empty message": ([user("Hi"), user("")], {}, "messages[1].content"),
    "surrogate": ("\ud800", {}, "prompt"),
    "early prefix": ([assistant("a", prefix=True), user("b")], {}, "messages[0].prefix"),
    "nameless tool result": ([tool_result("", "21")], {}, "messages[0].tool_call_id"),
    "temperature": ("Hi", {"temperature": 5}, "temperature"),
    "temperature as text": ("Hi", {"temperature": "hot"}, "temperature"),
    "not a number": ("Hi", {"temperature": float("nan")}, "temperature"),
    "top_p": ("Hi", {"top_p": 0}, "top_p"),
    "max_tokens": ("Hi", {"max_tokens": -1}, "max_tokens"),
    "max_tokens of 0": ("Hi", {"max_tokens": 0}, "max_tokens"),
    "max_tokens beyond 32 bits": ("Hi", {"max_tokens": 2**31}, "max_tokens"),
    "seed": ("Hi", {"seed": 2**63}, "seed"),
    "penalty": ("Hi", {"frequency_penalty": -2.5}, "frequency_penalty"),
    "other penalty": ("Hi", {"presence_penalty": 3}, "presence_penalty"),
    "too many stops": ("Hi", {"stop": ["x"] * 17}, "stop"),
    "empty stop": ("Hi", {"stop": ["x", ""]}, "stop[1]"),
    "too many tools": ("Hi", {"tools": [Tool(f"t{i}") for i in range(129)]}, "tools"),
    "tool's name": ("Hi", {"tools": [Tool("no spaces")]}, "tools[0].name"),
    "tool twice": ("Hi", {"tools": [Tool("t"), Tool("t")]}, "tools[1].name"),
    "half strict": ("Hi", {"tools": [Tool("t", strict=True), Tool("u")]}, "tools[1].strict"),
    "schema": ("Hi", {"tools": [Tool("t", parameters="[]")]}, "tools[0].parameters"),
    "choice": ("Hi", {"tool_choice": "perhaps"}, "tool_choice"),
    "choice of nothing": ("Hi", {"tool_choice": ToolChoice(function="t")}, "tool_choice.function"),
    "required of nothing": ("Hi", {"tool_choice": "required"}, "tool_choice"),
    "format": ("Hi", {"response_format": ResponseFormat("xml")}, "response_format"),
    "format's schema": ("Hi", {"response_format": ResponseFormat("json_schema", "{")}, "response_format.json_schema"),
    "top_logprobs": ("Hi", {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    "top_logprobs alone": ("Hi", {"top_logprobs": 1}, "top_logprobs"),
    "user_id": ("Hi", {"user_id": "x" * 513}, "user_id"),
    "extra": ("Hi", {"extra": {"x": float("inf")}}, "extra"),
    "request_id": ("Hi", {"request_id": "two words"}, "request_id"),
    "long request_id": ("Hi", {"request_id": "x" * 129}, "request_id"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_is_found_before_anything_is_sent(dead_target, name):
    prompt, options, field = BAD[name]
    async with AsyncClient(dead_target) as client:
        with pytest.raises(errors.InvalidRequestError) as caught:
            await client.text.generate(prompt, **options)
        with pytest.raises(errors.InvalidRequestError):
            client.text.stream(prompt, **options)
    assert isinstance(caught.value, ValueError)
    assert caught.value.field == field
    assert caught.value.attempts == 0
    assert caught.value.details.startswith(field)


@pytest.mark.parametrize(
    "metadata",
    [
        {"authorization": "Bearer x"},
        {"x-request-id": "x"},
        {"X-Upper": "x"},
        {"grpc-timeout": "1S"},
        {"x-bin": "x"},
        {"x-long": "x" * 5000},
        {"x-line": "a\nb"},
        {"x-snowman": "\N{SNOWMAN}"},
    ],
)
async def test_bad_metadata_is_found_before_anything_is_sent(dead_target, metadata):
    async with AsyncClient(dead_target) as client:
        with pytest.raises(errors.InvalidRequestError) as caught:
            await client.text.generate("Hi", metadata=metadata)
        assert caught.value.field == "metadata"
    with pytest.raises(errors.InvalidRequestError):
        AsyncClient(dead_target, config=ClientConfig(metadata=metadata))


async def test_a_prompt_of_20_megabytes(dead_target):
    async with AsyncClient(dead_target) as client:
        with pytest.raises(errors.RequestTooLargeError, match="the limit of a request") as caught:
            await client.text.generate("x" * 20_000_000)
        assert caught.value.field == "prompt"


async def test_a_turn_larger_than_a_frame(client):
    async with client.text.session() as session:
        with pytest.raises(errors.RequestTooLargeError):
            await session.generate("x" * 9_000_000)
        assert (await session.generate("Hi")).text == "Hello from the fake server."


@pytest.mark.parametrize("call", CALLS)
async def test_nobody_listens(dead_target, call):
    async with AsyncClient(dead_target, config=ONCE) as client:
        with pytest.raises(errors.ConnectError, match=dead_target) as caught:
            await call(client, request_id="req-1")
    assert type(caught.value) is errors.ConnectError
    assert caught.value.request_id == "req-1"
    assert caught.value.retryable


@pytest.mark.parametrize("call", CALLS)
async def test_a_target_that_does_not_resolve(call):
    target = "dns:///nobody.invalid:443"
    async with AsyncClient(target, config=ONCE) as client:
        with pytest.raises(errors.ConnectError, match=target) as caught:
            await call(client)
    assert "doesn't resolve" in caught.value.details


async def test_a_target_that_is_none():
    async with AsyncClient("ipv4:nonsense", config=ONCE) as client:
        with pytest.raises(errors.ConnectError, match=r"'ipv4:nonsense' is none .*; give for example") as caught:
            await client.text.generate("Hi")
    assert not caught.value.retryable


async def test_a_gateway_that_does_not_serve(fake_server):
    deadline = time.monotonic() + 20
    failure = None
    async with fake_server.async_client(config=ONCE) as client:
        await client.text.generate("Hi")
        fake_server.set_serving(False)
        while failure is None and time.monotonic() < deadline:  # until its health has arrived
            try:
                await client.text.generate("Hi")
            except errors.ServiceUnavailableError as error:
                failure = error
    assert type(failure) is errors.ServiceUnavailableError
    assert failure.details == f"{fake_server.target!r} can be reached, but says that it isn't serving"


@pytest.mark.parametrize("call", CALLS)
async def test_a_model_that_is_not_served(fake_server, call):
    fake_server.text.script(Fail("NOT_FOUND", "no such model"))
    async with fake_server.async_client(config=ONCE) as client:
        with pytest.raises(errors.NotFoundError, match=r"no such model \(request .*\)\. .*client\.text\.models\(\)"):
            await call(client)


@pytest.mark.parametrize("call", CALLS)
async def test_an_answer_larger_than_a_message_may_be(call):
    with FakeServer() as fake_server:
        fake_server.text.script(*["x" * 1000] * 100)
        async with fake_server.async_client(config=ClientConfig(max_message_bytes=500)) as client:
            with pytest.raises(errors.RequestTooLargeError, match="larger than max"):
                await call(client)


def claims(**more):
    now = int(time.time())
    return {"iss": "test-client", "iat": now, "exp": now + 60, **more}


@pytest.mark.parametrize("call", CALLS)
async def test_an_expired_token_is_not_even_sent(dead_target, call):
    token = jwt.encode(claims(exp=int(time.time()) - 60), "s" * 32, "HS256")
    async with AsyncClient(dead_target, credentials=token) as client:
        with pytest.raises(errors.AuthenticationError, match="expired"):
            await call(client)


@pytest.mark.parametrize("call", CALLS)
async def test_a_token_of_somebody_else(fake_server, call):
    async with fake_server.async_client(credentials=JWTSigner("test-client", "s" * 32)) as client:
        with pytest.raises(errors.AuthenticationError) as caught:
            await call(client, request_id="req-1")
    assert caught.value.request_id
    assert not fake_server.text.requests


@pytest.mark.parametrize("call", CALLS)
async def test_no_credential_at_all(fake_server, call):
    async with fake_server.async_client(credentials=None) as client:
        with pytest.raises(errors.AuthenticationError):
            await call(client)


@pytest.mark.parametrize("call", CALLS)
async def test_a_permission_that_is_not_granted(call):
    with FakeServer(permissions=["text.models"]) as fake_server:
        async with fake_server.async_client() as client:
            with pytest.raises(errors.PermissionDeniedError, match=r"lacks the permission 'text\.(generate|session)'"):
                await call(client)
            assert len(await client.text.models()) == 1
        assert not fake_server.text.requests


def test_plain_text_to_another_host_is_refused():
    for target in ("gateway.internal:443", "dns:///gateway.internal:443", "192.0.2.1:443", "localhost.evil.example:1"):
        with pytest.raises(errors.ConfigurationError, match="plain-text channel"):
            AsyncClient(target, config=ClientConfig(tls=False))


def test_certificates_that_can_not_be_read():
    with pytest.raises(errors.ConfigurationError, match="nowhere"):
        AsyncClient("gateway.internal:443", config=ClientConfig(tls=TLS(ca_file="/nowhere/ca.pem")))


async def test_a_failure_of_one_call_leaves_others(fake_server, client):
    fake_server.text.script(Delay(0.01), Fail("INVALID_ARGUMENT"))
    with pytest.raises(errors.InvalidRequestError):
        await client.text.generate("Hi")
    assert (await client.text.generate("Hi")).text == "Hello from the fake server."
