"""A gateway before its start, at an address that is none, and in a process with an engine that the program brings."""

import pytest

from deepseek_grpc.errors import ConfigurationError
from deepseek_grpc.gateway.engines.embedded import EmbeddedEngine
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.settings import Settings
from deepseek_grpc.local import LocalGateway


@pytest.mark.parametrize("listen", ["nowhere", "127.0.0.1", "127.0.0.1:x", "unix:", "http://127.0.0.1:1"])
def test_an_address_that_is_none(listen):
    with pytest.raises(ConfigurationError, match="is no address; give HOST:PORT"):
        Settings(listen)


async def test_health_is_of_one_that_has_started():
    with pytest.raises(RuntimeError, match="hasn't started"):
        await Gateway(Settings("127.0.0.1:0")).set_serving(False)


def test_the_default_model_is_the_embedded_engines_where_it_has_one():
    with LocalGateway(engine=EmbeddedEngine()) as gateway, gateway.client() as client:
        assert client.text.generate("Hi", max_tokens=1).meta.model == client.text.models()[0].id
