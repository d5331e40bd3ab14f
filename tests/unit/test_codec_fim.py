"""Completions between a prompt and a suffix, and the balance, on the wire."""

import json
import math
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepseek_grpc._codec.account import decode_balance, encode_balance
from deepseek_grpc._codec.answer import decode_completion, encode_completion
from deepseek_grpc._codec.checks import check_complete, request_limit
from deepseek_grpc._codec.fim import CompleteOptions, decode_complete, encode_complete
from deepseek_grpc.errors import InternalError, InvalidRequestError, RequestTooLargeError
from deepseek_grpc.types import (
    AccountBalance,
    Balance,
    Completion,
    FimRequest,
    Meta,
    TokenLogprob,
    ToolCall,
    Upstream,
    Usage,
)
from deepseek_rpc.v2 import text_pb2 as pb

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SOME_TEXT = TEXT.filter(bool)
PENALTY = st.none() | st.floats(-2, 2)
JSON_OBJECT = st.dictionaries(TEXT, st.none() | st.booleans() | st.integers() | TEXT, max_size=3)
REQUEST = st.builds(
    FimRequest,
    prompt=SOME_TEXT,
    suffix=TEXT,
    request_id=st.text(st.characters(exclude_categories=["Cs"]), max_size=128),
    model=TEXT,
    max_tokens=st.none() | st.integers(1, 2**31 - 1),
    temperature=st.none() | st.floats(0, 2),
    top_p=st.none() | st.floats(0, 1, exclude_min=True),
    stop=st.lists(SOME_TEXT, max_size=16).map(tuple),
    frequency_penalty=PENALTY,
    presence_penalty=PENALTY,
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    echo=st.booleans(),
    logprobs=st.none() | st.integers(0, 20),
    user_id=TEXT,
    extra_json=st.just("") | JSON_OBJECT.map(json.dumps),
)
COUNT = st.integers(0, 2**63 - 1)
LOGPROB = st.builds(TokenLogprob, TEXT, st.floats(-1e6, 0), st.binary(max_size=4))
COMPLETION = st.builds(
    Completion,
    text=TEXT,
    finish_reason=st.sampled_from(["stop", "length", "content_filter"]) | TEXT,
    usage=st.builds(Usage, COUNT, COUNT, COUNT, st.none() | COUNT),
    meta=st.builds(Meta, st.just("r1"), TEXT, COUNT, TEXT, TEXT, st.builds(Upstream, TEXT, TEXT), TEXT),
    logprobs=st.lists(LOGPROB, max_size=3).map(tuple),
)


def encode(prompt="def fib(n):", **options):
    return encode_complete(prompt, request_id="r1", **options)


# What goes in comes out


@given(REQUEST)
def test_every_field_survives_the_wire(request):
    options = {name: getattr(request, name) for name in FimRequest.__dataclass_fields__}
    prompt, extra = options.pop("prompt"), options.pop("extra_json")
    encoded = encode_complete(prompt, **options, extra=json.loads(extra) if extra else None)
    assert decode_complete(pb.CompleteFimRequest.FromString(encoded.SerializeToString())) == request


def test_a_suffix_that_is_none_is_left_out():
    assert encode(suffix=None) == encode() == encode(suffix="")


def test_every_option_has_its_field():
    fields = {field.name for field in pb.CompleteFimRequest.DESCRIPTOR.fields}
    options = {"extra_json" if name == "extra" else name for name in CompleteOptions.__annotations__}
    assert fields == options | {"request_id", "prompt", "suffix"}


def test_what_is_not_given_stays_unset_and_none_means_the_same():
    assert decode_complete(encode()) == FimRequest("def fib(n):", request_id="r1")
    assert encode(**dict.fromkeys(CompleteOptions.__annotations__)) == encode()


@pytest.mark.parametrize("option", ["temperature", "seed", "logprobs", "frequency_penalty", "presence_penalty"])
def test_zero_is_a_value_and_not_the_default(option):
    assert getattr(decode_complete(encode(**{option: 0})), option) == 0
    assert getattr(decode_complete(encode()), option) is None


