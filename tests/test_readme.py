"""Every Python example of the README runs, and its configuration example is a valid one."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepseek_grpc import errors
from deepseek_grpc.gateway import settings_file
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.testing import FakeServer

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def gateway() -> Iterator[FakeServer]:
    with FakeServer(engine=EmbeddedEngine()) as server:
        yield server


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.split("\n")[0])
def test_example_runs(code: str, gateway: FakeServer) -> None:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, env={**os.environ, **gateway.environ}, capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout or "FakeServer" in code


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
