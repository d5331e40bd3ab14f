"""One-shot generation."""

from __future__ import annotations

import threading

import pytest

from deepseek_grpc import (
    API_VERSION,
    ClientConfig,
    Finished,
    Message,
    ResponseFormat,
    StaticToken,
    Tool,
    ToolCall,
    ToolChoice,
    Usage,
    assistant,
    json_object,
    json_schema,
    system,
    tool_result,
    user,
)
from deepseek_grpc.errors import AuthenticationError, ClosedError, ConfigurationError
from deepseek_grpc.testing import Reasoning, ToolUse
from deepseek_grpc.types import FilePart, ImagePart, TextPart
from tests.contract.concurrency import gather


async def test_an_answer_with_all_its_fields(fake_server, client):
    fake_server.text.script("Hel", "lo")
    answer = await client.text.generate("Say hello", request_id="req-1")
    assert answer.text == "Hello"
    assert answer.finish_reason == "stop"
    assert answer.usage == Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)
    assert answer.reasoning is None
    assert answer.tool_calls == ()
    assert answer.logprobs == ()
    assert answer.meta.request_id == "req-1"
    assert answer.meta.id == "fake-1"
    assert answer.meta.model == "fake"
    assert answer.meta.system_fingerprint == "fp_fake"
    assert answer.meta.upstream.backend == "scripted"
    assert answer.meta.upstream.attempts == 1
    assert answer.meta.upstream.gateway_ms >= 0
    assert answer.meta.upstream.cache_hit is False


async def test_reasoning_and_tool_calls_come_back(fake_server, client):
    fake_server.text.script(Reasoning("Hm, "), Reasoning("weather."), ToolUse("weather", '{"city": "Oslo"}', "call_7"))
    answer = await client.text.generate("Is it warm in Oslo?", tools=[Tool("weather")])
    assert answer.text == ""
    assert answer.reasoning == "Hm, weather."
    assert answer.tool_calls == (ToolCall("call_7", "weather", '{"city": "Oslo"}'),)
    assert answer.finish_reason == "tool_calls"
    assert answer.message == Message(
        "assistant",
        "",
        reasoning_content="Hm, weather.",
        tool_calls=(ToolCall("call_7", "weather", '{"city": "Oslo"}'),),
    )


@pytest.mark.parametrize(
    "reason", ["stop", "length", "content_filter", "insufficient_system_resource", "a word of the backend's own"]
)
async def test_finish_reasons(fake_server, client, reason):
    usage = Usage(5, 7, 12, 2, 3, 4, '{"more": 1}')
    fake_server.text.script("x", Finished(reason, usage))
    answer = await client.text.generate("Hi")
    assert answer.finish_reason == reason
    assert answer.usage == usage


async def test_every_option_reaches_the_engine(fake_server, client):
    tools = [Tool("weather", "Tells the weather.", {"type": "object"}), Tool("time", parameters='{"type": "object"}')]
    await client.text.generate(
        "Hi",
        model="some-model",
        system_message="Be brief",
        max_tokens=64,
        temperature=0,
        top_p=0.5,
        stop=["END", "\n\n"],
        frequency_penalty=-2,
        presence_penalty=0,
        seed=-1,
        response_format=json_object,
        thinking=False,
        reasoning_effort="high",
        tools=tools,
        tool_choice=ToolChoice(function="time"),
        logprobs=True,
        top_logprobs=0,
        user_id="user-1",
        extra={"big": 9007199254740993, "a": None},
        request_id="req-2",
    )
    (recorded,) = fake_server.text.requests
    request = recorded.request
    assert request.messages == (system("Be brief"), user("Hi"))
    assert request.request_id == "req-2"
    assert request.model == "some-model"
    assert request.max_tokens == 64
    assert request.temperature == 0
    assert request.top_p == 0.5
    assert request.stop == ("END", "\n\n")
    assert request.frequency_penalty == -2
    assert request.presence_penalty == 0
    assert request.seed == -1
    assert request.response_format == json_object
    assert request.thinking is False
    assert request.reasoning_effort == "high"
    assert request.tools == (
        Tool("weather", "Tells the weather.", '{"type": "object"}'),
        Tool("time", "", '{"type": "object"}'),
    )
    assert request.tool_choice == ToolChoice(function="time")
    assert request.logprobs is True
    assert request.top_logprobs == 0
    assert request.user_id == "user-1"
    assert request.extra_json == '{"big": 9007199254740993, "a": null}'
    assert recorded.streamed is False
    assert recorded.attempt == 1


