import asyncio
import hashlib
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepseek_grpc.errors import ConfigurationError
from deepseek_grpc.gateway.engines import TextEngine
from deepseek_grpc.gateway.engines.embedded import MODEL_ID, EmbeddedEngine, corpus
from deepseek_grpc.gateway.engines.embedded.generation import prepare
from deepseek_grpc.gateway.engines.embedded.model import MAX_CANDIDATES
from deepseek_grpc.gateway.engines.embedded.sampling import Draws, distribution
from deepseek_grpc.gateway.engines.embedded.stops import StopFilter
from deepseek_grpc.gateway.engines.embedded.tokens import chunks, split
from deepseek_grpc.types import (
    Completion,
    Event,
    Finished,
    GenerateRequest,
    Started,
    TextDelta,
    TextPart,
    Usage,
    assistant,
    json_object,
    system,
    user,
)

ENGINE = EmbeddedEngine()
ASK = GenerateRequest((user("What is a deadline in gRPC?"),), seed=7)
GOLDEN_SHA256 = "82ab8c256cb746162548a4a70baf6187f3d1df9ccc391962972b57539f05def5"

QUESTIONS = (
    "What is a deadline in gRPC?",
    "Say hi",
    "How do I check a JWT?",
    "What does a training file look like? Answer in JSON.",
    "你好",
    "",
)

requests = st.builds(
    GenerateRequest,
    messages=st.sampled_from(QUESTIONS).map(lambda text: (user(text),)),
    seed=st.integers(-(2**63), 2**63 - 1),
    temperature=st.sampled_from((None, 0.0, 0.3, 0.7, 1.0, 1.3, 2.0)),
    top_p=st.sampled_from((None, 0.2, 0.9, 1.0)),
    frequency_penalty=st.sampled_from((None, -2.0, 0.5, 2.0)),
    presence_penalty=st.sampled_from((None, -1.0, 0.7)),
    stop=st.sampled_from(((), (". The",), ("e c", "ing"), ("ver sen", " that i", "z"), ("a", "}"), ("the client",))),
    response_format=st.sampled_from((None, None, json_object)),
)


def run(request: GenerateRequest, engine: EmbeddedEngine = ENGINE) -> Completion:
    return asyncio.run(engine.generate(request))


def continued(request: GenerateRequest, text: str) -> GenerateRequest:
    return replace(request, messages=(*request.messages, assistant(text, prefix=True)))


async def events(stream: AsyncGenerator[Sequence[Event], None]) -> list[Event]:
    return [event async for batch in stream for event in batch]


# Continuing


@settings(max_examples=300, deadline=None)
@given(request=requests, data=st.data())
def test_continuing_from_any_cut_gives_the_rest(request: GenerateRequest, data: st.DataObject) -> None:
    whole = run(request)
    cut = data.draw(st.integers(0, len(whole.text)))
    rest = run(continued(request, whole.text[:cut]))
    assert whole.text[:cut] + rest.text == whole.text
    assert rest.finish_reason == whole.finish_reason == "stop"


@settings(max_examples=100, deadline=None)
@given(request=requests.map(lambda request: replace(request, stop=())), limit=st.integers(1, 90), data=st.data())
def test_continuing_spends_the_rest_of_max_tokens(request: GenerateRequest, limit: int, data: st.DataObject) -> None:
    request = replace(request, max_tokens=limit)
    deltas = [event.text for event in asyncio.run(events(ENGINE.stream(request))) if isinstance(event, TextDelta)]
    kept = data.draw(st.integers(0, len(deltas) - 1))
    within = data.draw(st.integers(0, len(deltas[kept]) - 1))
    prefix = "".join(deltas[:kept]) + deltas[kept][:within]
    rest = run(replace(continued(request, prefix), max_tokens=limit - kept))
    assert prefix + rest.text == "".join(deltas)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_continuing_works_from_every_character(temperature: float) -> None:
    request = replace(ASK, temperature=temperature, frequency_penalty=0.3)
    text = run(request).text
    for cut in range(len(text) + 1):
        assert text[:cut] + run(continued(request, text[:cut])).text == text


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(max_size=80), as_json=st.booleans())
def test_any_beginning_is_continued_to_an_end(text: str, as_json: bool) -> None:
    answer = run(replace(continued(ASK, text), response_format=json_object if as_json else None))
    assert answer.finish_reason == "stop"
    assert answer.usage.completion_tokens < 300


