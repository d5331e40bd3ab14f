"""Every benchmark still runs; what it measures is for people to read."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("client_overhead.py", ()),
        ("session.py", ("--quick",)),
        ("session_memory.py", ("--quick",)),
        ("session_faults.py", ()),
        ("embedded_engine.py", ()),
    ],
)
def test_benchmark_runs(script, arguments):
    command = [sys.executable, ROOT / "benchmarks" / script, "--rounds", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 3
