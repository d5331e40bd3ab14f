"""One call's frame: its id, its metadata, its limits. Pure: clocks go in, decisions come out."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias
from weakref import WeakMethod

from deepseek_grpc.config import API_VERSION, ClientConfig, Timeouts
from deepseek_grpc.errors import DeadlineExceededError, FirstTokenTimeoutError, IdleTimeoutError, InvalidRequestError
from deepseek_grpc.types import UNSET, Unset

__all__ = ["CallOptions", "ContentWatch", "Metadata", "Timeout", "call_options", "new_request_id", "weakly"]

Metadata: TypeAlias = tuple[tuple[str, str], ...]
Timeout: TypeAlias = float | Timeouts | Unset | None
"""What users give: total seconds, None for no total limit, or a Timeouts."""

# Compiled when first used, not at import.
_KEY = r"[0-9a-z_.-]{1,128}\Z"
_VALUE = r"[\x20-\x7e]*\Z"
_REQUEST_ID = r"[\x21-\x7e]{1,128}\Z"
_RESERVED = ("authorization", "x-request-id", "x-api-version")
_METADATA_BYTES = 4096  # gRPC rejects metadata above 8 KiB at random; ours and the token need their share


class CallOptions:
    """What the transport needs to make a call."""

    __slots__ = ("began", "metadata", "request_id", "timeouts", "wait_for_ready")

    def __init__(self, request_id: str, metadata: Metadata, timeouts: Timeouts, wait_for_ready: bool | None) -> None:
        self.request_id = request_id
        self.metadata = metadata
        self.timeouts = timeouts
        self.wait_for_ready = wait_for_ready
        self.began = time.monotonic()

    @property
    def total(self) -> float | None:
        """The whole call's time in seconds, what it waits for before it is sent included."""
        total = self.timeouts.total
        return None if total is None or total is UNSET else total

    def left(self) -> float | None:
        """Returns what is left of it now; raises DeadlineExceededError when nothing is."""
        total = self.total
        if total is None:
            return None
        left = total - (time.monotonic() - self.began)
        if left <= 0:
            raise DeadlineExceededError(
                f"the total time of {total:g} s (Timeouts.total) was over before the call was sent",
                request_id=self.request_id,
            )
        return left


_ids: list[str] = []
os.register_at_fork(after_in_child=_ids.clear)


def new_request_id() -> str:
    """Returns 128 random bits in hexadecimal."""
    while True:
        try:
            return _ids.pop()
        except IndexError:
            # One by one they would cost a system call each, and with it a hand-over between threads.
            digits = os.urandom(16 * 128).hex()
            _ids.extend(digits[place : place + 32] for place in range(0, len(digits), 32))


def call_options(
    config: ClientConfig,
    timeout: Timeout = UNSET,
    metadata: Mapping[str, str] | None = None,
    request_id: str | None = None,
) -> CallOptions:
    """Merges a call's own options with the client's.

    Raises:
        InvalidRequestError: A metadata key or value, or the request id, can't travel.
    """
    if request_id is None:
        request_id = new_request_id()
    elif not isinstance(request_id, str) or not re.match(_REQUEST_ID, request_id):
        raise _invalid("request_id", f"is {str(request_id)[:32]!r}; give 1 to 128 visible ASCII characters")
    if timeout is UNSET:
        timeouts = config.timeouts
    elif isinstance(timeout, Timeouts):
        timeouts = timeout.over(config.timeouts)
    else:
        timeouts = Timeouts(total=timeout).over(config.timeouts)
    pairs: Metadata = (("x-request-id", request_id), ("x-api-version", API_VERSION))
    if config.metadata:
        pairs += tuple(config.metadata.items())
    if metadata:
        check_metadata(metadata)
        if config.metadata:
            check_metadata({**config.metadata, **metadata})
        pairs += tuple(metadata.items())
    return CallOptions(request_id, pairs, timeouts, config.wait_for_ready or None)


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Refuses metadata that gRPC or the gateway would."""
    if not isinstance(metadata, Mapping):
        raise _invalid("metadata", f"is a {type(metadata).__name__}; give a mapping of text to text")
    size = 0
    for key, value in metadata.items():
        if not isinstance(key, str) or not re.match(_KEY, key) or key.startswith("grpc-") or key.endswith("-bin"):
            raise _invalid("metadata", f"has the key {str(key)[:64]!r}; use lower-case letters, digits, '_', '.', '-'")
        if key in _RESERVED:
            raise _invalid("metadata", f"has the key {key!r}, which the client sets itself")
        if not isinstance(value, str) or not re.match(_VALUE, value):
            raise _invalid("metadata", f"has a value under {key!r} that isn't printable ASCII text")
        size += len(key) + len(value) + 32
    if size > _METADATA_BYTES:
        raise _invalid("metadata", f"has {size} bytes; the limit is {_METADATA_BYTES}")


def _invalid(field: str, problem: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field} {problem}", metadata={"field": field})


class ContentWatch:
    """Decides whether a stream has waited too long for content.

    Time counts only while the program waits: a slow reader is no slow model.
    """

    __slots__ = ("_first", "_idle", "_since", "_started", "_waited")

    def __init__(self, timeouts: Timeouts) -> None:
        self._first = _limit(timeouts.first_token)
        self._idle = _limit(timeouts.idle)
        self._since: float | None = None
        self._waited = 0.0
        self._started = False

    @property
    def limit(self) -> float | None:
        """The limit in force now, in seconds."""
        return self._idle if self._started else self._first

    @property
    def active(self) -> bool:
        """Whether there is anything to watch for."""
        return self._first is not None or self._idle is not None

    def waiting(self, now: float) -> None:
        """The program begins to wait, or waits on."""
        if self._since is None:
            self._since = now

    def pause(self, now: float) -> None:
        """Something that was no content came; until the program waits again, no time counts."""
        since = self._since
        if since is not None:
            self._waited += now - since
            self._since = None

    def content(self) -> None:
        """Content came."""
        self._started = True
        self._since = None
        self._waited = 0.0

    def check(self, now: float) -> float:
        """Returns the seconds until the next check; 0 or less: the time is over."""
        limit = self.limit
        since = self._since  # read once: a timer's thread may ask while the reader's goes on
        if limit is None:
            left = 3600.0
        elif since is None:
            left = max(limit - self._waited, 0.05)
        else:
            left = limit - self._waited - (now - since)
        if self._started or self._idle is None or left <= 0:
            return left
        # The next phase may begin any time and be the shorter one.
        return min(left, max(self._idle, 0.05))

    def error(self, request_id: str) -> DeadlineExceededError:
        """Makes the error to raise when the time is over."""
        if self._started:
            return IdleTimeoutError(
                f"no content for {self._idle:g} s (Timeouts.idle) after the stream had begun", request_id=request_id
            )
        return FirstTokenTimeoutError(
            f"no content within {self._first:g} s (Timeouts.first_token)", request_id=request_id
        )


def weakly(method: Callable[[], None]) -> Callable[[], None]:
    """Makes a callback that doesn't keep a forgotten stream alive."""
    reference = WeakMethod(method)

    def call() -> None:
        alive = reference()
        if alive is not None:
            alive()

    return call


def _limit(value: float | Unset | None) -> float | None:
    return None if value is None or value is UNSET else value
