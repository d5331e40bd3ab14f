"""How a client behaves: timeouts, retries, keepalive, TLS. Frozen, and rendered into gRPC's options in one place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any, Final, Literal, Protocol, TypedDict

from deepseek_grpc._value import Value, value
from deepseek_grpc.errors import ConfigurationError
from deepseek_grpc.telemetry import Observer
from deepseek_grpc.tls import TLS, is_loopback
from deepseek_grpc.types import UNSET, Unset

__all__ = [
    "API_VERSION",
    "ENVIRONMENT",
    "ClientConfig",
    "ClientOptions",
    "Keepalive",
    "Retry",
    "Timeouts",
    "client_config",
]

API_VERSION: Final = "2.3.1"
"""The SemVer version of the API that this package speaks, sent as `x-api-version`."""

ENVIRONMENT: Final = (
    *("DEEPSEEK_GRPC_TARGET", "DEEPSEEK_GRPC_CLIENT_ID", "DEEPSEEK_GRPC_CLIENT_SECRET", "DEEPSEEK_GRPC_TOKEN"),
    *("DEEPSEEK_GRPC_TOKEN_URL", "DEEPSEEK_GRPC_SCOPE"),
    *("DEEPSEEK_GRPC_CA_FILE", "DEEPSEEK_GRPC_CERT_FILE", "DEEPSEEK_GRPC_KEY_FILE"),
)
"""The environment variables that `Client.from_env` reads."""

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""The default limit of one message, both ways and at both ends."""

_RETRIED: Final = {
    # Named one by one: `Session` resumes instead, because a retried bidirectional call replays every buffered write.
    "deepseek_rpc.v2.TextService": (
        "Generate",
        "StreamGenerate",
        "CompleteFim",
        "StreamFim",
        "ListModels",
        "GetBalance",
    ),
}


_LIMITS: Final = ("connect", "first_token", "idle", "total")


class _Deadlined(Protocol):
    """What a servicer's context has: the seconds that are left of the call's deadline, or None."""

    def time_remaining(self) -> float | None:
        """Returns them."""


@value
class Timeouts(Value):
    """The limits of a call, in seconds. None means no limit; what is not given comes from the client's configuration.

    >>> Timeouts(first_token=2, total=None).over(Timeouts.defaults())
    Timeouts(connect=5.0, first_token=2, idle=30.0, total=None)
    """

    connect: float | Unset | None = UNSET
    """Until a connection stands: a property of the channel, so it counts in the client's configuration only.
    Default 5. With retries on, expect the error a little later."""
    first_token: float | Unset | None = UNSET
    """From the start of a stream to its first content, while the program waits for it. Default 30."""
    idle: float | Unset | None = UNSET
    """Between pieces of content (text, reasoning and tool deltas; keep-alives don't count), while the program waits for
    the next. Default 30."""
    total: float | Unset | None = UNSET
    """The whole call, retries included. It is the RPC's deadline and travels to the gateway and its upstream.
    Default 600."""

    def __post_init__(self) -> None:
        for name in _LIMITS:
            limit = getattr(self, name)
            if limit is None or limit is UNSET:
                continue
            if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 <= limit < 1e9:
                raise ConfigurationError(
                    f"Timeouts.{name} is {limit!r}; give seconds from 0 to 1e9, or None for no limit"
                )

    @classmethod
    def defaults(cls) -> Timeouts:
        """Returns the defaults, each field set."""
        return cls(connect=5.0, first_token=30.0, idle=30.0, total=600.0)

    @classmethod
    def from_context(cls, context: _Deadlined) -> Timeouts:
        """Returns limits that inherit the deadline of a call that this program is answering itself.

        What is left of it becomes the total; a call without a deadline leaves the client's own. Takes the context of a
        servicer of grpc or grpc.aio.

        Example:
            >>> def example(client: Client, context: grpc.ServicerContext) -> str:
            ...     return client.text.generate("Hi", timeout=Timeouts.from_context(context)).text
        """
        remaining = context.time_remaining()
        return cls() if remaining is None else cls(total=min(max(remaining, 0.0), 999_999_999.0))

    def over(self, base: Timeouts) -> Timeouts:
        """Returns these limits with those of `base` where none is given here."""
        given = {name: limit for name in _LIMITS if (limit := getattr(self, name)) is not UNSET}
        return replace(base, **given) if given else base


