"""Every example, run as a reader would run it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deepseek_grpc import assistant, tool_result, user
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.testing import Fail, FakeServer, Stall, ToolUse

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
BARE = {k: v for k, v in os.environ.items() if not k.startswith("DEEPSEEK_")}


@pytest.fixture(scope="module")
def environ():
    with FakeServer(engine=EmbeddedEngine()) as server:
        yield server.environ


def run(*args, env=None, cwd=None):
    return subprocess.run(
        [sys.executable, *args],
        env=BARE | dict(env or {}),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


SAYS = {
    "generate": r"\S.*\n\[embedded-ngram, (stop|length), \d+ tokens\]\n",
    "stream": r"\S.*\n\[embedded-ngram, (stop|length), \d+ tokens\]\n",
    "async_stream": r"\[embedded-ngram answers\]\n\S.*\n\[(cancelled|stop)\]\n",
    "session": r"\S.*\n"
    + "".join(rf"What is {x}\? \S.*\n" for x in ("a deadline", "metadata", "a channel", "keepalive")),
    "barge_in": r"(> \S.*\n\S.*\n){3}",
    "agent": r"(> \S.*\n  get_(weather|time) \{.*\} -> \{.*\}\n\S.*\n){2}",
    "fan_out": r"1,000 answers, 0 failures, [\d,]+ tokens in [\d.]+ s\n[\d,]+ answers and [\d,]+ tokens per second\n",
}
TELLS = {"fan_out": "".join(f"\n{done:,} of 1,000" for done in range(10, 1001, 10)) + "\n"}
"""What an example says on standard error, if anything; carriage returns are read as new lines."""


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*SAYS, "demo"}


@pytest.mark.parametrize("name", SAYS)
def test_an_example(name, environ):
    done = run(EXAMPLES / f"{name}.py", env=environ)
    assert (done.returncode, done.stderr) == (0, TELLS.get(name, ""))
    assert re.fullmatch(SAYS[name], done.stdout)


def test_barge_in_stops_the_model_and_tells_it_what_it_had_said():
    with FakeServer() as fake:
        first = [f"{number} " for number in range(1, 9)]
        second = [f"{number} " for number in range(1, 13)]
        fake.text.script(*first, Stall())  # without the cancellation, the example would wait here
        fake.text.script(*second, Stall())
        done = run(EXAMPLES / "barge_in.py", env=fake.environ)
        assert (done.returncode, done.stderr) == (0, "")
        said = [line for line in done.stdout.splitlines() if not line.startswith(">")]
        assert said == ["".join(first) + " -", "".join(second) + " -", "Hello from the fake server."]
        fake.text.wait_for_cancellations(2)
        assert fake.text.requests[2].request.messages == (
            user("What is bidirectional streaming?"),
            assistant("".join(first)),
            user("No, wait: what is cancellation?"),
            assistant("".join(second)),
            user("And what is a deadline?"),
        )


def test_the_agent_answers_every_call_also_the_wrong_ones():
    with FakeServer() as fake:
        fake.text.script(
            ToolUse("get_weather", '{"city": "Oslo"}', "a"),
            ToolUse("get_weather", '{"city": "Atlantis"}', "b"),
            ToolUse("launch", "{}", "c"),
        )
        fake.text.script("Cold.")
        done = run(EXAMPLES / "agent.py", env=fake.environ)
        assert (done.returncode, done.stderr) == (0, "")
        asked = fake.text.requests[1].request.messages
        assert [message.role for message in asked] == ["user", "assistant", "tool", "tool", "tool"]
        calls = asked[1].tool_calls
        assert asked[2] == tool_result(calls[0], '{"city": "Oslo", "celsius": -7}')
        assert "city" in asked[3].content
        assert asked[4] == tool_result(calls[2], "there is no tool 'launch'")
        assert [message.role for message in fake.text.requests[2].request.messages[5:]] == ["assistant", "user"]


def test_the_agent_gives_up_on_a_model_that_only_calls():
    with FakeServer() as fake:
        for _ in range(6):
            fake.text.script(ToolUse("get_time", '{"city": "Bern"}'))
        done = run(EXAMPLES / "agent.py", env=fake.environ)
        assert (done.returncode, done.stderr) == (1, "the model still calls tools after 5 steps\n")


def test_fan_out_keeps_the_others_when_some_fail():
    with FakeServer() as fake:
        for _ in range(2):
            fake.text.script(Fail("INVALID_ARGUMENT", "not this one", reason="CONTENT_RISK"))
        done = run(EXAMPLES / "fan_out.py", env=fake.environ)
        assert done.returncode == 0
        assert done.stdout.startswith("998 answers, 2 failures, 5,988 tokens in ")
        assert len(re.findall(r"^What is .+: not this one", done.stderr, re.MULTILINE)) == 2


def test_the_demo_runs_from_anywhere_and_again(tmp_path):
    for _ in range(2):
        done = run(EXAMPLES / "demo.py", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "It is no DeepSeek model." in done.stdout
        assert re.findall(r"^=== (\w+)", done.stdout, re.MULTILINE) == ["AsyncClient", "Client", "AsyncSession"]
        summary = r"\[first token after [\d.]+ ms, \d+ tokens/s; usage: \d+ prompt \+ \d+ completion tokens\]\n"
        assert len(re.findall(summary, done.stdout)) == 4
        assert len(re.findall(r"^[AB] \| \S", done.stdout, re.MULTILINE)) >= 4


def test_the_demo_says_why_it_failed():
    # A secret of five bytes: the gateway refuses to start with it.
    done = run("-c", "import demo; demo.secrets.token_urlsafe = lambda size: 'short'; demo.main()", cwd=EXAMPLES)
    assert done.returncode == 1
    assert "The gateway's standard error:\nerror: DEEPSEEK_GRPC_CLIENT_SECRET has 5 bytes" in done.stderr
    assert "the demo failed: the gateway ended before it could be called" in done.stderr
    assert "Traceback" not in done.stderr