def test_one_stop_string_needs_no_list():
    assert decode_complete(encode(stop="END")).stop == ("END",)
    assert decode_complete(encode(stop=(text for text in ("a", "b")))).stop == ("a", "b")


@given(COMPLETION)
def test_a_whole_completion_survives_the_wire(completion):
    response = pb.CompleteFimResponse()
    encode_completion(completion, completion.meta.upstream, response)
    assert decode_completion(pb.CompleteFimResponse.FromString(response.SerializeToString()), "r1") == completion


def test_a_completion_has_text_alone():
    said = Completion("x", "stop", Usage(), Meta(), reasoning="Hm", tool_calls=(ToolCall("1", "f", "{}"),))
    response = pb.CompleteFimResponse()
    encode_completion(said, Upstream(), response)
    assert decode_completion(response, "") == Completion("x", "stop", Usage(), Meta())


def test_a_text_that_cannot_be_sent_is_the_backends_fault():
    with pytest.raises(InternalError, match="surrogate"):
        encode_completion(Completion("\ud800", "stop", Usage(), Meta()), Upstream(), pb.CompleteFimResponse())


@given(st.builds(AccountBalance, st.booleans(), st.lists(st.builds(Balance, TEXT, TEXT, TEXT, TEXT)).map(tuple)))
def test_a_balance_survives_the_wire(account):
    assert decode_balance(pb.GetBalanceResponse.FromString(encode_balance(account).SerializeToString())) == account


# What is refused, and how


SECRET = "do not repeat this"

# (what is wrong, prompt, options, the field that the error names, what else the message has to say)
REFUSED = [
    ("an empty prompt", "", {"suffix": "x"}, "prompt", ["empty", "at least 1"]),
    ("a prompt that is None", None, {}, "prompt", ["NoneType", "text"]),
    ("a prompt in bytes", b"x", {}, "prompt", ["bytes"]),
    ("a conversation", ["x"], {}, "prompt", ["list"]),
    ("a lone surrogate", f"{SECRET}\ud800", {}, "prompt", ["surrogate"]),
    ("a suffix that is a number", "x", {"suffix": 5}, "suffix", ["int", "text"]),
    ("a surrogate in the suffix", "x", {"suffix": f"{SECRET}\ud800"}, "suffix", ["surrogate"]),
    ("a model that is a number", "x", {"model": 5}, "model", ["int", "text"]),
    ("a surrogate in the model", "x", {"model": "\ud800"}, "model", ["surrogate"]),
    ("no tokens", "x", {"max_tokens": 0}, "max_tokens", ["0", "at least 1"]),
    ("half a token", "x", {"max_tokens": 0.5}, "max_tokens", ["float", "integer"]),
    ("too many tokens", "x", {"max_tokens": 2**31}, "max_tokens", [str(2**31 - 1)]),
    ("too hot", "x", {"temperature": 2.1}, "temperature", ["2.1", "0 to 2"]),
    ("no number", "x", {"temperature": math.nan}, "temperature", ["nan"]),
    ("a number as text", "x", {"temperature": "1"}, "temperature", ["str", "number"]),
    ("no probability", "x", {"top_p": 0}, "top_p", ["0", "at most 1"]),
    ("a large penalty", "x", {"frequency_penalty": 2.5}, "frequency_penalty", ["2.5", "-2 to 2"]),
    ("a small penalty", "x", {"presence_penalty": -2.5}, "presence_penalty", ["-2.5", "-2 to 2"]),
    ("a large seed", "x", {"seed": 2**63}, "seed", [str(2**63 - 1)]),
    ("17 stop strings", "x", {"stop": ["a"] * 17}, "stop", ["17", "16"]),
    ("an empty stop string", "x", {"stop": ["a", ""]}, "stop[1]", ["empty"]),
    ("a stop that is a number", "x", {"stop": 5}, "stop", ["int"]),
    ("stops that are numbers", "x", {"stop": ["a", 5]}, "stop[1]", ["int", "text"]),
    ("a surrogate in a stop string", "x", {"stop": "\ud800"}, "stop[0]", ["surrogate"]),
    ("an echo that is a word", "x", {"echo": "yes"}, "echo", ["str", "bool"]),
    ("logprobs as generate has them", "x", {"logprobs": True}, "logprobs", ["bool", "integer"]),
    ("21 alternatives", "x", {"logprobs": 21}, "logprobs", ["21", "0 to 20"]),
    ("fewer than none", "x", {"logprobs": -1}, "logprobs", ["-1", "0 to 20"]),
    ("a long user id", "x", {"user_id": "ü" * 257}, "user_id", ["514", "512"]),
    ("a user id that is a number", "x", {"user_id": 5}, "user_id", ["int"]),
    ("extra that is a list", "x", {"extra": [1]}, "extra", ["list", "object"]),
    ("extra with nan", "x", {"extra": {"a": math.nan}}, "extra", ["JSON"]),
]


