"""What an answer took, and where it came from. Both directions."""

from __future__ import annotations

from deepseek_grpc.types import Upstream, Usage
from deepseek_rpc.v2 import common_pb2

__all__ = ["decode_upstream", "decode_usage", "encode_upstream", "encode_usage"]


def decode_usage(usage: common_pb2.Usage) -> Usage:
    """Makes a Usage of the contract's."""
    has = usage.HasField
    return Usage(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        usage.prompt_cache_hit_tokens if has("prompt_cache_hit_tokens") else None,
        usage.prompt_cache_miss_tokens if has("prompt_cache_miss_tokens") else None,
        usage.reasoning_tokens if has("reasoning_tokens") else None,
        usage.extra_json,
    )


def encode_usage(usage: Usage, out: common_pb2.Usage) -> None:
    """Fills in the contract's."""
    out.prompt_tokens = usage.prompt_tokens
    out.completion_tokens = usage.completion_tokens
    out.total_tokens = usage.total_tokens
    if usage.prompt_cache_hit_tokens is not None:
        out.prompt_cache_hit_tokens = usage.prompt_cache_hit_tokens
    if usage.prompt_cache_miss_tokens is not None:
        out.prompt_cache_miss_tokens = usage.prompt_cache_miss_tokens
    if usage.reasoning_tokens is not None:
        out.reasoning_tokens = usage.reasoning_tokens
    if usage.extra_json:
        out.extra_json = usage.extra_json


def decode_upstream(upstream: common_pb2.Upstream) -> Upstream:
    """Makes an Upstream of the contract's."""
    return Upstream(upstream.backend, upstream.request_id, upstream.attempts, upstream.gateway_ms, upstream.cache_hit)


def encode_upstream(upstream: Upstream, out: common_pb2.Upstream) -> None:
    """Fills in the contract's."""
    out.backend = upstream.backend
    out.request_id = upstream.request_id
    out.attempts = upstream.attempts
    out.gateway_ms = upstream.gateway_ms
    out.cache_hit = upstream.cache_hit
