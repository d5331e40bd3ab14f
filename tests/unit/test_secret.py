"""A secret shows nowhere and still works."""

import copy
import json
import pickle
import traceback
from dataclasses import asdict, dataclass
from pprint import pformat

import pytest

import deepseek_grpc
from deepseek_grpc.auth import Secret
from deepseek_grpc.errors import ConfigurationError

HIDDEN = "hüsh-hush"


@pytest.fixture(params=[HIDDEN, HIDDEN.encode(), Secret(HIDDEN)], ids=["text", "bytes", "secret"])
def secret(request):
    return Secret(request.param)


def test_it_is_found_by_its_name():
    assert deepseek_grpc.Secret is Secret


def test_it_gives_its_bytes_when_asked(secret):
    assert secret.reveal() == HIDDEN.encode()
    assert len(secret) == len(HIDDEN.encode())


@pytest.mark.parametrize(
    "show",
    [repr, str, format, ascii, pformat, "{}".format, "%s".__mod__, "%r".__mod__, lambda s: f"{s!r}{s}", lambda s: [s]],
)
def test_it_shows_nothing(secret, show):
    assert "hush" not in str(show(secret))
    assert "Secret(" in str(show(secret))


def test_it_can_be_aligned():
    assert f"{Secret('a'):>12}" == "   Secret(…)"


@pytest.mark.parametrize(
    "take",
    [
        *(json.dumps, bytes, list, dict, vars, float, int, sum),
        *(lambda s, p=p: pickle.dumps(s, p) for p in range(pickle.HIGHEST_PROTOCOL + 1)),
        *(lambda s: s[0], lambda s: s + b"", "%d".__mod__, "".join, lambda s: s.__getstate__()),
        *(lambda s: s.__reduce__(), lambda s: f"{s:d}", lambda s: s < s, lambda s: "h" in s),
    ],
)
def test_what_would_take_it_is_refused_without_showing_it(secret, take):
    with pytest.raises((TypeError, ValueError)) as caught:
        take(secret)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_pickling_says_why_and_what_instead():
    with pytest.raises(TypeError, match="a pickle is readable; give the other process the variable or file"):
        pickle.dumps(Secret("a"))


def test_a_copy_is_the_same_secret(secret):
    @dataclass
    class Settings:
        key: Secret

    assert copy.copy(secret) is copy.deepcopy(secret) is secret
    assert asdict(Settings(secret)) == {"key": secret}


def test_equal_secrets_are_equal():
    assert Secret("a") == Secret(b"a")
    assert len({Secret("a"), Secret(b"a"), Secret("b")}) == 2
    assert Secret("a") != Secret("b")
    assert Secret("a") != Secret("ab")
    assert Secret("a") != "a"
    assert Secret("a") != b"a"


def test_an_empty_one_is_false():
    assert not Secret("")
    assert Secret("a")


def test_it_does_not_change():
    secret = Secret("a")
    with pytest.raises(AttributeError):
        secret._value = b"b"
    with pytest.raises(AttributeError):
        del secret._value
    with pytest.raises(AttributeError):
        secret.other = 1
    assert secret.reveal() == b"a"


@pytest.mark.parametrize(
    ("value", "says"),
    [(None, "a NoneType"), (5, "an? int"), (bytearray(b"hush"), "a bytearray"), ("hush\ud800", "lone surrogate")],
)
def test_what_is_no_secret_is_refused_without_being_quoted(value, says):
    with pytest.raises(ConfigurationError, match=says) as caught:
        Secret(value)
    assert "hush" not in str(caught.value)
    assert caught.value.__context__ is None
