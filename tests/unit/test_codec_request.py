import json
import math
import traceback
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepseek_grpc._codec.checks import check_generate, request_limit
from deepseek_grpc._codec.request import decode_generate, encode_generate
from deepseek_grpc.config import MAX_MESSAGE_BYTES
from deepseek_grpc.errors import InvalidRequestError, RequestTooLargeError
from deepseek_grpc.types import (
    FilePart,
    GenerateRequest,
    ImagePart,
    Message,
    ResponseFormat,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    assistant,
    json_object,
    json_schema,
    system,
    tool_result,
    user,
)
from deepseek_rpc.v2 import text_pb2 as pb


def encode(prompt="Hi", **options):
    return encode_generate(prompt, request_id="r1", **options)


def decode(prompt="Hi", **options):
    return decode_generate(encode(prompt, **options))


# What goes in comes out


def test_a_prompt_is_one_user_message():
    assert decode("Hi").messages == (user("Hi"),)


def test_a_system_message_stands_before_everything_else():
    conversation = [system("Be kind."), user("Why?")]
    assert decode("Hi", system_message="Be brief.").messages == (system("Be brief."), user("Hi"))
    assert decode(conversation, system_message="Be brief.").messages == (system("Be brief."), *conversation)


def test_a_single_message_is_a_conversation_of_one():
    assert decode(user("Hi", name="ann")).messages == (user("Hi", name="ann"),)


def test_a_conversation_may_come_from_a_generator():
    assert decode(user(text) for text in ("one", "two")).messages == (user("one"), user("two"))


def test_a_tool_turn_keeps_its_reasoning_byte_for_byte():
    call = ToolCall("call_1", "weather", '{"city": "Bern"')  # as the model wrote it: not even JSON
    messages = (user("?"), assistant(reasoning_content=" \n思\0", tool_calls=[call]), tool_result(call, "21 °C"))
    assert decode(messages).messages == messages


@pytest.mark.parametrize("reasoning", [None, ""])
def test_no_reasoning_and_an_empty_one_are_told_apart(reasoning):
    assert decode([user("?"), assistant("!", reasoning_content=reasoning)]).messages[1].reasoning_content == reasoning


def test_what_is_not_given_stays_unset():
    assert decode("Hi") == GenerateRequest((user("Hi"),), request_id="r1")


def test_none_means_the_same_as_leaving_it_out():
    names = [n for n in GenerateRequest.__dataclass_fields__ if n not in ("messages", "request_id", "extra_json")]
    assert encode("Hi", **dict.fromkeys(names), extra=None, system_message=None) == encode("Hi")


@pytest.mark.parametrize(
    ("option", "value"),
    [("temperature", 0.0), ("seed", 0), ("top_logprobs", 0), ("frequency_penalty", 0.0), ("presence_penalty", 0.0)],
)
def test_zero_is_a_value_and_not_the_default(option, value):
    assert getattr(decode("Hi", logprobs=True, **{option: value}), option) == value


@pytest.mark.parametrize("thinking", [True, False, None])
def test_thinking_is_on_off_or_the_models_default(thinking):
    assert decode("Hi", thinking=thinking).thinking is thinking


def test_one_stop_string_needs_no_list():
    assert decode("Hi", stop="END").stop == ("END",)


def test_a_schema_given_as_a_mapping_travels_as_json_text():
    tool = Tool("f", parameters={"type": "object", "maximum": 9007199254740993})
    assert json.loads(decode("Hi", tools=[tool]).tools[0].parameters) == tool.parameters


def test_any_mapping_will_do_for_a_schema():
    tool = Tool("f", parameters=MappingProxyType({"properties": MappingProxyType({})}))
    assert json.loads(decode("Hi", tools=[tool]).tools[0].parameters) == {"properties": {}}


def test_extra_fields_travel_as_json_text():
    assert json.loads(decode("Hi", extra={"top_k": 5, "名": None}).extra_json) == {"top_k": 5, "名": None}


