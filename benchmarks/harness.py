"""What the benchmarks share: a server in a process of its own, interleaved rounds, ratios with their spread."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
SECRET = "benchmark-secret-benchmark-secret-1234"
CLIENT_ID = "bench"


@contextmanager
def server(script: str, *arguments: str) -> Iterator[str]:
    """Runs a script of this folder that prints its port; yields its target."""
    command = [sys.executable, str(HERE / script), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
            process.wait(10)


def spread(values: list[float]) -> str:
    """Renders a median with its range."""
    return f"{statistics.median(values):7.2f}  ({min(values):.2f} to {max(values):.2f})"
