"""The sync transport over grpc_testing's channel: what is sent, what comes back, and no network."""

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import grpc_testing
import pytest

from deepseek_grpc import Client
from deepseek_grpc._call import call_options
from deepseek_grpc._codec.status import DETAILS_KEY, encode_status
from deepseek_grpc._transport import sync_stream
from deepseek_grpc._transport.sync import Link, Wire
from deepseek_grpc._transport.sync_session import open_session
from deepseek_grpc._transport.timers import Timers
from deepseek_grpc.auth import StaticToken
from deepseek_grpc.config import ClientConfig, Timeouts
from deepseek_grpc.errors import (
    AuthenticationError,
    ClosedError,
    ConnectError,
    ContextLengthError,
    DeadlineExceededError,
    FirstTokenTimeoutError,
    IdleTimeoutError,
    InternalError,
    PermissionDeniedError,
    RateLimitError,
    ServiceUnavailableError,
    StreamInterruptedError,
)
from deepseek_grpc.types import Finished, Started, TextDelta, Usage
from deepseek_rpc.v2 import text_pb2 as pb
from deepseek_rpc.v2.text_pb2_grpc import TextServiceStub

SERVICE = pb.DESCRIPTOR.services_by_name["TextService"]
GENERATE, STREAM, SESSION = (SERVICE.methods_by_name[name] for name in ("Generate", "StreamGenerate", "Session"))
OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE
ASK = pb.GenerateRequest(request_id="r1", prompt="Hi")
EXPIRED = "e30.eyJleHAiOiAwfQ.x"  # a JWT with "exp": 0


class Channel:
    """grpc_testing's channel, which doesn't know `wait_for_ready`; keeps the options that calls were made with."""

    def __init__(self):
        self.test = grpc_testing.channel([SERVICE], grpc_testing.strict_real_time())
        self.calls = []

    def __getattr__(self, arity):
        make = getattr(self.test, arity)

        def made(path, **serializers):
            method = make(path, **serializers)

            def call(request, *, timeout=None, metadata=None, credentials=None, wait_for_ready=None):
                assert credentials is None
                self.calls.append((path, timeout, wait_for_ready))
                return method(request, timeout=timeout, metadata=metadata)

            return call

        return made

    def close(self):
        """Has nothing to close."""


@pytest.fixture
def channel():
    return Channel()


@pytest.fixture
def threads():
    with ThreadPoolExecutor() as pool:
        yield pool


def connect(channel, source=None, **config):
    link = Link("127.0.0.1:1", ClientConfig(**config), source)
    link._wire = Wire(channel)
    return link


@pytest.fixture
def link(channel):
    return connect(channel)


def options(link, timeout=None, **given):
    return call_options(link.config, timeout, request_id="r1", **given)


def ask(link, **given):
    return link.unary(TextServiceStub, "Generate", ASK, options(link, **given))


def listen(link, timeout=None):
    return link.stream(TextServiceStub, "StreamGenerate", ASK, options(link, timeout))


def batch(*texts):
    return pb.StreamGenerateResponse(chunks=[pb.GenerateChunk(text=text) for text in texts])


def trailers(error):
    return ((DETAILS_KEY, encode_status(error).SerializeToString()),)


# One request, one answer


def test_an_answer(channel, link, threads):
    answer = threads.submit(ask, link)
    metadata, request, rpc = channel.test.take_unary_unary(GENERATE)
    assert request == ASK
    assert dict(metadata)["x-request-id"] == "r1"
    rpc.terminate(pb.GenerateResponse(id="a1"), (), OK, "")
    assert answer.result() == pb.GenerateResponse(id="a1")


@pytest.mark.parametrize(("timeout", "total"), [(7, 7), (None, None), (Timeouts(total=0.5), 0.5)])
def test_what_is_left_of_the_total_time_is_the_rpcs_deadline(channel, link, threads, timeout, total):
    answer = threads.submit(ask, link, timeout=timeout)
    channel.test.take_unary_unary(GENERATE)[2].terminate(pb.GenerateResponse(), (), OK, "")
    answer.result()
    ((path, sent, _),) = channel.calls
    assert path == "/deepseek_rpc.v2.TextService/Generate"
    assert sent is total is None or 0 < sent < total


