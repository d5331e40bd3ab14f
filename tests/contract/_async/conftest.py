"""The client that most tests here use."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from deepseek_grpc import AsyncClient
from deepseek_grpc.testing import FakeServer


@pytest.fixture
async def client(fake_server: FakeServer) -> AsyncIterator[AsyncClient]:
    async with fake_server.async_client() as client:
        yield client
