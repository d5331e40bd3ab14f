import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.gateway.engines.embedded.schema import Schema
from deepseek_grpc.gateway.engines.embedded.tokens import split
from deepseek_grpc.gateway.engines.embedded.turn import take_turn
from deepseek_grpc.types import (
    Completion,
    Event,
    Finished,
    GenerateRequest,
    Message,
    ReasoningDelta,
    Started,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    assistant,
    json_object,
    tool_result,
    user,
)

ENGINE = EmbeddedEngine()
ASK = GenerateRequest((user("What is a deadline in gRPC?"),), seed=7)
THINK = replace(ASK, thinking=True)
WEATHER = Tool(
    "get_weather",
    "Tells the weather of a city",
    {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]},
)
ADD = Tool("add", "Adds numbers up", '{"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]}')
REQUIRED = ToolChoice("required")


def run(request: GenerateRequest) -> Completion:
    return asyncio.run(ENGINE.generate(request))


def events(request: GenerateRequest) -> list[Event]:
    async def every() -> list[Event]:
        return [event async for batch in ENGINE.stream(request) for event in batch]

    return asyncio.run(every())


def calling(text: str = "Please use get_weather for Paris", **fields: Any) -> GenerateRequest:
    return replace(GenerateRequest((user(text),), seed=3, tools=(ADD, WEATHER)), **fields)


# Reasoning

thoughtful = st.builds(
    GenerateRequest,
    messages=st.sampled_from(("What is a deadline in gRPC?", "Say hi", "How does a JWT work?", "你好", "")).map(
        lambda text: (user(text),)
    ),
    seed=st.integers(-(2**63), 2**63 - 1),
    temperature=st.sampled_from((None, 0.0, 0.7, 2.0)),
    frequency_penalty=st.sampled_from((None, -2.0, 0.5)),
    stop=st.sampled_from(((), (". The",), ("e c", "ing"))),
    response_format=st.sampled_from((None, json_object)),
)


@settings(max_examples=100, deadline=None)
@given(request=thoughtful)
def test_thinking_comes_first_and_leaves_the_answer_as_it_is(request: GenerateRequest) -> None:
    found = events(replace(request, thinking=True))
    plain = run(request)
    thoughts = [event for event in found if isinstance(event, ReasoningDelta)]
    assert isinstance(found[0], Started)
    assert found[1 : 1 + len(thoughts)] == thoughts
    assert "".join(event.text for event in found if isinstance(event, TextDelta)) == plain.text
    assert 10 <= len(thoughts) <= 40
    assert split("".join(thought.text for thought in thoughts)) == [thought.text for thought in thoughts]
    finished = found[-1]
    assert isinstance(finished, Finished)
    assert finished.finish_reason == plain.finish_reason
    assert finished.usage.reasoning_tokens == len(thoughts)
    assert finished.usage.completion_tokens == plain.usage.completion_tokens + len(thoughts)
    assert finished.usage.total_tokens == finished.usage.prompt_tokens + finished.usage.completion_tokens


def test_the_reasoning_is_whole_sentences_about_the_question_by_the_seed() -> None:
    found = [run(replace(THINK, seed=seed)).reasoning or "" for seed in range(20)]
    assert found == [run(replace(THINK, seed=seed)).reasoning for seed in range(20)]
    assert len(set(found)) > 1
    assert all("deadline" in text and text.endswith(".") for text in found)
    assert len({run(replace(THINK, seed=seed, temperature=0.0)).reasoning for seed in range(5)}) == 1


@pytest.mark.parametrize("thinking", [None, False])
def test_without_thinking_there_is_no_reasoning(thinking: bool | None) -> None:
    answer = run(replace(ASK, thinking=thinking))
    assert (answer.reasoning, answer.usage.reasoning_tokens) == (None, None)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 1000))
def test_the_answer_behind_a_thought_is_continued_without_another(data: st.DataObject, seed: int) -> None:
    request = replace(THINK, seed=seed)
    whole = run(request)
    cut = data.draw(st.integers(0, len(whole.text)))
    begun = assistant(whole.text[:cut], prefix=True, reasoning_content=whole.reasoning)
    rest = run(replace(request, messages=(*request.messages, begun)))
    assert whole.text[:cut] + rest.text == whole.text
    assert (rest.reasoning, rest.usage.reasoning_tokens) == (None, 0)


