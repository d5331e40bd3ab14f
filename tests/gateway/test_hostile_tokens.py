"""Tokens that somebody might try, sent to a real gateway: all refused, and nobody learns why."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from contextlib import nullcontext

import grpc
import jwt
import pytest
from google.rpc import error_details_pb2, status_pb2

from deepseek_grpc.auth import AUDIENCE, JWTSigner, Secret
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.settings import ClientSettings, Settings
from deepseek_grpc.local import GatewayThread
from deepseek_grpc.testing import ScriptedEngine
from deepseek_rpc.v2 import text_pb2 as pb
from deepseek_rpc.v2.text_pb2_grpc import TextServiceStub
from tests.gateway.raw import channel
from tests.unit.keys import ALGORITHMS, SECRET, pair

NOW = int(time.time())
KEY = SECRET.encode()
OTHER_KEY = b"another secret of 32 bytes and more"
CLIENTS = [ClientSettings(f"svc-{name}", Secret(pair(name)[1]), name, roles=("all",)) for name in ALGORITHMS]
CLIENTS.append(ClientSettings("svc-other", Secret(OTHER_KEY), roles=("all",)))


@pytest.fixture(scope="module")
def gateway():
    """A gateway whose clock stands still, so that what it says is the same each time."""
    settings = Settings("127.0.0.1:0", clients=tuple(CLIENTS), roles={"all": ("*",)}, default_model="fake")
    make = lambda: nullcontext(Gateway(settings, backends=[Backend(ScriptedEngine(), ("*",))]))  # noqa: E731
    with GatewayThread(make, CLIENTS[0]) as gateway:
        gateway._gateway._guard._verifier._clock = lambda: NOW
        yield gateway


@pytest.fixture(scope="module")
def stub(gateway):
    with channel(gateway.target) as raw:
        yield TextServiceStub(raw)


def answer(stub, *authorization):
    """Makes a call; returns its answer, or what it ended with."""
    metadata = [("x-request-id", "tried"), *(("authorization", value) for value in authorization)]
    try:
        return stub.ListModels(pb.ListModelsRequest(), metadata=metadata, timeout=20)
    except grpc.RpcError as error:
        return ended(error)


def ended(error):
    """Returns everything that a call ended with."""
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers.pop("grpc-status-details-bin"))
    info = error_details_pb2.ErrorInfo()
    [detail] = status.details
    assert detail.Unpack(info)
    facts = (info.reason, info.domain, tuple(sorted(info.metadata.items())))
    return error.code(), error.details(), tuple(sorted(trailers)), status.code, status.message, facts


REFUSED = (
    grpc.StatusCode.UNAUTHENTICATED,
    "the credential is missing, malformed, expired or not for this gateway",
    (),
    16,
    "the credential is missing, malformed, expired or not for this gateway",
    (
        "UNAUTHENTICATED",
        "deepseek-grpc",
        (("attempts", "1"), ("gateway_time", str(NOW)), ("request_id", "tried")),
    ),
)


def claims(**changes):
    found = {"iss": "svc-HS256", "iat": NOW, "exp": NOW + 600, **changes}
    return {name: value for name, value in found.items() if value is not None}


def part(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def sign(body=None, header=None, key=KEY, digest=hashlib.sha256):
    """Signs by hand; header and claims may be bytes, and so as wrong as one likes."""
    if not isinstance(header, bytes):
        header = {"alg": "HS256", "typ": "JWT"} | (header or {})
    text = f"{part(header)}.{part(claims() if body is None else body)}"
    return f"{text}.{part(hmac.digest(key, text.encode(), digest))}"


def unsigned(alg, signature=""):
    return f"{part({'alg': alg, 'typ': 'JWT'})}.{part(claims())}.{signature}"


def raw_claims(more):
    return json.dumps(claims()).encode()[:-1] + b", " + more + b"}"


GOOD = sign()
HEADER, BODY, SIGNATURE = GOOD.split(".")
PEM = pair("RS256")[1]
RS = claims(iss="svc-RS256")
STRANGER_JWK = {"kty": "oct", "k": part(OTHER_KEY)}
ES_TOKEN = JWTSigner("svc-ES256", pair("ES256")[0], algorithm="ES256").token()
# A claim of which the base64 has both characters in which the alphabets differ.
PLUS_AND_SLASH = sign(claims(x="\u00ff\u00fe~~~???>>>ÿþ"))
NESTED = sign(GOOD.encode(), {"cty": "JWT"})

HOSTILE = {
    "nothing at all": "",
    "no token": "Bearer",
    "a blank token": "Bearer ",
    "one word": "Bearer x",
    "alg none": unsigned("none"),
    "alg None": unsigned("None"),
    "alg NONE": unsigned("NONE"),
    "alg nOnE": unsigned("nOnE"),
    "alg none with a blank": unsigned("none "),
    "alg none with a good signature": f"{part({'alg': 'none'})}.{BODY}.{SIGNATURE}",
    "alg empty": unsigned(""),
    "alg null": unsigned(None),
    "alg a list": unsigned(["HS256"]),
    "alg a number": unsigned(0),
    "alg in lower case": sign(header={"alg": "hs256"}),
    "no alg": f"{part({'typ': 'JWT'})}.{BODY}.{SIGNATURE}",
    "alg HS384": sign(header={"alg": "HS384"}, digest=hashlib.sha384),
    "alg HS512": sign(header={"alg": "HS512"}, digest=hashlib.sha512),
    "an HS256 signature that says RS256": sign(header={"alg": "RS256"}),
    "RS256 for a client that has a secret": jwt.encode(claims(), pair("RS256")[0], "RS256"),
    "ES256 for a client that has RS256": jwt.encode(RS, pair("ES256")[0], "ES256"),
    "PS256 with the key of RS256": jwt.encode(RS, pair("RS256")[0], "PS256"),
    "RS512 with the key of RS256": jwt.encode(RS, pair("RS256")[0], "RS512"),
    "the public PEM as a secret": sign(RS, key=PEM),
    "the public PEM, stripped, as a secret": sign(RS, key=PEM.strip()),
    "the public PEM as a secret that says RS256": sign(RS, {"alg": "RS256"}, PEM),
    "a short key": sign(key=b"12345"),
    "an empty key": sign(key=b""),
    "another secret": sign(key=b"x" * 32),
    "another client's secret": sign(key=OTHER_KEY),
    "another client's name": sign(claims(iss="svc-other")),
    "nobody's name": sign(claims(iss="mallory")),
    "a swapped sub": f"{HEADER}.{part(claims(sub='admin'))}.{SIGNATURE}",
    "swapped claims": f"{HEADER}.{part(claims(exp=NOW + 700))}.{SIGNATURE}",
    "a swapped header": f"{part({'alg': 'HS256'})}.{BODY}.{SIGNATURE}",
    "no exp": sign(claims(exp=None)),
    "no iat": sign(claims(iat=None)),
    "no iss": sign(claims(iss=None)),
    "no claims": sign({}),
    "an exp of 30 years": sign(claims(exp=NOW + 30 * 365 * 86400)),
    "an exp a second over an hour": sign(claims(exp=NOW + 3601)),
    "an exp before iat": sign(claims(iat=NOW + 10, exp=NOW + 5)),
    "an exp at iat": sign(claims(exp=NOW)),
    "expired": sign(claims(iat=NOW - 600, exp=NOW - 30)),
    "of 1970": sign(claims(iat=0, exp=600)),
    "issued in the future": sign(claims(iat=NOW + 31)),
    "not yet valid": sign(claims(nbf=NOW + 31)),
    "an iss that is a list": sign(claims(iss=["svc-HS256"])),
    "an iss that is an object": sign(claims(iss={"svc-HS256": 1})),
    "an iss that is true": sign(claims(iss=True)),
    "an iss with a blank": sign(claims(iss="svc-HS256 ")),
    "an iss in other letters": sign(claims(iss="SVC-hs256")),
    "an iss of look-alikes": sign(claims(iss="\u0455vc-HS256")),
    "an iss in full width": sign(claims(iss="\uff53vc-HS256")),
    "an iss with a zero byte": sign(claims(iss="svc-HS256\0")),
    "another audience": sign(claims(aud="somebody-else")),
    "a list of other audiences": sign(claims(aud=["somebody-else", "nobody"])),
    "an empty list of audiences": sign(claims(aud=[])),
    "an empty audience": sign(claims(aud="")),
    "a null audience": sign(raw_claims(b'"aud": null')),
    "an audience that is a number": sign(claims(aud=1)),
    "audiences that are no text": sign(claims(aud=[AUDIENCE, 1])),
    "an audience of look-alikes": sign(claims(aud="d\u0435epseek-grpc")),
    "a sub that is a number": sign(claims(sub=1)),
    "a sub that is null": sign(raw_claims(b'"sub": null')),
    "a sub that is a list": sign(claims(sub=["svc-HS256"])),
    "a jti that is a number": sign(claims(jti=1)),
    "a client_id that is an object": sign(claims(client_id={})),
    "typ none": sign(header={"typ": "none"}),
    "typ JWE": sign(header={"typ": "JWE"}),
    "typ at+jwt without an issuer": sign(header={"typ": "at+jwt"}),
    "typ of a logout": sign(header={"typ": "logout+jwt"}),
    "typ a number": sign(header={"typ": 1}),
    "typ null": sign(header={"typ": None}),
    "typ a list": sign(header={"typ": ["JWT"]}),
    "typ empty": sign(header={"typ": ""}),
    "a nested token": NESTED,
    "a nested token without saying so": sign(GOOD.encode()),
    "cty JWT": sign(header={"cty": "JWT"}),
    "an encrypted token": f"{part({'alg': 'dir', 'enc': 'A128GCM'})}..{part(b'x' * 12)}.{BODY}.{part(b'x' * 16)}",
    "four kilobytes": sign(claims(pad="x" * 4096)),
    "six kilobytes of nothing": "x" * 6000,
    "exp twice": sign(raw_claims(b'"exp": %d' % (NOW + 500))),
    "iss twice": sign(raw_claims(b'"iss": "svc-HS256"')),
    "iss twice, another first": sign(b'{"iss": "svc-other", ' + json.dumps(claims()).encode()[1:]),
    "iss twice, once escaped": sign(raw_claims(b'"\\u0069ss": "svc-HS256"')),
    "alg twice": sign(header=b'{"alg": "none", "alg": "HS256"}'),
    "kid twice": sign(header=b'{"alg": "HS256", "kid": "a", "kid": "b"}'),
    "twice, further down": sign(raw_claims(b'"x": {"a": 1, "a": 2}')),
    "exp NaN": sign(b'{"iss": "svc-HS256", "iat": %d, "exp": NaN}' % NOW),
    "exp Infinity": sign(b'{"iss": "svc-HS256", "iat": %d, "exp": Infinity}' % NOW),
    "iat -Infinity": sign(b'{"iss": "svc-HS256", "iat": -Infinity, "exp": %d}' % (NOW + 600)),
    "exp 1e999": sign(b'{"iss": "svc-HS256", "iat": %d, "exp": 1e999}' % NOW),
    "iat and exp 1e308": sign(b'{"iss": "svc-HS256", "iat": 1e308, "exp": 1e308}'),
    "exp of 500 digits": sign(claims(iat=10**500, exp=10**500 + 600)),
    "iat of 500 digits before": sign(claims(iat=-(10**500), exp=-(10**500) + 600)),
    "negative times": sign(claims(iat=-1200, exp=-600)),
    "nbf of 500 digits": sign(claims(nbf=10**500)),
    "nbf negative": sign(claims(nbf=-1)),
    "nbf text": sign(claims(nbf="now")),
    "nbf true": sign(claims(nbf=True)),
    "times that are truths": sign(claims(iat=False, exp=True)),
    "times that are text": sign(claims(iat=str(NOW), exp=str(NOW + 600))),
    "times in lists": sign(claims(iat=[NOW], exp=[NOW + 600])),
    "times that are null": sign(b'{"iss": "svc-HS256", "iat": null, "exp": null}'),
    "crit": sign(header={"crit": ["exp"]}),
    "crit empty": sign(header={"crit": []}),
    "crit b64": sign(header={"crit": ["b64"], "b64": False}),
    "crit of something unknown": sign(header={"crit": ["x"], "x": 1}),
    "the key in the header": sign(header={"jwk": STRANGER_JWK}, key=OTHER_KEY),
    "the key behind a jku": sign(header={"jku": "http://127.0.0.1:1/keys"}, key=OTHER_KEY),
    "the key behind an x5u": sign(header={"x5u": "http://127.0.0.1:1/cert"}, key=OTHER_KEY),
    "the key in an x5c": sign(header={"x5c": [base64.b64encode(OTHER_KEY).decode()]}, key=OTHER_KEY),
    "a kid that is a path": sign(header={"kid": "../" * 4 + "dev/null"}, key=b""),
    "a kid that is SQL": sign(header={"kid": "x' UNION SELECT 'key'--"}, key=b"key"),
    "a kid with a zero byte": sign(header={"kid": "a\0b"}, key=OTHER_KEY),
    "a kid that is a command": sign(header={"kid": "|/usr/bin/id"}, key=OTHER_KEY),
    "a kid that is another client": sign(header={"kid": "svc-other"}, key=OTHER_KEY),
    "a kid that is a number": sign(header={"kid": 1}),
    "a kid that is an object": sign(header={"kid": {}}),
    "a blank before": f"Bearer  {GOOD}",
    "a blank within": GOOD.replace(".", " .", 1),
    "padding of the header": f"{HEADER}=.{BODY}.{SIGNATURE}",
    "padding of the claims": f"{HEADER}.{BODY}==.{SIGNATURE}",
    "padding of the signature": f"{GOOD}=",
    "the other alphabet": PLUS_AND_SLASH.replace("-", "+").replace("_", "/"),
    "a character of no alphabet": GOOD + "!",
    "a percent sign": GOOD.replace(".", "%2E", 1),
    "an empty header": f".{BODY}.{SIGNATURE}",
    "empty claims": f"{HEADER}..{SIGNATURE}",
    "no signature": f"{HEADER}.{BODY}.",
    "three empty parts": "..",
    "two parts": f"{HEADER}.{BODY}",
    "four parts": f"{GOOD}.x",
    "four parts, the last empty": f"{GOOD}.",
    "five parts": f"{GOOD}.x.y",
    "a signature cut short": GOOD[:-4],
    "a signature of one byte": f"{HEADER}.{BODY}.{part(b'x')}",
    "a signature with more behind it": f"{GOOD}AAAA",
    "a signature twice": GOOD + SIGNATURE,
    "a signature of zeros": f"{HEADER}.{BODY}.{part(bytes(32))}",
    "an ES256 signature of zeros": f"{ES_TOKEN.rpartition('.')[0]}.{part(bytes(64))}",  # CVE-2022-21449
    "an empty ES256 signature": f"{ES_TOKEN.rpartition('.')[0]}.",
    "stray bits at the end": GOOD[:-1] + chr(ord(GOOD[-1]) + 1),
    "JSON in UTF-16": sign(json.dumps(claims()).encode("utf-16")),
    "JSON with a byte order mark": sign(b"\xef\xbb\xbf" + json.dumps(claims()).encode()),
    "JSON with more behind it": sign(json.dumps(claims()).encode() + b"{}"),
    "no JSON": sign(b"iss=svc-HS256"),
    "no UTF-8": sign(b'{"iss": "\xff\xfe"}'),
    "claims that are a list": sign([claims()]),
    "claims that are a text": sign(b'"svc-HS256"'),
    "claims that are null": sign(b"null"),
    "a header that is a list": f"{part([])}.{BODY}.{SIGNATURE}",
    "JSON 1500 deep": sign(b"[" * 1500),
    "JSON 1400 deep, and closed": sign(raw_claims(b'"x": ' + b"[" * 1400 + b"]" * 1400)),
    "the scheme twice": f"Bearer bearer {GOOD}",
    "Basic": f"Basic {GOOD}",
    "no scheme": f"\x20{GOOD}".strip(),
    "DPoP": f"DPoP {GOOD}",
    "two tokens": f"Bearer {GOOD},{GOOD}",
    "quotes": f'Bearer "{GOOD}"',
}


def header_of(name, token):
    if name == "nothing at all":
        return ()
    if name == "no scheme" or token.startswith(("Bearer", "Basic", "DPoP")):
        return (token,)
    return (f"Bearer {token}",)


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_in_the_same_words(stub, name):
    assert answer(stub, *header_of(name, HOSTILE[name])) == REFUSED


def test_there_are_many_of_them_and_each_is_another():
    assert len(HOSTILE) >= 40
    assert len({header_of(name, token) for name, token in HOSTILE.items()}) == len(HOSTILE)


def test_no_character_of_a_token_can_be_another(stub):
    """Not the stray bits of the last one either."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert not isinstance(answer(stub, f"Bearer {GOOD}"), tuple)
    for at, character in enumerate(GOOD):
        other = "A" if character == "." else alphabet[alphabet.index(character) ^ 1]
        assert answer(stub, f"Bearer {GOOD[:at]}{other}{GOOD[at + 1 :]}") == REFUSED, at


