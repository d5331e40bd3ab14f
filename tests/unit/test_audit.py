"""The audit log: a record before and after each call, and nothing in it that isn't meant to be."""

from __future__ import annotations

import json
import os
import pickle
import stat
import threading

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepseek_grpc import AuditLog, CallRecord, Observer, Usage
from deepseek_grpc.audit import redact
from deepseek_grpc.errors import ConfigurationError, RateLimitError


def record(prompt="Why?", **fields):
    given = {"method": "TextService/Generate", "target": "gw:443", "request_id": "r1", "model": "m", "started_at": 0.5}
    return CallRecord(**{**given, **fields}, excerpt=lambda limit: prompt[:limit])


def ended(call, code=grpc.StatusCode.OK, error=None):
    call.seconds, call.code, call.error, call.attempts = 1.25, code, error, 2
    return call


def lines(path):
    text = path.read_bytes().decode("ascii")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "api_calls.log"


def test_a_record_before_and_after(path):
    log = AuditLog(path)
    assert isinstance(log, Observer)
    call = record()
    log.started(call)
    call.usage = Usage(3, 4, 7)
    call.first_content_seconds = 0.25
    log.ended(ended(call))
    head = {"method": "TextService/Generate", "request_id": "r1"}
    assert lines(path) == [
        {"at": "1970-01-01T00:00:00.500Z", "event": "started", **head, "target": "gw:443", "model": "m"},
        {
            "at": "1970-01-01T00:00:01.750Z",
            "event": "ended",
            **head,
            "code": "OK",
            "seconds": 1.25,
            "attempts": 2,
            "first_content_seconds": 0.25,
            "prompt_tokens": 3,
            "completion_tokens": 4,
        },
    ]


def test_a_failure_has_its_reason(path):
    log = AuditLog(path)
    log.ended(ended(record(), grpc.StatusCode.RESOURCE_EXHAUSTED, RateLimitError("the tenant's secret limit")))
    (line,) = lines(path)
    assert (line["code"], line["reason"]) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
    assert "secret" not in str(line)


def test_prompts_only_if_asked_for(path):
    AuditLog(path).started(record("the merger with Acme"))
    assert "Acme" not in path.read_text()
    AuditLog(path, prompts=True).started(record("the merger with Acme"))
    assert [line.get("prompt") for line in lines(path)] == [None, "the merger with Acme"]


def test_fifty_characters_at_most(path):
    AuditLog(path, prompts=True).started(record("x " * 500))
    assert lines(path)[0]["prompt"] == "x " * 25


PERSONAL = [
    ("write to ada.lovelace+x@mail.example.org today", "ada"),
    ("call +44 20 7946 0958", "7946"),
    ("call (030) 1234-5678", "1234"),
    ("my number is 13800138000", "13800138000"),
    ("card 4111 1111 1111 1111", "4111"),
    ("card 4111-1111-1111-1111 exp 12/27", "1111"),
    ("IBAN DE89 3704 0044 0532 0130 00", "3704"),
    ("IBAN GB82WEST12345698765432", "WEST"),
    ("id 11010519491231002X", "1949"),
    ("SSN 078-05-1120", "1120"),
    ("host 192.168.17.4 is down", "192.168"),
    ("host 2001:db8::ff00:42:8329 is down", "8329"),
    ("use sk-0123456789abcdef0123", "0123456789"),
    ("AKIAIOSFODNN7EXAMPLE1234", "IOSFODNN"),
    ("Bearer eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJhIn0.c2lnbmF0dXJl", "eyJ"),
    ("token: hunter2", "hunter2"),
    ("my password is hunter2", "hunter2"),
    ("pwd=hunter2", "hunter2"),
    ("pass: hunter2", "hunter2"),
    ("CLIENT_SECRET=hunter2", "hunter2"),
    ('{"password": "hunter2"}', "hunter2"),
    ("Authorization: Bearer hunter2", "hunter2"),
    ("postgres://ada:hunter2@db/x", "hunter2"),
    ("-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END", "MHcCAQEE"),
    ("key 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c", "9f86d081"),
]


@pytest.mark.parametrize(("text", "private"), PERSONAL)
def test_what_has_the_form_of_something_private_is_redacted(path, text, private):
    assert private in text
    AuditLog(path, prompts=True).started(record(text))
    assert private not in path.read_text()


