import base64
import hashlib
import hmac
import json

import jwt
import pytest

from deepseek_grpc.auth import AUDIENCE, JWTSigner, Secret
from deepseek_grpc.errors import AuthenticationError
from deepseek_grpc.gateway.tokens import ClientKey, Principal, RefusedTokenError, TokenVerifier

from .keys import ALGORITHMS, SECRET, pair

NOW = 1_700_000_000
KEY = SECRET.encode()
ALICE = Principal("alice", "team-a", frozenset({"text.*"}))
BOB = Principal("bob", "team-b", frozenset({"data.read"}))


class Clock:
    """Time that a test sets; the verifier goes by nothing else."""

    def __init__(self):
        self.now = float(NOW)

    def __call__(self):
        return self.now


def gateway(clock=None, algorithm="HS256", **options):
    keys = [ClientKey(ALICE, algorithm, Secret(pair(algorithm)[1])), ClientKey(BOB, "RS256", Secret(pair("RS256")[1]))]
    return TokenVerifier(keys, clock=clock or Clock(), **options)


def bare(**changes):
    """What the public guide's tokens carry, changed; None takes a claim away."""
    found = {"iss": "alice", "iat": NOW, "exp": NOW + 600, **changes}
    return {name: value for name, value in found.items() if value is not None}


