"""Text that grows at the end of a terminal's screen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment, Segments
from rich.text import Text

__all__ = ["Growing", "split_blocks", "split_lines", "thoughts", "typeset"]

_REFRESH_SECONDS: Final = 0.08

Split: TypeAlias = Callable[[str], list[str]]


class Growing:
    """Shows text that comes in pieces: what is finished is printed for good, and only the unfinished tail is live.

    So nothing is drawn again that may have left the screen, however long the text gets; a tail that is higher than the
    screen shows its last lines.

    Args:
        console: Where to.
        render: Makes of text what is shown.
        split: Divides text into parts, of which the last may still grow.
        apart: Whether a blank line goes between the parts.
    """

    def __init__(self, console: Console, render: Callable[[str], RenderableType], split: Split, *, apart: bool) -> None:
        self._console = console
        self._render = render
        self._split = split
        self._apart = apart
        self._tail = ""
        self._begun = False
        self._changed = False
        # One thread draws at a time: rich computes where the live part begins before it draws it.
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._refresher = threading.Thread(target=self._refresh, daemon=True)
        self._live = Live(
            self, console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )

    def feed(self, piece: str) -> None:
        """Takes the next piece."""
        with self._lock:
            at_line_end = "\n" in piece or self._tail.endswith("\n")  # a part begins with a line
            self._tail += piece
            self._changed = True
            if at_line_end:
                *finished, self._tail = self._split(self._tail)
                self._print(finished)

    def _print(self, parts: Sequence[str]) -> None:
        """Prints what is finished above the live part, in one go with drawing that anew."""
        if lines := self._lines(parts):
            self._begun = True
            self._console.print(Segments(_joined(lines)))

    def _lines(self, parts: Sequence[str]) -> list[list[Segment]]:
        """Renders parts, without the blank lines that some blocks bring along."""
        lines: list[list[Segment]] = []
        for part in parts:
            drawn = [_trimmed(line) for line in self._console.render_lines(self._render(part.rstrip("\n")), pad=False)]
            written = [i for i, line in enumerate(drawn) if line]
            if written:
                if self._apart and (self._begun or lines):
                    lines.append([])
                lines += drawn[written[0] : written[-1] + 1]
        return lines

    def _refresh(self) -> None:
        while not self._over.wait(_REFRESH_SECONDS):
            with self._lock:
                if self._changed:
                    self._changed = False
                    self._live.refresh()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _joined(self._lines([self._tail])[-(console.height - 1) :])

    def __enter__(self) -> Self:
        self._live.start()
        self._refresher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._refresher.join()
        with self._lock:
            rest, self._tail = self._tail, ""
            self._print(self._split(rest))
            self._live.stop()


def _joined(lines: Iterable[list[Segment]]) -> Iterator[Segment]:
    for line in lines:
        yield from line
        yield Segment.line()


def _trimmed(line: list[Segment]) -> list[Segment]:
    """Takes the spaces off that fill a line up: in a window made narrower they would become lines of their own."""
    line = list(line)
    while line and not (line[-1].style and line[-1].style.bgcolor):
        text, style, _ = line.pop()
        if text := text.rstrip(" "):
            return [*line, Segment(text, style)]
    return line


def typeset(text: str) -> Markdown:
    """Makes Markdown for the screen; a link's address is written out, because the text could promise another."""
    return Markdown(text, code_theme="ansi_dark", hyperlinks=False)


def thoughts(text: str) -> Text:
    """Makes a model's reasoning for the screen."""
    return Text(text, style="dim")


def split_lines(text: str) -> list[str]:
    r"""Divides text after its last line end.

    >>> split_lines("one\ntwo\nthr")
    ['one\ntwo\n', 'thr']
    """
    lines, end, rest = text.rpartition("\n")
    return [lines + end, rest]


def split_blocks(text: str) -> list[str]:
    r"""Divides Markdown into its blocks (CommonMark 0.31, section 3).

    >>> split_blocks("# Title\n\n- one\n- two\n\n- three")
    ['# Title\n\n', '- one\n- two\n\n- three']
    """
    starts = [token.map[0] for token in _block_parser().parse(text) if token.level == 0 and token.map]
    lines = text.splitlines(keepends=True)
    return ["".join(lines[begin:end]) for begin, end in pairwise([0, *starts[1:], len(lines)])]


@cache
def _block_parser() -> Any:
    from markdown_it import MarkdownIt  # rich's own parser, set up as rich does it

    parser = MarkdownIt().enable("strikethrough").enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])  # what is in a block doesn't matter here
    return parser
