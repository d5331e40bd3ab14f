"""Canaries: a secret and a token go through everything that could show them, and are seen nowhere.

A surface is a function that takes `look`, which looks at a thing, or at what a call returns or raises, in every way in
which programs show things. What is printed or logged meanwhile is looked at too.
"""

import base64
import copy
import http.client
import json
import logging
import pickle
import traceback
import urllib.parse
from contextlib import suppress
from pprint import pformat

import pytest

from deepseek_grpc import Client, ClientConfig, JWTSigner, OAuth2ClientCredentials, Retry, Secret, StaticToken
from deepseek_grpc.auth import channel_credentials, current_token, token_source
from deepseek_grpc.auth.channel import _Plugin
from deepseek_grpc.errors import AuthenticationError, ConfigurationError, DeepSeekError
from deepseek_grpc.testing import FakeServer

from .keys import pair
from .token_server import TokenServer, answer, token

SECRET = "canary+secret/0123456789abcdefghijkl"
TOKEN = "canary-token-zyxwvutsrqponmlkjihgfedcba"
PEM = pair("RS256")[0].decode()
CLIENT_ID = "svc-a"


def forms(text):
    """Returns what a text may look like on its way: as it is, quoted, in base64."""
    basic = f"{CLIENT_ID}:{urllib.parse.quote_plus(text)}"
    return {
        text,
        urllib.parse.quote_plus(text),
        urllib.parse.quote(text),
        *(base64.b64encode(form.encode()).decode().rstrip("=") for form in (text, basic)),
        text.encode().hex(),
    }


CANARIES = forms(SECRET) | forms(TOKEN) | {line for line in PEM.splitlines() if line and "-----" not in line}
SURFACES = {}


def surface(function):
    """Registers what may show a canary."""
    SURFACES[function.__name__] = function
    return function


class Look:
    """Collects what is seen."""

    def __init__(self):
        self.seen = []

    def at(self, thing):
        """Looks at a value."""
        logging.getLogger("deepseek_grpc.tests").debug("%s %r", thing, thing)
        ways = (repr, str, ascii, format, pformat, lambda t: f"{t!r:>9}", lambda t: [t], lambda t: {"key": t})
        self.seen += [str(way(thing)) for way in ways]
        for encode in (json.dumps, lambda t: json.dumps(t, default=str), lambda t: json.dumps(t, default=repr)):
            self._try(encode, thing)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            self._try(lambda t, p=protocol: pickle.dumps(t, p).decode("latin-1"), thing)
        self._try(lambda t: repr(copy.deepcopy(t)), thing)

    def _try(self, way, thing):
        try:
            self.seen.append(way(thing))
        except (TypeError, ValueError, AttributeError, pickle.PicklingError) as error:
            self.seen.append("".join(traceback.format_exception(error)))

    def at_error(self, error, *, frames=False):
        """Looks at an exception, with all that it came from, and with the variables of this package's frames."""
        self.at(error)
        self.seen.append("".join(traceback.format_exception(error)))
        while error is not None:
            self.seen.append(f"{error.args!r} {vars(error)!r} {getattr(error, '__notes__', '')!r}")
            if frames:
                for frame, _ in traceback.walk_tb(error.__traceback__):
                    if "/deepseek_grpc/" in frame.f_code.co_filename:
                        self.seen.append(repr(frame.f_locals))
            error = error.__cause__ or error.__context__

    def refused(self, call, *arguments, frames=False, **options):
        """Looks at what a call raises."""
        with pytest.raises((DeepSeekError, TypeError)) as caught:
            call(*arguments, **options)
        self.at_error(caught.value, frames=frames)


@surface
def secrets(look):
    look.at(Secret(SECRET))
    look.at(Secret(SECRET.encode()))
    look.refused(Secret, bytearray(SECRET.encode()))
    look.refused(Secret, [SECRET])
    look.refused(Secret, f"{SECRET}\ud800")


@surface
def a_signer(look):
    signer = JWTSigner(CLIENT_ID, SECRET)
    look.at(signer)
    made = signer.token()
    for thing in (signer, signer._cache, signer._cache._renewal, signer._cache._renewal._held, vars(signer)):
        look.at(thing)
    assert made not in "".join(look.seen)


