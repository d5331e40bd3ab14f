# Mirrored by scripts/unasync.py from deepseek_grpc/_async/client.py: edit that and run `make sync`.
"""The client."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import Never, Self, Unpack, cast

from deepseek_grpc._call import Timeout, call_options, check_metadata
from deepseek_grpc._sync.text import Text
from deepseek_grpc._transport import sync as transport
from deepseek_grpc.auth import Secret, TokenSource, token_source
from deepseek_grpc.config import ENVIRONMENT, ClientConfig, ClientOptions, client_config
from deepseek_grpc.errors import ConfigurationError, NotFoundError, UnimplementedError
from deepseek_grpc.tls import TLS
from deepseek_grpc.types import UNSET, HealthStatus

__all__ = ["Client"]


class Client:
    """Talks to a gateway from any thread.

    The channel is made at the first call and shared by all that follow; make one client for a program's life and close
    it at the end.

    Args:
        target: Where the gateway is, as gRPC names it: `dns:///gw.internal:443`, `127.0.0.1:50051`, `unix:/gw.sock`.
        credentials: A token source such as `JWTSigner`, a token as text, or None for gateways that ask for none.
        config: Everything else.
        **options: Single fields of the configuration, in the place of the config's: `max_concurrency=64`.

    Raises:
        ConfigurationError: An argument is of the wrong kind, plain text was asked for to another host, a certificate
            can't be read.

    Example:
        >>> def main() -> None:
        ...     with Client.from_env() as client:
        ...         answer = client.text.generate("Say hi", max_tokens=64)
        ...         print(answer.text)
    """

    def __init__(
        self,
        target: str,
        *,
        credentials: TokenSource | str | Secret | None = None,
        config: ClientConfig | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        if not isinstance(target, str) or not target or any(c.isspace() for c in target):
            raise ConfigurationError(f"target is {target!r}; give for example 'dns:///gateway.internal:443'")
        source = token_source(credentials)
        config = client_config(config, options)
        check_metadata(config.metadata)
        self._link = transport.Link(target, config, source)

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        config: ClientConfig | None = None,
        **options: Unpack[ClientOptions],
    ) -> Self:
        """Makes a client of environment variables.

        `DEEPSEEK_GRPC_TARGET` is required; `DEEPSEEK_GRPC_CLIENT_ID` and `_CLIENT_SECRET` sign tokens, or fetch them
        where `_TOKEN_URL` is set, with `_SCOPE` or without (OAuth 2.0); or `DEEPSEEK_GRPC_TOKEN` is one; `_CA_FILE`,
        `_CERT_FILE` and `_KEY_FILE` are for TLS to the gateway.

        Raises:
            ConfigurationError: A variable is missing, half of a pair is, or there are two credentials.

        Example:
            >>> def example() -> None:
            ...     with Client.from_env(timeouts=Timeouts(total=60)) as client:
            ...         print((client.text.generate("Say hi")).text)
        """
        env = os.environ if environ is None else environ
        value = {name.removeprefix("DEEPSEEK_GRPC_"): env.get(name, "") for name in ENVIRONMENT}
        if not value["TARGET"]:
            raise ConfigurationError("DEEPSEEK_GRPC_TARGET is not set; give for example 'dns:///gateway.internal:443'")
        if bool(value["CLIENT_ID"]) != bool(value["CLIENT_SECRET"]):
            raise ConfigurationError(
                "DEEPSEEK_GRPC_CLIENT_ID and DEEPSEEK_GRPC_CLIENT_SECRET go together: set both or neither"
            )
        if bool(value["CERT_FILE"]) != bool(value["KEY_FILE"]):
            raise ConfigurationError(
                "DEEPSEEK_GRPC_CERT_FILE and DEEPSEEK_GRPC_KEY_FILE go together: set both or neither"
            )
        if value["TOKEN"] and value["CLIENT_ID"]:
            raise ConfigurationError("DEEPSEEK_GRPC_TOKEN and DEEPSEEK_GRPC_CLIENT_ID are both set; give one")
        config = client_config(config, options)
        if config.tls is UNSET and (value["CA_FILE"] or value["CERT_FILE"]):
            tls = TLS(value["CA_FILE"] or None, value["CERT_FILE"] or None, value["KEY_FILE"] or None)
            config = replace(config, tls=tls)
        return cls(value["TARGET"], credentials=_credentials(value), config=config)

    @cached_property
    def text(self) -> Text:
        """Text generation."""
        return Text(self._link)

    def warm(self, *, timeout: Timeout = 5.0) -> None:
        """Gets a token and connects, so that the first call doesn't have to.

        Raises:
            AuthenticationError: There is no token to be had.
            ConnectError: There is no gateway.
            DeadlineExceededError: It took too long.

        Example:
            >>> def example(client: Client) -> None:
            ...     client.warm()
        """
        self._link.fetch(call_options(self._link.config, timeout))
        with suppress(NotFoundError, UnimplementedError):  # a server without health, but a server
            self.health(timeout=timeout)

    def health(self, service: str = "", *, timeout: Timeout = 5.0) -> HealthStatus:
        """Asks grpc.health.v1 for a service's health; the empty name stands for the gateway as a whole.

        Health needs no credential, so the client's isn't asked for.

        Raises:
            NotFoundError: The gateway doesn't know the service.
            ConnectError: There is no gateway.

        Example:
            >>> def example(client: Client) -> bool:
            ...     return client.health() == "SERVING"
        """
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        call = call_options(self._link.config, timeout)
        try:
            response = self._link.unary(
                health_pb2_grpc.HealthStub,
                "Check",
                health_pb2.HealthCheckRequest(service=service),
                call,
                credential=False,
            )
        except NotFoundError as error:
            raise NotFoundError(
                f"the gateway doesn't know the service {service!r}",
                request_id=call.request_id,
                attempts=error.attempts,
                advice="The empty name asks about the gateway as a whole.",
            ) from error
        return cast(HealthStatus, health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))

    def close(self) -> None:
        """Closes the channel; what is under way ends in ClosedError.

        Example:
            >>> def example() -> None:
            ...     client = Client.from_env()
            ...     try:
            ...         print((client.text.generate("Say hi")).text)
            ...     finally:
            ...         client.close()
        """
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> Never:
        raise TypeError(
            "a client can't be pickled: its connection and credential belong to this process; "
            "make one in each process, for example with from_env()"
        )

    def __repr__(self) -> str:
        return f"Client({self._link.target!r})"


def _credentials(value: Mapping[str, str]) -> TokenSource | str | None:
    if value["TOKEN_URL"]:
        if not value["CLIENT_ID"]:
            raise ConfigurationError(
                "DEEPSEEK_GRPC_TOKEN_URL is set; set DEEPSEEK_GRPC_CLIENT_ID and DEEPSEEK_GRPC_CLIENT_SECRET too"
            )
        from deepseek_grpc.auth import OAuth2ClientCredentials

        return OAuth2ClientCredentials(
            value["TOKEN_URL"], value["CLIENT_ID"], value["CLIENT_SECRET"], scope=value["SCOPE"] or None
        )
    if value["SCOPE"]:
        raise ConfigurationError("DEEPSEEK_GRPC_SCOPE is for DEEPSEEK_GRPC_TOKEN_URL; set both or neither")
    if value["CLIENT_ID"]:
        from deepseek_grpc.auth import JWTSigner

        return JWTSigner(value["CLIENT_ID"], value["CLIENT_SECRET"])
    return value["TOKEN"] or None
