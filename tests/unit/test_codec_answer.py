from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepseek_grpc._codec.answer import (
    StreamDecoder,
    collect,
    decode_completion,
    decode_models,
    encode_completion,
    encode_event,
    encode_models,
)
from deepseek_grpc.types import (
    Completion,
    Finished,
    Meta,
    Model,
    ReasoningDelta,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Upstream,
    Usage,
    assistant,
)
from deepseek_rpc.v2 import text_pb2 as pb

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PIECE = TEXT.filter(bool)
COUNT = st.integers(0, 2**63 - 1)
MAYBE = st.none() | COUNT
REASON = st.sampled_from(["stop", "length", "tool_calls", "content_filter", "insufficient_system_resource"]) | TEXT
USAGE = st.builds(Usage, COUNT, COUNT, COUNT, MAYBE, MAYBE, MAYBE, TEXT)
UPSTREAM = st.builds(Upstream, TEXT, TEXT, st.integers(1, 2**31 - 1), st.floats(0, 1e9), st.booleans())
NO_LOGPROBS = st.just(())
LOGPROB = st.builds(
    TokenLogprob,
    TEXT,
    st.floats(-1e6, 0),
    st.binary(max_size=4),
    st.lists(st.builds(TokenLogprob, TEXT, st.floats(-1e6, 0)), max_size=3).map(tuple),
)
LOGPROBS = st.lists(LOGPROB, max_size=3).map(tuple)
META = st.builds(Meta, st.just("r1"), TEXT, COUNT, TEXT, TEXT, UPSTREAM, TEXT)
COMPLETION = st.builds(
    Completion,
    TEXT,
    REASON,
    USAGE,
    META,
    st.none() | TEXT,
    st.lists(st.builds(ToolCall, TEXT, TEXT, TEXT), max_size=3).map(tuple),
    LOGPROBS,
    LOGPROBS,
)


def deltas(logprobs):
    return st.lists(
        st.builds(TextDelta, PIECE, logprobs)
        | st.builds(ReasoningDelta, PIECE, logprobs)
        | st.builds(ToolCallDelta, st.integers(0, 3), TEXT, TEXT, TEXT),
        max_size=12,
    )


def streams(logprobs=NO_LOGPROBS):
    return st.builds(
        lambda started, pieces, finished: [started, *pieces, finished],
        st.builds(Started, TEXT, COUNT, TEXT, TEXT),
        deltas(logprobs),
        st.builds(Finished, REASON, USAGE, UPSTREAM, TEXT),
    )


def chunks(events, upstream):
    """Puts events on the wire and takes them off again."""
    batch = pb.StreamGenerateResponse()
    for event in events:
        encode_event(event, upstream, batch.chunks.add())
    return pb.StreamGenerateResponse.FromString(batch.SerializeToString()).chunks


@given(COMPLETION)
def test_a_whole_answer_survives_the_wire(completion):
    response = pb.GenerateResponse()
    encode_completion(completion, completion.meta.upstream, response)
    assert decode_completion(pb.GenerateResponse.FromString(response.SerializeToString()), "r1") == completion


@given(streams())
def test_a_stream_survives_the_wire(events):
    assert StreamDecoder("r1").feed(chunks(events, events[-1].upstream)) == events


@given(streams(LOGPROBS))
def test_log_probabilities_survive_it_where_they_were_asked_for(events):
    assert StreamDecoder("r1", logprobs=True).feed(chunks(events, events[-1].upstream)) == events


@given(streams(LOGPROBS), st.data())
def test_however_a_stream_is_cut_into_batches_it_is_the_same_answer(events, data):
    wire = chunks(events, events[-1].upstream)
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=6).map(sorted))
    whole, batched = StreamDecoder("r1", logprobs=True), StreamDecoder("r1", logprobs=True)
    together = whole.feed(wire)
    apart = [event for a, b in pairwise([0, *cuts, len(wire)]) for event in batched.feed(wire[a:b])]
    assert apart == together
    assert batched.completion() == whole.completion()
    assert batched.pieces == whole.pieces == len(events) - 2


@given(streams())
def test_an_engine_that_only_streams_answers_whole_as_well(events):
    collected, decoder = collect(events), StreamDecoder("")
    decoder.feed(chunks(events, Upstream()))
    assert collected == decoder.completion()


