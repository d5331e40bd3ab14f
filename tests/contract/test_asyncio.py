"""What only tasks can do: be cancelled."""

from __future__ import annotations

import asyncio

import pytest

from deepseek_grpc.errors import ConfigurationError
from deepseek_grpc.testing import Stall


async def generate(client):
    await client.text.generate("Hi")


async def stream(client):
    async with client.text.stream("Hi") as answer:
        async for _ in answer:
            pass


async def final(client):
    async with client.text.stream("Hi") as answer:
        await answer.final()


async def turn(client):
    async with client.text.session() as session:
        await session.generate("Hi")


async def streamed_turn(client):
    async with client.text.session() as session, session.stream("Hi") as answer:
        await answer.final()


CALLS = [generate, stream, final, turn, streamed_turn]


@pytest.mark.parametrize("call", CALLS)
async def test_a_cancelled_task_cancels_the_engine(fake_server, call):
    fake_server.text.script(Stall())
    async with fake_server.async_client() as client:
        task = asyncio.create_task(call(client))
        await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


@pytest.mark.parametrize("call", CALLS)
async def test_asyncios_own_timeout_stays_asyncios(fake_server, call):
    fake_server.text.script(Stall())
    async with fake_server.async_client() as client:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.2):
                await call(client)
        assert type(caught.value) is TimeoutError
        await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


async def test_a_cancelled_turn_leaves_its_session_up(fake_server):
    fake_server.text.script(Stall())
    async with fake_server.async_client() as client, client.text.session() as session:
        task = asyncio.create_task(session.generate("Hi"))
        await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)
        assert (await session.generate("Hi")).text == "Hello from the fake server."


async def test_a_failing_task_group_cancels_its_calls(fake_server):
    fake_server.text.script(Stall())

    async def fail():
        await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
        raise ZeroDivisionError

    async def both(client):
        async with asyncio.TaskGroup() as group:
            group.create_task(client.text.generate("Hi"))
            group.create_task(fail())

    async with fake_server.async_client() as client:
        with pytest.raises(ExceptionGroup) as caught:
            await both(client)
        assert caught.group_contains(ZeroDivisionError)
        assert len(caught.value.exceptions) == 1
        await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


def test_a_client_belongs_to_one_loop(fake_server):
    client = fake_server.async_client()

    async def first():
        await client.text.generate("Hi")

    async def second():
        with pytest.raises(ConfigurationError, match="another event loop"):
            await client.text.generate("Hi")

    with asyncio.Runner() as one, asyncio.Runner() as two:
        one.run(first())
        two.run(second())
        one.run(client.aclose())
