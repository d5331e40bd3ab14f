"""The embedded engine's answers in JSON by a schema, and what it refuses of a request with thinking."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter

from deepseek_grpc.errors import InvalidRequestError, UnimplementedError
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.gateway.engines.embedded.tokens import split
from deepseek_grpc.types import (
    Completion,
    Event,
    Finished,
    GenerateRequest,
    ReasoningDelta,
    TextDelta,
    Tool,
    ToolCall,
    ToolChoice,
    assistant,
    json_schema,
    tool_result,
    user,
)

ENGINE = EmbeddedEngine()


class Colour(Enum):
    RED = "red"
    GREEN = "green"


@dataclass
class Point:
    at: tuple[float, int]
    label: str | None


@dataclass
class Tree:
    name: str
    children: list[Tree] = field(default_factory=list)


@dataclass
class Plan:
    title: Annotated[str, Field(min_length=3, max_length=30)]
    colour: Colour
    points: list[Point]
    step: Literal[1, 2, 3]
    on: date
    at: time
    since: datetime
    takes: timedelta
    key: UUID
    price: Decimal
    tags: set[str]
    counts: dict[str, int]
    either: int | Point | None
    share: Annotated[float, Field(gt=0, lt=1)]
    owner: str | None = None
    done: bool = False
    tree: Tree | None = None


def ask(schema: str, **fields: Any) -> GenerateRequest:
    asked = (user("Plan a red journey to Bern and Rome"),)
    return replace(GenerateRequest(asked, seed=7, response_format=json_schema(schema)), **fields)


def schema_of(output: Any) -> str:
    return json.dumps(TypeAdapter(output).json_schema())


PLAN = schema_of(Plan)


def run(request: GenerateRequest) -> Completion:
    return asyncio.run(ENGINE.generate(request))


def events(request: GenerateRequest) -> list[Event]:
    async def every() -> list[Event]:
        return [event async for batch in ENGINE.stream(request) for event in batch]

    return asyncio.run(every())


OUTPUTS: Sequence[Any] = [
    Plan,
    Tree,
    list[Point],
    Colour,
    int,
    str,
    bool,
    int | None,
    dict[str, Point],
    list[list[int]],
]


@pytest.mark.parametrize("output", OUTPUTS, ids=str)
def test_an_answer_is_of_the_type(output: Any) -> None:
    adapter, schema = TypeAdapter(output), schema_of(output)
    answers = [run(ask(schema, seed=seed, temperature=None if seed else 0.0)) for seed in range(30)]
    for answer in answers:
        adapter.validate_json(answer.text)
        assert answer.finish_reason == "stop"
        assert answer.usage.completion_tokens == len(split(answer.text))


def test_it_follows_the_seed_and_speaks_of_the_prompt() -> None:
    texts = [run(ask(PLAN, seed=seed)).text for seed in range(10)]
    assert texts == [run(ask(PLAN, seed=seed)).text for seed in range(10)]
    assert len(set(texts)) > 3
    assert any("Rome" in text for text in texts)
    assert len({run(ask(PLAN, seed=seed, temperature=0.0)).text for seed in range(5)}) == 1


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 100))
def test_continuing_from_any_cut_gives_the_rest(data: st.DataObject, seed: int) -> None:
    request = ask(PLAN, seed=seed)
    whole = run(request).text
    cut = data.draw(st.integers(0, len(whole)))
    begun = assistant(whole[:cut], prefix=True)
    assert whole[:cut] + run(replace(request, messages=(*request.messages, begun))).text == whole


def test_the_beginning_of_other_json_is_not_continued() -> None:
    with pytest.raises(UnimplementedError, match="begin"):
        run(ask(PLAN, messages=(user("Hi"), assistant('{"no": ', prefix=True))))


def test_max_tokens_and_stop_strings_cut_it() -> None:
    whole = run(ask(PLAN)).text
    pieces = split(whole)
    for limit in range(1, len(pieces)):
        answer = run(ask(PLAN, max_tokens=limit))
        assert (answer.text, answer.finish_reason) == ("".join(pieces[:limit]), "length")
    stopped = run(ask(PLAN, stop=('our": "', "colour")))
    assert (stopped.text, stopped.finish_reason) == (whole.partition("colour")[0], "stop")


def test_its_log_probabilities_are_certain() -> None:
    answer = run(ask(PLAN, logprobs=True))
    assert "".join(logprob.token for logprob in answer.logprobs) == answer.text
    assert {logprob.logprob for logprob in answer.logprobs} == {0.0}


def test_thinking_comes_first() -> None:
    found = events(ask(PLAN, thinking=True))
    kinds = [type(event) for event in found[1:]]
    assert kinds == sorted(kinds, key=[ReasoningDelta, TextDelta, Finished].index)
    assert "".join(event.text for event in found if isinstance(event, TextDelta)) == run(ask(PLAN)).text


def test_tools_are_called_first_and_json_follows_their_results() -> None:
    tool = Tool("look_up", parameters={"properties": {"city": {"type": "string"}}})
    asked = (user("Use look_up for Bern"),)
    calling = run(ask(PLAN, tools=(tool,), messages=asked))
    assert (calling.text, calling.finish_reason) == ("", "tool_calls")
    answered = (*asked, calling.message, tool_result(calling.tool_calls[0], "far"))
    TypeAdapter(Plan).validate_json(run(ask(PLAN, tools=(tool,), messages=answered)).text)


@pytest.mark.parametrize("schema", ['{"type": 5}', '{"$ref": "#"}', '{"allOf": 3}', '{"enum": []}', "{}"])
def test_a_schema_that_is_odd_gives_json(schema: str) -> None:
    json.loads(run(ask(schema)).text)


# With thinking

TOOL = Tool("f")
CALL = ToolCall("call_1", "f", "{}")


def thinking(**fields: Any) -> GenerateRequest:
    return replace(GenerateRequest((user("Use f"),), seed=1, tools=(TOOL,), thinking=True), **fields)


def turns(reasoning: str | None) -> Any:
    return (user("Use f"), assistant(tool_calls=[CALL], reasoning_content=reasoning), tool_result(CALL, "1"))


def test_reasoning_that_does_not_come_back_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="reasoning that it came with") as caught:
        run(thinking(messages=turns(None)))
    assert caught.value.field == "messages[1].reasoning_content"


@pytest.mark.parametrize("request_", [thinking(messages=turns("")), thinking(messages=turns(None), thinking=None)])
def test_reasoning_that_is_empty_or_not_asked_for_is_fine(request_: GenerateRequest) -> None:
    assert run(request_).text


@pytest.mark.parametrize("choice", [ToolChoice("required"), ToolChoice(function="f")])
def test_a_forced_call_is_refused(choice: ToolChoice) -> None:
    with pytest.raises(InvalidRequestError, match="thinking") as caught:
        run(thinking(tool_choice=choice))
    assert caught.value.field == "tool_choice"


@pytest.mark.parametrize("choice", [None, ToolChoice("auto"), ToolChoice("none")])
def test_an_open_choice_is_fine(choice: ToolChoice | None) -> None:
    assert run(thinking(tool_choice=choice)).reasoning
