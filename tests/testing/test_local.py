"""The gateway inside the program's own process."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deepseek_grpc import Client, ClientConfig, JWTSigner, Retry
from deepseek_grpc.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    PermissionDeniedError,
    ServiceUnavailableError,
)
from deepseek_grpc.gateway.settings import BackendSettings, ClientSettings, Settings, TLSSettings
from deepseek_grpc.local import LocalGateway
from deepseek_grpc.testing import Delay, FakeServer, ScriptedEngine, Stall

ONCE = ClientConfig(retry=Retry(attempts=1))
SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def temporary(monkeypatch):
    """An empty directory for temporary files; short, as sockets' paths have to be."""
    folder = tempfile.mkdtemp(prefix="t-")
    monkeypatch.setattr(tempfile, "tempdir", folder)
    yield Path(folder)
    assert list(Path(folder).iterdir()) == []
    shutil.rmtree(folder)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "LocalGateway"]


def folder_of(gateway):
    return Path(gateway.target.removeprefix("unix:")).parent


def run(code, *, warnings=True, **environ):
    return subprocess.run(
        [sys.executable, *(("-W", "error") if warnings else ()), "-c", code],
        # gRPC's core logs it when a server goes before its clients do.
        env={**os.environ, "GRPC_VERBOSITY": "ERROR", **environ},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_everything_over_it(temporary):
    with LocalGateway() as gateway, gateway.client() as client:
        assert client.text.generate("Hi", max_tokens=8).usage.completion_tokens == 8
        with client.text.stream("Hi", max_tokens=8, model="deepseek-chat") as stream:
            assert "".join(stream.text()) == stream.final().text != ""
        with client.text.session() as session:
            assert session.generate("Hi", max_tokens=8).text
        assert client.health() == client.health("deepseek_rpc.v2.TextService") == "SERVING"
        assert [(model.id, model.aliases) for model in client.text.models()] == [("embedded-ngram", ("deepseek-chat",))]


async def test_everything_over_it_async(temporary):
    async with LocalGateway() as gateway, gateway.async_client() as client:
        assert (await client.text.generate("Hi", max_tokens=8)).usage.completion_tokens == 8
        async with client.text.stream("Hi", max_tokens=8, model="deepseek-chat") as stream:
            assert "".join([piece async for piece in stream.text()]) == (await stream.final()).text != ""
        async with client.text.session() as session:
            assert (await session.generate("Hi", max_tokens=8)).text
        assert await client.health() == await client.health("deepseek_rpc.v2.TextService") == "SERVING"
        assert [model.id for model in await client.text.models()] == ["embedded-ngram"]


@pytest.mark.parametrize("delivery", ["call", "metadata"])
def test_clients_have_a_configuration(delivery):
    with LocalGateway() as gateway, gateway.client(config=ClientConfig(token_delivery=delivery)) as client:
        assert client.text.generate("Hi", max_tokens=2).text


def test_the_socket_is_this_users_and_goes_with_it(temporary):
    with LocalGateway() as gateway:
        folder = folder_of(gateway)
        assert folder.parent == temporary
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (path,) = folder.iterdir()
        assert path.is_socket()
    assert not folder.exists()
    assert threads() == []


def test_who_reaches_the_socket_still_needs_the_credential():
    with LocalGateway() as gateway:
        for credentials in (None, JWTSigner("local", SECRET), JWTSigner(gateway._client.id, SECRET)):
            with Client(gateway.target, credentials=credentials) as client, pytest.raises(AuthenticationError):
                client.text.generate("Hi")


def test_it_does_not_tell_its_secret(capfd):
    gateway = LocalGateway()
    secret = gateway._client.key.reveal().decode()
    assert repr(gateway) == str(gateway) == "LocalGateway(not running)"
    with gateway, gateway.client() as client:
        assert repr(gateway) == f"LocalGateway({gateway.target!r})"
        client.text.generate("Hi", max_tokens=1)
        shown = f"{gateway!r} {gateway} {client!r} {gateway._client!r} {gateway.credentials()!r} {os.environ}"
    shown += "".join(capfd.readouterr())
    assert secret not in shown
    assert LocalGateway()._client.key != gateway._client.key


def test_two_beside_each_other(temporary):
    one, two = ScriptedEngine(("one",)), ScriptedEngine(("two",))
    with LocalGateway(engine=one) as a, LocalGateway(engine=two) as b, a.client() as client, b.client() as other:
        assert (client.text.generate("Hi").text, other.text.generate("Hi").text) == ("one", "two")
        with Client(b.target, credentials=a.credentials()) as stranger, pytest.raises(AuthenticationError):
            stranger.text.generate("Hi")


def test_it_starts_and_stops_as_often_as_wanted(temporary):
    gateway = LocalGateway()
    targets = set()
    for _ in range(3):
        with gateway, gateway.client() as client:
            gateway.start()
            assert len(threads()) == 1
            targets.add(gateway.target)
            assert client.text.generate("Hi", max_tokens=2).text
        gateway.stop()
        with pytest.raises(RuntimeError, match="the LocalGateway isn't running"):
            gateway.client()
    assert len(targets) == 3


async def test_it_starts_and_stops_as_often_as_wanted_async(temporary):
    gateway = LocalGateway()
    for _ in range(3):
        async with gateway, gateway.async_client() as client:
            assert (await client.text.generate("Hi", max_tokens=2)).text
        assert threads() == []


def test_many_threads_start_stop_and_use_it(temporary):
    gateway = LocalGateway()
    barrier = threading.Barrier(8)

    def use(_):
        barrier.wait(30)
        gateway.start()
        with gateway.client() as client:
            text = client.text.generate("Hi", max_tokens=4, temperature=0).text
        barrier.wait(30)
        gateway.stop()
        return gateway, text

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(use, range(8)))) == 1
    assert threads() == []


