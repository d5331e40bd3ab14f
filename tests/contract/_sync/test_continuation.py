# Mirrored by scripts/unasync.py from tests/contract/_async/test_continuation.py: edit that and run `make sync`.
"""Streamed generations that are cut off, and go on."""

from __future__ import annotations

import random

import pytest

from deepseek_grpc import (
    ClientConfig,
    Finished,
    ReasoningDelta,
    Retry,
    Started,
    TextDelta,
    Timeouts,
    Tool,
    Usage,
    assistant,
    json_object,
    json_schema,
    system,
    user,
)
from deepseek_grpc.errors import (
    ClosedError,
    DeadlineExceededError,
    FirstTokenTimeoutError,
    InvalidRequestError,
    PermissionDeniedError,
    StreamInterruptedError,
)
from deepseek_grpc.testing import Fail, FakeServer, Reasoning, Stall, ToolUse
from tests.contract.engines import Cut, Headless

BROKEN = Fail("UNAVAILABLE", "the backend is gone")
ALONE = r"^the backend is gone \("  # and nothing of a continuation
ONCE = ClientConfig(retry=Retry(attempts=1))


@pytest.fixture(scope="module")
def cut():
    return Cut()


@pytest.fixture(scope="module")
def cut_server(cut):
    with FakeServer(engine=cut) as server:
        yield server


@pytest.fixture
def cut_client(cut_server, cut):
    cut.cuts.clear()
    with cut_server.client() as client:
        yield client


