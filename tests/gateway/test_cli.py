"""The command line, run as its users run it: as processes, against a scripted gateway and against `serve`."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from deepseek_grpc import JWTSigner, errors
from deepseek_grpc.cli.exits import EXITS, exit_code
from deepseek_grpc.testing import Fail, FakeServer, Reasoning, Stall

CLI = [str(Path(sys.executable).parent / "deepseek-grpc")]
# Nothing of the developer's own environment, and help as wide as it likes.
BARE = {k: v for k, v in os.environ.items() if not k.startswith("DEEPSEEK_")} | {"COLUMNS": "200", "NO_COLOR": "1"}
SECRET = "canary-0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def shared_fake():
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def fake(shared_fake):
    """The scripted gateway, without what other tests left."""
    shared_fake.text._scripts.clear()
    shared_fake.text.requests.clear()
    shared_fake.text.cancelled = 0
    return shared_fake


def finish(command, *, env=None, stdin=""):
    """Runs anything to its end."""
    return subprocess.run(
        command, env=BARE | dict(env or {}), input=stdin, capture_output=True, text=True, timeout=50, check=False
    )


def run(*args, env=None, stdin=""):
    """Runs a command to its end; no secret of its environment may show up anywhere."""
    env = dict(env or {})
    done = finish([*CLI, *args], env=env, stdin=stdin)
    secret = env.get("DEEPSEEK_GRPC_CLIENT_SECRET")
    assert not secret or secret not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@contextmanager
def started(*args, env=None, stderr=subprocess.DEVNULL, stdout=subprocess.PIPE):
    """Runs a command beside the test."""
    command = [*CLI, *args]
    with subprocess.Popen(command, env=BARE | dict(env or {}), stdout=stdout, stderr=stderr, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def serving(*args, env=None, log):
    """Runs `serve` and gives the process and what it printed until it could be called."""
    with log.open("w") as stderr, started("serve", *args, env=env, stderr=stderr) as process:
        printed = []
        for line in process.stdout:
            printed.append(line.rstrip("\n"))
            if line.startswith("listening on "):
                break
        else:
            pytest.fail(f"the gateway ended: {log.read_text()}")
        yield process, printed


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """A development gateway that made up its credential; gives the environment that it printed."""
    log = tmp_path_factory.mktemp("serve") / "log"
    with serving("--listen", "127.0.0.1:0", log=log) as (_, printed):
        yield printed


def events(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


# generate


def test_generate_prints_the_text_and_ends_the_line(fake):
    fake.text.script("Hel", "lo [b]there[/b] ", "{x} ", "漢字")
    done = run("generate", "Say hi", env=fake.environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello [b]there[/b] {x} 漢字\n", "")


def test_generate_adds_no_second_line_end(fake):
    fake.text.script("one\n")
    assert run("generate", "x", env=fake.environ).stdout == "one\n"


@pytest.mark.parametrize("streamed", [True, False])
def test_generate_passes_every_option_on(fake, streamed):
    options = ["--model", "m", "--system", "Be brief", "--max-tokens", "7", "--temperature", "0", "--top-p", "0.5"]
    options += ["--stop", "a", "--stop", "b", "--seed", "-3", "--timeout", "9"]
    done = run("generate", "Why?", *options, *([] if streamed else ["--no-stream"]), env=fake.environ)
    assert (done.returncode, done.stdout) == (0, "Hello from the fake server.\n")
    recorded = fake.text.requests[0]
    request = recorded.request
    assert recorded.streamed is streamed
    assert [(m.role, m.content) for m in request.messages] == [("system", "Be brief"), ("user", "Why?")]
    assert (request.model, request.max_tokens, request.temperature, request.top_p) == ("m", 7, 0, 0.5)
    assert (request.stop, request.seed) == (("a", "b"), -3)


def test_generate_streams_as_the_text_comes(fake):
    fake.text.script("first", Stall())
    with started("generate", "x", env=fake.environ) as process:
        assert process.stdout.read(5) == "first"  # while the rest never comes
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "\n"
        assert process.wait(30) == 130
    fake.text.wait_for_cancellations(1)


def test_generate_as_json_is_an_object_a_line(fake):
    fake.text.script(Reasoning("hm"), "a\n", "b\u2028")
    done = run("generate", "x", "--json", env=fake.environ)
    start, *pieces, end = events(done)
    assert start["type"] == "started"
    assert start["model"] == "fake"
    assert pieces == [
        {"type": "reasoning", "text": "hm"},
        {"type": "text", "text": "a\n"},
        {"type": "text", "text": "b\u2028"},
    ]
    assert (end["type"], end["finish_reason"], end["usage"]["completion_tokens"]) == ("finished", "stop", 3)
    assert end["meta"]["request_id"]


def test_generate_as_json_without_streaming_has_the_same_shape(fake):
    fake.text.script(Reasoning("hm"), "a", "b")
    reasoning, text, end = events(run("generate", "x", "--json", "--no-stream", env=fake.environ))
    assert reasoning == {"type": "reasoning", "text": "hm"}
    assert text == {"type": "text", "text": "ab"}
    assert (end["type"], end["meta"]["model"]) == ("finished", "fake")


def test_generate_reads_the_prompt_from_standard_input(fake):
    assert run("generate", "-", env=fake.environ, stdin="Two\nlines ü\n").returncode == 0
    assert fake.text.requests[0].request.messages[0].content == "Two\nlines ü"


def test_generate_refuses_input_that_is_no_text(fake):
    done = finish(["/bin/sh", "-c", f"printf '\\377' | '{CLI[0]}' generate -"], env=fake.environ)
    assert done.returncode == 2
    assert "PROMPT from standard input is no UTF-8" in done.stderr


@pytest.mark.parametrize("args", [["generate", ""], ["generate", "-"], ["generate", "x", "--temperature", "7"]])
def test_generate_refuses_what_is_wrong_before_it_calls(fake, args):
    done = run(*args, env=fake.environ, stdin="")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not fake.text.requests


def test_generate_ends_quietly_when_the_reader_goes_away(fake):
    fake.text.script(*["x" * 4096] * 64, Stall())
    with started("generate", "x", env=fake.environ, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(10) == "x" * 10
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 141
    fake.text.wait_for_cancellations(1)


def on_a_terminal(*args, env):
    """Runs a command with standard output and error on a terminal; returns the exit code and what the terminal got."""
    master, slave = pty.openpty()
    with started(*args, env=env, stdout=slave, stderr=slave) as process:
        os.close(slave)
        seen = b""
        with os.fdopen(master, "rb", buffering=0) as terminal:
            try:
                while piece := terminal.read(4096):
                    seen += piece
            except OSError:  # how Linux says that the other end is closed
                pass
        return process.wait(30), seen.decode()


def test_generate_on_a_terminal_sums_up_and_obeys_no_control_characters(fake):
    fake.text.script("a\x1b[31m", "\x9bb\x07", "\tc")
    code, seen = on_a_terminal("generate", "x", env=fake.environ)
    text, summary, _ = seen.split("\r\n")
    assert (code, text) == (0, "a[31mb\tc")
    assert summary.startswith("\x1b[2mfirst token ")
    assert summary.endswith(" tokens/s, 1 + 3 tokens, fake\x1b[0m")


def test_output_that_is_no_terminal_gets_the_text_as_it_is(fake):
    fake.text.script("a\x1b[31m", "\x07")
    assert run("generate", "x", env=fake.environ).stdout == "a\x1b[31m\x07\n"


# errors


def test_every_error_has_an_exit_code_of_the_table():
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.DeepSeekError)]
    codes = {cls.__name__: exit_code(cls("x")) for cls in classes}
    assert set(codes.values()) == {2, 3, 4, 5, 6}
    assert [name for name, code in codes.items() if code == 6] == [
        "DeepSeekError",
        "InternalError",
        "UpstreamAuthError",
        "ClosedError",
    ]


@pytest.mark.parametrize(
    ("code", "exit_"),
    [
        ("INVALID_ARGUMENT", 2),
        ("PERMISSION_DENIED", 3),
        ("NOT_FOUND", 4),
        ("RESOURCE_EXHAUSTED", 4),
        ("UNAVAILABLE", 5),
        ("INTERNAL", 6),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(fake, code, exit_):
    fake.text.script(Fail(code, "scripted\nfailure \x1b[31m", retryable=False))
    done = run("generate", "x", env=fake.environ)
    request_id = fake.text.requests[0].request.request_id
    assert (done.returncode, done.stdout) == (exit_, "")
    assert done.stderr == f"error: scripted failure [31m (request {request_id})\n"


def test_a_failure_as_json_is_an_object_on_standard_output(fake):
    fake.text.script(Fail("FAILED_PRECONDITION", "empty", reason="INSUFFICIENT_BALANCE"))
    done = run("generate", "x", "--json", env=fake.environ)
    assert (done.returncode, done.stderr) == (4, "")
    assert events(done) == [
        {
            "type": "error",
            "code": "FAILED_PRECONDITION",
            "reason": "INSUFFICIENT_BALANCE",
            "message": "empty",
            "request_id": fake.text.requests[0].request.request_id,
            "retryable": False,
            "retry_after": None,
        }
    ]


def test_a_stream_that_is_cut_keeps_what_had_come(fake):
    fake.text.script("Hel", Fail("UNAVAILABLE"))
    done = run("generate", "x", env=fake.environ)
    assert (done.returncode, done.stdout) == (5, "Hel\n")
    assert done.stderr.startswith("error: scripted failure")


def test_timeouts_reach_the_call(fake):
    fake.text.script(Stall())
    done = run("generate", "x", "--first-token-timeout", "0.2", "--json", env=fake.environ)
    assert (done.returncode, events(done)[-1]["reason"]) == (5, "FIRST_TOKEN_TIMEOUT")
    fake.text.script(Stall())
    done = run("generate", "x", "--timeout", "0.3", "--no-stream", "--json", env=fake.environ)
    assert (done.returncode, events(done)[-1]["reason"]) == (5, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("target", ["gateway.invalid:443", "127.0.0.1:1"])
def test_a_target_that_leads_nowhere(fake, target):
    done = run("generate", "x", "--target", target, "--json", env=fake.environ)
    (error,) = events(done)
    assert (done.returncode, error["code"], error["reason"]) == (5, "UNAVAILABLE", "CONNECT")
    assert target in error["message"]
    assert not fake.text.requests


def test_a_wrong_secret_is_refused_and_not_repeated(fake):
    done = run("models", env={**fake.environ, "DEEPSEEK_GRPC_CLIENT_SECRET": SECRET})
    assert done.returncode == 3


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"DEEPSEEK_GRPC_TARGET": "127.0.0.1:1", "DEEPSEEK_GRPC_CLIENT_SECRET": SECRET},
        {"DEEPSEEK_GRPC_TARGET": "127.0.0.1:1", "DEEPSEEK_GRPC_CLIENT_ID": "a", "DEEPSEEK_GRPC_CLIENT_SECRET": "short"},
    ],
)
def test_an_environment_that_is_no_configuration(env):
    done = run("models", env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["genrate"], "No such command 'genrate'"),
        (["generate"], "PROMPT"),
        (["generate", "x", "--max-tokens", "many"], "--max-tokens"),
        (["models", "--wrong"], "--wrong"),
        (["serve", "--engine", "deepseek"], "'deepseek' is unknown; one of embedded"),
        (["serve", "--config", "x.toml", "--pace", "3"], "--pace"),
        (["serve", "--pace", "0"], "pace"),
        (["serve", "--workers", "2"], "--workers"),
        (["serve", "--listen", "0.0.0.0:0"], "loopback only"),
        (["serve", "--listen", "127.0.0.1:99999"], "ports end at 65535"),
        (["serve", "--config", "/nowhere.toml"], "/nowhere.toml: cannot be read"),
        (["generate", "x", "--timeout", "nan"], "Timeouts.total"),
    ],
)
def test_bad_usage_is_one_line_and_exits_with_2(args, says):
    done = run(*args, env={"DEEPSEEK_GRPC_TARGET": "127.0.0.1:1"})
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_has_the_table_of_exit_codes():
    done = run("--help")
    assert done.returncode == 0
    for code, (meaning, _) in EXITS.items():
        assert f"{code:>4}  {meaning}" in done.stdout


def test_no_command_at_all_is_bad_usage():
    done = run()
    assert done.returncode == 2
    assert "Usage: deepseek-grpc" in done.stdout


def test_version():
    assert run("--version").stdout.startswith("deepseek-grpc 2.")


def test_without_typer_it_says_what_to_install():
    script = "import sys; sys.modules['typer'] = None; from deepseek_grpc.cli import main; main()"
    done = finish([sys.executable, "-c", script])
    assert (done.returncode, done.stdout) == (2, "")
    assert 'pip install "deepseek-grpc[cli]"' in done.stderr
    assert done.stderr.count("\n") == 1


def test_asking_imports_no_gateway():
    script = "import sys; from deepseek_grpc.cli.app import run; code = run(['--version']); print(code, *sys.modules)"
    done = finish([sys.executable, "-c", script])
    assert "deepseek_grpc.cli.serve" in done.stdout.split()
    assert not [name for name in done.stdout.split() if name.startswith("deepseek_grpc.gateway")]


# models and health


def test_models(fake):
    done = run("models", env=fake.environ)
    assert (done.returncode, done.stdout) == (0, "fake  scripted  Says what a test tells it to.\n")
    (model,) = events(run("models", "--json", env=fake.environ))
    assert (model["type"], model["id"], model["aliases"]) == ("model", "fake", [])


def test_health(fake):
    done = run("health", env=fake.environ)
    assert (done.returncode, done.stdout) == (0, "SERVING\n")
    named = run("health", "deepseek_rpc.v2.TextService", "--json", env=fake.environ)
    assert events(named) == [{"type": "health", "service": "deepseek_rpc.v2.TextService", "status": "SERVING"}]


def test_health_of_what_does_not_serve(fake):
    fake.set_serving(False, "tests.Sick")
    done = run("health", "tests.Sick", env=fake.environ)
    assert (done.returncode, done.stdout, done.stderr) == (1, "NOT_SERVING\n", "")
    assert run("health", "tests.Nobody", env=fake.environ).returncode == 4
    assert run("health", "--target", "127.0.0.1:1", env=fake.environ).returncode == 5


# token


def test_a_minted_token_opens_the_gateway_and_shows_what_is_in_it(fake):
    minted = run("token", "mint", "--lifetime", "3600", env=fake.environ)
    token = minted.stdout.rstrip("\n")
    assert minted.returncode == 0
    assert token.count(".") == 2
    assert run("models", env={"DEEPSEEK_GRPC_TARGET": fake.target, "DEEPSEEK_GRPC_TOKEN": token}).returncode == 0
    shown = run("token", "inspect", token)
    assert shown.returncode == 0
    assert shown.stdout.startswith("not verified: ")
    assert '  alg: "HS256"\n' in shown.stdout
    assert f'  iss: "{fake.client_id}"\n' in shown.stdout
    assert '  aud: "deepseek-grpc"\n' in shown.stdout
    assert "\nexpires in 59 min " in shown.stdout
    assert token.rpartition(".")[2] not in shown.stdout


def test_tokens_as_json_and_through_a_pipe():
    env = {"DEEPSEEK_GRPC_CLIENT_ID": "unused", "DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}
    (minted,) = events(run("token", "mint", "--client-id", "svc-a", "--audience", "", "--json", env=env))
    (shown,) = events(run("token", "inspect", "--json", stdin=f"{minted['token']}\n"))
    assert (shown["verified"], shown["header"]) == (False, {"alg": "HS256", "typ": "JWT"})
    assert shown["claims"]["iss"] == "svc-a"
    assert "aud" not in shown["claims"]
    assert 0 < shown["expires_in"] <= 900


def test_an_expired_token_says_for_how_long():
    token = JWTSigner("svc-a", SECRET, lifetime=60, clock=lambda: 1_000_000_000).token()
    shown = run("token", "inspect", "-", stdin=token)
    assert shown.returncode == 0
    assert shown.stdout.rstrip().endswith(" ago")


@pytest.mark.parametrize("token", ["", "opaque", "a.b.c", "e30.e30", "\x1b.\x1b.\x1b"])
def test_what_is_no_token_is_not_shown(token):
    done = run("token", "inspect", token or "-", stdin="")
    assert (done.returncode, done.stdout) == (2, "")
    assert "TOKEN is no JWT" in done.stderr


@pytest.mark.parametrize(
    ("args", "env"),
    [
        ([], {"DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}),
        (["--client-id", "a"], {}),
        (["--client-id", "a"], {"DEEPSEEK_GRPC_CLIENT_SECRET": "short-canary"}),
        (["--client-id", "a", "--lifetime", "3601"], {"DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}),
        (["--client-secret", SECRET], {}),
    ],
)
def test_a_token_cannot_be_minted(args, env):
    done = run("token", "mint", *args, env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")


# serve


def test_serve_prints_a_credential_that_works(gateway):
    *exports, listening = gateway
    script = "\n".join([*exports, f'exec "{CLI[0]}" generate "What is gRPC?" --max-tokens 5 --json'])
    done = finish(["/bin/sh", "-c", script])
    assert [line.partition("=")[0] for line in exports] == [
        "export DEEPSEEK_GRPC_TARGET",
        "export DEEPSEEK_GRPC_CLIENT_ID",
        "export DEEPSEEK_GRPC_CLIENT_SECRET",
    ]
    assert exports[0].partition("=")[2] == listening.removeprefix("listening on ")
    assert (done.returncode, done.stderr) == (0, "")
    assert events(done)[-1]["meta"]["model"] == "embedded-ngram"


def test_serve_drains_at_sigterm_and_never_prints_a_credential_it_was_given(tmp_path):
    log = tmp_path / "log"
    env = {"DEEPSEEK_GRPC_CLIENT_ID": "svc-a", "DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}
    with serving("--listen", "127.0.0.1:0", "--engine", "embedded", "--pace", "60", env=env, log=log) as (server, said):
        assert len(said) == 1
        env["DEEPSEEK_GRPC_TARGET"] = said[0].removeprefix("listening on ")
        command = ["generate", "What is gRPC?", "--max-tokens", "30", "--json"]
        with started(*command, env=env, stderr=subprocess.PIPE) as client:
            lines = [client.stdout.readline(), client.stdout.readline()]
            server.send_signal(signal.SIGTERM)
            lines += client.stdout.readlines()
            assert (client.wait(30), client.stderr.read()) == (0, "")
        assert json.loads(lines[1])["type"] == "text"
        assert json.loads(lines[-1])["usage"]["completion_tokens"] == 30
        assert server.wait(30) == 0
        assert server.stdout.read() == ""
    assert "draining" in log.read_text()
    assert SECRET not in log.read_text() + said[0]


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_at_once_when_it_is_told_twice(tmp_path, second):
    log = tmp_path / "log"
    env = {"DEEPSEEK_GRPC_CLIENT_ID": "svc-a", "DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}
    with serving("--listen", "127.0.0.1:0", "--pace", "2", env=env, log=log) as (server, said):
        env["DEEPSEEK_GRPC_TARGET"] = said[0].removeprefix("listening on ")
        # At two tokens a second it would take minutes, and the drain half of one.
        with started("generate", "What is gRPC?", "--max-tokens", "400", "--json", env=env) as client:
            lines = [client.stdout.readline(), client.stdout.readline()]
            server.send_signal(signal.SIGINT)
            while "draining" not in log.read_text():
                assert server.poll() is None
                time.sleep(0.01)
            server.send_signal(second)
            assert server.wait(20) == 0
            lines += client.stdout.readlines()
            assert client.wait(20) == 5
        assert [json.loads(lines[i])["type"] for i in (1, -1)] == ["text", "error"]
    assert "stopping at once" in log.read_text()


def test_serve_ends_at_ctrl_c_too(tmp_path):
    with serving("--listen", f"unix:{tmp_path}/gw.sock", log=tmp_path / "log") as (server, said):
        assert said[-1] == f"listening on unix:{tmp_path}/gw.sock"
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


def test_serve_with_a_file_prints_no_credential(tmp_path):
    (tmp_path / "gateway.toml").write_text(
        """
        [gateway]
        listen = "127.0.0.1:1"
        [[clients]]
        id = "svc-a"
        secret_env = "SVC_A"
        roles = ["reader"]
        [roles]
        reader = ["text.models"]
        """
    )
    options = ["--config", str(tmp_path / "gateway.toml"), "--listen", "127.0.0.1:0"]
    with serving(*options, env={"SVC_A": SECRET}, log=tmp_path / "log") as (_, said):
        assert len(said) == 1
        env = {"DEEPSEEK_GRPC_CLIENT_ID": "svc-a", "DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}
        env["DEEPSEEK_GRPC_TARGET"] = said[0].removeprefix("listening on ")
        assert run("models", env=env).stdout.startswith("embedded-ngram  embedded  ")
        assert run("generate", "x", env=env).returncode == 3
    assert SECRET not in (tmp_path / "log").read_text()


def test_serve_reports_all_that_is_wrong_with_a_file(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text('[gateway]\nlisten = 3\nworkers = 2\n[[clients]]\nid = "a"\n')
    done = run("serve", "--config", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert all(line.startswith(f"error: {file}: ") for line in lines)
    assert len(lines) == 3


def test_serve_where_somebody_listens():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot listen on" in done.stderr