def test_a_foreign_beginning_is_completed_within_its_last_word() -> None:
    answer = run(continued(ASK, "The point in time after which the client no longer wants the ans"))
    assert answer.text.startswith("wer")


# Reproducing


def test_the_golden_answer() -> None:
    texts = "\n".join(run(replace(ASK, seed=seed, temperature=1.2, top_p=0.98)).text for seed in range(20))
    assert hashlib.sha256(texts.encode()).hexdigest() == GOLDEN_SHA256


SCRIPT = """
import asyncio, hashlib
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.types import GenerateRequest, user
engine = EmbeddedEngine()
found = hashlib.sha256()
for seed, question in enumerate(["What is a deadline?", "How does a JWT work?", "Hello", "forecast, LoRA, retries"]):
    request = GenerateRequest((user(question),), seed=seed, temperature=1.1, presence_penalty=0.4, logprobs=True,
                              top_logprobs=5)
    answer = asyncio.run(engine.generate(request))
    found.update(repr((answer.text, answer.logprobs, answer.meta.system_fingerprint)).encode())
print(found.hexdigest())
"""


def test_processes_with_other_hash_seeds_give_the_same_answers() -> None:
    path = os.pathsep.join(sys.path)
    found = {
        subprocess.run(
            [sys.executable, "-W", "error", "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "4242")
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 64


def test_a_fresh_engine_and_a_used_one_agree() -> None:
    assert run(ASK, EmbeddedEngine()).text == run(ASK).text


def test_other_seeds_give_other_answers_and_so_does_none() -> None:
    assert len({run(replace(ASK, seed=seed)).text for seed in range(10)}) > 5
    assert len({run(replace(ASK, seed=None)).text for _ in range(10)}) > 5


def test_random_numbers_depend_on_seed_and_position_alone() -> None:
    forward, backward = Draws(3), Draws(3)
    assert [forward.number(i) for i in range(300)] == [backward.number(i) for i in reversed(range(300))][::-1]
    assert Draws(4).number(0) != forward.number(0)


def test_a_changed_corpus_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "passages"
    shutil.copytree(Path(corpus.__file__).with_name("passages"), folder)
    assert corpus.load(folder) == corpus.load()
    changed = folder / "grpc.txt"
    changed.write_text(changed.read_text(encoding="utf-8").replace("deadline", "dead line", 1), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="SHA-256"):
        corpus.load(folder)
    changed.unlink()
    with pytest.raises(ConfigurationError, match="cannot read"):
        corpus.load(folder)


@pytest.mark.parametrize("text", ["Q: Why?\n", "A: Because.\nQ: Why?\n", 'Q: Why?\nA: "Because".\n'])
def test_a_malformed_corpus_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        corpus.parse(text)


# Sampling

candidates = st.lists(st.integers(1, 10**9), min_size=1, max_size=MAX_CANDIDATES).map(
    lambda weights: sorted(enumerate(weights, start=5), key=lambda item: (-item[1], item[0]))
)


@given(candidates=candidates, temperature=st.floats(0.0, 2.0), top_p=st.floats(0.01, 1.0))
def test_a_distribution_sums_to_one_and_is_sorted(
    candidates: list[tuple[int, int]], temperature: float, top_p: float
) -> None:
    found = distribution(candidates, temperature, top_p)
    assert found.draw(0) == 0
    assert found.draw(2**64 - 1) == len(found.tokens) - 1
    probabilities = [math.exp(found.logprob(i)) for i in range(len(found.tokens))]
    assert math.isclose(sum(probabilities), 1.0)
    assert all(math.isclose(a, b) or a > b for a, b in itertools.pairwise(probabilities))


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    weights = [(10, 50), (11, 30), (12, 15), (13, 5)]
    assert distribution(weights, 1.0, 0.5).tokens == (10,)
    assert distribution(weights, 1.0, 0.51).tokens == (10, 11)
    assert distribution(weights, 1.0, 0.9).tokens == (10, 11, 12)
    assert distribution(weights, 1.0, 1.0).tokens == (10, 11, 12, 13)


def test_ties_go_to_the_lower_token() -> None:
    assert distribution([(9, 7), (4, 7)], 0.0, 1.0).tokens == (4,)
    assert distribution([(9, 7), (4, 7), (2, 1)], 1.0, 1.0).tokens == (4, 9, 2)


def test_penalties_change_the_odds() -> None:
    even = distribution([(4, 1), (5, 1)], 1.0, 1.0, {4: 1.0})
    assert even.tokens == (5, 4)
    assert math.isclose(even.logprob(0) - even.logprob(1), 1.0, abs_tol=1e-6)


def test_temperature_zero_ignores_the_seed_and_equals_the_smallest_nucleus() -> None:
    greedy = {run(replace(ASK, seed=seed, temperature=0.0)).text for seed in range(5)}
    assert greedy == {run(replace(ASK, temperature=1.0, top_p=1e-6)).text}


def test_penalties_make_an_answer_richer() -> None:
    def variety(penalty: float) -> float:
        found = [split(run(replace(ASK, seed=seed, frequency_penalty=penalty)).text) for seed in range(20)]
        return sum(len(set(tokens)) / len(tokens) for tokens in found)

    assert variety(2.0) > variety(0.0) > variety(-2.0)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("top_p", [None, 0.8])
def test_logprobs_are_those_of_the_distribution(temperature: float, top_p: float | None) -> None:
    request = replace(ASK, temperature=temperature, top_p=top_p, logprobs=True, top_logprobs=20, presence_penalty=0.1)
    found = asyncio.run(events(ENGINE.stream(request)))
    deltas = [event for event in found if isinstance(event, TextDelta)]
    assert "".join(delta.text for delta in deltas) == run(replace(request, logprobs=False)).text
    for delta in deltas:
        (described,) = delta.logprobs
        assert described.token == delta.text
        assert described.token_bytes == delta.text.encode()
        assert [top.logprob for top in described.top] == sorted((top.logprob for top in described.top), reverse=True)
        mass = sum(math.exp(top.logprob) for top in described.top)
        assert mass < 1 + 1e-9
        if len(described.top) < 20:
            assert math.isclose(mass, 1.0)
            assert (described.token, described.logprob) in {(top.token, top.logprob) for top in described.top}
        if temperature == 0:
            assert described.logprob == 0


def test_logprobs_without_alternatives() -> None:
    answer = run(replace(ASK, logprobs=True))
    assert "".join(logprob.token for logprob in answer.logprobs) == answer.text
    assert all(logprob.top == () and logprob.logprob <= 0 for logprob in answer.logprobs)
    assert run(ASK).logprobs == ()


# Stopping


def test_an_answer_ends_by_itself_with_a_sentence() -> None:
    for question in QUESTIONS:
        for seed in range(20):
            answer = run(GenerateRequest((user(question),), seed=seed))
            assert answer.finish_reason == "stop"
            assert answer.text[0].isupper() or answer.text[0].islower()
            assert answer.text[-1] in ".?!"
            assert 40 <= answer.usage.completion_tokens <= 170


def test_max_tokens_cuts_the_same_answer() -> None:
    whole = asyncio.run(events(ENGINE.stream(ASK)))
    texts = [event.text for event in whole if isinstance(event, TextDelta)]
    for limit in (1, 2, 30):
        answer = run(replace(ASK, max_tokens=limit))
        assert (answer.text, answer.finish_reason) == ("".join(texts[:limit]), "length")
        assert answer.usage.completion_tokens == limit


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 50), start=st.integers(0, 200), size=st.integers(1, 20))
def test_a_stop_string_ends_the_answer_before_it(seed: int, start: int, size: int) -> None:
    request = replace(ASK, seed=seed)
    text = run(request).text
    stop = text[start % len(text) :][:size]
    answer = run(replace(request, stop=("never said", stop)))
    assert answer.text == text[: text.index(stop)]
    assert answer.finish_reason == "stop"


pieces = st.lists(st.text("ab", min_size=1, max_size=4), max_size=12)


@given(pieces=pieces, stops=st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=3))
def test_the_stop_filter_passes_what_is_before_the_first_stop(pieces: list[str], stops: list[str]) -> None:
    held, passed, stopped, fed = StopFilter(stops, ""), "", False, ""
    for piece in pieces:
        released, stopped = held.feed(TextDelta(piece))
        assert all(delta.text for delta in released)
        passed += "".join(delta.text for delta in released)
        fed += piece
        assert fed.startswith(passed)
        if stopped:
            break
    if not stopped:
        passed += "".join(delta.text for delta in held.flush())
    found = [fed.index(stop) for stop in stops if stop in fed]
    assert stopped == bool(found)
    assert passed == (fed[: min(found)] if found else fed)


