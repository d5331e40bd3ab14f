"""Calls without what most have: a credential, room, usage, text."""

from __future__ import annotations

import grpc
import pytest

from deepseek_grpc import AsyncClient, ImagePart, json_schema, user
from deepseek_grpc.errors import AuthenticationError, RequestTooLargeError


class Ends:
    """Keeps the records of calls that have ended."""

    def __init__(self):
        self.records = []

    def started(self, call):
        pass

    def ended(self, call):
        self.records.append(call)


@pytest.mark.parametrize("session", [False, True])
async def test_no_credential_is_the_gateways_to_refuse(fake_server, session):
    async with AsyncClient(fake_server.target) as client:
        with pytest.raises(AuthenticationError) as caught:
            await (client.text.session() if session else client.text).generate("Hi")
    assert caught.value.code is grpc.StatusCode.UNAUTHENTICATED


async def test_what_is_too_large_is_named(fake_server):
    async with fake_server.async_client(max_message_bytes=2000) as client:
        schema = json_schema('{"description": "' + "x" * 3000 + '"}')
        with pytest.raises(RequestTooLargeError, match="response_format has 3,") as caught:
            await client.text.generate("Hi", temperature=0.5, stop=["a"], response_format=schema)
    assert caught.value.metadata["field"] == "response_format"


async def test_answers_without_usage_and_prompts_without_text(fake_server):
    ends = Ends()
    async with fake_server.async_client(observers=[ends]) as client:
        await client.text.models()
        await client.text.balance()
        await client.text.generate([user([ImagePart("https://example.com/x.png")])])
    assert [call.usage is None for call in ends.records] == [True, True, False]
    assert [call.excerpt(50) for call in ends.records] == ["", "", ""]
