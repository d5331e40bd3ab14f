"""Keys that an issuer publishes: fetched, kept, replaced, and missed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from deepseek_grpc import AsyncClient, Client, ClientConfig, JWTSigner, Retry, StaticToken
from deepseek_grpc.auth import AUDIENCE, Secret
from deepseek_grpc.errors import AuthenticationError, PermissionDeniedError, ServiceUnavailableError
from deepseek_grpc.gateway import jwks
from deepseek_grpc.gateway.jwks import KeySet, UnknownKeyError, fetch, usable_keys
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.settings import ClientSettings, JWKSSettings, Settings
from deepseek_grpc.testing import ScriptedEngine
from tests.unit.keys import SECRET

ISSUER = "https://idp.example/"
OTHER = ClientSettings("svc-own", Secret(SECRET), roles=("all",))
ONCE = ClientConfig(retry=Retry(attempts=1))
PRIVATE = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
ALGORITHM = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}


def public(name="RS256", key=None, **members):
    """Returns a key as it is published."""
    key = PRIVATE[name] if key is None else key
    return {**ALGORITHM[name].to_jwk(key.public_key(), as_dict=True), "kid": "one", "use": "sig", **members}


def token(kid="one", algorithm="RS256", key=None, typ="JWT", **changes):
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": "svc-a", "aud": AUDIENCE, "iat": now, "exp": now + 600, **changes}
    claims = {name: value for name, value in claims.items() if value is not None}
    headers = {"typ": typ} | ({} if kid is None else {"kid": kid})
    return jwt.encode(claims, PRIVATE[algorithm] if key is None else key, algorithm, headers)


class Idp:
    """Publishes what a test puts into `body`; counts who asks."""

    def __init__(self, port=0):
        idp = self
        self.status, self.headers, self.asked, self.gate = 200, {}, 0, threading.Event()
        self.gate.set()
        self.publish(public())

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                idp.asked += 1
                idp.gate.wait(20)
                self.send_response(idp.status)
                for name, value in idp.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(idp.body)))
                self.end_headers()
                self.wfile.write(idp.body)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/keys"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def publish(self, *keys):
        self.body = json.dumps({"keys": keys}).encode()

    def close(self):
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.fixture
def idp():
    with Idp() as idp:
        yield idp


def gateway_for(url, *ids, algorithms=("RS256",), **options):
    issued = JWKSSettings(url, ISSUER, algorithms)
    clients = [ClientSettings(name, roles=("all",), tenant=f"of-{name}", jwks=issued) for name in ids or ("svc-a",)]
    settings = Settings(
        "127.0.0.1:0", clients=(*clients, OTHER), roles={"all": ("*",)}, default_model="fake", **options
    )
    return Gateway(settings, backends=[Backend(ScriptedEngine(), ("*",))])


async def call(gateway, credential):
    credentials = StaticToken(credential) if isinstance(credential, str) else credential
    async with AsyncClient(gateway.address, credentials=credentials, config=ONCE) as client:
        return (await client.text.generate("Hi")).text


async def until(condition):
    """Waits for a condition; the test's own time limit is the end of that."""
    while not condition():  # noqa: ASYNC110 - what happens elsewhere has no event
        await asyncio.sleep(0.01)


HELLO = "Hello from the fake server."


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "application/at+jwt", None])
async def test_a_token_of_the_issuer(idp, typ):
    async with gateway_for(idp.url) as gateway:
        assert await call(gateway, token(typ=typ)) == HELLO
        assert await call(gateway, token(typ=typ)) == HELLO
        assert await call(gateway, JWTSigner("svc-own", SECRET)) == HELLO
    assert idp.asked == 1


@pytest.mark.parametrize("name", PRIVATE)
async def test_every_algorithm(idp, name):
    idp.publish(public(name))
    async with gateway_for(idp.url, algorithms=(name,)) as gateway:
        assert await call(gateway, token(algorithm=name)) == HELLO


async def test_clients_share_an_issuer_and_a_session_knows_whose_it_is(idp):
    async with gateway_for(idp.url, "svc-a", "svc-b") as gateway:
        for claims, who in (({"sub": "svc-a"}, "svc-a"), ({"sub": "a-user", "client_id": "svc-b"}, "svc-b")):
            credentials = StaticToken(token(**claims))
            async with (
                AsyncClient(gateway.address, credentials=credentials, config=ONCE) as client,
                client.text.session() as session,
            ):
                assert (await session.generate("Hi")).text == HELLO
            assert gateway._guard._verifier.verify(token(**claims)).tenant == f"of-{who}"
    assert idp.asked == 1


