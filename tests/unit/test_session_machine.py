"""The session's two machines: how frames become batches, what is too large, and whoever breaks the protocol."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepseek_grpc._codec.answer import StreamDecoder
from deepseek_grpc._codec.fim import encode_complete
from deepseek_grpc._session.client import ClientSession, ClientTurn, Parent, restated
from deepseek_grpc._session.frames import BATCH_BYTES, CREDIT_BYTES, FRAME_BYTES, HIGH_WATER, MAX_FRAMES, REPLAY_BYTES
from deepseek_grpc._session.gateway import ClosedSession, GatewaySession, GatewayTurn, RenewedToken, read_open
from deepseek_grpc.errors import (
    ClosedError,
    ConflictError,
    FailedPreconditionError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    RateLimitError,
    RequestTooLargeError,
    ServiceUnavailableError,
    StreamInterruptedError,
)
from deepseek_grpc.types import (
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)
from deepseek_rpc.v2 import text_pb2 as pb
from tests.unit.session_pair import NOWHERE, Pair, answer, ask, taken


def texts(turn):
    return [event.text for event in StreamDecoder("").feed(turn.chunks) if isinstance(event, TextDelta)]


def message(*frames, seq=0):
    return pb.SessionRequest(frames=frames, seq=seq).SerializeToString()


def start_frame(turn_id, prompt="Hi", **fields):
    return pb.ClientFrame(start=pb.StartFrame(turn_id=turn_id, request=pb.GenerateRequest(prompt=prompt), **fields))


OPEN = pb.ClientFrame(open=pb.OpenFrame())


@pytest.fixture
def raw():
    """A gateway's end whose client is the test: no numbers."""
    pair = Pair(resumable=False)
    taken(pair.gateway)
    return pair


def errors_of(pair):
    frames = [frame for data in taken(pair.gateway) for frame in pb.SessionResponse.FromString(data).frames]
    return [frame.error for frame in frames if frame.HasField("error")]


# How frames become batches


LETTERS = st.sampled_from(["x", "ü", "思", "🎈"])
SIZE = st.integers(1, 60_000)
BIG_EVENT = st.one_of(
    st.builds(lambda letter, size: TextDelta(letter * size), LETTERS, SIZE),
    st.builds(lambda letter, size: ReasoningDelta(letter * size), LETTERS, SIZE),
    st.builds(lambda size: ToolCallDelta(0, "c", "f", "x" * size), SIZE),
    st.builds(lambda size: TextDelta("x", (TokenLogprob("y" * size, -1.0),)), SIZE),
    st.builds(lambda size: Started(system_fingerprint="x" * size), SIZE),
    st.builds(lambda size: Finished("stop", extra_json="x" * size), SIZE),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(BIG_EVENT, min_size=1, max_size=4), min_size=1, max_size=12))
def test_a_batch_stops_at_256_kib(rounds):
    pair = Pair()
    turn, running = pair.both()
    for events in rounds:
        pair.gateway.chunks(running, events, NOWHERE)
    written = [batch for batch in pair.carry() if isinstance(batch, pb.SessionResponse)]
    assert all(len(batch.frames) == 1 or batch.ByteSize() <= BATCH_BYTES for batch in written)
    events = [event for chunk in turn.chunks for event in StreamDecoder("", logprobs=True).feed([chunk])]
    assert events == [event for events in rounds for event in events]


def test_what_is_ready_leaves_together():
    pair = Pair()
    pair.carry()
    for _ in range(100):
        pair.start()
    [batch] = pair.carry()
    assert len(batch.frames) == 100
    for turn in pair.starts:
        pair.gateway.chunks(turn, [TextDelta("Hel")], NOWHERE)
        pair.gateway.chunks(turn, [TextDelta("lo")], NOWHERE)
        pair.gateway.done(turn, None, NOWHERE)
    [batch] = pair.says()
    assert [frame.WhichOneof("frame") for frame in batch.frames] == ["chunks", "done"] * 100
    assert [len(frame.chunks.chunks) for frame in batch.frames[::2]] == [2] * 100


