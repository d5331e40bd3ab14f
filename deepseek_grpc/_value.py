"""Frozen dataclasses with slots that are cheap to define and to make.

`dataclass(frozen=True, slots=True)` compiles six methods for each class, which for this package's vocabulary is a third
of its import time, and its constructor goes through `object.__setattr__` field by field. `@value` lets `dataclasses`
collect the fields (so `replace`, `fields`, `asdict` and `match` work), compiles the constructor alone, which fills the
slots directly, and inherits everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field
from enum import Enum
from typing import Any, ClassVar, Final, Never, TypeVar, cast, dataclass_transform

__all__ = ["UNSET", "Unset", "Value", "value"]

T = TypeVar("T", bound="Value")


class Unset(Enum):
    """The type of `UNSET`, which stands for "use the default" where None means "no limit"."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET


class Value:
    """What every frozen value shares: equality and hash by its fields, a repr, and refusal to change.

    Fields that aren't compared come last and have a default: they aren't pickled either.
    """

    __slots__ = ()

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def _fields(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name, spec in self.__dataclass_fields__.items() if spec.compare])

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        shown = [f"{name}={getattr(self, name)!r}" for name, spec in self.__dataclass_fields__.items() if spec.repr]
        return f"{self.__class__.__qualname__}({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, self._fields()

    def __setattr__(self, name: str, value: Any) -> Never:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> Never:
        raise FrozenInstanceError(f"cannot delete field {name!r}")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """Makes a frozen dataclass with slots of a class that derives from `Value`.

    >>> @value
    ... class Point(Value):
    ...     x: int
    ...     y: int = 0
    >>> Point(1)
    Point(x=1, y=0)
    """
    made = dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    names: dict[str, Any] = {"_MISSING": MISSING}
    parameters, body = [], []
    for name, spec in made.__dataclass_fields__.items():
        names[f"_set_{name}"] = _setter(made, name)
        given = name
        if spec.default is not MISSING:
            names[f"_default_{name}"] = spec.default
            parameters.append(f"{name}=_default_{name}")
        elif spec.default_factory is not MISSING:
            names[f"_make_{name}"] = spec.default_factory
            parameters.append(f"{name}=_MISSING")
            given = f"_make_{name}() if {name} is _MISSING else {name}"
        else:
            parameters.append(name)
        body.append(f" _set_{name}(self, {given})")
    if hasattr(made, "__post_init__"):
        body.append(" self.__post_init__()")
    source = f"def __init__(self, {', '.join(parameters)}):\n" + "\n".join(body or [" pass"])
    exec(source, names)  # noqa: S102 - what dataclasses does too: the names are the class's own
    init = names["__init__"]
    init.__qualname__ = f"{made.__qualname__}.__init__"
    init.__annotations__ = {name: spec.type for name, spec in made.__dataclass_fields__.items()} | {"return": None}
    type.__setattr__(made, "__init__", init)
    return made


def _setter(cls: type, name: str) -> Callable[[Any, Any], None]:
    """Returns what writes a slot, whatever `__setattr__` says."""
    for base in cls.__mro__:
        if name in vars(base):
            return cast("Callable[[Any, Any], None]", vars(base)[name].__set__)
    raise TypeError(f"{cls.__name__} has no slot {name!r}")