def test_no_character_of_a_token_can_be_missing(stub):
    for at in range(len(GOOD)):
        assert answer(stub, f"Bearer {GOOD[:at]}{GOOD[at + 1 :]}") == REFUSED, at


@pytest.mark.parametrize("second", [GOOD, "garbage", sign(key=OTHER_KEY)])
def test_two_headers_are_none(stub, second):
    assert answer(stub, f"Bearer {GOOD}", f"Bearer {second}") == REFUSED
    assert answer(stub, f"Bearer {second}", f"Bearer {GOOD}") == REFUSED


@pytest.mark.parametrize("name", ["\u0412earer", "\uff22earer"])
def test_what_no_header_can_carry_is_not_even_sent(stub, name):
    with pytest.raises((grpc.RpcError, ValueError)):
        stub.ListModels(pb.ListModelsRequest(), metadata=[("authorization", f"{name} {GOOD}")], timeout=20)


WELCOME = {
    "the guide's": sign(),
    "without typ": f"{part({'alg': 'HS256'})}.{BODY}."
    + part(hmac.digest(KEY, f"{part({'alg': 'HS256'})}.{BODY}".encode(), hashlib.sha256)),
    "typ in lower case": sign(header={"typ": "jwt"}),
    "with a kid": sign(header={"kid": "any"}),
    "with a header of its own": sign(header={"x-own": [1, 2]}),
    "for this audience": sign(claims(aud=AUDIENCE)),
    "for this audience too": sign(claims(aud=["other", AUDIENCE])),
    "with a sub": sign(claims(sub="svc-HS256")),
    "with a sub of its own": sign(claims(sub="a-worker")),
    "with a jti": sign(claims(jti="1")),
    "with nbf in the past": sign(claims(nbf=NOW - 100)),
    "with nbf within the leeway": sign(claims(nbf=NOW + 30)),
    "issued within the leeway": sign(claims(iat=NOW + 30)),
    "expired within the leeway": sign(claims(iat=NOW - 600, exp=NOW - 29)),
    "for an hour": sign(claims(exp=NOW + 3600)),
    "with fractions": sign(claims(iat=NOW - 0.5, exp=NOW + 600.25)),
    "with claims of its own": sign(claims(roles=["admin"], x={"a": {"a": None}}, text="ÿþ")),
    "with both characters of the alphabet": PLUS_AND_SLASH,
    "the other client's": sign(claims(iss="svc-other"), key=OTHER_KEY),
    **{
        f"signed with {name}": JWTSigner(f"svc-{name}", pair(name)[0], algorithm=name, clock=lambda: NOW).token()
        for name in ALGORITHMS
    },
}


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
@pytest.mark.parametrize("name", WELCOME)
def test_good_ones_are_never_refused(stub, name, scheme):
    assert [model.id for model in answer(stub, f"{scheme} {WELCOME[name]}").models] == ["fake"]