def test_a_stream_adds_up_to_an_answer():
    decoder = StreamDecoder("r1")
    usage, upstream = Usage(3, 4, 7), Upstream("b", "u1", 2, 1.5)
    decoder.feed(
        chunks(
            [
                Started("a1", 1700000000, "deepseek-flash", "fp"),
                ReasoningDelta("Hm"),
                ReasoningDelta("m."),
                TextDelta("Hel"),
                TextDelta("lo"),
                ToolCallDelta(1, "c2", "g"),
                ToolCallDelta(0, "c1", "f", '{"a"'),
                ToolCallDelta(0, arguments=": 1}"),
                Finished("tool_calls", usage, extra_json='{"x": 1}'),
            ],
            upstream,
        )
    )
    assert decoder.finished
    assert decoder.completion() == Completion(
        text="Hello",
        finish_reason="tool_calls",
        usage=usage,
        meta=Meta("r1", "a1", 1700000000, "deepseek-flash", "fp", upstream, '{"x": 1}'),
        reasoning="Hmm.",
        tool_calls=(ToolCall("c1", "f", '{"a": 1}'), ToolCall("c2", "g", "")),
    )


def test_a_stream_that_was_given_up_has_what_had_come():
    decoder = StreamDecoder("r1")
    decoder.feed(chunks([Started(model="m"), TextDelta("Hel")], Upstream()))
    assert not decoder.finished
    assert decoder.text == "Hel"
    assert decoder.completion("cancelled").finish_reason == "cancelled"
    assert decoder.completion("cancelled").meta.model == "m"


def test_an_answer_without_reasoning_is_no_answer_with_an_empty_one():
    decoder = StreamDecoder("r1")
    decoder.feed(chunks([TextDelta("Hi")], Upstream()))
    assert decoder.completion().reasoning is None
    assert decoder.feed([pb.GenerateChunk(reasoning="")]) == []
    assert decoder.completion().reasoning == ""
    decoder.feed(chunks([ReasoningDelta("Hm")], Upstream()))
    assert decoder.feed([pb.GenerateChunk(reasoning="")]) == []
    assert decoder.completion().reasoning == "Hm"
    assert decoder.pieces == 2


def test_only_content_counts_as_content():
    decoder = StreamDecoder("r1")
    decoder.feed(chunks([Started(), Finished("stop")], Upstream()))
    assert decoder.pieces == 0


@pytest.mark.parametrize("logprobs", [True, False])
@pytest.mark.parametrize("chunk", [pb.GenerateChunk(), pb.GenerateChunk(text="")])
def test_what_a_newer_gateway_adds_and_what_is_empty_change_nothing(chunk, logprobs):
    decoder = StreamDecoder("r1", logprobs=logprobs)
    decoder.feed(chunks([Started("a1", model="m"), TextDelta("Hi")], Upstream()))
    before = decoder.completion()
    assert decoder.feed([chunk]) == []
    assert decoder.completion() == before
    assert decoder.pieces == 1


def test_the_events_of_a_stream_are_as_good_as_those_made_by_hand():
    [decoded] = StreamDecoder("r1").feed(chunks([TextDelta("Hi")], Upstream()))
    made = TextDelta("Hi")
    assert (decoded, hash(decoded), repr(decoded), type(decoded)) == (made, hash(made), repr(made), TextDelta)
    assert decoded.logprobs == ()
    with pytest.raises(AttributeError):
        decoded.text = "Ho"


def test_an_answer_goes_into_the_next_conversation_as_it_came():
    decoder = StreamDecoder("r1")
    decoder.feed(chunks([ReasoningDelta(" \n"), ToolCallDelta(0, "c1", "f", "{"), Finished("tool_calls")], Upstream()))
    call = ToolCall("c1", "f", "{")
    assert decoder.completion().message == assistant("", reasoning_content=" \n", tool_calls=[call])


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter", "insufficient_system_resource"])
def test_known_finish_reasons_are_an_enum_on_the_wire(reason):
    chunk = pb.GenerateChunk()
    encode_event(Finished(reason), Upstream(), chunk)
    assert pb.FinishReason.Name(chunk.tail.finish_reason) == f"FINISH_REASON_{reason.upper()}"
    assert not chunk.tail.raw_finish_reason


def test_unknown_finish_reasons_stay_as_the_backend_spelt_them():
    chunk = pb.GenerateChunk()
    encode_event(Finished("bored"), Upstream(), chunk)
    assert chunk.tail.raw_finish_reason == "bored"


@given(
    st.lists(st.builds(Model, TEXT, TEXT, TEXT, TEXT, st.lists(TEXT, max_size=3).map(tuple), COUNT, TEXT), max_size=3)
)
def test_models_survive_the_wire(models):
    response = pb.ListModelsResponse.FromString(encode_models(models, "m").SerializeToString())
    assert decode_models(response) == models
    assert response.default_model == "m"
