"""Types as answers, and tools' arguments: what is sent, what comes back, and what a misfit says."""

import dataclasses
import json
import pickle
import subprocess
import sys
import traceback
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal, NamedTuple, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator
from typing_extensions import TypedDict

from deepseek_grpc._codec import structured
from deepseek_grpc._codec.request import encode_generate
from deepseek_grpc._codec.structured import with_parsed
from deepseek_grpc.errors import InvalidRequestError, OutputError
from deepseek_grpc.types import Completion, Meta, ResponseFormat, ToolCall, Usage, json_object, json_schema
from deepseek_rpc.v2 import text_pb2 as pb


class Sky(Enum):
    CLEAR = "clear"
    CLOUDED = "clouded"


@dataclasses.dataclass
class Day:
    when: date
    sky: Sky
    high: float
    note: Optional[str] = None  # noqa: UP045 - as users write it


@dataclasses.dataclass(frozen=True)
class Forecast:
    city: str
    days: list[Day]
    index: dict[str, int] = dataclasses.field(default_factory=dict)


class Row(TypedDict):
    name: str
    amount: int


class Bill(BaseModel):
    rows: list[Row]
    currency: Literal["EUR", "CHF"]
    total: Annotated[int, Field(ge=0)]

    @field_validator("rows")
    @classmethod
    def _some(cls, rows: list[Row]) -> list[Row]:
        if not rows:
            raise ValueError("a bill has rows")
        return rows


class Pair(NamedTuple):
    left: int
    right: int


def answer(text: str, reason: str = "stop", calls: tuple[ToolCall, ...] = ()) -> Completion:
    return Completion(text, reason, Usage(), Meta("req-1"), tool_calls=calls)


def parsed(text: str, output: Any) -> Any:
    return with_parsed(answer(text), output).parsed


def encode(**options: Any) -> pb.GenerateRequest:
    return encode_generate("Hi", request_id="r1", **options)


# What is sent


def test_the_types_schema_is_asked_for():
    form = encode(output=Forecast).response_format
    assert form.type == pb.ResponseFormat.TYPE_JSON_SCHEMA
    schema = json.loads(form.json_schema)
    assert schema["required"] == ["city", "days"]
    assert schema["$defs"]["Sky"]["enum"] == ["clear", "clouded"]


@pytest.mark.parametrize("output", [Bill, Row, Pair, list[Day], dict[str, int], int | None, Annotated[int, []], Any])
def test_whatever_pydantic_takes_is_a_type(output):
    assert isinstance(json.loads(encode(output=output).response_format.json_schema), dict)


def test_json_objects_may_be_asked_for_instead_and_then_no_schema_is_sent():
    form = encode(output=Forecast, response_format=json_object).response_format
    assert (form.type, form.json_schema) == (pb.ResponseFormat.TYPE_JSON_OBJECT, "")


@pytest.mark.parametrize("form", [json_schema("{}"), ResponseFormat()])
def test_two_forms_are_refused(form):
    with pytest.raises(InvalidRequestError, match=r"output.*json_object") as caught:
        encode(output=Forecast, response_format=form)
    assert caught.value.field == "response_format"


def test_a_form_that_is_none_is_still_refused():
    with pytest.raises(InvalidRequestError, match="ResponseFormat"):
        encode(output=Forecast, response_format="json_object")


def test_none_is_no_output():
    assert encode(output=None) == encode()


class Opaque:
    pass


@dataclasses.dataclass
class Unfinished:
    part: "Missing"  # noqa: F821 - there is no such type


class Hostile:
    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        raise ZeroDivisionError("in a hook")


ODD = [
    5,
    "Forecast",
    "__import__('os')",
    {"type": "int"},
    [Day],
    (Day,),
    lambda: 1,
    print,
    Day(date(2025, 1, 1), Sky.CLEAR, 1),
    Bill(rows=[{"name": "x", "amount": 1}], currency="EUR", total=1),
    Opaque,
    Opaque(),
    Unfinished,
    Hostile,
    list["Missing"],  # noqa: F821
    Exception,
]


