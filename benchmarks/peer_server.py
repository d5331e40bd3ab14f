"""Stands in for a peer's server: pre-encoded tokens, as fast as the client takes them.

    .venv/peers/bin/python benchmarks/peer_server.py openai|xai|xai-flood

prints the port and serves until its standard input closes. `max_tokens` says how many tokens a stream has. `xai` is a
grpc.aio server, which writes message by message and so keeps its client waiting now and then. With `openai` and
`xai-flood` many tokens leave at a time: no real server does it, but it costs the client least, and it never waits.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

TOGETHER = 200


async def openai(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serves chat completions as server-sent events over HTTP/1.1."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "fake"}

    def event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"

    def chunk(data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data)

    token = event({"content": " token"})
    many = chunk(token * TOGETHER)
    begin = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    begin += chunk(event({"role": "assistant", "content": ""}))
    end = chunk(event({}, "stop") + b"data: [DONE]\n\n") + chunk(b"")
    while True:
        headers = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = re.search(rb"content-length: *(\d+)", headers)
        assert length is not None
        tokens = json.loads(await reader.readexactly(int(length[1])))["max_tokens"]
        writer.write(begin)
        for _ in range(tokens // TOGETHER):
            writer.write(many)
            await writer.drain()
        if tokens % TOGETHER:
            writer.write(chunk(token * (tokens % TOGETHER)))
        writer.write(end)
        await writer.drain()


DATA, HEADERS, SETTINGS, PING, WINDOW = 0, 1, 4, 6, 8
"""Types of HTTP/2 frames (RFC 9113, 6)."""


def xai_chunk(text: str, finish_reason: int | None = None) -> bytes:
    """Encodes one message of a stream."""
    from xai_sdk.proto import chat_pb2

    message = chat_pb2.GetChatCompletionChunk(id="1", model="fake", system_fingerprint="fp")
    message.created.seconds = 1
    output = message.outputs.add(index=0, finish_reason=finish_reason)
    output.delta.content = text
    output.delta.role = chat_pb2.ROLE_ASSISTANT
    return bytes(message.SerializeToString())


async def xai() -> None:
    """Serves GetCompletionChunk with grpc.aio."""
    import grpc
    import grpc.aio
    from xai_sdk.proto import chat_pb2, sample_pb2

    token, end = xai_chunk(" token"), xai_chunk("", sample_pb2.REASON_STOP)

    async def stream(request: bytes, context: Any) -> None:
        for _ in range(chat_pb2.GetCompletionsRequest.FromString(request).max_tokens):
            await context.write(token)
        await context.write(end)

    server = grpc.aio.server()
    handlers: dict[str, Any] = {"GetCompletionChunk": grpc.unary_stream_rpc_method_handler(stream)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("xai_api.Chat", handlers),))
    port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    await server.start()
    await until_closed(port)
    await server.stop(0)


async def xai_flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serves GetCompletionChunk over HTTP/2 by hand: nothing but what a client of gRPC needs."""
    from xai_sdk.proto import chat_pb2, sample_pb2

    def framed(message: bytes) -> bytes:
        return struct.pack(">xI", len(message)) + message

    def send(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> None:
        writer.write(struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload)

    def header(name: bytes, value: bytes) -> bytes:
        return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value

    token, end = framed(xai_chunk(" token")), framed(xai_chunk("", sample_pb2.REASON_STOP))
    initial = 65_535
    windows: defaultdict[int, int] = defaultdict(lambda: initial)
    changed = asyncio.Event()

    async def send_data(stream: int, data: bytes) -> None:
        while min(windows[0], windows[stream]) < len(data):
            changed.clear()
            await changed.wait()
        windows[0] -= len(data)
        windows[stream] -= len(data)
        send(DATA, stream, data)
        await writer.drain()

    async def answer(stream: int, request: bytes) -> None:
        tokens = chat_pb2.GetCompletionsRequest.FromString(request[5:]).max_tokens
        send(HEADERS, stream, b"\x88" + header(b"content-type", b"application/grpc"), flags=4)
        for _ in range(tokens // TOGETHER):
            await send_data(stream, token * TOGETHER)
        await send_data(stream, token * (tokens % TOGETHER) + end)
        send(HEADERS, stream, header(b"grpc-status", b"0"), flags=5)
        del windows[stream]

    await reader.readexactly(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
    send(SETTINGS, 0)
    send(WINDOW, 0, struct.pack(">I", 2**30))
    requests: defaultdict[int, bytes] = defaultdict(bytes)
    async with asyncio.TaskGroup() as tasks:
        while True:
            size, kind, flags, stream = struct.unpack(">IBBI", b"\0" + await reader.readexactly(9))
            payload = await reader.readexactly(size)
            if kind == DATA:
                requests[stream] += payload
                if flags & 1:
                    tasks.create_task(answer(stream, requests.pop(stream)))
            elif kind == WINDOW:
                windows[stream] += struct.unpack(">I", payload)[0]
                changed.set()
            elif kind == SETTINGS and not flags:
                settings = dict(struct.iter_unpack(">HI", payload))
                initial = settings.get(4, initial)
                send(SETTINGS, 0, flags=1)
            elif kind == PING and not flags:
                send(PING, 0, payload, flags=1)


async def serve(connected: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
    """Serves connections."""

    async def until_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await connected(reader, writer)
        except* (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(until_gone, "127.0.0.1", 0)
    await until_closed(server.sockets[0].getsockname()[1])


async def until_closed(port: int) -> None:
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    kind = sys.argv[1]
    asyncio.run(xai() if kind == "xai" else serve(openai if kind == "openai" else xai_flood))