@surface
def a_signer_of_other_arguments(look):
    look.refused(JWTSigner, CLIENT_ID, [SECRET])
    look.refused(JWTSigner, CLIENT_ID, {"key": SECRET})
    look.refused(JWTSigner, CLIENT_ID, SECRET[:31])
    look.refused(JWTSigner, CLIENT_ID, f"{SECRET}\udfff")
    look.refused(JWTSigner, "", SECRET)
    look.refused(JWTSigner, CLIENT_ID, SECRET, lifetime=0)
    look.refused(JWTSigner, CLIENT_ID, SECRET, algorithm="none")


@surface
def a_signer_with_the_wrong_key(look):
    look.refused(JWTSigner(CLIENT_ID, SECRET, algorithm="RS256").token, frames=True)
    look.refused(JWTSigner(CLIENT_ID, PEM).token, frames=True)
    look.refused(JWTSigner(CLIENT_ID, PEM, algorithm="ES256").token, frames=True)
    look.refused(JWTSigner(CLIENT_ID, PEM, algorithm="EdDSA").token, frames=True)
    look.refused(JWTSigner(CLIENT_ID, PEM[:400], algorithm="RS256").token, frames=True)


@surface
def a_token_made_elsewhere(look):
    look.at(StaticToken(TOKEN))
    look.at(vars(StaticToken(Secret(TOKEN))))
    look.refused(StaticToken, TOKEN.encode())
    look.refused(StaticToken, f"{TOKEN} {TOKEN}")
    look.refused(StaticToken, f"{TOKEN}\n")
    look.refused(token_source, TOKEN.encode())
    look.refused(token_source, (CLIENT_ID, SECRET))
    expired = base64.urlsafe_b64encode(b'{"exp": 0}').decode().rstrip("=")
    look.refused(StaticToken(f"{TOKEN}.{expired}.{TOKEN}").token, frames=True)


class Own:
    """A user's token source."""

    def __init__(self, make):
        self.token = make


@surface
def a_source_of_ones_own(look):
    for wrong in (f"{TOKEN}\n", TOKEN.encode(), [TOKEN]):
        look.refused(current_token, Own(lambda wrong=wrong: wrong))
    answers = []
    for wrong in (f"{TOKEN} ", TOKEN.encode()):
        context = type("Context", (), {"service_url": "https://gw/s"})
        _Plugin(Own(lambda wrong=wrong: wrong))(context, lambda metadata, error: answers.append((metadata, error)))
    for _, error in answers:
        look.at_error(error)
    look.at(answers)


@surface
def oauth2_arguments(look):
    url = "https://login.example.com/token"
    look.at(OAuth2ClientCredentials(f"{url}?key={SECRET}", CLIENT_ID, SECRET, extra={"assertion": TOKEN}))
    look.at(vars(OAuth2ClientCredentials(url, CLIENT_ID, SECRET, auth="body")))
    look.refused(OAuth2ClientCredentials, f"https://{CLIENT_ID}:{SECRET}@h/", CLIENT_ID, SECRET)
    look.refused(OAuth2ClientCredentials, f"https://h:{SECRET}/", CLIENT_ID, SECRET)
    look.refused(OAuth2ClientCredentials, f"https://h/?key={SECRET} ", CLIENT_ID, SECRET)
    look.refused(OAuth2ClientCredentials, f"http://h/?key={SECRET}", CLIENT_ID, SECRET)
    look.refused(OAuth2ClientCredentials, url, CLIENT_ID, [SECRET])
    look.refused(OAuth2ClientCredentials, url, CLIENT_ID, f"{SECRET}\ud800")
    look.refused(OAuth2ClientCredentials, url, CLIENT_ID, SECRET, auth="digest")
    look.refused(OAuth2ClientCredentials, url, CLIENT_ID, SECRET, extra={"assertion": [TOKEN]})
    look.refused(OAuth2ClientCredentials, url, CLIENT_ID, SECRET, extra={"assertion": f"{TOKEN}\ud800"})


