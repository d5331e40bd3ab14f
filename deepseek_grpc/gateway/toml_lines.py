"""Where the keys of a TOML document stand; the standard library's reader doesn't say."""

from __future__ import annotations

import re
import tomllib
from typing import Final

__all__ = ["Path", "line_of", "lines_of"]

Path = tuple[str | int, ...]
"""How to get to a value: names of keys, and places in arrays of tables from 0."""

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_COMMENT: Final = re.compile(r"#[^\n]*")
_SPACES: Final = re.compile(r"[ \t]*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
# The forms of a string, the longest first. One or two quotes may stand at the end within a multi-line one.
_STRING: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)
_PLAIN: Final = re.compile(r"""[^"'#\[\]{}\n]+""")


def lines_of(text: str) -> dict[Path, int]:
    r"""Maps each key of a document, and each table, to the line on which it is first named.

    The keys of an inline table, and the entries of an array, stand where their own key does.

    Args:
        text: A valid document: one that `tomllib` reads.

    >>> lines_of('a = 1\n[[b]]\nc.d = 2')
    {('a',): 1, ('b',): 2, ('b', 0): 2, ('b', 0, 'c'): 3, ('b', 0, 'c', 'd'): 3}
    """
    return _Scanner(text).scan()


def line_of(lines: dict[Path, int], path: Path) -> int | None:
    """Returns the line of a path, or where it is missing that of the table it belongs to."""
    return next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), None)


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._lines: dict[Path, int] = {}
        self._counted = (0, 1)
        self._entries: dict[Path, int] = {}  # how many tables an array of tables has had so far

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while self._skip(_BLANK) < len(self._text):
            line = self._line()
            if self._text[self._at] != "[":
                self._name(table, self._key(), line)
                self._at += 1  # the equals sign
                self._value()
            else:
                several = self._text.startswith("[[", self._at)
                self._at += 1 + several
                table = self._name((), self._key(), line, table=True, several=several)
                self._at += 1 + several
        return self._lines

    def _skip(self, pattern: re.Pattern[str]) -> int:
        if match := pattern.match(self._text, self._at):
            self._at = match.end()
        return self._at

    def _line(self) -> int:
        at, line = self._counted
        line += self._text.count("\n", at, self._at)
        self._counted = (self._at, line)
        return line

    def _key(self) -> list[str]:
        names = []
        while True:
            self._skip(_SPACES)
            began = self._at
            if self._text[began] in "\"'":
                self._skip(_STRING)
                names.append(tomllib.loads(f"x = {self._text[began : self._at]}")["x"])
            else:
                self._skip(_BARE_KEY)
                names.append(self._text[began : self._at])
            self._skip(_SPACES)
            if self._text[self._at] != ".":
                return names
            self._at += 1

    def _name(self, path: Path, names: list[str], line: int, *, table: bool = False, several: bool = False) -> Path:
        """Notes a dotted key below a path; returns where it leads."""
        for place, name in enumerate(names, 1):
            path = (*path, name)
            self._lines.setdefault(path, line)
            if several and place == len(names):
                self._entries[path] = self._entries.get(path, -1) + 1
            if table and path in self._entries:  # what is below it belongs to its last table
                path = (*path, self._entries[path])
                self._lines.setdefault(path, line)
        return path

    def _value(self) -> None:
        depth = 0
        while self._at < len(self._text):
            character = self._text[self._at]
            if character in "\"'":
                self._skip(_STRING)
            elif character == "#":
                self._skip(_COMMENT)
            elif character == "\n" and not depth:
                return
            elif character in "[]{}\n":
                depth += (character in "[{") - (character in "]}")
                self._at += 1
            else:
                self._skip(_PLAIN)
