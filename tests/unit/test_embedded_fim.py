"""The embedded engine between a prompt and a suffix."""

import asyncio
import hashlib
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepseek_grpc.gateway.engines import TextEngine
from deepseek_grpc.gateway.engines.embedded import MODEL_ID, EmbeddedEngine, corpus
from deepseek_grpc.gateway.engines.embedded.fim import fill
from deepseek_grpc.gateway.engines.embedded.tokens import split
from deepseek_grpc.types import AccountBalance, Completion, Event, FimRequest, Finished, Started, TextDelta, Usage

ENGINE = EmbeddedEngine()
ASK = FimRequest("gRPC is a framework", " the server and returns the response.", seed=7)
GOLDEN_SHA256 = "c717cd9543eaed5d9add6933849fe875b879aac18b9c88c1fb946c3fb4dd3a68"

GAPS = (
    ("gRPC is a framework", " the server and returns the response."),
    ("A deadline is the point in time", "the server should stop its work."),
    ("When the client cancels a call,", ", so that no tokens are wasted."),
    ("To fine-tune a model you need", "\n\nThen start the job.\n"),
    ("def fib(n):\n", "    return fib(n - 1) + fib(n - 2)"),
    ("Once upon a time, ", ""),
    ("你好", "世界"),
    (" ", " "),
)
requests = st.builds(
    lambda gap, **options: FimRequest(*gap, **options),
    st.sampled_from(GAPS),
    seed=st.integers(-(2**63), 2**63 - 1),
    max_tokens=st.none() | st.integers(1, 60),
    temperature=st.sampled_from((None, 0.0, 0.3, 1.0, 2.0)),
    top_p=st.sampled_from((None, 0.2, 0.9)),
    frequency_penalty=st.sampled_from((None, -2.0, 0.5)),
    presence_penalty=st.sampled_from((None, 0.7)),
    stop=st.sampled_from(((), (". The",), ("e c", "ing"), (" ",), ("a ",), ("the client",))),
    echo=st.booleans(),
)


def run(request: FimRequest, engine: EmbeddedEngine = ENGINE) -> Completion:
    return asyncio.run(engine.complete(request))


async def events(request: FimRequest, engine: EmbeddedEngine = ENGINE) -> list[Event]:
    return [event async for batch in engine.stream_complete(request) for event in batch]


# Leading to the suffix


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0])
def test_the_middle_of_a_sentence_is_found_again(temperature: float) -> None:
    prompt, suffix = "gRPC is a framework for remote procedure", " on top of HTTP/2."
    texts = {run(FimRequest(prompt, suffix, temperature=temperature, seed=seed)).text for seed in range(10)}
    assert " calls that runs" in texts


def test_a_sentence_joins_the_suffix_as_the_corpus_does() -> None:
    spoken = " ".join(passage.answer for passage in corpus.load())
    for seed in range(20):
        answer = run(replace(ASK, seed=seed))
        assert answer.finish_reason == "stop"
        joint = [*split(answer.text)[-2:], " the", " server"]
        assert "".join(joint[:3]) in spoken
        assert "".join(joint[1:]) in spoken


def test_a_text_goes_on_from_the_prompt() -> None:
    spoken = " ".join(passage.answer for passage in corpus.load())
    for seed in range(20):
        text = run(replace(ASK, seed=seed, temperature=0.3)).text
        assert " a framework" + "".join(split(text)[:1]) in spoken


@pytest.mark.parametrize("suffix", ["\nThen", "\n\n", "\r\n\r\nNext:", " qwertz", " (zzz)"])
def test_before_a_paragraph_or_what_it_does_not_know_it_ends_with_a_sentence(suffix: str) -> None:
    for seed in range(10):
        answer = run(replace(ASK, suffix=suffix, seed=seed))
        assert answer.text[-1] in ".?!"
        assert answer.finish_reason == "stop"


def test_a_space_stands_before_a_suffix_that_begins_with_a_word() -> None:
    for seed in range(10):
        assert run(replace(ASK, suffix="the server", seed=seed)).text.endswith(" ")
        assert not run(replace(ASK, suffix=" the server", seed=seed)).text.endswith(" ")
        assert not run(replace(ASK, suffix="世界", seed=seed)).text.endswith(" ")


@pytest.mark.parametrize("suffix", ["", " ", "\n"])
def test_without_a_suffix_it_goes_on_like_an_answer(suffix: str) -> None:
    for seed in range(10):
        answer = run(replace(ASK, suffix=suffix, seed=seed))
        assert answer.finish_reason == "stop"
        assert answer.text[-1] in ".?!"
        assert 20 <= answer.usage.completion_tokens <= 170


def test_the_prompts_last_word_is_completed() -> None:
    assert run(FimRequest("The point in time after which the client no longer wants the ans")).text.startswith("wer")
    assert run(FimRequest("A deadline is the point in time ", temperature=0.0)).text.startswith("after")


def test_a_long_prompt_is_gone_on_with_too() -> None:
    answer = run(FimRequest("A deadline is the point in time. " * 100, seed=1))
    assert 20 <= answer.usage.completion_tokens <= 170


def test_what_stands_around_the_gap_says_what_it_is_about() -> None:
    far = "LoRA is a way to fine-tune a model. " * 200
    for seed in range(5):
        text = run(FimRequest(f"{far}\n" + "A deadline is a point in time. " * 50 + "It", seed=seed)).text
        assert "deadline" in text or "time" in text, text


# What the options do


