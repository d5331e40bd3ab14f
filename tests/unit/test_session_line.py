"""How a session's messages are numbered, kept, acknowledged and repeated."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepseek_grpc._session.frames import BATCH_BYTES, FRAME_OVERHEAD, MAX_FRAMES, REPLAY_BYTES, Budget, Line
from deepseek_grpc.errors import InternalError
from deepseek_rpc.v2 import text_pb2 as pb

ACK_MESSAGES = 16
ACK_BYTES = 64 * 1024


def breach(field, problem):
    return InternalError(f"{field} {problem}")


def line(budget=None, *, numbered=True):
    made = Line(pb.SessionRequest, breach, budget)
    made.numbered = numbered
    return made


def say(line, text="x"):
    """Queues a frame; its text is in an Auth frame, the simplest that has any."""
    line.batch(len(text.encode()) + 8).frames.add().auth.token = text


def say_alone(line, text="x"):
    """Queues a frame and takes the message that it went into."""
    say(line, text)
    return line.take()


def taken(line):
    written = []
    while (data := line.take()) is not None:
        written.append(data)
    return written


def parsed(data):
    return pb.SessionRequest.FromString(data)


def hear(line, data):
    return line.accept(parsed(data), len(data))


def numbers(written):
    return [(parsed(data).seq, parsed(data).acked_seq) for data in written]


def test_messages_are_counted_from_1():
    one = line()
    assert numbers([say_alone(one) for _ in range(3)]) == [(1, 0), (2, 0), (3, 0)]


def test_without_numbers_nothing_is_kept_and_nothing_counted():
    one, other = line(numbered=False), line(numbered=False)
    written = [say_alone(one) for _ in range(100)]
    assert numbers(written) == [(0, 0)] * 100
    assert (one.unacked_bytes, one.queued_bytes) == (0, 0)
    assert all(hear(other, data) for data in written)
    assert hear(other, pb.SessionRequest(seq=77, acked_seq=99, frames=[pb.ClientFrame()]).SerializeToString())
    assert other.take() is None


def test_an_acknowledgement_rides_on_what_is_said_anyhow():
    one, other = line(), line()
    for _ in range(5):
        assert hear(other, say_alone(one))
    assert other.take() is None
    answer = say_alone(other)
    assert numbers([answer]) == [(1, 5)]
    assert hear(one, answer)
    assert one.unacked_bytes == 0


def test_after_16_messages_it_goes_alone():
    one, other = line(), line()
    for _ in range(ACK_MESSAGES - 1):
        hear(other, say_alone(one))
        assert other.take() is None
    hear(other, say_alone(one))
    [alone] = taken(other)
    assert (numbers([alone]), len(parsed(alone).frames)) == ([(0, ACK_MESSAGES)], 0)
    assert not hear(one, alone)  # there is nothing in it to look at
    assert one.unacked_bytes == 0
    assert taken(one) == []  # an acknowledgement isn't acknowledged


def test_after_64_kib_it_goes_alone():
    one, other = line(), line()
    hear(other, say_alone(one, "x" * (ACK_BYTES - 100)))
    assert other.take() is None
    hear(other, say_alone(one, "x" * 100))
    assert numbers(taken(other)) == [(0, 2)]
    hear(other, say_alone(one))  # and it counts anew
    assert other.take() is None


def test_what_was_not_acknowledged_is_said_again_in_its_order():
    one, other = line(), line()
    written = [say_alone(one, str(i)) for i in range(10)]
    for data in written[:4]:
        hear(other, data)
    say(one, "waiting")
    one.repeat(other.heard)
    again = taken(one)
    assert again[:6] == written[4:]
    assert [parsed(data).frames[0].auth.token for data in again] == [*"456789", "waiting"]
    assert all(hear(other, data) for data in again)


def test_what_comes_twice_is_looked_at_once():
    one, other = line(), line()
    written = [say_alone(one) for _ in range(3)]
    assert [hear(other, data) for data in [*written, *written, written[0], written[2]]] == [True] * 3 + [False] * 5
    assert other.heard == 3


def test_what_comes_twice_acknowledges_all_the_same():
    one, other = line(), line()
    question = say_alone(one)
    hear(other, question)
    answer = say_alone(other)
    hear(one, answer)
    assert not hear(one, answer)
    assert one.unacked_bytes == 0


@pytest.mark.parametrize("ahead", [2, 3, 2**63, 2**64 - 1])
def test_a_gap_is_refused(ahead):
    one = line()
    with pytest.raises(InternalError, match=f"seq is {ahead}, and the last was 0"):
        one.accept(pb.SessionRequest(seq=ahead), 9)
    assert one.heard == 0
    assert one.accept(pb.SessionRequest(seq=1), 9)


def test_frames_without_a_number_are_refused():
    with pytest.raises(InternalError, match="seq is 0 in a message with frames"):
        line().accept(pb.SessionRequest(frames=[pb.ClientFrame()]), 9)


@pytest.mark.parametrize("ahead", [3, 2**64 - 1])
def test_what_was_not_sent_cannot_be_acknowledged(ahead):
    one = line()
    for _ in range(2):
        say_alone(one)
    for acknowledge in (
        lambda: one.accept(pb.SessionRequest(seq=1, acked_seq=ahead), 9),
        lambda: one.repeat(ahead),
        lambda: one.acknowledged(ahead),
    ):
        with pytest.raises(InternalError, match=f"acked_seq is {ahead}, and the last message sent was 2"):
            acknowledge()
    assert one.heard == 0
    assert one.unacked_bytes > 0
    one.acknowledged(2)
    assert one.unacked_bytes == 0


def test_whoever_lacks_what_it_had_acknowledged_is_refused():
    one = line()
    for _ in range(5):
        say_alone(one)
    one.acknowledged(3)
    with pytest.raises(InternalError, match="acked_seq is 2, and messages are kept from 4 only"):
        one.repeat(2)
    one.repeat(3)
    assert numbers(taken(one)) == [(4, 0), (5, 0)]


def test_an_older_acknowledgement_changes_nothing():
    one = line()
    for _ in range(5):
        say_alone(one)
    one.acknowledged(4)
    kept = one.unacked_bytes
    one.acknowledged(1)
    assert one.unacked_bytes == kept


def test_batches_end_at_256_kib():
    one = line()
    for _ in range(20):
        say(one, "x" * 60_000)
    sizes = [(len(parsed(data).frames), len(data)) for data in taken(one)]
    assert [count for count, _ in sizes] == [4] * 5
    assert all(size <= BATCH_BYTES for _, size in sizes)


def test_a_bigger_frame_travels_alone():
    one = line()
    for size in (10, 1_000_000, 10, 10):
        say(one, "x" * size)
    assert [len(parsed(data).frames) for data in taken(one)] == [1, 1, 2]


def test_no_message_has_more_than_10_000_frames():
    one = line()
    for _ in range(30_000):
        one.batch(0).frames.add()
    counts = [len(parsed(data).frames) for data in taken(one)]
    assert (sum(counts), max(counts)) == (30_000, BATCH_BYTES // FRAME_OVERHEAD)
    assert max(counts) <= MAX_FRAMES


def test_what_waits_is_counted():
    one = line()
    say(one, "x" * 1000)
    assert 1000 <= one.queued_bytes < 1100
    one.take()
    assert one.queued_bytes == 0
    assert 1000 <= one.unacked_bytes < 1100


def test_what_is_urgent_goes_first_and_alone():
    one = line()
    for _ in range(2):
        say(one, "x" * 200_000)
    one.urgent(10).frames.add().auth.token = "now"
    say(one, "last")
    assert [[frame.auth.token[:4] for frame in parsed(data).frames] for data in taken(one)] == [
        ["now"],
        ["xxxx"],
        ["xxxx", "last"],
    ]
    assert one.queued_bytes == 0


def test_no_more_than_4_mib_is_kept():
    one, other = line(), line()
    for _ in range(100):
        say(one, "x" * 200_000)
    written = taken(one)
    assert REPLAY_BYTES <= one.unacked_bytes < REPLAY_BYTES + BATCH_BYTES
    assert len(written) == 21
    for data in written:
        hear(other, data)
    for data in taken(other):
        hear(one, data)
    assert len(taken(one)) == 21


def test_one_message_larger_than_all_may_be_under_way():
    one = line()
    assert say_alone(one, "x" * REPLAY_BYTES)
    assert say_alone(one) is None
    one.acknowledged(1)
    assert one.take()


def test_sessions_share_what_they_keep():
    budget = Budget(500_000)
    one, other = line(budget), line(budget)
    for _ in range(5):
        say(one, "x" * 200_000)
        say(other, "x" * 200_000)
    assert len(taken(one)) == 3
    assert budget.spent
    assert len(taken(other)) == 1  # one may always be under way
    assert budget.used == one.unacked_bytes + other.unacked_bytes
    one.acknowledged(3)
    assert not budget.spent
    assert taken(other)
    one.clear()
    other.clear()
    assert budget.used == 0


def test_messages_can_be_changed_before_they_are_said_again():
    budget = Budget(1_000_000)
    one = line(budget)
    for i in range(3):
        say_alone(one, f"{i}" * 1000)

    def shorten(batch):
        batch.frames[0].auth.token = batch.frames[0].auth.token[0]

    one.revise(shorten)
    assert budget.used == one.unacked_bytes < 100
    one.repeat(1)
    assert [(parsed(data).seq, parsed(data).frames[0].auth.token) for data in taken(one)] == [(2, "1"), (3, "2")]
    one.acknowledged(3)
    assert (budget.used, one.unacked_bytes) == (0, 0)


def test_forgetting_everything():
    budget = Budget(1_000_000)
    one = line(budget)
    say_alone(one)
    say_alone(one)
    one.repeat(0)
    say(one)
    one.clear()
    assert (taken(one), budget.used, one.queued_bytes, one.unacked_bytes) == ([], 0, 0, 0)


EXCHANGES = st.lists(
    st.tuples(st.sampled_from(["say here", "say there", "to there", "to here", "cut"]), st.integers(1, 90_000)),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(EXCHANGES)
def test_two_lines_lose_nothing_whatever_is_cut(steps):
    """Each end gets what the other said, whole and in order; and in the end nothing is kept."""
    here, there = line(), line()
    ends = {"here": (here, [], []), "there": (there, [], [])}  # the line, what it said, what it heard
    wires = {"here": [], "there": []}  # what is under way to each

    def carry(to, other):
        receiver, _, heard = ends[to]
        if (data := ends[other][0].take()) is not None:
            wires[to].append(data)
        if wires[to]:
            data = wires[to].pop(0)
            if hear(receiver, data):
                heard += [frame.auth.token for frame in parsed(data).frames]

    def cut():
        wires["here"].clear()
        wires["there"].clear()
        heard_here, heard_there = here.heard, there.heard
        here.repeat(heard_there)
        there.repeat(heard_here)

    for count, (step, size) in enumerate(steps):
        match step.split():
            case ["say", where]:
                text = f"{count}:{'x' * size}"
                say(ends[where][0], text)
                ends[where][1].append(text)
            case ["to", "here"]:
                carry("here", "there")
            case ["to", "there"]:
                carry("there", "here")
            case _:
                cut()
    for _ in range(200):
        carry("here", "there")
        carry("there", "here")
    assert ends["there"][2] == ends["here"][1]
    assert ends["here"][2] == ends["there"][1]
    # What needn't be acknowledged by itself is all that is kept.
    for one, *_ in ends.values():
        assert one.unacked_bytes < ACK_BYTES
        assert len(one._unacked) < ACK_MESSAGES
    cut()
    assert here.unacked_bytes == there.unacked_bytes == 0
