"""`connections`: so many to each gateway, and whatever begins goes where there is least to do. In both worlds."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from deepseek_grpc import TLS, AsyncClient, Client, JWTSigner, Secret
from deepseek_grpc.errors import ClosedError, DeadlineExceededError
from deepseek_grpc.gateway.guard import current_call
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.settings import ClientSettings, Settings, TLSSettings
from deepseek_grpc.testing import FakeServer, ScriptedEngine, Stall
from tests.certificates import Authority
from tests.faults.proxy import Proxy

HELLO = "Hello from the fake server."
SECRET = "0123456789abcdef0123456789abcdef"


class Noting(ScriptedEngine):
    """Keeps the connection that each prompt came over, by its other end's address."""

    def __init__(self, *default):
        super().__init__(default or ScriptedEngine().default)
        self.peers = {}

    def _play(self, request, *, streamed):
        self.peers[str(request.messages[0].content)] = current_call().context.peer()
        return ScriptedEngine._play(self, request, streamed=streamed)

    def spread(self):
        """Returns how many prompts came over each connection, in order."""
        return sorted(Counter(self.peers.values()).values())


class Held(Noting):
    """Answers once it is released."""

    def __init__(self):
        super().__init__()
        self.released = asyncio.Event()

    async def generate(self, request):
        answer = await ScriptedEngine.generate(self, request)
        await self.released.wait()
        return answer


class World:
    """A client of tasks or of threads, with one face."""

    def __init__(self, kind, *arguments, **options):
        self.client = kind(*arguments, **options)
        self._threads = ThreadPoolExecutor(16) if kind is Client else None

    async def do(self, work, *arguments, **named):
        if self._threads is None:
            return await work(*arguments, **named)
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *arguments, **named))

    async def ask(self, prompt="Hi", **named):
        return (await self.do(self.client.text.generate, prompt, **named)).text

    async def close(self):
        await self.do(self.client.aclose if self._threads is None else self.client.close)

    @property
    def link(self):
        return self.client._link

    @property
    def wires(self):
        return self.link.room()._wires if self._threads is None else self.link._wires

    def enter(self):
        """Does what every call begins with."""
        if self._threads is None:
            self.link.room()
        else:
            self.link.wire().leave()

    async def until_loads(self, *loads):
        """Waits until the connections have so much to do: that a call is over is noted a little after its end."""
        await until(lambda: [wire.load for wire in self.wires] == list(loads))


async def until(holds):
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - nothing says so
            await asyncio.sleep(0.005)


@pytest.fixture(params=[AsyncClient, Client], ids=["tasks", "threads"])
async def connect(request):
    """Makes clients, which are closed after the test."""
    worlds = []

    def make(*arguments, **options):
        worlds.append(World(request.param, *arguments, **options))
        return worlds[-1]

    yield make
    for world in worlds:
        await world.close()


@pytest.fixture
def engine():
    return Noting("one ", Stall())


@pytest.fixture
def server(engine):
    with FakeServer(engine=engine) as server:
        yield server


@pytest.fixture
def proxy(server):
    with Proxy(server.target) as proxy:
        yield proxy


async def begin(world, engine, prompts):
    """Begins a stream for each prompt, and waits until all are under way."""
    already = len(engine.requests)
    streams = [world.client.text.stream(str(prompt)) for prompt in prompts]
    await asyncio.to_thread(engine.wait_for_requests, already + len(streams))
    return streams


async def call(world, engine, prompts):
    """Begins a call for each prompt, and waits until all are under way."""
    already = len(engine.requests)
    calls = [asyncio.create_task(world.ask(prompt)) for prompt in prompts]
    await asyncio.to_thread(engine.wait_for_requests, already + len(calls))
    return calls


async def test_streams_are_spread_over_so_many_connections(connect, server, proxy, engine):
    world = connect(proxy.address, credentials=server.credentials(), connections=4)
    await begin(world, engine, range(12))
    assert len(proxy.connections) == 4
    assert engine.spread() == [3, 3, 3, 3]