def test_the_chunks_of_one_turn_share_a_frame_even_between_those_of_others():
    pair = Pair()
    turns = [pair.both()[1] for _ in range(2)]
    for _ in range(5):
        for turn in turns:
            pair.gateway.chunks(turn, [TextDelta("x")], NOWHERE)
    [batch] = pair.says()
    assert [len(frame.chunks.chunks) for frame in batch.frames] == [5, 5]
    pair.gateway.chunks(turns[0], [TextDelta("later")], NOWHERE)  # the last batch has gone
    [batch] = pair.says()
    assert len(batch.frames) == 1


def test_a_frame_above_the_bound_travels_alone():
    pair = Pair()
    pair.carry()
    sizes = (10, 300_000, 10, 10)
    for size in sizes:
        pair.start("x" * size)
    written = [batch for batch in pair.carry() if isinstance(batch, pb.SessionRequest) and batch.frames]
    assert [len(batch.frames) for batch in written] == [1, 1, 2]
    assert [len(turn.start.request.prompt) for turn in pair.starts] == list(sizes)


@pytest.mark.parametrize("frames", ["starts", "cancels", "ends", "failures"])
def test_no_batch_is_larger_than_the_other_end_takes_it(frames):
    pair = Pair()
    turns = [pair.start("x", stream=False) for _ in range(25_000)]
    written = pair.carry()
    for turn, running in zip(turns, pair.starts, strict=True):
        if frames == "cancels":
            pair.client.cancel(turn)
        elif frames == "ends":
            pair.gateway.done(running, None, NOWHERE)
        elif frames == "failures":
            pair.gateway.fail(running, InternalError("x"))
    written += pair.carry()
    assert max(len(batch.frames) for batch in written) <= MAX_FRAMES
    assert max(batch.ByteSize() for batch in written) <= BATCH_BYTES


def test_what_waits_to_be_written_or_acknowledged_is_counted():
    pair = Pair()
    _, running = pair.both()
    assert pair.gateway.waiting_bytes == 0
    pair.gateway.chunks(running, [ToolCallDelta(0, arguments="x" * 100_000), TextDelta("思" * 100_000)], NOWHERE)
    assert 400_000 <= pair.gateway.waiting_bytes < 410_000
    written = taken(pair.gateway)
    assert 400_000 <= pair.gateway.waiting_bytes < 410_000  # the client may not have it yet
    for data in written:
        pair.client.receive(data)
    pair.carry()
    assert pair.gateway.waiting_bytes == 0


# Credit


def held_after(pair, running):
    """Has the engine speak until it has to wait; returns what it said."""
    said = []
    while not running.held:
        said.append(f"{len(said)}:{'x' * 1000}")
        pair.gateway.chunks(running, [TextDelta(said[-1])], NOWHERE)
        assert len(said) < 10_000
    return said


def test_a_turn_that_nobody_reads_stops_itself_and_no_other():
    pair = Pair()
    turn, running = pair.both()
    said = held_after(pair, running)
    assert CREDIT_BYTES <= sum(map(len, said)) + 12 * len(said) < CREDIT_BYTES + 2000
    pair.carry()
    assert texts(turn) == said
    assert running.held
    _, other = pair.both()
    assert not other.held
    turn.chunks = ()
    assert pair.client.taken(turn)
    pair.carry()
    assert not running.held
    assert not pair.client.taken(turn)  # once


