"""Starts a gateway of its own and streams answers from it: async, sync, and two at once through a session.

    python examples/demo.py

It needs no network, no key and no model: what answers is the gateway's embedded n-gram model. It shows the ways that
an answer can take, not how well a DeepSeek model answers.
"""

import asyncio
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from deepseek_grpc import AsyncClient, AsyncSession, Client, DeepSeekError, Usage

START_SECONDS = 30.0


def main() -> None:
    """Runs the three demonstrations against one gateway."""
    try:
        with gateway() as environ:
            print("The model is embedded-ngram: a small n-gram model inside the gateway, made for trying things out.")
            print("It is no DeepSeek model. It keeps to 400 tokens a second, so that there is something to watch.")
            asyncio.run(with_async_client(environ))
            with_sync_client(environ)
            asyncio.run(with_session(environ))
    except (DeepSeekError, OSError, RuntimeError) as error:
        raise SystemExit(f"the demo failed: {error}") from error
    print("\nDone. The gateway has drained and ended.")


async def with_async_client(environ: dict[str, str]) -> None:
    """Streams one answer."""
    heading("AsyncClient", question := "What is gRPC?")
    async with AsyncClient.from_env(environ) as client:
        await client.health()  # connects now, so that the first token's time is the answer's alone
        clock = Clock()
        async with client.text.stream(question, temperature=0.7, top_p=0.9) as stream:
            async for piece in stream.text():
                clock.tick()
                print(piece, end="", flush=True)
            final = await stream.final()
        print(f"\n{clock.summary(final.usage)}")


def with_sync_client(environ: dict[str, str]) -> None:
    """Does the same without asyncio: the names are the same, the `await`s are gone."""
    heading("Client", question := "What is a deadline?")
    with Client.from_env(environ) as client:
        client.health()
        clock = Clock()
        with client.text.stream(question, temperature=0.7, top_p=0.9) as stream:
            for piece in stream.text():
                clock.tick()
                print(piece, end="", flush=True)
            final = stream.final()
        print(f"\n{clock.summary(final.usage)}")


async def with_session(environ: dict[str, str]) -> None:
    """Streams two answers at once over one bidirectional call."""
    questions = ("What is server streaming?", "What is cancellation?")
    heading("AsyncSession, two turns at once", " / ".join(questions))
    async with AsyncClient.from_env(environ) as client:
        await client.health()
        async with client.text.session() as session:
            await asyncio.gather(turn(session, "A", questions[0]), turn(session, "B", questions[1]))


async def turn(session: AsyncSession, name: str, question: str) -> None:
    """Streams one answer of several and prints it a sentence at a time, so that they stay readable side by side."""
    clock = Clock()
    sentence = ""
    async with session.stream(question, temperature=0.7, top_p=0.9) as stream:
        async for piece in stream.text():
            clock.tick()
            sentence += piece
            if piece.endswith("."):
                print(f"{name} | {sentence.strip()}", flush=True)
                sentence = ""
        final = await stream.final()
    print(f"{name} | {sentence.strip()}\n" * bool(sentence.strip()) + f"{name} | {clock.summary(final.usage)}")


def heading(client: str, question: str) -> None:
    """Prints what comes next."""
    print(f"\n=== {client}: {question}", flush=True)


class Clock:
    """Measures one answer, from its creation on."""

    def __init__(self) -> None:
        """Starts."""
        self.begun = time.perf_counter()
        self.first: float | None = None

    def tick(self) -> None:
        """A piece of the answer came."""
        if self.first is None:
            self.first = time.perf_counter()

    def summary(self, usage: Usage) -> str:
        """Says how fast it came; the rate leaves the first token out, which opens the span that it is taken over."""
        if self.first is None:
            return "[no text came]"
        rate = (usage.completion_tokens - 1) / (time.perf_counter() - self.first)
        return (
            f"[first token after {(self.first - self.begun) * 1000:.1f} ms, {rate:.0f} tokens/s; "
            f"usage: {usage.prompt_tokens} prompt + {usage.completion_tokens} completion tokens]"
        )


@contextmanager
def gateway() -> Iterator[dict[str, str]]:
    """Runs `deepseek-grpc serve`, and gives the environment in which clients can call it.

    The credential is random, and known to these two processes only.
    """
    environ = {
        "DEEPSEEK_GRPC_CLIENT_ID": f"demo-{secrets.token_hex(4)}",
        "DEEPSEEK_GRPC_CLIENT_SECRET": secrets.token_urlsafe(36),
    }
    command = [sys.executable, "-m", "deepseek_grpc.cli", "serve", "--listen", "127.0.0.1:0", "--pace", "400"]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, env=os.environ | environ, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            yield environ | {"DEEPSEEK_GRPC_TARGET": address(process)}
            process.terminate()  # SIGTERM: running calls may end, then it exits with 0
            code = process.wait(START_SECONDS)
        except BaseException:
            process.kill()
            process.wait()
            log.seek(0)
            print(f"\nThe gateway's standard error:\n{log.read() or '(empty)'}", file=sys.stderr)
            raise
    if code != 0:
        raise RuntimeError(f"the gateway exited with {code}")


def address(process: subprocess.Popen[str]) -> str:
    """Waits until the gateway can be called and returns where it listens."""
    too_late = threading.Timer(START_SECONDS, process.kill)
    too_late.start()
    try:
        for line in process.stdout or ():
            if line.startswith("listening on "):
                return line.removeprefix("listening on ").strip()
    finally:
        too_late.cancel()
    raise RuntimeError("the gateway ended before it could be called")


if __name__ == "__main__":
    main()
