"""Tool calls from end to end: assembled from deltas, checked, answered; and reasoning that goes back as it came."""

from __future__ import annotations

import json

import pytest

from deepseek_grpc import (
    Completion,
    Finished,
    ReasoningDelta,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    assistant,
    system,
    tool_result,
    user,
)
from deepseek_grpc.errors import InvalidRequestError, OutputError
from deepseek_grpc.local import LocalGateway
from deepseek_grpc.testing import Reasoning, ToolUse

WEATHER = Tool(
    "get_weather",
    "Tells the weather of a city",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 14}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
CLOCK = Tool("clock", "Tells the time")
QUESTION = user("Use get_weather for Bern")


@pytest.fixture(scope="module")
def gateway():
    with LocalGateway() as gateway:
        yield gateway


async def generate(client, messages, **options) -> Completion:
    return await client.text.generate(messages, **options)


async def stream(client, messages, **options) -> Completion:
    async with client.text.stream(messages, **options) as stream:
        return await stream.final()


async def session_generate(client, messages, **options) -> Completion:
    async with client.text.session() as session:
        return await session.generate(messages, **options)


async def session_stream(client, messages, **options) -> Completion:
    async with client.text.session() as session, session.stream(messages, **options) as stream:
        return await stream.final()


every_way = pytest.mark.parametrize("ask", [generate, stream, session_generate, session_stream])


@every_way
@pytest.mark.parametrize("thinking", [None, True])
async def test_the_whole_loop_offline(gateway, ask, thinking):
    tools = [CLOCK, WEATHER]
    async with gateway.async_client() as client:
        asked = await ask(client, [QUESTION], tools=tools, thinking=thinking, seed=3)
        assert (asked.text, asked.finish_reason) == ("", "tool_calls")
        assert bool(asked.reasoning) is bool(thinking)
        (call,) = asked.tool_calls
        arguments = WEATHER.parse(call)
        assert arguments["city"]
        messages = [QUESTION, asked.message, tool_result(call, "Snow, and a deadline at noon")]
        answer = await ask(client, messages, tools=tools, thinking=thinking, seed=3)
        assert (answer.tool_calls, answer.finish_reason) == ((), "stop")
        assert answer.text


async def test_the_deltas_of_a_call_make_up_the_call(gateway):
    async with (
        gateway.async_client() as client,
        client.text.stream(QUESTION, tools=[WEATHER], tool_choice=ToolChoice(function="get_weather")) as stream,
    ):
        events = [event async for event in stream]
        answer = await stream.final()
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    (call,) = answer.tool_calls
    assert (deltas[0].id, deltas[0].name) == (call.id, call.name)
    assert {(delta.id, delta.name) for delta in deltas[1:]} == {("", "")}
    assert "".join(delta.arguments for delta in deltas) == call.arguments
    assert len(deltas) > 3
    assert WEATHER.parse(call)


@every_way
async def test_the_whole_loop_with_two_calls_and_scripted_answers(fake_server, client, ask):
    fake_server.text.script(
        Reasoning("Two"),
        Reasoning(" cities."),
        "Let me look.",
        ToolUse("get_weather", '{"city": "Bern"}', "call_a"),
        ToolUse("get_weather", '{"city": "Rom", "days": 15}', "call_b"),
    )
    asked = await ask(client, [system("Be brief"), QUESTION], tools=[WEATHER])
    assert (asked.text, asked.reasoning, asked.finish_reason) == ("Let me look.", "Two cities.", "tool_calls")
    fine, wrong = asked.tool_calls
    results = [tool_result(fine, json.dumps(WEATHER.parse(fine)))]
    with pytest.raises(OutputError, match=r'days: doesn\'t satisfy "maximum": 14') as caught:
        WEATHER.parse(wrong)
    results.append(tool_result(wrong, caught.value.details))  # the model may try again
    with pytest.raises(OutputError, match="'clock'"):
        CLOCK.parse(fine)
    fake_server.text.script("Snow.")
    answer = await ask(client, [system("Be brief"), QUESTION, asked.message, *results], tools=[WEATHER])
    assert answer.text == "Snow."
    recorded = fake_server.text.requests[1].request.messages
    assert recorded == (system("Be brief"), QUESTION, asked.message, *results)
    assert recorded[2] == assistant("Let me look.", reasoning_content="Two cities.", tool_calls=(fine, wrong))


