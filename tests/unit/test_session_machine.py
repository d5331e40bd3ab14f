"""The session's two machines, wired together in memory: no sockets, no clocks, every interleaving."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from deepseek_grpc._codec.answer import StreamDecoder
from deepseek_grpc._codec.request import encode_generate
from deepseek_grpc._session.client import ClientSession, deadline_ms
from deepseek_grpc._session.frames import BATCH_BYTES, FRAME_BYTES, MAX_FRAMES
from deepseek_grpc._session.gateway import CancelledTurn, GatewaySession, StartedTurn
from deepseek_grpc.errors import (
    CancelledByPeerError,
    ClosedError,
    ConflictError,
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidRequestError,
    RateLimitError,
    RequestTooLargeError,
    ServiceUnavailableError,
    StreamInterruptedError,
    UnimplementedError,
)
from deepseek_grpc.types import (
    Completion,
    Finished,
    Meta,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Upstream,
    Usage,
)
from deepseek_rpc.v2 import text_pb2 as pb

NOWHERE = Upstream()


def ask(prompt="Hi", request_id="r1"):
    return encode_generate(prompt, request_id=request_id)


def answer(text):
    return Completion(text, "stop", Usage(), Meta())


def batches(machine):
    """Takes everything that a machine has to write, as it arrives at the other end."""
    taken = []
    while (batch := machine.take()) is not None:
        taken.append(type(batch).FromString(batch.SerializeToString()))
    return taken


def opened():
    """Returns the two ends of a session that is open."""
    client, gateway = ClientSession(), GatewaySession("s1")
    exchange(client, gateway)
    return client, gateway


def told(gateway, message):
    """Tells the gateway a message; returns the turns to start and the ids of those to cancel."""
    wanted = list(gateway.receive(message))
    starts = [one for one in wanted if isinstance(one, StartedTurn)]
    return starts, [one.turn_id for one in wanted if isinstance(one, CancelledTurn)]


def exchange(client, gateway):
    """Carries what both ends have to say; returns what the gateway shall start and cancel."""
    starts, cancels = [], []
    for batch in batches(client):
        started, cancelled = told(gateway, batch)
        starts += started
        cancels += cancelled
    for batch in batches(gateway):
        client.receive(batch)
    return starts, cancels


def texts(turn):
    return [event.text for event in StreamDecoder("").feed(turn.chunks) if isinstance(event, TextDelta)]


class Interleavings(RuleBasedStateMachine):
    """Starts, chunks, ends, cancels and batches in any order; each turn gets its own, once, in order, and one end."""

    @initialize()
    def open(self):
        self.client, self.gateway = ClientSession(), GatewaySession("s1")
        self.uphill, self.downhill = [], []  # batches under way
        self.turns = {}  # id: what the client has
        self.said = {}  # id: what the gateway said
        self.ends = {}  # id: how the gateway ended it
        self.given_up = set()
        self.ended = []

    def running(self):
        return [turn_id for turn_id in self.said if turn_id not in self.ends]

    @rule(stream=st.booleans())
    def start(self, stream):
        turn = self.client.start(ask(), stream=stream, deadline_ms=0)
        assert turn.turn_id not in self.turns
        self.turns[turn.turn_id] = turn

    @precondition(lambda self: self.turns)
    @rule(data=st.data())
    def cancel(self, data):
        turn = data.draw(st.sampled_from(list(self.turns.values())))
        if not turn.ended:
            self.given_up.add(turn.turn_id)
        self.client.cancel(turn)
        assert turn.ended

    @rule()
    def client_writes(self):
        if (batch := self.client.take()) is not None:
            self.uphill.append(batch.SerializeToString())

    @precondition(lambda self: self.uphill)
    @rule()
    def gateway_reads(self):
        starts, cancels = told(self.gateway, pb.SessionRequest.FromString(self.uphill.pop(0)))
        for start in starts:
            assert start.turn_id not in self.said
            self.said[start.turn_id] = []
        for turn_id in cancels:
            self.end(turn_id, "cancelled")
            self.gateway.fail(turn_id, CancelledByPeerError("the turn was cancelled"))

    def end(self, turn_id, how):
        assert turn_id not in self.ends
        self.ends[turn_id] = how

    @precondition(lambda self: self.running())
    @rule(data=st.data(), count=st.integers(1, 5))
    def gateway_says(self, data, count):
        turn_id = data.draw(st.sampled_from(self.running()))
        said = self.said[turn_id]
        fresh = [f"{turn_id}:{len(said) + i}" for i in range(count)]
        self.gateway.chunks(turn_id, [TextDelta(text) for text in fresh], NOWHERE)
        said += fresh

    @precondition(lambda self: self.running())
    @rule(data=st.data(), well=st.booleans())
    def gateway_ends(self, data, well):
        turn_id = data.draw(st.sampled_from(self.running()))
        self.end(turn_id, "done" if well else "failed")
        if well:
            self.gateway.done(turn_id, answer(f"answer {turn_id}"), NOWHERE)
        else:
            self.gateway.fail(turn_id, RateLimitError(f"failure {turn_id}"))

    @precondition(lambda self: self.ends)
    @rule(data=st.data())
    def gateway_says_more_of_a_turn_that_is_over(self, data):
        turn_id = data.draw(st.sampled_from(list(self.ends)))
        self.gateway.chunks(turn_id, [TextDelta("too late")], NOWHERE)
        self.gateway.done(turn_id, None, NOWHERE)
        self.gateway.fail(turn_id, InternalError("too late"))

    @rule()
    def gateway_writes(self):
        if (batch := self.gateway.take()) is not None:
            self.downhill.append(batch.SerializeToString())

    @precondition(lambda self: self.downhill)
    @rule()
    def client_reads(self):
        before = {turn_id for turn_id, turn in self.turns.items() if turn.ended}
        changed = self.client.receive(pb.SessionResponse.FromString(self.downhill.pop(0)))
        assert before.isdisjoint({turn.turn_id for turn in changed})
        self.ended += [turn_id for turn_id, turn in self.turns.items() if turn.ended and turn_id not in before]

    def teardown(self):
        if not hasattr(self, "client"):
            return
        while self.client._turns or self.uphill or self.downhill or self.gateway.queued_bytes:
            for batch in batches(self.client):
                self.uphill.append(batch.SerializeToString())
            while self.uphill:
                self.gateway_reads()
            for turn_id in self.running():
                self.end(turn_id, "done")
                self.gateway.done(turn_id, answer(f"answer {turn_id}"), NOWHERE)
            for batch in batches(self.gateway):
                self.downhill.append(batch.SerializeToString())
            while self.downhill:
                self.client_reads()
        assert len(self.ended) == len(set(self.ended))
        assert set(self.ended) == set(self.turns) - self.given_up
        for turn_id, turn in self.turns.items():
            assert turn.ended
            said = self.said.get(turn_id, [])
            if turn_id in self.given_up:
                assert texts(turn) == said[: len(turn.chunks)]
                continue
            assert texts(turn) == said
            if self.ends[turn_id] == "done":
                assert (turn.error, turn.response.message.content) == (None, f"answer {turn_id}")
            else:
                assert (type(turn.error), turn.error.details) == (RateLimitError, f"failure {turn_id}")
                assert turn.response is None


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


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
    client, gateway = opened()
    turn = client.start(ask(), stream=True, deadline_ms=0)
    exchange(client, gateway)
    for events in rounds:
        gateway.chunks(turn.turn_id, events, NOWHERE)
    written = batches(gateway)
    assert all(len(batch.frames) == 1 or batch.ByteSize() <= BATCH_BYTES for batch in written)
    for batch in written:
        client.receive(batch)
    assert StreamDecoder("", logprobs=True).feed(turn.chunks) == [event for events in rounds for event in events]


def test_what_is_ready_leaves_together():
    client, gateway = opened()
    for _ in range(100):
        client.start(ask(), stream=True, deadline_ms=0)
    [batch] = batches(client)
    assert len(batch.frames) == 100
    starts, _ = told(gateway, batch)
    for start in starts:
        gateway.chunks(start.turn_id, [TextDelta("Hel"), TextDelta("lo")], NOWHERE)
        gateway.done(start.turn_id, None, NOWHERE)
    [batch] = batches(gateway)
    assert len(batch.frames) == 300


def test_a_frame_above_the_bound_travels_alone():
    client, gateway = opened()
    sizes = (10, 300_000, 10, 10)
    for size in sizes:
        client.start(ask("x" * size), stream=True, deadline_ms=0)
    written = batches(client)
    assert [len(batch.frames) for batch in written] == [1, 1, 2]
    assert [len(s.request.prompt) for b in written for s in told(gateway, b)[0]] == list(sizes)


@pytest.mark.parametrize("frames", ["starts", "cancels", "ends", "failures"])
def test_no_batch_is_larger_than_the_other_end_takes_it(frames):
    client, gateway = opened()
    turns = [client.start(ask("x"), stream=False, deadline_ms=0) for _ in range(25_000)]
    written = batches(client)
    for batch in written:
        told(gateway, batch)
    for turn in turns:
        if frames == "cancels":
            client.cancel(turn)
        elif frames == "ends":
            gateway.done(turn.turn_id, None, NOWHERE)
        elif frames == "failures":
            gateway.fail(turn.turn_id, InternalError("x"))
    written += batches(client) + batches(gateway)
    assert max(len(batch.frames) for batch in written) <= MAX_FRAMES
    assert max(batch.ByteSize() for batch in written) <= BATCH_BYTES


def test_what_waits_to_be_written_is_counted():
    client, gateway = opened()
    turn = client.start(ask(), stream=True, deadline_ms=0)
    exchange(client, gateway)
    assert gateway.queued_bytes == 0
    gateway.chunks(turn.turn_id, [ToolCallDelta(0, arguments="x" * 100_000), TextDelta("思" * 100_000)], NOWHERE)
    assert 400_000 <= gateway.queued_bytes < 410_000
    batches(gateway)
    assert gateway.queued_bytes == 0


# What is too large


def test_a_request_above_8_mib_is_refused_where_it_is_made():
    client, gateway = opened()
    with pytest.raises(RequestTooLargeError, match=r"8,388,\d{3} bytes.*8,388,608"):
        client.start(ask("x" * FRAME_BYTES, "r7"), stream=True, deadline_ms=0)
    turn = client.start(ask(), stream=True, deadline_ms=0)  # the session goes on
    assert exchange(client, gateway)[0][0].turn_id == turn.turn_id


def test_a_start_above_8_mib_ends_its_own_turn_alone():
    client, gateway = opened()
    turn = client.start(ask(), stream=True, deadline_ms=0)
    other = client.start(ask(), stream=True, deadline_ms=0)
    [batch] = batches(client)
    batch.frames[0].start.request.prompt = "x" * FRAME_BYTES
    starts, _ = told(gateway, batch)
    assert [start.turn_id for start in starts] == [other.turn_id]
    exchange(client, gateway)
    assert isinstance(turn.error, RequestTooLargeError)
    assert not other.ended


def test_an_answer_above_8_mib_is_an_error_that_says_what_to_do():
    client, gateway = opened()
    turn = client.start(ask(), stream=False, deadline_ms=0)
    exchange(client, gateway)
    with pytest.raises(FailedPreconditionError, match="stream") as caught:
        gateway.done(turn.turn_id, answer("x" * FRAME_BYTES), NOWHERE)
    gateway.fail(turn.turn_id, caught.value)
    exchange(client, gateway)
    assert (type(turn.error), turn.error.reason) == (FailedPreconditionError, "TOO_LARGE")


@pytest.mark.parametrize(
    "event", [TextDelta("x" * FRAME_BYTES), TextDelta("思" * 3_000_000), ToolCallDelta(0, arguments="x" * FRAME_BYTES)]
)
def test_a_chunk_above_8_mib_is_for_its_turn_to_end(event):
    client, gateway = opened()
    turn = client.start(ask(), stream=True, deadline_ms=0)
    exchange(client, gateway)
    with pytest.raises(FailedPreconditionError) as caught:
        gateway.chunks(turn.turn_id, [TextDelta("Hi"), event, TextDelta("Ho")], NOWHERE)
    gateway.fail(turn.turn_id, caught.value)
    written = batches(gateway)
    assert max(frame.ByteSize() for batch in written for frame in batch.frames) <= FRAME_BYTES
    for batch in written:
        client.receive(batch)
    assert texts(turn) == ["Hi"]
    assert (type(turn.error), turn.error.reason) == (FailedPreconditionError, "TOO_LARGE")


def test_a_piece_that_cannot_be_encoded_ends_its_own_turn_alone():
    client, gateway = opened()
    turn, other = (client.start(ask(), stream=True, deadline_ms=0) for _ in range(2))
    exchange(client, gateway)
    half_a_pair = "\ud83c"
    for event in (TextDelta(half_a_pair), ToolCallDelta(0, arguments=half_a_pair)):
        with pytest.raises(UnicodeEncodeError):
            gateway.chunks(turn.turn_id, [TextDelta("Hi"), event], NOWHERE)
    gateway.fail(turn.turn_id, InternalError(f"the backend sent {half_a_pair}"))
    gateway.chunks(other.turn_id, [TextDelta("Ho")], NOWHERE)
    exchange(client, gateway)
    assert (texts(turn), turn.error.details) == (["Hi", "Hi"], "the backend sent ?")
    assert texts(other) == ["Ho"]


def test_an_answer_that_cannot_be_encoded_can_still_end_in_an_error():
    client, gateway = opened()
    turn = client.start(ask(), stream=False, deadline_ms=0)
    exchange(client, gateway)
    with pytest.raises(InternalError) as caught:
        gateway.done(turn.turn_id, answer("\ud83c"), NOWHERE)
    gateway.fail(turn.turn_id, caught.value)
    exchange(client, gateway)
    assert isinstance(turn.error, InternalError)


def test_a_message_of_10_001_frames_is_refused():
    _, gateway = opened()
    cancel = pb.ClientFrame(cancel=pb.CancelFrame(turn_id=1))
    told(gateway, pb.SessionRequest(frames=[cancel] * MAX_FRAMES))
    with pytest.raises(InvalidRequestError, match=r"10001.*10000") as caught:
        told(gateway, pb.SessionRequest(frames=[cancel] * (MAX_FRAMES + 1)))
    assert caught.value.field == "frames"


def test_an_errors_size_is_bounded():
    client, gateway = opened()
    turn = client.start(ask(request_id="r1"), stream=True, deadline_ms=0)
    exchange(client, gateway)
    gateway.fail(turn.turn_id, InternalError("x" * 1_000_000, request_id="r" * 1_000_000, reason="R" * 1_000_000))
    [batch] = batches(gateway)
    assert batch.ByteSize() < 8192


# Whoever breaks the protocol


def start_frame(turn_id, prompt="Hi"):
    return pb.ClientFrame(start=pb.StartFrame(turn_id=turn_id, request=pb.GenerateRequest(prompt=prompt)))


OPEN = pb.ClientFrame(open=pb.OpenFrame())


def test_a_session_begins_with_open():
    with pytest.raises(InvalidRequestError, match="open"):
        told(GatewaySession("s1"), pb.SessionRequest(frames=[start_frame(1)]))


def test_a_session_is_opened_once():
    _, gateway = opened()
    with pytest.raises(InvalidRequestError, match="second open"):
        told(gateway, pb.SessionRequest(frames=[OPEN]))


def test_an_empty_message_changes_nothing():
    client, gateway = opened()
    assert told(gateway, pb.SessionRequest()) == ([], [])
    assert client.receive(pb.SessionResponse()) == []


def test_frames_of_newer_peers_are_ignored():
    client, gateway = opened()
    assert told(gateway, pb.SessionRequest(frames=[pb.ClientFrame()])) == ([], [])
    assert client.receive(pb.SessionResponse(frames=[pb.ServerFrame()])) == []


def errors_of(gateway):
    return [frame.error for batch in batches(gateway) for frame in batch.frames if frame.HasField("error")]


def test_the_id_of_a_running_turn_is_not_given_twice():
    _, gateway = opened()
    told(gateway, pb.SessionRequest(frames=[start_frame(1)]))
    starts, cancels = told(gateway, pb.SessionRequest(frames=[start_frame(1, "another")]))
    assert (starts, cancels) == ([], [1])
    [error] = errors_of(gateway)
    assert (error.turn_id, error.status.code) == (1, ConflictError.default_code.value[0])


def test_the_same_start_again_is_the_same_turn():
    _, gateway = opened()
    assert len(told(gateway, pb.SessionRequest(frames=[start_frame(1)]))[0]) == 1
    assert told(gateway, pb.SessionRequest(frames=[start_frame(1)])) == ([], [])
    assert errors_of(gateway) == []


def test_turns_are_numbered_from_1():
    _, gateway = opened()
    with pytest.raises(InvalidRequestError, match="numbered from 1"):
        told(gateway, pb.SessionRequest(frames=[start_frame(0)]))


@pytest.mark.parametrize("field", ["parent_turn_id", "credit"])
def test_a_start_that_asks_for_more_than_is_served_is_refused(field):
    _, gateway = opened()
    frame = start_frame(1)
    setattr(frame.start, field, 1)
    assert told(gateway, pb.SessionRequest(frames=[frame])) == ([], [])
    [error] = errors_of(gateway)
    assert (error.turn_id, error.status.code) == (1, UnimplementedError.default_code.value[0])
    assert field in error.status.message


@pytest.mark.parametrize(
    "frame",
    [pb.ClientFrame(open=pb.OpenFrame(resume_token="abc")), pb.ClientFrame(credit=pb.CreditFrame(turn_id=1, bytes=9))],
    ids=["resume", "credit"],
)
def test_what_is_not_served_is_refused_and_not_ignored(frame):
    frames = [frame] if frame.HasField("open") else [OPEN, frame]
    with pytest.raises(UnimplementedError):
        told(GatewaySession("s1"), pb.SessionRequest(frames=frames))


def test_a_gateway_that_is_about_to_go_takes_no_new_turn():
    client, gateway = opened()
    late = client.start(ask(request_id="late"), stream=True, deadline_ms=0)
    gateway.go_away(1000)
    assert exchange(client, gateway) == ([], [])  # the start and the go-away crossed
    assert (type(late.error), late.error.reason, late.error.retryable) == (ServiceUnavailableError, "GOING_AWAY", True)
    with pytest.raises(ServiceUnavailableError, match="another session"):
        client.start(ask(), stream=True, deadline_ms=0)


def test_a_new_credential_travels_ahead_of_what_needs_it():
    client, gateway = opened()
    client.renew("new-token")
    turn = client.start(ask(), stream=True, deadline_ms=0)
    [batch] = batches(client)
    renewed, started = gateway.receive(batch)
    assert (renewed.token, started.turn_id) == ("new-token", turn.turn_id)
    assert "new-token" not in repr(renewed)


@pytest.mark.parametrize("total", [0, -1, 0.0])
def test_no_time_at_all_is_over_before_it_begins(total):
    with pytest.raises(DeadlineExceededError):
        deadline_ms(total, "r1")
    assert (deadline_ms(None, "r1"), deadline_ms(1e-9, "r1"), deadline_ms(1.5, "r1")) == (0, 1, 1500)


def test_the_id_of_a_turn_that_is_over_is_not_given_again():
    _, gateway = opened()
    told(gateway, pb.SessionRequest(frames=[start_frame(5)]))
    gateway.done(5, None, NOWHERE)
    batches(gateway)
    for used in (5, 4):
        assert told(gateway, pb.SessionRequest(frames=[start_frame(used)])) == ([], [])
        assert [error.turn_id for error in errors_of(gateway)] == [used]


def test_cancelling_a_turn_that_is_not_there_changes_nothing():
    _, gateway = opened()
    frame = pb.ClientFrame(cancel=pb.CancelFrame(turn_id=9))
    assert told(gateway, pb.SessionRequest(frames=[frame])) == ([], [])
    assert batches(gateway) == []


@pytest.mark.parametrize("seqs", [[2], [1, 1], [1, 3], [0]])
def test_a_frame_out_of_order_ends_the_session(seqs):
    client, gateway = opened()
    turn = client.start(ask(), stream=True, deadline_ms=0)
    exchange(client, gateway)
    frames = [pb.ServerFrame(chunk=pb.ChunkFrame(turn_id=turn.turn_id, seq=seq)) for seq in seqs]
    with pytest.raises(InternalError, match="out of order"):
        client.receive(pb.SessionResponse(frames=frames))


@pytest.mark.parametrize("end", ["done", "error"])
def test_an_end_out_of_order_ends_the_session_too(end):
    client, gateway = opened()
    turn = client.start(ask(), stream=True, deadline_ms=0)
    exchange(client, gateway)
    frame = pb.ServerFrame()
    getattr(frame, end).turn_id = turn.turn_id
    getattr(frame, end).seq = 2
    with pytest.raises(InternalError, match="out of order"):
        client.receive(pb.SessionResponse(frames=[frame]))
    assert not turn.ended


def test_garbage_in_an_errors_details_is_no_more_than_that():
    client, gateway = opened()
    turn = client.start(ask(), stream=True, deadline_ms=0)
    exchange(client, gateway)
    frame = pb.ServerFrame(error=pb.ErrorFrame(turn_id=turn.turn_id, seq=1))
    frame.error.status.code = 8
    frame.error.status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff\xff")
    client.receive(pb.SessionResponse(frames=[frame]))
    assert isinstance(turn.error, RateLimitError)


# Beginning and end


def test_an_open_session_has_a_name():
    client, _ = opened()
    assert client.session_id == "s1"
    assert not client.going_away


def test_a_deadline_travels_with_its_turn():
    client, gateway = opened()
    client.start(ask(), stream=True, deadline_ms=1500)
    client.start(ask(), stream=False, deadline_ms=0)
    first, second = exchange(client, gateway)[0]
    assert (first.deadline, first.stream, first.request.prompt) == (1.5, True, "Hi")
    assert (second.deadline, second.stream) == (None, False)


def test_a_gateway_that_goes_lets_running_turns_finish():
    client, gateway = opened()
    turn = client.start(ask(), stream=True, deadline_ms=0)
    exchange(client, gateway)
    gateway.go_away(30_000)
    gateway.chunks(turn.turn_id, [TextDelta("Hi")], NOWHERE)
    gateway.done(turn.turn_id, None, NOWHERE)
    exchange(client, gateway)
    assert client.going_away
    assert (texts(turn), turn.ended, turn.error) == (["Hi"], True, None)


def test_a_cancelled_turn_is_over_at_once_and_leaves_the_others_alone():
    client, gateway = opened()
    turn, other = (client.start(ask(), stream=True, deadline_ms=0) for _ in range(2))
    exchange(client, gateway)
    gateway.chunks(turn.turn_id, [TextDelta("too late")], NOWHERE)
    client.cancel(turn)
    client.cancel(turn)  # once is enough
    assert turn.ended
    starts, cancels = exchange(client, gateway)
    assert (starts, cancels) == ([], [turn.turn_id])
    assert turn.chunks == []
    assert (list(client._turns), other.ended) == ([other.turn_id], False)


def test_a_turn_that_is_over_needs_no_cancel():
    client, gateway = opened()
    turn = client.start(ask(), stream=True, deadline_ms=0)
    exchange(client, gateway)
    gateway.done(turn.turn_id, None, NOWHERE)
    exchange(client, gateway)
    client.cancel(turn)
    assert batches(client) == []


def test_a_lost_connection_interrupts_what_had_begun_and_fails_what_had_not():
    client, gateway = opened()
    begun, waiting = (client.start(ask(request_id=f"r{i}"), stream=True, deadline_ms=0) for i in range(2))
    exchange(client, gateway)
    gateway.chunks(begun.turn_id, [TextDelta("Hi")], NOWHERE)
    exchange(client, gateway)
    lost = client.lost(ServiceUnavailableError("the connection was lost", retry_after=2.0))
    assert set(map(id, lost)) == {id(begun), id(waiting)}
    assert (type(begun.error), begun.error.request_id) == (StreamInterruptedError, "r0")
    assert (type(waiting.error), waiting.error.request_id) == (ServiceUnavailableError, "r1")
    assert waiting.error.retry_after == 2.0
    assert not client._turns
    assert client.lost(ClosedError("again")) == []


def test_a_closed_session_is_no_lost_one():
    client, gateway = opened()
    turn = client.start(ask(), stream=True, deadline_ms=0)
    exchange(client, gateway)
    gateway.chunks(turn.turn_id, [TextDelta("Hi")], NOWHERE)
    exchange(client, gateway)
    client.lost(ClosedError("the session was closed"))
    assert isinstance(turn.error, ClosedError)