@pytest.mark.parametrize("timeout", [0, 1e-9, Timeouts(total=0)])
def test_a_call_whose_time_is_over_is_not_sent(channel, link, timeout):
    for call in (ask, listen):
        with pytest.raises(DeadlineExceededError, match="before the call was sent"):
            call(link, timeout=timeout)
    assert channel.calls == []


def test_waiting_for_a_connection_is_passed_on(channel, threads):
    answer = threads.submit(ask, connect(channel, wait_for_ready=True))
    channel.test.take_unary_unary(GENERATE)[2].terminate(pb.GenerateResponse(), (), OK, "")
    answer.result()
    assert channel.calls[0][2] is True


@pytest.mark.parametrize(
    ("delivery", "sent"),
    [("metadata", "Bearer t"), ("call", None)],  # as call credentials, it is the channel's to send
)
def test_a_token_goes_the_way_that_was_chosen(channel, threads, delivery, sent):
    link = connect(channel, StaticToken("t"), token_delivery=delivery, metadata={"x-team": "a"})
    answer = threads.submit(ask, link, metadata={"x-trace": "7"})
    metadata, _, rpc = channel.test.take_unary_unary(GENERATE)
    rpc.terminate(pb.GenerateResponse(), (), OK, "")
    answer.result()
    assert dict(metadata).get("authorization") == sent
    assert (dict(metadata)["x-team"], dict(metadata)["x-trace"]) == ("a", "7")


@pytest.mark.parametrize("delivery", ["metadata", "call"])
@pytest.mark.parametrize("make", [ask, listen])
def test_without_a_good_token_nothing_is_sent(channel, delivery, make):
    link = connect(channel, StaticToken(EXPIRED), token_delivery=delivery)
    with pytest.raises(AuthenticationError, match="expired"):
        make(link)
    assert channel.calls == []


def test_a_failure_is_what_its_details_say(channel, link, threads):
    answer = threads.submit(ask, link)
    rpc = channel.test.take_unary_unary(GENERATE)[2]
    failure = ContextLengthError("too long", request_id="r7", attempts=2, metadata={"field": "messages"})
    rpc.terminate(None, trailers(failure), failure.code, "too long")
    with pytest.raises(ContextLengthError) as caught:
        answer.result()
    assert vars(caught.value) == vars(failure)
    assert isinstance(caught.value.__cause__, grpc.RpcError)


@pytest.mark.parametrize(
    ("code", "details", "cls"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "not you", PermissionDeniedError),
        (UNAVAILABLE, "failed to connect to all addresses", ConnectError),
        (UNAVAILABLE, "Socket closed", ServiceUnavailableError),
        (grpc.StatusCode.UNKNOWN, "", InternalError),
    ],
)
def test_a_failure_without_details_is_its_status(channel, link, threads, code, details, cls):
    answer = threads.submit(ask, link)
    channel.test.take_unary_unary(GENERATE)[2].terminate(None, (), code, details)
    with pytest.raises(cls) as caught:
        answer.result()
    assert type(caught.value) is cls
    assert caught.value.request_id == "r1"


def test_after_close_nothing_more_is_sent(channel, link, threads):
    answer = threads.submit(ask, link)
    rpc = channel.test.take_unary_unary(GENERATE)[2]
    link.close()
    link.close()
    rpc.terminate(None, (), grpc.StatusCode.CANCELLED, "Channel closed!")
    with pytest.raises(ClosedError):
        answer.result()
    with pytest.raises(ClosedError):
        ask(link)
    assert len(channel.calls) == 1


# One request, many answers


def test_a_stream_comes_batch_by_batch(channel, link):
    stream = listen(link)
    metadata, request, rpc = channel.test.take_unary_stream(STREAM)
    assert (request, dict(metadata)["x-request-id"]) == (ASK, "r1")
    rpc.send_response(batch("Hel", "lo"))
    rpc.send_response(batch("!"))
    rpc.terminate((), OK, "")
    assert [chunk.text for chunk in stream.read()] == ["Hel", "lo"]
    assert [chunk.text for chunk in stream.read()] == ["!"]
    assert stream.read() is None
    assert stream.read() is None


