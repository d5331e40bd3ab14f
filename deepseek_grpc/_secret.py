"""A secret that never prints."""

from __future__ import annotations

from typing import Any, Never, Self

from deepseek_grpc.errors import ConfigurationError

__all__ = ["Secret"]


class Secret:
    """A key, password or token that shows in no repr, log, format or JSON; `reveal()` is the one way to its bytes.

    Text is kept as UTF-8. Two secrets compare in a time that tells nothing of where they differ. Pickling is refused: a
    pickle is readable, and it ends in files, queues and caches. Give another process the name of a variable or a file
    that the secret can be read from; a copy within the process is the same secret.

    Args:
        value: The secret, or another Secret, whose bytes are shared.

    Raises:
        ConfigurationError: The value is of another kind, or text that UTF-8 can't carry.

    >>> key = Secret("0123456789abcdef")
    >>> key, f"{key}", len(key)
    (Secret(…), 'Secret(…)', 16)
    >>> key.reveal()
    b'0123456789abcdef'
    """

    __slots__ = ("_value",)

    _value: bytes

    def __init__(self, value: str | bytes | Secret) -> None:
        if isinstance(value, Secret):
            held = value.reveal()
        elif isinstance(value, bytes):
            held = value
        elif isinstance(value, str):
            if any("\ud800" <= c <= "\udfff" for c in value):  # before UTF-8 fails with an error that quotes the text
                raise ConfigurationError("the secret has a lone surrogate, which UTF-8 can't carry")
            held = value.encode()
        else:
            raise ConfigurationError(f"the secret is a {type(value).__name__}; give it as text or bytes")
        object.__setattr__(self, "_value", held)

    def reveal(self) -> bytes:
        """Returns the secret itself."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        from hmac import compare_digest

        return compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash(self._value)  # keyed anew in each process, so it tells nothing

    def __repr__(self) -> str:
        return "Secret(…)"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __setattr__(self, name: str, value: Any) -> Never:
        raise AttributeError("a secret doesn't change; make another")

    def __delattr__(self, name: str) -> Never:
        raise AttributeError("a secret doesn't change; make another")

    def __getstate__(self) -> Never:
        raise TypeError(
            "a secret can't be pickled: a pickle is readable; "
            "give the other process the variable or file that it can be read from"
        )

    def __reduce_ex__(self, protocol: object) -> Never:
        self.__getstate__()
