"""TLS that comes to nothing: each error says what is wrong, and what to do about it."""

from __future__ import annotations

import asyncio
import http.server
import socket
import ssl
import threading
import time
from concurrent import futures
from contextlib import ExitStack, contextmanager

import grpc
import pytest
from cryptography import x509

from deepseek_grpc import TLS, AsyncClient, Client, ClientConfig, Retry, Timeouts
from deepseek_grpc.errors import ConnectError, ConnectTimeoutError, DeepSeekError, UnimplementedError
from deepseek_grpc.types import UNSET
from tests.certificates import HOUR, Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture(scope="module")
def certificate(authority):
    return authority.issue("gateway")


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@contextmanager
def gateway(certificate=None, client_ca=None):
    """Speaks gRPC over TLS, or plain with local credentials as gateways do on loopback; serves no method at all."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    credentials = grpc.local_server_credentials()
    if certificate is not None:
        pair = certificate[1].read_bytes(), certificate[0].read_bytes()
        root = client_ca.read_bytes() if client_ca else None
        credentials = grpc.ssl_server_credentials([pair], root, require_client_auth=client_ca is not None)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextmanager
def web_server(certificate=None):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), QuietHandler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class QuietHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


def ask(target, config):
    with Client(target, config=config) as client:
        client.text.generate("Hi", timeout=20)


def ask_async(target, config):
    async def main():
        async with AsyncClient(target, config=config) as client:
            await client.text.generate("Hi", timeout=20)

    asyncio.run(main())


def failure(ask, target, tls, **timeouts):
    """Returns the error of a call; of the first one that found no connection, if a call was quicker than a refusal."""
    deadline = time.monotonic() + 30
    config = ClientConfig(tls=tls, retry=Retry(attempts=1), timeouts=Timeouts(**timeouts))
    while True:
        with pytest.raises(DeepSeekError) as caught:
            ask(target, config)
        if isinstance(caught.value, ConnectError) or time.monotonic() > deadline:
            return caught.value


both = pytest.mark.parametrize("ask", [ask, ask_async])


def check(error, target, says, advises, *, retryable=False):
    assert type(error) is ConnectError, error
    assert error.details == f"no connection to {target!r}: {says}"
    assert advises in str(error)
    assert str(error).endswith(f"(request {error.request_id}{', 1 attempt' if error.attempts else ''}). {error.advice}")
    assert error.retryable is retryable


def test_these_certificates_are_good(authority, certificate):
    mutual = TLS(authority.file, *authority.issue("client"))
    for tls, client_ca in ((TLS(authority.file), None), (mutual, authority.file)):
        with gateway(certificate, client_ca) as target, pytest.raises(UnimplementedError):
            ask(target, ClientConfig(tls=tls))


@both
def test_an_expired_certificate(stack, authority, ask):
    target = stack.enter_context(gateway(authority.issue("old", since=-2 * HOUR, until=-HOUR)))
    error = failure(ask, target, TLS(authority.file))
    check(error, target, "the gateway's certificate has expired", "Have it renewed, or set this machine's clock.")


@both
def test_a_certificate_of_tomorrow(stack, authority, ask):
    target = stack.enter_context(gateway(authority.issue("new", since=HOUR, until=2 * HOUR)))
    check(failure(ask, target, TLS(authority.file)), target, "the gateway's certificate isn't valid yet", "clock")


@both
@pytest.mark.parametrize("trusted", ["another", "the system's"])
def test_an_authority_that_is_not_trusted(stack, stranger, certificate, ask, trusted):
    target = stack.enter_context(gateway(certificate))
    error = failure(ask, target, TLS(stranger.file) if trusted == "another" else True)
    says = "the gateway's certificate is signed by an authority that this client doesn't trust"
    check(error, target, says, "Give the authority's certificate: TLS(ca_file=…).")


@both
def test_a_certificate_for_another_host(stack, authority, certificate, ask):
    elsewhere = stack.enter_context(gateway(authority.issue("elsewhere", x509.DNSName("gateway.internal"))))
    here = stack.enter_context(gateway(certificate))
    for target, name in ((elsewhere, None), (here, "gateway.internal")):
        error = failure(ask, target, TLS(authority.file, server_name=name))
        check(error, target, "the gateway's certificate is made out to another name", "give it: TLS(server_name=…).")


@both
@pytest.mark.parametrize("which", ["none", "a stranger's", "an expired one"])
def test_a_client_certificate_is_required(stack, authority, stranger, certificate, ask, which):
    client = {
        "none": lambda: (),
        "a stranger's": lambda: stranger.issue("intruder"),
        "an expired one": lambda: authority.issue("retired", since=-2 * HOUR, until=-HOUR),
    }[which]()
    target = stack.enter_context(gateway(certificate, authority.file))
    error = failure(ask, target, TLS(authority.file, *client))
    says = "the connection was closed as soon as it stood"
    check(error, target, says, "TLS(cert_file=…, key_file=…).", retryable=True)


@both
def test_plain_text_where_tls_is_spoken(stack, certificate, ask):
    target = stack.enter_context(gateway(certificate))
    error = failure(ask, target, UNSET)
    check(error, target, "the connection was closed as soon as it stood", "it wants TLS", retryable=True)


@both
def test_tls_where_plain_text_is_spoken(stack, authority, ask):
    for server in (gateway, web_server):
        target = stack.enter_context(server())
        error = failure(ask, target, TLS(authority.file))
        check(error, target, "what listens there speaks no TLS", "leave `tls` out")


@both
def test_a_web_server(stack, authority, certificate, ask):
    target = stack.enter_context(web_server(certificate))
    error = failure(ask, target, TLS(authority.file))
    check(error, target, "what listens there speaks TLS, but not HTTP/2", "Check the port, and what stands before")
    target = stack.enter_context(web_server())
    check(failure(ask, target, UNSET), target, "what listens there speaks no gRPC", "Check the port.")


@both
def test_a_handshake_that_nobody_answers(authority, ask):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        error = failure(ask, target, TLS(authority.file), connect=0.3)
    assert type(error) is ConnectTimeoutError
    assert str(error).endswith("allow more time (Timeouts.connect).")
    assert error.retryable
