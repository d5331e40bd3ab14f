import base64
import json
import os
import pickle
import re
import ssl
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from grpc._plugin_wrapping import _AuthMetadataContext

import deepseek_grpc.auth
from deepseek_grpc._pem import pem_problems
from deepseek_grpc.auth import (
    AUDIENCE,
    JWTSigner,
    OAuth2ClientCredentials,
    Secret,
    StaticToken,
    TokenSource,
    channel_credentials,
    current_token,
    token_source,
)
from deepseek_grpc.auth.channel import _Plugin
from deepseek_grpc.config import ClientConfig
from deepseek_grpc.errors import AuthenticationError, ConfigurationError
from deepseek_grpc.gateway.tokens import ClientKey, Principal, TokenVerifier
from deepseek_grpc.tls import TLS
from tests.certificates import Authority

from .keys import ALGORITHMS, SECRET, pair


class Clock:
    """Time that a test sets."""

    def __init__(self, now=1_700_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


def claims(token):
    return jwt.decode(token, options={"verify_signature": False})


def token_with(**claims_):
    body = base64.urlsafe_b64encode(json.dumps(claims_).encode()).decode().rstrip("=")
    return f"e30.{body}.sig"


def test_the_package_offers_its_names_and_no_others():
    assert dir(deepseek_grpc.auth) == deepseek_grpc.auth.__all__
    with pytest.raises(AttributeError, match="no attribute 'JWTsigner'"):
        deepseek_grpc.auth.JWTsigner  # noqa: B018


# Tokens made elsewhere


@pytest.mark.parametrize(
    "token", ["opaque-token", "a.b.c", "a.b", "e30.e30.x", "e30.bnVsbA.x", "e30.WzFd.x", "x" * 9000]
)
def test_a_static_token_is_passed_on_as_it_is(token):
    assert StaticToken(token).token() == token


def test_a_jwt_that_is_still_good_is_passed_on():
    token = token_with(exp=time.time() + 60)
    assert StaticToken(token).token() == token


def test_an_expired_jwt_is_refused_before_anything_is_sent():
    source = StaticToken(token_with(exp=time.time() - 3600))
    with pytest.raises(AuthenticationError, match="expired 36"):
        source.token()


@pytest.mark.parametrize("exp", ["soon", None, [1], 10**400, float("inf"), float("nan")])
def test_an_expiry_that_makes_no_sense_is_the_gateways_business(exp):
    assert StaticToken(token_with(exp=exp)).token()


@pytest.mark.parametrize("token", ["", "a b", "a\n", "tökén", "a\0b", "a\x7f"])
def test_a_token_that_no_header_can_carry_is_refused(token):
    with pytest.raises(ConfigurationError, match="header"):
        StaticToken(token)


# Tokens signed here


def test_the_claims():
    clock = Clock()
    found = claims(JWTSigner("svc-a", SECRET, lifetime=600, clock=clock).token())
    assert found.pop("jti")
    assert found == {
        "iss": "svc-a",
        "sub": "svc-a",
        "aud": AUDIENCE,
        "iat": int(clock.now),
        "exp": int(clock.now) + 600,
    }


def test_the_audience_may_be_another_or_none():
    assert claims(JWTSigner("a", SECRET, audience="mine").token())["aud"] == "mine"
    assert "aud" not in claims(JWTSigner("a", SECRET, audience=None).token())


def test_a_key_may_have_a_name():
    assert jwt.get_unverified_header(JWTSigner("a", SECRET, key_id="k7").token())["kid"] == "k7"
    assert "kid" not in jwt.get_unverified_header(JWTSigner("a", SECRET).token())


@pytest.mark.parametrize("lifetime", [1, 900, 3599.9, 3600])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.999])
def test_no_token_lives_for_more_than_an_hour(lifetime, fraction):
    found = claims(JWTSigner("a", SECRET, lifetime=lifetime, clock=Clock(1_700_000_000 + fraction)).token())
    assert 0 < found["exp"] - found["iat"] <= 3600