async def test_what_is_not_given_reaches_the_engine_as_not_given(fake_server, client):
    await client.text.generate("Hi", temperature=None, tools=None, system_message=None)
    request = fake_server.text.requests[0].request
    assert request.messages == (user("Hi"),)
    assert request.model == "fake"  # the gateway's default
    for name in ("max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "thinking"):
        assert getattr(request, name) is None
    assert request.response_format is None
    assert request.tool_choice is None
    assert request.top_logprobs is None
    assert request.stop == request.tools == ()
    assert request.extra_json == request.user_id == request.reasoning_effort == ""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"stop": "END"}, {"stop": ("END",)}),
        ({"thinking": True}, {"thinking": True}),
        (
            {"response_format": json_schema('{"type": "object"}')},
            {"response_format": json_schema('{"type": "object"}')},
        ),
        ({"response_format": ResponseFormat()}, {"response_format": ResponseFormat()}),
        ({"tool_choice": "none"}, {"tool_choice": ToolChoice("none")}),
        ({"tool_choice": "required", "tools": [Tool("f")]}, {"tool_choice": ToolChoice("required")}),
        ({"max_tokens": 2**31 - 1}, {"max_tokens": 2**31 - 1}),
        ({"seed": 2**63 - 1}, {"seed": 2**63 - 1}),
    ],
)
async def test_other_forms_of_options(fake_server, client, given, expected):
    await client.text.generate("Hi", **given)
    request = fake_server.text.requests[0].request
    for name, value in expected.items():
        assert getattr(request, name) == value