async def test_the_loop_goes_on_while_it_starts(temporary):
    class Held(ScriptedEngine):
        async def models(self):
            reached.set()
            await asyncio.to_thread(go_on.wait, 30)
            return await super().models()

    reached, go_on = threading.Event(), threading.Event()
    starting = asyncio.create_task(LocalGateway(engine=Held()).__aenter__())
    await asyncio.to_thread(reached.wait, 30)
    assert not starting.done()  # and this line runs
    go_on.set()
    gateway = await starting
    assert gateway.target
    await gateway.__aexit__(None, None, None)


async def test_a_start_that_is_cancelled_leaves_nothing(temporary):
    class Held(ScriptedEngine):
        async def models(self):
            reached.set()
            await asyncio.to_thread(go_on.wait, 30)
            return await super().models()

    reached, go_on = threading.Event(), threading.Event()
    gateway = LocalGateway(engine=Held())
    starting = asyncio.create_task(gateway.__aenter__())
    await asyncio.to_thread(reached.wait, 30)
    starting.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert threads() == []
    with pytest.raises(RuntimeError, match="isn't running"):
        _ = gateway.target


def test_calls_get_the_grace_they_are_given():
    engine = ScriptedEngine(("a", Delay(0.2), "b"))
    gateway = LocalGateway(engine=engine)
    with gateway, gateway.client(config=ONCE) as client, client.text.stream("Hi") as stream:
        engine.wait_for_requests(1)
        gateway.stop(grace=20)
        assert stream.final().text == "ab"


def test_a_shorter_grace_hurries_one_that_drains():
    engine = ScriptedEngine((Stall(),))
    gateway = LocalGateway(engine=engine)
    with gateway, gateway.client(config=ONCE) as client, client.text.stream("Hi") as stream:
        engine.wait_for_requests(1)
        draining = threading.Thread(target=gateway.stop, args=(1000,))
        draining.start()
        while not gateway._current.is_over():
            gateway._do(asyncio.sleep(0))
        gateway.stop()
        draining.join(30)
        assert not draining.is_alive()
        with pytest.raises(ServiceUnavailableError):
            stream.final()


def test_after_the_block_it_is_gone():
    gateway = LocalGateway()
    with gateway, gateway.client(config=ONCE) as client:
        gateway.stop()
        with pytest.raises(ConnectError):
            client.text.generate("Hi")


def test_settings_say_what_it_serves(temporary):
    settings = Settings(
        listen="0.0.0.0:1",
        tls=TLSSettings(Path("none.pem"), Path("none.key")),
        backends=(BackendSettings("mine", models=("small", "embedded-*")),),
        aliases={"chat": "embedded-ngram"},
        clients=(ClientSettings("reader", SECRET.encode(), roles=("reader",)),),
        roles={"reader": ("text.list",)},
        audience="tests",
    )
    with LocalGateway(settings) as gateway, gateway.client() as client:
        assert gateway.target.startswith(f"unix:{temporary}/")
        assert client.text.generate("Hi", model="chat", max_tokens=2).text
        with Client(gateway.target, credentials=JWTSigner("reader", SECRET, audience="tests")) as reader:
            with pytest.raises(PermissionDeniedError):
                reader.text.generate("Hi")
            assert reader.health() == "SERVING"


