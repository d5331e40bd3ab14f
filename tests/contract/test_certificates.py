"""Certificates of a client that change while it lives."""

from __future__ import annotations

import asyncio
import shutil

import grpc
import pytest

from deepseek_grpc import TLS, AsyncClient, Client, JWTSigner, Secret
from deepseek_grpc.errors import ClosedError, ConfigurationError, ConnectError, DeadlineExceededError
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.settings import ClientSettings, Settings, TLSSettings
from deepseek_grpc.testing import ScriptedEngine, Stall
from tests.certificates import Authority

SECRET = "0123456789abcdef0123456789abcdef"
HELLO = "Hello from the fake server."


@pytest.fixture
def theirs(tmp_path):
    """The authority that the gateway's certificate is from."""
    (tmp_path / "theirs").mkdir()
    return Authority(tmp_path / "theirs", "authority")


@pytest.fixture
def ours(tmp_path):
    """The authority that the gateway wants clients' certificates from."""
    (tmp_path / "ours").mkdir()
    return Authority(tmp_path / "ours", "clients")


@pytest.fixture
def engine():
    return ScriptedEngine()


@pytest.fixture
async def gateway(theirs, ours, engine):
    certificate, key = theirs.issue("gateway")
    settings = Settings(
        listen="127.0.0.1:0",
        tls=TLSSettings(certificate, key, ours.file),
        clients=(ClientSettings("test-client", Secret(SECRET), roles=("test",)),),
        roles={"test": ("*",)},
        default_model="fake",
    )
    async with Gateway(settings, backends=[Backend(engine, ("*",))]) as gateway:
        yield gateway


@pytest.fixture
def files(tmp_path, theirs, ours):
    """Where the client looks; `put` replaces them, as whoever renews certificates does."""

    class Files:
        tls = TLS(tmp_path / "ca.pem", tmp_path / "client.crt", tmp_path / "client.key")

        def put(self, authority, certificate, key):
            for source, target in ((authority, "ca.pem"), (certificate, "client.crt"), (key, "client.key")):
                shutil.copy(source, tmp_path / f"new-{target}")
                (tmp_path / f"new-{target}").replace(tmp_path / target)

    files = Files()
    files.put(theirs.file, *ours.issue("client"))
    return files


def credentials():
    return JWTSigner("test-client", SECRET)