CONVERSATIONS = {
    "one message": user("Hi", name="ann"),
    "turns": [system("Be brief", name="boss"), user("Hi"), assistant("Hello", name="bot"), user("Why? \N{SNOWMAN}")],
    "a prefix": [user("Tell me"), assistant("Once upon a", prefix=True)],
    "tools": [
        user("Warm?"),
        assistant("", reasoning_content=" as\nit came ", tool_calls=[ToolCall("c1", "weather", '{"city": ')]),
        tool_result("c1", '{"celsius": 21}'),
    ],
    "empty reasoning": [user("a"), assistant("b", reasoning_content=""), user("c")],
    "parts": [user((TextPart("What is it?"), ImagePart("https://example.org/cat.png", "low"), FilePart("file-1")))],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
async def test_conversations_arrive_as_they_were(fake_server, client, name):
    conversation = CONVERSATIONS[name]
    await client.text.generate(conversation)
    expected = (conversation,) if isinstance(conversation, Message) else tuple(conversation)
    assert fake_server.text.requests[0].request.messages == expected


async def test_an_answer_goes_back_into_the_conversation(fake_server, client):
    fake_server.text.script(Reasoning("Let me look."), ToolUse("weather"))
    question = user("Warm?")
    answer = await client.text.generate(question, tools=[Tool("weather")])
    await client.text.generate([question, answer.message, tool_result(answer.tool_calls[0], "21")])
    messages = fake_server.text.requests[1].request.messages
    assert messages[1].reasoning_content == "Let me look."
    assert messages[1].tool_calls == answer.tool_calls
    assert messages[2] == tool_result("call_1", "21")


async def test_metadata_of_client_and_call(fake_server):
    async with fake_server.async_client(config=ClientConfig(metadata={"x-team": "a", "x-app": "b"})) as client:
        await client.text.generate("Hi", metadata={"x-trace": "c d"}, request_id="req-3")
    metadata = fake_server.text.requests[0].metadata
    assert metadata["x-team"] == "a"
    assert metadata["x-app"] == "b"
    assert metadata["x-trace"] == "c d"
    assert metadata["x-request-id"] == "req-3"
    assert metadata["x-api-version"] == API_VERSION
    assert "authorization" not in metadata
    assert fake_server.text.requests[0].request.request_id == "req-3"


async def test_a_request_id_is_made_up_for_every_call(fake_server, client):
    one, two = await client.text.generate("x"), await client.text.generate("y")
    ids = [recorded.metadata["x-request-id"] for recorded in fake_server.text.requests]
    assert ids == [one.meta.request_id, two.meta.request_id]
    assert ids == [recorded.request.request_id for recorded in fake_server.text.requests]
    assert len(set(ids)) == 2
    assert all(len(request_id) == 32 for request_id in ids)


@pytest.mark.parametrize("delivery", ["call", "metadata"])
async def test_the_token_reaches_the_gateway_on_every_kind_of_call(fake_server, delivery):
    async with fake_server.async_client(config=ClientConfig(token_delivery=delivery)) as client:
        await client.text.generate("unary")
        async with client.text.stream("stream") as stream:
            await stream.final()
        async with client.text.session() as session:
            await session.generate("turn")
            async with session.stream("streamed turn") as stream:
                await stream.final()
        assert [model.id for model in await client.text.models()] == ["fake"]
    assert [recorded.client_id for recorded in fake_server.text.requests] == ["test-client"] * 4
    assert [recorded.streamed for recorded in fake_server.text.requests] == [False, True, False, True]


@pytest.mark.parametrize("delivery", ["call", "metadata"])
async def test_a_token_as_text(fake_server, delivery):
    token = fake_server.credentials().token()
    async with fake_server.async_client(credentials=token, config=ClientConfig(token_delivery=delivery)) as client:
        assert (await client.text.generate("Hi")).text == "Hello from the fake server."


class Empty:
    """A source that has run dry."""

    def token(self):
        raise AuthenticationError("no token today")


@pytest.mark.parametrize("delivery", ["call", "metadata"])
async def test_a_source_without_a_token_fails_before_anything_is_sent(fake_server, delivery):
    config = ClientConfig(token_delivery=delivery)
    async with fake_server.async_client(credentials=Empty(), config=config) as client:
        with pytest.raises(AuthenticationError, match="no token today"):
            await client.text.generate("Hi")
        with pytest.raises(AuthenticationError, match="no token today"):
            client.text.stream("Hi")
        with pytest.raises(AuthenticationError, match="no token today"):
            client.text.session()


class Other:
    """A user's source that says what it is told to."""

    def __init__(self, say):
        self.token = say


def fail():
    raise KeyError("s3cret")


@pytest.mark.parametrize("delivery", ["call", "metadata"])
@pytest.mark.parametrize(("say", "says"), [(fail, "KeyError"), (lambda: None, "NoneType"), (lambda: "a\nb", "header")])
async def test_a_source_that_fails_is_no_lost_connection(fake_server, delivery, say, says):
    config = ClientConfig(token_delivery=delivery)
    async with fake_server.async_client(credentials=Other(say), config=config) as client:
        with pytest.raises(AuthenticationError, match=says) as caught:
            await client.text.generate("Hi")
        with pytest.raises(AuthenticationError, match=says):
            client.text.stream("Hi")
        with pytest.raises(AuthenticationError, match=says):
            client.text.session()
        assert "s3cret" not in str(caught.value)
        assert await client.health() == "SERVING"
    assert fake_server.text.requests == []


async def test_a_source_that_fails_in_grpcs_own_thread_is_no_lost_connection(fake_server):
    here, good = threading.get_ident(), fake_server.credentials()

    def token():
        return good.token() if threading.get_ident() == here else fail()

    async with fake_server.async_client(credentials=Other(token)) as client:
        with pytest.raises(AuthenticationError, match="KeyError") as caught:
            await client.text.generate("Hi", request_id="req-1")
    assert caught.value.request_id == "req-1"
    assert fake_server.text.requests == []


async def test_no_proxy_stands_before_this_machine(fake_server, monkeypatch):
    for name in ("no_grpc_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with fake_server.async_client() as client:
        assert (await client.text.generate("Hi")).text == "Hello from the fake server."


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"target": 5}, "target is 5"),
        ({"target": "x:1", "credentials": ("id", "secret")}, "credentials is a tuple"),
        ({"target": "x:1", "credentials": b"secret"}, "credentials is a bytes"),
        ({"target": "x:1", "config": {"tls": False}}, "config is a dict"),
    ],
)
def test_an_argument_of_another_kind_is_named(arguments, says):
    from deepseek_grpc import AsyncClient

    with pytest.raises(ConfigurationError, match=says):
        AsyncClient(**arguments)


