"""What can go wrong, and what every command does about it."""

import sys

import pytest

from deepseek_grpc import errors
from deepseek_grpc.cli.exits import EXITS, exit_code
from deepseek_grpc.testing import Fail, Stall
from tests.cli.running import CLI, SECRET, events, finish, run, run_here


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
            "advice": errors.InsufficientBalanceError.advice,
            "request_id": fake.text.requests[0].request.request_id,
            "retryable": False,
            "retry_after": None,
        }
    ]


def test_a_stream_that_is_cut_keeps_what_had_come(fake):
    fake.text.script("Hel", Fail("UNAVAILABLE"))
    fake.text.script(Fail("UNIMPLEMENTED", "no prefixes"))
    done = run("generate", "x", env=fake.environ)
    assert (done.returncode, done.stdout) == (5, "Hel\n")
    assert done.stderr.startswith("error: scripted failure, and the answer couldn't be continued: no prefixes")


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


def test_asking_imports_no_more_than_it_needs():
    script = "import sys; from deepseek_grpc.cli.app import run; code = run(['--version']); print(code, *sys.modules)"
    done = finish([sys.executable, "-c", script])
    assert "deepseek_grpc.cli.serve" in done.stdout.split()
    heavy = ("deepseek_grpc.gateway", "deepseek_grpc.cli.doctor.", "rich.markdown", "rich.live", "readline", "jwt")
    assert not [name for name in done.stdout.split() if name.startswith((*heavy, "cryptography"))]


ID, SECRET_, TOKEN, URL = (
    {"DEEPSEEK_GRPC_CLIENT_ID": "test-client"},
    {"DEEPSEEK_GRPC_CLIENT_SECRET": "canary-secret-0123456789abcdef01"},
    {"DEEPSEEK_GRPC_TOKEN": "canary-token-opaque"},
    {"DEEPSEEK_GRPC_TOKEN_URL": "http://user:canary-url@127.0.0.1:1/token"},
)
COMMANDS = [
    *(["generate", "x"], ["chat"], ["complete", "x"], ["models"], ["balance"], ["health"], ["doctor"]),
    *(["token", "mint"], ["token", "inspect", "canary.token.opaque"], ["serve", "--config", "/nowhere.toml"]),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_prints_a_secret(fake, command):
    """On success, on failure, as JSON, and in its help."""
    for env, flags in [
        (ID | SECRET_ | {"DEEPSEEK_GRPC_TARGET": fake.target}, []),
        (TOKEN | {"DEEPSEEK_GRPC_TARGET": "127.0.0.1:1"}, ["--json"]),
        (TOKEN | {"DEEPSEEK_GRPC_TARGET": fake.target}, []),
        (ID | SECRET_ | TOKEN | URL | {"DEEPSEEK_GRPC_TARGET": fake.target}, ["--json"]),
        (ID | SECRET_ | TOKEN | URL, ["--wrong"]),
        (ID | SECRET_ | TOKEN | URL, ["--help"]),
    ]:
        # What calls nobody has nothing to print but its own words.
        done = (run if "DEEPSEEK_GRPC_TARGET" in env else run_here)(*command, *flags, env=env, stdin="x\n")
        assert "canary" not in done.stdout + done.stderr
        assert done.stdout or done.stderr


@pytest.mark.parametrize("command", [*COMMANDS, ["token"]], ids=" ".join)
def test_every_command_explains_itself(command):
    done = run_here(*command[:2] if command[0] == "token" else command[:1], "--help")
    assert done.returncode == 0
    assert "Usage: deepseek-grpc" in done.stdout
    assert command == ["token"] or "Example: " in done.stdout


# shell completion


def test_completion_prints_a_script_and_answers():
    script = finish(["/bin/bash", "-c", f"'{CLI[0]}' --show-completion bash; exit $?"])
    assert "complete -o default -F _deepseek_grpc_completion deepseek-grpc" in script.stdout + script.stderr
    env = {"_DEEPSEEK_GRPC_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    assert run(env=env | {"COMP_WORDS": "deepseek-grpc ge"}).stdout.split() == ["generate"]
    env["COMP_CWORD"] = "2"
    assert run(env=env | {"COMP_WORDS": "deepseek-grpc token mi"}).stdout.split() == ["mint"]
    assert "--system" in run(env=env | {"COMP_WORDS": "deepseek-grpc chat --s"}).stdout.split()