@pytest.mark.parametrize("credit", [1, 2, 3, 5, 100, 60_000, CREDIT_BYTES, REPLAY_BYTES])
def test_whatever_credit_there_was_comes_back(credit, raw):
    """A client that gives back what it is told that was spent lets the turn go on, whatever it began with."""
    raw.tell(message(start_frame(1, stream=True, credit=credit)))
    [running] = raw.starts
    for _ in range(20):
        while not running.held:
            raw.gateway.chunks(running, [TextDelta("x" * (1 + credit // 7))], NOWHERE)
        sent = [pb.SessionResponse.FromString(data) for data in taken(raw.gateway)]
        spent = sum(frame.chunks.spent for batch in sent for frame in batch.frames)
        assert spent
        raw.tell(message(pb.ClientFrame(credit=pb.CreditFrame(turn_id=1, bytes=spent))))
        assert not running.held


def test_a_turn_without_credit_to_mind_is_never_held(raw):
    raw.tell(message(start_frame(1, stream=True)))
    [running] = raw.starts
    raw.gateway.chunks(running, [TextDelta("x" * 1_000_000)] * 5, NOWHERE)
    assert not running.held
    raw.tell(message(pb.ClientFrame(credit=pb.CreditFrame(turn_id=1, bytes=2**64 - 1))))  # it needs none
    assert not raw.cancels


@pytest.mark.parametrize("more", [REPLAY_BYTES, 2**64 - 1])
def test_more_credit_than_there_may_be_ends_the_turn_alone(more, raw):
    raw.tell(message(start_frame(1, stream=True, credit=1), start_frame(2, stream=True, credit=1)))
    raw.tell(message(pb.ClientFrame(credit=pb.CreditFrame(turn_id=1, bytes=more))))
    [cancelled] = raw.cancels
    assert (cancelled.turn, type(cancelled.error)) == (raw.starts[0], InvalidRequestError)
    assert cancelled.error.field == "credit.bytes"
    assert f"{REPLAY_BYTES}" in cancelled.error.details


def test_a_start_with_too_much_credit(raw):
    raw.tell(message(start_frame(1, stream=True, credit=REPLAY_BYTES + 1), start_frame(2, credit=REPLAY_BYTES)))
    [error] = errors_of(raw)
    assert (error.turn_id, error.status.code) == (1, InvalidRequestError.default_code.value[0])
    assert "start.credit" in error.status.message
    assert [turn.turn_id for turn in raw.starts] == [2]


def test_credit_of_none_changes_nothing(raw):
    raw.tell(message(start_frame(1, stream=True, credit=1)))
    [running] = raw.starts
    raw.gateway.chunks(running, [TextDelta("x")], NOWHERE)
    raw.tell(message(pb.ClientFrame(credit=pb.CreditFrame(turn_id=1))))
    assert running.held


# What waits


def test_starts_wait_while_the_gateway_takes_none():
    pair = Pair()
    pair.carry()
    turns = [pair.start("x" * 100_000) for _ in range(40)]
    assert HIGH_WATER <= pair.client.queued_bytes < HIGH_WATER + 110_000
    for turn in turns[10::3]:  # some of which have waited
        pair.client.cancel(turn)
    assert pair.client.queued_bytes < HIGH_WATER + 110_000
    pair.carry()
    left = [turn for place, turn in enumerate(turns) if place < 10 or (place - 10) % 3]
    assert pair.client.turns == tuple(left)
    begun = [running.turn_id for running in pair.starts]
    assert begun == sorted(begun)
    assert set(begun) - {cancelled.turn.turn_id for cancelled in pair.cancels} == {turn.turn_id for turn in left}
    assert pair.client.queued_bytes == 0


def test_a_turn_that_waits_to_start_is_given_up_with_its_session():
    pair = Pair()
    turns = tuple(pair.start("x" * 100_000) for _ in range(20))
    assert pair.client.lost() == turns
    assert (pair.client.queued_bytes, pair.client.ready) == (0, False)


# What is too large


def test_a_request_above_8_mib_is_refused_where_it_is_made():
    pair = Pair()
    with pytest.raises(RequestTooLargeError, match=r"8,388,\d{3} bytes.*8,388,608") as caught:
        pair.start("x" * FRAME_BYTES, request_id="r7")
    assert caught.value.request_id == "r7"
    turn = pair.start()  # the session goes on
    pair.carry()
    assert pair.starts[0].turn_id == turn.turn_id == 1


def test_a_request_that_its_parents_conversation_makes_too_large():
    pair = Pair()
    long = Parent("another", 1, lambda: [pb.Message(role=pb.ROLE_USER, content="x" * FRAME_BYTES)])
    with pytest.raises(RequestTooLargeError):
        pair.start(parent=long)
    assert pair.client.idle


def test_a_client_with_smaller_messages_makes_smaller_frames():
    client = ClientSession(max_message_bytes=100_000)
    with pytest.raises(RequestTooLargeError, match="99,944"):
        client.start(ClientTurn(ask("x" * 100_000), "r1", stream=False))


def test_a_start_above_8_mib_ends_its_own_turn_alone(raw):
    raw.tell(message(start_frame(1, "x" * FRAME_BYTES), start_frame(2)))
    assert [turn.turn_id for turn in raw.starts] == [2]
    [error] = errors_of(raw)
    assert (error.turn_id, error.status.code) == (1, RequestTooLargeError.default_code.value[0])


def test_an_answer_above_8_mib_is_an_error_that_says_what_to_do():
    pair = Pair()
    turn, running = pair.both(stream=False)
    with pytest.raises(FailedPreconditionError, match="stream") as caught:
        pair.gateway.done(running, answer("x" * FRAME_BYTES), NOWHERE)
    pair.gateway.fail(running, caught.value)
    pair.carry()
    assert (type(turn.error), turn.error.reason) == (FailedPreconditionError, "TOO_LARGE")


@pytest.mark.parametrize(
    "event", [TextDelta("x" * FRAME_BYTES), TextDelta("思" * 3_000_000), ToolCallDelta(0, arguments="x" * FRAME_BYTES)]
)
def test_a_chunk_above_8_mib_is_for_its_turn_to_end(event):
    pair = Pair()
    turn, running = pair.both()
    with pytest.raises(FailedPreconditionError) as caught:
        pair.gateway.chunks(running, [TextDelta("Hi"), event, TextDelta("Ho")], NOWHERE)
    pair.gateway.fail(running, caught.value)
    written = pair.says()
    assert max(frame.ByteSize() for batch in written for frame in batch.frames) <= FRAME_BYTES
    assert texts(turn) == ["Hi"]
    assert (type(turn.error), turn.error.reason) == (FailedPreconditionError, "TOO_LARGE")


def test_a_piece_that_cannot_be_encoded_ends_its_own_turn_alone():
    pair = Pair()
    (turn, running), (other, fine) = pair.both(), pair.both()
    half_a_pair = "\ud83c"
    for event in (TextDelta(half_a_pair), ToolCallDelta(0, arguments=half_a_pair)):
        with pytest.raises(UnicodeEncodeError):
            pair.gateway.chunks(running, [TextDelta("Hi"), event], NOWHERE)
    pair.gateway.fail(running, InternalError(f"the backend sent {half_a_pair}"))
    pair.gateway.chunks(fine, [TextDelta("Ho")], NOWHERE)
    pair.carry()
    assert (texts(turn), turn.error.details) == (["Hi", "Hi"], "the backend sent ?")
    assert texts(other) == ["Ho"]


def test_an_answer_that_cannot_be_encoded_can_still_end_in_an_error():
    pair = Pair()
    turn, running = pair.both(stream=False)
    with pytest.raises(InternalError) as caught:
        pair.gateway.done(running, answer("\ud83c"), NOWHERE)
    pair.gateway.fail(running, caught.value)
    pair.carry()
    assert isinstance(turn.error, InternalError)


def test_a_message_of_10_001_frames_is_refused(raw):
    cancel = pb.ClientFrame(cancel=pb.CancelFrame(turn_id=1))
    raw.tell(message(*[cancel] * MAX_FRAMES))
    with pytest.raises(InvalidRequestError, match=r"10001.*10000") as caught:
        raw.tell(message(*[cancel] * (MAX_FRAMES + 1)))
    assert caught.value.field == "frames"


def test_an_errors_size_is_bounded():
    pair = Pair()
    _, running = pair.both()
    pair.gateway.fail(running, InternalError("x" * 1_000_000, request_id="r" * 1_000_000, reason="R" * 1_000_000))
    [batch] = pair.says()
    assert batch.ByteSize() < 8192


# Whoever breaks the protocol


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is nothing; a session begins with open"),
        (message(pb.ClientFrame()), "is None; a session begins with open"),
        (message(start_frame(1)), "is start; a session begins with open"),
        (message(pb.ClientFrame(open={"resumable": True}), start_frame(1)), "has 2 entries; the open of a resumable"),
        (message(pb.ClientFrame(open={"resume_token": "a"}), start_frame(1)), "has 2 entries; the open of a resumable"),
        (message(start_frame(1), OPEN), "is start; a session begins with open"),
        (b"\xff\xff", "no SessionRequest"),
        (b"\x0a\x05abc", "no SessionRequest"),
        (message(*[OPEN] * (MAX_FRAMES + 1)), "the limit of a message is 10000"),
    ],
)
def test_a_connection_begins_with_open_alone(data, problem):
    with pytest.raises(InvalidRequestError, match=problem):
        read_open(data)


def test_a_session_is_opened_once(raw):
    with pytest.raises(InvalidRequestError, match="second open"):
        raw.tell(message(OPEN))


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x7fabc"])
def test_bytes_that_are_no_message(data, raw):
    with pytest.raises(InvalidRequestError, match=f"message of {len(data)} bytes is no SessionRequest"):
        raw.tell(data)


def test_an_empty_message_changes_nothing(raw):
    raw.tell(b"")
    assert (raw.starts, raw.cancels, taken(raw.gateway)) == ([], [], [])
    pair = Pair()
    pair.carry()
    assert pair.client.receive(b"") == []


def test_frames_of_newer_peers_are_ignored():
    pair = Pair()
    pair.carry()
    pair.tell(message(pb.ClientFrame(), seq=1))
    assert pair.client.receive(pb.SessionResponse(frames=[pb.ServerFrame()], seq=1).SerializeToString()) == []


def test_the_id_of_a_running_turn_is_not_given_twice(raw):
    raw.tell(message(start_frame(1)))
    raw.tell(message(start_frame(1, "another")))
    [cancelled] = raw.cancels
    assert (cancelled.turn, type(cancelled.error)) == (raw.starts[0], ConflictError)


def test_the_same_start_again_is_the_same_turn(raw):
    raw.tell(message(start_frame(1)))
    raw.tell(message(start_frame(1), start_frame(1)))
    assert len(raw.starts) == 1
    assert (raw.cancels, errors_of(raw)) == ([], [])


def test_turns_are_numbered_from_1(raw):
    with pytest.raises(InvalidRequestError, match="numbered from 1"):
        raw.tell(message(start_frame(0)))


@pytest.mark.parametrize(
    ("start", "field"),
    [
        (pb.StartFrame(turn_id=1), "start.request"),
        (pb.StartFrame(turn_id=1, stream=True, credit=5), "start.request"),
        (pb.StartFrame(turn_id=1, completion={"prompt": "x"}, parent_turn_id=9), "start.parent_turn_id"),
        (pb.StartFrame(turn_id=1, request={"prompt": "x"}, credit=2**64 - 1), "start.credit"),
    ],
)
def test_a_start_that_makes_no_sense_ends_its_own_turn_alone(start, field, raw):
    raw.tell(message(pb.ClientFrame(start=start), start_frame(2)))
    [error] = errors_of(raw)
    assert (error.turn_id, error.status.code) == (1, InvalidRequestError.default_code.value[0])
    assert error.status.message.startswith(field)
    assert [turn.turn_id for turn in raw.starts] == [2]


@pytest.mark.parametrize("kind", ["cancel", "credit"])
def test_frames_for_turns_that_were_never_started(kind, raw):
    frame = pb.ClientFrame()
    getattr(frame, kind).turn_id = 9
    raw.tell(message(start_frame(1), frame))
    [error] = errors_of(raw)
    assert (error.turn_id, error.status.code) == (9, NotFoundError.default_code.value[0])
    assert not raw.cancels


@pytest.mark.parametrize("kind", ["cancel", "credit"])
def test_frames_for_turns_that_are_over_come_too_late_and_no_more(kind, raw):
    raw.tell(message(start_frame(1)))
    raw.gateway.done(raw.starts[0], None, NOWHERE)
    taken(raw.gateway)
    frame = pb.ClientFrame()
    getattr(frame, kind).turn_id = 1
    raw.tell(message(frame))
    assert (raw.cancels, taken(raw.gateway)) == ([], [])


def test_a_gateway_that_is_about_to_go_takes_no_new_turn():
    pair = Pair()
    pair.carry()
    late = pair.start(request_id="late")
    pair.gateway.go_away(1000)
    pair.gateway.go_away(500)  # once is enough
    said = [batch for batch in pair.carry() if isinstance(batch, pb.SessionResponse)]  # it and the start crossed
    assert not pair.starts
    assert [frame.WhichOneof("frame") for batch in said for frame in batch.frames] == ["go_away", "error"]
    assert (type(late.error), late.error.reason, late.error.retryable) == (ServiceUnavailableError, "GOING_AWAY", True)
    assert pair.client.again(late, late.error)
    with pytest.raises(ServiceUnavailableError, match="another session") as caught:
        pair.start(request_id="later")
    assert caught.value.request_id == "later"


def test_a_new_credential_travels_ahead_of_what_needs_it():
    pair = Pair()
    pair.carry()
    turns = [pair.start("x" * 200_000) for _ in range(3)]
    pair.client.renew("new-token")
    wanted = [one for data in taken(pair.client) for one in pair.gateway.receive(data)]
    assert isinstance(wanted[0], RenewedToken)
    assert wanted[0].token == "new-token"
    assert [one.turn_id for one in wanted[1:]] == [turn.turn_id for turn in turns]
    assert "new-token" not in repr(wanted[0])


def test_the_id_of_a_turn_that_is_over_is_not_given_again(raw):
    raw.tell(message(start_frame(5)))
    raw.gateway.done(raw.starts[0], None, NOWHERE)
    taken(raw.gateway)
    for used in (5, 4):
        raw.tell(message(start_frame(used)))
        assert [(e.turn_id, e.status.code) for e in errors_of(raw)] == [(used, ConflictError.default_code.value[0])]
    assert len(raw.starts) == 1


def test_garbage_in_an_errors_details_is_no_more_than_that():
    pair = Pair()
    turn, _ = pair.both()
    frame = pb.ServerFrame(error=pb.ErrorFrame(turn_id=turn.turn_id))
    frame.error.status.code = 8
    frame.error.status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff\xff")
    pair.client.receive(pb.SessionResponse(frames=[frame], seq=1).SerializeToString())
    assert isinstance(turn.error, RateLimitError)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        pb.SessionResponse(frames=[pb.ServerFrame(done={"turn_id": 1})]).SerializeToString(),
        pb.SessionResponse(frames=[pb.ServerFrame(opened={}), pb.ServerFrame(opened={})]).SerializeToString(),
    ],
)
def test_a_gateway_answers_with_opened(first):
    client = ClientSession()
    client.connect()
    with pytest.raises(InternalError, match="didn't answer with Opened"):
        client.receive(first)