def test_max_tokens_covers_reasoning_and_answer() -> None:
    whole = [event for event in events(THINK) if isinstance(event, ReasoningDelta | TextDelta)]
    for limit in range(1, len(whole)):
        *deltas, finished = events(replace(THINK, max_tokens=limit))[1:]
        assert deltas == whole[:limit]
        assert isinstance(finished, Finished)
        thoughts = sum(isinstance(delta, ReasoningDelta) for delta in deltas)
        assert (finished.finish_reason, finished.usage.completion_tokens) == ("length", limit)
        assert finished.usage.reasoning_tokens == thoughts


def test_reasoning_has_logprobs_if_asked_for() -> None:
    answer = run(replace(THINK, logprobs=True, top_logprobs=3))
    assert "".join(logprob.token for logprob in answer.reasoning_logprobs) == answer.reasoning == run(THINK).reasoning
    assert "".join(logprob.token for logprob in answer.logprobs) == answer.text
    assert all(logprob.logprob <= 0 for logprob in answer.reasoning_logprobs)
    assert any(logprob.top for logprob in answer.reasoning_logprobs)
    assert run(THINK).reasoning_logprobs == ()


# When a tool is called


@pytest.mark.parametrize(
    ("text", "choice", "called"),
    [
        ("Please use get_weather for Paris", None, "get_weather"),
        ("Please use get_weather for Paris", ToolChoice("auto"), "get_weather"),
        ("Please use get_weather for Paris", REQUIRED, "get_weather"),
        ("Please use get_weather for Paris", ToolChoice("none"), None),
        ("Please use get_weather for Paris", ToolChoice(function="add"), "add"),
        ("What is a deadline?", None, None),
        ("What is a deadline?", ToolChoice("auto"), None),
        ("What is a deadline?", REQUIRED, "add"),
        ("How is the weather in the city of Rome?", REQUIRED, "get_weather"),
        ("add, then get_weather", None, "add"),
        ("my_get_weather and address", None, None),
        ("", REQUIRED, "add"),
        ("word " * 50_000 + "get_weather!", None, "get_weather"),
    ],
)
def test_which_tool_is_called(text: str, choice: ToolChoice | None, called: str | None) -> None:
    answer = run(calling(text, tool_choice=choice))
    assert [call.name for call in answer.tool_calls] == ([called] if called else [])
    assert answer.finish_reason == ("tool_calls" if called else "stop")
    assert bool(answer.text) == (called is None)


def test_an_uncalled_tool_changes_nothing() -> None:
    assert run(replace(ASK, tools=(WEATHER, ADD))).text == run(ASK).text


@pytest.mark.parametrize("choice", [None, REQUIRED])
def test_a_tools_result_is_answered_in_text(choice: ToolChoice | None) -> None:
    request = calling(tool_choice=choice)
    asked = run(request)
    (made,) = asked.tool_calls
    result = tool_result(made, '{"text": "What is LoRA?"}')
    answer = run(replace(request, messages=(*request.messages, asked.message, result), temperature=0.0))
    assert (answer.tool_calls, answer.finish_reason) == ((), "stop")
    assert "LoRA" in answer.text


def test_after_the_answer_the_next_question_is_called_again_under_another_id() -> None:
    request = calling()
    (first,) = run(request).tool_calls
    said: tuple[Message, ...] = (assistant(tool_calls=(first,)), tool_result(first, "rain"), assistant("Rain."))
    (second,) = run(replace(request, messages=(*request.messages, *said, user("get_weather in Rome")))).tool_calls
    assert second.id != first.id
    assert "Paris" not in second.arguments


def test_a_beginning_is_continued_in_text() -> None:
    request = calling(tool_choice=REQUIRED)
    answer = run(replace(request, messages=(*request.messages, assistant("A deadline", prefix=True))))
    assert answer.text
    assert answer.tool_calls == ()


# The call


