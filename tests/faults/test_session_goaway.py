"""Gateways that drain ask their sessions to move, and nobody who uses these notices."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from deepseek_grpc import AsyncClient, Client
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from tests.faults.session_load import Load, draw, references
from tests.gateway_process import EmbeddedGateway

PACE = 60
SESSIONS = 4
PATIENCE = 30
LONG = {"max_tokens": 120, "seed": 3, "temperature": 0.7}
QUESTION = "What is a deadline?"


@pytest.fixture
def gateways():
    with EmbeddedGateway(PACE) as first, EmbeddedGateway(PACE) as second:
        yield first, second


def target(gateways):
    return "ipv4:" + ",".join(gateway.address for gateway in gateways)


def loaded():
    turns = draw(8, 30, lengths=(5, 40), thinking=False)
    over = threading.Event()
    return Load(turns, asyncio.run(references(turns, EmbeddedEngine())), lambda: not over.is_set()), over


def restart_all(gateways, load, over):
    """Restarts each gateway in turn, the next one once this one has answers of its own."""
    try:
        for gateway in gateways:
            gateway.terminate()
            gateway.wait()
            wait_for_answers(load)
            gateway.start()
            wait_for_answers(load)
    finally:
        over.set()


def wait_for_answers(load):
    """Waits until every worker has begun and ended a turn."""
    known, deadline = load.begun, time.monotonic() + PATIENCE
    while load.begun < known + 2 * load.at_once:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def check(load):
    assert load.problems() == []
    metas = [answer.meta for answer in load.answers().values()]
    # Running turns finished where they were.
    assert [meta.continued for meta in metas] == [0] * load.begun
    assert len({meta.upstream.backend for meta in metas}) >= 2


@pytest.mark.timeout(120)
async def test_a_rolling_restart_fails_no_turn(gateways):
    load, over = await asyncio.to_thread(loaded)
    async with AsyncClient(target(gateways), credentials=gateways[0].credentials()) as client:
        sessions = [client.text.session() for _ in range(SESSIONS)]
        restarting = asyncio.create_task(asyncio.to_thread(restart_all, gateways, load, over))
        await load.run(sessions)
        await restarting
    check(load)


@pytest.mark.timeout(120)
def test_a_rolling_restart_fails_no_turn_sync(gateways):
    load, over = loaded()
    with Client(target(gateways), credentials=gateways[0].credentials()) as client:
        sessions = [client.text.session() for _ in range(SESSIONS)]
        restarting = threading.Thread(target=restart_all, args=(gateways, load, over), daemon=True)
        restarting.start()
        load.run_sync(sessions)
        restarting.join(PATIENCE)
    check(load)


async def test_running_turns_finish_and_new_ones_go_elsewhere(gateways):
    async with (
        AsyncClient(target(gateways), credentials=gateways[0].credentials()) as client,
        client.text.session() as session,
    ):
        running = session.stream(QUESTION, **LONG)
        async for _ in running.text():
            break
        here = (await session.generate("Hi", max_tokens=1)).meta.upstream.backend
        before = session.session_id
        old = next(gateway for gateway in gateways if gateway.name == here)
        old.terminate()
        async with asyncio.timeout(PATIENCE):
            while session.session_id == before:  # noqa: ASYNC110 - there is nothing to wait for but a look
                await asyncio.sleep(0.01)
        new = await session.generate("Hi", max_tokens=1)
        answer = await running.final()
    assert new.meta.upstream.backend != here
    assert answer.meta.upstream.backend == here
    assert (answer.meta.resumed, answer.meta.continued) == (0, 0)


def test_running_turns_finish_and_new_ones_go_elsewhere_sync(gateways):
    with (
        Client(target(gateways), credentials=gateways[0].credentials()) as client,
        client.text.session() as session,
    ):
        running = session.stream(QUESTION, **LONG)
        next(iter(running.text()))
        here = session.generate("Hi", max_tokens=1).meta.upstream.backend
        before = session.session_id
        old = next(gateway for gateway in gateways if gateway.name == here)
        old.terminate()
        deadline = time.monotonic() + PATIENCE
        while session.session_id == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        new = session.generate("Hi", max_tokens=1)
        answer = running.final()
    assert new.meta.upstream.backend != here
    assert answer.meta.upstream.backend == here
    assert (answer.meta.resumed, answer.meta.continued) == (0, 0)


async def test_one_gateway_alone_that_restarts():
    with EmbeddedGateway(PACE) as gateway:
        async with (
            AsyncClient(gateway.address, credentials=gateway.credentials()) as client,
            client.text.session() as session,
        ):
            before = await session.generate("Hi", max_tokens=2, seed=1)
            gateway.terminate()
            gateway.wait()
            meanwhile = [asyncio.create_task(session.generate("Hi", max_tokens=2, seed=1)) for _ in range(5)]
            streamed = session.stream("Hi", max_tokens=2, seed=1)
            await asyncio.to_thread(gateway.start)
            answers = [*await asyncio.gather(*meanwhile), await streamed.final()]
    assert [answer.text for answer in answers] == [before.text] * 6
    assert {answer.meta.upstream.backend for answer in answers} == {gateway.name}


def test_one_gateway_alone_that_restarts_sync():
    with (
        EmbeddedGateway(PACE) as gateway,
        Client(gateway.address, credentials=gateway.credentials()) as client,
        client.text.session() as session,
    ):
        before = session.generate("Hi", max_tokens=2, seed=1)
        gateway.terminate()
        gateway.wait()
        meanwhile = [session.stream("Hi", max_tokens=2, seed=1) for _ in range(5)]
        gateway.start()
        answers = [stream.final() for stream in meanwhile]
    assert [answer.text for answer in answers] == [before.text] * 5
    assert {answer.meta.upstream.backend for answer in answers} == {gateway.name}
