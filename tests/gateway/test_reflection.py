"""Reflection lets tools such as grpcurl find the services, on loopback only."""

from __future__ import annotations

import grpc
import pytest

from deepseek_rpc.v2 import text_pb2
from tests.gateway.raw import channel

reflection = pytest.importorskip("grpc_reflection.v1alpha.reflection_pb2")
reflection_grpc = pytest.importorskip("grpc_reflection.v1alpha.reflection_pb2_grpc")


def test_it_lists_the_services_without_a_credential(fake_server):
    with channel(fake_server.target) as raw:
        request = reflection.ServerReflectionRequest(list_services="")
        (response,) = reflection_grpc.ServerReflectionStub(raw).ServerReflectionInfo(iter([request]), timeout=10)
    names = {service.name for service in response.list_services_response.service}
    assert names == {
        "deepseek_rpc.v2.TextService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_it_describes_them(fake_server):
    with channel(fake_server.target) as raw:
        request = reflection.ServerReflectionRequest(file_containing_symbol="deepseek_rpc.v2.TextService")
        (response,) = reflection_grpc.ServerReflectionStub(raw).ServerReflectionInfo(iter([request]), timeout=10)
    files = response.file_descriptor_response.file_descriptor_proto
    assert text_pb2.DESCRIPTOR.serialized_pb in files


def test_nothing_else_is_open(fake_server):
    with channel(fake_server.target) as raw:
        call = raw.unary_unary("/deepseek_rpc.v2.TextService/ListModels")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
