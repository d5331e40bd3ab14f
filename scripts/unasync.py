"""Writes the sync mirror of what is authored for asyncio; with --check it only says whether the mirror is fresh.

python scripts/unasync.py [--check]
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREES = {
    ROOT / "deepseek_grpc" / "_async": ROOT / "deepseek_grpc" / "_sync",
    ROOT / "tests" / "contract" / "_async": ROOT / "tests" / "contract" / "_sync",
}
NOTICE = "# Mirrored by scripts/unasync.py from {source}: edit that and run `make sync`.\n"

SUBSTITUTIONS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in [
        (r"\b_transport import aio(_session)? as\b", r"_transport import sync\1 as"),
        (r"\b_async\b", "_sync"),
        (r"\[(\w+) async for \1 in ([^\]]+)\]", r"list(\2)"),
        (r"\basync (def|with|for)\b", r"\1"),
        (r"\bawait ", ""),
        (r"\bAsync(Client|Text|TextStream|Session|Iterator|Generator)\b", r"\1"),
        (r"\b__aiter__\b", "__iter__"),
        (r"\b__aenter__\b", "__enter__"),
        (r"\b__aexit__\b", "__exit__"),
        (r"\baclose\b", "close"),
        (r"\basync_client\b", "client"),
        (r"Talks to a gateway with asyncio\.", "Talks to a gateway from any thread."),
        (r"for asyncio: authored here; `_sync` is its mirror", "for threads: the mirror of `_async`"),
        (r"\bgather\(", "gather_threads("),
        (r"\bAny task may\b", "Any thread may"),
        (r"tests\.contract\.concurrency import gather\b", "tests.contract.concurrency import gather_threads"),
        (r"\bstart_task\b", "start_thread"),
        (r"\basyncio\.to_thread\(([\w.]+(?:\(\)[\w.]+)*)(?:, |(?=\)))", r"\1("),
    ]
]


def mirror(text: str) -> str:
    """Returns the sync form of an async source."""
    for pattern, replacement in SUBSTITUTIONS:
        text = pattern.sub(replacement, text)
    return text


def formatted(text: str) -> str:
    """Returns a source as ruff formats it: shorter names join lines, reorder imports and need fewer of them."""
    for arguments in (["check", "--select", "I,F401", "--fix", "--quiet"], ["format", "--quiet"]):
        command = [
            sys.executable,
            "-m",
            "ruff",
            *arguments,
            "--stdin-filename",
            str(ROOT / "deepseek_grpc" / "x.py"),
            "-",
        ]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout  # noqa: S603
    return text


def main() -> int:
    """Writes or checks every mirrored file."""
    check = sys.argv[1:] == ["--check"]
    stale = []
    for source_tree, mirror_tree in TREES.items():
        wanted = {}
        for source in sorted(source_tree.glob("*.py")):
            notice = NOTICE.format(source=source.relative_to(ROOT))
            wanted[mirror_tree / source.name] = formatted(notice + mirror(source.read_text()))
        for path in mirror_tree.glob("*.py"):
            if path not in wanted:
                stale.append(path)
                if not check:
                    path.unlink()
        for path, text in wanted.items():
            if not path.exists() or path.read_text() != text:
                stale.append(path)
                if not check:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text)
    for path in stale:
        print(("stale: " if check else "wrote: ") + str(path.relative_to(ROOT)))
    return 1 if check and stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
