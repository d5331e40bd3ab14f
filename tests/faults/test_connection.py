"""Connections that are lost: by a killed gateway, a cut cable, a network that swallows everything."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from deepseek_grpc import AsyncClient, Client, ClientConfig, Keepalive, Retry, TextDelta, Timeouts
from deepseek_grpc.errors import ServiceUnavailableError, StreamInterruptedError
from deepseek_grpc.testing import Stall
from tests.faults.proxy import Proxy

ONCE = ClientConfig(retry=Retry(attempts=1), on_interrupt="raise", reconnect_seconds=0.3)
ALERT = replace(ONCE, keepalive=Keepalive(0.2, 0.3), timeouts=Timeouts(connect=0.5))
ALERT_AND_STUBBORN = replace(ALERT, wait_for_ready=True)
STUBBORN = ClientConfig(wait_for_ready=True, timeouts=Timeouts(connect=1, total=20))
HELLO = "Hello from the fake server."

KINDS = ["call", "session"]


def streams(client, kind):
    return client.text if kind == "call" else client.text.session()


def read_until_lost(client, kind, started):
    """Reads a stream; when its first piece is there, calls `started`; returns the error that it ends with."""
    source = streams(client, kind)
    stream = source.stream("Hi", request_id="req-1")
    pieces = stream.text()
    assert next(pieces) == "one"
    started()
    with pytest.raises(StreamInterruptedError) as caught:
        next(pieces)
    if kind == "session":
        with pytest.raises(ServiceUnavailableError):
            source.generate("Hi")
        source.close()
    return caught.value


async def read_until_lost_async(client, kind, started):
    source = streams(client, kind)
    stream = source.stream("Hi", request_id="req-1")
    async for event in stream:
        if isinstance(event, TextDelta):
            break
    await asyncio.to_thread(started)
    with pytest.raises(StreamInterruptedError) as caught:
        await stream.final()
    if kind == "session":
        with pytest.raises(ServiceUnavailableError):
            await source.generate("Hi")
        await source.aclose()
    return caught.value


def check(error):
    assert error.partial == "one"
    assert error.request_id == "req-1"
    assert error.reason == "INTERRUPTED"
    assert error.retryable


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_gateway(start_gateway, kind):
    gateway = start_gateway()
    with gateway.client(config=ONCE) as client:
        check(read_until_lost(client, kind, gateway.kill))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_killed_gateway_async(start_gateway, kind):
    gateway = start_gateway()
    async with gateway.async_client(config=ONCE) as client:
        check(await read_until_lost_async(client, kind, gateway.kill))


def through(proxy, server, config):
    return Client(proxy.address, credentials=server.credentials(), config=config)


def through_async(proxy, server, config):
    return AsyncClient(proxy.address, credentials=server.credentials(), config=config)


def test_a_cut_connection(fake_server):
    fake_server.text.script("one", Stall())
    with Proxy(fake_server.target) as proxy, through(proxy, fake_server, ONCE) as client:
        check(read_until_lost(client, "call", proxy.cut))
        fake_server.text.wait_for_cancellations(1)


async def test_a_cut_connection_async(fake_server):
    fake_server.text.script("one", Stall())
    with Proxy(fake_server.target) as proxy:
        async with through_async(proxy, fake_server, ONCE) as client:
            check(await read_until_lost_async(client, "call", proxy.cut))
        await asyncio.to_thread(fake_server.text.wait_for_cancellations, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_swallows_everything(fake_server, kind):
    fake_server.text.script("one", Stall())
    with Proxy(fake_server.target) as proxy, through(proxy, fake_server, ALERT) as client:
        check(read_until_lost(client, kind, proxy.freeze))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_that_swallows_everything_async(fake_server, kind):
    fake_server.text.script("one", Stall())
    with Proxy(fake_server.target) as proxy:
        async with through_async(proxy, fake_server, ALERT) as client:
            check(await read_until_lost_async(client, kind, proxy.freeze))


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_swallows_everything_before_the_first_token(fake_server, kind):
    fake_server.text.script(Stall())
    with Proxy(fake_server.target) as proxy, through(proxy, fake_server, ALERT) as client:
        source = streams(client, kind)
        stream = source.stream("Hi", request_id="req-1")
        fake_server.text.wait_for_requests(1)
        proxy.freeze()
        with pytest.raises(ServiceUnavailableError) as caught:
            stream.final()
        assert caught.value.request_id == "req-1"


def test_a_call_that_was_cut_before_its_answer_is_tried_again(fake_server):
    fake_server.text.script(Stall())
    with Proxy(fake_server.target) as proxy, through(proxy, fake_server, STUBBORN) as client:
        stream = client.text.stream("Hi")
        fake_server.text.wait_for_requests(1)
        proxy.cut()
        answer = stream.final()
    assert answer.text == HELLO
    assert answer.meta.upstream.attempts == 2


def test_the_same_client_works_again_after_a_cut(fake_server):
    with Proxy(fake_server.target) as proxy, through(proxy, fake_server, STUBBORN) as client:
        for _ in range(3):
            assert client.text.generate("Hi").text == HELLO
            with client.text.session() as session:
                assert session.generate("Hi").text == HELLO
            proxy.cut()


def test_the_same_client_works_again_after_the_network_came_back(fake_server):
    fake_server.text.script("one", Stall())
    with Proxy(fake_server.target) as proxy, through(proxy, fake_server, ALERT_AND_STUBBORN) as client:
        check(read_until_lost(client, "call", proxy.freeze))
        proxy.thaw()
        assert client.text.generate("Hi").text == HELLO


def test_the_same_client_works_again_after_a_restart(start_gateway):
    gateway = start_gateway()
    with gateway.client(config=STUBBORN) as client:
        assert client.text.generate("Hi").text == "whole"
        gateway.kill()
        again = start_gateway(listen=gateway.target)
        assert again.target == gateway.target
        assert client.text.generate("Hi").text == "whole"
        with client.text.session() as session:
            assert session.generate("Hi").text == "whole"


async def test_the_same_async_client_works_again_after_a_restart(start_gateway):
    gateway = start_gateway()
    async with gateway.async_client(config=STUBBORN) as client:
        assert (await client.text.generate("Hi")).text == "whole"
        gateway.kill()
        start_gateway(listen=gateway.target)
        assert (await client.text.generate("Hi")).text == "whole"
        async with client.text.session() as session:
            assert (await session.generate("Hi")).text == "whole"