def part(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def sign(claims, header=None, key=KEY):
    """Signs by hand, so that a token may be as wrong as it likes."""
    body = f"{part({'alg': 'HS256', 'typ': 'JWT'} | (header or {}))}.{part(claims)}"
    return f"{body}.{part(hmac.digest(key, body.encode(), hashlib.sha256))}"


# What is accepted


@pytest.mark.parametrize(
    "claims",
    [
        bare(),
        bare(iat=NOW - 3000, exp=NOW + 600),
        bare(exp=NOW + 3600),
        bare(iat=NOW + 0.5, exp=NOW + 600.25),
        bare(aud=AUDIENCE),
        bare(aud=["other", AUDIENCE]),
        bare(sub="alice"),
        bare(sub="someone-else"),
        bare(nbf=NOW),
        bare(jti="1", scope="whatever"),
        bare(iat=NOW + 29),  # clocks differ a little
        bare(iat=NOW - 600, exp=NOW - 29),
    ],
)
def test_a_token_of_the_guide_and_every_further_claim_that_is_right(claims):
    assert gateway().verify(sign(claims)) == ALICE


@pytest.mark.parametrize("header", [{}, {"typ": "jwt"}, {"kid": "k1"}])
def test_a_header_may_say_more(header):
    assert gateway().verify(sign(bare(), header)) == ALICE


def test_a_token_without_typ_is_a_token():
    body = f"{part({'alg': 'HS256'})}.{part(bare())}"
    token = f"{body}.{part(hmac.digest(KEY, body.encode(), hashlib.sha256))}"
    assert gateway().verify(token) == ALICE


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm(algorithm):
    clock = Clock()
    token = JWTSigner("alice", pair(algorithm)[0], algorithm=algorithm, clock=clock).token()
    assert gateway(clock, algorithm).verify(token) == ALICE


def test_each_client_is_known_by_its_own_key():
    token = JWTSigner("bob", pair("RS256")[0], algorithm="RS256", clock=Clock()).token()
    assert gateway().verify(token) == BOB


def test_the_audience_is_the_gateways():
    verifier = gateway(audience="prod")
    assert verifier.verify(sign(bare(aud="prod"))) == ALICE
    with pytest.raises(AuthenticationError):
        verifier.verify(sign(bare(aud=AUDIENCE)))


# What is refused, and that nobody learns why


def unsigned(alg):
    return f"{part({'alg': alg, 'typ': 'JWT'})}.{part(bare())}."


PUBLIC = pair("RS256")[1]
GOOD = sign(bare())
FLIPPED = GOOD[:-2] + ("A" if GOOD[-2] != "A" else "B") + GOOD[-1]
REFUSED = {
    "nothing": "",
    "no token": "Bearer",
    "two parts": "a.b",
    "four parts": GOOD + ".x",
    "no base64": "!.!.!",
    "no ASCII": "ü.ü.ü",
    "a surrogate": "\ud800.\ud800.\ud800",
    "no JSON": f"{part(b'x')}.{part(b'x')}.x",
    "no UTF-8": f"{part(b'{}')}.{part(bytes([255, 254]))}.x",
    "no objects": f"{part([1])}.{part([1])}.x",
    "JSON without end": f"{part(b'[' * 1500)}.{part({})}.x",
    "four kilobytes": sign(bare(pad="x" * 4096)),
    "five megabytes": "x" * 5_000_000,
    "alg none": unsigned("none"),
    "alg None": unsigned("None"),
    "no alg": f"{part({})}.{part(bare())}.",
    "an alg that is a list": sign(bare(), {"alg": ["HS256"]}),
    "another alg": jwt.encode(bare(), SECRET * 2, "HS512"),
    "the public key as a secret": sign(bare(iss="bob"), key=PUBLIC),
    "the same, and claiming RS256": sign(bare(iss="bob"), {"alg": "RS256"}, PUBLIC),
    "another secret": sign(bare(), key=b"x" * 32),
    "an empty secret": sign(bare(), key=b""),
    "another private key": jwt.encode(bare(iss="bob"), pair("ES256")[0], "ES256"),
    "another's token": sign(bare(iss="bob")),
    "a changed signature": FLIPPED,
    "no signature": GOOD.rpartition(".")[0] + ".",
    "changed claims": ".".join([GOOD.split(".")[0], part(bare(exp=NOW + 700)), GOOD.split(".")[2]]),
    "an unknown issuer": sign(bare(iss="mallory")),
    "an issuer that is a list": sign(bare(iss=["alice"])),
    "an empty issuer": sign(bare(iss="")),
    "no issuer": sign(bare(iss=None)),
    "no iat": sign(bare(iat=None)),
    "no exp": sign(bare(exp=None)),
    "expired": sign(bare(iat=NOW - 600, exp=NOW - 30)),
    "expired long ago": sign(bare(iat=0, exp=600)),
    "issued in the future": sign(bare(iat=NOW + 31)),
    "not yet valid": sign(bare(nbf=NOW + 31)),
    "a lifetime over an hour": sign(bare(exp=NOW + 3601)),
    "a lifetime of 30 years": sign(bare(exp=NOW + 30 * 365 * 86400)),
    "a lifetime of nothing": sign(bare(iat=NOW + 10, exp=NOW + 10)),
    "a negative lifetime": sign(bare(iat=NOW + 20, exp=NOW + 10)),
    "times as text": sign(bare(iat=str(NOW), exp=str(NOW + 600))),
    "times as truths": sign(bare(iat=False, exp=True)),
    "times in lists": sign(bare(iat=[NOW], exp=[NOW + 600])),
    "no end of time": sign(bare(exp=float("inf"))),
    "no time": sign(bare(exp=float("nan"))),
    "beyond all times": sign(bare(iat=10**400, exp=10**400 + 600)),
    "before all times": sign(bare(iat=-(10**400), exp=-(10**400) + 600)),
    "nbf as text": sign(bare(nbf="now")),
    "another audience": sign(bare(aud="other")),
    "no audience": sign(bare() | {"aud": []}),
    "a null audience": sign(bare() | {"aud": None}),
    "a subject that is a number": sign(bare(sub=5)),
    "an empty subject": sign(bare(sub="")),
    "another typ": sign(bare(), {"typ": "at+jwt"}),
    "a typ that is null": sign(bare(), {"typ": None}),
    "a critical extension": sign(bare(), {"crit": ["b64"], "b64": False}),
    "an unknown critical extension": sign(bare(), {"crit": ["x"], "x": 1}),
}


@pytest.mark.parametrize("token", REFUSED.values(), ids=REFUSED)
def test_refused_in_the_same_words(token):
    with pytest.raises(RefusedTokenError) as caught:
        gateway().verify(token)
    assert caught.value.details == "the credential is missing, malformed, expired or not for this gateway"
    assert (caught.value.__cause__, caught.value.metadata) == (None, {"gateway_time": str(NOW)})
    cause = caught.value.cause  # for the log: it says why, and doesn't repeat the token
    assert 0 < len(cause) < 200
    assert SECRET not in cause
    assert not token or token not in cause


def test_a_key_that_is_no_key_refuses_everyone_in_the_same_words():
    verifier = TokenVerifier([ClientKey(ALICE, "RS256", Secret(b"not a PEM"))], clock=Clock())
    token = JWTSigner("alice", pair("RS256")[0], algorithm="RS256", clock=Clock()).token()
    with pytest.raises(AuthenticationError, match="the credential is missing, malformed"):
        verifier.verify(token)


# What is remembered


def test_a_verified_token_is_remembered_until_it_expires():
    clock = Clock()
    verifier = gateway(clock)
    token = sign(bare())
    principal = verifier.verify(token)
    clock.now = NOW + 600 + 29
    assert verifier.verify(token) is principal
    clock.now = NOW + 600 + 30
    with pytest.raises(AuthenticationError):
        verifier.verify(token)


def test_a_refused_token_is_not_remembered():
    clock = Clock()
    verifier = gateway(clock)
    early = sign(bare(iat=NOW + 100, exp=NOW + 700))
    with pytest.raises(AuthenticationError):
        verifier.verify(early)
    clock.now = NOW + 100
    assert verifier.verify(early) == ALICE


def test_remembering_is_bounded():
    verifier = gateway()
    for number in range(5000):
        verifier.verify(sign(bare(jti=str(number))))
    assert len(verifier._verified) <= 4096


# What a caller may do


@pytest.mark.parametrize(
    ("granted", "permission", "may"),
    [
        ({"text.generate"}, "text.generate", True),
        ({"text.*"}, "text.generate", True),
        ({"*"}, "text.generate", True),
        ({"data.read", "text.models"}, "text.models", True),
        (set(), "text.generate", False),
        ({"text.models"}, "text.generate", False),
        ({"data.*"}, "text.generate", False),
        ({"text"}, "text.generate", False),
        ({"t*"}, "text.generate", False),
        ({"text.gen*"}, "text.generate", False),
        ({""}, "text.generate", False),
    ],
)
def test_what_is_not_granted_is_denied(granted, permission, may):
    assert Principal("a", "t", frozenset(granted)).may(permission) is may


def test_a_key_shows_no_secret():
    assert SECRET not in repr(ClientKey(ALICE, "HS256", Secret(SECRET)))
