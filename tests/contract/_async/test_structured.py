"""Answers as types: what is asked for, what is parsed, and what a misfit raises, on every kind of call."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter
from typing_extensions import TypedDict

from deepseek_grpc import Completion, Finished, TextDelta, ToolCall, json_object, json_schema
from deepseek_grpc.errors import InvalidRequestError, OutputError, ServiceUnavailableError
from deepseek_grpc.local import LocalGateway
from deepseek_grpc.testing import Fail, Reasoning, Stall, ToolUse


class Sky(Enum):
    CLEAR = "clear"
    CLOUDED = "clouded"


@dataclass
class Day:
    sky: Sky
    high: float | None


@dataclass
class Forecast:
    city: str
    days: list[Day]
    notes: dict[str, str] = field(default_factory=dict)


class ForecastModel(BaseModel):
    city: str
    days: list[Day]


class ForecastDict(TypedDict):
    city: str
    days: list[Day]


TEXT = '{"city": "Zürich", "days": [{"sky": "clear", "high": 3.5}, {"sky": "clouded", "high": null}]}'
DAYS = [Day(Sky.CLEAR, 3.5), Day(Sky.CLOUDED, None)]
MISFIT = '{"city": "Bern", "days": [{"sky": "green", "high": 1}]}'
PIECES = (TEXT[:5], TEXT[5:30], TEXT[30:])


@pytest.fixture(scope="module")
def gateway():
    with LocalGateway() as gateway:
        yield gateway


async def generate(client, **options) -> Completion:
    return await client.text.generate("How is the weather?", **options)


async def stream(client, **options) -> Completion:
    async with client.text.stream("How is the weather?", **options) as stream:
        return await stream.final()


async def session_generate(client, **options) -> Completion:
    async with client.text.session() as session:
        return await session.generate("How is the weather?", **options)


async def session_stream(client, **options) -> Completion:
    async with client.text.session() as session, session.stream("How is the weather?", **options) as stream:
        return await stream.final()


async def many(client, **options) -> Completion:
    (found,) = await client.text.generate_many(["How is the weather?"], **options)
    if isinstance(found, Exception):
        raise found
    return found


every_way = pytest.mark.parametrize("ask", [generate, stream, session_generate, session_stream, many])


@every_way
@pytest.mark.parametrize(
    ("output", "wanted"),
    [
        (Forecast, Forecast("Zürich", DAYS)),
        (ForecastModel, ForecastModel(city="Zürich", days=DAYS)),
        (ForecastDict, {"city": "Zürich", "days": DAYS}),
    ],
)
async def test_the_answer_is_parsed(fake_server, client, ask, output, wanted):
    fake_server.text.script(Reasoning("Hm"), *PIECES)
    answer = await ask(client, output=output)
    assert answer.parsed == wanted
    assert (answer.text, answer.reasoning, answer.finish_reason) == (TEXT, "Hm", "stop")
    form = fake_server.text.requests[0].request.response_format
    assert (form.type, json.loads(form.schema)) == ("json_schema", TypeAdapter(output).json_schema())


@every_way
async def test_json_objects_are_parsed_too_and_no_schema_is_sent(fake_server, client, ask):
    fake_server.text.script(*PIECES)
    answer = await ask(client, output=Forecast, response_format=json_object)
    assert answer.parsed == Forecast("Zürich", DAYS)
    assert fake_server.text.requests[0].request.response_format == json_object


@every_way
@pytest.mark.parametrize("options", [{}, {"output": None}, {"response_format": json_object}])
async def test_without_a_type_nothing_is_parsed(fake_server, client, ask, options):
    fake_server.text.script(TEXT)
    assert (await ask(client, **options)).parsed is None
    assert fake_server.text.requests[0].request.response_format == options.get("response_format")


@every_way
@pytest.mark.parametrize(
    ("script", "says"),
    [
        ((MISFIT,), "Forecast: days[0].sky: "),
        (("Well: ", TEXT), "Invalid JSON"),
        ((" ", "\n"), "is blank"),
        ((), "is blank"),
        ((Reasoning("only this"),), "is blank"),
        ((TEXT, Finished("length")), "cut off after"),
        ((TEXT[:20], Finished("content_filter")), "Invalid JSON"),
    ],
)
async def test_a_misfit_raises(fake_server, client, ask, script, says):
    fake_server.text.script(*script)
    with pytest.raises(OutputError) as caught:
        await ask(client, output=Forecast)
    error = caught.value
    assert says in error.details
    assert error.text == "".join(step for step in script if isinstance(step, str))
    assert error.request_id == fake_server.text.requests[0].request.request_id
    assert error.request_id in str(error)


@every_way
async def test_a_call_of_a_tool_is_no_misfit(fake_server, client, ask):
    fake_server.text.script(ToolUse("look_up", "{}"))
    answer = await ask(client, output=Forecast)
    assert (answer.parsed, answer.text, answer.finish_reason) == (None, "", "tool_calls")
    assert answer.tool_calls == (ToolCall("call_1", "look_up", "{}"),)


@every_way
@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"output": 5}, "output"),
        ({"output": "Forecast"}, "output"),
        ({"output": Forecast("Bern", [])}, "output"),
        ({"output": Forecast, "response_format": json_schema("{}")}, "response_format"),
    ],
)
async def test_what_is_wrong_is_refused_before_anything_is_sent(fake_server, client, ask, options, field):
    with pytest.raises(InvalidRequestError) as caught:
        await ask(client, **options)
    assert caught.value.field == field
    assert fake_server.text.requests == []


async def test_iterating_does_not_raise_and_every_final_does(fake_server, client):
    fake_server.text.script(MISFIT)
    async with client.text.stream("Hi", output=Forecast) as stream:
        events = [event async for event in stream]
        assert events[1] == TextDelta(MISFIT)
        for _ in range(2):
            with pytest.raises(OutputError) as caught:
                await stream.final()
            assert caught.value.text == MISFIT


async def test_what_was_cancelled_is_not_parsed(fake_server, client):
    fake_server.text.script(TEXT, Stall())
    async with client.text.stream("Hi", output=Forecast) as stream:
        async for _ in stream.text():
            await stream.cancel()
        answer = await stream.final()
    assert (answer.text, answer.parsed, answer.finish_reason) == (TEXT, None, "cancelled")


async def test_what_failed_raises_its_own_error(fake_server, client):
    fake_server.text.script(Fail("UNAVAILABLE", retryable=False))
    with pytest.raises(ServiceUnavailableError):
        await client.text.generate("Hi", output=Forecast)


async def test_misfits_of_many_are_in_place(fake_server, client):
    for text in (TEXT, MISFIT, TEXT):
        fake_server.text.script(text)
    first, second, third = await client.text.generate_many(["a", "b", "c"], concurrency=1, output=Forecast)
    assert isinstance(second, OutputError)
    assert second.text == MISFIT
    assert first.parsed == third.parsed == Forecast("Zürich", DAYS)


@every_way
@pytest.mark.parametrize("output", [Forecast, ForecastModel, ForecastDict, list[Day], Sky])
async def test_it_works_offline(gateway, ask, output: Any):
    async with gateway.async_client() as client:
        for seed in range(3):
            answer = await ask(client, output=output, seed=seed)
            assert answer.parsed == TypeAdapter(output).validate_json(answer.text)
        with pytest.raises(OutputError, match="raise max_tokens") as caught:
            await ask(client, output=output, seed=0, max_tokens=1)
        assert caught.value.text
