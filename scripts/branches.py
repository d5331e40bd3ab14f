"""Runs the tests with every branch of the package measured, names those not taken, and fails under the limit.

python scripts/branches.py

The sync mirror is measured and listed, but the total is of what is written by hand.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / ".coverage"
MIRROR = "deepseek_grpc/_sync/"
LIMIT = 95  # percent


def coverage(*args: str | Path) -> None:
    """Runs coverage.py in the tree; ends with its status if it fails."""
    command = [sys.executable, "-m", "coverage", *args]
    if status := subprocess.run(command, cwd=ROOT, check=False).returncode:  # noqa: S603 - our own tools
        sys.exit(status)


def measured() -> dict[str, Any]:
    """Runs the tests and returns coverage.py's account of each file, those of their child processes included."""
    shutil.rmtree(DATA, ignore_errors=True)
    coverage("run", "-m", "pytest", "-q")
    coverage("combine", "--quiet")
    coverage("json", "--quiet", "-o", DATA / "report.json")
    files: dict[str, Any] = json.loads((DATA / "report.json").read_text())["files"]
    return files


def told(branches: list[list[int]]) -> str:
    """Returns branches as `line->line`, or `line->exit` for those that leave the function."""
    return " ".join(f"{start}->{end if end > 0 else 'exit'}" for start, end in branches)


def main() -> None:
    """Prints a line for each module that has branches open, and the total."""
    taken = there = 0
    for name, file in sorted(measured().items()):
        summary = file["summary"]
        if missing := file["missing_branches"]:
            print(f"{summary['covered_branches']:4}/{summary['num_branches']:<4} {name}: {told(missing)}")
        if not name.startswith(MIRROR):
            taken += summary["covered_branches"]
            there += summary["num_branches"]
    percent = 100 * taken / there
    print(f"{percent:.1f} % of {there} branches in hand-written source (limit: {LIMIT} %)")
    if percent < LIMIT:
        sys.exit(1)


if __name__ == "__main__":
    main()
