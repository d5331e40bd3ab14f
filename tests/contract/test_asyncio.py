"""What only tasks can do: be cancelled."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from deepseek_grpc import Timeouts
from deepseek_grpc.errors import ClosedError, DeadlineExceededError, IdleTimeoutError
from deepseek_grpc.testing import Stall

HELLO = "Hello from the fake server."


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


@pytest.fixture
async def cleanup():
    """Runs something in the cleanup of a task that was cancelled, and returns what it returned."""

    async def run(work):
        started = asyncio.Event()
        results = []

        async def task():
            try:
                started.set()
                await asyncio.Event().wait()
            finally:
                results.append(await work())

        running = asyncio.create_task(task())
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return results[0]

    return run


async def test_the_cleanup_of_a_cancelled_task_has_its_timeouts(fake_server, cleanup):
    fake_server.text.script("one", Stall())

    async def read():
        async with client.text.stream("Hi", timeout=Timeouts(idle=0.1)) as stream:
            with pytest.raises(IdleTimeoutError) as caught:
                await stream.final()
            return caught.value.partial

    async with fake_server.async_client() as client:
        assert await cleanup(read) == "one"


async def test_the_cleanup_of_a_cancelled_task_may_cancel_its_stream(fake_server, cleanup):
    fake_server.text.script("one", Stall())

    async def cancel(stream):
        await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
        await stream.cancel()

    async def read():
        async with client.text.stream("Hi") as stream:
            cancelling = asyncio.create_task(cancel(stream))
            async for _ in stream:
                pass
            await cancelling
            return (await stream.final()).finish_reason

    async with fake_server.async_client() as client:
        assert await cleanup(read) == "cancelled"


@pytest.mark.parametrize("call", [generate, final])
async def test_the_cleanup_of_a_cancelled_task_sees_its_client_closed(fake_server, cleanup, call):
    fake_server.text.script(Stall())

    async def close():
        await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
        await client.aclose()

    async def ask():
        closing = asyncio.create_task(close())
        with pytest.raises(ClosedError):
            await call(client)
        await closing
        return True

    client = fake_server.async_client()
    assert await cleanup(ask)


@pytest.mark.parametrize("call", [generate, final])
async def test_the_cleanup_of_a_cancelled_task_can_be_cancelled(fake_server, cleanup, call):
    fake_server.text.script(Stall())

    async def ask():
        inner = asyncio.current_task()

        async def cancel():
            await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
            inner.cancel()

        cancelling = asyncio.create_task(cancel())
        with pytest.raises(asyncio.CancelledError):
            await call(client)
        await cancelling
        return True

    async with fake_server.async_client() as client:
        assert await cleanup(ask)


async def test_a_task_that_cancels_itself_is_cancelled(fake_server):
    fake_server.text.script(Stall())

    async def ask(client):
        stream = client.text.stream("Hi")
        await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
        asyncio.current_task().cancel()
        await stream.final()

    async with fake_server.async_client() as client:
        task = asyncio.create_task(ask(client))
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_stream_whose_reader_was_cancelled_was_left(fake_server):
    fake_server.text.script(Stall())
    async with fake_server.async_client() as client, client.text.stream("Hi") as stream:
        task = asyncio.create_task(stream.final())
        await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ClosedError, match="left before its end"):
            await stream.final()


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


def test_a_client_serves_several_event_loops(fake_server):
    client = fake_server.async_client()

    async def ask():
        async with client.text.stream("Hi") as stream:
            return (await client.text.generate("Hi")).text, (await stream.final()).text

    with asyncio.Runner() as one, asyncio.Runner() as two:
        assert [runner.run(ask()) for runner in (one, two, one)] == [(HELLO, HELLO)] * 3
        one.run(client.aclose())
        for runner in (one, two):
            with pytest.raises(ClosedError):
                runner.run(ask())


def test_a_client_serves_the_event_loops_of_several_threads(fake_server):
    client = fake_server.async_client()
    together = threading.Barrier(8)

    async def ask():
        together.wait(30)
        return [answer.text for answer in await client.text.generate_many(["Hi"] * 20)]

    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(lambda: asyncio.run(ask())) for _ in range(8)]
        assert [answer.result(50) for answer in answers] == [[HELLO] * 20] * 8
    asyncio.run(client.aclose())


async def test_closing_a_client_ends_its_calls_in_other_loops(fake_server):
    fake_server.text.script(Stall())
    client = fake_server.async_client()

    async def ask():
        with pytest.raises(ClosedError):
            await client.text.generate("Hi")

    elsewhere = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(ask())))
    await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
    await client.aclose()
    await elsewhere


def test_the_channels_of_closed_loops_are_let_go(fake_server):
    client = fake_server.async_client()
    for _ in range(5):
        assert asyncio.run(client.text.generate("Hi")).text == HELLO
    assert len(client._link._rooms) == 1
    asyncio.run(client.aclose())


async def test_a_task_that_is_cancelled_while_it_waits_leaves_its_turn_to_others(fake_server):
    fake_server.text.script("one", Stall())
    async with fake_server.async_client(max_concurrency=1) as client:
        first = client.text.stream("Hi")
        await anext(aiter(first.text()))
        waiting = [asyncio.create_task(client.text.generate("Hi")) for _ in range(3)]
        await asyncio.sleep(0)  # each of them asks for its place
        waiting[0].cancel()
        await first.aclose()
        assert [(await task).text for task in waiting[1:]] == [HELLO] * 2
        assert waiting[0].cancelled()


async def test_closing_a_client_ends_the_queue_for_places(fake_server):
    fake_server.text.script("one", Stall())
    client = fake_server.async_client(max_concurrency=1)
    busy = client.text.stream("Hi")
    await anext(aiter(busy.text()))
    calls = [
        asyncio.create_task(client.text.generate("Hi")),
        asyncio.create_task(client.text.stream("Hi").final()),
    ]
    while len(client._link.room().places._waiting) < 2:  # noqa: ASYNC110 - nothing says so
        await asyncio.sleep(0)
    await client.aclose()
    for call in calls:
        with pytest.raises(ClosedError):
            await call


async def test_waiting_for_a_token_counts_toward_the_total_time(fake_server):
    ready = threading.Event()

    class Slow:
        def cached(self):
            return None

        def token(self):
            ready.wait(30)
            return "late"

    async with fake_server.async_client(credentials=Slow()) as client:
        with pytest.raises(DeadlineExceededError, match="no token within"):
            await client.text.generate("Hi", timeout=0.1)
        ready.set()