def _within(name: str, number: Any, low: float, high: float, *, whole: bool = False) -> None:
    kinds = int if whole else (int, float)
    if isinstance(number, bool) or not isinstance(number, kinds) or not low <= number <= high:
        raise ConfigurationError(f"{name} is {number!r}; give {'an integer from ' if whole else ''}{low:g} to {high:g}")


@value
class Retry(Value):
    """How gRPC retries calls that failed before an answer began (gRFC A6, by service config).

    UNAVAILABLE and RESOURCE_EXHAUSTED are retried; a pushback from the gateway overrides the back-off.
    """

    attempts: int = 4
    """Tries in all, the first included: 1 (no retries) to 5 (gRPC's own limit)."""
    initial_backoff: float = 0.1
    """Seconds before the first retry, at least 0.05 (gRPC Core 1.85 can stall on shorter ones)."""
    max_backoff: float = 2.0
    """Seconds, at most."""
    multiplier: float = 2.0
    """How the back-off grows."""
    max_tokens: int = 100
    """The retry budget of a channel: each failure takes one token, each success gives `token_ratio` back, and below
    half of the budget nothing is retried."""
    token_ratio: float = 0.1
    """See `max_tokens`."""
    buffer_bytes: int = 4 * 1024 * 1024
    """Requests up to this size can be retried (gRPC's own default is 256 KiB, and larger ones silently are not)."""

    def __post_init__(self) -> None:
        # A service config that gRPC can't parse fails every call, so nothing that it refuses gets there.
        _within("Retry.attempts", self.attempts, 1, 5, whole=True)
        _within("Retry.max_backoff", self.max_backoff, 0.05, 3600)
        _within("Retry.initial_backoff", self.initial_backoff, 0.05, self.max_backoff)
        _within("Retry.multiplier", self.multiplier, 1, 100)
        _within("Retry.max_tokens", self.max_tokens, 1, 1000, whole=True)
        _within("Retry.token_ratio", self.token_ratio, 0.001, 1000)
        _within("Retry.buffer_bytes", self.buffer_bytes, 0, 2**31 - 1, whole=True)


@value
class Keepalive(Value):
    """Pings that notice a dead connection while a call is open."""

    interval: float = 2.0
    """Seconds between pings. The gateway permits one a second; other servers may answer GOAWAY too_many_pings."""
    timeout: float = 3.0
    """Seconds without an answer until the connection counts as dead."""

    def __post_init__(self) -> None:
        _within("Keepalive.interval", self.interval, 0.01, 1e6)
        _within("Keepalive.timeout", self.timeout, 0.01, 1e6)


