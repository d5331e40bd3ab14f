import copy
import dataclasses
import inspect
import pickle

import pytest

from deepseek_grpc import types
from deepseek_grpc.types import (
    UNSET,
    Completion,
    GenerateRequest,
    ImagePart,
    Message,
    Meta,
    ResponseFormat,
    TextDelta,
    TextPart,
    Tool,
    ToolCall,
    Upstream,
    Usage,
    assistant,
    json_object,
    json_schema,
    system,
    tool_result,
    user,
)

VALUES = [cls for _, cls in inspect.getmembers(types, inspect.isclass) if dataclasses.is_dataclass(cls)]
VALUES = [cls for cls in VALUES if cls.__name__ in types.__all__]


def filled(cls, offset=0):
    """Makes one of a class, every field a value of its own."""
    return cls(*(f"value {i + offset}" for i in range(len(dataclasses.fields(cls)))))


@pytest.mark.parametrize("cls", VALUES, ids=lambda cls: cls.__name__)
class TestEveryValue:
    def test_equals_its_like_and_hashes_alike(self, cls):
        one, two, other = filled(cls), filled(cls), filled(cls, 1)
        assert (one, hash(one)) == (two, hash(two))
        assert one != other
        assert one != "something else"
        assert len({one, two, other}) == 2

    def test_names_its_fields(self, cls):
        names = [field.name for field in dataclasses.fields(cls)]
        parts = [field.name for field in dataclasses.fields(cls) if field.repr and field.compare]
        shown = ", ".join(f"{name}='value {i}'" for i, name in enumerate(parts))
        assert repr(filled(cls)) == f"{cls.__name__}({shown})"
        assert cls(**{name: getattr(filled(cls), name) for name in names}) == filled(cls)

    def test_cannot_be_changed(self, cls):
        one = filled(cls)
        name = dataclasses.fields(cls)[0].name
        for change in (lambda: setattr(one, name, "x"), lambda: delattr(one, name), lambda: setattr(one, "new", "x")):
            with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
                change()
        assert one == filled(cls)
        assert not hasattr(one, "__dict__")

    def test_survives_pickling_copying_and_replacing(self, cls):
        one = filled(cls)
        for twin in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one), dataclasses.replace(one)):
            assert twin == one
            assert type(twin) is cls
        name = dataclasses.fields(cls)[0].name
        assert getattr(dataclasses.replace(one, **{name: "new"}), name) == "new"

    def test_matches_by_position_and_by_name(self, cls):
        assert cls.__match_args__ == tuple(field.name for field in dataclasses.fields(cls))

    def test_refuses_what_it_does_not_know(self, cls):
        with pytest.raises(TypeError):
            cls(*range(99))
        with pytest.raises(TypeError):
            cls(no_such_field=1)


def test_values_of_two_classes_differ_even_with_the_same_fields():
    assert types.TextDelta("x") != types.ReasoningDelta("x")


def test_defaults_are_not_shared_by_mistake():
    assert Meta().upstream == Upstream()
    assert types.Finished("stop").usage == Usage()
    assert Upstream().attempts == 1


def test_a_text_delta_can_be_taken_apart():
    match TextDelta("Hi"):
        case TextDelta(text):
            assert text == "Hi"


def test_messages():
    assert system("Be brief") == Message("system", "Be brief")
    assert user("Why?", name="ann") == Message("user", "Why?", name="ann")
    picture = [TextPart("What is this?"), ImagePart("https://example.com/a.png", "low")]
    assert user(picture).content == picture
    call = ToolCall("call_1", "f", "{}")
    assert assistant("Hm", prefix=True, reasoning_content="", tool_calls=[call]) == Message(
        "assistant", "Hm", "", "", prefix=True, tool_calls=(call,)
    )
    assert tool_result(call, "21") == tool_result("call_1", "21") == Message("tool", "21", tool_call_id="call_1")


def test_forms_of_answers():
    assert json_object == ResponseFormat("json_object")
    assert json_schema("{}") == ResponseFormat("json_schema", "{}")


def test_an_answer_is_the_next_conversations_message():
    call = ToolCall("call_1", "f", "{}")
    answer = Completion("Hi", "tool_calls", Usage(), Meta(), reasoning="Hm", tool_calls=(call,))
    assert answer.message == assistant("Hi", reasoning_content="Hm", tool_calls=[call])


def test_a_request_has_nothing_that_was_not_given():
    request = GenerateRequest((user("Hi"),))
    given = {f.name for f in dataclasses.fields(request) if getattr(request, f.name) not in (None, "", (), False)}
    assert given == {"messages"}


def test_unset_is_neither_none_nor_false_by_accident():
    assert repr(UNSET) == "UNSET"
    assert UNSET is not None
    assert pickle.loads(pickle.dumps(UNSET)) is UNSET
    assert copy.deepcopy(UNSET) is UNSET


def test_a_tool_takes_a_schema_as_a_mapping_or_as_text():
    assert Tool("f", parameters={"type": "object"}) != Tool("f", parameters='{"type": "object"}')


def test_the_turn_of_an_answer_is_no_part_of_its_value():
    answer = types.Completion("Hi", "stop", types.Usage(), types.Meta(), turn=object())
    same = types.Completion("Hi", "stop", types.Usage(), types.Meta())
    assert (answer, hash(answer), repr(answer)) == (same, hash(same), repr(same))
    assert pickle.loads(pickle.dumps(answer)).turn is None
