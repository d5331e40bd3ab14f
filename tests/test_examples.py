"""Every example, run as a reader would run it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.testing import FakeServer

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
}


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*SAYS, "demo"}


@pytest.mark.parametrize("name", SAYS)
def test_an_example(name, environ):
    done = run(EXAMPLES / f"{name}.py", env=environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(SAYS[name], done.stdout)


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
