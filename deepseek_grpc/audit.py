"""An audit log: who was asked what and when, as JSON lines."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from typing import Any, Final

from deepseek_grpc.errors import ConfigurationError, DeepSeekError
from deepseek_grpc.telemetry import CallRecord

__all__ = ["AuditLog", "redact"]

# One for every audit log of the process. A fork takes no threads along, and a lock that one of them held stays locked.
_lock = threading.Lock()


def _reset() -> None:
    global _lock  # noqa: PLW0603 - a lock can't be opened by somebody else
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_reset)

_EXCERPT: Final = 50
_LOOKED_AT: Final = 1000
"""Characters that are redacted before the excerpt is cut, so that a cut can't make half of an address look harmless."""
_LAST_WORD: Final = re.compile(r"\S*\Z")

# In this order: what is longest and surest first, because a later one could take a piece of it.
_PERSONAL: Final = (
    ("key", re.compile(r"-----BEGIN [^-]*PRIVATE KEY.*", re.DOTALL)),
    ("token", re.compile(r"\beyJ[\w-]{5,}(?:\.[\w-]*){0,4}|\b(?:sk|pk|rk|gh[pousr]|xox[abp]|AKIA)[-_]?[\w-]{16,}")),
    (
        "secret",
        re.compile(
            r"(?i)\bauthorization\b[\"']?\s*[:=]\s*[\"']?\w+\s+\S+"
            r"|(?<![^\W_])(?:(?:password|passwd|pwd)\b(?:[\"']?\s*(?:is\b|[:=]))?"
            r"|(?:pass|secret|(?:api[-_ ]?)?key|token|bearer)\b[\"']?\s*(?:is\b|[:=]))\s*\S+"
        ),
    ),
    ("url", re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/@]+@\S+", re.IGNORECASE)),
    ("email", re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w-]+(?:\.[\w-]+)+")),
    ("iban", re.compile(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?\b")),
    ("ip", re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b|(?<![\w:])(?:[0-9a-fA-F]{0,4}:){3,7}[0-9a-fA-F]{0,4}(?![\w:])")),
    ("number", re.compile(r"\+?\(?\d(?:[ ./()-]{0,2}\d){6,}")),
    ("token", re.compile(r"\b(?=[\w+/-]*\d)(?=[\w+/-]*[A-Za-z])[\w+/-]{24,}={0,2}")),
)
# While the other kinds are looked for, one private-use character stands for what was found: it can't be cut in two.
_MARKS: Final = {0xE000 + place: f"[{kind}]" for place, (kind, _) in enumerate(_PERSONAL)}


def redact(text: str) -> str:
    """Puts the names of their kinds in the place of what may identify a person or open a door.

    Looks for e-mail addresses, telephone, card and account numbers, network addresses, keys, tokens and passwords. It
    finds what has a form; names of people have none and stay.

    >>> redact("I am ada@example.org, call +44 20 7946 0958")
    'I am [email], call [number]'
    """
    for mark, (_, pattern) in zip(_MARKS, _PERSONAL, strict=True):
        text = pattern.sub(chr(mark), text)
    return text.translate(_MARKS)


class AuditLog:
    """An observer that writes a record before and after each call to a file, as JSON lines.

    Records have the time, the method, the request id, the target and the model; those of an end also the status, the
    reason, the seconds, the attempts and the tokens. Prompts are left out unless asked for; then their first 50
    characters stand there, with personal data redacted. Whatever a record holds, it is one line of ASCII, so nobody can
    forge another one. The file is appended to, and readable by its owner alone if it is made here. Several threads and
    processes may share it, and it may be rotated by renaming.

    Args:
        path: The file.
        prompts: Whether records have the beginning of the prompt.

    Raises:
        ConfigurationError: The file can't be written.

    Example:
        >>> with Client.from_env(observers=[AuditLog("api_calls.log")]) as client:
        ...     answer = client.text.generate("Hi", max_tokens=1)
        >>> with open("api_calls.log") as log:
        ...     [json.loads(line)["event"] for line in log]
        ['started', 'ended']
    """

    def __init__(self, path: str | os.PathLike[str], *, prompts: bool = False) -> None:
        if not isinstance(path, str | os.PathLike):
            raise ConfigurationError(f"the audit log's path is a {type(path).__name__}; give the path of a file")
        self.path = os.path.abspath(path)  # noqa: PTH100 - as it is, and for good: a daemon changes its directory
        self._prompts = prompts
        try:
            self._file = self._open()
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or error
            raise ConfigurationError(f"cannot write the audit log {self.path!r}: {problem}") from error

    def started(self, call: CallRecord) -> None:
        """Writes the record before a call."""
        fields: dict[str, Any] = {"target": call.target, "model": call.model}
        if self._prompts:
            asked = call.excerpt(_LOOKED_AT)
            if len(asked) == _LOOKED_AT:  # the last word may be half of one
                asked = _LAST_WORD.sub("", asked)
            fields["prompt"] = redact(asked)[:_EXCERPT]
        self._write("started", call, call.started_at, fields)

    def ended(self, call: CallRecord) -> None:
        """Writes the record after a call."""
        fields: dict[str, Any] = {"code": "OK" if call.code is None else call.code.name}
        if isinstance(call.error, DeepSeekError):
            fields["reason"] = call.error.reason
        fields |= {"seconds": round(call.seconds or 0, 6), "attempts": call.attempts}
        if call.first_content_seconds is not None:
            fields["first_content_seconds"] = round(call.first_content_seconds, 6)
        if call.usage is not None:
            fields["prompt_tokens"] = call.usage.prompt_tokens
            fields["completion_tokens"] = call.usage.completion_tokens
        self._write("ended", call, call.started_at + (call.seconds or 0), fields)

    def _write(self, event: str, call: CallRecord, at: float, fields: dict[str, Any]) -> None:
        whole = int(at)
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((at - whole) * 1000):03d}Z"
        record = {"at": stamp, "event": event, "method": call.method, "request_id": call.request_id, **fields}
        line = json.dumps(record).encode() + b"\n"
        with _lock:
            self._follow()
            os.write(self._file, line)  # one write for a line: appended whole, whoever else writes

    def _follow(self) -> None:
        """Opens the file anew if it was renamed or deleted."""
        try:
            there, here = os.stat(self.path), os.fstat(self._file)  # noqa: PTH116 - Path would be made for each record
            if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                return
        except FileNotFoundError:
            pass
        fresh = self._open()
        os.close(self._file)
        self._file = fresh

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.path, self._prompts)

    def __repr__(self) -> str:
        return f"AuditLog({self.path!r})"


def _again(path: str, prompts: bool) -> AuditLog:
    return AuditLog(path, prompts=prompts)