def test_a_stream_that_fails_before_content(channel, link):
    stream = listen(link)
    channel.test.take_unary_stream(STREAM)[2].terminate((), UNAVAILABLE, "Socket closed")
    with pytest.raises(ServiceUnavailableError):
        stream.read()
    assert stream.read() is None


def test_a_stream_that_fails_after_content_was_interrupted(channel, link):
    stream = listen(link)
    rpc = channel.test.take_unary_stream(STREAM)[2]
    rpc.send_response(batch("Hel"))
    stream.read()
    stream.content()
    rpc.terminate((), UNAVAILABLE, "Socket closed")
    with pytest.raises(StreamInterruptedError, match="mid-stream") as caught:
        stream.read()
    assert caught.value.request_id == "r1"


def test_a_stream_that_fails_with_details(channel, link):
    stream = listen(link)
    failure = RateLimitError("slow down", retry_after=2.5)
    channel.test.take_unary_stream(STREAM)[2].terminate(trailers(failure), failure.code, "slow down")
    with pytest.raises(RateLimitError) as caught:
        stream.read()
    assert caught.value.retry_after == 2.5


def test_cancelling_ends_a_stream_here_and_there(channel, link, threads):
    stream = listen(link)
    rpc = channel.test.take_unary_stream(STREAM)[2]
    reading = threads.submit(stream.read)
    stream.cancel()  # from another thread than the one that reads
    assert reading.result() is None
    rpc.cancelled()
    stream.cancel()


def test_closing_ends_a_stream_that_is_not_over(channel, link):
    stream = listen(link)
    rpc = channel.test.take_unary_stream(STREAM)[2]
    stream.close()
    rpc.cancelled()
    assert stream.read() is None
    stream.close()


def test_no_first_token_in_time(channel, link):
    stream = listen(link, Timeouts(first_token=0.01, idle=None))
    rpc = channel.test.take_unary_stream(STREAM)[2]
    with pytest.raises(FirstTokenTimeoutError) as caught:
        stream.read()
    assert caught.value.request_id == "r1"
    rpc.cancelled()


def test_content_that_stops(channel, link):
    stream = listen(link, Timeouts(first_token=None, idle=0.01))
    rpc = channel.test.take_unary_stream(STREAM)[2]
    rpc.send_response(batch("Hel"))
    stream.read()
    stream.content()
    with pytest.raises(IdleTimeoutError):
        stream.read()
    rpc.cancelled()


def test_a_users_stream(channel):
    with Client("127.0.0.1:1") as client:
        client._link._wire = Wire(channel)
        with client.text.stream("Hi") as stream:
            rpc = channel.test.take_unary_stream(STREAM)[2]
            head = pb.GenerateChunk(head=pb.GenerateHead(id="a1", model="m"))
            tail = pb.GenerateChunk(tail=pb.GenerateTail(finish_reason=pb.FINISH_REASON_STOP))
            rpc.send_response(pb.StreamGenerateResponse(chunks=[head, pb.GenerateChunk(text="Hel")]))
            rpc.send_response(pb.StreamGenerateResponse(chunks=[pb.GenerateChunk(text="lo"), tail]))
            rpc.terminate((), OK, "")
            events = list(stream)
            final = stream.final()
    assert events[:3] == [Started("a1", model="m"), TextDelta("Hel"), TextDelta("lo")]
    assert isinstance(events[3], Finished)
    assert (final.text, final.finish_reason, final.usage, final.meta.model) == ("Hello", "stop", Usage(), "m")


def test_a_users_stream_that_is_cut_keeps_what_had_come(channel):
    with Client("127.0.0.1:1") as client:
        client._link._wire = Wire(channel)
        stream = client.text.stream("Hi", on_interrupt="raise")
        rpc = channel.test.take_unary_stream(STREAM)[2]
        rpc.send_response(batch("Hel", "lo"))
        events = iter(stream)
        assert [next(events), next(events)] == [TextDelta("Hel"), TextDelta("lo")]
        rpc.terminate((), UNAVAILABLE, "Socket closed")
        with pytest.raises(StreamInterruptedError) as caught:
            next(events)
    assert caught.value.partial == "Hello"


