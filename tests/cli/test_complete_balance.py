"""`complete` and `balance`."""

import pytest

from deepseek_grpc.testing import Fail
from deepseek_grpc.types import AccountBalance, Balance
from tests.cli.running import events, run, run_here

CODE = "def double(x):\n    \n\nprint(double(2))\n"


@pytest.mark.parametrize("streamed", [True, False])
def test_complete_fills_the_gap(fake, streamed):
    fake.text.script("return ", "x * 2")
    options = [
        "--model",
        "m",
        "--max-tokens",
        "9",
        "--temperature",
        "0",
        "--top-p",
        "0.5",
        "--stop",
        "a",
        "--seed",
        "3",
    ]
    flags = [] if streamed else ["--no-stream"]
    done = run("complete", "def f(x):", "--suffix", "@@end", *options, "--timeout", "9", *flags, env=fake.environ)
    assert (done.returncode, done.stdout, done.stderr) == (0, "return x * 2\n", "")
    recorded = fake.text.completions[0]
    request = recorded.request
    assert recorded.streamed is streamed
    assert (request.prompt, request.suffix, request.model, request.max_tokens) == ("def f(x):", "@end", "m", 9)
    assert (request.temperature, request.top_p, request.stop, request.seed) == (0, 0.5, ("a",), 3)


@pytest.mark.parametrize(
    ("at", "before"),
    [
        ([], CODE),
        (["--at", "2"], "def double(x):\n    "),
        (["--at", "2:5"], "def double(x):\n    "),
        (["--at", "1:1"], ""),
        (["--at", "4:7"], "def double(x):\n    \n\nprint("),
        (["--at", "5:1"], CODE),
    ],
)
def test_complete_cuts_a_file_in_two(fake, tmp_path, at, before):
    (tmp_path / "code.py").write_text(CODE)
    done = run_here("complete", "--file", str(tmp_path / "code.py"), *at, "--json", env=fake.environ)
    if not before:
        assert (done.returncode, events(done)[0]["type"]) == (2, "error")
        return
    assert (done.returncode, events(done)[-1]["type"]) == (0, "finished")
    request = fake.text.completions[0].request
    assert (request.prompt, request.suffix) == (before, CODE.removeprefix(before))


def test_complete_reads_standard_input(fake):
    assert run_here("complete", "-", env=fake.environ, stdin="one ").returncode == 0
    assert run_here("complete", "--file", "-", "--at", "1:2", env=fake.environ, stdin="one").returncode == 0
    first, second = (recorded.request for recorded in fake.text.completions)
    assert (first.prompt, first.suffix, second.prompt, second.suffix) == ("one ", "", "o", "ne")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "PROMPT is missing"),
        (["x", "--file", "{}/code.py"], "leave PROMPT and --suffix out"),
        (["--file", "{}/none.py"], "--file: cannot read"),
        (["x", "--at", "3"], "--at goes with --file"),
        (["--file", "{}/code.py", "--at", "6"], "there is no line 6; the file has 1 to 5"),
        (["--file", "{}/code.py", "--at", "0"], "there is no line 0"),
        (["--file", "{}/code.py", "--at", "1:16"], "there is no column 16; line 1 has 1 to 15"),
        (["--file", "{}/code.py", "--at", "end"], "--at is 'end'; give LINE or LINE:COLUMN"),
        (["-", "--suffix", "-"], "PROMPT and --suffix can't both be read from standard input"),
        (["x", "--temperature", "9"], "temperature"),
    ],
)
def test_complete_says_what_is_wrong(fake, tmp_path, args, says):
    (tmp_path / "code.py").write_text(CODE)
    done = run_here("complete", *[arg.format(tmp_path) for arg in args], env=fake.environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert not fake.text.completions


def test_balance(fake):
    fake.text.account = AccountBalance(
        True, (Balance("USD", "10.00", "0.00", "10.00"), Balance("CNY", "7.5", "7.5", "0"))
    )
    done = run("balance", env=fake.environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "currency  total  granted  topped up",
        "USD       10.00     0.00      10.00",
        "CNY         7.5      7.5          0",
    ]
    (found,) = events(run("balance", "--json", env=fake.environ))
    assert (found["type"], found["available"], found["balances"][1]["total"]) == ("balance", True, "7.5")


def test_balances_of_nothing(fake):
    fake.text.account = AccountBalance(True, ())
    assert run_here("balance", env=fake.environ).stdout == "nothing is charged\n"
    fake.text.account = AccountBalance(False, ())
    assert run_here("balance", env=fake.environ).stdout == "not enough for further calls\n"


def test_complete_fails_as_every_command_does(fake):
    fake.text.script(Fail("UNIMPLEMENTED", "no completions here"))
    done = run_here("complete", "x", env=fake.environ)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("error: no completions here")
