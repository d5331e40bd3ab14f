# Mirrored by scripts/unasync.py from tests/contract/_async/test_abandoned.py: edit that and run `make sync`.
"""Streams that nobody holds any more: they are cancelled, observers hear of it, and their places are free again."""

from __future__ import annotations

import gc

import grpc

from deepseek_grpc.testing import Stall

HELLO = "Hello from the fake server."


class Ends:
    """Keeps the records of calls that have ended."""

    def __init__(self):
        self.records = []

    def started(self, call):
        pass

    def ended(self, call):
        self.records.append(call)


def test_its_observers_hear_of_it(fake_server):
    ends = Ends()
    fake_server.text.script("one", Stall())
    with fake_server.client(observers=[ends]) as client:
        stream = client.text.stream("Hi")
        fake_server.text.wait_for_requests(1)
        del stream
        gc.collect()
        fake_server.text.wait_for_cancellations(1)
        assert [call.code for call in ends.records] == [grpc.StatusCode.CANCELLED]


def test_its_place_is_free_again(fake_server):
    fake_server.text.script("one", Stall())
    with fake_server.client(max_concurrency=1) as client:
        stream = client.text.stream("Hi")
        for _ in stream:
            break
        del stream
        gc.collect()
        assert (client.text.generate("Hi", timeout=20)).text == HELLO


def test_it_leaves_the_queue(fake_server):
    fake_server.text.script("one", Stall())
    with fake_server.client(max_concurrency=1) as client, client.text.stream("Hi") as busy:
        for _ in busy:
            break
        waiting = client.text.stream("Hi")
        del waiting
        gc.collect()
        busy.cancel()
        assert (client.text.generate("Hi", timeout=20)).text == HELLO
    assert len(fake_server.text.requests) == 2
