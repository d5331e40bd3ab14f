"""What both worlds' sessions share: the stub whose messages are bytes, and the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logging import Logger

__all__ = ["TextServiceStub", "session_log"]


class TextServiceStub:
    """The stub of TextService's sessions. Their state machine reads and writes messages itself, so these stay bytes."""

    def __init__(self, channel: Any) -> None:
        self.Session = channel.stream_stream("/deepseek_rpc.v2.TextService/Session")


def session_log() -> Logger:
    """Returns the log that says when connections are lost and taken up again."""
    import logging

    return logging.getLogger("deepseek_grpc.session")
