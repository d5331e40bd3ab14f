"""A tool's arguments against its schema."""

import json
import traceback
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepseek_grpc._codec.request import encode_generate
from deepseek_grpc.errors import InvalidRequestError, OutputError
from deepseek_grpc.types import Tool, ToolCall
from deepseek_grpc.types._arguments import _validator

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 40},
        "days": {"anyOf": [{"type": "integer", "maximum": 14}, {"type": "null"}]},
        "stops": {
            "type": "array",
            "items": {"type": "object", "properties": {"at": {"$ref": "#/$defs/place"}}, "required": ["at"]},
        },
        "unit": {"enum": ["C", "F"]},
    },
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]}},
}
WEATHER = Tool("weather", "Tells the weather", SCHEMA)


def call(arguments: str, name: str = "weather") -> ToolCall:
    return ToolCall("call_1", name, arguments)


@pytest.mark.parametrize("parameters", [SCHEMA, json.dumps(SCHEMA), MappingProxyType(SCHEMA)])
def test_arguments_that_fit_are_returned(parameters):
    tool = Tool("weather", parameters=parameters)
    arguments = {"city": "Zürich", "days": None, "stops": [{"at": {"lat": 47.4, "lon": 8.5}}], "unit": "C"}
    assert tool.parse(call(json.dumps(arguments))) == arguments


@pytest.mark.parametrize("parameters", ["", "{}", {}, {"type": "object"}])
@pytest.mark.parametrize("arguments", ["", " \n", "{}"])
def test_no_arguments(parameters, arguments):
    assert Tool("weather", parameters=parameters).parse(call(arguments)) == {}


def test_a_tool_without_parameters_takes_none():
    with pytest.raises(OutputError, match="'x' was unexpected"):
        Tool("weather").parse(call('{"x": 1}'))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON, max_size=4), st.booleans())
def test_any_arguments_come_back_equal_where_any_are_allowed(arguments, ascii_only):
    assert Tool("weather", parameters={}).parse(call(json.dumps(arguments, ensure_ascii=ascii_only))) == arguments


SECRET = "canary-77aa"
MISFITS = [
    ("a wrong type", '{"city": 5}', ['city: doesn\'t satisfy "type": "string"']),
    ("nothing that is required", "", ["'city' is a required property"]),
    ("a name that isn't known", '{"city": "x", "town": 1}', ["'town' was unexpected"]),
    ("too large a number", '{"city": "x", "days": 15}', ['days: doesn\'t satisfy "maximum": 14']),
    ("none of the values", '{"city": "x", "unit": "K"}', ['unit: doesn\'t satisfy "enum": ["C", "F"]']),
    ("deep inside", '{"city": "x", "stops": [{"at": {"lat": 1}}, {"at": {"lat": "n"}}]}', ["stops[1].at.lat"]),
    ("several", '{"days": 15, "unit": "K", "x": 1}', ["days", "unit", "and 1 more"]),
    ("a secret", json.dumps({"city": [SECRET] * 1000}), ["city"]),
    ("a long text", json.dumps({"city": SECRET * 10_000}), ["city", '"maxLength": 40']),
    ("a long name", json.dumps({"city": "x", "n" * 100_000: 1}), ["Additional properties"]),
    ("no JSON", '{"city": "x"', ["no JSON", "line 1 column 13"]),
    ("more than JSON", '{"city": "x"} thanks', ["no JSON", "line 1 column 15"]),
    ("no number", '{"city": "x", "days": NaN}', ["no JSON", "NaN"]),
    ("a number without end", '{"city": "x", "days": ' + "9" * 5000 + "}", ["an integer has 5,000 digits"]),
    ("a number beyond all", '{"city": "x", "days": 1e999}', ["1e999 is too large"]),
    ("a name that is there twice", '{"city": "x", "stops": [{"at": 1, "at": 2}]}', ["the name 'at' is there twice"]),
    ("a list", '["x"]', ["no JSON object"]),
    ("a text", '"x"', ["no JSON object"]),
    ("without end", "[" * 100_000, ["nested too deeply"]),
]


