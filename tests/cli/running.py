"""Runs the command line as its users do: as processes."""

import json
import os
import pty
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from pathlib import Path
from unittest.mock import patch

import pytest

from deepseek_grpc.cli import app

CLI = [str(Path(sys.executable).parent / "deepseek-grpc")]
# Nothing of the developer's own environment, and help as wide as it likes.
BARE = {k: v for k, v in os.environ.items() if not k.startswith("DEEPSEEK_")} | {"COLUMNS": "200", "NO_COLOR": "1"}
SECRET = "canary-0123456789abcdef0123456789abcdef"


def finish(command, *, env=None, stdin=""):
    """Runs anything to its end."""
    return subprocess.run(
        command, env=BARE | dict(env or {}), input=stdin, capture_output=True, text=True, timeout=50, check=False
    )


def run_here(*args, env=None, stdin=""):
    """Runs a command in this process, which is quicker; otherwise as `run`."""
    env = dict(env or {})
    output, errors = (TextIOWrapper(BytesIO(), "utf-8") for _ in range(2))
    piped = TextIOWrapper(BytesIO(stdin.encode()), "utf-8")
    with (
        patch.dict(os.environ, BARE | env, clear=True),
        patch.object(sys, "stdin", piped),
        redirect_stdout(output),
        redirect_stderr(errors),
    ):
        code = app.run(args)
    texts = [file.buffer.getvalue().decode() for file in (output, errors)]
    secret = env.get("DEEPSEEK_GRPC_CLIENT_SECRET")
    assert not secret or secret not in texts[0] + texts[1]
    return subprocess.CompletedProcess(args, code, *texts)


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


def events(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


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
