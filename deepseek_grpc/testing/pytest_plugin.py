"""The fixtures that pytest finds through the entry point; everything heavy is imported when one is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from deepseek_grpc import Client
    from deepseek_grpc.testing import FakeServer

__all__ = ["fake_client", "fake_server"]


@pytest.fixture
def fake_server() -> Iterator[FakeServer]:
    """A gateway that says what the test scripts: `fake_server.text.script("Hi")`."""
    from deepseek_grpc.testing import FakeServer

    with FakeServer() as server:
        yield server


@pytest.fixture
def fake_client(fake_server: FakeServer) -> Iterator[Client]:
    """A client of `fake_server`. An async test makes its own: `async with fake_server.async_client() as client:`."""
    with fake_server.client() as client:
        yield client
