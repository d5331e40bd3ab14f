"""Every Python example of the README and of the page on sessions runs, and what they say of the code is so."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepseek_grpc import ClientConfig, errors
from deepseek_grpc._session import frames, history
from deepseek_grpc.gateway import settings_file
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.gateway.services import session
from deepseek_grpc.gateway.settings import Settings
from deepseek_grpc.testing import FakeServer

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SESSIONS = (ROOT / "docs" / "sessions.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def gateway() -> Iterator[FakeServer]:
    with FakeServer(engine=EmbeddedEngine()) as server:
        yield server


@pytest.mark.parametrize("code", [*blocks("python"), *blocks("python", SESSIONS)], ids=lambda code: code.split("\n")[0])
def test_example_runs(code: str, gateway: FakeServer) -> None:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, env={**os.environ, **gateway.environ}, capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout or "FakeServer" in code
    assert "is done" in done.stdout or "TextServiceStub" not in code


def test_configuration_example_is_valid(tmp_path: Path) -> None:
    (example,) = blocks("toml")
    for name in re.findall(r'"([\w.-]+\.(?:pem|key|secret))"', example):
        (tmp_path / name).write_text("0123456789abcdef" * 3)
    (tmp_path / "gateway.toml").write_text(example)
    loaded = settings_file.load(tmp_path / "gateway.toml")
    assert loaded.clients[0].roles == ("writer",)
    assert loaded.listen == "0.0.0.0:8443"


def test_table_of_errors_is_that_of_the_code() -> None:
    classes = [cls for cls in vars(errors).values() if isinstance(cls, type) and cls.__name__ in errors.__all__]
    rows = re.findall(r"^\| `(\w+Error)` \| [^|]+ \| (\w+) \| (\w+) \| (yes|no) \| ([^|]+) \|$", README, re.MULTILINE)
    assert rows == [
        (
            cls.__name__,
            cls.default_code.name,
            cls.default_reason,
            "yes" if cls.default_retryable else "no",
            cls.advice,
        )
        for cls in classes
        if cls is not errors.DeepSeekError
    ]


def bytes_of(text: str) -> int:
    number, unit = text.split()
    return int(number) * {"KiB": 1024, "MiB": 1024**2}[unit]


def test_table_of_bounds_is_that_of_the_code() -> None:
    (table,) = re.findall(r"^### Bounds\n(.*?)^When", SESSIONS, re.DOTALL | re.MULTILINE)
    figures = re.findall(r"\| ([\d,]+(?: \w+)?) \|$", table, re.MULTILINE)
    assert [bytes_of(figure) for figure in figures if figure.endswith("iB")] == [
        frames.BATCH_BYTES,
        frames.FRAME_BYTES,
        frames.CREDIT_BYTES,
        frames.REPLAY_BYTES,
        frames.REPLAY_BYTES,
        session.TENANT_BYTES,
        frames.HIGH_WATER,
        history.HISTORY_BYTES,
    ]
    assert [figure for figure in figures if not figure.endswith("iB")] == [
        f"{frames.MAX_FRAMES:,}",
        f"{session.OPEN_SECONDS:g} s",
    ]


def test_tables_of_settings_have_the_defaults() -> None:
    config, settings = ClientConfig(), Settings()
    pairs = {
        "reconnect_seconds": f"{config.reconnect_seconds:g}",
        "reconnect_backoff": ", ".join(str(seconds) for seconds in config.reconnect_backoff),
        "keepalive": f"{config.keepalive.interval:g}, {config.keepalive.timeout:g}",
        "on_interrupt": f"`{config.on_interrupt}`",
        "connections": str(config.connections),
        "retry.attempts": str(config.retry.attempts),
        "gateway.resume_seconds": f"{settings.resume_seconds:g}",
        "gateway.drain_seconds": f"{settings.drain_seconds:g}",
    }
    found = re.findall(r"^\| `([\w.]+)` \| ([^|]+) \| [^|]+ \|$", SESSIONS, re.MULTILINE)
    assert dict(found) == pairs


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    headings = {
        re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        assert (page.parent / path).exists() if path else anchor in headings, link


def test_house_map_names_what_is_there() -> None:
    tree = re.search(r"```\n(protos/.*?)```", README, re.DOTALL)
    assert tree
    inside = ""
    for line in tree[1].splitlines():
        names = re.match(r"\s*((?:[\w.]+(?:/|\.py)\s)+)", line + " ")
        assert names, line
        for name in names[1].split():
            path = ROOT / (inside if line.startswith("  ") else "") / name
            assert path.exists(), path
        if not line.startswith("  "):
            inside = names[1].split()[0]
