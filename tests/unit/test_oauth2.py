"""OAuth 2.0 client credentials against a token endpoint on a socket."""

import asyncio
import base64
import logging
import re
import select
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import grpc
import pytest
from cryptography import x509

from deepseek_grpc import Client
from deepseek_grpc.auth import JWTSigner, OAuth2ClientCredentials, Secret, call_credentials
from deepseek_grpc.auth.oauth2 import _retry_after
from deepseek_grpc.errors import AuthenticationError, ConfigurationError
from deepseek_grpc.testing import FakeServer
from tests.certificates import HOUR, Authority

from .token_server import TokenServer, answer, server_tls, token

SECRET = "s3cret of +/&=% and ü"
TOKEN_URL = "https://login.example.com/token"


class Clock:
    """Time that a test sets."""

    def __init__(self, now=1_700_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def server():
    with TokenServer() as server:
        yield server


def credentials(server, **options):
    return OAuth2ClientCredentials(server.url, "svc a", SECRET, **options)


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# What is sent


def test_the_client_shows_itself_in_a_header(server):
    source = credentials(server, scope="a b", audience="gw", extra={"resource": "r&r"})
    assert source.token() == "token-1"
    (request,) = server.requests
    assert request.path == "/token"
    assert request.form == {"grant_type": "client_credentials", "scope": "a b", "audience": "gw", "resource": "r&r"}
    # RFC 6749, section 2.3.1: both are form-urlencoded before they go into Basic.
    assert request.login == ["svc+a", "s3cret+of+%2B%2F%26%3D%25+and+%C3%BC"]
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"


def test_the_client_shows_itself_in_the_form(server):
    assert credentials(server, auth="body").token() == "token-1"
    (request,) = server.requests
    assert request.form == {"grant_type": "client_credentials", "client_id": "svc a", "client_secret": SECRET}
    assert "Authorization" not in request.headers


@pytest.mark.parametrize("secret", [SECRET, SECRET.encode(), Secret(SECRET)])
def test_a_secret_is_text_bytes_or_a_secret(server, secret):
    OAuth2ClientCredentials(server.url, "svc a", secret).token()
    assert server.requests[0].login[1] == "s3cret+of+%2B%2F%26%3D%25+and+%C3%BC"


def test_a_query_in_the_url_is_sent_and_not_shown(server):
    source = OAuth2ClientCredentials(f"{server.url}?tenant=t1", "svc-a", SECRET)
    server.reply = lambda n: answer(500)
    with pytest.raises(AuthenticationError) as caught:
        source.token()
    assert server.requests[0].path == "/token?tenant=t1"
    assert "t1" not in str(caught.value) + repr(source)
    assert server.url in str(caught.value)


# How long a token is kept


def test_a_token_is_kept_and_renewed_in_the_background_at_four_fifths_of_its_life(server):
    clock = Clock()
    source = credentials(server, clock=clock)
    assert source.cached() is None
    assert source.token() == source.cached() == "token-1"
    clock.now += 79.9
    assert source.token() == source.cached() == "token-1"
    assert len(server.requests) == 1
    server.open.clear()
    clock.now += 0.1
    assert source.token() == "token-1"  # while the endpoint thinks
    assert server.arrived.acquire(timeout=30)
    assert server.arrived.acquire(timeout=30)
    assert source.token() == source.cached() == "token-1"
    server.open.set()
    until(lambda: source.cached() == "token-2")
    assert len(server.requests) == 2


def test_a_look_at_the_cached_token_is_enough_to_have_it_renewed(server):
    clock = Clock()
    source = credentials(server, clock=clock)
    source.token()
    clock.now += 90
    until(lambda: source.cached() == "token-2")
    assert len(server.requests) == 2


def test_an_expired_token_is_never_handed_out(server):
    clock = Clock()
    source = credentials(server, clock=clock)
    source.token()
    clock.now += 100
    assert source.cached() is None
    assert source.token() == "token-2"


def test_a_clock_that_went_back_makes_a_new_token(server):
    clock = Clock()
    source = credentials(server, clock=clock)
    source.token()
    clock.now -= 29
    assert source.token() == "token-1"
    clock.now -= 600
    assert source.cached() is None
    assert source.token() == "token-2"


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [(60, 60), (60.5, 60.5), ("60", 60), (None, 300), (10**12, 86_400), ("1e9", 86_400), (0.5, 0.5)],
)
def test_the_lifetime_of_a_token(server, expires_in, lifetime):
    clock = Clock()
    server.reply = lambda n: token(n, expires_in=expires_in)
    source = credentials(server, clock=clock)
    source.token()
    clock.now += 0.99 * lifetime
    assert source._cache._renewal.good(clock.now) == Secret("token-1")
    clock.now += 0.02 * lifetime
    assert source.cached() is None


