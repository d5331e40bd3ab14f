"""A session by the protos alone: what a client may do, and what it gets that doesn't keep to the rules."""

from __future__ import annotations

import grpc
import pytest

from deepseek_grpc._session.frames import HIGH_WATER
from deepseek_grpc.gateway.services import session as service
from deepseek_grpc.testing import Delay, Fail, FakeServer, Stall
from deepseek_rpc.v2 import text_pb2 as pb
from tests.gateway.raw import (
    RawSession,
    bearer,
    cancel_frame,
    channel,
    completion_frame,
    credit_frame,
    ends_of,
    error_of,
    open_frame,
    start_frame,
    until,
)

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
HELLO = "Hello from the fake server."
MEBIBYTE = 1024 * 1024


@pytest.fixture
def raw(fake_server):
    with channel(fake_server.target) as made:
        yield made


@pytest.fixture
def session(fake_server, raw):
    return RawSession(raw, bearer(fake_server))


@pytest.fixture
def other(fake_server, raw):
    """Another session of the same client, which has a turn running while the first one breaks the rules."""
    other = RawSession(raw, bearer(fake_server))
    other.open()
    yield other
    other.send(start_frame(1))
    other.half_close()
    assert ends_of(other.frames()) == {1: "done"}


def refused(session):
    code, reason, details = session.refused()
    assert (code, reason) == INVALID
    return details


def nothing_left(server):
    return len(server._gateway._text.sessions) == 0


def texts(frames, turn_id):
    return "".join(c.text for f in frames if f.chunks.turn_id == turn_id for c in f.chunks.chunks)


# Whoever doesn't begin as it should


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        (pb.SessionRequest(frames=[start_frame(1)]), "frames[0] is start; a session begins with open"),
        (pb.SessionRequest(frames=[pb.ClientFrame()]), "a session begins with open"),
        (pb.SessionRequest(), "frames[0] is nothing; a session begins with open"),
        (b"", "a session begins with open"),
        (pb.SessionRequest(frames=[open_frame(resumable=True), start_frame(1)]), "has 2 entries; the open of a resum"),
        (pb.SessionRequest(frames=[open_frame("a.b.c"), start_frame(1)]), "has 2 entries; the open of a resumable"),
        (pb.SessionRequest(frames=[open_frame(), open_frame()]), "frames has a second open"),
        (b"\xff\xff\xff", "frames can't be decoded: the message of 3 bytes is no SessionRequest"),
        (pb.SessionRequest(frames=[open_frame()] * 10_001), "has 10001 entries; the limit of a message is 10000"),
    ],
)
def test_a_beginning_that_is_none(fake_server, session, other, first, problem):
    session.send_message(first)
    assert problem in refused(session)
    assert not fake_server.text.requests
    until(lambda: len(fake_server._gateway._text.sessions) == 1)  # the other one


def test_a_peer_that_half_closes_at_once(session):
    session.half_close()
    assert "a session begins with open" in refused(session)


def test_a_peer_that_says_nothing(fake_server, raw, monkeypatch):
    monkeypatch.setattr(service, "OPEN_SECONDS", 0.05)  # before the call begins, which is when it is read
    session = RawSession(raw, bearer(fake_server))
    assert "didn't come within 0.05 s; a session begins with open" in refused(session)


def test_a_peer_that_vanishes_before_it_says_anything(fake_server, session):
    session.cancel()
    until(lambda: nothing_left(fake_server))


def test_a_second_open(fake_server, session, other):
    session.open()
    session.send(open_frame())
    assert "second open" in refused(session)
    until(lambda: len(fake_server._gateway._text.sessions) == 1)


def test_without_resuming_frames_may_come_beside_the_open(fake_server, session):
    session.send_message(pb.SessionRequest(frames=[open_frame(), start_frame(1), start_frame(2, stream=True)]))
    session.half_close()
    first, *more = session.rest()
    assert [frame.WhichOneof("frame") for frame in first.frames] == ["opened"]
    assert ends_of(frame for message in more for frame in message.frames) == {1: "done", 2: "done"}
    assert len(fake_server.text.requests) == 2


