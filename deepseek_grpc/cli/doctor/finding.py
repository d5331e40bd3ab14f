"""What a check has to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deepseek_grpc.cli.exits import exit_code
from deepseek_grpc.errors import ConfigurationError, DeepSeekError, ServiceUnavailableError

__all__ = ["Finding", "blocked", "fail", "misconfigured", "ok", "warn"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    check: str
    status: Literal["ok", "warn", "FAIL"]
    detail: str
    advice: str = ""
    code: int = 0
    """The exit code that a failure stands for."""


def ok(check: str, detail: str) -> Finding:
    """Makes a finding that all is well."""
    return Finding(check, "ok", detail)


def warn(check: str, detail: str, advice: str = "") -> Finding:
    """Makes a finding that may matter."""
    return Finding(check, "warn", detail, advice)


def fail(check: str, error: DeepSeekError) -> Finding:
    """Makes a finding of an error: what happened, what to do, and the exit code of its class."""
    detail, advice = error.details, error.advice
    if "; " in detail and "advice" not in vars(error):  # the sentence says itself what to do
        detail, _, advice = detail.partition("; ")
    return Finding(check, "FAIL", detail, advice, exit_code(error))


def blocked(check: str, detail: str, advice: str) -> Finding:
    """Makes a finding that keeps every call from the gateway."""
    return fail(check, ServiceUnavailableError(detail, advice=advice))


def misconfigured(check: str, detail: str, advice: str) -> Finding:
    """Makes a finding that this side is set up wrongly."""
    return fail(check, ConfigurationError(detail, advice=advice))
