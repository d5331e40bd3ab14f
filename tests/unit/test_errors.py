import asyncio
import copy
import inspect
import pickle
import re

import grpc
import pytest

from deepseek_grpc import errors
from deepseek_grpc.errors import (
    ConnectTimeoutError,
    ContextLengthError,
    DeepSeekError,
    InternalError,
    InvalidRequestError,
    RateLimitError,
    error_class,
)

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, DeepSeekError)]
every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def drawn() -> dict[str, str]:
    """Reads the tree in the module's docstring: each class with the one it hangs on."""
    parents, path = {}, []
    for line in errors.__doc__.splitlines():
        match = re.match(r" {4}((?:│ {3}| {4})*(?:├── |└── )?)(\w+)", line)
        if match:
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            parents[match[2]] = path[depth - 1] if depth else ""
    return parents


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes():
    real = {
        cls.__name__: next((b.__name__ for b in cls.__bases__ if issubclass(b, DeepSeekError)), "") for cls in CLASSES
    }
    assert drawn() == real


@every_class
def test_the_tree_names_each_classs_status(cls):
    if issubclass(cls, errors.ConfigurationError | errors.ClosedError) or cls is DeepSeekError:
        return  # raised on this side of the wire
    line = next(line for line in errors.__doc__.splitlines() if re.search(rf"\b{cls.__name__}\b", line))
    inherited = "…" in line
    assert inherited or cls.default_code.name in line


@every_class
def test_every_error_is_public_and_has_a_status_and_a_reason(cls):
    assert cls.__name__ in errors.__all__
    error = cls("it broke")
    assert isinstance(error.code, grpc.StatusCode)
    assert (error.details, str(error), error.request_id, error.attempts) == ("it broke", "it broke", "", 0)
    assert (error.retry_after, error.metadata) == (None, {})
    assert error.reason or cls is DeepSeekError


@every_class
def test_errors_survive_pickling_and_copying(cls):
    error = cls(
        "it broke",
        code=grpc.StatusCode.DATA_LOSS,
        reason="MINE",
        request_id="r1",
        attempts=3,
        retry_after=1.5,
        retryable=True,
        metadata={"field": "prompt"},
    )
    error.partial = "Hel"
    error.add_note("while testing")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is cls
        assert vars(twin) == vars(error)
        assert (str(twin), twin.args, twin.__notes__) == (str(error), error.args, ["while testing"])


def test_an_error_is_a_sentence_with_the_request_id_in_it():
    assert str(RateLimitError("too fast", request_id="r1")) == "too fast (request r1)"


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.DeadlineExceededError, TimeoutError),
        (errors.FirstTokenTimeoutError, TimeoutError),
        (errors.IdleTimeoutError, TimeoutError),
        (ConnectTimeoutError, TimeoutError),
        (InvalidRequestError, ValueError),
        (errors.ConfigurationError, ValueError),
    ],
)
def test_timeouts_and_bad_values_are_pythons_own_too(cls, builtin):
    with pytest.raises(builtin, match="it broke"):
        raise cls("it broke")


def test_nothing_here_is_a_cancellation():
    assert not [cls for cls in CLASSES if issubclass(cls, asyncio.CancelledError)]


@every_class
def test_any_error_can_have_what_had_come(cls):
    assert vars(cls("cut"))["partial"] == ""


def test_the_field_of_a_bad_request_is_named():
    assert InvalidRequestError("bad", metadata={"field": "messages[2].role"}).field == "messages[2].role"
    assert InvalidRequestError("bad").field == ""


def test_what_may_go_through_later_says_so():
    retryable = {cls.__name__ for cls in CLASSES if cls("x").retryable}
    assert retryable == {
        "ConnectError",
        "ConnectTimeoutError",
        "RateLimitError",
        "ServiceUnavailableError",
        "StreamInterruptedError",
    }
    assert not RateLimitError("never again", retryable=False).retryable


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_status_has_a_class(code):
    assert issubclass(error_class(code), DeepSeekError)
    assert issubclass(error_class(code, "A_REASON_OF_THE_FUTURE"), error_class(code))


def test_a_reason_picks_the_class_under_its_own_status_only():
    assert error_class(grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_LENGTH") is ContextLengthError
    assert error_class(grpc.StatusCode.INTERNAL, "CONTEXT_LENGTH") is InternalError


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS])
def test_defects_are_internal(code):
    assert error_class(code) is InternalError
