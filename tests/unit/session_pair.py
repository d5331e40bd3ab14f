"""A session's two ends, wired together in memory: no sockets, no clocks."""

from __future__ import annotations

from collections import deque
from typing import Any

from deepseek_grpc._codec.request import encode_generate
from deepseek_grpc._session.client import ClientSession, ClientTurn, Parent
from deepseek_grpc._session.frames import Budget
from deepseek_grpc._session.gateway import CancelledTurn, GatewaySession, GatewayTurn, read_open
from deepseek_grpc.types import Completion, Meta, Upstream, Usage
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["NOWHERE", "Pair", "answer", "ask", "taken"]

NOWHERE = Upstream()


def ask(prompt: str = "Hi", request_id: str = "r1") -> pb.GenerateRequest:
    return encode_generate(prompt, request_id=request_id)


def answer(text: str) -> Completion:
    return Completion(text, "stop", Usage(), Meta())


def taken(machine: Any) -> list[bytes]:
    """Takes everything that a machine has to write."""
    written = []
    while (data := machine.take()) is not None:
        written.append(data)
    return written


class Pair:
    """A client and a gateway with a connection that a test may cut.

    Args:
        resumable: Whether the gateway gives a token.
        budget: What the gateway's session shares with others.
    """

    def __init__(self, *, resumable: bool = True, budget: Budget | None = None) -> None:
        self.client: ClientSession[ClientTurn] = ClientSession()
        self.gateway = GatewaySession(
            "s1", resume_token="token" if resumable else "", resume_seconds=30.0, budget=budget
        )
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.starts: list[GatewayTurn] = []
        """What the gateway was to start."""
        self.cancels: list[CancelledTurn] = []
        self.others: list[Any] = []
        self.connect()

    def connect(self) -> None:
        """Begins a connection; what was under way on the last one is lost."""
        self.up.clear()
        self.down.clear()
        self.client.connect()
        greeting = self.client.take()
        assert greeting is not None
        self.gateway.connect(read_open(greeting))

    def start(
        self, prompt: str = "Hi", *, stream: bool = True, parent: Parent | None = None, request_id: str = "r1"
    ) -> ClientTurn:
        """Starts a turn at the client."""
        turn = ClientTurn(ask(prompt, request_id), request_id, stream=stream, parent=parent)
        self.client.start(turn)
        return turn

    def both(self, prompt: str = "Hi", **options: Any) -> tuple[ClientTurn, GatewayTurn]:
        """Starts a turn and carries it over; returns both ends of it."""
        turn = self.start(prompt, **options)
        self.carry()
        return turn, self.starts[-1]

    def write(self) -> None:
        """Puts everything that the ends have to say on the wire."""
        self.up += taken(self.client)
        self.down += taken(self.gateway)

    def tell(self, data: bytes) -> None:
        """Tells the gateway a message."""
        for wanted in self.gateway.receive(data):
            if isinstance(wanted, GatewayTurn):
                self.starts.append(wanted)
            elif isinstance(wanted, CancelledTurn):
                self.cancels.append(wanted)
            else:
                self.others.append(wanted)

    def carry(self) -> list[pb.SessionRequest | pb.SessionResponse]:
        """Carries what both ends have to say until there is nothing more; returns it."""
        carried: list[pb.SessionRequest | pb.SessionResponse] = []
        self.write()
        while self.up or self.down:
            while self.up:
                data = self.up.popleft()
                carried.append(pb.SessionRequest.FromString(data))
                self.tell(data)
            while self.down:
                data = self.down.popleft()
                carried.append(pb.SessionResponse.FromString(data))
                self.client.receive(data)
            self.write()
        return carried

    def says(self) -> list[pb.SessionResponse]:
        """Returns what the gateway has to write, which the client gets too."""
        written = taken(self.gateway)
        for data in written:
            self.client.receive(data)
        return [pb.SessionResponse.FromString(data) for data in written]

    def errors(self) -> list[pb.ErrorFrame]:
        """Returns the error frames that the gateway has to write."""
        return [frame.error for message in self.says() for frame in message.frames if frame.HasField("error")]
