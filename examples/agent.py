"""Lets the model call the program's functions, over one session: each step sends only what is new.

Needs a gateway: `deepseek-grpc serve` prints the environment to set.
"""

import asyncio
import json
from collections.abc import Callable

from deepseek_grpc import AsyncClient, AsyncSession, Completion, Message, Tool, ToolCall, errors, tool_result

QUESTIONS = ("Is it cold? Ask get_weather.", "How late is it there? Ask get_time.")
MOST_STEPS = 5
"""A model may ask for one call after the other without an end."""
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Bern", "Oslo", "Quito"]}},
    "required": ["city"],
    "additionalProperties": False,
}


def get_weather(city: str) -> dict[str, object]:
    """Returns the weather of a city."""
    return {"city": city, "celsius": {"Bern": 4, "Oslo": -7, "Quito": 19}[city]}


def get_time(city: str) -> dict[str, object]:
    """Returns the time of day in a city."""
    return {"city": city, "time": {"Bern": "13:00", "Oslo": "13:00", "Quito": "07:00"}[city]}


FUNCTIONS: dict[str, Callable[..., dict[str, object]]] = {"get_weather": get_weather, "get_time": get_time}
TOOLS = {name: Tool(name, function.__doc__ or "", CITY) for name, function in FUNCTIONS.items()}


async def main() -> None:
    """Asks one question after the other, in one conversation."""
    async with AsyncClient.from_env() as client, client.text.session() as session:
        answer: Completion | None = None
        for question in QUESTIONS:
            print(f"> {question}")
            answer = await ask(session, question, answer)
            print(answer.text)


async def ask(session: AsyncSession, question: str, before: Completion | None) -> Completion:
    """Goes on until the model answers in words."""
    tools = tuple(TOOLS.values())  # with every request: a parent hands its messages on, not its options
    answer = await session.generate(question, parent=before, tools=tools)
    for _ in range(MOST_STEPS):
        if not answer.tool_calls:
            return answer
        results = [run(call) for call in answer.tool_calls]
        answer = await session.generate(results, parent=answer, tools=tools)
    raise SystemExit(f"the model still calls tools after {MOST_STEPS} steps")


def run(call: ToolCall) -> Message:
    """Runs a call and makes a message of its result."""
    # What the model writes may be anything: only arguments that fit the tool's schema reach the function, and what is
    # wrong goes back, so that the model may correct itself.
    tool = TOOLS.get(call.name)
    if tool is None:
        result = f"there is no tool {call.name!r}"
    else:
        try:
            result = json.dumps(FUNCTIONS[call.name](**tool.parse(call)))
        except errors.OutputError as error:
            result = error.details
    print(f"  {call.name} {call.arguments} -> {result}")
    return tool_result(call, result)


if __name__ == "__main__":
    asyncio.run(main())