@pytest.mark.parametrize("mode", ["auto", "none", "required"])
def test_a_tool_choice_may_be_a_word(mode):
    assert decode("Hi", tools=[Tool("f")], tool_choice=mode).tool_choice == ToolChoice(mode)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SOME_TEXT = TEXT.filter(bool)
NAME = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
JSON_OBJECT = st.dictionaries(TEXT, st.none() | st.booleans() | st.integers() | TEXT, max_size=3)
PART = st.builds(TextPart, TEXT) | st.builds(ImagePart, TEXT, TEXT) | st.builds(FilePart, TEXT)
PARTS = st.lists(PART, min_size=1, max_size=3).map(tuple)
CALL = st.builds(ToolCall, TEXT, TEXT, TEXT)
MESSAGE = st.one_of(
    st.builds(system, SOME_TEXT | PARTS, name=TEXT),
    st.builds(user, SOME_TEXT | PARTS, name=TEXT),
    st.builds(
        assistant, TEXT | PARTS, reasoning_content=st.none() | TEXT, tool_calls=st.lists(CALL, max_size=2), name=TEXT
    ),
    st.builds(tool_result, SOME_TEXT, TEXT),
)
CONVERSATION = st.builds(
    lambda messages, last: (*messages, *last),
    st.lists(MESSAGE, min_size=1, max_size=4),
    st.lists(st.builds(assistant, TEXT, prefix=st.just(value=True)), max_size=1),
)
CHECKED = st.floats(-2, 2)


@st.composite
def toolset(draw):
    """Tools that agree on being strict, and a choice that fits them."""
    names = draw(st.lists(NAME, max_size=3, unique=True))
    strict = draw(st.booleans())
    parameters = st.just("") | JSON_OBJECT.map(json.dumps)
    tools = tuple(Tool(name, draw(TEXT), draw(parameters), strict) for name in names)
    choices = [None, ToolChoice("auto"), ToolChoice("none")]
    if names:
        choices += [ToolChoice("required"), *(ToolChoice(function=name) for name in names)]
    return tools, draw(st.sampled_from(choices))


@st.composite
def generate_requests(draw):
    tools, choice = draw(toolset())
    logprobs = draw(st.booleans())
    formats = [None, ResponseFormat(), json_object, json_schema(json.dumps(draw(JSON_OBJECT)))]
    return GenerateRequest(
        messages=draw(CONVERSATION),
        request_id=draw(st.text(max_size=128)),
        model=draw(TEXT),
        max_tokens=draw(st.none() | st.integers(1, 2**31 - 1)),
        temperature=draw(st.none() | st.floats(0, 2)),
        top_p=draw(st.none() | st.floats(0, 1, exclude_min=True)),
        stop=tuple(draw(st.lists(SOME_TEXT, max_size=16))),
        frequency_penalty=draw(st.none() | CHECKED),
        presence_penalty=draw(st.none() | CHECKED),
        seed=draw(st.none() | st.integers(-(2**63), 2**63 - 1)),
        response_format=draw(st.sampled_from(formats)),
        thinking=draw(st.none() | st.booleans()),
        reasoning_effort=draw(TEXT),
        tools=tools,
        tool_choice=choice,
        logprobs=logprobs,
        top_logprobs=draw(st.none() | st.integers(0, 20)) if logprobs else None,
        user_id=draw(TEXT),
        extra_json=draw(st.just("") | JSON_OBJECT.map(json.dumps)),
    )


@given(generate_requests())
def test_every_field_survives_the_wire(request):
    options = {name: getattr(request, name) for name in GenerateRequest.__dataclass_fields__}
    conversation, extra = options.pop("messages"), options.pop("extra_json")
    encoded = encode_generate(conversation, **options, extra=json.loads(extra) if extra else None)
    assert decode_generate(pb.GenerateRequest.FromString(encoded.SerializeToString())) == request


# What is refused, and how


SECRET = "do not repeat this"

