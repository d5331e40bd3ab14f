# Mirrored by scripts/unasync.py from tests/contract/_async/test_session.py: edit that and run `make sync`.
"""Many generations over one stream."""

from __future__ import annotations

import pytest

from deepseek_grpc import ClientConfig, Finished, Retry, Started, TextDelta, Tool, system, tool_result, user
from deepseek_grpc.errors import (
    ClosedError,
    DeepSeekError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RequestTooLargeError,
    ServiceUnavailableError,
    StreamInterruptedError,
)
from deepseek_grpc.testing import Delay, Fail, FakeServer, Reasoning, Stall, ToolUse
from tests.contract.concurrency import gather_threads, start_thread

HELLO = "Hello from the fake server."


@pytest.fixture
def session(client):
    with client.text.session() as session:
        yield session


def text_of(stream):
    with stream:
        return "".join(list(stream.text()))


def test_a_whole_answer(fake_server, session):
    fake_server.text.script("Hel", "lo")
    answer = session.generate("Hi", request_id="req-1", system_message="Be brief", temperature=0.5)
    assert answer.text == "Hello"
    assert answer.finish_reason == "stop"
    assert answer.usage.total_tokens == 4
    assert answer.meta.request_id == "req-1"
    assert answer.meta.model == "fake"
    assert answer.meta.upstream.backend == "scripted"
    recorded = fake_server.text.requests[0]
    assert recorded.request.messages == (system("Be brief"), user("Hi"))
    assert recorded.request.temperature == 0.5
    assert recorded.request.request_id == "req-1"
    assert recorded.client_id == "test-client"


def test_a_streamed_answer(fake_server, session):
    fake_server.text.script("Hel", "lo")
    with session.stream("Hi") as stream:
        events = list(stream)
    assert events[:3] == [Started("fake-1", 0, "fake", "fp_fake"), TextDelta("Hel"), TextDelta("lo")]
    assert isinstance(events[3], Finished)
    assert len(events) == 4


def test_it_has_an_id(session):
    session.generate("Hi")
    assert len(session.session_id) == 32


def test_its_metadata(fake_server):
    with (
        fake_server.client(config=ClientConfig(metadata={"x-team": "a"})) as client,
        client.text.session(metadata={"x-trace": "b"}, request_id="ses-1") as session,
    ):
        session.generate("Hi", request_id="req-1")
    metadata = fake_server.text.requests[0].metadata
    assert (metadata["x-team"], metadata["x-trace"], metadata["x-request-id"]) == ("a", "b", "ses-1")


def test_turns_one_after_the_other(session):
    for i in range(20):
        assert (session.generate(f"question {i}")).text == HELLO


def test_64_turns_at_once(fake_server, session):
    def ask(i):
        if i % 2:
            return lambda: session.generate(f"question {i}")
        return lambda: text_of(session.stream(f"question {i}"))

    answers = gather_threads(*(ask(i) for i in range(64)))
    assert [answer if isinstance(answer, str) else answer.text for answer in answers] == [HELLO] * 64
    asked = {recorded.request.messages[0].content for recorded in fake_server.text.requests}
    assert asked == {f"question {i}" for i in range(64)}


def test_turns_do_not_wait_for_each_other(fake_server, session):
    fake_server.text.script(Stall())
    slow = session.stream("slow")
    fake_server.text.wait_for_requests(1)
    assert (session.generate("quick")).text == HELLO
    slow.cancel()
    assert (slow.final()).finish_reason == "cancelled"


def test_a_reader_that_stands_still_leaves_others(fake_server, session):
    fake_server.text.script(*["x" * 10_000] * 500)
    with session.stream("long") as stream:
        for _ in stream.text():
            break
        for _ in range(5):
            assert (session.generate("quick")).text == HELLO
        assert (stream.final()).text == "x" * 5_000_000


def test_cancelling_one_leaves_others(fake_server, session):
    for _ in range(3):
        fake_server.text.script("a", Delay(0.2), "b")
    streams = []
    for i in range(3):
        streams.append(session.stream("Hi"))
        fake_server.text.wait_for_requests(i + 1)
    streams[1].cancel()
    assert (streams[1].final()).finish_reason == "cancelled"
    fake_server.text.wait_for_cancellations(1)
    assert (streams[0].final()).text == "ab"
    assert (streams[2].final()).text == "ab"
    assert fake_server.text.cancelled == 1