@pytest.mark.parametrize("kind", ["chunks", "done", "error"])
def test_what_a_gateway_says_of_turns_that_are_not_there_goes_nowhere(kind):
    pair = Pair()
    turn, _ = pair.both()
    frame = pb.ServerFrame()
    getattr(frame, kind).turn_id = 99
    assert pair.client.receive(pb.SessionResponse(frames=[frame], seq=1).SerializeToString()) == []
    assert not turn.ended


# Beginning and end


def test_an_open_session_has_a_name():
    pair = Pair()
    assert (pair.client.session_id, pair.client.connected) == ("", False)
    pair.carry()
    assert (pair.client.session_id, pair.client.resume_token, pair.client.resume_seconds) == ("s1", "token", 30.0)
    assert pair.client.connected
    assert not pair.client.going_away


def test_a_session_without_a_token_has_no_numbers():
    pair = Pair(resumable=False)
    turn, running = pair.both()
    pair.gateway.chunks(running, [TextDelta("Hi")], NOWHERE)
    pair.gateway.done(running, None, NOWHERE)
    assert all(batch.seq == batch.acked_seq == 0 for batch in pair.says())
    assert (texts(turn), turn.ended, pair.gateway.waiting_bytes) == (["Hi"], True, 0)
    assert (pair.client.resume_token, pair.client.resume_seconds) == ("", 0.0)
    pair.start()
    assert [batch.seq for batch in pair.carry()] == [0]