def test_an_engine_of_ones_own_answers_for_every_model():
    engine = ScriptedEngine(("Hi",))
    with LocalGateway(Settings(aliases={"chat": "m"}), engine=engine) as gateway, gateway.client() as client:
        for model in ("", "fake", "chat", "anything"):
            assert client.text.generate("Hi", **({"model": model} if model else {})).text == "Hi"
    assert [seen.request.model for seen in engine.requests] == ["fake", "fake", "m", "anything"]


FAILING = {
    "settings": lambda: LocalGateway(Settings(default_model="none")),
    "pace": lambda: LocalGateway(pace=-1),
    "no backend": lambda: LocalGateway(Settings(backends=())),
}


@pytest.mark.parametrize("make", FAILING.values(), ids=FAILING)
async def test_a_start_that_fails_leaves_nothing(make, temporary):
    gateway = make()
    for _ in range(2):
        with pytest.raises(ConfigurationError):
            gateway.start()
        assert threads() == []
        with pytest.raises(ConfigurationError):
            await gateway.__aenter__()
        assert threads() == []
        assert list(temporary.iterdir()) == []


def test_a_failed_start_closes_the_engine(fake_server):
    closed = []

    class Closing(ScriptedEngine):
        async def aclose(self):
            closed.append(self)

    with pytest.raises(ConfigurationError, match="in use"):
        FakeServer(listen=fake_server.target, engine=Closing()).start()
    assert len(closed) == 1


def test_nowhere_for_the_socket(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere-at-all")
    with pytest.raises(
        ConfigurationError, match="cannot make a directory for the socket in '/nowhere-at-all': No such"
    ):
        LocalGateway().start()
    assert threads() == []


@pytest.mark.parametrize("name", ["x" * 100, "a b", "a%20b", "ä"])
def test_a_temporary_directory_that_no_socket_address_can_name(name, tmp_path, monkeypatch):
    (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
    with LocalGateway() as gateway, gateway.client() as client:
        assert folder_of(gateway).parent == Path("/tmp")
        assert client.health() == "SERVING"


def test_a_pace_is_for_the_engine_it_brings():
    for values in ({"settings": Settings()}, {"engine": ScriptedEngine()}):
        with pytest.raises(ConfigurationError, match="pace is for the embedded engine"):
            LocalGateway(pace=1, **values)
    with LocalGateway(pace=1000) as gateway, gateway.client() as client:
        assert client.text.generate("Hi", max_tokens=2).text


USES = """
from deepseek_grpc.local import LocalGateway
gateway = LocalGateway()
gateway.start()
client = gateway.client()
print(client.text.generate("Hi", max_tokens=2).text)
"""


@pytest.mark.parametrize("end", ["", "client.close()", "import sys; sys.exit()", "gateway.stop()", "del gateway"])
def test_a_program_that_does_not_close_it_leaves_nothing(end, temporary):
    done = run(USES + end, TMPDIR=str(temporary))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert list(temporary.iterdir()) == []


def test_a_program_that_fails_leaves_nothing(temporary):
    done = run(USES + "raise ValueError('mine')", TMPDIR=str(temporary))
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: mine\n")
    assert done.stderr.count("Traceback") == 1


def test_a_fork_leaves_its_parents_gateway_alone(temporary):
    code = """
import os, sys
from deepseek_grpc.local import LocalGateway
gateway = LocalGateway()
gateway.start()
folder = gateway.target.removeprefix("unix:").rpartition("/")[0]
if not (child := os.fork()):
    try:
        gateway.client()
    except RuntimeError as error:
        print(error, gateway, flush=True)
    gateway.stop()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert os.listdir(folder) == ["gw"]
with gateway.client() as client:
    print(client.health())
"""
    # Since 3.12 Python warns of any fork in a process that has threads.
    done = run(code, warnings=False, TMPDIR=str(temporary))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "the LocalGateway isn't running; use it in a `with` block LocalGateway(not running)",
        "SERVING",
    ]


def test_with_every_warning_an_error(temporary):
    done = run(
        """
import asyncio
import logging

# The oldest supported gRPC logs a harmless BlockingIOError there where two event loops of one process poll.
logging.getLogger("asyncio").setLevel(logging.CRITICAL)
from deepseek_grpc.local import LocalGateway

with LocalGateway() as gateway, gateway.client() as client:
    print(client.text.generate("Hi", max_tokens=2).text)

async def main():
    async with LocalGateway() as gateway, gateway.async_client() as client:
        print((await client.text.generate("Hi", max_tokens=2)).text)

asyncio.run(main())
""",
        TMPDIR=str(temporary),
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_importing_the_package_does_not_load_it():
    done = run(
        "import sys, deepseek_grpc\n"
        "assert not [name for name in sys.modules if name.startswith(('deepseek_grpc.gateway', 'deepseek_grpc.local'))]"
    )
    assert done.returncode == 0, done.stderr
