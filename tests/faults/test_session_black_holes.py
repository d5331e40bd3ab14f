"""Sessions on a network that swallows everything, or that isn't there for a while."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace

import pytest

from deepseek_grpc import AsyncClient, Client, ClientConfig, Keepalive, TextDelta, Timeouts
from deepseek_grpc.errors import (
    ClosedError,
    DeadlineExceededError,
    ServiceUnavailableError,
    StreamInterruptedError,
)
from deepseek_grpc.testing import Delay, Stall
from tests.faults.proxy import Proxy
from tests.faults.session_load import Outages

ALERT = ClientConfig(keepalive=Keepalive(0.1, 0.3), timeouts=Timeouts(connect=0.5))
SHORT = replace(ALERT, reconnect_seconds=0.5)
HELLO = "Hello from the fake server."
PATIENCE = 20

OUTAGES = {"dark": (Proxy.freeze, Proxy.thaw), "down": (Proxy.down, Proxy.up)}
"""Nothing gets through and nothing is closed; or everything is closed, and nobody gets in."""

every_outage = pytest.mark.parametrize("outage", OUTAGES)


@pytest.fixture
def proxy(fake_server):
    with Proxy(fake_server.target) as proxy:
        yield proxy


def through(proxy, server, config=ALERT):
    return Client(proxy.address, credentials=server.credentials(), config=config)


def through_async(proxy, server, config=ALERT):
    return AsyncClient(proxy.address, credentials=server.credentials(), config=config)


async def first_piece(stream):
    async for event in stream:
        if isinstance(event, TextDelta):
            return event.text
    return None


def first_piece_sync(stream):
    return next(event.text for event in stream if isinstance(event, TextDelta))


async def test_a_streaming_turn_goes_on_after_a_black_hole(fake_server, proxy):
    fake_server.text.script("one", Delay(0.2), "two")
    async with (
        through_async(proxy, fake_server) as client,
        client.text.session() as session,
        session.stream("Hi") as stream,
    ):
        assert await first_piece(stream) == "one"
        proxy.black_hole()
        answer = await stream.final()
    assert (answer.text, answer.meta.resumed, answer.meta.continued) == ("onetwo", 1, 0)
    assert len(fake_server.text.requests) == 1


def test_a_streaming_turn_goes_on_after_a_black_hole_sync(fake_server, proxy):
    fake_server.text.script("one", Delay(0.2), "two")
    with through(proxy, fake_server) as client, client.text.session() as session, session.stream("Hi") as stream:
        assert first_piece_sync(stream) == "one"
        proxy.black_hole()
        answer = stream.final()
    assert (answer.text, answer.meta.resumed, answer.meta.continued) == ("onetwo", 1, 0)
    assert len(fake_server.text.requests) == 1


async def test_a_waiting_turn_is_answered_after_a_black_hole(fake_server, proxy):
    fake_server.text.script(Delay(0.2), "late")
    async with through_async(proxy, fake_server) as client, client.text.session() as session:
        waiting = asyncio.create_task(session.generate("Hi"))
        await asyncio.to_thread(fake_server.text.wait_for_requests, 1)
        proxy.black_hole()
        answer = await waiting
    assert (answer.text, answer.meta.resumed) == ("late", 1)
    assert len(fake_server.text.requests) == 1


def test_a_waiting_turn_is_answered_after_a_black_hole_sync(fake_server, proxy):
    fake_server.text.script(Delay(0.2), "late")
    with through(proxy, fake_server) as client, client.text.session() as session:
        stream = session.stream("Hi")
        fake_server.text.wait_for_requests(1)
        proxy.black_hole()
        answer = stream.final()
    assert (answer.text, answer.meta.resumed) == ("late", 1)
    assert len(fake_server.text.requests) == 1


async def test_an_idle_session_notices_a_black_hole_by_itself(fake_server, proxy):
    async with through_async(proxy, fake_server) as client, client.text.session() as session:
        await session.generate("Hi")
        before = session.session_id
        with Outages() as outages:
            proxy.black_hole()
            await asyncio.to_thread(outages.wait_for, lambda seen: len(seen.resumed) == 1)
        assert session.session_id == before
        answer = await session.generate("Hi")
    assert (answer.text, answer.meta.resumed) == (HELLO, 0)


def test_an_idle_session_notices_a_black_hole_by_itself_sync(fake_server, proxy):
    with through(proxy, fake_server) as client, client.text.session() as session:
        session.generate("Hi")
        before = session.session_id
        with Outages() as outages:
            proxy.black_hole()
            outages.wait_for(lambda seen: len(seen.resumed) == 1)
        assert session.session_id == before
        answer = session.generate("Hi")
    assert (answer.text, answer.meta.resumed) == (HELLO, 0)


@every_outage
async def test_a_turn_that_is_cancelled_in_an_outage(fake_server, proxy, outage):
    begin, end = OUTAGES[outage]
    fake_server.text.script("one", Stall())
    async with through_async(proxy, fake_server) as client, client.text.session() as session:
        stream = session.stream("Hi")
        assert await first_piece(stream) == "one"
        begin(proxy)
        await stream.cancel()
        answer = await asyncio.wait_for(stream.final(), PATIENCE)
        assert (answer.text, answer.finish_reason) == ("one", "cancelled")
        end(proxy)
        # The gateway hears of it as soon as there is a way.
        await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)
        assert (await session.generate("Hi")).text == HELLO


@every_outage
def test_a_turn_that_is_cancelled_in_an_outage_sync(fake_server, proxy, outage):
    begin, end = OUTAGES[outage]
    fake_server.text.script("one", Stall())
    with through(proxy, fake_server) as client, client.text.session() as session:
        stream = session.stream("Hi")
        assert first_piece_sync(stream) == "one"
        begin(proxy)
        stream.cancel()
        answer = stream.final()
        assert (answer.text, answer.finish_reason) == ("one", "cancelled")
        end(proxy)
        fake_server.text.wait_for_cancellations(1)
        assert session.generate("Hi").text == HELLO


@every_outage
async def test_a_client_that_is_closed_in_an_outage(fake_server, proxy, outage):
    fake_server.text.script("one", Stall())
    client = through_async(proxy, fake_server)
    session = client.text.session()
    stream = session.stream("Hi")
    assert await first_piece(stream) == "one"
    waiting = asyncio.create_task(stream.final())
    OUTAGES[outage][0](proxy)
    await asyncio.wait_for(client.aclose(), PATIENCE)
    with pytest.raises(ClosedError) as caught:
        await asyncio.wait_for(waiting, PATIENCE)
    assert caught.value.partial == "one"


@every_outage
def test_a_client_that_is_closed_in_an_outage_sync(fake_server, proxy, outage):
    fake_server.text.script("one", Stall())
    client = through(proxy, fake_server)
    session = client.text.session()
    stream = session.stream("Hi")
    assert first_piece_sync(stream) == "one"
    OUTAGES[outage][0](proxy)
    closing = threading.Thread(target=client.close, daemon=True)
    closing.start()
    with pytest.raises(ClosedError) as caught:
        stream.final()
    closing.join(PATIENCE)
    assert not closing.is_alive()
    assert caught.value.partial == "one"


@every_outage
async def test_a_deadline_that_passes_in_an_outage(fake_server, proxy, outage):
    begin, end = OUTAGES[outage]
    fake_server.text.script("one", Stall())
    async with through_async(proxy, fake_server) as client, client.text.session() as session:
        stream = session.stream("Hi", timeout=1.5)
        assert await first_piece(stream) == "one"
        begin(proxy)
        with pytest.raises(DeadlineExceededError) as caught:
            await asyncio.wait_for(stream.final(), PATIENCE)  # which is less than `reconnect_seconds`
        assert caught.value.partial == "one"
        with pytest.raises(DeadlineExceededError):
            await asyncio.wait_for(session.generate("Hi", timeout=0.3), PATIENCE)
        end(proxy)
        assert (await session.generate("Hi")).text == HELLO


@every_outage
def test_a_deadline_that_passes_in_an_outage_sync(fake_server, proxy, outage):
    begin, end = OUTAGES[outage]
    fake_server.text.script("one", Stall())
    with through(proxy, fake_server) as client, client.text.session() as session:
        stream = session.stream("Hi", timeout=1.5)
        assert first_piece_sync(stream) == "one"
        begin(proxy)
        with pytest.raises(DeadlineExceededError) as caught:
            stream.final()
        assert caught.value.partial == "one"
        with pytest.raises(DeadlineExceededError):
            session.generate("Hi", timeout=0.3)
        end(proxy)
        assert session.generate("Hi").text == HELLO


@every_outage
@pytest.mark.parametrize("on_interrupt", ["raise", "continue"])
async def test_an_outage_that_lasts_too_long(fake_server, proxy, outage, on_interrupt):
    begin, end = OUTAGES[outage]
    fake_server.text.script("one", Stall())
    fake_server.text.script(Stall())
    async with through_async(proxy, fake_server, SHORT) as client, client.text.session() as session:
        stream = session.stream("Hi", on_interrupt=on_interrupt)
        assert await first_piece(stream) == "one"
        waiting = asyncio.create_task(session.generate("Hi"))
        await asyncio.to_thread(fake_server.text.wait_for_requests, 2)
        begin(proxy)
        with pytest.raises(StreamInterruptedError) as caught:
            await asyncio.wait_for(stream.final(), PATIENCE)
        assert caught.value.partial == "one"
        with pytest.raises(ServiceUnavailableError):
            await asyncio.wait_for(waiting, PATIENCE)
        end(proxy)
        assert (await asyncio.wait_for(later(session), PATIENCE)).text == HELLO


async def later(session):
    """Asks until there is an answer: what isn't there is said at once, until the channel has tried again."""
    while True:
        try:
            return await session.generate("Hi")
        except ServiceUnavailableError:
            await asyncio.sleep(0.05)


def later_sync(session):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return session.generate("Hi")
        except ServiceUnavailableError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@every_outage
@pytest.mark.parametrize("on_interrupt", ["raise", "continue"])
def test_an_outage_that_lasts_too_long_sync(fake_server, proxy, outage, on_interrupt):
    begin, end = OUTAGES[outage]
    fake_server.text.script("one", Stall())
    fake_server.text.script(Stall())
    with through(proxy, fake_server, SHORT) as client, client.text.session() as session:
        stream = session.stream("Hi", on_interrupt=on_interrupt)
        assert first_piece_sync(stream) == "one"
        waiting = session.stream("Hi")
        fake_server.text.wait_for_requests(2)
        begin(proxy)
        with pytest.raises(StreamInterruptedError) as caught:
            stream.final()
        assert caught.value.partial == "one"
        with pytest.raises(ServiceUnavailableError):
            waiting.final()
        end(proxy)
        assert later_sync(session).text == HELLO
