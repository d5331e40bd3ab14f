# Mirrored by scripts/unasync.py from tests/contract/_async/conftest.py: edit that and run `make sync`.
"""The client that most tests here use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deepseek_grpc import Client
from deepseek_grpc.testing import FakeServer


@pytest.fixture
def client(fake_server: FakeServer) -> Iterator[Client]:
    with fake_server.client() as client:
        yield client
