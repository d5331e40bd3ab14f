"""Addresses where a gateway can't listen: each says why."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deepseek_grpc.auth import Secret
from deepseek_grpc.errors import ConfigurationError
from deepseek_grpc.gateway.listening import cannot_listen
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.settings import ClientSettings, Settings
from deepseek_grpc.testing import FakeServer, ScriptedEngine
from tests.unit.keys import SECRET

CLIENT = ClientSettings("test-client", Secret(SECRET), roles=("test",))


def gateway_on(listen):
    settings = Settings(listen, clients=(CLIENT,), roles={"test": ("*",)})
    return Gateway(settings, backends=[Backend(ScriptedEngine(), ("*",))])


async def refusal(listen):
    gateway = gateway_on(listen)
    with pytest.raises(ConfigurationError) as caught:
        await gateway.start()
    await gateway.stop()
    assert caught.value.details.startswith(f"cannot listen on {listen!r}: ")
    return caught.value.details.partition(": ")[2]


async def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "in use by another program" in await refusal(f"127.0.0.1:{taken.getsockname()[1]}")


async def test_a_port_in_use_by_another_gateway(fake_server):
    assert "in use by another program" in await refusal(fake_server.target)


async def test_an_address_of_this_machine_is_needed():
    # An address of loopback's own family that isn't configured anywhere: 192.0.2.0/24 is for documentation (RFC 5737).
    assert "isn't one of this machine's" in str(cannot_listen("192.0.2.1:50051", RuntimeError("Failed to bind")))


async def test_a_unix_socket_that_is_served(tmp_path):
    with FakeServer(listen=f"unix:{tmp_path}/gw") as server:
        assert "in use by another program" in await refusal(server.target)
        with server.client() as client:  # which goes on
            assert client.text.generate("Hi").text == "Hello from the fake server."


async def test_a_unix_socket_that_somebody_left_behind(tmp_path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "gw"))
    async with gateway_on(f"unix:{tmp_path}/gw") as gateway:
        assert gateway.address == f"unix:{tmp_path}/gw"


async def test_a_file_in_its_place(tmp_path):
    file = tmp_path / "gw"
    file.write_text("mine")
    assert "no socket" in await refusal(f"unix:{file}")
    assert file.read_text() == "mine"


async def test_a_directory_that_is_not_there(tmp_path):
    assert "directory doesn't exist" in await refusal(f"unix:{tmp_path}/none/gw")


async def test_a_path_through_a_file(tmp_path):
    (tmp_path / "file").touch()
    assert "no directory" in await refusal(f"unix:{tmp_path}/file/gw")


async def test_a_path_that_is_too_long(tmp_path):
    assert "too long" in await refusal(f"unix:{tmp_path}/{'x' * 120}")


@pytest.mark.parametrize("host", ["nobody.invalid", "x" * 64])
def test_a_name_that_does_not_resolve(host):
    assert "doesn't resolve" in str(cannot_listen(f"{host}:50051", RuntimeError("Failed to bind")))


@pytest.mark.parametrize("listen", ["unix-abstract:gw", "127.0.0.1:0", "unix:{tmp_path}/gw"])
def test_where_nothing_is_wrong_it_says_what_grpc_said(listen, tmp_path):
    listen = listen.format(tmp_path=tmp_path)
    assert cannot_listen(listen, RuntimeError("as gRPC says")).details == f"cannot listen on {listen!r}: as gRPC says"
    assert not list(tmp_path.iterdir())


_AS_NOBODY = f"""
import asyncio, os, sys
from pathlib import Path
from deepseek_grpc.errors import ConfigurationError
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.settings import ClientSettings, Settings, TLSSettings
from deepseek_grpc.testing import ScriptedEngine

async def main():
    for listen in sys.argv[2:]:
        tls = TLSSettings(Path(sys.argv[1]), Path(sys.argv[1])) if listen.endswith(":0") else None
        client = ClientSettings("a", b"{SECRET}", roles=("test",))
        settings = Settings(listen, clients=(client,), roles={{"test": ("*",)}}, tls=tls)
        try:
            await Gateway(settings, backends=[Backend(ScriptedEngine(), ("*",))]).start()
        except ConfigurationError as error:
            print(error.details)

"x".encode("idna")  # afterwards the library may be out of reach
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
asyncio.run(main())
"""


def test_no_rights(tmp_path):
    """Root may do everything, so this is done by somebody else."""
    locked, key = tmp_path / "locked", tmp_path / "key.pem"
    locked.mkdir()
    key.touch()
    for path in (locked, key):
        path.chmod(0)
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    wanted = [f"unix:{locked}/gw", "127.0.0.1:0", *(["127.0.0.1:81"] if first > 81 else [])]
    done = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, str(key), *wanted],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines[1:3]] == ["tls.cert_file", "tls.key_file"]
    assert all("cannot read" in line and "Permission denied" in line for line in lines[1:3])
    for listen, line in zip((wanted[0], *wanted[2:]), (lines[0], *lines[3:]), strict=True):
        assert line.startswith(f"cannot listen on {listen!r}: this user has no right to")


def test_the_command_says_it_and_ends_with_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "deepseek_grpc.cli", "serve", "--listen", listen]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 2
    assert "in use by another program" in done.stderr
    assert "Traceback" not in done.stderr


def test_it_can_listen_again_at_once():
    """Connections that linger (TIME_WAIT) are no reason."""

    async def main():
        async with gateway_on("127.0.0.1:0") as gateway:
            address = gateway.address
        async with gateway_on(address) as again:
            assert again.address == address

    asyncio.run(main())