SCHEMA = """{"type": "object", "properties": {"title": {"type": "string"}, "tags": {"type": "array", "minItems": 3,
"items": {"type": "string"}}, "size": {"type": "integer"}}, "required": ["title", "tags", "size"]}"""
HALF = "a stop string that begins within a token"
QUESTION = "What is a deadline in gRPC?"
CASES = {
    "plain": (QUESTION, {}),
    "a conversation": ([system("Be brief"), user("Hello"), assistant("Hi"), user(QUESTION)], {}),
    "thinking": (QUESTION, {"thinking": True}),
    "log probabilities": (QUESTION, {"logprobs": True, "top_logprobs": 2}),
    "thinking, with log probabilities": (QUESTION, {"thinking": True, "logprobs": True, "max_tokens": 60}),
    "a limit": (QUESTION, {"max_tokens": 40}),
    "stop strings": (QUESTION, {"stop": ["the server at", "sends the rest of", " status code DEADLINE_EX"]}),
    HALF: (QUESTION, {"stop": ["us code DEADLINE_EX"]}),
    "penalties": (QUESTION, {"frequency_penalty": 0.8, "presence_penalty": -0.4}),
    "an own beginning": ([user(QUESTION), assistant("A deadline is", prefix=True)], {"max_tokens": 50}),
    "a JSON object": ("Answer in JSON: " + QUESTION, {"response_format": json_object}),
    "a schema": ("A note on retries", {"response_format": json_schema(SCHEMA)}),
    "a schema and a limit": ("A note on retries", {"response_format": json_schema(SCHEMA), "max_tokens": 12}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_continued_answer_is_the_one_that_nothing_interrupted(cut, cut_client, case):
    prompt, options = CASES[case]
    options = {"temperature": 0.7, "seed": 11, **options}
    whole = cut_client.text.stream(prompt, **options).final()
    uncut = list(cut_client.text.stream(prompt, **options))
    pieces = uncut[1:-1]
    first = sum(isinstance(piece, ReasoningDelta) for piece in pieces) + 1
    assert len(pieces) > first + 1
    numbers = random.Random(case)
    places = {
        first,
        len(pieces) - 1,
        len(pieces),
        *numbers.sample(range(first, len(pieces)), min(6, len(pieces) - first)),
    }
    for cuts in (*([place] for place in sorted(places)), [first, 0, 1, 1], [first, 0, 0]):
        cut.cuts.extend(cuts)
        stream = cut_client.text.stream(prompt, **options)
        events = list(stream)
        answer = stream.final()
        assert [type(event) for event in events].count(Started) == 1
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) == whole.text
        assert (answer.text, answer.reasoning) == (whole.text, whole.reasoning)
        assert (answer.logprobs, answer.reasoning_logprobs) == (whole.logprobs, whole.reasoning_logprobs)
        assert answer.finish_reason == whole.finish_reason
        twice = case == HALF and cuts == [len(pieces)]  # the token of which half had come
        assert answer.usage.completion_tokens == whole.usage.completion_tokens + twice
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        used_up = cuts == [len(pieces)] and whole.finish_reason == "length"
        assert answer.meta.continued == (0 if used_up else len(cuts))
        assert events[-1] == Finished(answer.finish_reason, answer.usage, answer.meta.upstream, answer.meta.extra_json)


def test_an_answer_without_a_seed_goes_on_with_the_seed_that_it_had(cut, cut_client):
    cut.cuts.extend([5, 5])
    del cut.requests[:]
    answer = cut_client.text.stream(QUESTION).final()
    (seed,) = {request.seed for request in cut.requests}
    assert 0 <= seed < 2**63
    assert len(cut.requests) == 3
    assert answer.text == (cut_client.text.generate(QUESTION, seed=seed)).text


def test_the_seeds_of_two_answers_differ_and_a_stream_that_does_not_go_on_has_none(fake_server, client):
    for word in ("continue", "continue", "raise"):
        client.text.stream("Hi", on_interrupt=word).final()
    client.text.stream("Hi", seed=7).final()
    one, another, none, own = (recorded.request.seed for recorded in fake_server.text.requests)
    assert one != another
    assert (none, own) == (None, 7)


def test_what_is_asked_for_again(fake_server, client):
    fake_server.text.script(Reasoning("Hm"), Reasoning("m"), "Hel", "lo", BROKEN)
    fake_server.text.script(" wor", "ld", BROKEN)
    fake_server.text.script("!", Finished("stop", Usage(20, 1, 21, 5, 15)))
    with client.text.stream(
        "Hi", system_message="Be brief", max_tokens=40, seed=3, stop=["x"], tools=[Tool("t")], request_id="req-1"
    ) as stream:
        answer = stream.final()
    assert (answer.text, answer.reasoning) == ("Hello world!", "Hmm")
    assert answer.usage == Usage(20, 7, 27, 5, 15)
    assert answer.meta.continued == 2
    first, second, third = (recorded.request for recorded in fake_server.text.requests)
    assert [request.max_tokens for request in (first, second, third)] == [40, 36, 34]
    assert first.messages == (system("Be brief"), user("Hi"))
    beginnings = [assistant(text, reasoning_content="Hmm", prefix=True) for text in ("Hello", "Hello world")]
    assert [request.messages for request in (second, third)] == [(*first.messages, one) for one in beginnings]
    for request in (second, third):
        assert (request.request_id, request.seed, request.stop, request.tools) == ("req-1", 3, ("x",), first.tools)
    assert {recorded.metadata["x-request-id"] for recorded in fake_server.text.requests} == {"req-1"}


@pytest.mark.parametrize("failures", [1, 3])
def test_what_was_cut_off_before_any_content_is_asked_for_again_as_it_was(failures):
    engine = Headless(failures)
    with FakeServer(engine=engine) as server:
        with server.client() as client:
            answer = client.text.stream("Hi").final()
    assert (answer.text, answer.meta.continued) == ("whole", 0)
    assert len(engine.requests) == failures + 1
    assert set(engine.requests) == {engine.requests[0]}


def test_nor_is_that_tried_for_ever():
    engine = Headless(100)
    with FakeServer(engine=engine) as server:
        with server.client() as client:
            with pytest.raises(StreamInterruptedError) as caught:
                client.text.stream("Hi").final()
    assert (caught.value.details, caught.value.attempts) == ("the engine broke off", 4)
    assert len(engine.requests) == 4


def test_used_up_tokens_end_it_without_another_call(fake_server, client):
    fake_server.text.script("a", "b", BROKEN)
    stream = client.text.stream("Hi", max_tokens=2)
    events = list(stream)
    assert [type(event) for event in events] == [Started, TextDelta, TextDelta, Finished]
    answer = stream.final()
    assert (answer.text, answer.finish_reason, answer.usage) == ("ab", "length", Usage(0, 2, 2))
    assert answer.meta.continued == 0
    assert len(fake_server.text.requests) == 1


@pytest.mark.parametrize(
    ("steps", "partial"),
    [
        ([Reasoning("Hm")], ""),
        ([ToolUse("weather")], ""),
        (["Let me see.", ToolUse("weather")], "Let me see."),
        ([Reasoning("Hm"), "Well", Reasoning("Hm")], "Well"),
    ],
    ids=["in reasoning", "in a tool call", "in a tool call after text", "in reasoning after text"],
)
def test_where_it_is_not_safe_it_ends(fake_server, client, steps, partial):
    fake_server.text.script(*steps, BROKEN)
    with pytest.raises(StreamInterruptedError, match=ALONE) as caught:
        client.text.stream("Hi", tools=[Tool("weather")]).final()
    assert caught.value.partial == partial
    assert len(fake_server.text.requests) == 1


@pytest.mark.parametrize("of", ["the call", "the client"])
def test_it_can_be_switched_off(fake_server, of):
    fake_server.text.script("Hel", BROKEN)
    config, options = (ClientConfig(), {"on_interrupt": "raise"})
    if of == "the client":
        config, options = ClientConfig(on_interrupt="raise"), {}
    with fake_server.client(config=config) as client:
        with pytest.raises(StreamInterruptedError, match=ALONE) as caught:
            client.text.stream("Hi", **options).final()
        assert caught.value.partial == "Hel"
        assert len(fake_server.text.requests) == 1
        if of == "the client":
            fake_server.text.script("Hel", BROKEN)
            fake_server.text.script("lo")
            assert (client.text.stream("Hi", on_interrupt="continue").final()).text == "Hello"


@pytest.mark.parametrize("word", ["retry", None, 1, ""])
def test_another_word_is_refused(client, word):
    with pytest.raises(InvalidRequestError, match="give 'continue' or 'raise'") as caught:
        client.text.stream("Hi", on_interrupt=word)
    assert caught.value.field == "on_interrupt"


@pytest.mark.parametrize(
    "code", ["PERMISSION_DENIED", "INVALID_ARGUMENT", "UNIMPLEMENTED", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED"]
)
def test_an_answer_that_cannot_be_continued_is_an_interruption_that_says_why(fake_server, code):
    fake_server.text.script("Hel", "lo", BROKEN)
    fake_server.text.script(Fail(code, "not that", retry_after=7 if code == "RESOURCE_EXHAUSTED" else None))
    with fake_server.client(config=ONCE) as client:
        stream = client.text.stream("Hi", request_id="req-1")
        with pytest.raises(StreamInterruptedError) as caught:
            stream.final()
        with pytest.raises(StreamInterruptedError) as again:
            stream.final()
    error = caught.value
    assert again.value is error
    assert error.details == "the backend is gone, and the answer couldn't be continued: not that"
    assert (error.partial, error.request_id, error.attempts) == ("Hello", "req-1", 2)
    assert error.retry_after == (7 if code == "RESOURCE_EXHAUSTED" else None)
    assert error.__cause__.code.name == code
    assert len(fake_server.text.requests) == 2


def test_a_failure_of_another_kind_after_more_has_come_stays_what_it_is(fake_server, client):
    fake_server.text.script("Hel", BROKEN)
    fake_server.text.script("lo", Fail("PERMISSION_DENIED"))
    with pytest.raises(PermissionDeniedError) as caught:
        client.text.stream("Hi").final()
    assert caught.value.partial == "Hello"


def test_it_ends_where_nothing_more_comes_three_times_in_a_row(cut, cut_client):
    del cut.requests[:]
    cut.cuts.extend([3, 0, 0, 1, 0, 0, 0, 0])
    with pytest.raises(StreamInterruptedError, match="couldn't be continued: the engine broke off") as caught:
        cut_client.text.stream(QUESTION, seed=1).final()
    assert len(cut.requests) == 7
    assert caught.value.attempts == 7
    assert caught.value.partial == str(cut.requests[-1].messages[-1].content)


def test_it_has_what_is_left_of_the_total_time(fake_server, client):
    client.text.generate("Hi")  # from here on there is a connection
    fake_server.text.script("Hel", BROKEN)
    fake_server.text.script(Stall())
    with pytest.raises(DeadlineExceededError) as caught:
        client.text.stream("Hi", timeout=2).final()
    assert (type(caught.value), caught.value.partial) == (DeadlineExceededError, "Hel")


def test_it_is_watched_for_content_like_any_other(fake_server, client):
    client.text.generate("Hi")
    fake_server.text.script("Hel", BROKEN)
    fake_server.text.script(Stall())
    with pytest.raises(FirstTokenTimeoutError) as caught:
        client.text.stream("Hi", timeout=Timeouts(first_token=2)).final()
    assert caught.value.partial == "Hel"


@pytest.mark.parametrize("end", ["cancel", "close", "close of the client"])
def test_it_can_be_ended_while_it_goes_on(fake_server, end):
    fake_server.text.script("Hel", BROKEN)
    fake_server.text.script("lo", Stall())
    with fake_server.client() as client:
        stream = client.text.stream("Hi")
        for event in stream:
            if event == TextDelta("lo"):
                break
        if end == "cancel":
            stream.cancel()
            assert list(stream) == []
            answer = stream.final()
            assert (answer.text, answer.finish_reason, answer.meta.continued) == ("Hello", "cancelled", 1)
        else:
            (stream.close() if end == "close" else client.close())
            with pytest.raises(ClosedError) as caught:
                stream.final()
            assert caught.value.partial == "Hello"
        fake_server.text.wait_for_cancellations(1)


def test_a_place_passes_from_one_call_to_the_next(fake_server):
    fake_server.text.script("Hel", BROKEN)
    fake_server.text.script("lo", BROKEN)
    with fake_server.client(config=ClientConfig(max_concurrency=1)) as client:
        assert (client.text.stream("Hi").final()).text == "HelloHello from the fake server."


def test_an_observer_sees_every_call(fake_server):
    class Records:
        """An observer that keeps what it is told."""

        def __init__(self):
            self.ended_records = []

        def started(self, record):
            assert record.request_id == "req-1"

        def ended(self, record):
            self.ended_records.append((record.code.name, record.request_id))

    records = Records()
    fake_server.text.script("Hel", BROKEN)
    with fake_server.client(config=ClientConfig(observers=[records])) as client:
        client.text.stream("Hi", request_id="req-1").final()
    assert records.ended_records == [("ABORTED", "req-1"), ("OK", "req-1")]


def test_the_whole_is_parsed(fake_server, client):
    fake_server.text.script('{"a": ', BROKEN)
    fake_server.text.script("1}")
    answer = client.text.stream("Hi", output=dict[str, int], response_format=json_object).final()
    assert answer.parsed == {"a": 1}


def test_a_completion_is_not_continued(fake_server, client):
    fake_server.text.script("a", BROKEN)
    with pytest.raises(StreamInterruptedError, match=ALONE) as caught:
        client.text.stream_complete("def f(").final()
    assert caught.value.partial == "a"
    assert len(fake_server.text.completions) == 1