# Whoever says what no message may be


def test_bytes_that_are_no_message(fake_server, session, other):
    fake_server.text.script(Stall())
    session.open()
    session.send(start_frame(1))
    fake_server.text.wait_for_requests(1)
    session.send_message(b"\x0a\x7fabc")
    assert "message of 5 bytes is no SessionRequest" in refused(session)
    fake_server.text.wait_for_cancellations(1)


def test_a_message_of_100_000_frames(fake_server, session, other):
    fake_server.text.script(Stall())
    session.open()
    session.send(start_frame(1))
    fake_server.text.wait_for_requests(1)
    session.send(*[cancel_frame(1)] * 100_000)
    assert "has 100000 entries; the limit of a message is 10000" in refused(session)
    fake_server.text.wait_for_cancellations(1)


def test_a_message_of_10_000_frames(session):
    session.open()
    session.send(start_frame(1), *[start_frame(1)] * 9_998, start_frame(2))
    session.half_close()
    assert ends_of(session.frames()) == {1: "done", 2: "done"}


def test_a_frame_of_9_mib(fake_server, session, other):
    session.open()
    session.send(start_frame(1, prompt="x" * 9 * MEBIBYTE), start_frame(2))
    session.half_close()
    assert ends_of(session.frames()) == {1: "TOO_LARGE", 2: "done"}
    assert len(fake_server.text.requests) == 1


def test_a_credential_of_9_mib(fake_server, session, other):
    fake_server.text.script(Stall())
    session.open()
    session.send(start_frame(1))
    fake_server.text.wait_for_requests(1)
    session.send(pb.ClientFrame(auth=pb.AuthFrame(token="x" * 9 * MEBIBYTE)))
    assert session.refused()[:2] == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    fake_server.text.wait_for_cancellations(1)


