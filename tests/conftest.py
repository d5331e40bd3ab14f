"""Fixtures for tests that need a gateway in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.gateway_process import GatewayProcess


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[Callable[..., GatewayProcess]]:
    """Starts gateways that end with the test."""
    from tests.gateway_process import GatewayProcess

    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(GatewayProcess(tmp_path, **options))