@pytest.mark.parametrize(
    "text",
    [
        *["What is a deadline?", "Explain RFC 7519, section 4.1", "3 + 4 = 7", "gRPC 1.76.0"],
        *["what is a token bucket?", "a key change, and pass the salt", "who is the bearer of bad news?"],
    ],
)
def test_what_has_not_stays(text):
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("password ada@example.org", "[secret]"),
        ("the token: sk-0123456789abcdef0123, ok?", "the [secret] ok?"),
        ("ada@example.org sk-0123456789abcdef0123 192.168.17.4", "[email] [token] [ip]"),
        ("[secret] of the year", "[secret] of the year"),
    ],
)
def test_a_mark_stays_whole(text, redacted):
    assert redact(text) == redacted


@pytest.mark.parametrize("length", [*range(360, 401), *range(960, 1001)])
def test_what_the_look_cut_in_two_is_not_shown(path, length):
    text = "eyJ" + "x" * (length - 4) + " ada.lovelace@mail.example.org"
    AuditLog(path, prompts=True).started(record(text))
    assert lines(path)[0]["prompt"].rstrip() in ("[token]", "[token] [email]", "")


def test_a_program_may_go_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = AuditLog("api_calls.log")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    log.started(record())
    pickle.loads(pickle.dumps(log)).started(record())
    assert len(lines(tmp_path / "api_calls.log")) == 2
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_cut_does_not_make_half_an_address_look_harmless(path):
    AuditLog(path, prompts=True).started(record("x" * 40 + " ada.lovelace@mail.example.org"))
    assert "ada" not in path.read_text()


@given(text=st.text(), model=st.text(), request_id=st.text())
def test_nobody_forges_a_line(tmp_path_factory, text, model, request_id):
    path = tmp_path_factory.mktemp("audit") / "log"
    forged = '\n{"event": "ended", "code": "OK"}\r\n\u2028\x1b[2J'
    AuditLog(path, prompts=True).started(
        record(text[:9] + forged, model=model + forged, request_id=request_id + forged)
    )
    assert path.read_bytes().count(b"\n") == 1
    assert all(byte == 0x0A or 0x20 <= byte < 0x7F for byte in path.read_bytes())
    assert lines(path)[0]["event"] == "started"


def test_threads_share_it(path):
    log = AuditLog(path)

    def write(name):
        for i in range(200):
            log.started(record(request_id=f"{name}-{i}"))

    threads = [threading.Thread(target=write, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line["request_id"] for line in lines(path)) == sorted(
        f"{n}-{i}" for n in range(8) for i in range(200)
    )


def test_a_fork_writes_to_the_same_file(path):
    log = AuditLog(path)
    log.started(record(request_id="parent"))
    pid = os.fork()
    if pid == 0:
        log.started(record(request_id="child"))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert [line["request_id"] for line in lines(path)] == ["parent", "child"]


def test_it_is_appended_to_and_nobody_elses(path):
    AuditLog(path).started(record(request_id="one"))
    AuditLog(path).started(record(request_id="two"))
    assert [line["request_id"] for line in lines(path)] == ["one", "two"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_may_be_rotated(path, tmp_path):
    log = AuditLog(path)
    log.started(record(request_id="one"))
    path.rename(tmp_path / "old.log")
    log.started(record(request_id="two"))
    path.unlink()
    log.started(record(request_id="three"))
    assert lines(tmp_path / "old.log")[0]["request_id"] == "one"
    assert lines(path)[0]["request_id"] == "three"


def test_it_travels_to_other_processes_by_its_name(path):
    copy = pickle.loads(pickle.dumps(AuditLog(path, prompts=True)))
    copy.started(record("Why?"))
    assert lines(path)[0]["prompt"] == "Why?"
    assert repr(copy) == f"AuditLog({str(path)!r})"


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [("missing/folder/log", "No such file"), (".", "directory"), ("a\0b", "null"), (b"", "give the path"), (5, "int")],
)
def test_a_file_that_cannot_be_written_is_said_at_once(tmp_path, monkeypatch, wrong, problem):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=problem):
        AuditLog(wrong)