def test_a_deadline_travels_with_its_turn():
    class Hurried(ClientTurn):
        def deadline_ms(self):
            return 1500

    pair = Pair()
    pair.client.start(Hurried(ask(), "r1", stream=True))
    pair.client.start(ClientTurn(ask(), "r1", stream=False))
    pair.carry()
    first, second = (turn.start for turn in pair.starts)
    assert (first.deadline_ms, first.stream, first.credit, first.request.prompt) == (1500, True, CREDIT_BYTES, "Hi")
    assert (second.deadline_ms, second.stream, second.credit) == (0, False, 0)


def test_completions_are_turns_too():
    pair = Pair()
    for stream in (False, True):
        turn = ClientTurn(encode_complete("a", suffix="b", request_id="r1"), "r1", stream=stream)
        pair.client.start(turn)
        pair.carry()
        running = pair.starts[-1]
        assert (running.start.completion.prompt, running.start.completion.suffix) == ("a", "b")
        if stream:
            pair.gateway.chunks(running, [TextDelta("x")], NOWHERE)
        pair.gateway.done(running, None if stream else answer("x"), NOWHERE)
        pair.carry()
        assert turn.ended
        assert texts(turn) == ["x"] if stream else turn.response.text == "x"


def test_a_gateway_that_goes_lets_running_turns_finish():
    pair = Pair()
    turn, running = pair.both()
    pair.gateway.go_away(30_000)
    pair.gateway.chunks(running, [TextDelta("Hi")], NOWHERE)
    pair.gateway.done(running, None, NOWHERE)
    [batch] = pair.says()
    assert batch.frames[0].go_away.grace_ms == 30_000
    assert pair.client.going_away
    assert (texts(turn), turn.ended, turn.error) == (["Hi"], True, None)