def test_a_resume_token_of_9_mib(session):
    session.send(open_frame("x" * 9 * MEBIBYTE))
    assert session.refused()[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_ELSEWHERE")


def test_a_message_larger_than_grpc_takes_it(fake_server, session, other):
    fake_server.text.script(Stall())
    session.open()
    session.send(start_frame(1))
    fake_server.text.wait_for_requests(1)
    session.send_message(b"x" * 17 * MEBIBYTE)
    assert session.refused()[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    fake_server.text.wait_for_cancellations(1)


# Turns that are none


@pytest.mark.parametrize("frame", [cancel_frame(7), credit_frame(7, 10), credit_frame(7, 2**64 - 1)])
def test_frames_for_turns_that_were_never_started(session, frame):
    session.open()
    session.send(frame, cancel_frame(0), credit_frame(0, 1), start_frame(8))
    session.half_close()
    assert ends_of(session.frames()) == {7: "TURN_UNKNOWN", 8: "done"}


def test_frames_for_turns_that_are_over(session):
    session.open()
    session.send(start_frame(1, stream=True, credit=1000))
    frames = session.frames()
    assert ends_of(frames, 1) == {1: "done"}
    session.send(cancel_frame(1), credit_frame(1, 100), credit_frame(1, 2**64 - 1), start_frame(2))
    session.half_close()
    assert ends_of(frames) == {2: "done"}


def test_a_turns_id_twice(fake_server, session):
    session.open()
    session.send(start_frame(1), start_frame(2))
    frames = session.frames()
    assert ends_of(frames, 2) == {1: "done", 2: "done"}
    session.send(start_frame(1), start_frame(3))
    session.half_close()
    assert ends_of(frames) == {1: "CONFLICT", 3: "done"}
    assert len(fake_server.text.requests) == 3


@pytest.mark.parametrize(
    "again",
    [
        start_frame(1, prompt="Something else"),
        start_frame(1, stream=True),
        start_frame(1, credit=5),
        start_frame(1, deadline_ms=60_000),
        completion_frame(1),
        pb.ClientFrame(start=pb.StartFrame(turn_id=1)),
    ],
)
def test_a_running_turns_id_with_another_body(fake_server, session, again):
    fake_server.text.script(Stall())
    session.open()
    session.send(start_frame(1))
    fake_server.text.wait_for_requests(1)
    session.send(again, start_frame(2))
    session.half_close()
    assert ends_of(session.frames()) == {1: "CONFLICT", 2: "done"}
    fake_server.text.wait_for_cancellations(1)
    assert len(fake_server.text.requests) == 2


def test_the_same_start_again_is_the_same_turn(fake_server, session):
    fake_server.text.script(Stall())
    session.open()
    session.send(start_frame(1))
    fake_server.text.wait_for_requests(1)
    session.send(start_frame(1), start_frame(1), start_frame(2), cancel_frame(1))
    session.half_close()
    assert ends_of(session.frames()) == {1: "CANCELLED", 2: "done"}
    assert len(fake_server.text.requests) == 2


def test_a_turn_without_an_id(session):
    session.open()
    session.send(start_frame(0))
    assert "start.turn_id is 0" in refused(session)


def test_starts_that_make_no_sense(session):
    session.open()
    continued = completion_frame(3)
    continued.start.parent_turn_id = 1
    session.send(
        pb.ClientFrame(start=pb.StartFrame(turn_id=1)),
        pb.ClientFrame(start=pb.StartFrame(turn_id=2, stream=True, credit=5)),
        continued,
        start_frame(4, credit=4 * MEBIBYTE + 1),
        start_frame(5, temperature=5),
        start_frame(6, prompt=""),
        completion_frame(7, prompt=""),
        start_frame(8),
    )
    session.half_close()
    assert ends_of(session.frames()) == {**dict.fromkeys(range(1, 8), "INVALID_REQUEST"), 8: "done"}


def test_parents_that_are_not_there(fake_server, session):
    fake_server.text.script(Stall())
    session.open()
    session.send(start_frame(1, stream=True))
    fake_server.text.wait_for_requests(1)
    session.send(
        start_frame(2, parent_turn_id=1),  # it runs
        start_frame(3, parent_turn_id=99),
        start_frame(4, parent_turn_id=4),  # itself
        start_frame(5, parent_turn_id=2**64 - 1),
        cancel_frame(1),
        start_frame(6, parent_turn_id=1),  # cancelled
        completion_frame(7),
        start_frame(8),
    )
    frames = session.frames()
    assert ends_of(frames, 8) == {
        **dict.fromkeys((2, 3, 4, 5, 6), "PARENT_GONE"),
        1: "CANCELLED",
        7: "done",
        8: "done",
    }
    session.send(start_frame(9, parent_turn_id=7))  # a completion is no conversation
    session.half_close()
    assert ends_of(frames) == {9: "PARENT_GONE"}


def test_a_conversation_goes_on(fake_server, session):
    fake_server.text.script("Hel", "lo")
    fake_server.text.script("Hello again")
    session.open()
    frames = session.frames()
    session.send(start_frame(1, stream=True, prompt="one", system_message="Be brief"))
    assert ends_of(frames, 1) == {1: "done"}
    session.send(start_frame(2, prompt="two", parent_turn_id=1))
    assert ends_of(frames, 1) == {2: "done"}
    session.send(start_frame(3, prompt="three", parent_turn_id=2), start_frame(4, prompt="four", parent_turn_id=1))
    session.half_close()
    assert ends_of(frames) == {3: "done", 4: "done"}
    asked = [[message.content for message in seen.request.messages] for seen in fake_server.text.requests]
    assert asked[2:] == [
        ["Be brief", "one", "Hello", "two", "Hello again", "three"],
        ["Be brief", "one", "Hello", "four"],
    ]


def test_history_is_a_sessions_own(fake_server, raw, session):
    session.open()
    session.send(start_frame(1, prompt="a secret"))
    session.half_close()
    assert ends_of(session.frames()) == {1: "done"}
    other = RawSession(raw, bearer(fake_server))
    other.open()
    other.send(start_frame(2, parent_turn_id=1))
    other.half_close()
    assert ends_of(other.frames()) == {2: "PARENT_GONE"}


def test_history_has_its_bound(fake_server, session):
    session.open()
    frames = session.frames()
    for turn_id in range(1, 6):
        session.send(start_frame(turn_id, prompt="x" * 300_000))
        assert ends_of(frames, 1) == {turn_id: "done"}
    session.send(start_frame(6, prompt="x" * 2 * MEBIBYTE))
    assert ends_of(frames, 1) == {6: "done"}
    parents = (1, 2, 6, 4, 5)
    session.send(*[start_frame(10 + place, parent_turn_id=parent) for place, parent in enumerate(parents)])
    session.half_close()
    assert ends_of(frames) == {**dict.fromkeys((10, 11, 12), "PARENT_GONE"), 13: "done", 14: "done"}


# Credit


def test_a_turn_waits_for_its_credit(fake_server, session):
    fake_server.text.script(*["x" * 1000] * 20)
    session.open()
    session.send(start_frame(1, stream=True, credit=5000), start_frame(2))
    frames = session.frames()
    seen = []
    while "done" not in [frame.WhichOneof("frame") for frame in seen]:  # turn 2, beside it
        seen.append(next(frames))
    while len(texts(seen, 1)) < 5000:
        seen.append(next(frames))
    assert len(texts(seen, 1)) == 5000
    assert [frame.done.turn_id for frame in seen if frame.HasField("done")] == [2]
    given = 0
    while True:
        spent = sum(frame.chunks.spent for frame in seen) - given
        if spent:
            session.send(credit_frame(1, spent))
            given += spent
        seen.append(next(frames))
        if seen[-1].done.turn_id == 1:
            break
    assert texts(seen, 1) == "x" * 20_000
    session.half_close()
    assert list(frames) == []


@pytest.mark.parametrize("more", [4 * MEBIBYTE, 2**64 - 1])
def test_more_credit_than_there_may_be(fake_server, session, more):
    fake_server.text.script("a", Stall())
    session.open()
    session.send(start_frame(1, stream=True, credit=1000))
    fake_server.text.wait_for_requests(1)
    session.send(credit_frame(1, more), start_frame(2))
    session.half_close()
    assert ends_of(session.frames()) == {1: "INVALID_REQUEST", 2: "done"}
    fake_server.text.wait_for_cancellations(1)


def test_a_waiting_turn_can_be_cancelled(fake_server, session):
    fake_server.text.script(*["x" * 1000] * 20)
    session.open()
    session.send(start_frame(1, stream=True, credit=1))
    frames = session.frames()
    assert texts([next(frames)], 1)
    session.send(cancel_frame(1))
    session.half_close()
    assert ends_of(frames) == {1: "CANCELLED"}
    fake_server.text.wait_for_cancellations(1)


def test_a_waiting_turn_has_its_deadline(fake_server, session):
    fake_server.text.script(*["x" * 1000] * 20)
    session.open()
    session.send(start_frame(1, stream=True, credit=1, deadline_ms=200), start_frame(2, deadline_ms=2**64 - 1))
    session.half_close()
    assert ends_of(session.frames()) == {1: "DEADLINE_EXCEEDED", 2: "done"}
    fake_server.text.wait_for_cancellations(1)


# Ends


def test_a_cancelled_turn_says_so_and_stops_its_engine(fake_server, session):
    fake_server.text.script("a", Stall())
    session.open()
    session.send(start_frame(1, stream=True))
    fake_server.text.wait_for_requests(1)
    session.send(cancel_frame(1), cancel_frame(1))
    session.half_close()
    assert ends_of(session.frames()) == {1: "CANCELLED"}
    fake_server.text.wait_for_cancellations(1)


def test_a_turn_that_is_cancelled_as_it_starts(session):
    session.open()
    session.send(start_frame(1), cancel_frame(1), start_frame(2))
    session.half_close()
    assert ends_of(session.frames()) == {1: "CANCELLED", 2: "done"}


def test_a_failing_turn_leaves_others(fake_server, session):
    fake_server.text.script(Fail("RESOURCE_EXHAUSTED", retry_after=7))
    fake_server.text.script("some", Fail("UNAVAILABLE"))
    session.open()
    session.send(start_frame(1), start_frame(2, stream=True), start_frame(3))
    session.half_close()
    assert ends_of(session.frames()) == {1: "RATE_LIMITED", 2: "INTERRUPTED", 3: "done"}


def test_close_ends_everything_at_once(fake_server, session):
    for _ in range(3):
        fake_server.text.script("a", Stall())
    session.open(resumable=True)
    session.send_message(pb.SessionRequest(frames=[start_frame(i, stream=True) for i in (1, 2, 3)], seq=1))
    fake_server.text.wait_for_requests(3)
    session.send_message(pb.SessionRequest(frames=[pb.ClientFrame(close=pb.CloseFrame())], seq=2))
    assert ends_of(session.frames()) == {}
    fake_server.text.wait_for_cancellations(3)
    until(lambda: nothing_left(fake_server))


def test_what_follows_a_close_counts_no_more(fake_server, session, raw):
    session.open()
    session.send(pb.ClientFrame(close=pb.CloseFrame()), start_frame(1))
    assert ends_of(session.frames()) == {}
    later = RawSession(raw, bearer(fake_server))
    later.send(open_frame(), start_frame(1, prompt="later"))
    later.half_close()
    assert ends_of(later.frames()) == {1: "done"}
    assert [seen.request.messages[0].content for seen in fake_server.text.requests] == ["later"]


def test_a_session_that_is_not_resumable_ends_with_its_connection(fake_server, session):
    fake_server.text.script("a", Stall())
    opened = session.open()
    assert (opened.resume_token, opened.resume_window_ms) == ("", 0)
    assert opened.session_id
    session.send(start_frame(1, stream=True))
    fake_server.text.wait_for_requests(1)
    session.cancel()
    fake_server.text.wait_for_cancellations(1)
    until(lambda: nothing_left(fake_server))


def test_numbers_count_nothing_where_there_are_none(session):
    session.open()
    session.send_message(pb.SessionRequest(frames=[start_frame(1)], seq=77, acked_seq=99))
    session.send_message(pb.SessionRequest(frames=[start_frame(2)], seq=3))
    session.half_close()
    messages = session.rest()
    assert ends_of(frame for message in messages for frame in message.frames) == {1: "done", 2: "done"}
    assert {(message.seq, message.acked_seq) for message in messages} == {(0, 0)}


def test_a_client_that_closes_its_side_still_gets_its_answers(session):
    session.open()
    session.send(*[start_frame(i, stream=i % 2 == 0) for i in range(1, 21)])
    session.half_close()
    assert ends_of(session.frames()) == dict.fromkeys(range(1, 21), "done")


def test_an_open_that_nothing_follows(session):
    session.open()
    session.half_close()
    assert session.rest() == []


def test_frames_that_this_gateway_does_not_know_are_passed_over(session):
    session.open()
    session.send(pb.ClientFrame(), start_frame(1))
    session.send_message(b"\xba\x3e\x03abc")  # a field of a newer contract
    session.half_close()
    assert ends_of(session.frames()) == {1: "done"}


# What travels


def test_frames_travel_together_under_load(session):
    turns = 64
    session.open()
    session.send(*[start_frame(i, stream=True) for i in range(1, turns + 1)])
    session.half_close()
    messages = session.rest()
    frames = [frame for message in messages for frame in message.frames]
    assert ends_of(frames) == dict.fromkeys(range(1, turns + 1), "done")
    for turn in range(1, turns + 1):
        chunks = [chunk for frame in frames if frame.chunks.turn_id == turn for chunk in frame.chunks.chunks]
        assert [chunk.WhichOneof("event") for chunk in chunks] == ["head", *["text"] * 6, "tail"]
        assert "".join(chunk.text for chunk in chunks) == HELLO
    assert len(messages) * 4 < turns * (1 + 6 + 1 + 1)


def test_batches_stop_at_256_kib(fake_server, session):
    fake_server.text.script(*["x" * 100_000] * 20)
    fake_server.text.script("y" * 1_000_000)
    session.open()
    session.send(start_frame(1, stream=True), start_frame(2, stream=True))
    session.half_close()
    messages = session.rest()
    assert ends_of(frame for message in messages for frame in message.frames) == {1: "done", 2: "done"}
    for message in messages:
        assert message.ByteSize() <= 256 * 1024 or [len(frame.chunks.chunks) for frame in message.frames] == [1]


def test_a_reader_that_stands_still_costs_no_more_than_its_bound(fake_server, session):
    """It gave no limit of its own; what waits for it has one all the same, and another session doesn't notice."""
    fake_server.text.script(*["x" * 100_000] * 200)
    session.open()
    session.send(start_frame(1, stream=True))
    fake_server.text.wait_for_requests(1)
    [hosted] = fake_server._gateway._text.sessions._sessions.values()
    with channel(fake_server.target) as raw:
        for _ in range(5):
            other = RawSession(raw, bearer(fake_server))
            other.open()
            other.send(start_frame(1))
            other.half_close()
            assert ends_of(other.frames()) == {1: "done"}
            assert hosted.machine.waiting_bytes <= HIGH_WATER + 200_000
    session.half_close()
    frames = list(session.frames())
    assert texts(frames, 1) == "x" * 100_000 * 200


# Completions


def test_completions_over_a_session(fake_server, session):
    fake_server.text.script("b")
    fake_server.text.script("b", "c")
    session.open()
    session.send(completion_frame(1, suffix="z"), completion_frame(2, stream=True))
    session.half_close()
    frames = list(session.frames())
    assert ends_of(frames) == {1: "done", 2: "done"}
    [whole] = [frame.done for frame in frames if frame.done.turn_id == 1]
    assert whole.completion.text == "b"
    assert texts(frames, 2) == "bc"
    assert [seen.request.suffix for seen in fake_server.text.completions] == ["z", ""]


@pytest.mark.parametrize(
    ("permissions", "generates", "completes"),
    [
        (["text.session"], "PERMISSION_DENIED", "PERMISSION_DENIED"),
        (["text.session", "text.generate"], "done", "PERMISSION_DENIED"),
        (["text.session", "text.complete"], "PERMISSION_DENIED", "done"),
        (["text.*"], "done", "done"),
    ],
)
def test_turns_need_their_own_permissions(permissions, generates, completes):
    with FakeServer(permissions=permissions) as server, channel(server.target) as raw:
        session = RawSession(raw, bearer(server))
        session.open()
        session.send(start_frame(1), start_frame(2, stream=True), completion_frame(3), completion_frame(4, stream=True))
        session.half_close()
        assert ends_of(session.frames()) == {1: generates, 2: generates, 3: completes, 4: completes}
        assert len(server.text.requests) == (2 if generates == "done" else 0)
        assert len(server.text.completions) == (2 if completes == "done" else 0)


def test_turns_go_on_at_their_own_pace(fake_server, session):
    fake_server.text.script("a", Delay(0.2), "b")
    session.open()
    session.send(start_frame(1, stream=True), start_frame(2))
    frames = session.frames()
    assert ends_of(frames, 1) == {2: "done"}
    session.half_close()
    assert ends_of(frames) == {1: "done"}


def test_an_error_of_a_turn_has_its_details(fake_server, session):
    session.open()
    session.send(start_frame(1, temperature=5, request_id="req-1"))
    session.half_close()
    [frame] = session.frames()
    assert error_of(frame.error.status) == "INVALID_REQUEST"
    assert "temperature is 5" in frame.error.status.message