def test_a_token_is_kept_and_renewed_when_four_fifths_of_its_life_are_over():
    clock = Clock()
    signer = JWTSigner("a", SECRET, lifetime=100, clock=clock)
    first = signer.token()
    clock.now += 79.9
    assert signer.token() == first
    clock.now += 0.1
    second = signer.token()
    assert second != first
    assert claims(second)["iat"] == claims(first)["iat"] + 80
    assert claims(second)["jti"] != claims(first)["jti"]


def test_many_threads_renew_a_token_once():
    threads = 16
    clock = Clock()
    signer = JWTSigner("a", SECRET, lifetime=100, clock=clock)
    for _ in range(20):
        clock.now += 90
        barrier = threading.Barrier(threads)

        def token(barrier=barrier):
            barrier.wait()
            return signer.token()

        with ThreadPoolExecutor(threads) as pool:
            assert len(set(pool.map(lambda call: call(), [token] * threads))) == 1


def test_a_thousand_threads_sign_once():
    threads, tokens = 1000, []
    signer = JWTSigner("a", pair("RS256")[0], algorithm="RS256")
    barrier = threading.Barrier(threads)

    def ask():
        barrier.wait()
        tokens.append(signer.token())

    started = [threading.Thread(target=ask) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    assert len(tokens) == threads
    assert len(set(tokens)) == 1


def test_a_token_is_kept_until_it_is_time_to_sign():
    clock = Clock()
    signer = JWTSigner("a", SECRET, lifetime=100, clock=clock)
    token = signer.token()
    clock.now += 79.9
    assert signer.token() == token
    clock.now += 0.2
    assert signer.token() != token


def test_a_clock_that_went_back_has_the_token_signed_anew():
    clock = Clock()
    signer = JWTSigner("a", SECRET, clock=clock)
    signer.token()
    clock.now -= 600
    assert claims(signer.token())["iat"] == clock.now


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_refused_token_is_signed_anew_once(algorithm):
    signer = JWTSigner("a", pair(algorithm)[0], algorithm=algorithm)
    first = signer.token()
    signer.invalidate(first)
    second = signer.token()
    assert second != first
    signer.invalidate(first)
    signer.invalidate("another token")
    assert signer.token() == second


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", [bytes.decode, bytes, Secret])
def test_a_key_is_text_bytes_or_a_secret(algorithm, kind):
    private, public = pair(algorithm)
    token = JWTSigner("a", kind(private), algorithm=algorithm).token()
    assert jwt.decode(token, public, [algorithm], audience=AUDIENCE)["iss"] == "a"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_a_signer_signs_the_gateway_accepts(algorithm):
    private, public = pair(algorithm)
    verifier = TokenVerifier([ClientKey(Principal("svc-a", "t", frozenset()), algorithm, Secret(public))])
    token = JWTSigner("svc-a", private, algorithm=algorithm).token()
    assert verifier.verify(token).client_id == "svc-a"


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (("", SECRET), {}, "client_id"),
        (("a", "short"), {}, "5 bytes.*at least 32"),
        (("a", SECRET), {"algorithm": "HS512"}, "HS512.*EdDSA"),
        (("a", SECRET), {"algorithm": "none"}, "none"),
        (("a", SECRET), {"lifetime": 0}, "1 to 3600"),
        (("a", SECRET), {"lifetime": 3601}, "1 to 3600"),
        (("a", SECRET), {"lifetime": float("nan")}, "1 to 3600"),
        (("a", SECRET), {"key_id": 5}, "key_id is 5; give the key's name"),
    ],
)
def test_a_signer_that_makes_no_sense_is_refused(arguments, options, says):
    with pytest.raises(ConfigurationError, match=says):
        JWTSigner(*arguments, **options)


MISFITS = [(a, b) for a in ALGORITHMS for b in ALGORITHMS if a != b]


