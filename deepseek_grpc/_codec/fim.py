"""What is asked of a completion between a prompt and a suffix: requests from arguments, and back into `types`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypedDict

from deepseek_grpc._codec.checks import MAX_REQUEST_BYTES, check_complete, invalid
from deepseek_grpc._codec.message import several_of, text_of
from deepseek_grpc._codec.values import INT32, INT64, boolean, integer, json_text, number, unknown_option
from deepseek_grpc.types import FimRequest
from deepseek_rpc.v2 import text_pb2 as pb

__all__ = ["CompleteOptions", "decode_complete", "encode_complete"]


class CompleteOptions(TypedDict, total=False):
    """The options of a completion; each may be left out, and None means the same as leaving it out."""

    model: str | None
    """The model's id or alias; the gateway's default model if not given."""
    max_tokens: int | None
    """The most tokens to generate, at least 1."""
    temperature: float | None
    """0 to 2; 0 takes the likeliest token."""
    top_p: float | None
    """Above 0, at most 1."""
    stop: str | Sequence[str] | None
    """Up to 16 strings that end the completion and aren't part of it."""
    frequency_penalty: float | None
    """-2 to 2."""
    presence_penalty: float | None
    """-2 to 2."""
    seed: int | None
    """Makes sampling repeatable where the backend can; 64 bits, signed."""
    echo: bool | None
    """Whether the answer starts with the prompt."""
    logprobs: int | None
    """Returns log probabilities, with 0 to 20 alternatives for each token."""
    user_id: str | None
    """The end user, for abuse detection; at most 512 bytes."""
    extra: Mapping[str, Any] | None
    """Fields for the backend that have no name here."""


_FIELDS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "model": text_of,
    "max_tokens": partial(integer, limits=INT32),
    "temperature": number,
    "top_p": number,
    "frequency_penalty": number,
    "presence_penalty": number,
    "seed": partial(integer, limits=INT64),
    "echo": boolean,
    "logprobs": partial(integer, limits=INT32),
    "user_id": text_of,
}


def encode_complete(
    prompt: str,
    *,
    request_id: str,
    max_bytes: int = MAX_REQUEST_BYTES,
    suffix: str | None = None,
    stop: str | Sequence[str] | None = None,
    extra: Mapping[str, Any] | None = None,
    **options: Any,
) -> pb.CompleteFimRequest:
    """Makes a checked request, of at most `max_bytes`, of the arguments of `complete` and `stream_complete`.

    Raises:
        TypeError: There is no such option.
        InvalidRequestError: A field is wrong; `field` names it.
        RequestTooLargeError: The request is larger than a message may be.
    """
    request = pb.CompleteFimRequest(request_id=request_id)
    request.prompt = text_of("prompt", prompt)
    if suffix is not None:
        request.suffix = text_of("suffix", suffix)
    for name, value in options.items():
        field = _FIELDS.get(name)
        if field is None:
            raise unknown_option(name, CompleteOptions, "complete and stream_complete")
        if value is not None:
            setattr(request, name, field(name, value))
    if stop is not None:
        stops = (stop,) if isinstance(stop, str) else several_of("stop", stop, "text or several")
        request.stop.extend(text_of(f"stop[{index}]", text) for index, text in enumerate(stops))
    if extra is not None:
        if not isinstance(extra, Mapping):
            raise invalid("extra", f"is a {type(extra).__name__}; give an object, as a mapping")
        request.extra_json = json_text("extra", extra)
    check_complete(request, max_bytes)
    return request


def decode_complete(request: pb.CompleteFimRequest, model: str = "") -> FimRequest:
    """Makes of a checked request what engines take, for a model: absent fields None."""
    has = request.HasField
    return FimRequest(
        prompt=request.prompt,
        suffix=request.suffix,
        request_id=request.request_id,
        model=model or request.model,
        max_tokens=request.max_tokens if has("max_tokens") else None,
        temperature=request.temperature if has("temperature") else None,
        top_p=request.top_p if has("top_p") else None,
        stop=tuple(request.stop),
        frequency_penalty=request.frequency_penalty if has("frequency_penalty") else None,
        presence_penalty=request.presence_penalty if has("presence_penalty") else None,
        seed=request.seed if has("seed") else None,
        echo=request.echo,
        logprobs=request.logprobs if has("logprobs") else None,
        user_id=request.user_id,
        extra_json=request.extra_json,
    )
