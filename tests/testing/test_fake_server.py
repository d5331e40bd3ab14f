"""What users test with: the fake server and the fixtures that pytest finds."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deepseek_grpc import Client, Finished, TextDelta, Usage, testing
from deepseek_grpc.errors import ConfigurationError, ConnectError, RateLimitError, ServiceUnavailableError
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.testing import Delay, Fail, FakeServer, Reasoning, ScriptedEngine, Stall, ToolUse
from tests.gateway.raw import channel

HELLO = "Hello from the fake server."


def test_the_example_of_the_documentation_does_what_it_says():
    lines = testing.__doc__.split("\n\n", 1)[1].splitlines()
    example = "\n".join(line for line in lines if line.startswith("    ") or not line)
    exec(textwrap.dedent(example), {"pytest": pytest, "ServiceUnavailableError": ServiceUnavailableError})


def test_scripts_are_played_in_order_and_then_the_default(fake_server, fake_client):
    fake_server.text.script("one")
    fake_server.text.script("two")
    assert [fake_client.text.generate("Hi").text for _ in range(4)] == ["one", "two", HELLO, HELLO]


def test_every_kind_of_step(fake_server, fake_client):
    end = Finished("length", Usage(1, 2, 3))
    fake_server.text.script(Reasoning("Hm"), "a", Delay(0), ToolUse("f", "{}", "c1"), ToolUse("g", "[]", "c2"), end)
    answer = fake_client.text.generate("Hi")
    assert answer.reasoning == "Hm"
    assert answer.text == "a"
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls] == [
        ("c1", "f", "{}"),
        ("c2", "g", "[]"),
    ]
    assert answer.finish_reason == "length"
    assert answer.usage == Usage(1, 2, 3)


def test_a_script_of_nothing(fake_server, fake_client):
    fake_server.text.script()
    assert fake_client.text.generate("Hi").text == ""


def test_a_failure_carries_what_it_was_given(fake_server, fake_client):
    fake_server.text.script(Fail("RESOURCE_EXHAUSTED", "slow down", "QUOTA", retry_after=700, retryable=False))
    with pytest.raises(RateLimitError) as caught:
        fake_client.text.generate("Hi")
    assert (caught.value.details, caught.value.reason, caught.value.retry_after) == ("slow down", "QUOTA", 700)


@pytest.mark.parametrize("code", ["TEAPOT", "OK", "unavailable", "", None, 14, ["UNAVAILABLE"]])
def test_a_status_that_no_call_fails_with_fails_in_the_test(code):
    with pytest.raises(ValueError, match=r"one of CANCELLED, UNKNOWN, .*UNAVAILABLE") as caught:
        Fail(code)
    assert repr(code) in str(caught.value)


@pytest.mark.parametrize(
    "step", [["a", "b"], Delay, Stall, b"x", None, 1, Reasoning(None), ToolUse("f", {}), TextDelta("x")]
)
def test_a_step_of_no_kind_fails_in_the_test(step):
    engine = ScriptedEngine()
    with pytest.raises(TypeError, match=r"^step 2 is .*steps are str, Delay\(seconds\), Stall\(\), ") as caught:
        engine.script("a", step)
    assert repr(step) in str(caught.value)
    with pytest.raises(TypeError):
        ScriptedEngine(default=("a", step))


def test_a_text_is_no_sequence_of_steps():
    with pytest.raises(TypeError, match="give a tuple of steps"):
        ScriptedEngine(default="Hello")


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "1", None])
def test_a_delay_that_is_none_fails_in_the_test(seconds):
    with pytest.raises(ValueError, match="step 1 is Delay"):
        ScriptedEngine().script(Delay(seconds))


def test_an_end_in_the_middle_fails_in_the_test():
    with pytest.raises(ValueError, match="it can only be the last"):
        ScriptedEngine().script("a", Finished("length"), "b")


@pytest.mark.parametrize(
    ("service", "names"),
    [(None, ["", "deepseek_rpc.v2.TextService"]), ("", [""]), ("tests.Another", ["tests.Another"])],
)
def test_its_health_can_be_set(fake_server, service, names):
    with channel(fake_server.target) as raw:  # a client of this project leaves a gateway that doesn't serve
        check = health_pb2_grpc.HealthStub(raw).Check
        for serving, status in ((False, "NOT_SERVING"), (True, "SERVING")):
            fake_server.set_serving(serving, service)
            found = [check(health_pb2.HealthCheckRequest(service=name), timeout=10).status for name in names]
            assert found == [health_pb2.HealthCheckResponse.ServingStatus.Value(status)] * len(names)


def test_a_client_leaves_a_server_that_does_not_serve(fake_server, fake_client):
    assert fake_client.text.generate("Hi").text == HELLO
    fake_server.set_serving(False)
    with fake_server.client() as other, pytest.raises(ServiceUnavailableError, match="isn't serving"):
        other.text.generate("Hi")
    fake_server.set_serving(True)
    with fake_server.client() as other:
        assert other.text.generate("Hi").text == HELLO


def test_a_server_that_does_not_run_has_no_health():
    with pytest.raises(RuntimeError, match="isn't running"):
        FakeServer().set_serving(False)


def test_requests_are_remembered(fake_server, fake_client):
    fake_client.text.generate("one", request_id="req-1")
    fake_client.text.stream("two").final()
    one, two = fake_server.text.wait_for_requests(2)
    assert one.request.messages[0].content == "one"
    assert one.metadata["x-request-id"] == "req-1"
    assert "authorization" not in one.metadata
    assert one.client_id == fake_server.client_id
    assert (one.streamed, one.attempt) == (False, 1)
    assert two.streamed


def test_waiting_in_vain_says_what_there_was(fake_server, fake_client):
    fake_client.text.generate("one")
    with pytest.raises(TimeoutError, match=r"1 of 2 requests arrived within 0\.01 s"):
        fake_server.text.wait_for_requests(2, timeout=0.01)
    with pytest.raises(TimeoutError, match=r"0 of 1 cancellations came within 0\.01 s"):
        fake_server.text.wait_for_cancellations(1, timeout=0.01)


def test_cancellations_are_counted(fake_server, fake_client):
    fake_server.text.script("a", Stall())
    with fake_client.text.stream("Hi") as stream:
        assert next(iter(stream.text())) == "a"
    fake_server.text.wait_for_cancellations(1)
    assert fake_server.text.cancelled == 1


def test_the_environment(fake_server):
    with Client.from_env(fake_server.environ) as client:
        assert client.text.generate("Hi").text == HELLO


def test_two_servers_beside_each_other():
    with FakeServer() as one, FakeServer() as two, one.client() as client, two.client() as other:
        one.text.script("one")
        two.text.script("two")
        assert (client.text.generate("Hi").text, other.text.generate("Hi").text) == ("one", "two")


def test_another_engine():
    with FakeServer(engine=EmbeddedEngine()) as fake, fake.client() as client:
        answer = client.text.generate("Say hello", max_tokens=8, model="embedded-ngram")
        assert answer.text
        assert answer.meta.upstream.backend == "embedded"


def test_a_server_that_does_not_run_has_no_address():
    fake = FakeServer()
    with pytest.raises(RuntimeError, match="isn't running"):
        _ = fake.target
    fake.stop()


def test_it_starts_and_stops_as_often_as_wanted():
    fake = FakeServer()
    for answer in ("one", "two"):
        with fake, fake.client() as client:
            fake.start()
            fake.text.script(answer)
            assert client.text.generate("Hi").text == answer
        fake.stop()


def test_an_address_in_use(fake_server):
    with pytest.raises(ConfigurationError, match="in use"):
        FakeServer(listen=fake_server.target).start()


def test_it_is_gone_after_the_block():
    with FakeServer() as fake:
        target = fake.target
    fake.stop()
    with Client(target) as client, pytest.raises(ConnectError):
        client.text.generate("Hi")


FILE = """
import pytest


def test_sync(fake_server, fake_client):
    fake_server.text.script("Hi")
    assert fake_client.text.generate("Say hi").text == "Hi"


@pytest.mark.asyncio
async def test_async(fake_server):
    async with fake_server.async_client() as client:
        assert (await client.text.generate("Say hi")).text == "Hello from the fake server."
"""


def test_pytest_finds_the_fixtures_by_itself(tmp_path):
    (tmp_path / "test_mine.py").write_text(FILE)
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-W",
            "error",
            "-o",
            "asyncio_default_fixture_loop_scope=function",
            "-p",
            "no:cacheprovider",
            "test_mine.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 passed" in run.stdout


def test_pytest_names_the_fixtures(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--fixtures", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "fake_server" in run.stdout
    assert "A gateway that says what the test scripts" in run.stdout
    assert "fake_client" in run.stdout


def test_a_run_that_uses_none_of_them_does_not_load_the_gateway(tmp_path):
    (tmp_path / "test_mine.py").write_text(
        "import sys\n\n\ndef test_it():\n"
        "    assert not [name for name in sys.modules if name.startswith('deepseek_grpc.gateway')]\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