def test_the_stop_filter_sees_the_text_before() -> None:
    held = StopFilter(("abc",), "xyzab")
    assert held.feed(TextDelta("cd")) == ([], True)
    done_before = StopFilter(("abc",), "abc")
    assert done_before.feed(TextDelta("d")) == ([TextDelta("d")], False)


# Answering

TOPICS = (
    ("What is a deadline?", ("deadline", "timeout")),
    ("Tell me about deadlines please", ("deadline",)),
    ("how does a JWT work", ("JWT", "signed", "token")),
    ("Explain LoRA", ("LoRA", "weights")),
    ("How do I make a forecast?", ("forecast",)),
    ("Which status codes can I retry?", ("retry", "retried", "UNAVAILABLE")),
)


@pytest.mark.parametrize(("question", "words"), TOPICS)
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_an_answer_keeps_to_the_topic(question: str, words: tuple[str, ...], temperature: float) -> None:
    for seed in range(10):
        text = run(GenerateRequest((user(question),), seed=seed, temperature=temperature)).text
        assert any(word in text for word in words), text


def test_the_last_user_message_counts_most() -> None:
    messages = (
        system("You are a helpful assistant who knows about time series and forecasts."),
        user("What is a forecast?"),
        assistant("A forecast is a statement about values that are not known yet."),
        user("What is LoRA?"),
    )
    assert run(GenerateRequest(messages, temperature=0.0)).text.startswith("LoRA is")


