"""Counts the messages of streams from outside, where gRPC and the client hand them over to each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

_Function = Callable[..., Any]


def count_messages(counts: Counter[str]) -> None:
    """Has every channel that is made from now on count what its streams send and receive."""
    for module in (grpc, grpc.aio):
        module.secure_channel = _counting_channels(module.secure_channel, counts)  # type: ignore[attr-defined]


def _counting_channels(make: _Function, counts: Counter[str]) -> _Function:
    def make_channel(*arguments: Any, **options: Any) -> Any:
        channel = make(*arguments, **options)
        for kind in ("unary_stream", "stream_stream"):
            setattr(channel, kind, _counting_method(getattr(channel, kind), counts))
        return channel

    return make_channel


def _counting_method(make: _Function, counts: Counter[str]) -> _Function:
    def make_method(
        method: str,
        request_serializer: _Function | None = None,
        response_deserializer: _Function | None = None,
        **options: Any,
    ) -> Any:
        return make(
            method,
            _counted(request_serializer, "sent", counts),
            _counted(response_deserializer, "received", counts),
            **options,
        )

    return make_method


def _counted(transform: _Function | None, what: str, counts: Counter[str]) -> _Function:
    def counted(message: Any) -> Any:
        counts[what] += 1
        return message if transform is None else transform(message)

    return counted
