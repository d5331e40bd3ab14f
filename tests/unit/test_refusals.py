"""The lines about refused calls."""

import logging

import pytest

from deepseek_grpc.errors import PermissionDeniedError
from deepseek_grpc.gateway.refusals import RefusalLog
from deepseek_grpc.gateway.tokens import RefusedTokenError


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "deepseek_grpc.gateway.auth")
    return lambda: [record.getMessage() for record in caplog.records]


def test_who_from_where_and_why(said):
    log = RefusalLog()
    log.write(RefusedTokenError("expired 600 s ago", 5), "ipv4:10.0.0.1:5", "abc")
    log.write(PermissionDeniedError("client 'a' lacks 'b'"), "unix:", "def")
    assert said() == [
        "token refused: expired 600 s ago (from ipv4:10.0.0.1:5, request abc)",
        "call refused: client 'a' lacks 'b' (from unix:, request def)",
    ]


@pytest.mark.parametrize(
    "ugly", ["a\nb", "a\r\nb", "a\x1b[31mb", "a\u2028b", "a\x00b", "a\u202eb", "a\ud800b", "a\x85b"]
)
def test_no_line_is_forged(said, ugly):
    RefusalLog().write(RefusedTokenError(ugly, 5), ugly, ugly)
    [line] = said()
    assert line.isascii()
    assert line.isprintable()


def test_lines_are_bounded(said):
    RefusalLog().write(RefusedTokenError("\U0001f600" * 10_000, 5), "x" * 10_000, "y" * 10_000)
    assert len(said()[0]) < 200 * 10 + 2 * 200 + 100


def test_a_flood_is_counted_and_not_written(said):
    now = 0.0
    log = RefusalLog(lambda: now)
    for _ in range(1000):
        log.write(RefusedTokenError("x", 5), "p", "r")
    assert len(said()) == 100
    now = 10.0
    for _ in range(2):
        log.write(RefusedTokenError("x", 5), "p", "r")
    assert said()[100:] == ["900 more refused calls were not logged", *["token refused: x (from p, request r)"] * 2]
    now = 20.0
    log.write(RefusedTokenError("x", 5), "p", "r")
    assert len(said()) == 104


def test_the_answer_says_the_time_and_not_the_cause():
    error = RefusedTokenError("a cause", 1_700_000_000.9)
    assert error.metadata == {"gateway_time": "1700000000"}
    assert "a cause" not in str(error) + repr(error) + repr(error.args)