async def test_what_begins_goes_where_there_is_least_to_do(connect, server, engine):
    world = connect(server.target, credentials=server.credentials(), connections=3)
    streams = await begin(world, engine, range(6))
    for stream in (streams[1], streams[4]):  # those of the second connection
        await world.do(stream.cancel)
        await world.do(stream.final)
    await world.until_loads(2, 0, 2)
    streams += await begin(world, engine, ["a", "b"])
    assert engine.peers["a"] == engine.peers["b"] == engine.peers["1"] == engine.peers["4"]
    assert engine.spread() == [2, 2, 4]


async def test_calls_too(connect, server, engine):
    world = connect(server.target, credentials=server.credentials(), connections=4)
    calls = await call(world, engine, "01234567")
    assert engine.spread() == [2, 2, 2, 2]
    await world.close()
    assert {type(outcome) for outcome in await asyncio.gather(*calls, return_exceptions=True)} == {ClosedError}


async def test_the_turns_of_a_session_count(connect, server, engine):
    world = connect(server.target, credentials=server.credentials(), connections=2)
    streams = await begin(world, engine, range(2))
    first, second = world.wires
    first.turns += 2
    streams += await begin(world, engine, ["a", "b"])
    assert engine.peers["a"] == engine.peers["b"] == engine.peers["1"]
    assert (first.load, second.load) == (3, 3)
    first.turns -= 2
    streams += await begin(world, engine, ["c"])
    assert engine.peers["c"] == engine.peers["0"]


async def test_a_pool_that_is_not_needed_costs_nothing(connect, server, proxy, engine):
    engine.default = (HELLO,)
    world = connect(proxy.address, credentials=server.credentials(), connections=5)
    assert [await world.ask(str(number)) for number in range(20)] == [HELLO] * 20
    assert len(proxy.connections) == 1


async def test_more_streams_than_a_connection_carries(connect, server, engine):
    """The gateway runs 100 streams of a connection, and one of them watches its health."""
    single = connect(server.target, credentials=server.credentials())
    held = [single.client.text.stream("one connection") for _ in range(99)]
    await asyncio.to_thread(engine.wait_for_requests, 99)
    with pytest.raises(DeadlineExceededError):
        await single.ask("the hundredth", timeout=0.5)
    pooled = connect(server.target, credentials=server.credentials(), connections=2)
    held += [pooled.client.text.stream(f"{number} of two") for number in range(198)]
    await asyncio.to_thread(engine.wait_for_requests, 99 + 198, 30)
    assert "the hundredth" not in engine.peers
    assert engine.spread() == [1, 99, 99]


async def test_places_are_the_clients_and_not_a_connections(connect, server, engine):
    world = connect(server.target, credentials=server.credentials(), connections=4, max_concurrency=3)
    busy = await begin(world, engine, range(3))
    with pytest.raises(DeadlineExceededError, match="max_concurrency"):
        await world.ask("fourth", timeout=0.1)
    assert engine.spread() == [1, 1, 1]
    assert len(busy) == engine.most_at_once


async def test_a_connection_that_is_lost_comes_back(connect, server, proxy, engine):
    engine.default = (HELLO,)
    world = connect(proxy.address, credentials=server.credentials(), connections=2, wait_for_ready=True)
    for _ in range(2):
        engine.script("one ", Stall())
    held = await begin(world, engine, range(2))
    proxy.cut()
    for stream in held:
        await world.do(stream.aclose if hasattr(stream, "aclose") else stream.close)
    await world.until_loads(0, 0)
    answers = await asyncio.gather(*(world.ask(f"again {number}") for number in range(10)))
    assert answers == [HELLO] * 10
    assert len(world.wires) == 2


async def test_closing_ends_what_runs_on_every_connection(connect, server, proxy, engine):
    world = connect(proxy.address, credentials=server.credentials(), connections=3)
    streams = await begin(world, engine, range(9))
    reading = [asyncio.create_task(world.do(stream.final)) for stream in streams]
    await world.close()
    outcomes = await asyncio.gather(*reading, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ClosedError}
    await asyncio.to_thread(engine.wait_for_cancellations, 9)
    with pytest.raises(ClosedError):
        await world.ask()


async def test_closing_ends_every_connection(connect, server, proxy, engine):
    world = connect(proxy.address, credentials=server.credentials(), connections=3)
    calls = await call(world, engine, "012345")
    assert [connection.alive for connection in proxy.connections] == [True] * 3
    await world.close()
    assert {type(outcome) for outcome in await asyncio.gather(*calls, return_exceptions=True)} == {ClosedError}
    calls.clear()  # grpc.aio keeps a connection up while somebody holds a call of it
    await until(lambda: not any(connection.alive for connection in proxy.connections))


