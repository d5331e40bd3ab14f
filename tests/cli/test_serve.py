"""`serve`."""

import json
import signal
import socket
import subprocess
import time

import pytest

from tests.cli.running import CLI, SECRET, events, finish, run, serving, started


def test_serve_prints_a_credential_that_works(gateway):
    *exports, listening = gateway
    script = "\n".join([*exports, f'exec "{CLI[0]}" generate "What is gRPC?" --max-tokens 5 --json'])
    done = finish(["/bin/sh", "-c", script])
    assert [line.partition("=")[0] for line in exports] == [
        "export DEEPSEEK_GRPC_TARGET",
        "export DEEPSEEK_GRPC_CLIENT_ID",
        "export DEEPSEEK_GRPC_CLIENT_SECRET",
    ]
    assert exports[0].partition("=")[2] == listening.removeprefix("listening on ")
    assert (done.returncode, done.stderr) == (0, "")
    assert events(done)[-1]["meta"]["model"] == "embedded-ngram"


def test_serve_drains_at_sigterm_and_never_prints_a_credential_it_was_given(tmp_path):
    log = tmp_path / "log"
    env = {"DEEPSEEK_GRPC_CLIENT_ID": "svc-a", "DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}
    with serving("--listen", "127.0.0.1:0", "--engine", "embedded", "--pace", "60", env=env, log=log) as (server, said):
        assert len(said) == 1
        env["DEEPSEEK_GRPC_TARGET"] = said[0].removeprefix("listening on ")
        command = ["generate", "What is gRPC?", "--max-tokens", "30", "--json"]
        with started(*command, env=env, stderr=subprocess.PIPE) as client:
            lines = [client.stdout.readline(), client.stdout.readline()]
            server.send_signal(signal.SIGTERM)
            lines += client.stdout.readlines()
            assert (client.wait(30), client.stderr.read()) == (0, "")
        assert json.loads(lines[1])["type"] == "text"
        assert json.loads(lines[-1])["usage"]["completion_tokens"] == 30
        assert server.wait(30) == 0
        assert server.stdout.read() == ""
    assert "draining" in log.read_text()
    assert SECRET not in log.read_text() + said[0]


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_at_once_when_it_is_told_twice(tmp_path, second):
    log = tmp_path / "log"
    env = {"DEEPSEEK_GRPC_CLIENT_ID": "svc-a", "DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}
    with serving("--listen", "127.0.0.1:0", "--pace", "2", env=env, log=log) as (server, said):
        env["DEEPSEEK_GRPC_TARGET"] = said[0].removeprefix("listening on ")
        # At two tokens a second it would take minutes, and the drain half of one.
        with started("generate", "What is gRPC?", "--max-tokens", "400", "--json", env=env) as client:
            lines = [client.stdout.readline(), client.stdout.readline()]
            server.send_signal(signal.SIGINT)
            while "draining" not in log.read_text():
                assert server.poll() is None
                time.sleep(0.01)
            server.send_signal(second)
            assert server.wait(20) == 0
            lines += client.stdout.readlines()
            assert client.wait(20) == 5
        assert [json.loads(lines[i])["type"] for i in (1, -1)] == ["text", "error"]
    assert "stopping at once" in log.read_text()


def test_serve_ends_at_ctrl_c_too(tmp_path):
    with serving("--listen", f"unix:{tmp_path}/gw.sock", log=tmp_path / "log") as (server, said):
        assert said[-1] == f"listening on unix:{tmp_path}/gw.sock"
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


def test_serve_with_a_file_prints_no_credential(tmp_path):
    (tmp_path / "gateway.toml").write_text(
        """
        [gateway]
        listen = "127.0.0.1:1"
        [[clients]]
        id = "svc-a"
        secret_env = "SVC_A"
        roles = ["reader"]
        [roles]
        reader = ["text.models"]
        """
    )
    options = ["--config", str(tmp_path / "gateway.toml"), "--listen", "127.0.0.1:0"]
    with serving(*options, env={"SVC_A": SECRET}, log=tmp_path / "log") as (_, said):
        assert len(said) == 1
        env = {"DEEPSEEK_GRPC_CLIENT_ID": "svc-a", "DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}
        env["DEEPSEEK_GRPC_TARGET"] = said[0].removeprefix("listening on ")
        assert run("models", env=env).stdout.startswith("embedded-ngram  embedded  ")
        assert run("generate", "x", env=env).returncode == 3
    assert SECRET not in (tmp_path / "log").read_text()


def test_serve_reports_all_that_is_wrong_with_a_file(tmp_path):
    file = tmp_path / "gateway.toml"
    file.write_text('[gateway]\nlisten = 3\nworkers = 2\n[[clients]]\nid = "a"\n')
    done = run("serve", "--config", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert all(line.startswith(f"error: {file}:") for line in lines)
    assert len(lines) == 3


def test_serve_where_somebody_listens():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot listen on" in done.stderr
