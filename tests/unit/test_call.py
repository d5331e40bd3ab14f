import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepseek_grpc._call import ContentWatch, call_options, new_request_id
from deepseek_grpc.config import API_VERSION, ClientConfig, Timeouts
from deepseek_grpc.errors import ConfigurationError, FirstTokenTimeoutError, IdleTimeoutError, InvalidRequestError

CONFIG = ClientConfig(timeouts=Timeouts(first_token=2, total=60), metadata={"x-team": "a"})


# What a call carries


def test_a_call_carries_its_id_the_version_and_the_clients_metadata():
    call = call_options(CONFIG)
    assert dict(call.metadata) == {"x-request-id": call.request_id, "x-api-version": API_VERSION, "x-team": "a"}


def test_its_own_metadata_comes_after_that():
    call = call_options(CONFIG, metadata={"x-trace": "7"}, request_id="r1")
    assert call.metadata == (("x-request-id", "r1"), ("x-api-version", API_VERSION), ("x-team", "a"), ("x-trace", "7"))


@pytest.mark.parametrize("metadata", [["x-team"], "x-team", 5])
def test_metadata_is_a_mapping(metadata):
    with pytest.raises(InvalidRequestError, match="give a mapping") as caught:
        call_options(CONFIG, metadata=metadata)
    assert caught.value.field == "metadata"


def test_request_ids_do_not_repeat():
    ids = {new_request_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert {len(id_) for id_ in ids} == {32}


@pytest.mark.parametrize("request_id", ["r", "ORDER-17/3", "x" * 128])
def test_a_request_id_is_the_callers_where_one_is_given(request_id):
    assert call_options(CONFIG, request_id=request_id).request_id == request_id


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a b", "a\n", "ü", 5])
def test_a_request_id_that_cannot_travel_is_refused(request_id):
    with pytest.raises(InvalidRequestError, match="1 to 128 visible ASCII") as caught:
        call_options(CONFIG, request_id=request_id)
    assert caught.value.field == "request_id"


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"authorization": "Bearer x"}, "the client sets itself"),
        ({"x-request-id": "r"}, "the client sets itself"),
        ({"x-api-version": "1"}, "the client sets itself"),
        ({"Upper": "x"}, "lower-case"),
        ({"with space": "x"}, "lower-case"),
        ({"": "x"}, "lower-case"),
        ({":path": "x"}, "lower-case"),
        ({"grpc-timeout": "1S"}, "lower-case"),
        ({"x-bin": "x"}, "lower-case"),
        ({"ü": "x"}, "lower-case"),
        ({"x" * 129: "x"}, "lower-case"),
        ({5: "x"}, "lower-case"),
        ({"x": "line\nbreak"}, "printable ASCII"),
        ({"x": "ü"}, "printable ASCII"),
        ({"x": b"bytes"}, "printable ASCII"),
        ({"x": 5}, "printable ASCII"),
        ({"x": "y" * 5000}, "the limit is 4096"),
        ({f"x{i}": "" for i in range(200)}, "the limit is 4096"),
    ],
)
def test_metadata_that_cannot_travel_is_refused(metadata, says):
    with pytest.raises(InvalidRequestError, match=says) as caught:
        call_options(CONFIG, metadata=metadata)
    assert caught.value.field == "metadata"
    assert len(str(caught.value)) < 300


def test_what_metadata_says_is_not_repeated_by_errors():
    with pytest.raises(InvalidRequestError) as caught:
        call_options(CONFIG, metadata={"x-key": "hidden\nvalue"})
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("given_", "total", "first_token"),
    [
        (5, 5, 2),
        (0, 0, 2),
        (0.5, 0.5, 2),
        (None, None, 2),
        (Timeouts(), 60, 2),
        (Timeouts(total=5), 5, 2),
        (Timeouts(first_token=None), 60, None),
        (Timeouts(total=None, first_token=0), None, 0),
    ],
)
def test_a_timeout_is_total_seconds_or_limits_over_the_clients(given_, total, first_token):
    call = call_options(CONFIG, given_)
    assert (call.total, call.timeouts.first_token) == (total, first_token)
    assert call_options(CONFIG).total == 60