REFUSED = {
    "no audience": lambda: token(aud=None),
    "another audience": lambda: token(aud="other"),
    "nobody's subject": lambda: token(sub="svc-x"),
    "no subject": lambda: token(sub=None),
    "a user of another client, who is called like a client": lambda: token(client_id="web"),
    "a client_id that is null": lambda: token(client_id=[None]),
    "another issuer": lambda: token(iss="https://idp.example"),
    "another key": lambda: token(key=rsa.generate_private_key(65537, 2048)),
    "an algorithm that isn't pinned": lambda: token(algorithm="ES256"),
    "PS256 with the key of RS256": lambda: jwt.encode(
        jwt.decode(token(), options={"verify_signature": False}), PRIVATE["RS256"], "PS256", {"kid": "one"}
    ),
    "a day": lambda: token(exp=int(time.time()) + 86400),
    "an id token's typ": lambda: token(typ="logout+jwt"),
    "the client's own key, which it hasn't": lambda: JWTSigner("svc-a", SECRET).token(),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(idp, name):
    async with gateway_for(idp.url) as gateway:
        assert await call(gateway, token()) == HELLO
        with pytest.raises(AuthenticationError) as caught:
            await call(gateway, REFUSED[name]())
    assert caught.value.details.startswith("the credential is missing")
    assert idp.asked == 1  # nothing of this makes the gateway ask again


async def test_a_token_without_a_kid_needs_a_single_key(idp):
    idp.publish(public(), public("ES256"), {"kty": "RSA", "kid": "broken"})
    async with gateway_for(idp.url, algorithms=("RS256", "ES256")) as gateway:
        assert await call(gateway, token(kid=None)) == HELLO
    idp.publish(public(), public(kid="two"))
    async with gateway_for(idp.url) as gateway:
        assert await call(gateway, token(kid="two")) == HELLO
        with pytest.raises(AuthenticationError):
            await call(gateway, token(kid=None))
    idp.publish(public(), public(key=rsa.generate_private_key(65537, 2048)))
    async with gateway_for(idp.url) as gateway:
        with pytest.raises(AuthenticationError):
            await call(gateway, token())  # two keys of one name


async def test_keys_change_while_it_runs(idp):
    new = rsa.generate_private_key(65537, 2048)
    async with gateway_for(idp.url) as gateway:
        old = token()
        assert await call(gateway, old) == HELLO
        idp.publish(public(key=new, kid="two"))
        assert await call(gateway, token("two", key=new)) == HELLO
        with pytest.raises(AuthenticationError):  # the key was withdrawn, and what it vouched for with it
            await call(gateway, old)
    assert idp.asked == 2


async def test_an_open_session_takes_a_token_with_a_new_key(idp):
    new = rsa.generate_private_key(65537, 2048)

    class Source:
        current = token()

        def token(self):
            return self.current

    source = Source()
    async with (
        gateway_for(idp.url) as gateway,
        AsyncClient(gateway.address, credentials=source, config=ONCE) as client,
        client.text.session() as session,
    ):
        assert (await session.generate("Hi")).text == HELLO
        idp.publish(public(), public(key=new, kid="two"))
        source.current = token("two", key=new)
        assert (await session.generate("Hi")).text == HELLO
    assert idp.asked == 2


async def test_a_flood_of_made_up_kids_makes_one_fetch(idp):
    async with gateway_for(idp.url) as gateway:
        assert await call(gateway, token()) == HELLO
        verifier = gateway._guard._verifier
        tries = [verifier.admit(token(f"made-up-{number}")) for number in range(300)]
        refused = await asyncio.gather(*tries, return_exceptions=True)
        assert {type(error).__mro__[1] for error in refused} == {AuthenticationError}
        assert await call(gateway, token()) == HELLO
    assert idp.asked == 2


async def test_callers_wait_for_the_first_keys(idp):
    idp.gate.clear()
    async with gateway_for(idp.url) as gateway:
        await until(lambda: idp.asked == 1)
        waiting = asyncio.ensure_future(call(gateway, token()))
        assert await call(gateway, JWTSigner("svc-own", SECRET)) == HELLO
        assert not waiting.done()
        idp.gate.set()
        assert await waiting == HELLO
    assert idp.asked == 1


async def test_an_issuer_that_is_down_and_comes_back(caplog):
    with Idp() as idp:
        pass
    async with gateway_for(idp.url, "svc-a", "svc-b") as gateway:
        with pytest.raises(ServiceUnavailableError) as caught:
            await call(gateway, token())
        assert (caught.value.reason, caught.value.retryable) == ("JWKS_UNAVAILABLE", True)
        assert caught.value.retry_after == 1
        assert await call(gateway, JWTSigner("svc-own", SECRET)) == HELLO
        with pytest.raises(AuthenticationError):  # no key could make this one good
            await call(gateway, token(aud="other"))
        [record] = [record for record in caplog.records if record.name.startswith("deepseek") and record.levelno >= 40]
        for part in (idp.url, "refused", "all tokens", "svc-a, svc-b", "jwks_url"):
            assert part in record.getMessage()
        with Idp(idp.port):
            async with AsyncClient(gateway.address, credentials=StaticToken(token())) as client:
                answer = None
                while answer is None:
                    try:
                        answer = (await client.text.generate("Hi")).text
                    except ServiceUnavailableError:
                        await asyncio.sleep(0.1)
        assert answer == HELLO


async def test_keys_stay_when_a_fetch_fails(idp, caplog):
    async with gateway_for(idp.url) as gateway:
        assert await call(gateway, token()) == HELLO
        idp.status = 503
        with pytest.raises(ServiceUnavailableError) as caught:
            await call(gateway, token("two"))
        assert caught.value.reason == "JWKS_UNAVAILABLE"
        gateway._guard._verifier._verified.clear()
        assert await call(gateway, token()) == HELLO
        assert "tokens signed with new keys" in caplog.text
        idp.status = 200
        await gateway._issuers[0].keys._fetch_once()
        with pytest.raises(AuthenticationError):
            await call(gateway, token("two"))


async def test_a_set_that_is_empty_now_withdraws_its_keys(idp, caplog):
    async with gateway_for(idp.url) as gateway:
        assert await call(gateway, token()) == HELLO
        idp.publish()
        await gateway._issuers[0].keys._fetch_once()
        with pytest.raises(ServiceUnavailableError) as caught:
            await call(gateway, token())
        assert caught.value.reason == "JWKS_UNAVAILABLE"
        assert "its set is empty now" in caplog.text
        assert "all tokens" in caplog.text
        idp.publish(public())
        await gateway._issuers[0].keys._fetch_once()
        assert await call(gateway, token()) == HELLO


async def test_keys_that_cannot_be_fetched_again_count_for_a_day(monkeypatch, idp, caplog):
    assert jwks.MAX_AGE == 24 * 3600
    async with gateway_for(idp.url) as gateway:
        assert await call(gateway, token()) == HELLO
        idp.status = 503
        monkeypatch.setattr(jwks, "MAX_AGE", 0.0)
        await gateway._issuers[0].keys._fetch_once()
        with pytest.raises(ServiceUnavailableError):
            await call(gateway, token())
    assert "count no longer" in caplog.text


@pytest.mark.parametrize("claims", [{"sub": "svc-a"}, {"sub": "nobody"}, {"client_id": "nobody"}, {"sub": "svc-own"}])
async def test_an_outage_does_not_tell_who_is_a_client(idp, claims):
    idp.status = 503
    async with gateway_for(idp.url) as gateway:
        with pytest.raises(ServiceUnavailableError) as caught:
            await call(gateway, token(**claims))
    assert caught.value.reason == "JWKS_UNAVAILABLE"


def test_no_proxy_stands_before_this_machine(monkeypatch, idp):
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert fetch(idp.url) == idp.body


BROKEN = {
    "an error": ({"status": 500}, "HTTP status 500"),
    "another status": ({"status": 202}, "HTTP status 202"),
    "a redirect": ({"status": 302, "headers": {"location": "http://127.0.0.1:1/keys"}}, "HTTP status 302"),
    "no JSON": ({"body": b"<html>"}, "it isn't JSON"),
    "deep JSON": ({"body": b"[" * 100_000}, "it isn't JSON"),
    "no set": ({"body": b"[]"}, "no JWK set"),
    "no list": ({"body": b'{"keys": {}}'}, "no JWK set"),
    "no keys": ({"body": b'{"keys": []}'}, "no key for RS256"),
    "no key of use": ({"body": json.dumps({"keys": [public(use="enc"), 5, None]}).encode()}, "no key for RS256"),
    "too much": ({"body": b" " * (jwks.MAX_BYTES + 1)}, "more than 262144 bytes"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_no_key_set_is_an_outage(idp, caplog, name):
    values, says = BROKEN[name]
    for attribute, value in values.items():
        setattr(idp, attribute, value)
    async with gateway_for(idp.url) as gateway:
        with pytest.raises(ServiceUnavailableError, match="can't be fetched now"):
            await call(gateway, token())
    assert says in caplog.text


async def test_an_issuer_that_does_not_answer(monkeypatch, idp, caplog):
    monkeypatch.setattr(jwks, "TIMEOUT", 0.05)
    idp.gate.clear()
    async with gateway_for(idp.url) as gateway:
        with pytest.raises(ServiceUnavailableError):
            await call(gateway, token())
    assert "timed out" in caplog.text or "TimeoutError" in caplog.text


async def test_an_issuer_that_never_ends(monkeypatch):
    monkeypatch.setattr(jwks, "TIMEOUT", 0.2)

    async def drip(reader, writer):
        try:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises((ValueError, TimeoutError)):
            await asyncio.to_thread(fetch, f"http://127.0.0.1:{port}/")


async def test_it_fetches_from_time_to_time(idp):
    keys = KeySet(idp.url, interval=0.01)
    changes = []
    keys.on_change(lambda: changes.append(len(changes)))
    keys.start()
    keys.start()
    await until(lambda: idp.asked >= 3)
    assert keys.find("RS256", "one").key_id == "one"
    assert changes == [0]  # the same again is no change
    idp.publish(public(kid="two"))
    await until(lambda: len(changes) == 2)
    with pytest.raises(UnknownKeyError):
        keys.find("RS256", "one")
    await keys.aclose()
    await keys.aclose()
    assert keys.find("RS256", None).key_id == "two"


async def test_a_caller_that_gives_up_ends_no_fetch(idp):
    idp.gate.clear()
    keys = KeySet(idp.url)
    first, second = asyncio.ensure_future(keys.refresh()), asyncio.ensure_future(keys.refresh())
    await until(lambda: idp.asked == 1)
    first.cancel()
    idp.gate.set()
    await second
    assert first.cancelled()
    assert (keys.problem, idp.asked) == ("", 1)
    await keys.aclose()


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "one", "alg": "HS256"},
        {"kid": "one"},
        public(kty="RSA2"),
        public(use="enc"),
        public(alg="RS512"),
        public(alg="HS256"),
        public(alg="none"),
        public(alg=["RS256"]),
        public(key_ops=["sign"]),
        public(key_ops="verify"),
        public(kid=5),
        public(n="AQAB"),
        public(n=5),
        public(n=None),
        public(e="Ag"),
        public(key=rsa.generate_private_key(65537, 1024)),
        {**RSAAlgorithm.to_jwk(PRIVATE["RS256"], as_dict=True), "kid": "one", "use": "sig"},
        public("ES256", crv="P-384"),
        public("ES256", x="AAAA"),
        public("EdDSA", crv="X25519"),
        public("ES256", ec.generate_private_key(ec.SECP384R1())),
        public("ES256", ec.generate_private_key(ec.SECP384R1()), alg="ES256"),
        "text",
        None,
        [],
    ],
)
def test_a_key_that_is_none_is_passed_over(entry):
    found = usable_keys(json.dumps({"keys": [entry, public(kid="good")]}).encode(), jwks.ALGORITHMS)
    assert [key.key_id for key in found] == ["good"]


