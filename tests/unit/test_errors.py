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
    NotFoundError,
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
    if issubclass(cls, errors.ConfigurationError | errors.ClosedError | errors.OutputError) or cls is DeepSeekError:
        return  # raised on this side of the wire
    line = next(line for line in errors.__doc__.splitlines() if re.search(rf"\b{cls.__name__}\b", line))
    inherited = "…" in line
    assert inherited or cls.default_code.name in line


@every_class
def test_every_error_is_public_and_has_a_status_and_a_reason(cls):
    assert cls.__name__ in errors.__all__
    error = cls("it broke")
    assert isinstance(error.code, grpc.StatusCode)
    assert (error.details, error.args, error.request_id, error.attempts) == ("it broke", ("it broke",), "", 0)
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
        advice="Mend it.",
    )
    error.partial = "Hel"
    error.add_note("while testing")
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is cls
        assert vars(twin) == vars(error)
        assert twin.advice == "Mend it."
        assert (str(twin), twin.args, twin.__notes__) == (str(error), error.args, ["while testing"])


@every_class
def test_every_error_says_what_happened_to_which_request_and_what_to_do(cls):
    assert re.fullmatch(r"[A-Z][^;\n]{9,90}\.", cls.advice) or cls is DeepSeekError
    assert str(cls("it broke", request_id="r1")) == f"it broke (request r1). {cls.advice}".removesuffix(". ")
    assert str(cls("it broke")) == f"it broke. {cls.advice}".removesuffix(". ")


def text(cls, details, **facts):
    return str(cls(details, **facts))


def test_attempts_and_delays_show():
    class_advice = errors.ServiceUnavailableError.advice
    assert text(errors.ServiceUnavailableError, "down", request_id="r1", attempts=4) == (
        f"down (request r1, 4 attempts). {class_advice}"
    )
    assert text(errors.ServiceUnavailableError, "down", attempts=1) == f"down (1 attempt). {class_advice}"
    assert text(InternalError, "a defect", request_id="r1", attempts=1).startswith("a defect (request r1). ")
    assert text(InternalError, "a defect", attempts=2).startswith("a defect (2 attempts). ")
    assert (
        text(RateLimitError, "too fast", request_id="r1", retry_after=30) == "too fast (request r1). Try again in 30 s."
    )
    assert text(RateLimitError, "too fast", retry_after=0.0501) == "too fast. Try again in 0.05 s."
    assert text(errors.ServiceUnavailableError, "down", retry_after=86400.0) == "down. Try again in 86400 s."


def test_nothing_is_said_twice():
    assert text(RateLimitError, "too fast: wait 30 s", retry_after=30) == "too fast: wait 30 s"
    assert text(NotFoundError, "no model 'x'; use 'y'", request_id="r1") == "no model 'x'; use 'y' (request r1)"
    assert text(errors.ConfigurationError, "a: wrong\nb: wrong") == "a: wrong\nb: wrong"
    assert (
        text(RateLimitError, "slow down; you are many", retry_after=2) == "slow down; you are many. Try again in 2 s."
    )


def test_an_error_may_have_advice_of_its_own():
    assert text(NotFoundError, "no job 'x'", advice="List the jobs.") == "no job 'x'. List the jobs."
    assert text(NotFoundError, "no job 'x'", request_id="r1", advice="") == "no job 'x' (request r1)"
    assert text(NotFoundError, "Gone!") == f"Gone! {NotFoundError.advice}"


def test_nobody_is_told_to_try_again_where_that_does_not_help():
    assert text(RateLimitError, "the month is over", retryable=False) == "the month is over. Trying again won't help."
    assert text(RateLimitError, "the month is over", retryable=False, advice="Pay.") == "the month is over. Pay."


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
        "OutputError",
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
