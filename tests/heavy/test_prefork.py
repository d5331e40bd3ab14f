"""Prefork servers as they are run: the master makes a client, the processes that it forks use it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest

from tests.cli.running import BARE, serving

pytestmark = pytest.mark.heavy

T = TypeVar("T")

PATIENCE = 60.0  # seconds

GATEWAY = {"DEEPSEEK_GRPC_CLIENT_ID": "svc-a", "DEEPSEEK_GRPC_CLIENT_SECRET": "0123456789abcdef0123456789abcdef"}

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "processes.md").read_text()
EXAMPLES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))

# Each says who answers, and which process made the client.
WSGI = """
import os
import wsgi

MADE_IN = os.getpid()


def app(environ, start_response):
    return [f"{os.getpid()} {MADE_IN} ".encode(), *wsgi.app(environ, start_response)]
"""

TASKS = """
import os
import time
from pathlib import Path

import tasks

MADE_IN = os.getpid()

app = tasks.app
app.conf.broker_url = "filesystem://"
app.conf.broker_transport_options = {"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"}
app.conf.result_backend = f"file://{Path('results').resolve()}"


@app.task
def probe(prompt):
    text = tasks.ask(prompt)
    Path("asked", str(os.getpid())).touch()
    deadline = time.monotonic() + 60
    while len(os.listdir("asked")) < 2 and time.monotonic() < deadline:  # the other process has its share
        time.sleep(0.01)
    return os.getpid(), MADE_IN, text
"""

ASK = """
import json
from probe import probe

print(json.dumps([result.get(timeout=60) for result in [probe.delay("What is a deadline?") for _ in range(8)]]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the Python of an environment with both servers, which sees what this one has installed."""
    venv = tmp_path_factory.mktemp("prefork") / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "gunicorn==27.0.1", "celery==5.7.0"], check=True)
    (packages,) = venv.glob("lib/python3*/site-packages")
    (packages / "project.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return python


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Runs a gateway in a process of its own; gives the environment of its clients."""
    with serving("--listen", "127.0.0.1:0", env=GATEWAY, log=tmp_path / "gateway.log") as (_, printed):
        yield {**BARE, **GATEWAY, "DEEPSEEK_GRPC_TARGET": printed[-1].removeprefix("listening on ")}


@contextmanager
def running(command: Sequence[str | Path], *, folder: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a server that logs to `log`, ends it as its operator would, and looks at what it said."""
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield server
        server.terminate()
        assert server.wait(PATIENCE) == 0
    except BaseException:
        sys.stderr.write((folder / "log").read_text())
        raise
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # its own group: whatever it left
        server.wait()
    said = (folder / "log").read_text()
    assert "Traceback" not in said
    assert "WORKER TIMEOUT" not in said


def until(found: Callable[[], T | None], what: str) -> T:
    """Waits until there is something, and returns it."""
    deadline = time.monotonic() + PATIENCE
    while (thing := found()) is None:
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.05)
    return thing


class Site:
    """What gunicorn serves, as browsers see it."""

    def __init__(self, server: subprocess.Popen[bytes], log: Path) -> None:
        self.master = server.pid
        found = until(lambda: re.search(r"Listening at: (http://\S+)", log.read_text()), "gunicorn to listen")
        self.url = found[1]

    def worker(self, _: int = 0) -> int | None:
        """Asks once; returns which process answered, None where none did because it was on its way out."""
        try:
            with urllib.request.urlopen(self.url, timeout=PATIENCE) as response:
                pid, made_in, text = response.read().decode().split(" ", 2)
        except ConnectionError:
            return None
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionError):
                raise
            return None
        assert text
        assert int(made_in) == self.master
        return int(pid)

    def workers(self, gone: Collection[int] = ()) -> set[int]:
        """Asks eight at a time, until both processes have answered and none of those that should be gone has."""
        with ThreadPoolExecutor(8) as pool:

            def both() -> set[int] | None:
                pids = set(pool.map(self.worker, range(8)))
                return pids if len(pids) == 2 and pids.isdisjoint({None, *gone}) else None

            return until(both, f"two workers other than {gone}")


def test_gunicorn_forks_workers_of_a_master_that_made_the_client(python, environ, tmp_path):
    (tmp_path / "wsgi.py").write_text(EXAMPLES["wsgi.py"])
    (tmp_path / "probe.py").write_text(WSGI)
    command = [python, "-m", "gunicorn", "--preload", "--workers", "2", "--bind", "127.0.0.1:0", "probe:app"]
    with running(command, folder=tmp_path, env=environ) as server:
        site = Site(server, tmp_path / "log")
        first = site.workers()
        server.send_signal(signal.SIGHUP)
        second = site.workers(gone=first)
        killed, left = second
        os.kill(killed, signal.SIGKILL)
        third = site.workers(gone=[killed])
        assert left in third
        assert len({server.pid, *first, *second, *third}) == 6


def test_celery_forks_a_pool_of_a_process_that_made_the_client(python, environ, tmp_path):
    (tmp_path / "tasks.py").write_text(EXAMPLES["tasks.py"])
    (tmp_path / "probe.py").write_text(TASKS)
    for name in ("queue", "control", "results", "asked"):
        (tmp_path / name).mkdir()
    command = [python, "-m", "celery", "-A", "probe", "worker", "--pool", "prefork", "--concurrency", "2"]
    with running(command, folder=tmp_path, env=environ) as server:
        done = subprocess.run(
            [python, "-c", ASK], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        answers = json.loads(done.stdout)
        assert len(answers) == 8
        pids = {pid for pid, _, _ in answers}
        assert len(pids - {server.pid}) == len(pids) == 2
        assert {made_in for _, made_in, _ in answers} == {server.pid}
        assert all(text for _, _, text in answers)


def test_multiprocessing_spawns_from_a_process_that_has_made_calls(environ, tmp_path):
    (tmp_path / "many.py").write_text(EXAMPLES["many.py"])
    done = subprocess.run(
        [sys.executable, "many.py"], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) >= 3


def test_every_example_of_the_page_is_run():
    assert sorted(EXAMPLES) == ["many.py", "tasks.py", "wsgi.py"]
    assert PAGE.count("```python") == len(EXAMPLES)