def test_a_stream_that_ends_without_an_end_was_cut(channel):
    with Client("127.0.0.1:1") as client:
        client._link._wire = Wire(channel)
        stream = client.text.stream("Hi", on_interrupt="raise")
        rpc = channel.test.take_unary_stream(STREAM)[2]
        rpc.send_response(batch("Hel"))
        rpc.terminate((), OK, "")
        with pytest.raises(StreamInterruptedError, match="ended before") as caught:
            stream.final()
    assert caught.value.partial == "Hel"


def test_a_client_that_may_send_more_sends_more(channel, threads):
    with Client("127.0.0.1:1", config=ClientConfig(max_message_bytes=64 * 2**20)) as client:
        client._link._wire = Wire(channel)
        with client.text.stream("x" * 20_000_000):
            assert len(channel.test.take_unary_stream(STREAM)[1].prompt) == 20_000_000


# Timers


@pytest.fixture
def timers():
    timers = Timers()
    done = threading.Event()
    timers.at(0, done.set)
    assert done.wait(30)
    return timers


def test_a_stream_that_is_over_leaves_no_timer(channel, link, monkeypatch):
    timers = Timers()
    monkeypatch.setattr(sync_stream, "timers", timers)
    for _ in range(200):
        stream = listen(link, Timeouts(first_token=600))
        rpc = channel.test.take_unary_stream(STREAM)[2]
        rpc.terminate((), OK, "")
        assert stream.read() is None
    assert len(timers._heap) < 100


def test_a_cancelled_timer_is_not_called(timers):
    called = []
    done = threading.Event()
    now = time.monotonic()
    entries = [timers.at(now + 0.05, lambda: called.append("cancelled")) for _ in range(5)]
    for entry in entries:
        timers.cancel(entry)
        timers.cancel(entry)
    timers.at(now + 0.06, done.set)
    assert done.wait(30)
    assert called == []
    assert timers._cancelled == 0


def test_a_timer_that_fails_leaves_the_others(timers, caplog):
    done = threading.Event()
    timers.at(0, lambda: 1 / 0)
    timers.at(0, done.set)
    assert done.wait(30)
    assert "ZeroDivisionError" in caplog.text


FORK = """
import os, threading
from deepseek_grpc._transport.timers import timers

def works():
    done = threading.Event()
    timers.at(0, done.set)
    return done.wait(20)

assert works()
held, release = threading.Event(), threading.Event()

def hold():
    with timers._condition:
        held.set()
        release.wait()

thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if not child:
    os._exit(0 if works() else 1)
release.set()
thread.join()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert works()
"""


def test_timers_work_in_a_child_that_was_forked_in_the_middle_of_one():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=50)


# A session


@pytest.fixture
def session(channel, link):
    driver = open_session(link, options(link))
    rpc = opened(channel, resume_token="")
    yield driver, rpc
    up = bool(driver.session_id)
    closing = threading.Thread(target=driver.close)
    closing.start()
    if up:
        rpc.terminate((), OK, "")
    closing.join()


def opened(channel, **fields):
    """Takes the session's next connection, and answers its first message."""
    _, rpc = channel.test.take_stream_stream(SESSION)
    [opening] = heard(rpc)
    assert opening.open.resumable
    say(rpc, pb.ServerFrame(opened=pb.OpenedFrame(session_id="s1", **fields)))
    return rpc


def heard(rpc):
    return pb.SessionRequest.FromString(rpc.take_request()).frames


def say(rpc, *frames):
    rpc.send_response(pb.SessionResponse(frames=frames).SerializeToString())


def chunks(turn_id, *texts, spent=0):
    pieces = [pb.GenerateChunk(text=text) for text in texts]
    return pb.ServerFrame(chunks=pb.ChunksFrame(turn_id=turn_id, chunks=pieces, spent=spent))


def done(turn_id, **response):
    return pb.ServerFrame(done=pb.DoneFrame(turn_id=turn_id, **response))


def start(session, timeout=None, *, stream=True):
    driver, rpc = session
    turn = driver.start(ASK, call_options(ClientConfig(), timeout, request_id="r1"), stream=stream)
    [frame] = heard(rpc)
    assert frame.start.request == ASK
    return turn, frame.start