def test_a_call_comes_in_pieces() -> None:
    started, first, *rest, finished = events(calling())
    assert isinstance(started, Started)
    assert isinstance(first, ToolCallDelta)
    assert (first.index, first.name, first.arguments) == (0, "get_weather", "")
    assert first.id.startswith("call_")
    assert len(rest) > 3
    pieces = [piece for piece in rest if isinstance(piece, ToolCallDelta)]
    assert pieces == [ToolCallDelta(0, arguments=piece.arguments) for piece in pieces if piece.arguments] == rest
    assert json.loads("".join(piece.arguments for piece in pieces))["city"]
    assert isinstance(finished, Finished)
    assert finished.finish_reason == "tool_calls"
    assert finished.usage.completion_tokens == len(rest)
    assert finished.usage.reasoning_tokens is None


def test_a_call_is_a_matter_of_the_seed() -> None:
    found = [run(calling(seed=seed)).tool_calls for seed in range(20)]
    assert found == [asyncio.run(EmbeddedEngine().generate(calling(seed=seed))).tool_calls for seed in range(20)]
    assert len({calls[0].id for calls in found}) == 20
    assert len({calls[0].arguments for calls in found}) > 3
    assert len({run(calling(seed=seed, temperature=0.0)).tool_calls[0].arguments for seed in range(5)}) == 1


def test_strings_come_from_the_prompt() -> None:
    for seed in range(10):
        city = json.loads(run(calling(seed=seed)).tool_calls[0].arguments)["city"]
        assert set(city.split()) <= {"Paris"}


def test_a_call_may_be_thought_about() -> None:
    answer = run(calling(thinking=True))
    assert answer.reasoning
    assert answer.tool_calls == run(calling()).tool_calls
    assert answer.finish_reason == "tool_calls"
    assert answer.usage.reasoning_tokens == len(split(answer.reasoning))
    assert answer.usage.completion_tokens == answer.usage.reasoning_tokens + len(split(answer.tool_calls[0].arguments))


def test_max_tokens_cuts_the_arguments() -> None:
    (whole,) = run(calling()).tool_calls
    pieces = split(whole.arguments)
    for limit in range(1, len(pieces)):
        answer = run(calling(max_tokens=limit))
        assert answer.tool_calls == (ToolCall(whole.id, whole.name, "".join(pieces[:limit])),)
        assert (answer.finish_reason, answer.usage.completion_tokens) == ("length", limit)
    assert run(calling(max_tokens=len(pieces))).finish_reason == "tool_calls"


# Arguments


def made_for(schema: Any, seed: int = 1) -> Any:
    tool = Tool("use", parameters=schema)
    (made,) = run(calling("Paris, Rome", tools=(tool,), tool_choice=REQUIRED, seed=seed)).tool_calls
    found = json.loads(made.arguments, parse_constant=pytest.fail)
    assert isinstance(found, dict)
    return found


TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def is_type(value: Any, name: str) -> bool:
    if name in ("integer", "number"):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (name == "number" or value == int(value))
    return isinstance(value, TYPES[name])