async def test_a_role_is_asked_for_as_of_everybody(idp):
    settings = gateway_for(idp.url).settings
    clients = (ClientSettings("svc-a", jwks=JWKSSettings(idp.url, ISSUER)), OTHER)
    gateway = Gateway(replace(settings, clients=clients), backends=[Backend(ScriptedEngine(), ("*",))])
    async with gateway:
        with pytest.raises(PermissionDeniedError):
            await call(gateway, token())


def test_the_command_starts_without_the_issuer(tmp_path):
    """From a file to the first answers, in a process of its own."""
    with Idp() as idp:
        pass
    (tmp_path / "own.secret").write_text(SECRET)
    file = tmp_path / "gateway.toml"
    file.write_text(
        f"""
        [gateway]
        listen = "127.0.0.1:0"
        [[clients]]
        id = "svc-a"
        jwks_url = "{idp.url}"
        issuer = "{ISSUER}"
        algorithms = ["RS256"]
        roles = ["all"]
        [[clients]]
        id = "svc-own"
        secret_file = "own.secret"
        roles = ["all"]
        [roles]
        all = ["*"]
        """
    )
    command = [sys.executable, "-m", "deepseek_grpc.cli", "serve", "--config", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            target = process.stdout.readline().split()[2]
            with Client(target, credentials=JWTSigner("svc-own", SECRET), config=ONCE) as client:
                assert client.text.generate("Hi", max_tokens=1).finish_reason
            with (
                Client(target, credentials=StaticToken(token()), config=ONCE) as client,
                pytest.raises(ServiceUnavailableError, match="can't be fetched now"),
            ):
                client.text.generate("Hi")
            with Idp(idp.port), Client(target, credentials=StaticToken(token())) as client:
                answer = None
                while answer is None:
                    try:
                        answer = client.text.generate("Hi", max_tokens=1)
                    except ServiceUnavailableError:
                        time.sleep(0.1)
        finally:
            process.terminate()
            _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    assert f"the keys of {idp.url} can't be fetched" in log
    assert f"the keys of {idp.url} were fetched: 1 usable" in log