def test_a_cancelled_turn_is_over_at_once_and_leaves_the_others_alone():
    pair = Pair()
    (turn, running), (other, _) = pair.both(), pair.both()
    pair.gateway.chunks(running, [TextDelta("too late")], NOWHERE)
    pair.client.cancel(turn)
    pair.client.cancel(turn)  # once is enough
    assert turn.ended
    pair.carry()
    assert [cancelled.turn for cancelled in pair.cancels] == [running]
    assert turn.chunks == ()
    assert (pair.client.turns, other.ended) == ((other,), False)


def test_a_turn_that_is_over_needs_no_cancel():
    pair = Pair()
    turn, running = pair.both()
    pair.gateway.done(running, None, NOWHERE)
    pair.carry()
    pair.client.cancel(turn)
    assert pair.carry() == []


def test_closing_says_so_and_nothing_else():
    pair = Pair()
    turn, running = pair.both()
    pair.start()  # never sent
    pair.gateway.chunks(running, [TextDelta("x")], NOWHERE)
    pair.client.close()
    written = pair.carry()
    assert [frame.WhichOneof("frame") for b in written if isinstance(b, pb.SessionRequest) for frame in b.frames] == [
        "close"
    ]
    [wanted] = pair.others
    assert isinstance(wanted, ClosedSession)
    assert (turn.chunks, turn.ended) == ((), False)  # it is the caller's to end
    pair.gateway.clear()
    assert (pair.gateway.waiting_bytes, pair.gateway.turns) == (0, ())


