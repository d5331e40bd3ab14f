"""The checks in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from deepseek_grpc.cli.doctor.calls import Examined, check_call, check_health, check_round_trips, check_token
from deepseek_grpc.cli.doctor.certificates import check_files, check_tls
from deepseek_grpc.cli.doctor.finding import Finding, fail, misconfigured, ok, warn
from deepseek_grpc.cli.doctor.network import check_plain, reach, resolve
from deepseek_grpc.cli.doctor.target import Place, TargetError, parse_target, proxy_variable
from deepseek_grpc.config import ENVIRONMENT
from deepseek_grpc.errors import ConfigurationError
from deepseek_grpc.tls import TLS, is_loopback

__all__ = ["examine"]

_PREFIX: Final = "DEEPSEEK_GRPC_"


def examine(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yields what each check finds; ends early where the next ones could only repeat a failure."""
    yield _environment(environ)
    tls = TLS(
        environ.get(f"{_PREFIX}CA_FILE") or None,
        *(environ.get(f"{_PREFIX}{name}") or None for name in ("CERT_FILE", "KEY_FILE"))
        if environ.get(f"{_PREFIX}CERT_FILE") and environ.get(f"{_PREFIX}KEY_FILE")
        else (),
    )
    if (found := check_files(tls)) is not None:
        yield found
        if found.status == "FAIL":
            return
    target = environ.get(f"{_PREFIX}TARGET", "")
    try:
        client = Examined.from_env(environ)
        places = parse_target(target)
    except ConfigurationError as error:
        yield fail("settings", error)
        return
    except TargetError as error:
        yield misconfigured("target", str(error), "Give HOST:PORT, dns:///HOST:PORT or unix:PATH.")
        return
    with client:
        for found in _way(target, places, tls, environ):
            yield found
            if found.status == "FAIL":
                return
        token, claims = check_token(client)
        yield token
        found = check_health(client)
        yield found
        if found.status == "FAIL":
            return
        if token.status != "FAIL":
            yield from check_call(client, claims)
        yield check_round_trips(client)


def _environment(environ: Mapping[str, str]) -> Finding:
    """Says which variables are set, never what they hold."""
    names = sorted(name for name in environ if name.startswith(_PREFIX) and environ[name])
    listed = f"set: {', '.join(names)}" if names else f"no variable {_PREFIX}… is set"
    unknown = [name for name in names if name not in ENVIRONMENT]
    if unknown:
        return warn("environment", listed, f"The client knows nothing of {', '.join(unknown)}.")
    return ok("environment", listed)


def _way(target: str, places: list[Place], tls: TLS, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Follows the way to the gateway, up to where gRPC takes over."""
    encrypted = not is_loopback(target) or tls != TLS()
    yield ok("target", f"{target}, {'with TLS' if encrypted else 'in plain text'}")
    if proxy := proxy_variable(target, environ):
        yield warn("proxy", f"gRPC goes through the proxy of {proxy}, so that the way isn't looked at from here")
        return
    found, places_found = resolve(places)
    yield found
    found, place = reach(places_found) if places_found else (found, None)
    if place is None:
        if found.check != "resolve":
            yield found
        return
    yield found
    if encrypted:
        yield from check_tls(place, places[0].host, tls)
    else:
        yield check_plain(place)