@surface
def oauth2_answers(look):
    """What an endpoint can say, the secret and the token included."""
    sent = urllib.parse.quote_plus(SECRET)
    replies = [
        answer(401, error="invalid_client", error_description=f"wrong secret {SECRET}"),
        answer(400, error=SECRET),
        answer(400, error=f"bad {sent}", error_uri=SECRET),
        (500, {"Retry-After": SECRET}, SECRET.encode()),
        (302, {"Location": f"https://elsewhere.example.com/?{sent}"}, b""),
        (200, {}, f"token is {TOKEN}".encode()),
        (200, {}, json.dumps({"access_token": TOKEN})[:-1].encode()),
        (200, {}, json.dumps([TOKEN]).encode()),
        token(1, access_token=TOKEN, token_type=SECRET),
        token(1, access_token=f"{TOKEN}\n"),
        token(1, access_token=[TOKEN]),
        token(1, access_token=TOKEN, expires_in=TOKEN),
        f"{SECRET} {TOKEN}\r\n".encode(),
        f"HTTP/1.1 {SECRET}\r\n".encode(),
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{TOKEN}\r\n".encode(),
        b"",
    ]
    for auth in ("basic", "body"):
        for reply in replies:
            with TokenServer() as server:
                server.reply = lambda n, reply=reply: reply
                source = OAuth2ClientCredentials(server.url, CLIENT_ID, SECRET, auth=auth)
                look.refused(source.token, frames=True)
                look.at(vars(source))
                assert len(server.requests) == 1


@surface
def oauth2_without_an_answer(look):
    with TokenServer() as server:
        url = server.url
    look.refused(OAuth2ClientCredentials(url, CLIENT_ID, SECRET).token, frames=True)
    look.refused(current_token, OAuth2ClientCredentials(url, CLIENT_ID, SECRET), frames=True)


@surface
def oauth2_tokens(look):
    with TokenServer() as server:
        server.reply = lambda n: token(n, access_token=TOKEN)
        source = OAuth2ClientCredentials(server.url, CLIENT_ID, SECRET)
        assert source.token() == TOKEN
        for thing in (source, vars(source), source._cache, source._cache._renewal, source._cache._renewal._held):
            look.at(thing)
        source.invalidate(TOKEN)
        look.at(vars(source._cache._renewal))


@surface
def a_client(look):
    signer = JWTSigner(CLIENT_ID, SECRET)
    with Client("127.0.0.1:1", credentials=signer, config=ClientConfig(retry=Retry(attempts=1))) as client:
        look.at(client)
        look.refused(client.text.generate, "hi", timeout=5)
    environ = {"DEEPSEEK_GRPC_TARGET": "127.0.0.1:1", "DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}
    look.refused(Client.from_env, environ)
    look.refused(Client.from_env, environ | {"DEEPSEEK_GRPC_CLIENT_ID": "a", "DEEPSEEK_GRPC_SCOPE": "s"})
    look.refused(Client.from_env, {"DEEPSEEK_GRPC_TARGET": "127.0.0.1:1", "DEEPSEEK_GRPC_TOKEN": f"{TOKEN}\n"})
    look.refused(channel_credentials, "gw.example.com:80", ClientConfig(tls=False), signer)


@surface
def a_call(look):
    with FakeServer() as fake:
        for credentials in (JWTSigner(fake.client_id, SECRET), TOKEN, JWTSigner(CLIENT_ID, PEM, algorithm="RS256")):
            with Client(fake.target, credentials=credentials) as client, pytest.raises(AuthenticationError) as caught:
                client.text.generate("hi")
            look.at_error(caught.value)
        with fake.client() as client, suppress(ConfigurationError):
            fake.text.script("Hi")
            look.at(client.text.generate("hi"))
        assert fake.client_secret not in "".join(look.seen)


@pytest.mark.parametrize("name", SURFACES)
def test_no_canary_is_seen(name, caplog, capfd, monkeypatch):
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)  # a program that looks at its traffic
    caplog.set_level(logging.DEBUG)
    look = Look()
    SURFACES[name](look)
    assert look.seen
    shown = "\n".join([*look.seen, caplog.text, *capfd.readouterr()])
    assert [canary for canary in CANARIES if canary in shown] == []


def test_a_canary_that_shows_is_seen():
    """The test above can fail."""
    look = Look()
    with pytest.raises(DeepSeekError) as caught:
        raise ConfigurationError(f"wrong: {SECRET}")
    look.at_error(caught.value)
    assert any(SECRET in text for text in look.seen)
    assert len([canary for canary in CANARIES if canary in "".join(look.seen)]) >= 1
