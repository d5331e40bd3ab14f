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


def test_grpc_is_refused_in_the_child_of_a_process_that_used_asyncio(fake_server):
    # Such a process says so by `asyncio_used`. That it really makes calls before is left out here: then gRPC may hang
    # within fork() itself.
    said = run(
        """
        import asyncio
        from deepseek_grpc import AsyncClient, Client, _forks
        from deepseek_grpc.testing import FakeServer

        client, async_client = Client.from_env(), AsyncClient.from_env()
        _forks.asyncio_used()

        def serve():
            with FakeServer():
                pass

        in_child(Client.from_env)
        in_child(AsyncClient.from_env)
        in_child(lambda: client.text.generate("Hi"))
        in_child(lambda: asyncio.run(async_client.text.generate("Hi")))
        in_child(serve)
        """,
        fake_server,
    )
    assert len(said) == 5
    for line in said:
        assert line.startswith("ConfigurationError: this process was forked from one that had used grpc.aio")
        assert "'spawn'" in line


@pytest.mark.parametrize(
    "use",
    [
        "asyncio.run(ask())",
        "with FakeServer(): pass",
        "with LocalGateway() as gateway, gateway.client() as client: client.text.models()",
    ],
)
def test_who_uses_asyncio_says_so(fake_server, use):
    said = run(
        f"""
        import asyncio
        from deepseek_grpc import AsyncClient, Client, _forks
        from deepseek_grpc.local import LocalGateway
        from deepseek_grpc.testing import FakeServer

        async def ask():
            async with AsyncClient.from_env() as client:
                await client.text.generate("Hi")

        Client.from_env().text.generate("Hi")
        say(_forks._asyncio_used)
        {use}
        say(_forks._asyncio_used)
        """,
        fake_server,
    )
    assert said == ["False", "True"]


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
