"""What is done about a connection that a session has lost."""

from __future__ import annotations

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepseek_grpc import ClientConfig, Retry
from deepseek_grpc._session.client import ClientSession, ClientTurn, Parent
from deepseek_grpc._session.recovery import Recovery, Verdict, second_try
from deepseek_grpc.errors import DeepSeekError, FailedPreconditionError, ServiceUnavailableError, error_class
from deepseek_rpc.v2 import text_pb2 as pb

AGAIN, MOVE, FAIL = Verdict.AGAIN, Verdict.MOVE, Verdict.FAIL
CONFIG = ClientConfig(reconnect_seconds=10, reconnect_backoff=(0.1, 1.0), retry=Retry(attempts=3))
LOST = ServiceUnavailableError("lost")
GONE = FailedPreconditionError("no such session", reason="SESSION_GONE")
ELSEWHERE = FailedPreconditionError("another gateway", reason="SESSION_ELSEWHERE")
PASSING = {
    "UNAVAILABLE",
    "INTERNAL",
    "UNKNOWN",
    "ABORTED",
    "CANCELLED",
    "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
    "DATA_LOSS",
}


def error(code, **more):
    code = grpc.StatusCode[code]
    return error_class(code, "")("it failed", code=code, **more)


def session(state="open"):
    """A session that is `new`, `open`, or open at a gateway that can't resume it (`plain`)."""
    made = ClientSession()
    made.connect()
    if state != "new":
        token = "token" if state == "open" else ""
        opened = pb.ServerFrame(opened={"session_id": "s1", "resume_token": token})
        made.receive(pb.SessionResponse(frames=[opened]).SerializeToString())
    return made


def never():
    raise AssertionError("nobody was to ask for another token")


def decide(recovery, failure, state="open", now=0.0, renews=never):
    return recovery.decide(failure, session(state), now, renews)


