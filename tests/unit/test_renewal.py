"""When a token is renewed, and by whom."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepseek_grpc.auth import Secret
from deepseek_grpc.auth.renewal import Renewal, TokenCache
from deepseek_grpc.errors import AuthenticationError, ConfigurationError

LIFE = 100.0

steps = st.one_of(
    st.tuples(st.just("advance"), st.sampled_from([0.5, 5, 19, 20, 60, 80, 100, 101])),
    st.sampled_from([("call",), ("look",), ("succeed",), ("fail",), ("invalidate",)]),
)


# Decisions alone


@pytest.mark.parametrize("ahead", [True, False])
@given(script=st.lists(steps, max_size=60))
def test_no_interleaving_leads_to_a_bad_decision(ahead, script):
    renewal = Renewal(ahead=ahead)
    now, made, refused = 0.0, {}, {}  # when each token was made; which renewals a refusal caused
    running = cause = None

    def begin(why):
        nonlocal running, cause
        if running is None:  # one at a time: the caller's part
            running, cause = now, why

    for step in script:
        held = renewal.good(now)
        if step[0] == "advance":
            now += step[1]
        elif step[0] == "call" and held is None:
            dropped = [token for token, uses in refused.items() if uses == 0]
            begin(dropped[-1] if dropped else None)
        elif step[0] in ("call", "look") and renewal.due(now):
            begin(None)
        elif step[0] == "invalidate" and held is not None:
            renewal.refused(held, now)
            if renewal.good(now) is None:
                refused.setdefault(held, 0)
            else:  # it was made just now, in the place of a refused one
                assert refused
                assert now - made[held] < 5
        elif step[0] == "succeed" and running is not None:
            token = Secret(f"token-{len(made)}")
            if renewal.renewed(running, now, token, LIFE):
                made[token] = running
                for old in refused:  # the token that takes its place: no refusal of the old one counts any more
                    refused[old] += cause == old
                    renewal.refused(old, now)
                assert renewal.good(now) == token or (not ahead and now >= running + 0.8 * LIFE)
            else:
                assert now >= running + LIFE
            running = cause = None
        elif step[0] == "fail" and running is not None:
            renewal.failed(now)
            assert not renewal.due(now)
            running = cause = None
        held = renewal.good(now)
        if held is not None:
            assert held not in refused
            assert now < made[held] + (LIFE if ahead else 0.8 * LIFE)
    assert all(renewals <= 1 for renewals in refused.values())


def test_the_time_between_attempts_ahead_grows_to_a_minute():
    renewal = Renewal(ahead=True)
    assert renewal.renewed(0, 0, Secret("a"), 1000)
    waits = []
    for _ in range(9):
        renewal.failed(800)
        waits.append(next(wait for wait in (1, 2, 4, 8, 16, 32, 60, 61) if renewal.due(800 + wait)))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    renewal.failed(800, retry_after=100)
    assert not renewal.due(899)
    assert renewal.due(900)
    assert renewal.renewed(900, 900, Secret("b"), 1000)
    renewal.failed(1700)
    assert renewal.due(1701)
    assert (renewal.rest(1700.25), renewal.rest(1701)) == (0.75, 0)
    assert renewal.rest(1600) == 0  # the clock went back


def test_a_replacement_that_is_refused_too_stays_for_a_while():
    renewal = Renewal(ahead=True)
    fetches = 0
    for now in range(50):
        if renewal.good(now) is None:
            fetches += 1
            assert renewal.renewed(now, now, Secret(f"token-{fetches}"), LIFE)
        renewal.refused(renewal.good(now), now)
    assert fetches == 10  # the first, its replacement at once, and then one after 5 s each


# With threads


class Endpoint:
    """Fetches when a test lets it, and keeps count."""

    def __init__(self):
        self.now = 0.0
        self.made = {}
        self.most = self.running = 0
        self.waiting = threading.Semaphore(0)  # fetches that wait for their end
        self.answers = []
        self.answered = threading.Semaphore(0)
        self.lock = threading.Lock()

    def fetch(self):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        started = self.now
        self.waiting.release()
        assert self.answered.acquire(timeout=30)
        with self.lock:
            good = self.answers.pop()
            self.running -= 1
            if not good:
                raise AuthenticationError("no token today", retryable=True)
            token = f"token-{len(self.made)}"
            self.made[token] = started
        return Secret(token), LIFE

    def end(self, good):
        """Ends the fetch that is under way, if there is one."""
        if self.waiting.acquire(blocking=False):
            self.answers.append(good)
            self.answered.release()


@settings(max_examples=60, deadline=None)
@given(script=st.lists(steps, max_size=25))
def test_no_interleaving_of_threads_leads_to_a_bad_token(script):
    endpoint = Endpoint()
    cache = TokenCache(endpoint.fetch, lambda: endpoint.now, ahead=True)
    refused, callers, problems = set(), [], []

    def call(ask):
        before, gone = endpoint.now, set(refused)
        try:
            token = ask()
        except AuthenticationError as error:
            if "no token today" not in str(error) and "was over when it arrived" not in str(error):
                problems.append(error)
        else:
            if token is not None and (token in gone or endpoint.made[token] + LIFE <= before):
                problems.append((token, before))

    for step in script:
        match step:
            case ("advance", seconds):
                endpoint.now += seconds
            case ("call",):
                callers.append(threading.Thread(target=call, args=(cache.token,)))
                callers[-1].start()
            case ("look",):
                call(cache.cached)
            case ("invalidate",):
                token = cache.cached()
                if token is not None:
                    cache.invalidate(token)
                    if cache.cached() != token:  # otherwise it was made just now, in the place of a refused one
                        refused.add(token)
            case ("succeed",) | ("fail",):
                endpoint.end(step[0] == "succeed")
    deadline = time.monotonic() + 30
    while endpoint.running or any(caller.is_alive() for caller in callers) or cache._flight is not None:
        endpoint.end(good=True)
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    assert problems == []
    assert endpoint.most <= 1


def test_who_waits_for_a_renewal_that_was_interrupted_tries_himself():
    """Ctrl-C ends the caller that fetched, not those who waited for it."""
    fetching, interrupt = threading.Event(), threading.Event()
    attempts = []

    def fetch():
        attempts.append(threading.current_thread().name)
        if len(attempts) == 1:
            fetching.set()
            assert interrupt.wait(30)
            raise KeyboardInterrupt
        return Secret("token"), LIFE

    cache = TokenCache(fetch, lambda: 0.0, ahead=True)
    outcomes = []

    def first():
        try:
            cache.token()
        except KeyboardInterrupt:
            outcomes.append("interrupted")

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert fetching.wait(30)
    threads += [threading.Thread(target=lambda: outcomes.append(cache.token())) for _ in range(4)]
    for thread in threads[1:]:
        thread.start()
    interrupt.set()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["interrupted"] + ["token"] * 4
    assert len(attempts) == 2


def test_where_no_thread_can_be_started_the_good_token_stays(monkeypatch):
    """As when the interpreter ends."""
    now = 0.0
    cache = TokenCache(lambda: (Secret(f"token-{now:.0f}"), LIFE), lambda: now, ahead=True)
    assert cache.token() == "token-0"
    started = []

    def start(thread):
        started.append(thread)
        raise RuntimeError("can't start new thread")

    now = 90.0
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert cache.token() == cache.token() == "token-0"
    assert len(started) == 1
    now = 100.0
    assert cache.token() == "token-100"


def test_while_a_failure_is_fresh_callers_get_it_again_and_nothing_is_fetched():
    now, fetches = 0.0, 0

    def fetch():
        nonlocal fetches
        fetches += 1
        raise AuthenticationError(f"failure {fetches}", retryable=True, retry_after=60 if fetches == 2 else None)

    cache = TokenCache(fetch, lambda: now, ahead=True)
    told = []
    for step in (0, 0.25, 0.5, 0.25, 59.5, 0.5, 3.5, 0.5):
        now += step
        with pytest.raises(AuthenticationError) as caught:
            cache.token()
        told.append((str(caught.value.details)[-1], caught.value.retry_after))
    assert told == [
        *[("1", None), ("1", 0.75), ("1", 0.25)],
        *[("2", 60), ("2", 0.5)],
        *[("3", None), ("3", 0.5)],
        ("4", None),
    ]
    assert caught.value is not cache._error


def test_a_defect_of_the_fetch_reaches_its_caller_and_blocks_nobody():
    now = 0.0
    outcomes = [ZeroDivisionError, ConfigurationError("wrong key"), (Secret("token"), LIFE)]

    def fetch():
        outcome = outcomes.pop(0)
        if isinstance(outcome, tuple):
            return outcome
        raise outcome

    cache = TokenCache(fetch, lambda: now, ahead=True)
    with pytest.raises(ZeroDivisionError):
        cache.token()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="wrong key") as caught:
            cache.token()
        assert caught.value.retry_after is None  # waiting wouldn't help
    now = 2.0
    assert cache.token() == "token"