async def test_an_option_that_there_is_not_is_named(client):
    with pytest.raises(TypeError, match=r"'temprature'; did you mean 'temperature'"):
        await client.text.generate("Hi", temprature=1)
    async with client.text.session() as session:
        with pytest.raises(TypeError, match="it travels with its session"):
            await session.generate("Hi", metadata={"x-team": "a"})


async def test_many_calls_at_once(fake_server, client):
    answers = await gather(*(lambda i=i: client.text.generate(f"question {i}", request_id=f"r{i}") for i in range(32)))
    assert [answer.text for answer in answers] == ["Hello from the fake server."] * 32
    assert [answer.meta.request_id for answer in answers] == [f"r{i}" for i in range(32)]


async def test_from_env(fake_server):
    from deepseek_grpc import AsyncClient

    async with AsyncClient.from_env(fake_server.environ) as client:
        assert (await client.text.generate("Hi")).text == "Hello from the fake server."
    token = fake_server.credentials().token()
    environ = {"DEEPSEEK_GRPC_TARGET": fake_server.target, "DEEPSEEK_GRPC_TOKEN": token}
    async with AsyncClient.from_env(environ) as client:
        assert (await client.text.generate("Hi")).text == "Hello from the fake server."


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({}, "DEEPSEEK_GRPC_TARGET is not set"),
        ({"DEEPSEEK_GRPC_TARGET": "x:1", "DEEPSEEK_GRPC_CLIENT_ID": "a"}, "go together"),
        ({"DEEPSEEK_GRPC_TARGET": "x:1", "DEEPSEEK_GRPC_CERT_FILE": "a"}, "go together"),
        ({"DEEPSEEK_GRPC_TARGET": "x:1", "DEEPSEEK_GRPC_CA_FILE": "/nowhere/ca.pem"}, "cannot read '/nowhere/ca.pem'"),
        ({"DEEPSEEK_GRPC_TARGET": "two words"}, "target is 'two words'"),
    ],
)
def test_an_environment_that_does_not_fit(environ, problem):
    from deepseek_grpc import AsyncClient

    with pytest.raises(ConfigurationError, match=problem):
        AsyncClient.from_env(environ)


async def test_a_closed_client_makes_no_calls(fake_server):
    client = fake_server.async_client()
    await client.text.generate("Hi")
    await client.aclose()
    await client.aclose()
    with pytest.raises(ClosedError):
        await client.text.generate("Hi")
    with pytest.raises(ClosedError):
        client.text.stream("Hi")
    with pytest.raises(ClosedError):
        client.text.session()
    with pytest.raises(ClosedError):
        await client.text.models()
    with pytest.raises(ClosedError):
        await client.health()
    assert len(fake_server.text.requests) == 1


async def test_a_client_that_was_never_used_closes(fake_server):
    client = fake_server.async_client(credentials=StaticToken("opaque"))
    await client.aclose()
    with pytest.raises(ClosedError):
        await client.text.generate("Hi")