def test_giving_a_session_up_returns_its_turns_once():
    pair = Pair()
    turn, _ = pair.both()
    waiting = pair.start()
    assert pair.client.lost() == (turn, waiting)
    assert pair.client.lost() == ()
    assert pair.client.queued_bytes == 0


def test_what_ended_a_session_is_the_error_of_its_turns():
    lost = ServiceUnavailableError("the connection was lost", retry_after=2.0, metadata={"a": "b"})
    waiting, begun = restated(lost, "r0"), restated(lost, "r1", cut=True)
    assert (type(waiting), waiting.request_id, waiting.retry_after) == (ServiceUnavailableError, "r0", 2.0)
    assert (type(begun), begun.request_id, begun.metadata) == (StreamInterruptedError, "r1", {"a": "b"})
    assert type(restated(ClosedError("the session was closed"), "r2", cut=True)) is ClosedError


def test_a_turn_ends_once():
    turn = ClientTurn(ask(), "r1", stream=True)
    first = InternalError("first")
    turn.end(first)
    turn.end(InternalError("second"))
    assert turn.error is first


def test_what_the_gateway_says_of_a_turn_that_is_over_goes_nowhere():
    pair = Pair()
    turn, running = pair.both()
    pair.gateway.done(running, None, NOWHERE)
    pair.gateway.chunks(running, [TextDelta("too late")], NOWHERE)
    pair.gateway.done(running, None, NOWHERE)
    pair.gateway.fail(running, InternalError("too late"))
    [batch] = pair.says()
    assert [frame.WhichOneof("frame") for frame in batch.frames] == ["done"]
    assert (turn.error, turn.ended) == (None, True)


def test_a_gateways_turns_are_of_the_class_that_runs_them():
    class Running(GatewayTurn):
        pass

    gateway = GatewaySession("s1", turn=Running)
    gateway.connect(read_open(message(OPEN)))
    [turn] = gateway.receive(message(start_frame(1)))
    assert type(turn) is Running
    assert gateway.turns == (turn,)
    assert not gateway.idle