def same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def valid(value: Any, schema: Any, root: Any) -> bool:
    """A validator for the keywords that are generated here, written apart from the engine's."""
    if "$ref" in schema:
        return valid(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    names = schema.get("type", [*TYPES, "number"])
    good = any(is_type(value, name) for name in ([names] if isinstance(names, str) else names))
    good &= "const" not in schema or same(value, schema["const"])
    good &= "enum" not in schema or any(same(value, one) for one in schema["enum"])
    good &= "anyOf" not in schema or any(valid(value, branch, root) for branch in schema["anyOf"])
    good &= "oneOf" not in schema or sum(valid(value, branch, root) for branch in schema["oneOf"]) == 1
    if isinstance(value, str):
        good &= schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", math.inf)
    elif isinstance(value, list):
        good &= schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", math.inf)
        good &= all(valid(one, schema.get("items", {}), root) for one in value)
    elif isinstance(value, dict):
        good &= value.keys() >= set(schema.get("required", ()))
        good &= all(valid(one, schema.get("properties", {}).get(name, {}), root) for name, one in value.items())
    elif isinstance(value, int | float) and not isinstance(value, bool):
        exact = Fraction(str(value))
        good &= exact >= Fraction(str(schema.get("minimum", -(10**9))))
        good &= exact <= Fraction(str(schema.get("maximum", 10**9)))
        good &= exact > Fraction(str(schema.get("exclusiveMinimum", -(10**9))))
        good &= exact < Fraction(str(schema.get("exclusiveMaximum", 10**9)))
        good &= "multipleOf" not in schema or (exact / Fraction(str(schema["multipleOf"]))).denominator == 1
    return good


def ranged(low: str, high: str, top: int, **fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    pairs = st.tuples(st.integers(0, top), st.integers(0, top)).map(sorted)
    return pairs.map(lambda pair: {**fields, low: pair[0], high: pair[1]})


def numbers(name: str) -> st.SearchStrategy[dict[str, Any]]:
    # Each range is wide enough for a multiple of the step, whichever its ends are.
    return st.builds(
        lambda low, step, lower, upper: {
            "type": name,
            lower: low,
            upper: low + 20,
            **({"multipleOf": step} if step else {}),
        },
        st.integers(-100, 100) | st.sampled_from((-0.5, 2.25)),
        st.sampled_from((None, 1, 3, 0.1, 0.25, 7)),
        st.sampled_from(("minimum", "exclusiveMinimum")),
        st.sampled_from(("maximum", "exclusiveMaximum")),
    )


values = st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=3) | st.lists(st.integers(0, 3))
leaves = st.one_of(
    st.sampled_from(["string", "integer", "number", "boolean", "null", "array", "object"]).map(lambda n: {"type": n}),
    st.lists(st.sampled_from(["string", "integer", "boolean", "null"]), min_size=1, unique=True).map(
        lambda names: {"type": names}
    ),
    ranged("minLength", "maxLength", 60, type="string"),
    numbers("integer"),
    numbers("number"),
    st.sampled_from(
        ({"type": "number", "minimum": 5.0}, {"type": "integer", "maximum": -4}, {"exclusiveMinimum": 0.25})
    ),
    st.just({"type": "number", "exclusiveMinimum": 0.25, "exclusiveMaximum": 0.5}),
    st.just({"oneOf": [{"type": "boolean"}, {"type": "string", "minLength": 2}]}),
    values.map(lambda value: {"const": value}),
    st.lists(values, min_size=1).map(lambda found: {"enum": found}),
    st.text("ab", max_size=9).map(lambda text: {"type": "string", "maxLength": 5, "default": text}),
    st.integers(0, 99).map(lambda number: {"type": "integer", "maximum": 50, "examples": [number]}),
    st.sampled_from(({"$ref": "#/$defs/name"}, {"$ref": "#/$defs/node"}, {})),
)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.text('abc é"', min_size=1, max_size=3), inner, max_size=3).flatmap(
        lambda parts: st.sets(st.sampled_from([*parts, "other"])).map(
            lambda names: {"type": "object", "properties": parts, "required": sorted(names)}
        )
    )


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    lists = st.builds(
        lambda sizes, items: {**sizes, "items": items}, ranged("minItems", "maxItems", 3, type="array"), inner
    )
    return objects(inner) | lists | st.lists(inner, min_size=1, max_size=3).map(lambda found: {"anyOf": found})


DEFS = {
    "name": {"type": "string", "minLength": 3},
    "node": {
        "type": "object",
        "properties": {
            "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            "name": {"$ref": "#/$defs/name"},
        },
        "required": ["next"],
    },
}


@settings(max_examples=400, deadline=None)
@given(schema=objects(st.recursive(leaves, nested, max_leaves=6)), seed=st.integers(0, 2**63 - 1))
def test_arguments_satisfy_the_schema(schema: dict[str, Any], seed: int) -> None:
    schema = {**schema, "$defs": DEFS}
    found = made_for(schema, seed)
    assert valid(found, schema, schema)
    assert found == made_for(json.dumps(schema), seed)
    assert Schema(schema).allows(found, schema)


@settings(max_examples=200, deadline=None)
@given(
    schema=st.recursive(leaves, nested, max_leaves=4), value=values | st.dictionaries(st.sampled_from("abc"), values)
)
def test_the_engines_own_check_agrees(schema: dict[str, Any], value: Any) -> None:
    document = {"$defs": DEFS}
    assert Schema(document).allows(value, schema) == valid(value, schema, document)


