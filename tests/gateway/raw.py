"""The gateway as a client sees it that was made of the protos alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from deepseek_rpc.v2 import text_pb2 as pb

__all__ = [
    "RawSession",
    "ResumableSession",
    "bearer",
    "cancel_frame",
    "channel",
    "completion_frame",
    "credit_frame",
    "ends_of",
    "error_of",
    "info_of",
    "open_frame",
    "reason_of",
    "start_frame",
    "until",
]


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


def info_of(error: Any) -> tuple[grpc.StatusCode, str]:
    """Returns a failed call's status and its ErrorInfo's reason."""
    return error.code(), reason_of(error)


def open_frame(resume_token: str = "", *, resumable: bool = False) -> pb.ClientFrame:
    return pb.ClientFrame(open=pb.OpenFrame(resume_token=resume_token, resumable=resumable))


def start_frame(
    turn_id: int,
    *,
    stream: bool = False,
    credit: int = 0,
    parent_turn_id: int = 0,
    deadline_ms: int = 0,
    **request: Any,
) -> pb.ClientFrame:
    return pb.ClientFrame(
        start=pb.StartFrame(
            turn_id=turn_id,
            stream=stream,
            credit=credit,
            parent_turn_id=parent_turn_id,
            deadline_ms=deadline_ms,
            request=pb.GenerateRequest(**{"prompt": "Hi", **request}),
        )
    )


def completion_frame(turn_id: int, *, stream: bool = False, **request: Any) -> pb.ClientFrame:
    work = pb.CompleteFimRequest(**{"prompt": "a", **request})
    return pb.ClientFrame(start=pb.StartFrame(turn_id=turn_id, stream=stream, completion=work))


def cancel_frame(turn_id: int) -> pb.ClientFrame:
    return pb.ClientFrame(cancel=pb.CancelFrame(turn_id=turn_id))


def credit_frame(turn_id: int, count: int) -> pb.ClientFrame:
    return pb.ClientFrame(credit=pb.CreditFrame(turn_id=turn_id, bytes=count))


def ends_of(frames: Iterable[pb.ServerFrame], count: int | None = None) -> dict[int, str]:
    """Returns what each turn ended with, reading on until so many did; each ends once."""
    found: dict[int, str] = {}
    if count == 0:
        return found
    for frame in frames:
        if frame.HasField("done"):
            assert found.setdefault(frame.done.turn_id, "done") == "done"
        elif frame.HasField("error"):
            assert frame.error.turn_id not in found
            found[frame.error.turn_id] = error_of(frame.error.status)
        if len(found) == count:
            break
    return found


def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    """Waits until a condition holds; fails when it doesn't in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it didn't come to that"
        time.sleep(0.005)


_METHOD = "/deepseek_rpc.v2.TextService/Session"


class RawSession:
    """A session's two streams, message by message, over one connection."""

    def __init__(self, raw: grpc.Channel, metadata: Any, *, timeout: float = 40) -> None:
        self._out: SimpleQueue[bytes | None] = SimpleQueue()
        call: Any = raw.stream_stream(_METHOD)
        self._rpc: Any = call(iter(self._out.get, None), metadata=metadata, timeout=timeout)

    def send(self, *frames: pb.ClientFrame) -> None:
        """Sends frames in one message; an open that is the first of them goes ahead in its own."""
        if len(frames) > 1 and frames[0].HasField("open"):
            self.send_message(pb.SessionRequest(frames=frames[:1]))
            frames = frames[1:]
        self.send_message(pb.SessionRequest(frames=frames))

    def send_message(self, message: pb.SessionRequest | bytes) -> None:
        """Sends one message as it is."""
        self._out.put(message if isinstance(message, bytes) else message.SerializeToString())

    def open(self, *, resumable: bool = False) -> pb.OpenedFrame:
        """Opens a session."""
        self.send(open_frame(resumable=resumable))
        [frame] = self.read().frames
        return frame.opened

    def half_close(self) -> None:
        self._out.put(None)

    def cancel(self) -> None:
        """Ends the connection without a word."""
        self._rpc.cancel()
        self._out.put(None)

    def read(self) -> pb.SessionResponse:
        return pb.SessionResponse.FromString(next(self._rpc))

    def messages(self) -> Iterator[pb.SessionResponse]:
        for data in self._rpc:
            yield pb.SessionResponse.FromString(data)

    def frames(self) -> Iterator[pb.ServerFrame]:
        for message in self.messages():
            yield from message.frames

    def rest(self) -> list[pb.SessionResponse]:
        return list(self.messages())

    def refused(self) -> tuple[grpc.StatusCode, str, str]:
        """Reads to the end; returns the status that it ends with, its reason and its details."""
        try:
            self.rest()
        except grpc.RpcError as error:
            failure: Any = error
            return *info_of(failure), failure.details()
        raise AssertionError("it ended well")


class ResumableSession:
    """A session over any number of connections, by a client that counts."""

    def __init__(self) -> None:
        self.seq = 0
        self.heard = 0
        self.token = ""
        self.session_id = ""
        self.sent: list[pb.SessionRequest] = []
        self.wire: RawSession

    def connect(self, raw: grpc.Channel, metadata: Any) -> int:
        """Opens the session, or takes it up again and repeats what the gateway lacks; returns what it had."""
        self.wire = RawSession(raw, metadata)
        self.wire.send_message(pb.SessionRequest(frames=[open_frame(self.token, resumable=True)], acked_seq=self.heard))
        message = self.wire.read()
        opened = message.frames[0].opened
        assert len(message.frames) == 1
        assert message.seq == 0
        assert self.session_id in ("", opened.session_id)
        self.session_id, self.token = opened.session_id, opened.resume_token
        for sent in self.sent[message.acked_seq :]:
            self.wire.send_message(sent)
        return message.acked_seq

    def send(self, *frames: pb.ClientFrame) -> None:
        """Sends a message with the next number."""
        self.seq += 1
        self.sent.append(pb.SessionRequest(frames=frames, seq=self.seq, acked_seq=self.heard))
        self.wire.send_message(self.sent[-1])

    def read(self) -> pb.SessionResponse:
        """Reads a message; it is the next one."""
        message = self.wire.read()
        if message.seq:
            assert message.seq == self.heard + 1
            self.heard = message.seq
        return message

    def frames(self) -> Iterator[pb.ServerFrame]:
        while True:
            try:
                message = self.read()
            except StopIteration:
                return
            yield from message.frames