def test_a_session_carries_turns_both_ways(session):
    streamed, first = start(session)
    whole, second = start(session, 1.5, stream=False)
    assert (first.stream, second.stream, second.deadline_ms) == (True, False, 1500)
    say(
        session[1],
        chunks(first.turn_id, "Hel"),
        done(second.turn_id, response=pb.GenerateResponse(id="a1")),
        chunks(first.turn_id, "lo", spent=100),
        done(first.turn_id),
    )
    assert whole.result() == pb.GenerateResponse(id="a1")
    assert [piece.text for piece in streamed.read()] == ["Hel", "lo"]
    assert streamed.read() is None
    assert session[0].session_id == "s1"


def test_what_was_taken_is_credited(session):
    turn, frame = start(session)
    say(session[1], chunks(frame.turn_id, "Hel", spent=100))
    assert [piece.text for piece in turn.read()] == ["Hel"]
    [credit] = heard(session[1])
    assert (credit.credit.turn_id, credit.credit.bytes) == (frame.turn_id, 100)


def test_cancelling_a_turn_leaves_the_session_up(session, threads):
    turn, frame = start(session)
    reading = threads.submit(turn.read)
    turn.cancel()
    assert reading.result() is None
    [cancel] = heard(session[1])
    assert cancel.cancel.turn_id == frame.turn_id
    other, again = start(session, stream=False)
    say(session[1], done(again.turn_id, response=pb.GenerateResponse(id="a2")))
    assert other.result().id == "a2"


@pytest.mark.parametrize(
    ("timeout", "error"), [(Timeouts(first_token=0.01), FirstTokenTimeoutError), (0.01, DeadlineExceededError)]
)
def test_a_turn_that_says_nothing_is_cancelled_alone(session, timeout, error):
    turn, frame = start(session, timeout)
    with pytest.raises(error):
        turn.read()
    [cancel] = heard(session[1])
    assert cancel.cancel.turn_id == frame.turn_id


def test_a_turn_fails_alone(session):
    turn, frame = start(session)
    error = pb.ErrorFrame(turn_id=frame.turn_id)
    error.status.CopyFrom(encode_status(RateLimitError("slow down", retry_after=1, retryable=False)))
    say(session[1], pb.ServerFrame(error=error))
    with pytest.raises(RateLimitError) as caught:
        turn.read()
    assert (caught.value.retry_after, caught.value.request_id) == (1.0, "r1")
    start(session)


def test_a_lost_sessions_turns_begin_again_elsewhere(session, channel, threads):
    whole, _ = start(session, stream=False)
    streamed, frame = start(session)
    say(session[1], chunks(frame.turn_id, "Hel"))
    assert [piece.text for piece in streamed.read()] == ["Hel"]
    waiting = threads.submit(whole.result)
    session[1].terminate((), UNAVAILABLE, "Socket closed")
    with pytest.raises(StreamInterruptedError):
        streamed.read()
    rpc = opened(channel)
    [again] = heard(rpc)
    say(rpc, done(again.start.turn_id, response=pb.GenerateResponse(id="a1")))
    assert waiting.result().id == "a1"
    assert (whole.tries, whole.resumed) == (2, 0)


def test_a_turn_that_is_over_is_over_for_all_that_wait(session, threads):
    turn, frame = start(session)
    reading = [threads.submit(turn.read) for _ in range(3)]
    say(session[1], done(frame.turn_id))
    assert [future.result() for future in reading] == [None] * 3


def test_closing_a_session_ends_its_turns_and_says_so(session, threads):
    turn, _ = start(session, stream=False)
    waiting = threads.submit(turn.result)
    closing = threads.submit(session[0].close)
    with pytest.raises(ClosedError):
        waiting.result()
    [close] = heard(session[1])
    assert close.HasField("close")
    session[1].requests_closed()
    session[1].terminate((), OK, "")
    closing.result()


def test_a_breach_of_the_protocol_ends_the_session(channel, link):
    driver = open_session(link, options(link))
    session = driver, opened(channel, resume_token="t1")
    turn, frame = start(session)
    early = pb.SessionResponse(frames=[done(frame.turn_id)], seq=2)
    session[1].send_response(early.SerializeToString())
    with pytest.raises(InternalError, match="seq is 2"):
        turn.read()
    session[1].cancelled()
    driver.close()
