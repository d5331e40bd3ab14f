"""Every method of the contract against every kind of role, taken from the descriptors: nothing can be forgotten."""

from collections.abc import Awaitable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from deepseek_grpc import AsyncClient, JWTSigner, Model
from deepseek_grpc.auth import Secret
from deepseek_grpc.errors import PermissionDeniedError
from deepseek_grpc.gateway.guard import current_call, permission_of
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.settings import ClientSettings, Settings
from deepseek_grpc.gateway.tokens import Principal
from deepseek_grpc.testing import FakeServer, ScriptedEngine
from deepseek_rpc.v2 import data_pb2, fine_tune_pb2, text_pb2
from tests.gateway.raw import bearer, channel
from tests.unit.keys import SECRET

SERVICES = [
    text_pb2.DESCRIPTOR.services_by_name["TextService"],
    data_pb2.DESCRIPTOR.services_by_name["DataService"],
    fine_tune_pb2.DESCRIPTOR.services_by_name["FineTuneService"],
]
METHODS = [method for service in SERVICES for method in service.methods]
PERMISSIONS = sorted({permission_of(method) for method in METHODS})
AREAS = sorted({permission.partition(".")[0] for permission in PERMISSIONS})
ROLES = [
    [],
    ["*"],
    *([f"{area}.*"] for area in AREAS),
    *([permission] for permission in PERMISSIONS),
    ["text", "*.generate"],
]
SERVED = {"TextService"}


@pytest.fixture(scope="module", params=ROLES, ids=lambda role: "+".join(role) or "nothing")
def role(request: pytest.FixtureRequest) -> Iterator[tuple[list[str], FakeServer, grpc.Channel]]:
    with FakeServer(permissions=request.param) as server, channel(server.target) as raw:
        yield request.param, server, raw


def status(raw: grpc.Channel, method: MethodDescriptor, metadata: Any) -> grpc.StatusCode:
    """Calls a method with an empty request and returns the status that it ends with."""
    arity = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    call = getattr(raw, arity)(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    empty = GetMessageClass(method.input_type)()
    request = iter([empty]) if method.client_streaming else empty
    try:
        answer = call(request, metadata=metadata, timeout=20)
        if method.server_streaming:
            list(answer)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def granted(role: list[str], permission: str) -> bool:
    return "*" in role or permission in role or f"{permission.partition('.')[0]}.*" in role


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name.removeprefix("deepseek_rpc.v2."))
def test_a_role_permits_what_it_grants_and_nothing_else(role, method):
    permissions, server, raw = role
    found = status(raw, method, bearer(server))
    if method.containing_service.name not in SERVED:
        assert found is grpc.StatusCode.UNIMPLEMENTED
    elif granted(permissions, permission_of(method)):
        assert found in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
    else:
        assert found is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name.removeprefix("deepseek_rpc.v2."))
def test_nobody_calls_without_a_credential(fake_server, method):
    with channel(fake_server.target) as raw:
        found = status(raw, method, ())
    served = method.containing_service.name in SERVED
    assert found is (grpc.StatusCode.UNAUTHENTICATED if served else grpc.StatusCode.UNIMPLEMENTED)


class Witness(ScriptedEngine):
    """Keeps who called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Principal] = []

    async def models(self) -> list[Model]:
        self.seen.append(current_call().principal)
        return await super().models()


async def test_each_call_is_its_own_clients(caplog: pytest.LogCaptureFixture) -> None:
    """Several roles add up, none is nothing, and the tenant is the client's."""
    engine = Witness()
    clients = {
        "two": ("generates", "lists"),
        "one": ("lists",),
        "every": ("everything",),
        "text": ("text",),
        "other": ("data",),
        "none": (),
    }
    settings = Settings(
        "127.0.0.1:0",
        clients=tuple(ClientSettings(name, Secret(SECRET), "HS256", f"of-{name}", r) for name, r in clients.items()),
        roles={
            "generates": ("text.generate",),
            "lists": ("text.models",),
            "everything": ("*",),
            "text": ("text.*",),
            "data": ("data.*", "fine_tuning.*"),
        },
        default_model="fake",
    )
    may = {}
    async with Gateway(settings, backends=[Backend(engine, ("*",))]) as gateway:
        for name in clients:
            async with AsyncClient(gateway.address, credentials=JWTSigner(name, SECRET)) as client:
                may[name] = [await allowed(client.text.models()), await allowed(client.text.generate("Hi"))]
    assert may == {
        "two": [True, True],
        "one": [True, False],
        "every": [True, True],
        "text": [True, True],
        "other": [False, False],
        "none": [False, False],
    }
    called = {principal.client_id: principal.tenant for principal in engine.seen}
    assert called == {name: f"of-{name}" for name in ("two", "one", "every", "text")}
    assert len([record for record in caplog.records if record.name == "deepseek_grpc.gateway.auth"]) == 5


async def allowed(call: Awaitable[object]) -> bool:
    try:
        await call
    except PermissionDeniedError:
        return False
    return True
