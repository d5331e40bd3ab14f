"""The log's lines about refused calls: who, from where and why, on one line, and never a flood of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from deepseek_grpc.errors import DeepSeekError
from deepseek_grpc.gateway.tokens import RefusedTokenError

__all__ = ["RefusalLog"]

_log = logging.getLogger("deepseek_grpc.gateway.auth")

_WINDOW: Final = 10.0
_LINES: Final = 100
_MAX_TEXT: Final = 200


class RefusalLog:
    """Writes a line for each refused call, 100 in 10 s at most; the next one says how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = -_WINDOW
        self._lines = 0

    def write(self, error: DeepSeekError, peer: str, request_id: str) -> None:
        """Writes the line; whatever a caller has sent is escaped and bounded."""
        now = self._clock()
        if now - self._began >= _WINDOW:
            if (left_out := self._lines - _LINES) > 0:
                _log.warning("%d more refused calls were not logged", left_out)
            self._began, self._lines = now, 0
        self._lines += 1
        if self._lines <= _LINES:
            what, why = ("token", error.cause) if isinstance(error, RefusedTokenError) else ("call", error.details)
            _log.warning(
                "%s refused: %s (from %s, request %s)", what, _printable(why), _printable(peer), _printable(request_id)
            )


def _printable(text: str) -> str:
    """Returns a text as it may stand in a line: in visible ASCII, and cut."""
    return "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in text[:_MAX_TEXT])
