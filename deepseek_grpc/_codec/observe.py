"""What observers are told of a call: its record, filled in as it goes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc

from deepseek_grpc._call import CallOptions
from deepseek_grpc._codec.usage import decode_usage
from deepseek_grpc.errors import DeepSeekError
from deepseek_grpc.telemetry import CallRecord, Observer

if TYPE_CHECKING:
    from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["Observation"]

_CONTENT: Final = ("text", "reasoning", "tool_call")


class Observation:
    """One call, as its observers see it. What they raise is logged and changes nothing about the call."""

    __slots__ = ("_began", "_observers", "_open", "record")

    def __init__(
        self, observers: Sequence[Observer], method: str, target: str, request: Any, call: CallOptions
    ) -> None:
        model = getattr(request, "model", "")
        self._observers = observers
        self._open = [True]  # until it ends
        self._began = time.perf_counter()
        self.record = CallRecord(method, target, call.request_id, model, time.time(), partial(_excerpt, request))
        for observer in observers:
            self._tell(observer, "started")

    def chunks(self, chunks: Sequence[pb.GenerateChunk]) -> None:
        """Looks at what came of a stream."""
        record = self.record
        if record.first_content_seconds is None and any(chunk.WhichOneof("event") in _CONTENT for chunk in chunks):
            record.first_content_seconds = time.perf_counter() - self._began
        if chunks and chunks[-1].HasField("tail"):
            tail = chunks[-1].tail
            record.usage = decode_usage(tail.usage)
            record.attempts = tail.upstream.attempts

    def response(self, response: Any) -> None:
        """Looks at a whole answer."""
        fields = response.DESCRIPTOR.fields_by_name
        if "usage" in fields:
            self.record.usage = decode_usage(response.usage)
        if "upstream" in fields:
            self.record.attempts = response.upstream.attempts

    def end(self, error: BaseException | None = None, *, cancelled: bool = False) -> None:
        """Ends the record; the first end counts."""
        try:
            self._open.pop()  # by one thread only
        except IndexError:
            return
        record = self.record
        record.seconds = time.perf_counter() - self._began
        record.error = error
        if isinstance(error, DeepSeekError):
            record.code, record.attempts = error.code, error.attempts
        elif error is not None or cancelled:
            record.code = grpc.StatusCode.CANCELLED
        else:
            record.code, record.attempts = grpc.StatusCode.OK, record.attempts or 1
        for observer in self._observers:
            self._tell(observer, "ended")

    def _tell(self, observer: Observer, what: str) -> None:
        try:
            getattr(observer, what)(self.record)
        except Exception:
            import logging

            logging.getLogger("deepseek_grpc").exception("an observer failed")


def _excerpt(request: Any, limit: int) -> str:
    """Returns the beginning of the prompt, or of the last message that has text."""
    prompt: str = getattr(request, "prompt", "")
    if prompt:
        return prompt[:limit]
    for message in reversed(getattr(request, "messages", ())):
        text = message.content or next((part.text for part in message.parts if part.text), "")
        if text:
            return str(text[:limit])
    return ""
