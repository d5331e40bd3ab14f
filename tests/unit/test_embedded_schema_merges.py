"""What the embedded engine makes of schemas whose parts say more than one thing: answers that satisfy all of them."""

from __future__ import annotations

import asyncio
import json

import jsonschema
import pytest

from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.types import GenerateRequest, json_schema, user

ENGINE = EmbeddedEngine()


def answer(schema, seed=7):
    request = GenerateRequest((user("Plan a journey"),), seed=seed, response_format=json_schema(json.dumps(schema)))
    return json.loads(asyncio.run(ENGINE.generate(request)).text)


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"enum": [{"a": [1]}, {"a": 2}, [3], 4]}, {"enum": [[3], {"a": [1.0]}]}]},
        {"allOf": [{"enum": [True, 1, "x"]}, {"enum": [1.0, False]}]},
        {"type": "array", "minItems": 2, "allOf": [{"items": {"type": "integer"}}, {"items": {"minimum": 30}}]},
        {"type": "integer", "allOf": [{"minimum": 50}, {"minimum": 3}, {"maximum": 60}, {"maximum": 900}]},
        {"type": "integer", "allOf": [{"minimum": 3}, {"minimum": 50}, {"maximum": 900}, {"maximum": 60}]},
        {"allOf": [{"type": "integer"}, {"type": "number"}, {"minimum": 2}]},
        {"allOf": [{"type": "number"}, {"type": "integer"}, {"minimum": 2}]},
        {"allOf": [{"type": ["number", "string"]}, {"type": ["integer", "null"]}]},
        {"type": ["integer", "string"], "minimum": 5, "maximum": 4},
        {"type": "array", "items": {"type": "integer", "minimum": 5, "maximum": 4}},
        {"type": "array", "items": {"type": "integer", "multipleOf": 7, "minimum": 8, "maximum": 14}, "minItems": 1},
        {"enum": [5, "x"], "type": "string"},
    ],
    ids=json.dumps,
)
def test_an_answer_satisfies_every_part(schema):
    for seed in range(10):
        jsonschema.validate(answer(schema, seed), schema)


def test_a_reference_leads_into_lists_and_through_escapes():
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/kinds/1"}, "b": {"$ref": "#/$defs/a~1b~0c"}},
        "required": ["a", "b"],
        "kinds": [{"type": "string"}, {"type": "integer"}],
        "$defs": {"a/b~c": {"const": "found"}},
    }
    made = answer(schema)
    assert type(made["a"]) is int
    assert made["b"] == "found"


@pytest.mark.parametrize("reference", ["https://example.com/other.json", "#/kinds/9", "#/kinds/x", "#/nowhere"])
def test_a_reference_that_leads_nowhere_asks_for_nothing(reference):
    schema = {"type": "object", "properties": {"a": {"$ref": reference}}, "required": ["a"], "kinds": [{}]}
    assert "a" in answer(schema)


def test_a_number_that_json_cannot_say_is_no_answer():
    request = GenerateRequest((user("x"),), seed=7, response_format=json_schema('{"enum": [1e999, -1e999, 5]}'))
    assert asyncio.run(ENGINE.generate(request)).text == "5"