def test_a_lost_connection_is_replaced_at_once_and_then_with_patience():
    recovery = Recovery(CONFIG, patient=False)
    recovery.connected(-100.0)
    pauses = []
    for _ in range(7):
        assert decide(recovery, LOST) is AGAIN
        pauses.append(recovery.pause)
    assert pauses == [0.0, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    assert recovery.cause is LOST


def test_a_session_that_never_stood_waits_from_the_first():
    recovery = Recovery(CONFIG, patient=True)
    assert decide(recovery, LOST, "new") is AGAIN
    assert recovery.pause == 0.1


@pytest.mark.parametrize("state", ["new", "open", "plain"])
def test_a_session_that_is_gone_moves(state):
    recovery = Recovery(CONFIG, patient=True)
    assert decide(recovery, GONE, state) is MOVE


def test_the_right_gateway_is_looked_for_three_times():
    recovery = Recovery(CONFIG, patient=True)
    assert [decide(recovery, ELSEWHERE) for _ in range(3)] == [AGAIN, AGAIN, MOVE]
    assert recovery.pause == 0.1
    recovery = Recovery(CONFIG, patient=True)
    decide(recovery, ELSEWHERE)
    decide(recovery, ELSEWHERE)
    recovery.connected(-100.0)  # found: the next time it counts anew
    assert decide(recovery, ELSEWHERE) is AGAIN


@pytest.mark.parametrize("code", [code.name for code in grpc.StatusCode if code.name not in {"OK", "UNAUTHENTICATED"}])
def test_what_passes_by_itself_is_tried_again(code):
    for state in ("new", "open"):
        verdict = decide(Recovery(CONFIG, patient=True), error(code), state)
        assert verdict is (AGAIN if code in PASSING else FAIL)
    assert decide(Recovery(CONFIG, patient=True), error(code), "plain") is (MOVE if code in PASSING else FAIL)


def test_a_refused_token_is_renewed_once():
    refused = error("UNAUTHENTICATED")
    refused.attempts = 1
    recovery = Recovery(CONFIG, patient=True)
    assert decide(recovery, refused, renews=lambda: False) is FAIL
    assert decide(recovery, refused, renews=lambda: True) is AGAIN
    assert recovery.pause == 0.0
    assert decide(recovery, refused, renews=lambda: True) is FAIL
    recovery.connected(-100.0)
    assert decide(recovery, refused, renews=lambda: True) is AGAIN


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_a_first_connection_is_tried_as_often_as_a_call(attempts):
    recovery = Recovery(ClientConfig(retry=Retry(attempts=attempts)), patient=False)
    assert not recovery.waits
    assert recovery.left(5.0) == float("inf")
    verdicts = [decide(recovery, LOST, "new", now=1e6 * i) for i in range(attempts)]
    assert verdicts == [AGAIN] * (attempts - 1) + [FAIL]


def test_one_that_stood_gets_the_whole_time():
    recovery = Recovery(CONFIG, patient=False)
    recovery.connected(-100.0)
    assert recovery.waits
    assert recovery.left(100.0) == 10.0
    assert decide(recovery, LOST, now=100.0) is AGAIN
    assert recovery.left(104.0) == 6.0
    assert decide(recovery, LOST, now=104.0) is AGAIN
    assert recovery.left(200.0) == 0.0
    recovery.connected(-100.0)
    assert recovery.left(200.0) == 10.0


def test_beyond_its_time_there_is_nothing_to_be_done():
    recovery = Recovery(CONFIG, patient=True)
    assert decide(recovery, LOST, now=0.0) is AGAIN
    assert decide(recovery, LOST, now=9.7) is AGAIN  # 0.2 s from now is in time
    assert decide(recovery, LOST, now=9.7) is FAIL  # 0.4 s isn't
    assert recovery.cause is LOST


def test_no_time_at_all_means_no_second_connection():
    recovery = Recovery(ClientConfig(reconnect_seconds=0), patient=True)
    assert decide(recovery, LOST) is FAIL


def test_a_gateway_that_says_when_is_believed():
    recovery = Recovery(CONFIG, patient=True)
    assert decide(recovery, ServiceUnavailableError("busy", retry_after=4.0)) is AGAIN
    assert recovery.pause == 4.0
    assert decide(recovery, ServiceUnavailableError("busy", retry_after=0.01)) is AGAIN
    assert recovery.pause == 0.2
    assert decide(recovery, ServiceUnavailableError("busy", retry_after=11.0)) is FAIL


FAILURES = st.sampled_from(
    [GONE, ELSEWHERE, LOST, ServiceUnavailableError("busy", retry_after=0.5)]
    + [error(code.name) for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
)


@given(
    st.lists(st.tuples(FAILURES, st.floats(0, 30), st.booleans()), max_size=40),
    st.booleans(),
    st.sampled_from(["new", "open", "plain"]),
)
def test_it_comes_to_an_end_whatever_happens(failures, patient, state):
    """While nothing stands, tries stay within the time or the number of attempts; pauses within their limits."""
    recovery = Recovery(CONFIG, patient=patient)
    now, first, tries = 0.0, None, 0
    for failure, passed, stood in failures:
        now += passed
        if stood:
            recovery.connected(-100.0)
            first, tries = None, 0
        assert isinstance(failure, DeepSeekError)
        verdict = decide(recovery, failure, state, now, renews=lambda: True)
        assert 0 <= recovery.pause <= max(1.0, failure.retry_after or 0)
        if verdict is not AGAIN:
            return
        if failure.code.name in PASSING:
            first = now if first is None else first
            tries += 1
            if recovery.waits:
                assert now + recovery.pause - first < CONFIG.reconnect_seconds
            else:
                assert tries < CONFIG.retry.attempts
        now += recovery.pause


# What is done about a turn


def refused(code="UNAVAILABLE", *, reason=None, retry_after=None, retryable=None):
    status = grpc.StatusCode[code]
    cls = error_class(status, reason or "")
    return cls("no", code=status, reason=reason, retry_after=retry_after, retryable=retryable)


class Turn(ClientTurn):
    def __init__(self, tries=1, *, seen=False, left_ms=0, parent=None):
        super().__init__(pb.GenerateRequest(prompt="Hi"), "r1", stream=True, parent=parent)
        self.tries, self.seen, self._left_ms = tries, seen, left_ms

    def deadline_ms(self):
        return self._left_ms


RETRYING = ClientConfig()
ONCE = ClientConfig(retry=Retry(attempts=1))


def parent():
    return Parent("s1", 1, list)


@pytest.mark.parametrize(
    ("turn", "error", "config", "renewed", "pause"),
    [
        (Turn(), refused(), RETRYING, False, 0.1),
        (Turn(2), refused(), RETRYING, False, 0.2),
        (Turn(3), refused(), RETRYING, False, 0.4),
        (Turn(4), refused(), RETRYING, False, None),
        (Turn(), refused(), ONCE, False, None),
        (Turn(), refused("RESOURCE_EXHAUSTED", retry_after=7), RETRYING, False, 7),
        (Turn(left_ms=7000), refused("RESOURCE_EXHAUSTED", retry_after=7), RETRYING, False, None),
        (Turn(), refused("RESOURCE_EXHAUSTED", retryable=False), RETRYING, False, None),
        (Turn(seen=True), refused(), RETRYING, True, None),
        (Turn(), refused("NOT_FOUND"), RETRYING, False, None),
        (Turn(), refused("UNAUTHENTICATED"), RETRYING, True, 0),
        (Turn(2), refused("UNAUTHENTICATED"), RETRYING, True, None),
        (Turn(), refused(reason="GOING_AWAY"), ONCE, False, 0),
        (Turn(8), refused(reason="GOING_AWAY"), ONCE, False, None),
        (Turn(parent=parent()), refused("FAILED_PRECONDITION", reason="PARENT_GONE"), ONCE, False, 0),
        (Turn(), refused("FAILED_PRECONDITION", reason="PARENT_GONE"), RETRYING, False, None),
    ],
)
def test_a_turn_is_started_again_where_that_may_help(turn, error, config, renewed, pause):
    assert second_try(turn, error, ClientSession(), config, lambda: renewed) == pause
    assert error.attempts == turn.tries
