"""How credentials reach the wire: call credentials, and the channel's own."""

from __future__ import annotations

import grpc

from deepseek_grpc.auth.sources import TokenSource, current_token
from deepseek_grpc.config import ClientConfig
from deepseek_grpc.errors import ConfigurationError, DeepSeekError
from deepseek_grpc.tls import TLS, is_loopback

__all__ = ["call_credentials", "channel_credentials"]

_HEALTH = "/grpc.health.v1.Health"


class _Plugin(grpc.AuthMetadataPlugin):
    def __init__(self, source: TokenSource) -> None:
        self._source = source

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        if context.service_url.endswith(_HEALTH):  # needs no credential, and must not fail for want of one
            callback((), None)
            return
        try:
            metadata = (("authorization", f"Bearer {current_token(self._source)}"),)
        except DeepSeekError as error:
            callback((), error)  # gRPC turns it into the call's status; a raise would lose the thread
        else:
            callback(metadata, None)


def call_credentials(source: TokenSource) -> grpc.CallCredentials:
    """Makes gRPC call credentials of a token source; they work on every kind of call over a secure or local channel.

    gRPC asks in threads of its own, so that a source may wait there for a token.

    >>> credentials = call_credentials(StaticToken("opaque-token"))
    >>> channel = grpc.secure_channel(
    ...     "gateway.internal:443", grpc.composite_channel_credentials(grpc.ssl_channel_credentials(), credentials)
    ... )
    >>> channel.close()
    """
    return grpc.metadata_call_credentials(_Plugin(source), name="deepseek-grpc-jwt")


def channel_credentials(target: str, config: ClientConfig, source: TokenSource | None) -> grpc.ChannelCredentials:
    """Makes the credentials of a channel to a target.

    Loopback gets local credentials, which carry call credentials without TLS because nothing leaves the machine;
    everything else gets TLS. gRPC Core speaks TLS 1.2 and 1.3, nothing older.

    Raises:
        ConfigurationError: A plain-text channel to another host was asked for, a certificate can't be read or isn't in
            PEM, or the key isn't the certificate's.

    >>> target, config = "dns:///gateway.internal:443", ClientConfig()
    >>> credentials = channel_credentials(target, config, StaticToken("opaque-token"))
    >>> channel = grpc.secure_channel(target, credentials, config.channel_options(target))
    >>> channel.close()
    """
    local = is_loopback(target)
    if config.tls is False and not local:
        raise ConfigurationError(
            f"a plain-text channel to {target!r} is refused: tokens and prompts would cross the network readable. "
            "Leave `tls` unset or give TLS(ca_file=…); plain text is for loopback and Unix sockets only"
        )
    if local and not isinstance(config.tls, TLS) and config.tls is not True:
        kind = grpc.LocalConnectionType.UDS if target.startswith("unix") else grpc.LocalConnectionType.LOCAL_TCP
        credentials = grpc.local_channel_credentials(kind)
    else:
        credentials = _tls(config.tls if isinstance(config.tls, TLS) else TLS())
    if source is None or config.token_delivery == "metadata":
        return credentials
    return grpc.composite_channel_credentials(credentials, call_credentials(source))


def _tls(tls: TLS) -> grpc.ChannelCredentials:
    ca, key, cert = tls.read()
    if ca is not None or cert is not None:
        from deepseek_grpc._pem import pem_problems

        problems = pem_problems(ca_file=tls.ca_file, cert_file=tls.cert_file, key_file=tls.key_file)
        if problems:
            raise ConfigurationError("; ".join(f"TLS.{name}: {problem}" for name, problem in problems.items()))
    return grpc.ssl_channel_credentials(ca, key, cert)
