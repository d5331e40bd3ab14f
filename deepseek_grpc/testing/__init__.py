"""A gateway for your own tests: the real one, with an engine that says what you tell it to.

    from deepseek_grpc.testing import Delay, Fail, FakeServer

    with FakeServer() as fake, fake.client() as client:
        fake.text.script("Hel", Delay(0.2), "lo", Fail("UNAVAILABLE"))
        client.text.generate("Hi")

pytest finds the fixtures `fake_server` and `fake_client` by itself.
"""

from deepseek_grpc.testing.script import Delay, Fail, Reasoning, RecordedRequest, ScriptedEngine, Stall, ToolUse
from deepseek_grpc.testing.server import FakeServer

__all__ = [
    "Delay",
    "Fail",
    "FakeServer",
    "Reasoning",
    "RecordedRequest",
    "ScriptedEngine",
    "Stall",
    "ToolUse",
]