@pytest.mark.parametrize(("arguments", "says"), [case[1:] for case in MISFITS], ids=[case[0] for case in MISFITS])
def test_a_misfit_says_which_argument_and_how(arguments, says):
    with pytest.raises(OutputError) as caught:
        WEATHER.parse(call(arguments))
    error = caught.value
    assert error.text == arguments
    assert [word for word in ["the arguments for weather don't fit: ", *says] if word not in error.details] == []
    assert len(str(error)) < 1000
    assert SECRET not in "".join(traceback.format_exception(error))


def test_the_call_of_another_tool_is_refused():
    with pytest.raises(OutputError, match=r"'news'.*'weather'"):
        WEATHER.parse(call("{}", "news"))


def test_what_is_no_call_is_refused():
    with pytest.raises(InvalidRequestError, match="dict; give a ToolCall") as caught:
        WEATHER.parse({"name": "weather", "arguments": "{}"})
    assert caught.value.field == "call"


@pytest.mark.parametrize("name", ["weather", "news"])
def test_arguments_that_are_no_text_are_refused(name):
    with pytest.raises(InvalidRequestError, match=r"call\.arguments is a NoneType; give JSON text") as caught:
        WEATHER.parse(call(None, name))
    assert caught.value.field == "call"


NO_OBJECTS = [
    ("no JSON", "{x", ["no JSON", "line 1 column 2"]),
    ("Python", "{'type': 'object'}", ["no JSON", "double quotes"]),
    ("a list", "[]", ["object"]),
    ("a number", 5, ["int", "JSON Schema"]),
    ("nothing", None, ["NoneType", "JSON Schema"]),
    ("a class", dict, ["type", "JSON Schema"]),
    ("a set in it", {"enum": {1}}, ["no JSON", "set"]),
    ("without end", "[" * 100_000, ["nested too deeply"]),
]
NO_SCHEMAS = [
    ("an unknown type", {"properties": {"a": {"type": "strng"}}}, ["properties.a.type", "strng"]),
    ("a text for a number", {"properties": {"a": {"minimum": "1"}}}, ["properties.a.minimum"]),
    ("no pattern", {"properties": {"a": {"pattern": "("}}}, ["properties.a.pattern", "regex"]),
    ("no address", {"$schema": []}, ["JSON Schema"]),
    ("a broken address", {"$schema": "http://["}, ["JSON Schema"]),
    ("a reference to elsewhere", {"$ref": "http://127.0.0.1:9/x"}, ["http://127.0.0.1:9/x", "doesn't contain"]),
    ("a reference to nothing", {"$ref": "#/$defs/x"}, ["/$defs/x", "doesn't contain"]),
    ("a reference to itself", {"$ref": "#"}, ["without end"]),
]


@pytest.mark.parametrize(
    ("parameters", "says"),
    [case[1:] for case in NO_OBJECTS + NO_SCHEMAS],
    ids=[case[0] for case in NO_OBJECTS + NO_SCHEMAS],
)
def test_a_tools_own_fault_is_no_misfit(parameters, says):
    with pytest.raises(InvalidRequestError) as caught:
        Tool("weather", parameters=parameters).parse(call("{}"))
    assert caught.value.field == "parameters"
    assert [word for word in ["parameters ", *says] if word not in caught.value.details] == []
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("parameters", "says"), [case[1:] for case in NO_OBJECTS], ids=[c[0] for c in NO_OBJECTS])
def test_what_is_no_json_object_is_not_even_sent(parameters, says):
    with pytest.raises(InvalidRequestError) as caught:
        encode_generate("Hi", request_id="r", tools=[Tool("f"), Tool("g", parameters=parameters)])
    assert caught.value.field == "tools[1].parameters"
    assert [word for word in says if word not in caught.value.details] == []
    assert "give" in caught.value.details or "nested" in caught.value.details


def test_an_older_dialect_counts_where_the_schema_names_it():
    old = {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {"items": [{"type": "integer"}]}}}
    tool = Tool("weather", parameters=old)
    assert tool.parse(call('{"a": [1, "x"]}')) == {"a": [1, "x"]}
    with pytest.raises(OutputError, match=r"a\[0\]"):
        tool.parse(call('{"a": ["x"]}'))


def test_a_schema_is_prepared_once():
    WEATHER.parse(call('{"city": "x"}'))
    misses = _validator.cache_info().misses
    WEATHER.parse(call('{"city": "y"}'))
    assert _validator.cache_info().misses == misses