# (what is wrong, prompt, options, the field that the error names, what else the message has to say)
REFUSED = [
    ("an empty prompt", "", {}, "prompt", ["empty", "at least 1"]),
    ("no messages", [], {}, "messages", ["empty", "prompt", "at least 1"]),
    ("a prompt that is a number", 5, {}, "prompt", ["int"]),
    ("a prompt that is None", None, {}, "prompt", ["NoneType"]),
    ("a prompt in bytes", b"Hi", {}, "prompt", ["bytes"]),
    ("a message that is text", ["Hi"], {}, "messages[0]", ["str", "Message"]),
    ("a message that is a dict", [{"role": "user"}], {}, "messages[0]", ["dict", "Message"]),
    ("an unknown role", [user("?"), Message("robot", "Hi")], {}, "messages[1].role", ["robot", "assistant"]),
    ("a role that is a list", [Message([], "Hi")], {}, "messages[0].role", ["[]"]),
    ("an empty user message", [user("")], {}, "messages[0].content", ["empty", "at least 1"]),
    ("an empty system message", [system(""), user("Hi")], {}, "messages[0].content", ["empty"]),
    ("content that is None", [user(None)], {}, "messages[0].content", ["NoneType"]),
    ("content that is a number", [user(5)], {}, "messages[0].content", ["int"]),
    ("a part that is text", [user(["Hi"])], {}, "messages[0].content[0]", ["str"]),
    ("a part of numbers", [user([TextPart(5)])], {}, "messages[0].content[0].text", ["int"]),
    ("a name that is a number", [user("Hi", name=5)], {}, "messages[0].name", ["int"]),
    ("reasoning that is a number", [assistant("Hi", reasoning_content=5)], {}, "messages[0].reasoning_content", []),
    ("tool calls that are dicts", [assistant(tool_calls=[{}])], {}, "messages[0].tool_calls[0]", ["dict"]),
    (
        "arguments that are a dict",
        [assistant(tool_calls=[ToolCall("1", "f", {})])],
        {},
        "messages[0].tool_calls[0].arguments",
        ["dict"],
    ),
    ("a tool result for no call", [tool_result("", "21")], {}, "messages[0].tool_call_id", ["empty"]),
    ("a prefix by the user", [Message("user", "Hi", prefix=True)], {}, "messages[0].prefix", ["last", "assistant"]),
    ("a prefix in the middle", [assistant("Hi", prefix=True), user("?")], {}, "messages[0].prefix", ["last"]),
    ("a lone surrogate", f"{SECRET}\ud800", {}, "prompt", ["surrogate"]),
    ("one in a message", [user(f"{SECRET}\udfff")], {}, "messages[0].content", ["surrogate"]),
    ("one in the model", "Hi", {"model": "\ud800"}, "model", ["surrogate"]),
    ("one in the system message", "Hi", {"system_message": "\ud800"}, "system_message", ["surrogate"]),
    ("one in a stop string", "Hi", {"stop": ["a", "\ud800"]}, "stop[1]", ["surrogate"]),
    ("one in the stop string", "Hi", {"stop": "\ud800"}, "stop[0]", ["surrogate"]),
    ("one in the user id", "Hi", {"user_id": "\ud800"}, "user_id", ["surrogate"]),
    ("one in the effort", "Hi", {"reasoning_effort": "\ud800"}, "reasoning_effort", ["surrogate"]),
    ("one in a schema", "Hi", {"tools": [Tool("f", parameters='"\ud800"')]}, "tools[0].parameters", ["surrogate"]),
    ("one in the form", "Hi", {"response_format": json_schema("\ud800")}, "response_format.json_schema", []),
    (
        "one in a call's arguments",
        [assistant(tool_calls=[ToolCall("1", "f", "\ud800")])],
        {},
        "messages[0].tool_calls[0].arguments",
        ["surrogate"],
    ),
    ("a model that is a number", "Hi", {"model": 5}, "model", ["int", "text"]),
    ("a system message that is a Message", "Hi", {"system_message": system("x")}, "system_message", ["Message"]),
    ("too hot", "Hi", {"temperature": 5}, "temperature", ["5", "0 to 2"]),
    ("too cold", "Hi", {"temperature": -0.1}, "temperature", ["-0.1", "0 to 2"]),
    ("no number", "Hi", {"temperature": math.nan}, "temperature", ["nan", "0 to 2"]),
    ("infinitely hot", "Hi", {"temperature": math.inf}, "temperature", ["inf"]),
    ("an unspeakable number", "Hi", {"temperature": 10**400}, "temperature", ["0 to 2"]),
    ("a number as text", "Hi", {"temperature": "0.7"}, "temperature", ["str", "number"]),
    ("a number as a truth", "Hi", {"temperature": True}, "temperature", ["bool", "number"]),
    ("no probability", "Hi", {"top_p": 0}, "top_p", ["0", "at most 1"]),
    ("too much probability", "Hi", {"top_p": 1.01}, "top_p", ["1.01", "at most 1"]),
    ("a large penalty", "Hi", {"frequency_penalty": 2.5}, "frequency_penalty", ["2.5", "-2 to 2"]),
    ("a small penalty", "Hi", {"presence_penalty": -2.5}, "presence_penalty", ["-2.5", "-2 to 2"]),
    ("no tokens", "Hi", {"max_tokens": 0}, "max_tokens", ["0", "at least 1"]),
    ("fewer than no tokens", "Hi", {"max_tokens": -1}, "max_tokens", ["-1", "at least 1"]),
    ("half a token", "Hi", {"max_tokens": 0.5}, "max_tokens", ["float", "integer"]),
    ("too many tokens", "Hi", {"max_tokens": 2**31}, "max_tokens", [str(2**31), str(2**31 - 1)]),
    ("an integer too long to print", "Hi", {"max_tokens": 10**5000}, "max_tokens", [str(2**31 - 1)]),
    ("a large seed", "Hi", {"seed": 2**63}, "seed", [str(2**63), str(2**63 - 1)]),
    ("a seed as text", "Hi", {"seed": "7"}, "seed", ["str", "integer"]),
    ("17 stop strings", "Hi", {"stop": [str(i) for i in range(17)]}, "stop", ["17", "16"]),
    ("an empty stop string", "Hi", {"stop": ["a", ""]}, "stop[1]", ["empty", "at least 1"]),
    ("a stop that is a number", "Hi", {"stop": 5}, "stop", ["int"]),
    ("stops that are numbers", "Hi", {"stop": ["a", 5]}, "stop[1]", ["int", "text"]),
    ("an unknown form", "Hi", {"response_format": ResponseFormat("xml")}, "response_format", ["json_object"]),
    ("a form as text", "Hi", {"response_format": "json_object"}, "response_format", ["ResponseFormat"]),
    ("a schema that is no JSON", "Hi", {"response_format": json_schema("{")}, "response_format.json_schema", ["JSON"]),
    (
        "a schema that is missing",
        "Hi",
        {"response_format": ResponseFormat("json_schema")},
        "response_format.json_schema",
        [],
    ),
    ("thinking as a word", "Hi", {"thinking": "disabled"}, "thinking", ["str", "bool"]),
    ("logprobs as a number", "Hi", {"logprobs": 5}, "logprobs", ["int", "bool"]),
    ("an effort that is a number", "Hi", {"reasoning_effort": 5}, "reasoning_effort", ["int"]),
    ("alternatives without logprobs", "Hi", {"top_logprobs": 3}, "top_logprobs", ["logprobs"]),
    ("21 alternatives", "Hi", {"logprobs": True, "top_logprobs": 21}, "top_logprobs", ["21", "0 to 20"]),
    ("fewer than none", "Hi", {"logprobs": True, "top_logprobs": -1}, "top_logprobs", ["-1", "0 to 20"]),
    ("tools that are no list", "Hi", {"tools": 5}, "tools", ["int"]),
    ("a tool that is a dict", "Hi", {"tools": [{"name": "f"}]}, "tools[0]", ["dict", "Tool"]),
    ("a tool without a name", "Hi", {"tools": [Tool("")]}, "tools[0].name", ["1 to 64"]),
    ("a name with a space", "Hi", {"tools": [Tool("f"), Tool("g h")]}, "tools[1].name", ["g h", "1 to 64"]),
    ("a name with an umlaut", "Hi", {"tools": [Tool("für")]}, "tools[0].name", ["1 to 64"]),
    ("a long name", "Hi", {"tools": [Tool("f" * 65)]}, "tools[0].name", ["1 to 64"]),
    ("two tools of one name", "Hi", {"tools": [Tool("f"), Tool("f")]}, "tools[1].name", ["f", "another"]),
    ("129 tools", "Hi", {"tools": [Tool(f"f{i}") for i in range(129)]}, "tools", ["129", "128"]),
    ("parameters that are no JSON", "Hi", {"tools": [Tool("f", parameters="{x")]}, "tools[0].parameters", ["JSON"]),
    ("parameters that are a list", "Hi", {"tools": [Tool("f", parameters="[]")]}, "tools[0].parameters", ["object"]),
    ("parameters without end", "Hi", {"tools": [Tool("f", parameters="[" * 99_999)]}, "tools[0].parameters", []),
    ("parameters of a set", "Hi", {"tools": [Tool("f", parameters={"a": {1}})]}, "tools[0].parameters", ["JSON"]),
    ("strict beside lax", "Hi", {"tools": [Tool("f", strict=True), Tool("g")]}, "tools[1].strict", ["all", "none"]),
    ("strict as a word", "Hi", {"tools": [Tool("f", strict="yes")]}, "tools[0].strict", ["str", "bool"]),
    ("an unknown choice", "Hi", {"tool_choice": "maybe"}, "tool_choice", ["maybe", "required"]),
    ("an empty choice", "Hi", {"tool_choice": ToolChoice()}, "tool_choice", ["auto"]),
    (
        "a choice of two",
        "Hi",
        {"tools": [Tool("f")], "tool_choice": ToolChoice("auto", "f")},
        "tool_choice",
        ["one of"],
    ),
    ("a choice that is a number", "Hi", {"tool_choice": 5}, "tool_choice", ["int"]),
    ("an unknown function", "Hi", {"tool_choice": ToolChoice(function="f")}, "tool_choice.function", ["f", "none of"]),
    ("required without tools", "Hi", {"tool_choice": "required"}, "tool_choice", ["required", "tools"]),
    ("a long user id", "Hi", {"user_id": "ü" * 257}, "user_id", ["514", "512"]),
    ("extra that is a list", "Hi", {"extra": [1]}, "extra", ["list", "object"]),
    ("extra with nan", "Hi", {"extra": {"a": math.nan}}, "extra", ["JSON"]),
]


