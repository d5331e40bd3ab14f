"""Sessions whose connections are cut, at any byte: nothing is lost, nothing comes twice, everything ends once."""

from __future__ import annotations

import asyncio
import sys

import pytest

from deepseek_grpc import AsyncClient, Client, ClientConfig, Keepalive, Timeouts
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.testing import Delay, FakeServer
from tests.faults.proxy import Fault, Proxy, faults
from tests.faults.session_load import Load, Outages, draw, references

ALERT = ClientConfig(keepalive=Keepalive(0.1, 0.3), timeouts=Timeouts(connect=0.5))
SESSIONS = 4
PACE = 500
"""Tokens a second of each turn, so that they travel in many messages."""
MOST_BYTES = 30_000
"""That a connection carries before it is struck, beyond the early ones: enough for all sessions to be back."""
HELLO = "Hello from the fake server."


def loaded(turns, plan):
    """Returns the load; it goes on until every fault of the plan has struck."""
    expected = asyncio.run(references(turns, EmbeddedEngine()))
    proxies = []
    return Load(turns, expected, lambda: len(proxies[0].struck) < len(plan)), proxies


async def run(turns, plan, config):
    load, proxies = await asyncio.to_thread(loaded, turns, plan)
    with (
        FakeServer(engine=EmbeddedEngine(pace=PACE)) as server,
        Proxy(server.target, seed=1) as proxy,
        Outages() as outages,
    ):
        proxies.append(proxy)
        async with AsyncClient(proxy.address, credentials=server.credentials(), config=config) as client:
            sessions = [client.text.session() for _ in range(SESSIONS)]
            for session in sessions:
                await session.generate("Hi", max_tokens=1)
            proxy.follow(plan)
            await load.run(sessions)
    check(load, proxy, plan, outages)


def run_sync(turns, plan, config):
    load, proxies = loaded(turns, plan)
    with (
        FakeServer(engine=EmbeddedEngine(pace=PACE)) as server,
        Proxy(server.target, seed=1) as proxy,
        Outages() as outages,
    ):
        proxies.append(proxy)
        with Client(proxy.address, credentials=server.credentials(), config=config) as client:
            sessions = [client.text.session() for _ in range(SESSIONS)]
            for session in sessions:
                session.generate("Hi", max_tokens=1)
            proxy.follow(plan)
            load.run_sync(sessions)
    check(load, proxy, plan, outages)


def check(load, proxy, plan, outages):
    assert load.problems() == []
    answers = load.answers()
    assert len(answers) == load.begun >= len(load.turns)
    assert sorted(connection.struck for connection in proxy.struck) == sorted(fault.kind for fault in plan)
    assert sum(answer.meta.resumed for answer in answers.values()) > 0
    assert not any(answer.meta.continued for answer in answers.values())
    sys.stdout.write(f"{load.begun} turns, {len(plan)} faults; {outages.report()}\n")  # nobody asserts a time


async def test_200_turns_60_cuts_3_black_holes():
    await run(draw(1, 200), faults(1, cuts=60, black_holes=3, most_bytes=MOST_BYTES), ALERT)


def test_200_turns_60_cuts_3_black_holes_sync():
    run_sync(draw(2, 200), faults(2, cuts=60, black_holes=3, most_bytes=MOST_BYTES), ALERT)


@pytest.mark.heavy
@pytest.mark.timeout(240)
async def test_1000_turns_300_cuts_20_black_holes():
    await run(draw(3, 1000), faults(3, cuts=300, black_holes=20, most_bytes=MOST_BYTES), ClientConfig())


@pytest.mark.heavy
@pytest.mark.timeout(240)
def test_400_turns_120_cuts_8_black_holes_sync():
    run_sync(draw(4, 400), faults(4, cuts=120, black_holes=8, most_bytes=MOST_BYTES), ClientConfig())


KINDS = ["fin", "rst", "black hole"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", [0, 200, 900])
async def test_a_first_connection_that_is_lost_while_the_session_opens(fake_server, kind, after):
    with Proxy(fake_server.target, [Fault(kind, after)]) as proxy:
        async with AsyncClient(proxy.address, credentials=fake_server.credentials(), config=ALERT) as client:
            session = client.text.session()
            assert (await session.generate("Hi")).text == HELLO
            assert (await session.generate("Hi")).text == HELLO


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", [0, 200, 900])
def test_a_first_connection_that_is_lost_while_the_session_opens_sync(fake_server, kind, after):
    with (
        Proxy(fake_server.target, [Fault(kind, after)]) as proxy,
        Client(proxy.address, credentials=fake_server.credentials(), config=ALERT) as client,
    ):
        session = client.text.session()
        assert session.generate("Hi").text == HELLO
        assert session.generate("Hi").text == HELLO


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cut_in_the_middle_of_a_big_message(fake_server, kind):
    fake_server.text.script("one", Delay(0.1), "x" * 500_000, "two")
    with Proxy(fake_server.target) as proxy:
        async with (
            AsyncClient(proxy.address, credentials=fake_server.credentials(), config=ALERT) as client,
            client.text.session() as session,
            session.stream("Hi") as stream,
        ):
            async for _ in stream.text():
                proxy.connections[0].strike(kind, after=100_000)
                break
            answer = await stream.final()
    assert answer.text == "one" + "x" * 500_000 + "two"
    assert answer.meta.resumed == 1
    assert len(fake_server.text.requests) == 1


async def test_bytes_that_come_late_and_in_bits(fake_server):
    with Proxy(fake_server.target, delay=0.002, split=5, seed=1) as proxy:
        async with (
            AsyncClient(proxy.address, credentials=fake_server.credentials()) as client,
            client.text.session() as session,
        ):
            answers = await asyncio.gather(*(session.generate("Hi") for _ in range(20)))
    assert [(answer.text, answer.meta.resumed) for answer in answers] == [(HELLO, 0)] * 20
    assert len(proxy.connections) == 1
