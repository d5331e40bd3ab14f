"""The gateways that the command line is tried against: a scripted one, and `serve`."""

import pytest

from deepseek_grpc.testing import FakeServer
from tests.cli.running import serving


@pytest.fixture(scope="module")
def shared_fake():
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def fake(shared_fake):
    """The scripted gateway, without what other tests left."""
    shared_fake.text._scripts.clear()
    shared_fake.text.requests.clear()
    shared_fake.text.completions.clear()
    shared_fake.text.cancelled = 0
    return shared_fake


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """A development gateway that made up its credential; gives the environment that it printed."""
    log = tmp_path_factory.mktemp("serve") / "log"
    with serving("--listen", "127.0.0.1:0", log=log) as (_, printed):
        yield printed