class _Metadata(Mapping[str, str]):
    """Metadata that nobody can change any more: a copy of what was given, which pickles and hashes."""

    __slots__ = ("_pairs",)

    def __init__(self, given: Mapping[str, str]) -> None:
        self._pairs = dict(given)

    def __getitem__(self, key: str) -> str:
        return self._pairs[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __hash__(self) -> int:
        return hash(frozenset(self._pairs.items()))

    def __repr__(self) -> str:
        return repr(self._pairs)


@value
class ClientConfig(Value):
    """Everything about a client that isn't its target and credential.

    >>> ClientConfig(retry=Retry(attempts=1)).retry.attempts
    1
    """

    timeouts: Timeouts = field(default_factory=Timeouts)
    """Limits for every call; a call can override each."""
    retry: Retry = field(default_factory=Retry)
    keepalive: Keepalive = field(default_factory=Keepalive)
    tls: TLS | bool | Unset = UNSET
    """By default loopback and Unix sockets use gRPC's local credentials and everything else TLS with the system's
    authorities. `True` or a `TLS` forces TLS; `False` is refused for anything but loopback."""
    token_delivery: Literal["call", "metadata"] = "call"
    """`call`: the token goes as gRPC call credentials. `metadata`: it is attached where calls are made, at about half
    the CPU, over the same secure channels only."""
    metadata: Mapping[str, str] = field(default_factory=lambda: _Metadata({}))
    """Sent with every call; copied, so that a change to what was given changes nothing here."""
    wait_for_ready: bool = False
    """Whether calls wait for a connection (until their deadline) instead of failing at once while there is none."""
    max_concurrency: int | None = None
    """How many calls and streams of the client are under way at a time, None for any number; the others wait for their
    turn, within their total time. An async client counts for each event loop. Sessions don't count."""
    connections: int = 1
    """How many connections the client opens to each gateway, 1 to 1,000; calls, streams and sessions go where there is
    least to do. One carries 100 streams at a time, one of which watches the gateway's health, and no more bytes than a
    TCP connection can. An async client counts for each event loop."""
    on_interrupt: Literal["continue", "raise"] = "continue"
    """What happens to a streamed generation that was cut off after content had come, and can't be had any more.
    `continue`: the model is asked to go on with the text so far, where that is safe; what it says anew is billed again.
    `raise`: StreamInterruptedError, with the text so far in `partial`."""
    reconnect_seconds: float = 20.0
    """How long a session that has lost its connection tries to get it back, before its turns raise."""
    observers: Sequence[Observer] = ()
    """Told of every call's start and end, for example `AuditLog("api_calls.log")`."""
    max_message_bytes: int = MAX_MESSAGE_BYTES
    """The limit of one message, both ways; a request may have 64 KiB less. The gateway has a limit of its own."""
    reconnect_backoff: tuple[float, float] = (0.1, 1.0)
    """Seconds before the first attempt to reconnect, and at most."""

    def __post_init__(self) -> None:
        for name, kind in _PARTS.items():
            part = getattr(self, name)
            if not isinstance(part, kind):
                # What the part holds may be secret (a path, a header); its type says enough.
                hint = ", for example Timeouts(total=5)" if name == "timeouts" else ""
                raise ConfigurationError(f"{name} is a {type(part).__name__}; give a {kind.__name__}{hint}")
        if not isinstance(self.tls, TLS | bool | Unset):
            raise ConfigurationError(f"tls is a {type(self.tls).__name__}; give TLS(ca_file=…), True or False")
        if self.token_delivery not in ("call", "metadata"):
            raise ConfigurationError(f"token_delivery is {self.token_delivery!r}; give 'call' or 'metadata'")
        if self.max_concurrency is not None:
            _within("max_concurrency", self.max_concurrency, 1, 2**31 - 1, whole=True)
        _within("connections", self.connections, 1, 1000, whole=True)
        if self.on_interrupt not in ("continue", "raise"):
            raise ConfigurationError(f"on_interrupt is {self.on_interrupt!r}; give 'continue' or 'raise'")
        _within("reconnect_seconds", self.reconnect_seconds, 0, 1e6)
        object.__setattr__(self, "observers", _observers(self.observers))
        _within("max_message_bytes", self.max_message_bytes, 1, 2**31 - 1, whole=True)
        if not isinstance(self.reconnect_backoff, tuple | list) or len(self.reconnect_backoff) != 2:
            raise ConfigurationError(f"reconnect_backoff is {self.reconnect_backoff!r}; give two numbers of seconds")
        first, most = self.reconnect_backoff
        _within("reconnect_backoff[1]", most, 0.001, 1e6)
        _within("reconnect_backoff[0]", first, 0.001, most)
        if not isinstance(self.metadata, _Metadata):
            object.__setattr__(self, "metadata", _Metadata(self.metadata))
        object.__setattr__(self, "reconnect_backoff", (first, most))  # hashable, whatever was given
        # Resolved once, here: every call starts from these.
        object.__setattr__(self, "timeouts", self.timeouts.over(Timeouts.defaults()))

    def channel_options(self, target: str = "") -> list[tuple[str, Any]]:
        """Renders gRPC's channel arguments; for a loopback target, no proxy of the environment's stands between."""
        first, most = self.reconnect_backoff
        options: list[tuple[str, Any]] = [
            ("grpc.service_config", self.service_config()),
            ("grpc.enable_retries", 1),
            ("grpc.per_rpc_retry_buffer_size", self.retry.buffer_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.keepalive_time_ms", round(self.keepalive.interval * 1000)),
            # keepalive_timeout_ms below 60 s has no effect in gRPC Core; the ping timeout does what its name says.
            ("grpc.http2.ping_timeout_ms", round(self.keepalive.timeout * 1000)),
            ("grpc.keepalive_permit_without_calls", 0),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", round(first * 1000)),
            ("grpc.max_reconnect_backoff_ms", round(most * 1000)),
            # Sync streams without a thread of their own per call: half the CPU a message. Ignored by grpc.aio.
            ("SingleThreadedUnaryStream", 1),
            ("grpc.primary_user_agent", f"deepseek-grpc/{API_VERSION}"),
        ]
        if self.connections > 1:
            # Channels with equal arguments would share one connection.
            options.append(("grpc.use_local_subchannel_pool", 1))
        connect = self.timeouts.connect
        if isinstance(connect, int | float):
            # The time that one attempt to connect may take is gRPC's minimum reconnect back-off.
            options.append(("grpc.min_reconnect_backoff_ms", max(1, round(connect * 1000))))
        if isinstance(self.tls, TLS) and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        if is_loopback(target):
            # gRPC takes `http_proxy` for every target; a proxy elsewhere can't reach this machine's loopback.
            options.append(("grpc.enable_http_proxy", 0))
        return options

    def service_config(self) -> str:
        """Renders gRPC's service config as JSON (gRFC A2): balancing, health checking, retries by method name."""
        import json

        config: dict[str, Any] = {
            "loadBalancingConfig": [{"round_robin": {}}],
            "healthCheckConfig": {"serviceName": ""},
        }
        if self.retry.attempts > 1:
            config["methodConfig"] = [
                {
                    "name": [
                        {"service": service, "method": method}
                        for service, methods in _RETRIED.items()
                        for method in methods
                    ],
                    "retryPolicy": {
                        "maxAttempts": self.retry.attempts,
                        "initialBackoff": f"{self.retry.initial_backoff:.3f}s",
                        "maxBackoff": f"{self.retry.max_backoff:.3f}s",
                        "backoffMultiplier": self.retry.multiplier,
                        "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
                    },
                }
            ]
            config["retryThrottling"] = {
                "maxTokens": self.retry.max_tokens,
                "tokenRatio": round(self.retry.token_ratio, 3),  # gRPC reads no more digits
            }
        return json.dumps(config)


def _observers(given: Sequence[Observer]) -> tuple[Observer, ...]:
    if not isinstance(given, Sequence) or not all(
        isinstance(observer, Observer) and not isinstance(observer, type) for observer in given
    ):
        raise ConfigurationError(
            "observers has something else than observers; give for example [AuditLog('calls.log')]"
        )
    return tuple(given)


class ClientOptions(TypedDict, total=False):
    """ClientConfig's fields, as `Client` and `AsyncClient` take them by name."""

    timeouts: Timeouts
    retry: Retry
    keepalive: Keepalive
    tls: TLS | bool
    token_delivery: Literal["call", "metadata"]
    metadata: Mapping[str, str]
    wait_for_ready: bool
    max_concurrency: int | None
    connections: int
    on_interrupt: Literal["continue", "raise"]
    reconnect_seconds: float
    observers: Sequence[Observer]
    max_message_bytes: int
    reconnect_backoff: tuple[float, float]


def client_config(config: ClientConfig | None, options: ClientOptions) -> ClientConfig:
    """Returns a client's configuration, with some of its fields given by name.

    Raises:
        ConfigurationError: A value is wrong.
        TypeError: There is no such field.
    """
    if config is None:
        return ClientConfig(**options)
    if not isinstance(config, ClientConfig):
        raise ConfigurationError(f"config is a {type(config).__name__}; give a ClientConfig")
    return replace(config, **options) if options else config


_PARTS: Final[dict[str, type]] = {
    "timeouts": Timeouts,
    "retry": Retry,
    "keepalive": Keepalive,
    "metadata": Mapping,
    "wait_for_ready": bool,
}