@pytest.mark.parametrize("name", ["another client's", "no token", "expired"])
def test_a_session_takes_no_other_token(stub, name):
    """Not a good one of somebody else either; and it ends in the same words."""
    token = WELCOME["the other client's"] if name == "another client's" else HOSTILE[name]
    frames = [pb.ClientFrame(open=pb.OpenFrame()), pb.ClientFrame(auth=pb.AuthFrame(token=token))]
    metadata = (("authorization", f"Bearer {GOOD}"), ("x-request-id", "tried"))
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Session(iter([pb.SessionRequest(frames=frames)]), metadata=metadata, timeout=20))
    assert ended(caught.value) == REFUSED


def test_the_log_says_why_and_from_where_and_shows_no_token(gateway, stub, caplog):
    gateway._gateway._guard._refusals._clock = lambda: time.monotonic() + 100  # the tests before this one filled it
    caplog.set_level("WARNING", "deepseek_grpc.gateway.auth")
    slow = sign(claims(iat=NOW - 900, exp=NOW - 600, iss="svc-HS256"))
    forged = sign(claims(iss="x\n2026-01-01 INFO all is well"))
    for token in (slow, forged):
        assert answer(stub, f"Bearer {token}") == REFUSED
    said = [record.getMessage() for record in caplog.records if record.name == "deepseek_grpc.gateway.auth"]
    first, second = said[-2:]
    assert re.fullmatch(
        r"token refused: expired 600 s ago by this gateway's clock \(from ipv[46]:.+, request tried\)", first
    )
    assert "\n" not in second
    assert r"x\n2026-01-01 INFO all is well" in second
    assert not any(token.split(".")[1] in caplog.text for token in (slow, forged))
