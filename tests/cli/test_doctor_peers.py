"""`doctor`, before what listens but is no gateway, over TLS and over sockets that lead nowhere."""

import socket
import ssl
import threading
from contextlib import contextmanager

import pytest

from tests.certificates import Authority
from tests.cli.running import SECRET, events, run_here

CREDENTIAL = {"DEEPSEEK_GRPC_CLIENT_ID": "svc-a", "DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


def context_of(certificate, *protocols):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


@contextmanager
def listening(context, answer):
    """Shakes hands with whoever comes, if there is a context, answers the first bytes, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(connection, server_side=True) if context else connection as stream:
                        if stream.recv(1000):
                            stream.sendall(answer)
                except OSError:  # it left, which is its right
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def the_fault(target, **env):
    """Runs `doctor`, which shall find one fault, and returns it."""
    done = run_here("doctor", "--json", "--target", target, env=CREDENTIAL | env)
    (fault,) = [found for found in events(done) if found["status"] == "FAIL"]
    assert fault["code"] == done.returncode == 5
    assert fault["advice"]
    return fault


@pytest.mark.parametrize(
    ("protocols", "answer", "says"),
    [
        ((), b"", "speaks TLS, but not HTTP/2"),
        (("http/1.1",), b"", "TLS"),
        (("h2",), b"+PONG\r\n+PONG\r\n", "speaks no gRPC"),
        (("h2",), b"HTTP/1.1 400 Bad Request\r\n\r\n", "a web server that speaks HTTP/1"),
    ],
)
def test_tls_before_something_else(authority, protocols, answer, says):
    with listening(context_of(authority.issue("other"), *protocols), answer) as target:
        fault = the_fault(target, DEEPSEEK_GRPC_CA_FILE=str(authority.file))
    assert fault["check"] in ("protocol", "tls")
    assert says in fault["detail"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"\x15\x03\x01\x00\x02\x02\x46", "alert protocol version"),  # RFC 8446, section 6: fatal (2), alert 70
        (b"\x16\x03\x03\x00\x04\x02\x00\x00\x00", "no TLS comes about: "),  # a ServerHello of no length
    ],
)
def test_tls_that_does_not_come_about(authority, answer, says):
    with listening(None, answer) as target:
        fault = the_fault(target, DEEPSEEK_GRPC_CA_FILE=str(authority.file))
    assert says in fault["detail"]


def test_a_socket_of_another_type(tmp_path):
    path = tmp_path / "log.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        fault = the_fault(f"unix:{path}")
    assert fault["check"] == "connect"
    assert "rotocol wrong type for socket" in fault["detail"]
