"""What a gateway remembers of turns, and what a client sends where it doesn't: both are the same conversation."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepseek_grpc._codec.answer import StreamDecoder, encode_event
from deepseek_grpc._codec.message import decode_message
from deepseek_grpc._codec.request import decode_generate, encode_generate
from deepseek_grpc._session.exchange import Exchange, parent_of
from deepseek_grpc._session.history import HISTORY_BYTES, History, answer_of, conversation
from deepseek_grpc.errors import FailedPreconditionError, InvalidRequestError
from deepseek_grpc.types import (
    Completion,
    Finished,
    Meta,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Upstream,
    Usage,
    assistant,
    system,
    tool_result,
    user,
)
from deepseek_rpc.v2 import text_pb2 as pb
from tests.unit.session_pair import NOWHERE, Pair

# The gateway's memory


def test_what_was_put_there_is_there():
    history = History()
    assert history.get(1) is None
    history.put(1, (user("Hi"),), 100)
    assert history.get(1) == ((user("Hi"),), 100)
    history.clear()
    assert history.get(1) is None


def test_what_was_asked_for_least_recently_goes():
    history = History()
    quarter = HISTORY_BYTES // 4
    for turn_id in (1, 2, 3, 4):
        history.put(turn_id, (), quarter)
    assert history.get(1)
    history.put(5, (), quarter)
    assert [turn_id for turn_id in range(1, 6) if history.get(turn_id)] == [1, 3, 4, 5]
    history.put(6, (), 2 * quarter + 1)
    assert [turn_id for turn_id in range(1, 7) if history.get(turn_id)] == [5, 6]


def test_what_is_larger_than_all_is_not_kept_and_drives_nothing_out():
    history = History()
    history.put(1, (), 10)
    history.put(2, (), HISTORY_BYTES + 1)
    assert (history.get(2), history.get(1)) == (None, ((), 10))
    history.put(3, (), HISTORY_BYTES)
    assert history.get(1) is None
    assert history.get(3)


def test_it_may_be_filled_again_after_it_was_cleared():
    history = History()
    for _ in range(3):
        for turn_id in range(4):
            history.put(turn_id, (), HISTORY_BYTES // 4)
        history.clear()
    for turn_id in range(4):
        history.put(turn_id, (), HISTORY_BYTES // 4)
    assert all(history.get(turn_id) for turn_id in range(4))


@given(st.lists(st.tuples(st.integers(0, HISTORY_BYTES * 2), st.integers(0, 20)), max_size=60))
def test_it_never_has_more_than_1_mib(steps):
    history = History()
    sizes = {}
    for turn_id, (size, asked) in enumerate(steps):
        history.put(turn_id, (), size)
        sizes[turn_id] = size
        history.get(asked)
        kept = [one for one in sizes if one in history._entries]
        assert sum(sizes[one] for one in kept) == history._bytes <= HISTORY_BYTES
        assert (turn_id in kept) == (size <= HISTORY_BYTES)


# An answer as a message


def test_the_message_of_an_answers_events():
    events = [
        Started("id", 1, "m", ""),
        ReasoningDelta("Hm"),
        ReasoningDelta("."),
        TextDelta("Hel"),
        TextDelta("lo"),
        ToolCallDelta(1, "c2", "g"),
        ToolCallDelta(0, "c1", "f"),
        ToolCallDelta(0, arguments='{"a"'),
        ToolCallDelta(1, arguments="{}"),
        ToolCallDelta(0, arguments=": 1}"),
        Finished("tool_calls", Usage()),
    ]
    assert answer_of(events) == assistant(
        "Hello",
        reasoning_content="Hm.",
        tool_calls=[ToolCall("c1", "f", '{"a": 1}'), ToolCall("c2", "g", "{}")],
    )
    assert answer_of([]) == assistant("")
    assert answer_of([ReasoningDelta("")]) == assistant("", reasoning_content="")


def whole(text, reasoning=None, calls=()):
    return Completion(text, "stop", Usage(), Meta(), reasoning=reasoning, tool_calls=tuple(calls))


def test_the_message_of_a_whole_answer():
    assert (
        answer_of(whole("Hi", "Hm", [ToolCall("c", "f", "{}")]))
        == whole("Hi", "Hm", [ToolCall("c", "f", "{}")]).message
    )


@pytest.mark.parametrize(
    ("messages", "answer", "expected"),
    [
        ((), assistant("a"), (assistant("a"),)),
        ((user("q"),), assistant("a"), (user("q"), assistant("a"))),
        ((user("q"), assistant("b", prefix=True)), assistant("c"), (user("q"), assistant("bc"))),
        ((assistant("b", prefix=True, name="n"),), assistant("c"), (assistant("bc", name="n"),)),
        (
            (assistant("b", prefix=True),),
            assistant("c", reasoning_content="Hm"),
            (assistant("bc", reasoning_content="Hm"),),
        ),
        (
            (assistant("b", prefix=True, reasoning_content="Hm"),),
            assistant("c"),
            (assistant("bc", reasoning_content="Hm"),),
        ),
        ((assistant("b"),), assistant("c"), (assistant("b"), assistant("c"))),
    ],
)
def test_a_conversation_with_its_answer(messages, answer, expected):
    assert conversation(messages, answer) == expected


# Both ways are one


TEXT = st.text("abü思🎈 ", max_size=8)
SOME_TEXT = st.text("abü思 ", min_size=1, max_size=8)
CALLS = st.lists(st.builds(ToolCall, SOME_TEXT, SOME_TEXT, TEXT), max_size=2)
PROMPT = st.one_of(
    SOME_TEXT,
    st.builds(user, SOME_TEXT, name=TEXT),
    st.lists(
        st.one_of(
            st.builds(user, SOME_TEXT),
            st.builds(tool_result, SOME_TEXT, TEXT),
            st.builds(
                lambda text, reasoning, calls: assistant(text, reasoning_content=reasoning, tool_calls=calls),
                SOME_TEXT,
                st.none() | TEXT,
                CALLS,
            ),
        ),
        min_size=1,
        max_size=3,
    ).flatmap(
        lambda messages: st.sampled_from(
            [
                messages,
                [*messages, assistant("so far", prefix=True)],
                [*messages, assistant("n", prefix=True, name="n")],
            ]
        )
    ),
)
ANSWER = st.builds(
    lambda text, reasoning, calls: assistant(text, reasoning_content=reasoning, tool_calls=calls),
    TEXT,
    st.none() | TEXT,
    CALLS,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(PROMPT, ANSWER), min_size=1, max_size=5), st.none() | SOME_TEXT, PROMPT)
def test_a_client_composes_what_the_gateway_would_have(turns, system_message, last):
    """Over parents of parents: what the gateway has kept and what the client sends instead decode to the same."""
    kept, parent = (), None
    for number, (prompt, answer) in enumerate(turns):
        options = {} if number else {"system_message": system_message}
        request = encode_generate(prompt, request_id="r", **options)
        decoded = decode_generate(request)
        kept = conversation((*kept, *decoded.messages), answer)
        before, parent = parent, Exchange(request, parent, "s", number + 1)
        parent = Exchange(request, before, "s", number + 1).answered(answer)
    request = encode_generate(last, request_id="r", temperature=0.5, seed=7)
    whole_request = parent.before(request)
    assert decode_generate(whole_request).messages == (*kept, *decode_generate(request).messages)
    assert (whole_request.temperature, whole_request.seed, whole_request.prompt) == (0.5, 7, "")
    assert decode_generate(request).messages == decode_generate(encode_generate(last, request_id="r")).messages


def test_a_parent_that_is_gone_is_sent_whole():
    pair = Pair()
    turn, running = pair.both("What is TLS?")
    pair.gateway.done(running, None, NOWHERE)
    pair.carry()
    asked = Exchange(turn.request, None, "s1", turn.turn_id)
    parent = asked.answered(assistant("A protocol."))
    child, running = pair.both("Shorter.", parent=parent)
    assert (running.start.parent_turn_id, running.start.request.prompt) == (turn.turn_id, "Shorter.")
    assert not running.start.request.messages
    pair.gateway.fail(running, FailedPreconditionError("gone", reason="PARENT_GONE"))
    pair.carry()
    assert pair.client.again(child, child.error)
    assert not pair.client.again(child, child.error)  # once
    child.ended, child.error = False, None
    pair.client.start(child)
    pair.carry()
    start = pair.starts[-1].start
    assert (start.parent_turn_id, start.turn_id) == (0, 3)
    assert [decode_message(message) for message in start.request.messages] == [
        user("What is TLS?"),
        assistant("A protocol."),
        user("Shorter."),
    ]


@pytest.mark.parametrize("session_id", ["", "another"])
def test_a_parent_of_another_session_is_sent_whole(session_id):
    pair = Pair()
    pair.carry()
    asked = Exchange(encode_generate("q", request_id="r"), None, session_id, 7)
    _, running = pair.both("more", parent=asked.answered(assistant("a")))
    assert running.start.parent_turn_id == 0
    assert [message.content for message in running.start.request.messages] == ["q", "a", "more"]


def test_before_a_session_is_open_nothing_is_taken_for_granted():
    pair = Pair()
    asked = Exchange(encode_generate("q", request_id="r"), None, "", 7)
    pair.start("more", parent=asked.answered(assistant("a")))  # a session without an id isn't that of this parent
    pair.carry()
    assert pair.starts[0].start.parent_turn_id == 0
    assert len(pair.starts[0].start.request.messages) == 3


def test_options_are_not_inherited():
    request = encode_generate("q", request_id="r", temperature=0.1, max_tokens=5, user_id="u")
    parent = Exchange(request, None).answered(assistant("a"))
    whole_request = parent.before(encode_generate("more", request_id="r2"))
    assert (whole_request.HasField("temperature"), whole_request.HasField("max_tokens"), whole_request.user_id) == (
        False,
        False,
        "",
    )
    assert whole_request.request_id == "r2"


def test_a_stream_decodes_to_the_message_that_the_gateway_keeps():
    events = [
        Started("id", 1, "m", ""),
        ReasoningDelta("Hm"),
        TextDelta("a"),
        ToolCallDelta(0, "c", "f"),
        ToolCallDelta(0, arguments="{}"),
        TextDelta("b"),
        Finished("tool_calls", Usage()),
    ]
    chunks = [pb.GenerateChunk() for _ in events]
    for event, chunk in zip(events, chunks, strict=True):
        encode_event(event, Upstream(), chunk)
    assert answer_of(StreamDecoder("").feed(chunks)) == answer_of(events)


# Bad parents


def completion(turn):
    made = whole("a")
    return Completion(made.text, made.finish_reason, made.usage, made.meta, turn=turn)


class Running:
    """A stream that isn't over."""

    def so_far(self):
        return None


@pytest.mark.parametrize(
    ("parent", "problem"),
    [
        ("q", "parent is a str; give a session's stream or answer"),
        (7, "parent is a int"),
        (completion(None), "parent didn't come in a session"),
        (Running(), "parent isn't over"),
    ],
)
def test_what_is_no_parent(parent, problem):
    with pytest.raises(InvalidRequestError, match=problem) as caught:
        parent_of(parent, encode_generate("q", request_id="r"))
    assert caught.value.field == "parent"


def test_a_parents_system_message_stands():
    asked = Exchange(encode_generate("q", request_id="r", system_message="Be brief"), None, "s", 1)
    with pytest.raises(InvalidRequestError) as caught:
        parent_of(completion(asked), encode_generate("more", request_id="r", system_message="Be long"))
    assert caught.value.field == "system_message"
    parent = parent_of(completion(asked), encode_generate("more", request_id="r"))
    assert [decode_message(message) for message in parent.messages()] == [system("Be brief"), user("q"), assistant("a")]


def test_no_parent():
    assert parent_of(None, encode_generate("q", request_id="r", system_message="Be brief")) is None