@pytest.fixture
async def guarded(tmp_path):
    """A gateway with TLS behind a proxy: the engine, the proxy, and the file of the certificate's authority."""
    engine = Held()
    authority = Authority(tmp_path, "authority")
    settings = Settings(
        listen="127.0.0.1:0",
        tls=TLSSettings(*authority.issue("gateway")),
        clients=(ClientSettings("test-client", Secret(SECRET), roles=("test",)),),
        roles={"test": ("*",)},
        default_model="fake",
    )
    async with Gateway(settings, backends=[Backend(engine, ("*",))]) as gateway:
        with Proxy(gateway.address) as proxy:
            yield engine, proxy, authority.file


async def test_certificates_that_change_renew_every_connection(connect, guarded):
    engine, proxy, ca_file = guarded
    source, tls = JWTSigner("test-client", SECRET), TLS(ca_file=ca_file)
    world = connect(proxy.address, credentials=source, tls=tls, connections=3)
    calls = await call(world, engine, "012345")
    old, before = list(proxy.connections), world.link._credentials
    assert len(old) == 3
    ca_file.write_bytes(ca_file.read_bytes() + b"\n")

    def look():
        world.enter()  # where the files are looked at, once a second at most
        return world.link._credentials is not before

    await until(look)
    calls += await call(world, engine, "abcdef")
    over = {name: {engine.peers[prompt] for prompt in name} for name in ("012345", "abcdef")}
    assert [len(peers) for peers in over.values()] == [3, 3]
    assert over["012345"].isdisjoint(over["abcdef"])
    assert all(connection.alive for connection in old)
    engine.released.set()
    assert await asyncio.gather(*calls) == [HELLO] * 12
    calls.clear()
    await until(lambda: not any(connection.alive for connection in old))
    assert sum(connection.alive for connection in proxy.connections) == 3


RACE = """
import random, sys, threading, time
from deepseek_grpc import Client
from deepseek_grpc.errors import ClosedError

sys.setswitchinterval(1e-5)
strange = []

def begin(client, together):
    together.wait()
    try:
        for _ in range(3):
            client.text.generate("Hi")
    except ClosedError:
        pass
    except BaseException as error:
        strange.append(repr(error))

for _ in range(60):
    client = Client.from_env(connections=3)
    together = threading.Barrier(5)
    threads = [threading.Thread(target=begin, args=(client, together)) for _ in range(4)]
    for thread in threads:
        thread.start()
    together.wait()
    time.sleep(random.random() * 0.008)
    client.close()
    for thread in threads:
        thread.join()
    strange += [wire.load for wire in client._link._wires if wire.load]
print(strange)
"""


def test_closing_while_threads_begin_calls_on_every_connection(fake_server):
    done = subprocess.run(
        [sys.executable, "-c", RACE],
        env={**os.environ, **fake_server.environ},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


FORK = """
import os
from deepseek_grpc import Client

client = Client.from_env(connections=2)
if os.fork():
    print(os.waitstatus_to_exitcode(os.wait()[1]), client.text.generate("Hi").text)
else:
    streams = [client.text.stream("Hi") for _ in range(4)]
    texts = {stream.final().text for stream in streams}
    os._exit(len(client._link._wires) if len(texts) == 1 else 9)
"""


def test_a_process_that_forks_before_its_first_call_has_a_pool_on_both_sides(fake_server):
    done = subprocess.run(
        [sys.executable, "-c", FORK],
        env={**os.environ, **fake_server.environ},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"2 {HELLO}\n"), done.stderr


async def test_sessions_spread_over_the_connections(connect, server, engine):
    world = connect(server.target, credentials=server.credentials(), connections=4)
    sessions = []
    for number in range(8):
        sessions.append(world.client.text.session())
        stream = sessions[-1].stream(str(number))  # its turn counts, and so the next session goes elsewhere
        await asyncio.to_thread(engine.wait_for_requests, number + 1)
        assert stream.request_id
    assert engine.spread() == [2, 2, 2, 2]
    for session in sessions:
        await world.do(session.aclose if hasattr(session, "aclose") else session.close)
    await world.until_loads(0, 0, 0, 0)
