"""Processes that fork: what goes on working in the child, and what is refused there instead of hanging."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap

import pytest

from deepseek_grpc import Client

HELLO = "Hello from the fake server."

CHILD = """
import os, sys

def in_child(work):
    \"\"\"Runs something in a forked process; it prints what it has to say.\"\"\"
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert status == 0, status

def say(text):
    print(text, flush=True)
"""


def run(script, fake_server):
    done = subprocess.run(
        [sys.executable, "-c", CHILD + textwrap.dedent(script)],
        env={**os.environ, **fake_server.environ},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_client_made_before_the_fork_is_used_after_it(fake_server):
    said = run(
        """
        from deepseek_grpc import Client
        client = Client.from_env()  # a prefork server's master imports the application
        for _ in range(3):
            in_child(lambda: say(client.text.generate("Hi").text))
        say(client.text.generate("Hi").text)
        """,
        fake_server,
    )
    assert said == [HELLO] * 4


def test_a_client_whose_calls_are_over_is_used_on_both_sides_of_a_fork(fake_server):
    said = run(
        """
        from deepseek_grpc import Client
        client = Client.from_env(max_concurrency=1)

        def ask():
            say(client.text.generate("Hi").text)
            with client.text.stream("Hi") as stream:
                say(stream.final().text)

        ask()
        for _ in range(2):
            in_child(ask)
            ask()
        """,
        fake_server,
    )
    assert said == [HELLO] * 10


@pytest.mark.parametrize("closed", [True, False])
def test_grpc_is_refused_in_the_child_of_a_process_that_used_asyncio(fake_server, closed):
    said = run(
        f"""
        import asyncio
        from deepseek_grpc import AsyncClient, Client

        sync = Client.from_env()
        say(sync.text.generate("Hi").text)
        client = AsyncClient.from_env()

        async def ask(client, close):
            try:
                say((await client.text.generate("Hi")).text)
            finally:
                if close:
                    await client.aclose()

        asyncio.run(ask(client, {closed}))
        in_child(lambda: asyncio.run(ask(AsyncClient.from_env(), True)))
        in_child(lambda: say(sync.text.generate("Hi").text))
        in_child(lambda: say(Client.from_env().text.models()))
        asyncio.run(ask(AsyncClient.from_env(), True))
        """,
        fake_server,
    )
    assert [said[0], said[1], said[-1]] == [HELLO] * 3
    assert len(said) == 6
    for line in said[2:-1]:
        assert line.startswith("ConfigurationError: this process was forked from one that had used grpc.aio")
        assert "'spawn'" in line


def test_a_gateway_in_the_process_counts_as_asyncio(fake_server):
    said = run(
        """
        from deepseek_grpc import Client
        from deepseek_grpc.testing import FakeServer
        with FakeServer():
            in_child(lambda: Client.from_env().text.generate("Hi"))
        """,
        fake_server,
    )
    assert len(said) == 1
    assert said[0].startswith("ConfigurationError: this process was forked")


def test_the_master_of_async_workers_has_made_its_client_only(fake_server):
    said = run(
        """
        import asyncio
        from deepseek_grpc import AsyncClient
        client = AsyncClient.from_env()

        async def ask():
            say((await client.text.generate("Hi")).text)

        for _ in range(2):
            in_child(lambda: asyncio.run(ask()))
        """,
        fake_server,
    )
    assert said == [HELLO] * 2


def answer(environ):
    with Client.from_env(environ) as client:
        return client.text.generate("Hi").text


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_multiprocessing(fake_server, method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(answer, [dict(fake_server.environ)] * 4) == [HELLO] * 4