@every_way
async def test_what_a_limit_cut_off_says_so(fake_server, client, ask):
    fake_server.text.script(ToolUse("get_weather", '{"city": "Be'), Finished("length"))
    answer = await ask(client, [QUESTION], tools=[WEATHER])
    assert answer.finish_reason == "length"
    with pytest.raises(OutputError, match="no JSON") as caught:
        WEATHER.parse(answer.tool_calls[0])
    assert caught.value.text == '{"city": "Be'


# Reasoning

REASONINGS = {
    "none": None,
    "empty": "",
    "white space": " \t\n\r\n  ",
    "around": "\n\n Hm \n",
    "unicode": "思考… 🤔👩‍👩‍👧 ﷽ e\u0301 é \u202e \ufeff",
    "odd white space": "a\u00a0b\u2028c\u2029d\u0085e\u200bf\x0bg\x0ch",
    "control characters": "\0\x01\x1b[31m\x7f",
    "tags": "<think>\\n</think> {\"a\": '\\u0041'}",
    "long": "Es ist so. " * 20_000,
}
CALLS = (
    ToolCall("call_é", "get_weather", '{ "city" :\t"Zürich\\u00e9 🌧" }\n'),
    ToolCall("call_2", "clock", "not JSON \0"),
)


def pieces(text: str | None) -> list[Reasoning]:
    """Cuts a reasoning up as a stream does, a grapheme's code points apart."""
    if text is None:
        return []
    size = max(1, len(text) // 7)
    return [Reasoning(text[start : start + size]) for start in range(0, len(text), size)] or [Reasoning("")]


@every_way
@pytest.mark.parametrize("reasoning", REASONINGS.values(), ids=REASONINGS)
async def test_reasoning_goes_back_byte_for_byte(fake_server, client, ask, reasoning):
    calls = [ToolUse(call.name, call.arguments, call.id) for call in CALLS]
    fake_server.text.script(*pieces(reasoning), *calls)
    asked = await ask(client, [QUESTION])
    assert (asked.reasoning, asked.tool_calls) == (reasoning, CALLS)
    assert asked.message == assistant(reasoning_content=reasoning, tool_calls=CALLS)

    await ask(client, [QUESTION, asked.message, tool_result(CALLS[0], "1"), tool_result(CALLS[1], "2")])
    recorded = fake_server.text.requests[1].request.messages[1]
    assert recorded.tool_calls == CALLS
    assert recorded.content == ""
    if reasoning is None:
        assert recorded.reasoning_content is None
    else:
        assert recorded.reasoning_content.encode() == reasoning.encode()


async def test_reasoning_text_and_calls_arrive_in_their_order(fake_server, client):
    fake_server.text.script(Reasoning("a"), Reasoning("b"), "c", ToolUse("clock"), ToolUse("clock", "{}", "call_2"))
    async with client.text.stream(QUESTION) as stream:
        events = [event async for event in stream]
    assert events[1:-1] == [
        ReasoningDelta("a"),
        ReasoningDelta("b"),
        TextDelta("c"),
        ToolCallDelta(0, "call_1", "clock"),
        ToolCallDelta(0, arguments="{}"),
        ToolCallDelta(1, "call_2", "clock"),
        ToolCallDelta(1, arguments="{}"),
    ]


@every_way
async def test_with_thinking_the_engine_wants_the_reasoning_back(gateway, ask):
    async with gateway.async_client() as client:
        asked = await ask(client, [QUESTION], tools=[WEATHER], thinking=True)
        (call,) = asked.tool_calls
        forgotten = [QUESTION, assistant(tool_calls=asked.tool_calls), tool_result(call, "Snow")]
        with pytest.raises(InvalidRequestError, match="reasoning") as caught:
            await ask(client, forgotten, tools=[WEATHER], thinking=True)
        assert caught.value.field == "messages[1].reasoning_content"
        assert (await ask(client, forgotten, tools=[WEATHER])).text


@every_way
@pytest.mark.parametrize("choice", ["required", ToolChoice(function="get_weather")])
async def test_with_thinking_the_engine_refuses_to_be_forced_to_call(gateway, ask, choice):
    async with gateway.async_client() as client:
        with pytest.raises(InvalidRequestError, match="thinking") as caught:
            await ask(client, [QUESTION], tools=[WEATHER], tool_choice=choice, thinking=True)
    assert caught.value.field == "tool_choice"


@every_way
async def test_with_thinking_a_forced_call_reaches_engines_as_it_was_asked_for(fake_server, client, ask):
    await ask(client, [QUESTION], tools=[WEATHER], tool_choice="required", thinking=True)
    seen = fake_server.text.requests[0].request
    assert (seen.thinking, seen.tool_choice) == (True, ToolChoice("required"))
