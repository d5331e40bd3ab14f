"""Text generation: one-shot, streamed, and over a session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Unpack

from deepseek_grpc._async.session import AsyncSession
from deepseek_grpc._async.stream import AsyncTextStream
from deepseek_grpc._call import Timeout, call_options
from deepseek_grpc._codec.account import decode_balance
from deepseek_grpc._codec.answer import decode_completion, decode_models
from deepseek_grpc._codec.checks import invalid, request_limit
from deepseek_grpc._codec.continuation import Continuation, OnInterrupt, continues, seeded
from deepseek_grpc._codec.fim import CompleteOptions, encode_complete
from deepseek_grpc._codec.message import several_of
from deepseek_grpc._codec.request import GenerateOptions, Prompt, encode_generate
from deepseek_grpc._codec.structured import with_parsed
from deepseek_grpc._transport import aio as transport
from deepseek_grpc._transport import aio_session as sessions
from deepseek_grpc.errors import DeepSeekError
from deepseek_grpc.types import UNSET, AccountBalance, Completion, Model
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
            OutputError: The answer doesn't fit `output`; its `text` is what the model wrote.
            DeepSeekError: See `deepseek_grpc.errors`.

        Example:
            >>> async def example(client: AsyncClient) -> str:
            ...     answer = await client.text.generate([system("Be brief"), user("Why?")], temperature=0.7)
            ...     return answer.text
        """
        call = call_options(self._link.config, timeout, metadata, request_id)
        request = encode_generate(prompt, request_id=call.request_id, max_bytes=self._max_bytes, **options)
        response = await self._link.unary(TextServiceStub, "Generate", request, call)
        completion = decode_completion(response, call.request_id)
        output = options.get("output")
        return completion if output is None else with_parsed(completion, output)

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
            InvalidRequestError: `concurrency` is less than 1, or `prompts` is a single one.

        Example:
            >>> async def example(client: AsyncClient) -> None:
            ...     answers = await client.text.generate_many(["What is TLS?", "What is JWT?"], max_tokens=40)
            ...     for answer in answers:
            ...         print(answer if isinstance(answer, DeepSeekError) else answer.text)
        """
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise invalid("concurrency", f"is {concurrency!r}; give at least 1")
        if "request_id" in options:
            raise TypeError("generate_many has no argument 'request_id': each call has an id of its own")
        several = tuple(several_of("prompts", prompts, "several prompts, in a list"))

        async def one(prompt: Prompt) -> Completion:
            return await self.generate(prompt, timeout=timeout, metadata=metadata, **options)

        return await transport.each(one, several, concurrency, on_progress)

    def stream(
        self,
        prompt: Prompt,
        *,
        timeout: Timeout = UNSET,
        metadata: Mapping[str, str] | None = None,
        request_id: str | None = None,
        on_interrupt: OnInterrupt = UNSET,
        **options: Unpack[GenerateOptions],
    ) -> AsyncTextStream:
        """Starts a generation and returns its stream at once; the other arguments are `generate`'s.

        An answer that is cut off goes on by itself: the model is asked to continue the text so far, with a
        `max_tokens` that is less by what has come, within the same total time. The stream always has a seed for it, so
        that a backend that honours seeds goes on as it would have. The prompt and the text so far are billed again;
        `usage` has the tokens of all parts, the lost ones counted by their pieces, and `meta.continued` says how often
        it happened. What is cut off before any content came is asked for again. It ends in StreamInterruptedError all
        the same inside reasoning, after a tool call has begun, where the backend can't continue a text, and where
        nothing more came three times in a row.

        Args:
            prompt: As in `generate`.
            timeout: As in `generate`.
            metadata: As in `generate`.
            request_id: As in `generate`.
            on_interrupt: What to do when the answer is cut off: `continue`, or `raise` StreamInterruptedError; the
                client's `on_interrupt` if not given.
            **options: See `GenerateOptions`.

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
        goes_on = continues(on_interrupt, self._link.config.on_interrupt)
        if goes_on:
            options = seeded(options)
        request = encode_generate(prompt, request_id=call.request_id, max_bytes=self._max_bytes, **options)
        start = partial(self._link.stream, TextServiceStub, "StreamGenerate", call=call)
        return AsyncTextStream(
            start(request),
            call.request_id,
            logprobs=request.logprobs,
            output=options.get("output"),
            continuation=Continuation(request, start) if goes_on else None,
        )

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
            ...         answer = await session.generate("What is TLS?")
            ...         print(answer.text)
        """
        call = call_options(self._link.config, UNSET, metadata, request_id)
        return AsyncSession(self._link, sessions.open_session(self._link, call))

    async def complete(
        self,
        prompt: str,
        *,
        suffix: str | None = None,
        timeout: Timeout = UNSET,
        metadata: Mapping[str, str] | None = None,
        request_id: str | None = None,
        **options: Unpack[CompleteOptions],
    ) -> Completion:
        """Completes the text between a prompt and a suffix (fill in the middle) and returns it whole.

        Args:
            prompt: The text before the gap, at least 1 character.
            suffix: The text after the gap; without one, the completion goes on from the prompt.
            timeout: Total seconds, or a Timeouts; None for no limit.
            metadata: Sent with this call, after the client's.
            request_id: Repeated by errors and logs; made up if not given.
            **options: See `CompleteOptions`, which follow https://api-docs.deepseek.com/api/create-completion.

        Raises:
            InvalidRequestError: A field is wrong (checked before anything is sent) or the backend refuses it.
            PermissionDeniedError: The credential lacks `text.complete`.
            UnimplementedError: The backend can't complete.
            DeepSeekError: See `deepseek_grpc.errors`.

        Example:
            >>> async def example(client: AsyncClient) -> str:
            ...     filled = await client.text.complete("def fib(n):", suffix="    return a", max_tokens=64)
            ...     return filled.text
        """
        call = call_options(self._link.config, timeout, metadata, request_id)
        request = encode_complete(
            prompt, suffix=suffix, request_id=call.request_id, max_bytes=self._max_bytes, **options
        )
        response = await self._link.unary(TextServiceStub, "CompleteFim", request, call)
        return decode_completion(response, call.request_id)

    def stream_complete(
        self,
        prompt: str,
        *,
        suffix: str | None = None,
        timeout: Timeout = UNSET,
        metadata: Mapping[str, str] | None = None,
        request_id: str | None = None,
        **options: Unpack[CompleteOptions],
    ) -> AsyncTextStream:
        """Starts a completion and returns its stream at once; the arguments are `complete`'s.

        Raises:
            InvalidRequestError: A field is wrong. Everything else is raised where the stream is read.

        Example:
            >>> async def example(client: AsyncClient) -> None:
            ...     async with client.text.stream_complete("A deadline is", suffix=" of the client.") as stream:
            ...         async for piece in stream.text():
            ...             print(piece, end="")
        """
        call = call_options(self._link.config, timeout, metadata, request_id)
        request = encode_complete(
            prompt, suffix=suffix, request_id=call.request_id, max_bytes=self._max_bytes, **options
        )
        messages = self._link.stream(TextServiceStub, "StreamFim", request, call)
        return AsyncTextStream(messages, call.request_id, logprobs=request.HasField("logprobs"))

    async def balance(
        self,
        *,
        timeout: Timeout = UNSET,
        metadata: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> AccountBalance:
        """Returns what is left on the account behind the gateway: of its first backend that charges one.

        Raises:
            PermissionDeniedError: The credential lacks `text.balance`.
            UnimplementedError: No backend knows a balance.

        Example:
            >>> async def example(client: AsyncClient) -> None:
            ...     account = await client.text.balance()
            ...     for balance in account.balances:
            ...         print(balance.currency, balance.total)
        """
        call = call_options(self._link.config, timeout, metadata, request_id)
        response = await self._link.unary(TextServiceStub, "GetBalance", pb.GetBalanceRequest(), call)
        return decode_balance(response)

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

        Example:
            >>> async def example(client: AsyncClient) -> list[str]:
            ...     return [model.id for model in await client.text.models()]
        """
        call = call_options(self._link.config, timeout, metadata, request_id)
        response = await self._link.unary(TextServiceStub, "ListModels", pb.ListModelsRequest(), call)
        return decode_models(response)
