"""Stop strings: finds them across tokens and holds back what could be the beginning of one."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from deepseek_grpc.types import TextDelta

__all__ = ["StopFilter"]


class StopFilter:
    """Passes pieces of text on until a stop string is complete; neither it nor anything behind it is passed on."""

    def __init__(self, stops: Sequence[str], before: str) -> None:
        """Looks for `stops`, which may begin in the text `before` the first piece but must end behind it."""
        self._stops = tuple(stop for stop in stops if stop)
        self._longest = max(map(len, self._stops), default=0)
        self._held: deque[TextDelta] = deque()
        self._passed = self._tail(before)
        self._text = ""  # of what is held

    def feed(self, piece: TextDelta) -> tuple[list[TextDelta], bool]:
        """Takes the next piece; returns the pieces that may go, and whether a stop string is complete."""
        self._held.append(piece)
        self._text += piece.text
        window = self._passed + self._text
        # A match that ended in the passed text was somebody else's, so one has to end within this piece.
        starts = [window.find(stop, max(0, len(window) - len(piece.text) - len(stop) + 1)) for stop in self._stops]
        found = min((start for start in starts if start >= 0), default=-1)
        if found >= 0:
            return self._release(max(0, found - len(self._passed)), cut=True), True
        keep = min(self._possible(window), len(self._text))
        return self._release(len(self._text) - keep, cut=False), False

    def flush(self) -> list[TextDelta]:
        """Returns what is held, when nothing follows that could complete a stop string."""
        return self._release(len(self._text), cut=False)

    def _possible(self, window: str) -> int:
        """Returns the length of the longest end of the text that begins a stop string."""
        longest = 0
        for stop in self._stops:
            start = window.find(stop[0], max(0, len(window) - len(stop) + 1))
            while start >= 0 and not stop.startswith(window[start:]):
                start = window.find(stop[0], start + 1)
            if start >= 0:
                longest = max(longest, len(window) - start)
        return longest

    def _release(self, size: int, *, cut: bool) -> list[TextDelta]:
        """Takes out the pieces within the first `size` characters; a piece across that border is cut or stays."""
        released = []
        taken = 0
        while self._held and taken + len(self._held[0].text) <= size:
            piece = self._held.popleft()
            taken += len(piece.text)
            released.append(piece)
        if cut and taken < size:
            piece = self._held.popleft()
            released.append(TextDelta(piece.text[: size - taken], piece.logprobs))
            taken = size
        self._passed = self._tail(self._passed + self._text[:taken])
        self._text = self._text[taken:]
        return released

    def _tail(self, text: str) -> str:
        return text[len(text) - self._longest + 1 :] if len(text) >= self._longest else text