@pytest.mark.parametrize(
    ("prompt", "options", "field", "says"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_refused_before_anything_is_sent(prompt, options, field, says):
    with pytest.raises(InvalidRequestError) as caught:
        encode(prompt, **options)
    error = caught.value
    assert error.field == field
    assert error.details.startswith(field.partition("[")[0].partition(".")[0])
    assert [word for word in says if word not in error.details] == []
    assert len(error.details) < 300
    assert SECRET not in "".join(traceback.format_exception(error))


def test_extra_that_contains_itself_is_refused():
    loop = {}
    loop["me"] = loop
    with pytest.raises(InvalidRequestError) as caught:
        encode(extra=loop)
    assert caught.value.field == "extra"


@pytest.mark.parametrize(
    ("prompt", "options", "field"),
    [
        ("x" * 20_000_000, {}, "prompt"),
        ("Hi", {"system_message": "x" * 20_000_000}, "system_message"),
        ([user("Hi"), user("思" * 7_000_000)], {}, "messages[1]"),
        ("Hi", {"tools": [Tool("f", "x" * 20_000_000)]}, "tools[0]"),
    ],
)
def test_too_many_bytes_are_refused_with_their_number_and_the_limit(prompt, options, field):
    with pytest.raises(RequestTooLargeError) as caught:
        encode(prompt, **options)
    assert caught.value.field == field
    assert "2" in caught.value.details
    assert f"{MAX_MESSAGE_BYTES - 64 * 1024:,}" in caught.value.details
    assert len(caught.value.details) < 300


def test_the_largest_request_fits_into_a_message():
    request = encode("x" * (MAX_MESSAGE_BYTES - 65 * 1024))
    assert request.ByteSize() < MAX_MESSAGE_BYTES


# The gateway checks what arrives: a client in another language may not have.


def wire(**fields):
    return pb.GenerateRequest(**fields)


UNCHECKED = [
    ("nothing at all", wire(), "prompt"),
    ("prompt and messages", wire(prompt="Hi", messages=[pb.Message(role=2, content="Hi")]), "prompt"),
    ("a message without a role", wire(messages=[pb.Message(content="Hi")]), "messages[0].role"),
    ("a role of the future", wire(messages=[pb.Message(role=9, content="Hi")]), "messages[0].role"),
    ("a part without content", wire(messages=[pb.Message(role=2, parts=[{}])]), "messages[0].content[0]"),
    ("a long request id", wire(prompt="Hi", request_id="r" * 129), "request_id"),
    ("not a number", wire(prompt="Hi", temperature=math.nan), "temperature"),
    ("an unset choice", wire(prompt="Hi", tool_choice=pb.ToolChoice()), "tool_choice"),
    ("a choice of the future", wire(prompt="Hi", tool_choice=pb.ToolChoice(mode=9)), "tool_choice"),
    ("thinking of the future", wire(prompt="Hi", thinking=9), "thinking"),
    ("a form of the future", wire(prompt="Hi", response_format=pb.ResponseFormat(type=9)), "response_format.type"),
    ("extra that is no JSON", wire(prompt="Hi", extra_json="{"), "extra_json"),
    ("extra that is no object", wire(prompt="Hi", extra_json="1"), "extra_json"),
    ("extra with NaN, which isn't JSON", wire(prompt="Hi", extra_json='{"a": NaN}'), "extra_json"),
    ("extra without end", wire(prompt="Hi", extra_json="[" * 99_999), "extra_json"),
]


@pytest.mark.parametrize(("request_", "field"), [case[1:] for case in UNCHECKED], ids=[c[0] for c in UNCHECKED])
def test_the_gateway_refuses_what_no_client_of_ours_would_send(request_, field):
    with pytest.raises(InvalidRequestError) as caught:
        check_generate(request_)
    assert caught.value.field == field


def test_the_limit_is_what_a_message_may_have():
    larger, smaller = request_limit(64 * 2**20), request_limit(2**20)
    assert len(encode("x" * 20_000_000, max_bytes=larger).prompt) == 20_000_000
    with pytest.raises(RequestTooLargeError, match=rf"^prompt has 1,000,000 .* is {smaller:,}$") as caught:
        encode("x" * 1_000_000, max_bytes=smaller)
    assert caught.value.field == "prompt"
    assert request_limit(500) == 250  # no 64 KiB to spare
    request_ = encode("x" * 1000)
    with pytest.raises(RequestTooLargeError):
        check_generate(request_, 1000)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("temprature", "'temprature'; did you mean 'temperature'"),
        ("xyz", "'xyz'; .*extra="),
        ("metadata", "'metadata': .* session"),
    ],
)
def test_an_option_that_there_is_not_is_named(name, says):
    with pytest.raises(TypeError, match=says) as caught:
        encode("Hi", **{name: 1})
    assert "encode_generate" not in str(caught.value)
