"""The gateway as a client sees it that was made of the protos alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from deepseek_rpc.v2 import text_pb2 as pb
from deepseek_rpc.v2.text_pb2_grpc import TextServiceStub

__all__ = ["RawSession", "bearer", "channel", "error_of", "open_frame", "reason_of", "start_frame"]


@contextmanager
def channel(target: str) -> Iterator[grpc.Channel]:
    kind = grpc.LocalConnectionType.UDS if target.startswith("unix") else grpc.LocalConnectionType.LOCAL_TCP
    with grpc.secure_channel(target, grpc.local_channel_credentials(kind)) as made:
        yield made


def bearer(server: Any, *more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {server.credentials().token()}"), *more)


def reason_of(error: Any) -> str:
    """Reads the ErrorInfo's reason out of a failed call's trailers."""
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            return error_of(status_pb2.Status.FromString(value))
    return ""


def error_of(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return info.reason


def open_frame() -> pb.ClientFrame:
    return pb.ClientFrame(open=pb.OpenFrame())


def start_frame(turn_id: int, *, stream: bool = False, **request: Any) -> pb.ClientFrame:
    request = {"prompt": "Hi", **request}
    return pb.ClientFrame(start=pb.StartFrame(turn_id=turn_id, stream=stream, request=pb.GenerateRequest(**request)))


class RawSession:
    """A session's two streams, message by message."""

    def __init__(self, raw: grpc.Channel, metadata: Any) -> None:
        self._out: SimpleQueue[pb.SessionRequest | None] = SimpleQueue()
        self._rpc = TextServiceStub(raw).Session(iter(self._out.get, None), metadata=metadata, timeout=10)

    def send(self, *frames: pb.ClientFrame) -> None:
        self._out.put(pb.SessionRequest(frames=frames))

    def half_close(self) -> None:
        self._out.put(None)

    def read(self) -> pb.SessionResponse:
        return next(self._rpc)

    def frames(self) -> Iterator[pb.ServerFrame]:
        for message in self._rpc:
            yield from message.frames

    def rest(self) -> list[pb.SessionResponse]:
        return list(self._rpc)
