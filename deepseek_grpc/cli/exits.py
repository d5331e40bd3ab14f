"""The exit codes: one table, for the code and for `--help`."""

from __future__ import annotations

from typing import Final

from deepseek_grpc import errors
from deepseek_grpc.errors import DeepSeekError

__all__ = ["BROKEN_PIPE", "EXITS", "INTERNAL", "INTERRUPTED", "UNHEALTHY", "USAGE", "exit_code"]

UNHEALTHY: Final = 1
USAGE: Final = 2
INTERNAL: Final = 6
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

EXITS: Final[dict[int, tuple[str, tuple[type[DeepSeekError], ...]]]] = {
    0: ("all went well", ()),
    UNHEALTHY: ("health, doctor: the gateway answers, but is not SERVING", ()),
    USAGE: (
        "usage, configuration, or a request that is wrong in itself",
        (errors.InvalidRequestError, errors.ConfigurationError),
    ),
    3: (
        "the credential is missing, wrong or expired, or lacks the permission",
        (errors.AuthenticationError, errors.PermissionDeniedError),
    ),
    4: (
        "refused as things stand: not found, not served, rate limit, balance",
        (
            errors.NotFoundError,
            errors.FailedPreconditionError,
            errors.ConflictError,
            errors.RateLimitError,
            errors.UnimplementedError,
        ),
    ),
    5: (
        "no connection, unavailable, timed out, cut off in mid-stream, or an answer of the wrong form",
        (
            errors.ServiceUnavailableError,
            errors.DeadlineExceededError,
            errors.StreamInterruptedError,
            errors.CancelledByPeerError,
            errors.OutputError,
        ),
    ),
    INTERNAL: ("a defect, here or at the gateway", (DeepSeekError,)),
    INTERRUPTED: ("interrupted by Ctrl-C", ()),
    BROKEN_PIPE: ("the reader of the output went away", ()),
}
"""What each code means, and the errors that end in it; the first that fits counts."""


def exit_code(error: DeepSeekError) -> int:
    """Returns the exit code for an error.

    >>> exit_code(errors.RateLimitError("too fast")), exit_code(errors.UpstreamAuthError("the gateway's key"))
    (4, 6)
    """
    return next((code for code, (_, classes) in EXITS.items() if isinstance(error, classes)), INTERNAL)