@pytest.mark.parametrize("output", ODD, ids=lambda output: repr(output)[:24])
@pytest.mark.parametrize("form", [None, json_object])
def test_what_is_no_type_is_refused_before_anything_is_sent(output, form):
    with pytest.raises(InvalidRequestError) as caught:
        encode(output=output, response_format=form)
    assert caught.value.field == "output"
    assert caught.value.details.startswith("output is ")
    assert len(caught.value.details) < 400
    assert "\n" not in caught.value.details


def test_a_plain_class_is_refused_with_what_to_give_instead():
    with pytest.raises(
        InvalidRequestError, match=r"is Opaque, .* give a BaseModel, a dataclass or a TypedDict"
    ) as caught:
        encode(output=Opaque)
    assert "arbitrary_types_allowed" not in str(caught.value)


def test_a_type_is_prepared_once():
    encode(output=Forecast)
    before = structured._made.cache_info()
    encode(output=Forecast)
    parsed('{"city": "Bern", "days": []}', Forecast)
    after = structured._made.cache_info()
    assert (after.hits - before.hits, after.misses - before.misses) == (2, 0)


# What comes back


def test_a_dataclass_with_nested_fields():
    text = '{"city": "Bern", "days": [{"when": "2025-01-31", "sky": "clear", "high": 3}]}'
    assert parsed(text, Forecast) == Forecast("Bern", [Day(date(2025, 1, 31), Sky.CLEAR, 3.0)])


def test_a_model_and_a_typed_dict():
    text = '{"rows": [{"name": "x", "amount": 1}], "currency": "EUR", "total": 1}'
    assert parsed(text, Bill) == Bill(rows=[{"name": "x", "amount": 1}], currency="EUR", total=1)
    assert parsed('{"name": "x", "amount": 1}', Row) == {"name": "x", "amount": 1}


def test_a_falsy_answer_is_one():
    assert parsed("0", int) == 0
    assert parsed(" null\n", int | None) is None
    assert parsed("[]", Annotated[list[int], []]) == []


def test_the_rest_of_the_answer_stays():
    found = with_parsed(answer("1"), int)
    assert dataclasses.replace(found, parsed=None) == answer("1")
    assert found.message == answer("1").message