async def until_answered(ask):
    """Asks until there is an answer: files are looked at once a second."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await ask()
            except ConnectError:
                await asyncio.sleep(0.05)


def stranger(tmp_path):
    (tmp_path / "stranger").mkdir()
    return Authority(tmp_path / "stranger", "stranger")


async def test_good_certificates_take_the_place_of_wrong_ones(gateway, files, theirs, ours, tmp_path):
    files.put(stranger(tmp_path).file, *ours.issue("client"))
    async with AsyncClient(gateway.address, credentials=credentials(), tls=files.tls) as client:
        with pytest.raises(ConnectError):
            await client.text.generate("Hi")
        files.put(theirs.file, *ours.issue("client"))
        assert (await until_answered(lambda: client.text.generate("Hi"))).text == HELLO


async def test_the_same_with_threads(gateway, files, theirs, ours, tmp_path):
    files.put(stranger(tmp_path).file, *ours.issue("client"))
    with Client(gateway.address, credentials=credentials(), tls=files.tls) as client:
        with pytest.raises(ConnectError):
            await asyncio.to_thread(client.text.generate, "Hi")
        files.put(theirs.file, *ours.issue("client"))
        assert (await until_answered(lambda: asyncio.to_thread(client.text.generate, "Hi"))).text == HELLO


async def until_renewed(link, ask):
    """Makes calls until the link has made credentials of the changed files."""
    old = link._credentials
    async with asyncio.timeout(30):
        while link._credentials is old:
            await ask()
            await asyncio.sleep(0.05)


async def test_what_runs_goes_on(gateway, files, theirs, ours, engine):
    engine.script("one ", Stall())
    async with (
        AsyncClient(gateway.address, credentials=credentials(), tls=files.tls) as client,
        client.text.stream("Hi") as stream,
        client.text.session() as session,
    ):
        pieces = stream.text()
        assert await anext(pieces) == "one "
        files.put(theirs.file, *ours.issue("client"))
        await until_renewed(client._link, lambda: client.text.generate("Hi"))
        assert (await session.generate("Hi")).text == HELLO
        await stream.cancel()
        assert (await stream.final()).text == "one "


async def test_what_runs_goes_on_with_threads(gateway, files, theirs, ours, engine):
    engine.script("one ", Stall())

    def ask(work):
        return asyncio.to_thread(work)

    with Client(gateway.address, credentials=credentials(), tls=files.tls) as client:
        stream = client.text.stream("Hi")
        pieces = stream.text()
        assert await ask(lambda: next(pieces)) == "one "
        session = client.text.session()
        files.put(theirs.file, *ours.issue("client"))
        await until_renewed(client._link, lambda: ask(lambda: client.text.generate("Hi")))
        assert (await ask(lambda: session.generate("Hi"))).text == HELLO
        session.close()
        assert engine.cancelled == 0
        stream.cancel()
        assert (await ask(stream.final)).text == "one "


async def test_places_outlast_a_change_of_certificates(gateway, files, theirs, ours, engine):
    engine.script("one ", Stall())
    async with AsyncClient(gateway.address, credentials=credentials(), tls=files.tls, max_concurrency=2) as client:
        busy = client.text.stream("Hi")
        assert await anext(aiter(busy.text())) == "one "
        files.put(theirs.file, *ours.issue("client"))
        await until_renewed(client._link, lambda: client.text.generate("Hi"))
        engine.script("two ", Stall())
        other = client.text.stream("Hi")
        assert await anext(aiter(other.text())) == "two "
        with pytest.raises(DeadlineExceededError, match="max_concurrency"):
            await client.text.generate("Hi", timeout=0.1)
        await busy.cancel()
        assert (await client.text.generate("Hi")).text == HELLO
        await other.cancel()


async def test_who_waits_while_certificates_change_is_sent_with_the_new_ones(gateway, files, theirs, ours, engine):
    engine.script("one ", Stall())
    async with AsyncClient(gateway.address, credentials=credentials(), tls=files.tls, max_concurrency=1) as client:
        busy = client.text.stream("Hi")
        assert await anext(aiter(busy.text())) == "one "
        waiting = [
            asyncio.create_task(client.text.generate("Hi")),
            asyncio.create_task(client.text.stream("x").final()),
        ]
        while len(client._link.room().places._waiting) < 2:  # noqa: ASYNC110 - nothing says so
            await asyncio.sleep(0)
        files.put(theirs.file, *ours.issue("client"))

        async def look():
            client._link.room()

        await until_renewed(client._link, look)
        await busy.cancel()
        assert [(await task).text for task in waiting] == [HELLO] * 2


async def test_closing_ends_what_runs_on_the_old_certificates(gateway, files, theirs, ours, engine):
    for _ in range(3):
        engine.script("one ", Stall())
    client = AsyncClient(gateway.address, credentials=credentials(), tls=files.tls)
    threaded = Client(gateway.address, credentials=credentials(), tls=files.tls)
    stream, turn = client.text.stream("Hi"), client.text.session().stream("Hi")
    for one in (stream, turn):
        assert await anext(aiter(one.text())) == "one "
    blocking = threaded.text.stream("Hi")
    assert await asyncio.to_thread(lambda: next(blocking.text())) == "one "
    files.put(theirs.file, *ours.issue("client"))
    await until_renewed(client._link, lambda: client.text.generate("Hi"))
    await until_renewed(threaded._link, lambda: asyncio.to_thread(threaded.text.generate, "Hi"))
    reading = asyncio.create_task(asyncio.to_thread(blocking.final))
    await client.aclose()
    await asyncio.to_thread(threaded.close)
    for final in (stream.final(), turn.final(), reading):
        with pytest.raises(ClosedError):
            await final
    await asyncio.to_thread(engine.wait_for_cancellations, 3)


async def test_the_last_call_on_the_old_certificates_closes_their_channel(gateway, files, theirs, ours, engine):
    engine.script("one ", Stall())

    def is_closed(wire):
        try:
            wire._channel.unary_unary("/x")(b"", timeout=0)
        except ValueError:
            return True
        except grpc.RpcError:
            return False

    with Client(gateway.address, credentials=credentials(), tls=files.tls) as client:
        stream = client.text.stream("Hi")
        assert await asyncio.to_thread(lambda: next(stream.text())) == "one "
        old = client._link._wire
        files.put(theirs.file, *ours.issue("client"))
        await until_renewed(client._link, lambda: asyncio.to_thread(client.text.generate, "Hi"))
        assert not is_closed(old)
        stream.cancel()
        assert is_closed(old)
        assert not is_closed(client._link._wire)


async def test_files_that_are_no_good_leave_the_old_ones(gateway, files, theirs, ours, tmp_path, caplog):
    async with AsyncClient(gateway.address, credentials=credentials(), tls=files.tls) as client:
        assert (await client.text.generate("Hi")).text == HELLO
        _, key = ours.issue("another")
        certificate, _ = ours.issue("client")
        files.put(theirs.file, certificate, key)
        async with asyncio.timeout(30):
            while "the old ones stay" not in caplog.text:
                assert (await client.text.generate("Hi")).text == HELLO
                await asyncio.sleep(0.05)
        assert "isn't the key of the certificate" in caplog.text
        with pytest.raises(ConfigurationError, match="isn't the key"):
            AsyncClient(gateway.address, tls=files.tls)