def test_a_failing_turn_leaves_others(fake_server, session):
    fake_server.text.script(Delay(0.05), Fail("RESOURCE_EXHAUSTED", retry_after=7, retryable=False))
    fake_server.text.script("a", Delay(0.1), "b")
    failing = session.stream("Hi")
    fake_server.text.wait_for_requests(1)
    fine = session.stream("Hi")
    with pytest.raises(DeepSeekError) as caught:
        failing.final()
    assert caught.value.retry_after == 7
    assert (fine.final()).text == "ab"
    assert (session.generate("Hi")).text == HELLO


def test_a_bad_request_leaves_others(fake_server, session):
    with pytest.raises(InvalidRequestError) as caught:
        session.generate("Hi", temperature=5)
    assert caught.value.field == "temperature"
    with pytest.raises(InvalidRequestError):
        session.stream("")
    assert (session.generate("Hi")).text == HELLO
    assert len(fake_server.text.requests) == 1


def test_a_model_that_is_not_there(fake_server, session):
    fake_server.text.script(Fail("NOT_FOUND", "no such model"))
    with pytest.raises(NotFoundError, match="no such model"):
        session.generate("Hi", model="nobody", request_id="req-1")
    assert (session.generate("Hi")).text == HELLO


def test_turns_need_their_own_permission():
    with FakeServer(permissions=["text.session"]) as fake_server:
        with fake_server.client() as client, client.text.session() as session:
            for _ in range(2):
                with pytest.raises(PermissionDeniedError, match=r"text\.generate") as caught:
                    session.generate("Hi", request_id="req-1")
                assert caught.value.request_id == "req-1"
            with pytest.raises(PermissionDeniedError):
                session.stream("Hi").final()
        assert not fake_server.text.requests


def test_closing_it_ends_its_turns(fake_server, client):
    fake_server.text.script(Stall())
    fake_server.text.script("a", Stall())
    session = client.text.session()
    whole = start_thread(lambda: session.generate("Hi", request_id="req-1"))
    fake_server.text.wait_for_requests(1)
    stream = session.stream("Hi", request_id="req-2")
    fake_server.text.wait_for_requests(2)
    session.close()
    with pytest.raises(ClosedError) as caught:
        whole.result()
    assert caught.value.request_id == "req-1"
    with pytest.raises(ClosedError) as caught:
        stream.final()
    assert caught.value.request_id == "req-2"
    fake_server.text.wait_for_cancellations(2)
    assert (client.text.generate("Hi")).text == HELLO


def test_a_closed_session_starts_nothing(client):
    session = client.text.session()
    session.generate("Hi")
    session.close()
    session.close()
    with pytest.raises(ClosedError):
        session.generate("Hi")
    with pytest.raises(ClosedError):
        session.stream("Hi")


def test_closing_the_client_ends_its_turns(fake_server):
    fake_server.text.script(Stall())
    client = fake_server.client()
    session = client.text.session()
    call = start_thread(lambda: session.generate("Hi"))
    fake_server.text.wait_for_requests(1)
    client.close()
    with pytest.raises(ClosedError):
        call.result()
    with pytest.raises(ClosedError):
        session.generate("Hi")
    session.close()
    fake_server.text.wait_for_cancellations(1)


def test_a_gateway_that_dies_for_good_ends_every_turn():
    with FakeServer() as fake_server:
        fake_server.text.script("a", Stall())
        fake_server.text.script(Stall())
        config = ClientConfig(reconnect_seconds=0.3, reconnect_backoff=(0.02, 0.1))
        with fake_server.client(config=config) as client, client.text.session() as session:
            begun = session.stream("Hi", request_id="req-1", on_interrupt="raise")
            for event in begun:
                if isinstance(event, TextDelta):
                    break
            waiting = start_thread(lambda: session.generate("Hi", request_id="req-2"))
            fake_server.text.wait_for_requests(2)
            fake_server.stop()
            with pytest.raises(StreamInterruptedError) as cut:
                begun.final()
            assert cut.value.partial == "a"
            assert cut.value.request_id == "req-1"
            with pytest.raises(ServiceUnavailableError) as lost:
                waiting.result()
            assert lost.value.request_id == "req-2"
            assert lost.value.retryable
            with pytest.raises(ServiceUnavailableError) as over:
                session.generate("Hi", request_id="req-3")
            assert over.value.request_id == "req-3"


def test_sessions_beside_each_other(client):
    with client.text.session() as one, client.text.session() as two:
        gather_threads(lambda: one.generate("x"), lambda: two.generate("y"))
        assert one.session_id != two.session_id