DAYS = st.builds(
    Day,
    when=st.dates(),
    sky=st.sampled_from(Sky),
    high=st.floats(allow_nan=False, allow_infinity=False),
    note=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
FORECASTS = st.builds(
    Forecast, city=TEXTS, days=st.lists(DAYS, max_size=4), index=st.dictionaries(TEXTS, st.integers(), max_size=4)
)


@given(FORECASTS, st.booleans(), st.sampled_from([None, 1]))
def test_what_is_written_as_json_comes_back_equal(forecast, ascii_only, indent):
    def plain(value: Any) -> Any:
        return value.value if isinstance(value, Sky) else value.isoformat()

    text = json.dumps(dataclasses.asdict(forecast), default=plain, ensure_ascii=ascii_only, indent=indent)
    assert parsed(text, Forecast) == forecast


def misfit(completion: Completion, output: Any) -> OutputError:
    with pytest.raises(OutputError) as caught:
        with_parsed(completion, output)
    assert caught.value.text == completion.text
    assert caught.value.request_id == "req-1"
    assert "req-1" in str(caught.value)
    assert len(str(caught.value)) < 1000
    return caught.value


SECRET = "canary-5e1f"


MISFITS: dict[str, tuple[str, Any, list[str]]] = {
    "a wrong type": ('{"city": 5, "days": []}', Forecast, ["Forecast", "city:"]),
    "none of the values": (
        '{"city": "x", "days": [{"when": "2025-01-31", "sky": "green", "high": 3}]}',
        Forecast,
        ["days[0].sky", "clear"],
    ),
    "a field that is missing": ('{"days": []}', Forecast, ["city: Field required"]),
    "a validator's": ('{"rows": [], "currency": "EUR", "total": 1}', Bill, ["rows: Value error, a bill has rows"]),
    "several": (
        '{"rows": [{"name": "x"}], "currency": "USD", "total": -1}',
        Bill,
        ["rows[0].amount", "currency", "total"],
    ),
    "half of it": ("[1, 2", list[int], ["list at line 1 column 5"]),
    "text before it": ("Sure! Here you are: {}", Forecast, ["line 1 column 1"]),
    "a fence around it": ("```json\n{}\n```", Forecast, ["line 1 column 1"]),
    "a lone surrogate": ('"\\ud800"', str, ["Invalid JSON", "line 1 column"]),
    "without end": ("[" * 100_000, list[int], ["recursion"]),
    "many": ("[" + '"x",' * 5000 + '"x"]', list[int], ["[0]", "and 4998 more"]),
    "a secret": (json.dumps({SECRET * 5000: 1, "city": [SECRET] * 9}), Forecast, ["city", "days"]),
}


@pytest.mark.parametrize(("text", "output", "says"), MISFITS.values(), ids=MISFITS)
def test_a_misfit_says_where_and_how(text, output, says):
    error = misfit(answer(text), output)
    assert [word for word in says if word not in error.details] == []
    assert SECRET not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize("text", ["", " \n\t", "\n" * 1000], ids=["empty", "white space", "long"])
@pytest.mark.parametrize("reason", ["stop", "content_filter", "", "x" * 5000], ids=["stop", "filter", "none", "long"])
def test_a_blank_answer_says_so(text, reason):
    assert "blank" in misfit(answer(text, reason), Forecast).details


def test_a_cut_answer_says_so_even_where_it_would_fit():
    error = misfit(answer("12", "length"), int)
    assert error.details == "the answer is cut off after 2 characters; raise max_tokens"
    misfit(answer("", "length", (ToolCall("call_1", "f", "{"),)), int)


@pytest.mark.parametrize("text", ["", "Let me look.", "5"])
@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
def test_with_tool_calls_there_is_nothing_to_parse_yet(text, reason):
    completion = answer(text, reason, (ToolCall("call_1", "f", "{}"),))
    assert with_parsed(completion, int) is completion


def test_a_misfit_travels_between_processes():
    error = pickle.loads(pickle.dumps(misfit(answer("x"), int)))
    assert (type(error), error.text, error.request_id) == (OutputError, "x", "req-1")


def test_parsed_answers_travel_between_processes():
    found = with_parsed(answer('{"city": "Bern", "days": []}'), Forecast)
    assert pickle.loads(pickle.dumps(found)) == found


# What isn't there


def python(script: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_pydantic_the_extra_is_named():
    script = """
import sys
sys.modules["pydantic"] = sys.modules["jsonschema"] = sys.modules["jsonschema.exceptions"] = None
from deepseek_grpc import Client, Tool, ToolCall, errors
for attempt in (
    lambda: Client("127.0.0.1:9").text.generate("Hi", output=int),
    lambda: Tool("f").parse(ToolCall("1", "f", "{}")),
):
    try:
        attempt()
    except errors.ConfigurationError as error:
        print(error)
"""
    said = python(script).splitlines()
    assert [line for line in said if 'pip install "deepseek-grpc[structured]"' in line] == said
    assert [("pydantic" in line, "jsonschema" in line) for line in said] == [(True, False), (False, True)]


def test_nothing_of_it_is_loaded_before_it_is_used():
    script = """
import sys
from deepseek_grpc import AsyncClient, Client, Tool
from deepseek_grpc._codec.request import encode_generate
encode_generate("Hi", request_id="r", tools=[Tool("f", parameters={"type": "object"})])
print(*(name for name in ("pydantic", "jsonschema", "deepseek_grpc.types._arguments") if name in sys.modules))
"""
    assert python(script).strip() == ""
