"""`max_concurrency`: so many calls at a time, the others wait for their turn."""

from __future__ import annotations

import pytest

from deepseek_grpc import Timeouts
from deepseek_grpc.errors import ClosedError, ConfigurationError, DeadlineExceededError
from deepseek_grpc.testing import Delay, Stall
from tests.contract.concurrency import gather, start_task

HELLO = "Hello from the fake server."


async def test_no_more_calls_are_under_way_than_that(fake_server):
    for _ in range(12):
        fake_server.text.script("one", Delay(0.01), "two")
    async with fake_server.async_client(max_concurrency=3) as client:

        async def ask():
            return (await client.text.generate("Hi")).text

        async def read():
            async with client.text.stream("Hi") as stream:
                return (await stream.final()).text

        assert await gather(*[ask, read] * 6) == ["onetwo"] * 12
    assert fake_server.text.most_at_once <= 3


async def test_a_stream_that_got_no_place_begins_when_one_is_free(fake_server):
    fake_server.text.script("first")
    fake_server.text.script("second")
    async with fake_server.async_client(max_concurrency=1) as client:
        one, two = client.text.stream("Hi"), client.text.stream("Hi")
        assert (await one.final()).text == "first"  # its end makes room, without a `with` block
        assert (await two.final()).text == "second"


async def test_the_time_in_the_queue_counts(fake_server):
    fake_server.text.script("one", Stall())
    async with fake_server.async_client(max_concurrency=1) as client, client.text.stream("Hi") as busy:
        async for _ in busy:
            break
        with pytest.raises(DeadlineExceededError, match=r"1 places were taken \(max_concurrency\)"):
            await client.text.generate("Hi", timeout=0.05)
        with pytest.raises(DeadlineExceededError, match="max_concurrency"):
            async with client.text.stream("Hi", timeout=Timeouts(total=0.05, first_token=0.01)) as stream:
                await stream.final()
    assert len(fake_server.text.requests) == 1


async def test_a_stream_that_waits_for_its_turn_can_be_cancelled(fake_server):
    fake_server.text.script("one", Stall())
    async with fake_server.async_client(max_concurrency=1) as client, client.text.stream("Hi") as busy:
        async for _ in busy:
            break
        async with client.text.stream("Hi") as waiting:
            reading = start_task(waiting.final)
            await waiting.cancel()
            assert (await reading.result()).finish_reason == "cancelled"
        await busy.cancel()
        async for _ in busy:
            pass
        assert (await client.text.generate("Hi")).text == HELLO
    assert len(fake_server.text.requests) == 2


async def test_a_failed_call_makes_room(fake_server):
    async with fake_server.async_client(max_concurrency=1, credentials="wrong") as client:
        for _ in range(3):
            with pytest.raises(Exception, match="credential"):
                await client.text.generate("Hi")
            with pytest.raises(Exception, match="credential"):
                await client.text.stream("Hi").final()


async def test_closing_the_client_ends_the_queue(fake_server):
    fake_server.text.script("one", Stall())
    client = fake_server.async_client(max_concurrency=1)
    busy = client.text.stream("Hi")
    async for _ in busy:
        break

    async def ask():
        await client.text.generate("Hi", timeout=20)

    waiting = start_task(ask)
    await client.aclose()
    with pytest.raises(ClosedError):
        await waiting.result()
    with pytest.raises(ClosedError):
        await busy.final()


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "many", True])
async def test_a_number_that_is_none_is_refused(fake_server, wrong):
    with pytest.raises(ConfigurationError, match="max_concurrency"):
        fake_server.async_client(max_concurrency=wrong)
