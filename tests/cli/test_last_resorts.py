"""What the command line does where something is missing or wrong that it can't foresee."""

import base64
import io
import json
from contextlib import redirect_stdout

import jwt
import pytest

from deepseek_grpc import Client
from deepseek_grpc.cli import app
from deepseek_grpc.testing import Reasoning
from tests.cli.running import CLI, SECRET, events, finish, on_a_terminal, run_here


def test_a_defect_is_named_without_its_text(fake, monkeypatch):
    def broken(*args, **options):
        raise KeyError("canary-text")

    monkeypatch.setattr(Client, "from_env", broken)
    done = run_here("models", "--json", env=fake.environ)
    assert (done.returncode, done.stderr) == (6, "")
    (error,) = events(done)
    assert error["reason"] == "CLIENT_DEFECT"
    assert "KeyError at test_last_resorts.py:" in error["message"]
    assert "canary" not in done.stdout


def test_nobody_takes_the_output(fake):
    done = finish(["sh", "-c", 'exec "$@" >&-', "sh", *CLI, "models"], env=fake.environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_output_that_is_no_file():
    output = io.StringIO()
    with redirect_stdout(output):
        assert app.run(["--version"]) == 0
    assert output.getvalue().startswith("deepseek-grpc ")


@pytest.mark.parametrize("claims", [{"iss": "a"}, {"iss": "a", "exp": True}, {"iss": "a", "exp": None}], ids=str)
def test_a_token_that_never_ends(claims):
    token = jwt.encode({"iss": "a"}, SECRET)
    head, _, signature = token.split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    shown = run_here("token", "inspect", f"{head}.{body}.{signature}")
    assert shown.returncode == 0
    assert shown.stdout.endswith("no expiry: `exp` is missing, or no number\n")


def test_a_terminal_shows_the_reasoning_too(fake):
    fake.text.script(Reasoning("so it is"), "Hi")
    code, seen = on_a_terminal("generate", "x", "--thinking", env=fake.environ)
    assert code == 0
    assert seen.index("so it is") < seen.index("Hi")
