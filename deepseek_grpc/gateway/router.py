"""Which engine answers for which model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final

from deepseek_grpc.errors import ConfigurationError, NotFoundError, UnimplementedError
from deepseek_grpc.gateway.engines import TextEngine
from deepseek_grpc.types import AccountBalance, Model

__all__ = ["Backend", "Router", "unserved"]

_MOST_RESOLVED: Final = 1_000


@dataclass(frozen=True, slots=True)
class Backend:
    """An engine and the models that are asked of it, as names or shell patterns."""

    engine: TextEngine
    models: tuple[str, ...]


def unserved(patterns: Sequence[str], aliases: Mapping[str, str], default_model: str) -> dict[str, str]:
    """Returns the models that no pattern stands for, by the setting that names them.

    >>> unserved(["small-*"], {"chat": "small-1", "old": "chat"}, "large")
    {'default_model': 'large', 'aliases.old': 'chat'}
    """
    wanted = {"default_model": aliases.get(default_model, default_model)}
    wanted |= {f"aliases.{alias}": target for alias, target in aliases.items()}
    return {key: model for key, model in wanted.items() if not _matches(model, patterns)}


def _matches(model: str, patterns: Sequence[str]) -> bool:
    return any(model == pattern or fnmatchcase(model, pattern) for pattern in patterns)


class Router:
    """Resolves a request's model to the first backend that serves it.

    Args:
        backends: In order of preference.
        aliases: Other names of models; one step, never chained.
        default_model: What an empty model stands for.

    Raises:
        ConfigurationError: There is no backend, or none that serves the default model or an alias's.
    """

    def __init__(self, backends: Sequence[Backend], aliases: Mapping[str, str], default_model: str) -> None:
        if not backends:
            raise ConfigurationError("there is no backend; a gateway needs at least one")
        self._backends = tuple(backends)
        self._aliases = dict(aliases)
        self.default_model = default_model
        self._resolved: dict[str, tuple[TextEngine, str]] = {}
        patterns = [pattern for backend in backends for pattern in backend.models]
        missing = unserved(patterns, aliases, default_model)
        if missing:
            raise ConfigurationError("\n".join(f"{key}: no backend serves {model!r}" for key, model in missing.items()))

    def resolve(self, asked: str) -> tuple[TextEngine, str]:
        """Returns the engine and the true name of the model that a request names; raises NotFoundError."""
        found = self._resolved.get(asked)
        if found is None:
            name = asked or self.default_model
            model = self._aliases.get(name, name)
            engine = self._find(model)
            if engine is None:
                raise NotFoundError(f"model {name[:64]!r} isn't served here", metadata={"field": "model"})
            if len(self._resolved) >= _MOST_RESOLVED:  # with a pattern there is no end of names
                self._resolved.clear()
            found = self._resolved[asked] = engine, model
        return found

    def _find(self, model: str) -> TextEngine | None:
        for backend in self._backends:
            if _matches(model, backend.models):
                return backend.engine
        return None

    async def models(self) -> list[Model]:
        """Lists the models with their aliases."""
        listed = []
        for backend in self._backends:
            for model in await backend.engine.models():
                aliases = tuple(alias for alias, target in self._aliases.items() if target == model.id)
                listed.append(replace(model, backend=backend.engine.name, aliases=aliases))
        return listed

    async def balance(self) -> AccountBalance:
        """Returns the balance of the first backend that charges an account.

        Sums would hide an account that is empty behind one that isn't, so the order of preference decides. Backends
        that know no balance are passed over, and one that charges nothing answers only if no other does. A backend that
        fails is not passed over: the next one's account would be taken for its.

        Raises:
            UnimplementedError: No backend knows a balance.
        """
        free: AccountBalance | None = None
        for backend in self._backends:
            try:
                account = await backend.engine.balance()
            except UnimplementedError:
                continue
            if account.balances:
                return account
            free = free or account
        if free is None:
            raise UnimplementedError("no backend of this gateway knows a balance")
        return free

    async def aclose(self) -> None:
        """Closes every engine."""
        for backend in self._backends:
            await backend.engine.aclose()
