"""Two gateways are restarted in turn, under load, and nobody who calls them notices."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Self

import pytest

from deepseek_grpc import AsyncClient, Client, JWTSigner, TextDelta
from deepseek_grpc.errors import DeepSeekError, NotFoundError
from tests.gateway_process import end, free_port, start

SECRET = "0123456789abcdef0123456789abcdef"
ROUNDS = 1
PACE = 60
"""Tokens a second."""
TOKENS = 40
"""Of a streamed answer, which so takes two thirds of a second."""

CONFIG = f"""
[gateway]
listen = "127.0.0.1:%d"
drain_seconds = 20

[[backends]]
name = "embedded"
pace = {PACE}.0

[[clients]]
id = "test-client"
secret_file = "secret"
roles = ["test"]

[roles]
test = ["text.*"]

[aliases]
"%s" = "embedded-ngram"
"""


class Server:
    """A gateway that can be started again where it was."""

    def __init__(self, folder, port) -> None:
        self._port = port
        self._config = folder / f"{port}.toml"
        self._log = folder / f"{port}.log"
        self.address = f"127.0.0.1:{port}"
        self.starts = 0
        self.process: subprocess.Popen | None = None

    @property
    def model(self) -> str:
        """A model that nobody else serves, nor did this one before it was started again."""
        return f"{self._port}-{self.starts}"

    def start(self) -> None:
        self.starts += 1
        self._config.write_text(CONFIG % (self._port, self.model))
        command = [sys.executable, "-m", "deepseek_grpc.cli", "serve", "--config", str(self._config)]
        with self._log.open("a") as log:
            self.process, address = start(command, stderr=log)
        assert address == self.address

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        finally:
            end(self.process)

    def kill(self) -> None:
        if self.process is not None:
            end(self.process)


@dataclass
class Call:
    """What happened to a call."""

    who: str
    began: float
    ended: float | None = None
    outcome: str = ""
    """Empty for an answer that came whole."""


@dataclass
class History:
    """Every call that was made, in the order of their beginnings; written by many threads."""

    calls: list[Call] = field(default_factory=list)

    def begin(self, who: str) -> Call:
        call = Call(who, time.monotonic())
        self.calls.append(call)
        return call

    @staticmethod
    def end(call: Call, outcome: str) -> None:
        call.outcome = outcome
        call.ended = time.monotonic()

    def wait_for(self, since: float, each: int, kinds: set[str], *, seconds: float = 30) -> None:
        """Waits until as many calls of each kind that began since then have ended."""
        deadline = time.monotonic() + seconds
        while any(
            sum(call.who == who and call.began > since and call.ended is not None for call in self.calls) < each
            for who in kinds
        ):
            assert time.monotonic() < deadline, f"no progress: {[call for call in self.calls if call.ended is None]}"
            time.sleep(0.02)


def whole(pieces: int, reason: str, expected: int) -> str:
    """Returns what is wrong with an answer."""
    return "" if (pieces, reason) == (expected, "length") else f"{pieces} pieces, {reason}"


def generate(client) -> str:
    answer = client.text.generate("What is a deadline?", max_tokens=4)
    return whole(answer.usage.completion_tokens, answer.finish_reason, 4)


def stream(client) -> str:
    with client.text.stream("What is a deadline?", max_tokens=TOKENS) as events:
        pieces = sum(isinstance(event, TextDelta) for event in events)
        return whole(pieces, events.final().finish_reason, TOKENS)


async def generate_async(client) -> str:
    answer = await client.text.generate("What is a deadline?", max_tokens=4)
    return whole(answer.usage.completion_tokens, answer.finish_reason, 4)


async def stream_async(client) -> str:
    async with client.text.stream("What is a deadline?", max_tokens=TOKENS) as events:
        pieces = 0
        async for event in events:
            pieces += isinstance(event, TextDelta)
        return whole(pieces, (await events.final()).finish_reason, TOKENS)


KINDS = {"generate", "stream", "generate_async", "stream_async"}


class Load:
    """Calls through both clients, unary and streamed, one after the other in several threads and tasks."""

    def __init__(self, target: str) -> None:
        self.history = History()
        self._target = target
        self._over = threading.Event()
        self._client = Client(target, credentials=JWTSigner("test-client", SECRET))
        self._threads = [threading.Thread(target=self._call, args=(work,)) for work in (generate, stream) * 2]
        self._threads.append(threading.Thread(target=lambda: asyncio.run(self._call_all_async())))
        self._async: Future[tuple[AsyncClient, asyncio.AbstractEventLoop]] = Future()

    def reach(self, server: Server) -> None:
        """Waits until a gateway answers calls of both clients, which have to find out that it is there."""
        client, loop = self._async.result(30)
        for ask in (
            lambda: self._client.text.generate("Hi", model=server.model, max_tokens=1),
            lambda: asyncio.run_coroutine_threadsafe(
                client.text.generate("Hi", model=server.model, max_tokens=1), loop
            ).result(30),
        ):
            deadline = time.monotonic() + 30
            while True:
                try:
                    ask()
                    break
                except NotFoundError:  # it was another one that answered
                    assert time.monotonic() < deadline
                    time.sleep(0.02)

    def _call(self, work) -> None:
        while not self._over.is_set():
            call = self.history.begin(work.__name__)
            try:
                outcome = work(self._client)
            except DeepSeekError as error:
                outcome = repr(error)
            except BaseException as error:
                self.history.end(call, repr(error))
                raise
            self.history.end(call, outcome)

    async def _call_async(self, work, client) -> None:
        while not self._over.is_set():
            call = self.history.begin(work.__name__)
            try:
                outcome = await work(client)
            except DeepSeekError as error:
                outcome = repr(error)
            self.history.end(call, outcome)

    async def _call_all_async(self) -> None:
        async with AsyncClient(self._target, credentials=JWTSigner("test-client", SECRET)) as client:
            self._async.set_result((client, asyncio.get_running_loop()))
            await asyncio.gather(*(self._call_async(work, client) for work in (generate_async, stream_async) * 2))

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._client.close()


@pytest.fixture
def servers(tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    with ExitStack() as stack:
        pair = []
        for _ in range(2):
            pair.append(Server(tmp_path, free_port()))
            stack.callback(pair[-1].kill)
        yield pair


@pytest.mark.timeout(180)
def test_a_rolling_restart_loses_no_call(servers):
    first, second = servers
    first.start()
    second.start()
    with Load(f"ipv4:{first.address},{second.address}") as load:
        load.reach(first)
        load.reach(second)
        for _ in range(ROUNDS):
            for server in servers:
                assert server.stop() == 0
                load.history.wait_for(time.monotonic(), 1, KINDS)
                server.start()
                load.reach(server)
    calls = load.history.calls
    lost = [call for call in calls if call.outcome]
    assert not lost, f"{len(lost)} of {len(calls)} calls were lost: {lost[:5]}"
    assert all(call.ended is not None for call in calls)
    assert [server.starts for server in servers] == [1 + ROUNDS] * 2
