"""One of two gateways is killed, again and again, and every turn still ends with the text that it would have had."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace

import pytest

from deepseek_grpc import AsyncClient, Client
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.types import TextDelta
from tests.faults.session_load import Load, draw, references
from tests.gateway_process import EmbeddedGateway

PACE = 60
"""Tokens a second, so that turns are long enough to be hit."""
SESSIONS = 4
TURNS = 30
PATIENCE = 30


@pytest.fixture
def gateways():
    with EmbeddedGateway(PACE) as first, EmbeddedGateway(PACE) as second:
        yield first, second


class Kills:
    """Kills the gateways alternately while a load runs, and starts them again."""

    def __init__(self, gateways, count):
        self._gateways, self._count = gateways, count
        self.over = threading.Event()
        self.hit = set()
        """Turns that were under way at a kill of the gateway that had all sessions."""
        turns = draw(7, TURNS, lengths=(20, 60, 120), thinking=False)
        # What comes whole is started anew each time, four times at most: it shall not be under way for two kills.
        turns = [turn if turn.streamed else replace(turn, max_tokens=20) for turn in turns]
        self.load = Load(turns, asyncio.run(references(turns, EmbeddedEngine())), lambda: not self.over.is_set())

    def run(self):
        try:
            for number in range(self._count):
                self._wait_for_turns()
                gateway = self._gateways[number % 2]
                running = self.load.running()
                gateway.kill()
                if number:  # the first kill before it has sent all sessions to the other gateway, which is this one
                    self.hit.update(running)
                self._wait_for_turns()
                gateway.start()
        finally:
            self.over.set()

    def _wait_for_turns(self):
        """Waits until turns have begun, and have said something, that hadn't before."""
        known, deadline = self._begun(), time.monotonic() + PATIENCE
        while len(self._begun() - known) < SESSIONS:
            assert time.monotonic() < deadline, self.load.history.by_turn()
            time.sleep(0.02)

    def _begun(self):
        return {number for number, what in tuple(self.load.history.seen) if isinstance(what, TextDelta)}

    def check(self):
        assert self.load.problems() == []
        answers = self.load.answers()
        assert len(self.hit) > self._count
        spared = [number for number in self.hit if not answers[number].meta.continued]
        assert spared == []


def target(gateways):
    return "ipv4:" + ",".join(gateway.address for gateway in gateways)


async def kill(gateways, count):
    kills = await asyncio.to_thread(Kills, gateways, count)
    async with AsyncClient(target(gateways), credentials=gateways[0].credentials()) as client:
        sessions = [client.text.session() for _ in range(SESSIONS)]
        killing = asyncio.create_task(asyncio.to_thread(kills.run))
        await kills.load.run(sessions)
        await killing
    kills.check()


def kill_sync(gateways, count):
    kills = Kills(gateways, count)
    with Client(target(gateways), credentials=gateways[0].credentials()) as client:
        sessions = [client.text.session() for _ in range(SESSIONS)]
        killing = threading.Thread(target=kills.run, daemon=True)
        killing.start()
        kills.load.run_sync(sessions)
        killing.join(PATIENCE)
    kills.check()


@pytest.mark.timeout(120)
async def test_3_kills(gateways):
    await kill(gateways, 3)


@pytest.mark.timeout(120)
def test_3_kills_sync(gateways):
    kill_sync(gateways, 3)


@pytest.mark.heavy
@pytest.mark.timeout(240)
async def test_20_kills(gateways):
    await kill(gateways, 20)


@pytest.mark.heavy
@pytest.mark.timeout(240)
def test_20_kills_sync(gateways):
    kill_sync(gateways, 20)