def test_a_question_without_a_topic_falls_back_to_what_was_said_before() -> None:
    messages = (user("What is LoRA?"), assistant("LoRA is a way to fine-tune."), user("And why is that so?"))
    assert "LoRA" in run(GenerateRequest(messages, temperature=0.0)).text


@pytest.mark.parametrize("question", ["你好 请介绍一下", "qwpoeiru zzz", "", "🤖" * 50])
def test_nonsense_is_answered_with_what_the_engine_is(question: str) -> None:
    assert "embedded" in run(GenerateRequest((user(question),), temperature=0.0)).text


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_json_object_is_one(temperature: float) -> None:
    answer = run(replace(ASK, response_format=json_object, temperature=temperature))
    assert json.loads(answer.text) == {"answer": run(replace(ASK, temperature=temperature)).text}


def test_another_json_object_is_continued_too() -> None:
    begun = '{"result": "'
    text = run(replace(continued(ASK, begun), response_format=json_object)).text
    assert set(json.loads(begun + text)) == {"result"}


def test_usage_counts_the_engines_tokens() -> None:
    messages = (system("Be brief."), user([TextPart("What is"), TextPart("a deadline?")]))
    found = asyncio.run(events(ENGINE.stream(GenerateRequest(messages, seed=1))))
    finished = found[-1]
    assert isinstance(finished, Finished)
    prompt = len(split("Be brief.")) + len(split("What is\na deadline?"))
    deltas = sum(isinstance(event, TextDelta) for event in found)
    assert finished.usage == Usage(prompt, deltas, prompt + deltas)


async def test_who_answers() -> None:
    (card,) = await ENGINE.models()
    assert (card.id, card.backend) == (MODEL_ID, ENGINE.name) == ("embedded-ngram", "embedded")
    assert "not a DeepSeek model" in card.description
    found = await events(ENGINE.stream(replace(ASK, model="some-alias", request_id="r-1")))
    started = found[0]
    assert isinstance(started, Started)
    assert started.model == "embedded-ngram"
    assert corpus.CORPUS_SHA256[:12] in started.system_fingerprint
    assert [type(event) for event in found[1:]] == [TextDelta] * (len(found) - 2) + [Finished]
    answer = await ENGINE.generate(replace(ASK, request_id="r-1"))
    assert answer.text == "".join(event.text for event in found if isinstance(event, TextDelta))
    assert (answer.meta.model, answer.meta.request_id) == ("embedded-ngram", "r-1")
    engine: TextEngine = ENGINE
    await engine.aclose()