@pytest.mark.parametrize(
    ("prompt", "options", "field", "says"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED]
)
def test_refused_before_anything_is_sent(prompt, options, field, says):
    with pytest.raises(InvalidRequestError) as caught:
        encode(prompt, **options)
    error = caught.value
    assert error.field == field
    assert error.details.startswith(field.partition("[")[0])
    assert [word for word in says if word not in error.details] == []
    assert len(error.details) < 300
    assert SECRET not in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("temprature", "complete and stream_complete have no argument 'temprature'; did you mean 'temperature'"),
        ("tools", "'tools'; .*extra="),
    ],
)
def test_an_option_that_there_is_not_is_named(name, says):
    with pytest.raises(TypeError, match=says):
        encode(**{name: 1})


@pytest.mark.parametrize(
    ("prompt", "options", "field"),
    [
        ("x" * 20_000_000, {}, "prompt"),
        ("x", {"suffix": "思" * 7_000_000}, "suffix"),
        ("x", {"stop": ["a", "x" * 20_000_000]}, "stop[1]"),
        ("x", {"extra": {"a": "x" * 20_000_000}}, "extra_json"),
    ],
)
def test_too_many_bytes_are_refused_with_their_number_and_the_limit(prompt, options, field):
    with pytest.raises(RequestTooLargeError) as caught:
        encode(prompt, **options)
    assert caught.value.field == field
    assert caught.value.details.startswith(f"{field} has 2")
    assert len(caught.value.details) < 300


def test_the_limit_is_what_a_message_may_have():
    larger, smaller = request_limit(64 * 2**20), request_limit(2**20)
    assert len(encode("x" * 20_000_000, max_bytes=larger).prompt) == 20_000_000
    with pytest.raises(RequestTooLargeError, match=rf"^prompt has 1,000,000 .* is {smaller:,}$"):
        encode("x" * 1_000_000, max_bytes=smaller)


# The gateway checks what arrives: a client in another language may not have.

UNCHECKED = [
    ("nothing at all", pb.CompleteFimRequest(), "prompt"),
    ("a suffix alone", pb.CompleteFimRequest(suffix="x"), "prompt"),
    ("a long request id", pb.CompleteFimRequest(prompt="x", request_id="r" * 129), "request_id"),
    ("not a number", pb.CompleteFimRequest(prompt="x", temperature=math.nan), "temperature"),
    ("no tokens", pb.CompleteFimRequest(prompt="x", max_tokens=0), "max_tokens"),
    ("21 alternatives", pb.CompleteFimRequest(prompt="x", logprobs=21), "logprobs"),
    ("an empty stop string", pb.CompleteFimRequest(prompt="x", stop=[""]), "stop[0]"),
    ("extra that is no object", pb.CompleteFimRequest(prompt="x", extra_json="1"), "extra_json"),
]


@pytest.mark.parametrize(("request_", "field"), [case[1:] for case in UNCHECKED], ids=[c[0] for c in UNCHECKED])
def test_the_gateway_refuses_what_no_client_of_ours_would_send(request_, field):
    with pytest.raises(InvalidRequestError) as caught:
        check_complete(request_)
    assert caught.value.field == field


def test_fields_of_a_newer_contract_count_towards_the_limit():
    unknown = pb.CompleteFimRequest.FromString(b"\xfa\x7f\xc8\x01" + b"x" * 200)
    with pytest.raises(RequestTooLargeError, match="the request 204; the limit of a request is 100"):
        check_complete(unknown, 100)
