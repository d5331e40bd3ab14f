"""A server with nothing behind it: pre-encoded answers, so that a benchmark sees the client alone.

    python benchmarks/instant_server.py

prints the port and serves until its standard input closes.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from deepseek_rpc.v2 import text_pb2 as pb

SERVICE = "deepseek_rpc.v2.TextService"
MESSAGES = 200
"""Messages of one stream."""


def answer() -> bytes:
    response = pb.GenerateResponse(id="a-1", created=1, model="instant", finish_reason=pb.FINISH_REASON_STOP)
    response.message.role = pb.ROLE_ASSISTANT
    response.message.content = "Hello from the instant server, with an answer of an ordinary length."
    response.usage.prompt_tokens, response.usage.completion_tokens, response.usage.total_tokens = 12, 14, 26
    response.upstream.backend, response.upstream.attempts, response.upstream.gateway_ms = "instant", 1, 0.1
    return response.SerializeToString()


def batch(chunks: int) -> bytes:
    return pb.StreamGenerateResponse(
        chunks=[pb.GenerateChunk(text=" token") for _ in range(chunks)]
    ).SerializeToString()


def ends() -> tuple[bytes, bytes]:
    head = pb.StreamGenerateResponse()
    head.chunks.add().head.model = "instant"
    tail = pb.StreamGenerateResponse()
    tail.chunks.add().tail.finish_reason = pb.FINISH_REASON_STOP
    return head.SerializeToString(), tail.SerializeToString()


async def serve() -> None:
    whole = answer()
    head, tail = ends()
    batches = {size: batch(size) for size in (1, 64)}

    async def generate(request: bytes, context: Any) -> bytes:
        return whole

    async def stream(request: bytes, context: Any) -> Any:
        # max_tokens says how many chunks go into one message.
        message = batches[pb.GenerateRequest.FromString(request).max_tokens]
        yield head
        for _ in range(MESSAGES):
            yield message
        yield tail

    server = grpc.aio.server()
    handlers: dict[str, Any] = {
        "Generate": grpc.unary_unary_rpc_method_handler(generate),
        "StreamGenerate": grpc.unary_stream_rpc_method_handler(stream),
    }
    server.add_registered_method_handlers(SERVICE, handlers)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    port = server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(serve())