def test_a_session_that_is_never_used(client):
    with client.text.session():
        pass
    assert (client.text.generate("Hi")).text == HELLO


# Conversations


def asked(fake_server):
    """What each request had for its messages."""
    return [
        [(message.role, message.content) for message in recorded.request.messages]
        for recorded in fake_server.text.requests
    ]


def test_a_turn_goes_on_from_an_answer(fake_server, session):
    fake_server.text.script("Bern")
    first = session.generate("The capital?", system_message="Be brief")
    second = session.generate("Why?", parent=first)
    session.generate("Really?", parent=second)
    before = [("system", "Be brief"), ("user", "The capital?"), ("assistant", "Bern"), ("user", "Why?")]
    assert asked(fake_server)[1] == before
    assert asked(fake_server)[2] == [*before, ("assistant", HELLO), ("user", "Really?")]


def test_a_turn_goes_on_from_a_stream(fake_server, session):
    fake_server.text.script("Bern")
    with session.stream("The capital?") as stream:
        answer = stream.final()
    for parent in (stream, answer):
        with session.stream("Why?", parent=parent) as further:
            further.final()
    assert asked(fake_server)[1:] == [[("user", "The capital?"), ("assistant", "Bern"), ("user", "Why?")]] * 2


def test_two_turns_may_go_on_from_one(fake_server, session):
    first = session.generate("Hi")
    gather_threads(lambda: session.generate("a", parent=first), lambda: session.generate("b", parent=first))
    assert sorted(messages[-1] for messages in asked(fake_server)[1:]) == [("user", "a"), ("user", "b")]
    assert all(messages[:2] == [("user", "Hi"), ("assistant", HELLO)] for messages in asked(fake_server)[1:])


def test_tool_results_go_to_the_turn_that_called(fake_server, session):
    fake_server.text.script(Reasoning("Hm."), ToolUse("weather", '{"city": "Bern"}'))
    answer = session.generate("How warm is it in Bern?", tools=[Tool("weather")])
    session.generate([tool_result(answer.tool_calls[0], "21")], parent=answer, tools=[Tool("weather")])
    question, called, result = fake_server.text.requests[1].request.messages
    assert question == user("How warm is it in Bern?")
    assert (called.tool_calls, called.reasoning_content) == (answer.tool_calls, "Hm.")
    assert result == tool_result("call_1", "21")


def test_a_turn_goes_on_from_one_that_was_interrupted(fake_server, session):
    fake_server.text.script("Once upon", " a time", Stall())
    with session.stream("Tell me a story") as stream:
        for piece in stream.text():
            if piece == " a time":
                break
        stream.cancel()
    session.generate("Another one", parent=stream)
    assert asked(fake_server)[1] == [
        ("user", "Tell me a story"),
        ("assistant", "Once upon a time"),
        ("user", "Another one"),
    ]


def test_a_conversation_goes_on_in_another_session(fake_server, client, session):
    first = session.generate("Hi", system_message="Be brief")
    second = session.generate("Again", parent=first)
    session.close()
    with client.text.session() as other:
        other.generate("And again", parent=second)
    assert asked(fake_server)[2] == [
        ("system", "Be brief"),
        ("user", "Hi"),
        ("assistant", HELLO),
        ("user", "Again"),
        ("assistant", HELLO),
        ("user", "And again"),
    ]


def test_a_conversation_that_the_gateway_has_forgotten_is_sent_whole(fake_server, session):
    first = session.generate("Hi")
    for letter in "abc":  # 1 MiB is kept
        session.generate(letter * 400_000)
    session.generate("Again", parent=first)
    assert asked(fake_server)[-1] == [("user", "Hi"), ("assistant", HELLO), ("user", "Again")]
    assert len(fake_server.text.requests) == 5


def test_bad_parents(fake_server, client, session):
    fake_server.text.script("a", Stall())
    stream = session.stream("Hi")
    fake_server.text.wait_for_requests(1)
    answer = client.text.generate("Hi")
    for parent, problem in ((stream, "isn't over"), (answer, "didn't come in a session"), ("Hi", "is a str")):
        with pytest.raises(InvalidRequestError, match=problem) as caught:
            session.generate("Hi", parent=parent)
        assert caught.value.field == "parent"
    stream.cancel()
    with pytest.raises(InvalidRequestError) as caught:
        session.generate("Hi", parent=stream, system_message="Be brief")
    assert caught.value.field == "system_message"


