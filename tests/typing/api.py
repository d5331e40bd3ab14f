"""The public interface as a type checker sees it: never run, only checked under mypy's strict mode.

What has to be accepted says what it gives with `assert_type`; what has to be refused carries a `type: ignore` with its
code, and `warn_unused_ignores` fails when it is not refused any more.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, assert_never, assert_type

import grpc

import deepseek_grpc
from deepseek_grpc import (
    API_VERSION,
    TLS,
    UNSET,
    AccountBalance,
    AsyncClient,
    AsyncSession,
    AsyncTextStream,
    AuditLog,
    Balance,
    CallRecord,
    Client,
    ClientConfig,
    ClientOptions,
    CompleteOptions,
    Completion,
    ContentPart,
    DeepSeekError,
    Event,
    FilePart,
    Finished,
    GenerateOptions,
    ImagePart,
    JWTSigner,
    Keepalive,
    Message,
    Meta,
    Model,
    OAuth2ClientCredentials,
    Observer,
    Prompt,
    ReasoningDelta,
    ResponseFormat,
    Retry,
    Secret,
    Session,
    Started,
    StaticToken,
    TextDelta,
    TextPart,
    TextStream,
    Timeouts,
    TokenLogprob,
    TokenSource,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    Upstream,
    Usage,
    assistant,
    errors,
    json_object,
    json_schema,
    system,
    tool_result,
    user,
)
from deepseek_grpc.audit import redact
from deepseek_grpc.local import LocalGateway
from deepseek_grpc.testing import (
    Delay,
    Fail,
    FakeServer,
    Reasoning,
    RecordedCompletion,
    RecordedRequest,
    ScriptedEngine,
    Stall,
    ToolUse,
)
from deepseek_grpc.types import FimRequest, GenerateRequest, HealthStatus, Unset


def clients() -> None:
    Client("127.0.0.1:50051")
    Client("dns:///gw:443", credentials=JWTSigner("id", "secret"), config=ClientConfig())
    Client("dns:///gw:443", credentials="a token")
    Client("dns:///gw:443", credentials=StaticToken("a token"))
    Client("dns:///gw:443", credentials=None, config=None)
    assert_type(Client.from_env(), Client)
    assert_type(Client.from_env({"DEEPSEEK_GRPC_TARGET": "x"}, config=ClientConfig()), Client)
    assert_type(AsyncClient.from_env(), AsyncClient)
    AsyncClient("127.0.0.1:50051", credentials=JWTSigner("id", b"secret", algorithm="ES256"))
    Client()  # type: ignore[call-arg]
    Client("gw:443", "token")  # type: ignore[call-arg]
    Client("gw:443", credentials=5)  # type: ignore[arg-type]
    Client("gw:443", config={})  # type: ignore[arg-type]
    Client("gw:443", insecure=True)  # type: ignore[call-arg]


def clients_with_options(options: ClientOptions) -> None:
    Client("gw:443", max_concurrency=64, observers=[AuditLog("x")], wait_for_ready=True, metadata={"x-team": "a"})
    Client("gw:443", credentials=Secret("a token"), config=ClientConfig(), max_concurrency=None, tls=TLS("ca.pem"))
    Client("gw:443", timeouts=Timeouts(total=5), retry=Retry(attempts=1), keepalive=Keepalive(interval=20))
    Client("gw:443", token_delivery="metadata", max_message_bytes=1024, reconnect_backoff=(0.1, 1))
    AsyncClient("gw:443", **options)
    AsyncClient.from_env({}, observers=(AuditLog("x"),), wait_for_ready=False)
    assert_type(Client.from_env(max_concurrency=64), Client)
    assert_type(AsyncClient.from_env(**options), AsyncClient)
    given: ClientOptions = {"max_concurrency": 64, "metadata": {}, "tls": True}
    given["observers"] = [AuditLog("x")]
    given["max_concurency"] = 64  # type: ignore[typeddict-unknown-key]
    given["max_concurrency"] = "64"  # type: ignore[typeddict-item]
    Client("gw:443", max_concurency=64)  # type: ignore[call-arg]
    Client("gw:443", max_concurrency=0.5)  # type: ignore[arg-type]
    Client("gw:443", observers=AuditLog("x"))  # type: ignore[arg-type]
    Client("gw:443", observers=["x"])  # type: ignore[list-item]
    Client("gw:443", metadata={"x-team": 5})  # type: ignore[dict-item]
    Client("gw:443", wait_for_ready="yes")  # type: ignore[arg-type]
    Client("gw:443", tls="ca.pem")  # type: ignore[arg-type]
    Client("gw:443", timeouts=5)  # type: ignore[arg-type]
    AsyncClient("gw:443", token_delivery="header")  # type: ignore[arg-type]
    AsyncClient.from_env(max_concurency=64)  # type: ignore[call-arg]
    AsyncClient.from_env(retry=3)  # type: ignore[arg-type]


class MyTokens:
    """Anything with a token is a source."""

    def token(self) -> str:
        return "mine"


class NoTokens:
    """And nothing else is."""

    def token(self) -> int:
        return 5


def credentials(source: TokenSource) -> None:
    assert_type(source.token(), str)
    credentials(MyTokens())
    credentials(StaticToken("t"))
    credentials(JWTSigner("id", "secret", audience=None, lifetime=60, key_id="k", clock=lambda: 0.0))
    credentials(NoTokens())  # type: ignore[arg-type]
    JWTSigner("id", "secret", algorithm="HS512")  # type: ignore[arg-type]
    JWTSigner("id", "secret", "HS256")  # type: ignore[call-arg]
    JWTSigner("id", Secret("secret"))
    JWTSigner("id", 5)  # type: ignore[arg-type]
    credentials(OAuth2ClientCredentials("https://login.example.com/token", "id", "secret"))
    fetched = OAuth2ClientCredentials(
        *("https://login.example.com/token", "id"),
        Secret(b"secret"),
        scope="a b",
        audience="gw",
        auth="body",
        ca_file="ca.pem",
        timeout=2.5,
        extra={"resource": "x"},
        clock=lambda: 0.0,
    )
    assert_type(fetched.token(), str)
    assert_type(fetched.cached(), str | None)
    fetched.invalidate(fetched.token())
    Client("gw:443", credentials=fetched)
    OAuth2ClientCredentials("https://login.example.com/token", "id")  # type: ignore[call-arg]
    OAuth2ClientCredentials("https://login.example.com/token", "id", None)  # type: ignore[arg-type]
    OAuth2ClientCredentials("https://login.example.com/token", "id", "s", auth="header")  # type: ignore[arg-type]
    OAuth2ClientCredentials("https://login.example.com/token", "id", "s", scope=["a"])  # type: ignore[arg-type]
    OAuth2ClientCredentials("https://login.example.com/token", "id", "s", extra={"a": 1})  # type: ignore[dict-item]


def secrets(secret: Secret) -> None:
    assert_type(secret.reveal(), bytes)
    assert_type(len(secret), int)
    StaticToken(Secret(secret))
    Secret(5)  # type: ignore[arg-type]
    Secret()  # type: ignore[call-arg]
    _: str = secret  # type: ignore[assignment]
    _ = secret.value  # type: ignore[attr-defined]


class MyObserver:
    """Anything that is told of starts and ends is an observer."""

    def started(self, call: CallRecord) -> None:
        assert_type(call.excerpt(50), str)
        assert_type(call.started_at, float)

    def ended(self, call: CallRecord) -> None:
        assert_type(call.method + call.target + call.request_id + call.model, str)
        assert_type(call.code, grpc.StatusCode | None)
        assert_type(call.seconds, float | None)
        assert_type(call.first_content_seconds, float | None)
        assert_type(call.error, BaseException | None)
        assert_type(call.attempts, int)
        assert_type(call.usage, Usage | None)
        _ = call.prompt  # type: ignore[attr-defined]


class HalfAnObserver:
    """And nothing else is."""

    def started(self, call: CallRecord) -> None:
        """Is told of starts alone."""


class WrongObserver(HalfAnObserver):
    """Takes something else."""

    def ended(self, call: str) -> None:
        """Is told of ends, but not like this."""


def observers(log: Observer) -> None:
    Client("gw:443", observers=[log, MyObserver(), AuditLog("x", prompts=True)])
    ClientConfig(observers=(MyObserver(), AuditLog("x")))
    assert_type(ClientConfig().observers, Sequence[Observer])
    assert_type(redact("x"), str)
    Client("gw:443", observers=[HalfAnObserver()])  # type: ignore[list-item]
    Client("gw:443", observers=[WrongObserver()])  # type: ignore[list-item]
    AuditLog()  # type: ignore[call-arg]
    AuditLog(5)  # type: ignore[arg-type]
    AuditLog("x", True)  # type: ignore[call-arg]


def configs() -> None:
    config = ClientConfig(
        timeouts=Timeouts(connect=1, first_token=2.5, idle=None, total=UNSET),
        retry=Retry(attempts=2, initial_backoff=0.1, max_backoff=1, multiplier=2, max_tokens=10, token_ratio=0.1),
        keepalive=Keepalive(interval=20, timeout=5),
        tls=TLS(ca_file="ca.pem", cert_file="c.pem", key_file="k.pem", server_name="gw"),
        token_delivery="metadata",
        metadata={"x-team": "a"},
        wait_for_ready=True,
        max_message_bytes=1024,
        reconnect_backoff=(0.1, 1),
        max_concurrency=64,
        observers=[AuditLog("x")],
    )
    assert_type(config.max_concurrency, int | None)
    assert_type(config.timeouts, Timeouts)
    assert_type(config.timeouts.total, float | Unset | None)
    assert_type(config.tls, TLS | bool | Unset)
    assert_type(config.token_delivery, Literal["call", "metadata"])
    assert_type(config.metadata, Mapping[str, str])
    assert_type(config.service_config(), str)
    assert_type(config.channel_options(), list[tuple[str, Any]])
    assert_type(Timeouts(total=1).over(Timeouts.defaults()), Timeouts)
    assert_type(API_VERSION.partition("."), tuple[str, str, str])
    ClientConfig(tls=False)
    ClientConfig(tls="ca.pem")  # type: ignore[arg-type]
    ClientConfig(timeouts=5)  # type: ignore[arg-type]
    ClientConfig(token_delivery="header")  # type: ignore[arg-type]
    ClientConfig(speed=11)  # type: ignore[call-arg]
    Timeouts(total="5")  # type: ignore[arg-type]
    Timeouts(read=5)  # type: ignore[call-arg]
    Retry(attempts=2.5)  # type: ignore[arg-type]
    config.wait_for_ready = False  # type: ignore[misc]
    config.retry.attempts = 5  # type: ignore[misc]


def conversations(part: ContentPart) -> None:
    assert_type(system("Be brief", name="x"), Message)
    assert_type(user([TextPart("What is this?"), ImagePart("https://x", detail="low"), FilePart("f1")]), Message)
    assert_type(user(part.text) if isinstance(part, TextPart) else assistant(), Message)
    call = ToolCall("call_1", "f", "{}")
    assert_type(assistant("Hm", prefix=True, reasoning_content=None, tool_calls=[call], name="x"), Message)
    assert_type(tool_result(call, "21"), Message)
    assert_type(tool_result("call_1", "21"), Message)
    message = Message("user", "Hi")
    assert_type(message.role, Literal["system", "user", "assistant", "tool"])
    assert_type(message.content, str | Sequence[ContentPart])
    assert_type(message.reasoning_content, str | None)
    assert_type(message.tool_calls, tuple[ToolCall, ...])
    message.content = "Ho"  # type: ignore[misc]
    Message("robot", "Hi")  # type: ignore[arg-type]
    user(5)  # type: ignore[arg-type]
    user(["Hi"])  # type: ignore[list-item]
    system("Hi", "name")  # type: ignore[call-arg]
    tool_result(call)  # type: ignore[call-arg]
    prompts: list[Prompt] = ["Hi", message, [message], (message,)]
    prompts.append(5)  # type: ignore[arg-type]
    prompts.append([{"role": "user", "content": "Hi"}])  # type: ignore[list-item]


def options() -> GenerateOptions:
    schema: Mapping[str, Any] = {"type": "object"}
    return {
        "model": "deepseek-flash",
        "system_message": "Be brief",
        "max_tokens": 64,
        "temperature": 0,
        "top_p": 0.5,
        "stop": ["END"],
        "frequency_penalty": 0.0,
        "presence_penalty": None,
        "seed": 7,
        "response_format": json_object,
        "output": dict[str, int],
        "thinking": True,
        "reasoning_effort": "high",
        "tools": [Tool("f", "Does it.", schema, strict=True), Tool("g", parameters="{}")],
        "tool_choice": ToolChoice(function="f"),
        "logprobs": True,
        "top_logprobs": 3,
        "user_id": "u1",
        "extra": {"top_k": 5},
    }


def complete_options() -> CompleteOptions:
    return {
        "model": "deepseek-flash",
        "max_tokens": 64,
        "temperature": 0,
        "top_p": None,
        "stop": "END",
        "frequency_penalty": 0.5,
        "presence_penalty": 0,
        "seed": 7,
        "echo": True,
        "logprobs": 3,
        "user_id": "u1",
        "extra": {"top_k": 5},
    }


def wrong_complete_options(client: Client) -> None:
    client.text.complete("x", suffix="y", stop=["END"], echo=None, timeout=None, metadata={}, request_id="r1")
    client.text.complete([user("x")])  # type: ignore[arg-type]
    client.text.complete("x", "y")  # type: ignore[call-arg]
    client.text.complete("x", suffix=None)
    client.text.complete("x", logprobs="3")  # type: ignore[arg-type]
    client.text.complete("x", tools=[])  # type: ignore[call-arg]
    client.text.stream_complete("x", sufix="y")  # type: ignore[call-arg]
    client.text.stream_complete("x", echo="yes")  # type: ignore[arg-type]
    client.text.balance("USD")  # type: ignore[call-arg, arg-type]


def balances(account: AccountBalance) -> None:
    assert_type(account.available, bool)
    assert_type(account.balances, tuple[Balance, ...])
    for balance in account.balances:
        assert_type(balance.currency + balance.total + balance.granted + balance.topped_up, str)
    account.available = True  # type: ignore[misc]


def wrong_options(client: Client) -> None:
    client.text.generate("Hi", stop="END", tool_choice="auto", response_format=json_schema("{}"))
    client.text.generate("Hi", model=None, temperature=None, tools=None)
    client.text.generate("Hi", temperature="0.7")  # type: ignore[arg-type]
    client.text.generate("Hi", max_tokens=0.5)  # type: ignore[arg-type]
    client.text.generate("Hi", stop=5)  # type: ignore[arg-type]
    client.text.generate("Hi", thinking="disabled")  # type: ignore[arg-type]
    client.text.generate("Hi", tools=[{"name": "f"}])  # type: ignore[list-item]
    client.text.generate("Hi", response_format="json_object")  # type: ignore[arg-type]
    client.text.generate("Hi", temprature=0.7)  # type: ignore[call-arg]
    client.text.generate("Hi", "deepseek-flash")  # type: ignore[call-arg, arg-type]
    client.text.generate(5)  # type: ignore[arg-type]
    client.text.generate(prompt="Hi", timeout="5")  # type: ignore[arg-type]
    client.text.generate("Hi", metadata=[("x", "y")])  # type: ignore[arg-type]
    client.text.generate("Hi", request_id=5)  # type: ignore[arg-type]
    client.text.stream("Hi", stream=True)  # type: ignore[call-arg]
    ResponseFormat("xml")  # type: ignore[arg-type]
    ToolChoice("maybe")  # type: ignore[arg-type]
    Tool()  # type: ignore[call-arg]


def answers(answer: Completion) -> None:
    assert_type(answer.text, str)
    assert_type(answer.finish_reason, str)
    assert_type(answer.reasoning, str | None)
    assert_type(answer.tool_calls, tuple[ToolCall, ...])
    assert_type(answer.logprobs, tuple[TokenLogprob, ...])
    assert_type(answer.message, Message)
    assert_type(answer.parsed, Any)
    assert_type(answer.usage, Usage)
    assert_type(answer.usage.total_tokens, int)
    assert_type(answer.usage.reasoning_tokens, int | None)
    assert_type(answer.meta, Meta)
    assert_type(answer.meta.request_id, str)
    assert_type(answer.meta.upstream, Upstream)
    assert_type(answer.meta.upstream.attempts, int)
    assert_type(answer.meta.upstream.cache_hit, bool)
    for logprob in answer.logprobs:
        assert_type(logprob.logprob, float)
        assert_type(logprob.top, tuple[TokenLogprob, ...])
    answer.text = "x"  # type: ignore[misc]
    answer.choices[0]  # type: ignore[attr-defined]


def outputs(client: Client) -> None:
    """A type of any kind: a class, an alias, a union."""
    typed: Usage = client.text.generate("Hi", output=Usage).parsed
    assert_type(typed, Usage)
    client.text.generate("Hi", output=list[int] | None, response_format=json_object)
    client.text.stream("Hi", output=Literal["yes", "no"])
    client.text.generate_many(["Hi"], output=None)
    client.text.generate("Hi", outputs=Usage)  # type: ignore[call-arg]


def tool_calls(tool: Tool, answer: Completion) -> None:
    for call in answer.tool_calls:
        assert_type(tool.parse(call), dict[str, Any])
    tool.parse("{}")  # type: ignore[arg-type]


def on_event(event: Event) -> str:
    """Every kind of event, and no other: a new one has to be an error here."""
    match event:
        case Started(id=answer_id, model=model):
            assert_type(answer_id, str)
            return model
        case TextDelta(text, logprobs):
            assert_type(logprobs, tuple[TokenLogprob, ...])
            return text
        case ReasoningDelta(text):
            return text
        case ToolCallDelta(index, call_id, name, arguments):
            assert_type(index, int)
            return call_id + name + arguments
        case Finished(reason, usage):
            assert_type(usage, Usage)
            return reason
        case _:
            assert_never(event)


def on_some_events(event: Event) -> str:
    match event:
        case TextDelta() | ReasoningDelta():
            return event.text
        case Started() | Finished():
            return ""
        case _:
            assert_never(event)  # type: ignore[arg-type]


def sync_calls(client: Client) -> None:
    assert_type(client.text.generate("Hi"), Completion)
    assert_type(client.text.generate([system("Be brief"), user("Why?")], timeout=5, **options()), Completion)
    assert_type(client.text.generate("Hi", timeout=None, metadata={"x": "y"}, request_id="r1"), Completion)
    assert_type(client.text.generate("Hi", timeout=Timeouts(total=5)), Completion)
    assert_type(client.text.generate_many(["Hi"]), list[Completion | DeepSeekError])
    assert_type(client.text.models(timeout=5), list[Model])
    assert_type(client.health(), HealthStatus)
    assert_type(client.health("deepseek_rpc.v2.TextService", timeout=1.5), HealthStatus)
    client.warm()
    client.warm(timeout=Timeouts(total=5))
    client.warm(timeout="5")  # type: ignore[arg-type]
    assert_type(client.text.complete("x"), Completion)
    assert_type(client.text.complete("x", suffix="y", timeout=5, **complete_options()), Completion)
    assert_type(client.text.balance(timeout=5, metadata={"x": "y"}, request_id="r1"), AccountBalance)
    with client.text.stream_complete("x", suffix="y", timeout=5, **complete_options()) as filled:
        assert_type(filled, TextStream)
        assert_type(filled.final(), Completion)
    with client.text.stream("Hi", timeout=Timeouts(first_token=2), **options()) as stream:
        assert_type(stream, TextStream)
        assert_type(stream.request_id, str)
        for event in stream:
            assert_type(event, Started | TextDelta | ReasoningDelta | ToolCallDelta | Finished)
        assert_type(stream.text(), Iterator[str])
        assert_type(stream.final(), Completion)
        stream.cancel()
        stream.close()
    with client.text.session(metadata={"x": "y"}, request_id="r1") as session:
        assert_type(session, Session)
        assert_type(session.session_id, str)
        assert_type(session.generate("Hi", timeout=5, **options()), Completion)
        with session.stream("Hi") as turn:
            assert_type(turn, TextStream)
    with client as same:
        assert_type(same, Client)
    client.close()


async def async_calls(client: AsyncClient) -> None:
    assert_type(await client.text.generate("Hi"), Completion)
    assert_type(await client.text.generate([user("Why?")], timeout=Timeouts(total=5), **options()), Completion)
    assert_type(await client.text.generate_many(["Hi"]), list[Completion | DeepSeekError])
    assert_type(await client.text.models(), list[Model])
    assert_type(await client.health(), HealthStatus)
    await client.warm()
    await client.warm(timeout=2.5)
    assert_type(await client.text.complete("x", suffix="y", **complete_options()), Completion)
    assert_type(await client.text.balance(), AccountBalance)
    async with client.text.stream_complete("x", suffix="y", request_id="r1", **complete_options()) as filled:
        assert_type(filled, AsyncTextStream)
        assert_type(await filled.final(), Completion)
    async with client.text.stream("Hi", timeout=5, request_id="r1", metadata={}, **options()) as stream:
        assert_type(stream, AsyncTextStream)
        async for event in stream:
            assert_type(event, Started | TextDelta | ReasoningDelta | ToolCallDelta | Finished)
        async for piece in stream.text():
            assert_type(piece, str)
        assert_type(await stream.final(), Completion)
        await stream.cancel()
        await stream.aclose()
    async with client.text.session() as session:
        assert_type(session, AsyncSession)
        answer = await session.generate("Hi")
        assert_type(answer, Completion)
        assert_type(await session.generate("Hi", parent=answer), Completion)
        assert_type(await session.complete("a", suffix="b"), Completion)
        assert_type(session.stream_complete("a"), AsyncTextStream)
        async with session.stream("Hi", parent=answer, on_interrupt="raise", **options()) as turn:
            assert_type(turn.so_far(), Completion | None)
            assert_type(turn, AsyncTextStream)
        await session.aclose()
    async with client as same:
        assert_type(same, AsyncClient)
    await client.aclose()


async def mixed_up(client: Client, async_client: AsyncClient) -> None:
    client.text.generate("Hi").text.upper()
    _ = async_client.text.generate("Hi").text  # type: ignore[attr-defined]
    await client.text.generate("Hi")  # type: ignore[misc]
    for _ in async_client.text.stream("Hi"):  # type: ignore[attr-defined]
        pass
    async for _ in client.text.stream("Hi"):  # type: ignore[attr-defined]
        pass
    with async_client:  # type: ignore[attr-defined]
        pass
    async with client:  # type: ignore[attr-defined]
        pass
    async_client.close()  # type: ignore[attr-defined]
    client.aclose()  # type: ignore[attr-defined]


def failures(client: Client) -> None:
    try:
        client.text.generate("Hi")
    except (errors.StreamInterruptedError, errors.IdleTimeoutError) as cut:
        assert_type(cut.partial, str)
    except errors.InvalidRequestError as bad:
        assert_type(bad.field, str)
    except errors.OutputError as misfit:
        assert_type(misfit.text, str)
    except errors.RateLimitError as limited:
        assert_type(limited.retry_after, float | None)
    except DeepSeekError as error:
        assert_type(error.partial, str)
        assert_type(error.code, grpc.StatusCode)
        assert_type(error.details, str)
        assert_type(error.reason, str)
        assert_type(error.request_id, str)
        assert_type(error.attempts, int)
        assert_type(error.retryable, bool)
        assert_type(error.metadata, dict[str, str])
        _ = error.status  # type: ignore[attr-defined]
    as_timeout: TimeoutError = errors.DeadlineExceededError("x")
    as_value: ValueError = errors.InvalidRequestError("x")
    as_timeout = as_value  # type: ignore[assignment]
    raise as_timeout


def fakes() -> None:
    with FakeServer(permissions=["text.*"], listen="127.0.0.1:0") as fake:
        assert_type(fake, FakeServer)
        assert_type(fake.text, ScriptedEngine)
        fake.text.script("Hel", Delay(0.2), Reasoning("Hm"), ToolUse("f", "{}"), Finished("stop"), Stall())
        fake.text.script(Fail("UNAVAILABLE", "down", reason="R", retry_after=1.5, retryable=False))
        fake.text.script(5)  # type: ignore[arg-type]
        assert_type(fake.text.requests, list[RecordedRequest])
        assert_type(fake.text.requests[0].request, GenerateRequest)
        assert_type(fake.text.wait_for_requests(1, timeout=5), list[RecordedRequest])
        assert_type(fake.text.completions, list[RecordedCompletion])
        assert_type(fake.text.completions[0].request, FimRequest)
        fake.text.account = AccountBalance(available=False, balances=(Balance("USD", "0.00"),))
        assert_type(fake.client(), Client)
        assert_type(fake.client(max_concurrency=1, observers=[AuditLog("x")]), Client)
        fake.client(max_concurency=1)  # type: ignore[call-arg]
        assert_type(fake.async_client(credentials=None, config=ClientConfig()), AsyncClient)
        assert_type(fake.credentials(), TokenSource)
        assert_type(fake.environ, Mapping[str, str])
        assert_type(fake.target, str)


def local_gateways() -> None:
    with LocalGateway(pace=40) as gateway:
        assert_type(gateway, LocalGateway)
        assert_type(gateway.client(max_concurrency=64), Client)
        assert_type(gateway.async_client(timeouts=Timeouts(total=5), wait_for_ready=True), AsyncClient)
        assert_type(gateway.credentials(), TokenSource)
        assert_type(gateway.target, str)
        gateway.client(max_concurency=64)  # type: ignore[call-arg]
        gateway.async_client(max_concurrency="64")  # type: ignore[arg-type]
    LocalGateway(speed=40)  # type: ignore[call-arg]
    LocalGateway(engine="embedded")  # type: ignore[arg-type]


def no_such_thing() -> None:
    _ = deepseek_grpc.ChatCompletion  # type: ignore[attr-defined]
