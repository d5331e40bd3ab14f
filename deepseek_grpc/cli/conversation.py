"""Conversations and tools as JSON, with the fields of DeepSeek's chat completion API."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from deepseek_grpc.errors import InvalidRequestError
from deepseek_grpc.types import Message, TextPart, Tool, ToolCall

__all__ = ["dump_messages", "parse_messages", "parse_tools"]

_T = TypeVar("_T")


def parse_messages(where: str, text: str) -> list[Message]:
    """Reads a conversation that was found in `where`: a JSON array of messages as DeepSeek's API has them.

    Raises:
        InvalidRequestError: With `where` and the line, or the place in the array.
    """
    return _parse(where, text, "messages", _message)


def parse_tools(where: str, text: str) -> list[Tool]:
    """Reads tools that were found in `where`: a JSON array of `{"type": "function", "function": {…}}`.

    Raises:
        InvalidRequestError: With `where` and the line, or the place in the array.
    """
    return _parse(where, text, "tools", _tool)


def dump_messages(messages: Sequence[Message]) -> str:
    """Writes a conversation of text as JSON that `parse_messages` reads."""
    return json.dumps([_fields(message) for message in messages], indent=2, ensure_ascii=False) + "\n"


def _fields(message: Message) -> dict[str, Any]:
    found = {"role": message.role, "content": message.content}
    return found if message.reasoning_content is None else {**found, "reasoning_content": message.reasoning_content}


def _parse(where: str, text: str, what: str, one: Callable[[dict[str, Any]], _T]) -> list[_T]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequestError(f"{where}: no JSON: {error.msg} ({place})") from None
    except (ValueError, RecursionError) as error:  # a number too long, brackets too deep
        raise InvalidRequestError(f"{where}: no JSON that can be read: {error}") from None
    if not isinstance(document, list):
        raise InvalidRequestError(f"{where}: a JSON {_kind(document)}; give an array of {what}")
    parsed = []
    for index, entry in enumerate(document):
        try:
            parsed.append(one(_object("", entry)))
        except _ShapeError as error:
            raise InvalidRequestError(f"{where}: [{index}]{error}") from None
    return parsed


class _ShapeError(Exception):
    """What is wrong with an entry, after its place in it."""


def _message(entry: dict[str, Any]) -> Message:
    _known("", entry, [field.name for field in fields(Message)])
    values = {key: value for key, value in entry.items() if value is not None}
    if "role" not in values:
        raise _ShapeError(".role is missing")
    if isinstance(content := values.get("content"), list):
        values["content"] = tuple(_part(f".content[{i}]", part) for i, part in enumerate(content))
    calls = values.get("tool_calls", [])
    if not isinstance(calls, list):
        raise _ShapeError(f".tool_calls is a JSON {_kind(calls)}; give an array")
    values["tool_calls"] = tuple(_tool_call(f".tool_calls[{i}]", call) for i, call in enumerate(calls))
    return Message(**values)


def _part(place: str, entry: Any) -> TextPart:
    part = _object(place, entry)
    if part.get("type") != "text":
        raise _ShapeError(f"{place}.type is {json.dumps(part.get('type'))}; the command line takes text parts only")
    return TextPart(part.get("text", ""))


def _tool_call(place: str, entry: Any) -> ToolCall:
    call = _object(place, entry)
    _known(place, call, ["id", "type", "function", "index"])
    function = _object(f"{place}.function", call.get("function"))
    _known(f"{place}.function", function, ["name", "arguments"])
    return ToolCall(call.get("id", ""), function.get("name", ""), function.get("arguments", ""))


def _tool(entry: dict[str, Any]) -> Tool:
    _known("", entry, ["type", "function"])
    if entry.get("type", "function") != "function":
        raise _ShapeError(f".type is {json.dumps(entry['type'])}; give 'function'")
    function = _object(".function", entry.get("function"))
    _known(".function", function, [field.name for field in fields(Tool)])
    if "name" not in function:
        raise _ShapeError(".function.name is missing")
    parameters = function.get("parameters", "")
    if isinstance(parameters, str) and parameters:
        try:
            json.loads(parameters)
        except ValueError as error:
            raise _ShapeError(f".function.parameters is text that is no JSON: {error}") from None
    return Tool(**function)


def _object(place: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _ShapeError(f"{place} is {'missing' if value is None else f'a JSON {_kind(value)}'}; give an object")
    return value


def _known(place: str, entry: dict[str, Any], names: list[str]) -> None:
    for key in entry:
        if key not in names:
            raise _ShapeError(f"{place} has the unknown key {key!r}; known are {', '.join(names)}")


def _kind(value: Any) -> str:
    return {dict: "object", list: "array", str: "string", bool: "boolean"}.get(
        type(value), "null" if value is None else "number"
    )