@pytest.mark.parametrize(("algorithm", "other"), MISFITS)
def test_a_key_of_another_kind_is_refused_without_being_quoted(algorithm, other):
    private, _ = pair(other)
    with pytest.raises(ConfigurationError, match=algorithm) as caught:
        JWTSigner("a", private, algorithm=algorithm).token()
    shown = "".join(traceback.format_exception(caught.value))
    assert not [line for line in private.decode().splitlines()[1:-1] if line in shown]
    assert SECRET not in shown


def test_a_secret_shows_nowhere():
    signer = JWTSigner("svc-a", SECRET)
    static = StaticToken("hidden-token")
    shown = repr(signer) + str(signer) + repr(static) + str(static) + repr([signer, static])
    assert "svc-a" in shown
    assert SECRET not in shown
    assert "hidden" not in shown
    assert signer.token() not in repr(signer)
    with pytest.raises(ConfigurationError) as caught:
        JWTSigner("a", SECRET[:20])
    assert SECRET[:20] not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("source", [StaticToken("t"), JWTSigner("a", SECRET)])
def test_anything_with_a_token_is_a_source(source):
    assert isinstance(source, TokenSource)


def test_a_source_that_fails_fails_the_call_and_nothing_else():
    """gRPC calls the plugin in a thread of its own: an exception has to go to its callback."""
    answers = []
    generate = _AuthMetadataContext("https://gw/deepseek_rpc.v2.TextService", "Generate")
    health = _AuthMetadataContext("https://gw/grpc.health.v1.Health", "Watch")
    for source in (StaticToken("t"), StaticToken(token_with(exp=0)), Source(fail)):
        for context in (generate, health):
            _Plugin(source)(context, lambda metadata, error: answers.append((metadata, error)))
    good = ((("authorization", "Bearer t"),), None)
    assert answers[0] == good
    assert answers[1] == answers[3] == answers[5] == ((), None)  # health needs no credential
    for metadata, error in (answers[2], answers[4]):
        assert metadata == ()
        assert isinstance(error, AuthenticationError)


# Sources of one's own


class Source:
    """A user's token source."""

    def __init__(self, make):
        self.token = make


def fail():
    raise KeyError("s3cret in the message")


def test_a_source_that_raises_what_it_likes_is_a_failed_authentication():
    with pytest.raises(AuthenticationError, match="KeyError") as caught:
        current_token(Source(fail))
    assert "s3cret" not in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)


def test_what_a_source_says_itself_stays():
    with pytest.raises(AuthenticationError, match="expired"):
        current_token(StaticToken(token_with(exp=0)))


@pytest.mark.parametrize("token", [None, b"token", 5, "", "two words", "line\nbreak", "snow\N{SNOWMAN}", "tab\t"])
def test_what_no_header_can_carry_is_no_token(token):
    with pytest.raises(AuthenticationError, match="the token source") as caught:
        current_token(Source(lambda: token))
    assert "words" not in str(caught.value)


def test_credentials_are_a_source_a_text_or_none():
    signer = JWTSigner("a", SECRET)
    assert token_source(signer) is signer
    assert token_source("t").token() == token_source(Secret("t")).token() == "t"
    assert token_source(None) is None


@pytest.mark.parametrize(
    ("credentials", "says"), [(("id", "s3cret"), "a tuple"), (b"s3cret", "a bytes"), (JWTSigner, "the class JWTSigner")]
)
def test_other_credentials_are_refused_without_being_quoted(credentials, says):
    with pytest.raises(ConfigurationError, match=f"credentials is {says}; give JWTSigner") as caught:
        token_source(credentials)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: JWTSigner("a", None), "client_secret"),
        (lambda: JWTSigner("a", 5), "client_secret"),
        (lambda: JWTSigner(None, SECRET), "client_id"),
        (lambda: JWTSigner("a", SECRET, lifetime="15m"), "lifetime"),
        (lambda: StaticToken(None), "token"),
        (lambda: StaticToken(b"t"), "token"),
    ],
)
def test_an_argument_of_another_kind_is_named(make, argument):
    with pytest.raises(ConfigurationError, match=f"^{argument} is"):
        make()