def test_what_a_schema_brings_is_preferred() -> None:
    parts = {
        "a": {"type": "string", "default": "D"},
        "b": {"type": "integer", "examples": ["no", 42]},
        "c": {"const": 1},
    }
    assert made_for({"properties": parts, "required": ["a", "b", "c"]}) == {"a": "D", "b": 42, "c": 1}


def test_branches_are_tried_in_their_order() -> None:
    both = {"oneOf": [{"type": "integer"}, {"type": "string"}]}
    impossible_first = {"anyOf": [{"type": "string", "minLength": 9, "maxLength": 1}, {"type": "boolean"}]}
    found = made_for({"properties": {"a": both, "b": impossible_first}, "required": ["a", "b"]})
    assert isinstance(found["a"], int)
    assert isinstance(found["b"], bool)
    either = {"type": "object", "properties": {"a": {}, "b": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}
    assert "a" in made_for(either)
    joined = {
        "allOf": [{"properties": {"a": {"minimum": 5}}}, {"properties": {"a": {"maximum": 5}}, "required": ["a"]}]
    }
    assert made_for(joined) == {"a": 5}


@pytest.mark.parametrize(
    "schema",
    [
        "",
        "{",
        "[]",
        "[" * 50_000,
        '{"a": ' + "9" * 5000 + "}",
        " " * 70_000,
        {"type": "string"},
        {"type": 5, "properties": []},
        {"type": "object", "properties": {"a": False}, "required": ["a"]},
        {"type": "object", "required": True},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/missing"}}, "required": ["a"]},
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"type": "object", "properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}, "required": ["a", "b"]},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}], "required": ["a"]},
        {"properties": {"a": {"type": "string", "minLength": 10**12}}, "required": ["a"]},
        {"properties": {"a": {"type": "array", "minItems": 10**12}}, "required": ["a"]},
        {"properties": {"a": {"minimum": 1e308, "multipleOf": 1e-300}}, "required": ["a"]},
        {"properties": {"a": {"const": math.nan}}, "required": ["a"]},
        {"properties": {"a": {"const": "\ud800"}}, "required": ["a"]},
        {"properties": {"a": {"enum": list(range(5000))}}, "required": [f"p{i}" for i in range(2000)]},
    ],
)
def test_any_schema_gives_a_json_object(schema: Any) -> None:
    made_for(schema)


KEYWORDS = (
    *("type", "properties", "required", "enum", "const", "items", "minItems", "maximum", "minimum", "multipleOf"),
    *("maxLength", "anyOf", "oneOf", "allOf", "$ref", "default", "examples", "a", "additionalProperties", "format"),
)
junk: st.SearchStrategy[Any] = st.recursive(
    values | st.sampled_from(("object", "string", "#", "#/properties/a", "number", -1.5)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(schema=st.dictionaries(st.sampled_from(("properties", "required", "anyOf", "allOf", "a")), junk))
def test_junk_gives_a_json_object(schema: dict[str, Any]) -> None:
    made_for(schema)


def test_a_large_schema_is_worked_off_in_small_steps() -> None:
    parts = {f"p{i}": {"type": "string"} for i in range(300)}
    tool = Tool("use", parameters={"properties": parts, "required": list(parts)})
    steps = take_turn(ENGINE._model, calling("Paris", tools=(tool,), tool_choice=REQUIRED), 1)
    assert sum(1 for _ in steps) > 300
    assert set(made_for(tool.parameters)) == set(parts)


async def test_calls_and_thoughts_come_one_at_a_time_at_a_pace() -> None:
    request = calling(thinking=True)
    batches: list[Sequence[Event]] = [batch async for batch in EmbeddedEngine(pace=1e6).stream(request)]
    assert all(len(batch) == 1 for batch in batches)
    whole = [event async for batch in ENGINE.stream(request) for event in batch]
    assert [event for (event,) in batches][1:] == whole[1:]


async def test_the_card_says_that_it_can() -> None:
    (card,) = await ENGINE.models()
    assert "think" in card.description
    assert "tools" in card.description
