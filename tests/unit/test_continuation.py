"""What is asked for when a streamed generation was cut off, and how its parts become one answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepseek_grpc import Started, TextDelta, Usage, assistant, user
from deepseek_grpc._codec.answer import StreamDecoder, encode_event
from deepseek_grpc._codec.checks import check_generate
from deepseek_grpc._codec.continuation import Continuation, continues, follow_up, seeded
from deepseek_grpc._codec.request import decode_generate, encode_generate
from deepseek_grpc.errors import (
    ClosedError,
    DeadlineExceededError,
    InvalidRequestError,
    ServiceUnavailableError,
    StreamInterruptedError,
)
from deepseek_grpc.types import FilePart, Finished, GenerateRequest, ReasoningDelta, TextPart, TokenLogprob, Upstream
from deepseek_rpc.v2 import text_pb2 as pb
from tests.unit.test_codec_request import SOME_TEXT, TEXT, generate_requests

FIELDS = [field for field in GenerateRequest.__dataclass_fields__ if field not in ("messages", "max_tokens")]


def encode(request: GenerateRequest, *, prompt: bool = False) -> pb.GenerateRequest:
    """Encodes a request; with `prompt` a short one that uses the sugar."""
    options = {name: getattr(request, name) for name in GenerateRequest.__dataclass_fields__}
    conversation, extra = options.pop("messages"), options.pop("extra_json")
    if prompt:
        conversation, options["system_message"] = "Hi", "Be brief"
    encoded = encode_generate(conversation, **options)
    encoded.extra_json = extra
    return encoded


def text_of(message):
    """Returns the text of a message in one piece."""
    if isinstance(message.content, str):
        return message.content
    return "".join(part.text if isinstance(part, TextPart) else f"[{part!r}]" for part in message.content)


def chunks(*events):
    """Returns the events as chunks."""
    batch = pb.StreamGenerateResponse()
    for event in events:
        encode_event(event, Upstream("b"), batch.chunks.add())
    return batch.chunks


@given(generate_requests(), st.booleans(), SOME_TEXT, st.none() | TEXT, st.integers(1, 2**31 - 1))
def test_the_request_for_the_rest_is_good_and_has_everything(request, prompt, text, reasoning, tokens):
    asked = encode(request, prompt=prompt)
    if asked.HasField("max_tokens") and asked.max_tokens <= tokens:
        tokens = asked.max_tokens - 1
    before = pb.GenerateRequest()
    before.CopyFrom(asked)
    rest = follow_up(asked, text, reasoning, tokens)
    assert asked == before
    check_generate(rest)
    first, second = decode_generate(asked), decode_generate(rest)
    assert [getattr(second, name) for name in FIELDS] == [getattr(first, name) for name in FIELDS]
    assert second.max_tokens == (None if first.max_tokens is None else first.max_tokens - tokens)
    *conversation, beginning = second.messages
    assert (beginning.role, beginning.prefix) == ("assistant", True)
    own = first.messages[-1] if first.messages[-1].prefix else assistant("")
    assert conversation == [message for message in first.messages if not message.prefix]
    assert text_of(beginning) == text_of(own) + text
    assert beginning.name == own.name
    thought = (
        None
        if reasoning is None and own.reasoning_content is None
        else (own.reasoning_content or "") + (reasoning or "")
    )
    assert beginning.reasoning_content == thought


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        ((TextPart("a"), TextPart("b")), (TextPart("a"), TextPart("bc"))),
        ((FilePart("f"),), (FilePart("f"), TextPart("c"))),
    ],
)
def test_a_beginning_in_parts_grows_at_its_end(parts, joined):
    asked = encode_generate([user("Hi"), assistant(parts, prefix=True)], request_id="r1")
    assert decode_generate(follow_up(asked, "c", None, 1)).messages[-1].content == joined


PIECES = st.lists(SOME_TEXT, min_size=1, max_size=12)


@given(
    generate_requests(), st.lists(SOME_TEXT, max_size=4), PIECES, st.lists(st.integers(0, 6), max_size=6), st.booleans()
)
def test_wherever_it_is_cut_the_parts_are_the_whole(request, thoughts, pieces, cuts, logprobs):
    """A backend that goes on exactly where a prefix ends, and is cut off after some pieces each time."""
    asked = encode(request)
    own = decode_generate(asked).messages[-1]
    given_text = text_of(own) if own.prefix else ""
    reasoned = [] if own.prefix else thoughts
    limit = asked.max_tokens if asked.HasField("max_tokens") else None
    events = [*map(ReasoningDelta, reasoned), *map(TextDelta, pieces)]
    if logprobs:
        events = [type(event)(event.text, (TokenLogprob(event.text, -1.0),)) for event in events]
    whole, reason = events[:limit], "stop" if limit is None or limit > len(events) else "length"
    left = iter([(cut or 1) + (place == 0) * len(reasoned) for place, cut in enumerate(cuts)])

    def generate(asked: pb.GenerateRequest) -> list:
        """Returns what a source brings, and whether it is cut off."""
        check_generate(asked)
        last = decode_generate(asked).messages[-1]
        text = text_of(last)[len(given_text) :] if last.prefix else ""
        told = 0
        while text:
            assert text.startswith(pieces[told])
            text, told = text[len(pieces[told]) :], told + 1
        skipped = told + (len(reasoned) if told else 0)
        if told:
            assert last.reasoning_content == (
                "".join(reasoned) if reasoned else own.reasoning_content if own.prefix else None
            )
        if asked.HasField("max_tokens"):
            assert skipped + asked.max_tokens == limit
        rest = whole[skipped:]
        cut = next(left, None) if rest else None
        if cut is not None:
            return [Started(f"part {skipped}"), *rest[:cut], None]
        return [Started(), *rest, Finished(reason, Usage(9, len(rest), 9 + len(rest)))]

    decoder = StreamDecoder("r1", logprobs=True)
    continuation = Continuation(asked, generate)
    source = generate(asked)
    seen = []
    while source:
        cut = source[-1] is None
        seen += decoder.feed(chunks(*(event for event in source if event is not None)))
        if not cut:
            break
        if not decoder.in_text:  # all of `max_tokens` went into the reasoning
            with pytest.raises(StreamInterruptedError):
                continuation.after(StreamInterruptedError("cut", attempts=1), decoder)
            return
        source = continuation.after(StreamInterruptedError("cut", attempts=1), decoder)
        if source and isinstance(source[0], Finished):
            seen += source
            break
    assert [event for event in seen if not isinstance(event, Started | Finished)] == whole
    assert [type(event) for event in seen].count(Started) == 1
    answer = decoder.completion()
    assert (answer.finish_reason, answer.usage.completion_tokens) == (reason, len(whole))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + len(whole)


def test_log_probabilities_count_the_tokens_of_a_piece():
    asked = encode_generate("Hi", request_id="r1", max_tokens=10, logprobs=True)
    decoder = StreamDecoder("r1", logprobs=True)
    decoder.feed(chunks(Started(), TextDelta("abc", tuple(TokenLogprob(char, -1.0) for char in "abc"))))
    rest = Continuation(asked, lambda request: request).after(StreamInterruptedError("cut"), decoder)
    assert rest.max_tokens == 7
    decoder.feed(chunks(Started(), TextDelta("d"), Finished("stop", Usage(5, 1, 6))))
    assert decoder.completion().usage == Usage(5, 4, 9)


def cut_after(*events):
    """Returns a continuation whose next source fails at once with what is given to it, and a decoder."""
    decoder = StreamDecoder("r1")
    decoder.feed(chunks(*events))

    def again(request: pb.GenerateRequest):
        raise again.error

    return Continuation(encode_generate("Hi", request_id="r1"), again), decoder, again


@pytest.mark.parametrize("cls", [DeadlineExceededError, ClosedError])
def test_what_is_over_is_over(cls):
    continuation, decoder, again = cut_after(Started(), TextDelta("a"))
    again.error = cls("no more")
    with pytest.raises(cls) as caught:
        continuation.after(StreamInterruptedError("cut", attempts=1), decoder)
    assert caught.value is again.error
    assert caught.value.attempts == 1


def test_a_call_that_cannot_be_begun_is_an_interruption():
    continuation, decoder, again = cut_after(Started(), TextDelta("a"))
    again.error = ServiceUnavailableError("nobody is there")
    with pytest.raises(StreamInterruptedError, match="cut, and the answer couldn't be continued: nobody is") as caught:
        continuation.after(StreamInterruptedError("cut", attempts=2, request_id="r1"), decoder)
    assert caught.value.__cause__ is again.error
    assert (caught.value.attempts, caught.value.request_id) == (2, "r1")


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ((), StreamInterruptedError("cut")),
        ((), ServiceUnavailableError("gone")),
        ((Started(), TextDelta("a")), InvalidRequestError("bad")),
        ((Started(), TextDelta("a")), ServiceUnavailableError("gone", retryable=False)),
        ((Started(), ReasoningDelta("a")), StreamInterruptedError("cut")),
    ],
    ids=["nothing came", "nothing came of a call", "another failure", "not worth it", "in reasoning"],
)
def test_what_is_not_continued_ends_as_it_did(events, error):
    continuation, decoder, _ = cut_after(*events)
    with pytest.raises(type(error)) as caught:
        continuation.after(error, decoder)
    assert caught.value is error
    assert error.__cause__ is None


def test_what_is_complete_needs_no_more():
    continuation, decoder, _ = cut_after(Started(), TextDelta("a"), Finished("stop"))
    assert continuation.after(StreamInterruptedError("cut"), decoder) == []
    assert decoder.completion().meta.continued == 0


@pytest.mark.parametrize(
    ("word", "default", "goes_on"),
    [("continue", "raise", True), ("raise", "continue", False)],
)
def test_a_call_s_word_counts_before_the_client_s(word, default, goes_on):
    assert continues(word, default) is goes_on


def test_a_seed_is_kept_or_made():
    assert seeded({"seed": 0, "top_p": 1}) == {"seed": 0, "top_p": 1}
    made = [seeded({"seed": None})["seed"], seeded({})["seed"]]
    assert all(0 <= seed < 2**63 for seed in made)
    assert made[0] != made[1]