# Completions


def test_a_completion(fake_server, session):
    fake_server.text.script("mid", "dle")
    answer = session.complete("begin", suffix="end", max_tokens=5, request_id="req-1")
    assert (answer.text, answer.meta.request_id) == ("middle", "req-1")
    request = fake_server.text.completions[0].request
    assert (request.prompt, request.suffix, request.max_tokens) == ("begin", "end", 5)


def test_a_streamed_completion(fake_server, session):
    fake_server.text.script("mid", "dle")
    assert text_of(session.stream_complete("begin", suffix="end")) == "middle"
    assert fake_server.text.completions[0].streamed


def test_completions_need_their_own_permission():
    with FakeServer(permissions=["text.session", "text.generate"]) as fake_server:
        with fake_server.client() as client, client.text.session() as session:
            assert (session.generate("Hi")).text == HELLO
            with pytest.raises(PermissionDeniedError, match=r"text\.complete"):
                session.complete("Hi")


# Flow control


def test_a_reader_that_stands_still_stops_its_own_engine(fake_server, session):
    fake_server.text.script(*["x" * 1000] * 1000)
    with session.stream("long") as stream:
        for _ in stream.text():
            break
        session.generate("quick")
        stream.cancel()
        assert len((stream.final()).text) <= 128 * 1024  # two credits: one was taken
    fake_server.text.wait_for_cancellations(1)


def test_a_turn_that_is_given_up_before_it_begins(fake_server, session):
    stream = session.stream("Hi")
    stream.cancel()
    assert (stream.final()).finish_reason == "cancelled"
    assert (session.generate("Hi")).text == HELLO


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_what_passes_is_tried_again_as_calls_are(fake_server, session, code):
    for _ in range(2):
        fake_server.text.script(Fail(code, retry_after=0.05))
        fake_server.text.script("Hel", "lo")
    answer = session.generate("Hi")
    assert (answer.text, answer.meta.upstream.attempts) == ("Hello", 2)
    assert text_of(session.stream("Hi")) == "Hello"
    assert len(fake_server.text.requests) == 4


def test_what_does_not_pass_is_tried_as_often_as_calls_are(fake_server):
    fake_server.text.default = (Fail("UNAVAILABLE"),)
    config = ClientConfig(retry=Retry(attempts=3, initial_backoff=0.05))
    with fake_server.client(config=config) as client, client.text.session() as session:
        with pytest.raises(ServiceUnavailableError) as caught:
            session.generate("Hi")
    assert (caught.value.attempts, len(fake_server.text.requests)) == (3, 3)


def test_a_turn_that_waits_to_be_tried_again_can_be_given_up(fake_server, session):
    fake_server.text.script(Fail("UNAVAILABLE", retry_after=30))
    stream = session.stream("Hi")
    fake_server.text.wait_for_requests(1)
    session.generate("Hi")
    stream.cancel()
    assert (stream.final()).finish_reason == "cancelled"
    fake_server.text.script(Fail("UNAVAILABLE", retry_after=30))
    call = start_thread(lambda: session.generate("Hi"))
    fake_server.text.wait_for_requests(3)
    session.close()
    with pytest.raises(ClosedError):
        call.result()


def test_no_retries_are_no_reason_to_lose_a_conversation(fake_server):
    config = ClientConfig(retry=Retry(attempts=1))
    with fake_server.client(config=config) as client, client.text.session() as session:
        first = session.generate("Hi")
        for letter in "abc":
            session.generate(letter * 400_000)
        session.generate("Again", parent=first)
    assert asked(fake_server)[-1] == [("user", "Hi"), ("assistant", HELLO), ("user", "Again")]


def test_a_conversation_may_be_long(fake_server, client, session):
    answer = session.generate("0")
    for number in range(1, 1200):
        answer = session.generate(str(number), parent=answer)
    with client.text.session() as other:
        other.generate("last", parent=answer)
    assert len(asked(fake_server)[-1]) == 2 * 1200 + 1


def test_an_answer_that_no_message_may_carry_ends_in_an_error(fake_server):
    fake_server.text.script("x" * 600_000)
    config = ClientConfig(max_message_bytes=300_000)
    with fake_server.client(config=config) as client, client.text.session() as session:
        with pytest.raises(RequestTooLargeError):
            session.generate("Hi")
        assert (session.generate("Hi")).text == HELLO
