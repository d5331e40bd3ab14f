# Mirrored by scripts/unasync.py from tests/contract/_async/test_generate_many.py: edit that and run `make sync`.
"""Many prompts at once: the order is kept, and a failure stays in its place."""

from __future__ import annotations

import pytest

from deepseek_grpc import ClientConfig, Completion, Retry, user
from deepseek_grpc.errors import InvalidRequestError, ServiceUnavailableError
from deepseek_grpc.testing import Delay, FakeServer, Stall
from tests.contract.engines import Echo


@pytest.fixture
def echo():
    engine = Echo()
    with FakeServer(engine=engine) as server:
        yield engine, server


def test_the_order_is_kept_and_failures_are_in_place(echo):
    engine, server = echo
    seen: list[tuple[int, int]] = []
    with server.client() as client:
        prompts = ["0", "1", "bad", "3", "4", "5", "6", "7", "8", "9"]
        answers = client.text.generate_many(
            iter(prompts), concurrency=3, on_progress=lambda done, total: seen.append((done, total))
        )
    texts = [answer.text if isinstance(answer, Completion) else type(answer) for answer in answers]
    assert texts == ["0", "1", ServiceUnavailableError, "3", "4", "5", "6", "7", "8", "9"]
    assert seen == [(done, 10) for done in range(1, 11)]
    assert engine.most == 3


def test_a_request_that_is_wrong_fails_alone(fake_server, client):
    fine, wrong = client.text.generate_many(["Hi", ""], max_tokens=5)
    assert fine.text == "Hello from the fake server."
    assert isinstance(wrong, InvalidRequestError)
    assert [seen.request.max_tokens for seen in fake_server.text.requests] == [5]


def test_nothing_to_do(client):
    assert client.text.generate_many([]) == []


@pytest.mark.parametrize("concurrency", [0, -1, True, 1.5])
def test_concurrency_is_at_least_one(client, concurrency):
    with pytest.raises(InvalidRequestError, match="concurrency"):
        client.text.generate_many(["Hi"], concurrency=concurrency)


@pytest.mark.parametrize("one", ["abc", user("abc"), b"abc", 5])
def test_one_prompt_is_not_several(fake_server, client, one):
    with pytest.raises(InvalidRequestError, match="give several prompts, in a list") as caught:
        client.text.generate_many(one)
    assert caught.value.field == "prompts"
    assert fake_server.text.requests == []


@pytest.mark.parametrize("option", ["request_id", "temprature"])
def test_an_option_that_it_has_not_is_refused(client, option):
    with pytest.raises(TypeError, match=option):
        client.text.generate_many(["Hi"], **{option: "x"})


def test_what_is_no_typed_failure_ends_it_all(fake_server):
    fake_server.text.default = ("a", Delay(0.01), "b")

    def broken(done: int, total: int) -> None:
        raise RuntimeError("the progress bar broke")

    with fake_server.client(config=ClientConfig(retry=Retry(attempts=1))) as client:
        with pytest.raises(RuntimeError, match="progress bar"):
            client.text.generate_many(["Hi"] * 20, concurrency=2, on_progress=broken)
    assert len(fake_server.text.requests) < 20


def test_who_interrupts_it_does_not_wait_for_the_rest(fake_server, client):
    class Interrupted(BaseException):
        pass

    def on_progress(done, of):
        raise Interrupted

    fake_server.text.script("quick")
    for _ in range(4):
        fake_server.text.script(Stall())
    with pytest.raises(Interrupted):
        client.text.generate_many(["Hi"] * 50, on_progress=on_progress, timeout=None)
    assert len(fake_server.text.requests) <= 6
