"""Text generation: one-shot, streamed, and over a session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Unpack

from deepseek_grpc._async.session import AsyncSession
from deepseek_grpc._async.stream import AsyncTextStream
from deepseek_grpc._call import Timeout, call_options
from deepseek_grpc._codec.answer import decode_completion, decode_models
from deepseek_grpc._codec.checks import invalid, request_limit
from deepseek_grpc._codec.request import GenerateOptions, Prompt, encode_generate
from deepseek_grpc._transport import aio as transport
from deepseek_grpc._transport import aio_session as sessions
from deepseek_grpc.errors import DeepSeekError
from deepseek_grpc.types import UNSET, Completion, Model
from deepseek_rpc.v2 import text_pb2 as pb
from deepseek_rpc.v2.text_pb2_grpc import TextServiceStub

__all__ = ["AsyncText"]


class AsyncText:
    """The text service; reached as `client.text`."""

    def __init__(self, link: transport.Link) -> None:
        self._link = link
        self._max_bytes = request_limit(link.config.max_message_bytes)

    async def generate(
        self,
        prompt: Prompt,
        *,
        timeout: Timeout = UNSET,
        metadata: Mapping[str, str] | None = None,
        request_id: str | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Completion:
        """Generates one answer and returns it whole.

        Args:
            prompt: One user message as text, a Message, or a conversation, oldest first.
            timeout: Total seconds, or a Timeouts; None for no limit.
            metadata: Sent with this call, after the client's.
            request_id: Repeated by errors and logs; made up if not given.
            **options: See `GenerateOptions`.

        Raises:
            InvalidRequestError: A field is wrong (checked before anything is sent) or the backend refuses it.
            DeadlineExceededError: The total time is over.
            DeepSeekError: See `deepseek_grpc.errors`.

        Example:
            >>> async def example(client: AsyncClient) -> str:
            ...     answer = await client.text.generate([system("Be brief"), user("Why?")], temperature=0.7)
            ...     return answer.text
        """
        call = call_options(self._link.config, timeout, metadata, request_id)
        request = encode_generate(prompt, request_id=call.request_id, max_bytes=self._max_bytes, **options)
        response = await self._link.unary(self._link.stub(TextServiceStub).Generate, request, call)
        return decode_completion(response, call.request_id)

    async def generate_many(
        self,
        prompts: Iterable[Prompt],
        *,
        concurrency: int = 5,
        on_progress: Callable[[int, int], None] | None = None,
        timeout: Timeout = UNSET,
        metadata: Mapping[str, str] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> list[Completion | DeepSeekError]:
        """Generates an answer to each prompt, a few at a time, and returns them in the prompts' order.

        A prompt that fails has its error in its place; the others go on.

        Args:
            prompts: Each as in `generate`; gone through once.
            concurrency: How many calls are under way at a time, at least 1.
            on_progress: Called with (how many are done, how many there are) after each.
            timeout: Each call's own, as in `generate`.
            metadata: Sent with each call.
            **options: See `GenerateOptions`.

        Raises:
            InvalidRequestError: `concurrency` is less than 1.

        Example:
            >>> async def example(client: AsyncClient) -> None:
            ...     answers = await client.text.generate_many(["What is TLS?", "What is JWT?"], max_tokens=40)
            ...     for answer in answers:
            ...         print(answer if isinstance(answer, DeepSeekError) else answer.text)
        """
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise invalid("concurrency", f"is {concurrency!r}; give at least 1")

        async def one(prompt: Prompt) -> Completion:
            return await self.generate(prompt, timeout=timeout, metadata=metadata, **options)

        return await transport.each(one, list(prompts), concurrency, on_progress)

    def stream(
        self,
        prompt: Prompt,
        *,
        timeout: Timeout = UNSET,
        metadata: Mapping[str, str] | None = None,
        request_id: str | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncTextStream:
        """Starts a generation and returns its stream at once; the arguments are `generate`'s.

        Raises:
            InvalidRequestError: A field is wrong. Everything else is raised where the stream is read.

        Example:
            >>> async def example(client: AsyncClient) -> None:
            ...     async with client.text.stream("Tell me a story") as stream:
            ...         async for event in stream:
            ...             if isinstance(event, TextDelta):
            ...                 print(event.text, end="")
        """
        call = call_options(self._link.config, timeout, metadata, request_id)
        request = encode_generate(prompt, request_id=call.request_id, max_bytes=self._max_bytes, **options)
        messages = self._link.stream(self._link.stub(TextServiceStub).StreamGenerate, request, call)
        return AsyncTextStream(messages, call.request_id, logprobs=request.logprobs)

    def session(
        self,
        *,
        metadata: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> AsyncSession:
        """Opens a session: one bidirectional stream that carries any number of generations at once.

        Example:
            >>> async def example(client: AsyncClient) -> None:
            ...     async with client.text.session() as session:
            ...         one, two = await asyncio.gather(session.generate("x"), session.generate("y"))
        """
        call = call_options(self._link.config, UNSET, metadata, request_id)
        driver = sessions.open_session(self._link, self._link.stub(TextServiceStub).Session, call)
        return AsyncSession(self._link, driver)

    async def models(
        self,
        *,
        timeout: Timeout = UNSET,
        metadata: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> list[Model]:
        """Returns the models that a request may name, in the gateway's order of preference.

        Raises:
            PermissionDeniedError: The credential lacks `text.models`.
        """
        call = call_options(self._link.config, timeout, metadata, request_id)
        response = await self._link.unary(self._link.stub(TextServiceStub).ListModels, pb.ListModelsRequest(), call)
        return decode_models(response)