# The event loop


async def test_every_batch_comes_with_a_turn_of_the_event_loop() -> None:
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticker = asyncio.create_task(tick())
    batches = 0
    for seed in range(20):
        async for batch in ENGINE.stream(replace(ASK, seed=seed, frequency_penalty=0.1)):
            assert batch
            batches += 1
            assert turns >= batches
    ticker.cancel()
    assert batches >= 20


def test_a_long_prompt_is_read_in_small_steps() -> None:
    steps = prepare(ENGINE._model, GenerateRequest((user("deadline " * 120_000),)), 1)
    assert sum(1 for _ in steps) > 1000


def test_a_long_beginning_is_read_in_small_steps() -> None:
    request = replace(continued(ASK, "deadline " * 100_000), frequency_penalty=0.5)
    assert sum(1 for _ in prepare(ENGINE._model, request, 1)) > 3000
    assert run(request).finish_reason == "stop"


async def test_others_have_turns_while_a_long_prompt_is_read() -> None:
    task = asyncio.create_task(ENGINE.generate(GenerateRequest((user("deadline " * 120_000),), seed=1)))
    turns = 0
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 5
    assert "deadline" in task.result().text


async def test_cancelling_stops_an_answer_at_once() -> None:
    task = asyncio.create_task(ENGINE.generate(GenerateRequest((user("deadline " * 120_000),))))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelling_stops_a_paced_answer() -> None:
    first = asyncio.Event()

    async def consume() -> None:
        async for batch in EmbeddedEngine(pace=0.0001).stream(ASK):
            if any(isinstance(event, TextDelta) for event in batch):
                first.set()

    task = asyncio.create_task(consume())
    await first.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_paced_answer_is_the_same_one_token_at_a_time() -> None:
    batches = [batch async for batch in EmbeddedEngine(pace=1e6).stream(ASK)]
    assert all(len(batch) == 1 for batch in batches)
    texts = [event.text for (event,) in batches if isinstance(event, TextDelta)]
    assert "".join(texts) == (await ENGINE.generate(ASK)).text


@pytest.mark.parametrize("pace", [0, -1, math.nan])
def test_a_pace_is_above_zero(pace: float) -> None:
    with pytest.raises(ConfigurationError):
        EmbeddedEngine(pace=pace)


def test_memory_is_bounded() -> None:
    engine = EmbeddedEngine()
    for i, passage in enumerate(corpus.load()):
        run(GenerateRequest((user(passage.question),), seed=i, max_tokens=10), engine)
    for i in range(300):
        run(replace(ASK, seed=i, temperature=1 + i / 1000), engine)
    assert len(engine._model._focuses) <= 32
    for focus in engine._model._focuses.values():
        assert sum(map(len, focus._tables.values())) <= 2048
        assert len(focus._candidates) <= 2048


def test_no_context_has_more_candidates_than_allowed() -> None:
    engine = EmbeddedEngine()
    for seed in range(50):
        run(replace(ASK, seed=seed, temperature=2.0), engine)
    for focus in engine._model._focuses.values():
        assert all(1 <= len(found) <= MAX_CANDIDATES for found in focus._candidates.values())


# Tokens


@given(st.text(max_size=200))
def test_tokens_join_to_the_text(text: str) -> None:
    assert "".join(split(text)) == text


@given(st.text("ab .,_\n-9é", max_size=4000) | st.text(max_size=3000))
def test_chunks_split_alike(text: str) -> None:
    assert [token for chunk in chunks(text) for token in chunk] == split(text)


@given(st.text("ab .,_-", max_size=60), st.integers(0, 60))
def test_a_cut_changes_the_last_token_only(text: str, cut: int) -> None:
    whole, part = split(text), split(text[:cut])
    assert part[:-1] == whole[: max(0, len(part) - 1)]
    assert not part or whole[len(part) - 1].startswith(part[-1])


def test_generated_tokens_are_those_of_the_text() -> None:
    for seed in range(30):
        found = asyncio.run(events(ENGINE.stream(replace(ASK, seed=seed, temperature=1.5))))
        texts = [event.text for event in found if isinstance(event, TextDelta)]
        assert split("".join(texts)) == texts