@pytest.mark.parametrize("timeout", [-1, float("nan"), "5", True])
def test_a_timeout_that_makes_no_sense_is_refused(timeout):
    with pytest.raises(ConfigurationError, match=r"Timeouts\.total"):
        call_options(CONFIG, timeout)


@pytest.mark.parametrize(("configured", "sent"), [(True, True), (False, None)])
def test_waiting_for_a_connection_is_the_clients_choice(configured, sent):
    assert call_options(ClientConfig(wait_for_ready=configured)).wait_for_ready is sent


# The watch over a stream's content: seconds are given, not measured


def watch(first_token=2, idle=1):
    return ContentWatch(Timeouts(first_token=first_token, idle=idle))


def over(watch_, now):
    return watch_.check(now) <= 0


def test_no_first_token_in_time():
    watched = watch()
    watched.waiting(100)
    assert not over(watched, 101.9)
    assert over(watched, 102)
    error = watched.error("r1")
    assert (type(error), error.request_id) == (FirstTokenTimeoutError, "r1")
    assert "2 s" in error.details


def test_content_that_stops():
    watched = watch()
    watched.waiting(100)
    watched.content()
    watched.waiting(101)
    assert not over(watched, 101.9)
    assert over(watched, 102)
    error = watched.error("r1")
    assert (type(error), error.request_id) == (IdleTimeoutError, "r1")
    assert "1 s" in error.details


def test_every_piece_of_content_starts_the_idle_time_anew():
    watched = watch()
    for now in range(100, 110):
        watched.waiting(now)
        assert not over(watched, now + 0.9)
        watched.content()


def test_what_is_no_content_does_not_reset_the_time():
    watched = watch()
    watched.waiting(100)
    watched.pause(101.5)  # a keep-alive, or who answers
    watched.waiting(101.5)
    assert not over(watched, 101.9)
    assert over(watched, 102)


def test_time_that_the_program_spends_elsewhere_does_not_count():
    watched = watch()
    watched.waiting(100)
    watched.content()
    assert not over(watched, 500)
    watched.waiting(500)
    watched.pause(500.5)
    assert not over(watched, 900)
    watched.waiting(900)
    assert not over(watched, 900.4)
    assert over(watched, 900.5)


def test_a_stream_that_is_not_read_yet_is_not_late():
    assert not over(watch(), 1e6)


@pytest.mark.parametrize(("first_token", "idle"), [(None, None), (None, 1), (2, None)])
def test_none_is_no_limit(first_token, idle):
    watched = watch(first_token, idle)
    assert watched.active == (first_token is not None or idle is not None)
    watched.waiting(100)
    assert over(watched, 1e6) == (first_token is not None)
    watched.content()
    watched.waiting(2e6)
    assert over(watched, 3e6) == (idle is not None)


def test_zero_is_a_limit():
    watched = watch(first_token=0)
    watched.waiting(100)
    assert over(watched, 100)


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.lists(st.sampled_from(["content", "pause"]), max_size=8), st.data())
def test_whoever_asks_again_when_told_never_misses_the_end(first_token, idle, happenings, data):
    """Plays a timer against a stream: the end is noticed within a twentieth of a second, and never too early."""
    watched, now, waited, begun = watch(first_token, idle), 0.0, 0.0, False
    wake = now + watched.check(now)
    for happening in [*happenings, None]:
        limit = idle if begun else first_token
        watched.waiting(now)
        length = data.draw(st.floats(0, limit - waited)) if happening else limit - waited
        while wake < now + length - 1e-9:
            left = watched.check(wake)
            assert left > 0
            wake += left
        now += length
        waited += length
        if happening == "content":
            watched.content()
            waited, begun = 0.0, True
        elif happening == "pause":
            watched.pause(now)
    assert wake - now < 0.06
    assert over(watched, now + 1e-6)
