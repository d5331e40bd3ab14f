"""A gateway for your own tests: the real one, with an engine that says what you tell it to.

>>> from deepseek_grpc.errors import ServiceUnavailableError
>>> from deepseek_grpc.testing import Delay, Fail, FakeServer
>>> with FakeServer() as fake, fake.client() as client:
...     fake.text.script("Hel", Delay(0.2), "lo")
...     assert client.text.generate("Hi").text == "Hello"
...
...     fake.text.script(Fail("UNAVAILABLE"))  # the client tries again, and gets what comes next
...     fake.text.script("Hi")
...     assert client.text.generate("Hi").meta.upstream.attempts == 2
...
...     fake.text.script(Fail("UNAVAILABLE", retryable=False))
...     with pytest.raises(ServiceUnavailableError):
...         client.text.generate("Hi")

pytest finds the fixtures `fake_server` and `fake_client` by itself.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepseek_grpc.testing.script import (
        Delay,
        Fail,
        Reasoning,
        RecordedCompletion,
        RecordedRequest,
        ScriptedEngine,
        Stall,
        ToolUse,
    )
    from deepseek_grpc.testing.server import FakeServer

__all__ = [
    "Delay",
    "Fail",
    "FakeServer",
    "Reasoning",
    "RecordedCompletion",
    "RecordedRequest",
    "ScriptedEngine",
    "Stall",
    "ToolUse",
]


if not TYPE_CHECKING:  # to a type checker it would mean that every name exists

    def __getattr__(name: str) -> Any:
        # Every run of pytest imports this package for its fixtures; the gateway is loaded by a test that uses it.
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        module = "server" if name == "FakeServer" else "script"
        found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
        return found