@settings(max_examples=300, deadline=None)
@given(requests)
def test_every_option_is_honoured(request: FimRequest) -> None:
    answer = run(request)
    assert answer.finish_reason in ("stop", "length")
    text = answer.text
    if request.echo:
        assert text.startswith(request.prompt)
        text = text.removeprefix(request.prompt)
    assert not any(stop in text for stop in request.stop)
    prompt = len(split(request.prompt)) + len(split(request.suffix))
    spent = answer.usage.completion_tokens
    assert answer.usage == Usage(prompt, spent, prompt + spent)
    if request.max_tokens is not None:
        assert spent <= request.max_tokens
        assert answer.finish_reason == "stop" or spent == request.max_tokens
    assert run(request).text == answer.text


def test_max_tokens_cuts_what_leads_nowhere() -> None:
    answer = run(FimRequest("gRPC is a framework", max_tokens=3, temperature=0.0))
    assert (answer.text, answer.finish_reason) == (" for remote procedure", "length")


def test_a_stop_string_ends_it_and_is_not_looked_for_in_the_prompt() -> None:
    whole = run(FimRequest("gRPC is a framework", temperature=0.0))
    answer = run(FimRequest("gRPC is a framework", temperature=0.0, stop=("framework", "procedure")))
    assert (answer.text, answer.finish_reason) == (" for remote ", "stop")
    assert whole.text.startswith(answer.text)


def test_an_echo_is_the_prompt_and_costs_nothing() -> None:
    plain, echoed = run(ASK), run(replace(ASK, echo=True))
    assert echoed.text == ASK.prompt + plain.text
    assert echoed.usage == plain.usage


@pytest.mark.parametrize("suffix", [ASK.suffix, "the server", ""])
def test_logprobs_are_those_of_the_distribution(suffix: str) -> None:
    found = asyncio.run(events(replace(ASK, suffix=suffix, logprobs=20)))
    deltas = [event for event in found if isinstance(event, TextDelta)]
    assert "".join(delta.text for delta in deltas) == run(replace(ASK, suffix=suffix)).text
    for delta in deltas:
        (described,) = delta.logprobs
        assert (described.token, described.token_bytes) == (delta.text, delta.text.encode())
        assert described.logprob <= 0
        assert sum(math.exp(top.logprob) for top in described.top) < 1 + 1e-9
    assert run(replace(ASK, logprobs=0)).logprobs[0].top == ()
    assert run(ASK).logprobs == ()


def test_penalties_make_it_richer() -> None:
    def variety(penalty: float) -> float:
        asked = replace(ASK, suffix="", frequency_penalty=penalty)
        found = [split(run(replace(asked, seed=seed)).text) for seed in range(20)]
        return sum(len(set(tokens)) / len(tokens) for tokens in found)

    assert variety(2.0) > variety(-2.0)


# Reproducing


def test_the_golden_text() -> None:
    texts = [run(FimRequest(*gap, seed=seed, temperature=1.2)).text for gap in GAPS for seed in range(5)]
    assert hashlib.sha256("\n".join(texts).encode()).hexdigest() == GOLDEN_SHA256


SCRIPT = """
import asyncio, hashlib
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.types import FimRequest
engine = EmbeddedEngine()
found = hashlib.sha256()
for seed, prompt in enumerate(["A deadline is", "The JWT", "Hello", "forecast, LoRA, retries"]):
    request = FimRequest(prompt, " the client.", seed=seed, temperature=1.1, presence_penalty=0.4, logprobs=5)
    answer = asyncio.run(engine.complete(request))
    found.update(repr((answer.text, answer.logprobs)).encode())
print(found.hexdigest())
"""


def test_processes_with_other_hash_seeds_give_the_same_texts() -> None:
    path = os.pathsep.join(sys.path)
    found = {
        subprocess.run(
            [sys.executable, "-W", "error", "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "4242")
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 64


def test_a_fresh_engine_and_a_used_one_agree_and_other_seeds_do_not() -> None:
    assert run(ASK, EmbeddedEngine()).text == run(ASK).text
    assert len({run(replace(ASK, seed=seed)).text for seed in range(10)}) > 3
    assert len({run(replace(ASK, suffix="", seed=None)).text for _ in range(10)}) > 3


# As an engine


async def test_the_events_are_those_of_a_stream() -> None:
    engine: TextEngine = ENGINE
    found = [event async for batch in engine.stream_complete(replace(ASK, request_id="r-1")) for event in batch]
    assert [type(event) for event in found] == [Started] + [TextDelta] * (len(found) - 2) + [Finished]
    answer = await engine.complete(replace(ASK, request_id="r-1"))
    assert answer.text == "".join(event.text for event in found if isinstance(event, TextDelta))
    assert (answer.meta.model, answer.meta.request_id) == (MODEL_ID, "r-1")


async def test_a_paced_text_is_the_same_one_token_at_a_time() -> None:
    batches = [batch async for batch in EmbeddedEngine(pace=1e6).stream_complete(ASK)]
    assert all(len(batch) == 1 for batch in batches)
    texts = [event.text for (event,) in batches if isinstance(event, TextDelta)]
    assert "".join(texts) == (await ENGINE.complete(ASK)).text


def test_long_sides_are_read_in_small_steps() -> None:
    steps = fill(ENGINE._model, FimRequest("deadline " * 60_000, "deadline " * 60_000), 1)
    assert sum(1 for _ in steps) > 1000


def test_a_text_is_drafted_in_small_steps() -> None:
    steps = fill(ENGINE._model, FimRequest("A deadline is", " qwertz"), 1)
    assert sum(1 for _ in steps) > 100


async def test_cancelling_stops_it_at_once() -> None:
    task = asyncio.create_task(ENGINE.complete(FimRequest("deadline " * 120_000)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_nothing_is_charged() -> None:
    assert await ENGINE.balance() == AccountBalance(available=True, balances=())