def test_a_lifetime_that_is_left_out_is_five_minutes(server):
    clock = Clock()
    server.reply = lambda n: answer(access_token=f"token-{n}")  # nor is there a token_type
    source = credentials(server, clock=clock)
    source.token()
    clock.now += 239
    assert source.token() == "token-1"
    clock.now += 61
    assert source.token() == "token-2"


def test_a_token_that_is_over_when_it_comes_is_none(server):
    clock = Clock()

    def slow(n):
        clock.now += 5
        return token(n, expires_in=4)

    server.reply = slow
    with pytest.raises(AuthenticationError, match="4 s was over when it arrived") as caught:
        credentials(server, clock=clock).token()
    assert caught.value.retryable


# A forced renewal


def test_a_refused_token_is_fetched_anew_once(server):
    source = credentials(server)
    first = source.token()
    for _ in range(3):
        source.invalidate(first)
    assert source.cached() is None
    assert source.token() == "token-2"
    source.invalidate(first)  # somebody has renewed it
    assert source.token() == "token-2"
    assert len(server.requests) == 2


def test_an_endpoint_that_has_no_other_token_is_not_asked_again_and_again(server):
    server.reply = lambda n: token(1)
    source = credentials(server)
    for _ in range(5):
        source.invalidate(source.token())
    assert source.token() == "token-1"
    assert len(server.requests) == 2


# Failures


