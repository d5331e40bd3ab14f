"""The tests pass with the oldest dependencies that the package admits, and with the newest, where they are measured."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TOOLS = ["pytest", "pytest-asyncio", "pytest-timeout", "hypothesis", "typer", "rich", "ruff", "buf-bin"]
TOOLS += ["jsonschema", "pydantic", "coverage"]


def floors() -> list[str]:
    """Returns each dependency at the lower end of its range, for example `grpcio==1.76.0`."""
    declared = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["reflection"]
    pinned = [re.sub(r">=([\d.]+).*", r"==\1", dependency) for dependency in declared]
    return [*pinned, pinned[0].replace("grpcio==", "grpcio-testing==")]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("versions", ["floor", "newest"])
def test_suite_passes_with(versions: str, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    python = venv / "bin" / "python"
    wanted = floors() if versions == "floor" else [*PROJECT["dependencies"], "grpcio-reflection", "grpcio-testing"]
    install = [python, "-m", "pip", "install", "-qq", "--upgrade"]
    subprocess.run([*install, *wanted, *TOOLS, "hatchling", "editables"], check=True)
    subprocess.run([*install, "--no-deps", "--no-build-isolation", "--editable", ROOT], check=True)
    listed = subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
    if versions == "floor":
        assert all(pin.split("[")[0].split("==")[0].lower() in listed.lower() for pin in wanted)
        assert "grpcio==1.76.0" in listed
    # One of the two runs also measures which branches the tests take: a run more would cost minutes.
    suite = ["-m", "pytest", "-q"] if versions == "floor" else ["scripts/branches.py"]
    done = subprocess.run([python, *suite], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