@pytest.mark.parametrize(
    "source",
    [StaticToken("t"), JWTSigner("a", SECRET), OAuth2ClientCredentials("https://login.example.com/t", "a", SECRET)],
)
def test_pickling_a_credential_is_refused_with_a_reason(source):
    with pytest.raises(TypeError, match="a secret can't be pickled: a pickle is readable"):
        pickle.dumps(source)


# Certificates


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


@pytest.fixture(scope="module")
def files(authority, tmp_path_factory):
    """Good files and bad ones, by name."""
    folder = tmp_path_factory.mktemp("files")
    cert, key = authority.issue("mine")
    _, other = authority.issue("other")
    locked = serialization.load_pem_private_key(key.read_bytes(), None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"hush"),
    )
    der = ssl.PEM_cert_to_DER_cert(cert.read_text())
    for name, content in (("locked", locked), ("der", der), ("empty", b""), ("text", b"hidden words")):
        (folder / name).write_bytes(content)
    return {"ca": authority.file, "cert": cert, "key": key, "other": other, "folder": folder} | {
        path.name: path for path in folder.iterdir()
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"ca_file": "empty"}, "^TLS.ca_file: '.*/empty' holds no certificate in PEM$"),
        ({"ca_file": "text"}, "TLS.ca_file: '.*/text' holds no certificate in PEM$"),
        ({"ca_file": "der"}, "TLS.ca_file: '.*/der' holds no certificate in PEM$"),
        ({"ca_file": "key"}, "TLS.ca_file: '.*/mine.key' holds no certificate in PEM$"),
        ({"ca_file": "folder"}, "TLS.ca_file: cannot read '.*': Is a directory$"),
        ({"cert_file": "text", "key_file": "key"}, "TLS.cert_file: '.*/text' holds no certificate in PEM$"),
        ({"cert_file": "cert", "key_file": "text"}, "TLS.key_file: '.*/text' holds no private key in PEM$"),
        ({"cert_file": "cert", "key_file": "locked"}, "TLS.key_file: '.*/locked' is locked with a password; give"),
        (
            {"cert_file": "cert", "key_file": "other"},
            "'.*/other.key' isn't the key of the certificate in '.*/mine.crt'",
        ),
        ({"ca_file": "text", "cert_file": "cert", "key_file": "other"}, "ca_file: .*; TLS.key_file: .*isn't the key"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(files, given, says):
    tls = TLS(**{name: files[value] for name, value in given.items()})
    with pytest.raises(ConfigurationError) as caught:
        channel_credentials("gw.example.com:443", ClientConfig(tls=tls), None)
    assert re.search(says, caught.value.details)
    assert "hidden" not in str(caught.value)


def test_good_files_make_a_channel(files):
    for tls in (TLS(files["ca"]), TLS(files["ca"], files["cert"], files["key"]), TLS()):
        assert channel_credentials("gw.example.com:443", ClientConfig(tls=tls), None)


def test_a_pipe_is_read_once(files, tmp_path):
    """As the shell's process substitution gives it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(files["ca"].read_bytes(),))
    writer.start()
    assert channel_credentials("gw.example.com:443", ClientConfig(tls=TLS(pipe)), None)
    writer.join()


def test_a_file_that_cannot_be_read_is_named():
    assert pem_problems(ca_file="missing.pem", cert_file="a\0b") == {
        "ca_file": "cannot read 'missing.pem': No such file or directory",
        "cert_file": "cannot read 'a\\x00b': embedded null byte",
    }
    assert pem_problems() == {}


def test_a_config_hides_nothing_because_it_has_no_secret():
    assert "PRIVATE" not in repr(ClientConfig(tls=TLS("ca.pem", "cert.pem", "key.pem")))