@pytest.mark.parametrize(
    ("reply", "says", "retryable", "retry_after"),
    [
        (answer(401, error="invalid_client"), "401 invalid_client: the client id or the secret is wrong", False, None),
        (answer(400, error="invalid_scope"), "400 invalid_scope: the scope", False, None),
        (answer(400, error="own_code"), "answered 400 own_code$", False, None),
        (answer(400, error="SECRET you sent"), "answered 400$", False, None),
        (answer(400, error="x" * 41), "answered 400$", False, None),
        (answer(400, error=["invalid_client"]), "answered 400$", False, None),
        ((403, {}, b"<html>"), "answered 403$", False, None),
        ((404, {}, b"[]"), "404; is it the right URL", False, None),
        ((302, {"Location": "https://elsewhere.example.com/"}, b""), "302, a redirect", False, None),
        ((307, {"Location": "/token"}, b""), "307, a redirect", False, None),
        (answer(500, error="server_error"), "500 server_error", True, None),
        ((502, {}, b"Bad gateway"), "answered 502", True, None),
        ((503, {"Retry-After": "7"}, b""), "answered 503", True, 7),
        ((429, {"Retry-After": "99999"}, b""), "answered 429", True, 3600),
        ((429, {"Retry-After": "soon"}, b""), "answered 429", True, None),
        ((204, {}, b""), "answered 204", False, None),
        ((200, {}, b""), "isn't a JSON object", False, None),
        ((200, {}, b"\xff"), "isn't a JSON object", False, None),
        ((200, {}, b"[" * 60_000), "isn't a JSON object", False, None),
        ((200, {}, b'["token"]'), "isn't a JSON object", False, None),
        ((200, {}, b'{"access_token": ' + b"9" * 5000 + b"}"), "isn't a JSON object", False, None),
        ((200, {}, b" " * 65_537), "more than 65536 bytes", False, None),
        (answer(token_type="Bearer"), "without an access_token", False, None),
        (answer(access_token=5, token_type="Bearer"), "without an access_token", False, None),
        (answer(access_token="", token_type="Bearer"), "without an access_token", False, None),
        (token(1, token_type="DPoP"), "isn't a bearer token", False, None),
        (token(1, token_type=None), "isn't a bearer token", False, None),
        (token(1, access_token="two words"), "a header can't carry", False, None),
        (token(1, access_token="line\nbreak"), "a header can't carry", False, None),
        (token(1, access_token="\ud800"), "a header can't carry", False, None),
        *[
            (token(1, expires_in=wrong), "no positive number of seconds", False, None)
            for wrong in (0, -5, "soon", True, [60], {}, float("nan"), float("inf"), 10**400)
        ],
        (b"SSH-2.0-OpenSSH_9.6\r\n", "isn't HTTP .BadStatusLine", True, None),
        (b"", "hung up without an answer", True, None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "broke off in the middle", True, None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{", "isn't a JSON object", False, None),
    ],
)
def test_an_answer_without_a_token_is_an_error_that_says_so(server, reply, says, retryable, retry_after):
    server.reply = lambda n: reply
    with pytest.raises(AuthenticationError) as caught:
        credentials(server).token()
    error = caught.value
    assert re.search(says, error.details)
    assert server.url in error.details
    assert (error.reason, error.retryable, error.retry_after) == ("TOKEN_ENDPOINT", retryable, retry_after)
    assert len(server.requests) == 1  # redirects included


def test_an_error_code_that_is_the_secret_is_not_shown(server):
    server.reply = lambda n: answer(400, error="a_hush_hush_b")
    with pytest.raises(AuthenticationError) as caught:
        OAuth2ClientCredentials(server.url, "a", "hush_hush").token()
    assert caught.value.details.endswith("answered 400")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", None), ("-5", None), ("5", 5), ("9" * 50, 3600), ("Wed, 21 Oct 2015 07:28:00 GMT", 60), ("٣", None)],
)
def test_when_to_come_back(text, seconds):
    assert _retry_after(text, 1_445_412_420.0) == seconds


def test_an_endpoint_in_trouble_is_worth_another_try(server):
    server.reply = lambda n: answer(503)
    with pytest.raises(AuthenticationError) as caught:
        credentials(server).token()
    assert str(caught.value).endswith("answered 503. Try again in a moment.")


def test_an_endpoint_that_refuses_is_asked_again_when_it_says(server):
    clock = Clock()
    server.reply = lambda n: answer(429, {"Retry-After": "60"}) if n == 1 else token(n)
    source = credentials(server, clock=clock)
    for _ in range(50):
        with pytest.raises(AuthenticationError, match="429"):
            source.token()
        clock.now += 1
    assert len(server.requests) == 1
    clock.now += 10
    assert source.token() == "token-2"


def test_a_gateway_that_refuses_every_token_makes_few_requests(server):
    source = credentials(server, clock=Clock())
    for _ in range(50):
        source.invalidate(source.token())
    assert len(server.requests) == 2


def test_all_who_wait_get_an_exception_of_their_own(server):
    server.open.clear()
    server.reply = lambda n: answer(401, error="invalid_client")
    source = credentials(server)
    started = threading.Barrier(9)

    def ask(_):
        started.wait()
        with pytest.raises(AuthenticationError, match="invalid_client") as caught:
            source.token()
        return caught.value

    with ThreadPoolExecutor(8) as pool:
        errors = pool.map(ask, range(8))
        started.wait()
        assert server.arrived.acquire(timeout=30)
        server.open.set()
        assert len({id(error) for error in list(errors)}) == 8


def test_a_renewal_ahead_of_time_that_fails_waits_before_the_next(server, caplog):
    clock = Clock()
    server.reply = lambda n: token(1) if n == 1 else answer(503, {"Retry-After": "4"} if n == 3 else None)
    source = credentials(server, clock=clock)
    source.token()

    def renewals(n):
        until(lambda: source.token() == "token-1" and len(server.requests) == n and source._cache._flight is None)

    clock.now += 80
    renewals(2)
    for step, requests in ((0.9, 2), (0.2, 3), (3.8, 3), (0.3, 4), (3.8, 4), (0.3, 5)):
        clock.now += step
        renewals(requests)
        for _ in range(20):
            assert source.token() == "token-1"
        assert len(server.requests) == requests
    clock.now += 20
    with pytest.raises(AuthenticationError, match="503"):
        source.token()  # when there is nothing left, a caller asks
    assert len(server.requests) == 6

    def warnings():
        return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

    until(lambda: len(warnings()) == 4)
    assert all("was not renewed" in text and "503" in text for text in warnings())


def test_an_endpoint_that_is_not_there_is_named():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    source = OAuth2ClientCredentials(f"http://127.0.0.1:{port}/token", "a", SECRET)
    with pytest.raises(AuthenticationError, match=rf"127.0.0.1:{port}/token can't be reached: Connection refused") as e:
        source.token()
    assert e.value.retryable


def test_a_host_that_is_nowhere_is_named(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    source = OAuth2ClientCredentials("https://nowhere.invalid/token", "a", SECRET)
    with pytest.raises(AuthenticationError, match=r"https://nowhere.invalid/token can't be found: .*host's name") as e:
        source.token()
    assert e.value.retryable


def test_an_endpoint_that_does_not_answer_is_given_up(server):
    server.open.clear()
    with pytest.raises(AuthenticationError, match=r"didn't answer within 0.2 s") as caught:
        credentials(server, timeout=0.2).token()
    assert caught.value.retryable


def test_an_endpoint_that_answers_drop_by_drop_is_given_up():
    """Each byte comes in time, the whole doesn't."""
    gone = threading.Event()

    def drip(listener):
        connection, _ = listener.accept()
        with closing(connection):
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            try:
                while True:
                    connection.sendall(b"x: y\r\n"[:1])
                    readable, _, _ = select.select([connection], [], [], 0.02)
                    if readable and not connection.recv(65_536):
                        return
            except OSError:
                pass
            finally:
                gone.set()

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        source = OAuth2ClientCredentials(f"http://127.0.0.1:{listener.getsockname()[1]}/", "a", SECRET, timeout=0.5)
        with pytest.raises(AuthenticationError, match=r"didn't answer within 0.5 s"):
            source.token()
        assert gone.wait(30)
        thread.join()


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


def test_a_token_over_tls(authority):
    with TokenServer(server_tls(*authority.issue("here"))) as server:
        source = credentials(server, ca_file=authority.file)
        assert source.token() == "token-1"


@pytest.mark.parametrize(
    ("issued", "trusted", "says"),
    [
        ({}, False, "unable to get local issuer certificate; give the authority.*ca_file"),
        (
            {"alternative": x509.DNSName("elsewhere.test")},
            True,
            "mismatch.*; give the host as the certificate",
        ),
        ({"since": -2 * HOUR, "until": -HOUR}, True, "certificate has expired; have it renewed"),
    ],
)
def test_a_bad_certificate_is_explained(authority, issued, trusted, says):
    with TokenServer(server_tls(*authority.issue("bad", **issued))) as server:
        with pytest.raises(AuthenticationError, match=says) as caught:
            credentials(server, ca_file=authority.file if trusted else None).token()
        assert not caught.value.retryable
        assert server.requests == []


def test_https_to_a_port_that_speaks_http_is_explained(server, authority):
    url = server.url.replace("http:", "https:")
    with pytest.raises(AuthenticationError, match=r"can't be reached over TLS: .*; is it an https port"):
        OAuth2ClientCredentials(url, "a", SECRET).token()


@pytest.fixture
def proxy(monkeypatch):
    """A proxy that leads every CONNECT to the port that a test says."""
    listener = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("https_proxy", f"http://us%20er:pa@127.0.0.1:{listener.getsockname()[1]}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    state = {"asked": [], "port": None}

    def serve():
        client, _ = listener.accept()
        with closing(client):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(4096)
            state["asked"] = head.decode().split("\r\n")
            if state["port"] is None:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                return
            with closing(socket.create_connection(("127.0.0.1", state["port"]))) as there:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                pairs = {client: there, there: client}
                while True:
                    for side in select.select(list(pairs), [], [])[0]:
                        data = side.recv(65_536)
                        if not data:
                            return
                        pairs[side].sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    yield state
    with closing(socket.create_connection(listener.getsockname())):  # one who has waited in vain
        pass
    thread.join()
    listener.close()


def test_a_proxy_of_the_environment_leads_to_the_endpoint(authority, proxy):
    with TokenServer(server_tls(*authority.issue("login", x509.DNSName("login.test")))) as server:
        proxy["port"] = server.server_port
        source = OAuth2ClientCredentials("https://login.test/token", "a", SECRET, ca_file=authority.file)
        assert source.token() == "token-1"
    assert proxy["asked"][0].startswith("CONNECT login.test:443")
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'us er:pa').decode()}" in proxy["asked"]


def test_a_proxy_that_refuses_is_named(authority, proxy):
    source = OAuth2ClientCredentials("https://login.test/token", "a", SECRET, ca_file=authority.file)
    with pytest.raises(AuthenticationError, match="can't be reached: the proxy refuses"):
        source.token()


def test_no_proxy_stands_before_this_machine(authority, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with TokenServer(server_tls(*authority.issue("here"))) as server, TokenServer() as plain:
        assert credentials(server, ca_file=authority.file).token() == "token-1"
        assert credentials(plain).token() == "token-1"


# One renewal for all

CALLERS = 1000


def test_a_thousand_threads_make_one_request(server):
    server.open.clear()
    source = credentials(server)
    started = threading.Barrier(CALLERS + 1)
    tokens = []

    def ask():
        started.wait()
        tokens.append(source.token())

    threads = [threading.Thread(target=ask) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    started.wait()
    assert server.arrived.acquire(timeout=30)
    server.open.set()
    for thread in threads:
        thread.join()
    assert tokens == ["token-1"] * CALLERS
    assert len(server.requests) == 1


async def test_a_thousand_tasks_make_one_request(server):
    server.open.clear()
    source = credentials(server)
    loop = asyncio.get_running_loop()
    calls = [loop.run_in_executor(None, source.token) for _ in range(CALLERS)]
    with ThreadPoolExecutor(1) as pool:  # those of the loop's executor all wait for the token
        assert await loop.run_in_executor(pool, lambda: server.arrived.acquire(timeout=30))
    server.open.set()
    assert await asyncio.gather(*calls) == ["token-1"] * CALLERS
    assert len(server.requests) == 1


def test_a_thousand_calls_make_one_request_from_grpcs_own_threads(server):
    server.open.clear()
    source = credentials(server)
    seen = []

    def answer_call(request, context):
        seen.append(dict(context.invocation_metadata())["authorization"])
        return b""

    handler = grpc.method_handlers_generic_handler("t.T", {"C": grpc.unary_unary_rpc_method_handler(answer_call)})
    grpc_server = grpc.server(ThreadPoolExecutor(4), handlers=(handler,))
    port = grpc_server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    grpc_server.start()
    composite = grpc.composite_channel_credentials(grpc.local_channel_credentials(), call_credentials(source))
    with grpc.secure_channel(f"127.0.0.1:{port}", composite) as channel:
        method = channel.unary_unary("/t.T/C")
        calls = [method.future(b"") for _ in range(CALLERS)]
        assert server.arrived.acquire(timeout=30)
        server.open.set()
        for call in calls:
            call.result(timeout=50)
    grpc_server.stop(None).wait()
    assert seen == ["Bearer token-1"] * CALLERS
    assert len(server.requests) == 1


FORK = """
import os, sys, threading
from deepseek_grpc.auth import OAuth2ClientCredentials

source = OAuth2ClientCredentials(sys.argv[1], "a", "s3cret")
if sys.argv[2] == "held":
    assert source.token() == "token-1"
    before = source.cached()
else:
    threading.Thread(target=source.token, daemon=True).start()
    while source._cache._flight is None:
        pass
    sys.stdin.readline()  # the request is under way: the parent says so
    before = None
    source._cache._lock.acquire()  # as a thread of the parent may hold it
child = os.fork()
if child == 0:
    if before:
        assert source.cached() == before
        source.invalidate(before)
    assert source.token() == "token-2"
    os._exit(7)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("state", ["held", "under way"])
def test_a_child_of_a_fork_renews_for_itself(server, state):
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", FORK, server.url, state], stdin=subprocess.PIPE)
    try:
        if state == "under way":
            first = threading.Event()
            server.open.clear()
            assert server.arrived.acquire(timeout=30)
            server.open, gate = first, server.open
            first.set()  # for the second; the first one still waits at the old gate
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.wait(40) == 7
            gate.set()
        else:
            assert process.wait(40) == 7
    finally:
        process.kill()
        process.communicate()
    assert len(server.requests) == 2


# What can't be used


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://login.example.com/token", "^token_url is 'http' to 'login.example.com'; give an https URL"),
        ("ftp://127.0.0.1/token", "^token_url is 'ftp'"),
        ("https://", "isn't a URL"),
        ("login.example.com/token", "isn't a URL"),
        ("", "isn't a URL"),
        ("https://[::1", "isn't a URL"),
        ("https://host:99999/", "isn't a URL"),
        ("https://host:0/", "isn't a URL"),
        ("https://host/a b", "isn't a URL"),
        ("https://host/a\nb", "isn't a URL"),
        ("https://höst/", "isn't a URL"),
        ("https://user:hidden@host/", "has a user in it"),
        (None, "^token_url is a NoneType"),
        (b"https://host/", "^token_url is a bytes"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_quoted(url, says):
    with pytest.raises(ConfigurationError, match=says) as caught:
        OAuth2ClientCredentials(url, "a", SECRET)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://localhost:8080/t", "http://[::1]:8080/t", "http://127.1.2.3/t", TOKEN_URL])
def test_plain_http_is_for_this_machine(url):
    assert repr(OAuth2ClientCredentials(url, "a", SECRET)) == f"OAuth2ClientCredentials('{url}', 'a', …)"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"client_id": ""}, "^client_id is ''"),
        ({"client_id": 5}, "^client_id is 5"),
        ({"client_id": "\ud800"}, "lone surrogate"),
        ({"client_secret": None}, "^client_secret is a NoneType"),
        ({"client_secret": ""}, "^client_secret is empty"),
        ({"client_secret": "\ud800"}, "lone surrogate"),
        ({"auth": "digest"}, "^auth is 'digest'; give 'basic' or 'body'"),
        ({"scope": ""}, "^scope is ''"),
        ({"scope": ["a"]}, "^scope is"),
        ({"audience": 5}, "^audience is 5"),
        ({"extra": [("a", "b")]}, "^extra is a list"),
        ({"extra": {"a": 5}}, "^extra isn't text only"),
        ({"extra": {5: "a"}}, "^extra isn't text only"),
        ({"extra": {"scope": "a"}}, "^extra has 'scope'"),
        ({"extra": {"grant_type": "a"}}, "^extra has 'grant_type'"),
        ({"extra": {"a": "\udfff"}}, "lone surrogate"),
        ({"timeout": 0}, "^timeout is 0"),
        ({"timeout": True}, "^timeout is True"),
        ({"timeout": "5"}, "^timeout is '5'"),
        ({"timeout": float("nan")}, "^timeout is nan"),
        ({"timeout": 601}, "up to 600"),
        ({"ca_file": "missing.pem"}, "^ca_file: cannot read 'missing.pem': No such file"),
        ({"ca_file": __file__}, "^ca_file: .* holds no certificate in PEM"),
        ({"ca_file": 5.5}, "^ca_file is 5.5"),
    ],
)
def test_an_argument_that_cannot_be_used_is_named(changed, says):
    arguments = {"token_url": TOKEN_URL, "client_id": "a", "client_secret": SECRET} | changed
    with pytest.raises(ConfigurationError, match=says):
        OAuth2ClientCredentials(**arguments)


# From the environment

TARGET = {"DEEPSEEK_GRPC_TARGET": "127.0.0.1:1"}
CREDENTIALS = {"DEEPSEEK_GRPC_CLIENT_ID": "svc-a", "DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}


def test_a_client_of_the_environment_fetches_its_token(server):
    with FakeServer() as fake:
        signer = JWTSigner(fake.client_id, fake.client_secret)
        server.reply = lambda n: token(n, access_token=signer.token())
        environ = fake.environ | {"DEEPSEEK_GRPC_TOKEN_URL": server.url, "DEEPSEEK_GRPC_SCOPE": "s t"}
        with Client.from_env(environ) as client:
            fake.text.script("Hi")
            assert client.text.generate("Say hi").text == "Hi"
    assert [request.form["scope"] for request in server.requests] == ["s t"]


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"DEEPSEEK_GRPC_TOKEN_URL": TOKEN_URL}, "set DEEPSEEK_GRPC_CLIENT_ID and"),
        (CREDENTIALS | {"DEEPSEEK_GRPC_SCOPE": "s"}, "DEEPSEEK_GRPC_SCOPE is for DEEPSEEK_GRPC_TOKEN_URL"),
        (CREDENTIALS | {"DEEPSEEK_GRPC_TOKEN_URL": "http://h.example.com/"}, "give an https URL"),
    ],
)
def test_half_an_environment_is_refused(environ, says):
    with pytest.raises(ConfigurationError, match=says):
        Client.from_env(TARGET | environ)
