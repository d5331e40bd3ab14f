import copy
import dataclasses
import json
import math
import pickle
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepseek_grpc.audit import AuditLog
from deepseek_grpc.auth import StaticToken, channel_credentials
from deepseek_grpc.config import API_VERSION, ClientConfig, Keepalive, Retry, Timeouts
from deepseek_grpc.errors import ConfigurationError
from deepseek_grpc.tls import TLS, is_loopback
from deepseek_grpc.types import UNSET
from deepseek_rpc.v2 import data_pb2, fine_tune_pb2, text_pb2

LIMITS = ["connect", "first_token", "idle", "total"]


# Timeouts


def test_the_defaults():
    assert ClientConfig().timeouts == Timeouts.defaults() == Timeouts(connect=5, first_token=30, idle=30, total=600)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, 1e9, "5", True, [5]])
def test_a_limit_is_seconds_or_none(limit, value):
    with pytest.raises(ConfigurationError, match=rf"Timeouts\.{limit} is .*give seconds") as caught:
        Timeouts(**{limit: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("value", [0, 0.001, 5, 999_999_999, None])
def test_none_and_zero_are_limits_of_their_own(limit, value):
    assert getattr(ClientConfig(timeouts=Timeouts(**{limit: value})).timeouts, limit) == value


VALUE = st.sampled_from([UNSET, None, 0, 0.5, 7])


@given(st.tuples(*[VALUE] * 4), st.tuples(*[VALUE] * 4))
def test_what_is_given_wins_and_the_rest_stays(mine, base):
    merged = Timeouts(*mine).over(Timeouts(*base))
    assert [getattr(merged, n) for n in LIMITS] == [b if m is UNSET else m for m, b in zip(mine, base, strict=True)]


def test_a_config_is_frozen_and_resolved_once():
    config = ClientConfig(timeouts=Timeouts(total=7))
    assert config.timeouts == Timeouts(connect=5, first_token=30, idle=30, total=7)
    with pytest.raises(AttributeError):
        config.tls = False
    assert dataclasses.replace(config, wait_for_ready=True).timeouts == config.timeouts


# What gRPC is told


METHODS = {
    service.full_name: {method.name: method for method in service.methods}
    for module in (text_pb2, data_pb2, fine_tune_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
}


def service_config(config=None):
    return json.loads((config or ClientConfig()).service_config())


def retried():
    return [(name["service"], name["method"]) for m in service_config()["methodConfig"] for name in m["name"]]


def test_retries_are_for_methods_that_exist():
    assert [pair for pair in retried() if pair[1] not in METHODS.get(pair[0], {})] == []


def test_every_call_of_the_text_service_is_retried_except_the_session():
    text = METHODS["deepseek_rpc.v2.TextService"]
    assert {method for _, method in retried()} == set(text) - {"Session"}
    assert not [method for _, method in retried() if text[method].client_streaming]


def test_the_retry_policy_is_what_it_says():
    [method] = service_config(ClientConfig(retry=Retry(5, 0.25, 8, 1.5, 50, 0.25)))["methodConfig"]
    assert method["retryPolicy"] == {
        "maxAttempts": 5,
        "initialBackoff": "0.250s",
        "maxBackoff": "8.000s",
        "backoffMultiplier": 1.5,
        "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
    }
    assert "timeout" not in method  # it fires early and the server never hears of it


def test_retries_are_throttled():
    config = service_config(ClientConfig(retry=Retry(max_tokens=50, token_ratio=0.25)))
    assert config["retryThrottling"] == {"maxTokens": 50, "tokenRatio": 0.25}


def test_one_attempt_means_no_retries():
    assert service_config(ClientConfig(retry=Retry(attempts=1))).keys().isdisjoint({"methodConfig", "retryThrottling"})


def test_balancing_goes_round_among_the_healthy():
    config = service_config()
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
    assert config["healthCheckConfig"] == {"serviceName": ""}


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"attempts": 6},
        {"attempts": 2.5},
        {"initial_backoff": 0.001},  # gRPC Core can stall on it
        {"initial_backoff": 0},
        {"initial_backoff": 3.0},  # more than max_backoff
        {"initial_backoff": math.nan},
        {"max_backoff": math.inf},
        {"multiplier": 0.5},
        {"multiplier": math.inf},
        {"max_tokens": 0},
        {"max_tokens": 1001},
        {"token_ratio": 0},
        {"token_ratio": 0.0001},
        {"buffer_bytes": -1},
    ],
)
def test_a_retry_that_grpc_would_refuse_is_refused_first(wrong):
    [name] = wrong
    with pytest.raises(ConfigurationError, match=rf"Retry\.{name} is "):
        Retry(**wrong)


@given(
    st.builds(
        Retry,
        st.integers(1, 5),
        st.floats(0.05, 2),
        st.floats(2, 3600),
        st.floats(1, 100),
        st.integers(1, 1000),
        st.floats(0.001, 1000),
    )
)
def test_every_retry_that_is_allowed_is_json_that_grpc_reads(retry):
    def refuse(constant):
        raise AssertionError(constant)

    config = json.loads(ClientConfig(retry=retry).service_config(), parse_constant=refuse)
    policy = config.get("methodConfig", [{}])[0].get("retryPolicy")
    if policy:
        assert 0.05 <= float(policy["initialBackoff"][:-1]) <= float(policy["maxBackoff"][:-1])
        assert len(policy["initialBackoff"].partition(".")[2]) == 4  # milliseconds and the unit
        ratio = config["retryThrottling"]["tokenRatio"]
        assert ratio == round(ratio, 3) > 0


def test_the_channel_options():
    options = ClientConfig().channel_options()
    found = dict(options)
    assert len(found) == len(options)
    assert found["grpc.enable_retries"] == 1
    assert found["grpc.per_rpc_retry_buffer_size"] == 4 * 1024 * 1024
    assert found["grpc.max_send_message_length"] == found["grpc.max_receive_message_length"] == 16 * 1024 * 1024
    assert (found["grpc.keepalive_time_ms"], found["grpc.http2.ping_timeout_ms"]) == (2000, 3000)
    assert found["grpc.min_reconnect_backoff_ms"] == 5000
    assert (found["grpc.initial_reconnect_backoff_ms"], found["grpc.max_reconnect_backoff_ms"]) == (100, 1000)
    assert API_VERSION in found["grpc.primary_user_agent"]
    assert "grpc.http2.bdp_probe" not in found  # off, it would hide a dead connection for 25 s
    assert "grpc.keepalive_timeout_ms" not in found  # has no effect below a minute


def test_the_channel_options_follow_the_config():
    config = ClientConfig(
        timeouts=Timeouts(connect=0.25),
        retry=Retry(buffer_bytes=1),
        keepalive=Keepalive(interval=20, timeout=0.5),
        max_message_bytes=1000,
        reconnect_backoff=(0.2, 3),
        tls=TLS(server_name="gateway.internal"),
    )
    found = dict(config.channel_options())
    assert found["grpc.min_reconnect_backoff_ms"] == 250
    assert found["grpc.per_rpc_retry_buffer_size"] == 1
    assert (found["grpc.keepalive_time_ms"], found["grpc.http2.ping_timeout_ms"]) == (20_000, 500)
    assert found["grpc.max_send_message_length"] == found["grpc.max_receive_message_length"] == 1000
    assert (found["grpc.initial_reconnect_backoff_ms"], found["grpc.max_reconnect_backoff_ms"]) == (200, 3000)
    assert found["grpc.ssl_target_name_override"] == "gateway.internal"


def test_several_connections_are_not_one_that_is_shared():
    name = "grpc.use_local_subchannel_pool"
    assert name not in dict(ClientConfig().channel_options())
    assert dict(ClientConfig(connections=2).channel_options())[name] == 1


@pytest.mark.parametrize("wrong", [0, -1, 1001, 1.5, "many", True, None])
def test_connections_are_counted_from_one_to_a_thousand(wrong):
    with pytest.raises(ConfigurationError, match=r"^connections is ") as caught:
        ClientConfig(connections=wrong)
    assert repr(wrong) in str(caught.value)
    assert ClientConfig(connections=1000).connections == 1000


def test_no_connect_timeout_leaves_grpcs_own():
    assert "grpc.min_reconnect_backoff_ms" not in dict(ClientConfig(timeouts=Timeouts(connect=None)).channel_options())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Keepalive(interval=0),
        lambda: Keepalive(interval=math.nan),
        lambda: Keepalive(timeout=-1),
        lambda: Keepalive(timeout=math.inf),
        lambda: ClientConfig(token_delivery="header"),
        lambda: ClientConfig(max_message_bytes=0),
        lambda: ClientConfig(max_message_bytes=2**31),
        lambda: ClientConfig(max_message_bytes=1.5),
        lambda: ClientConfig(reconnect_backoff=(2, 1)),
        lambda: ClientConfig(reconnect_backoff=(0, 1)),
        lambda: TLS(cert_file="a.pem"),
        lambda: TLS(key_file="a.pem"),
        lambda: TLS(server_name=5),
        lambda: TLS(server_name=""),
        lambda: ClientConfig(observers=[AuditLog]),
        lambda: ClientConfig(reconnect_backoff=1),
        lambda: ClientConfig(reconnect_backoff=(1, 2, 3)),
    ],
)
def test_a_config_that_makes_no_sense_is_refused_where_it_is_written(make):
    with pytest.raises(ConfigurationError):
        make()


@pytest.mark.parametrize(
    ("name", "wrong", "hint"),
    [
        ("timeouts", 5, "Timeouts(total="),
        ("timeouts", None, "Timeouts"),
        ("retry", None, "Retry"),
        ("retry", 3, "Retry"),
        ("keepalive", 20, "Keepalive"),
        ("tls", "/x/ca.pem", "TLS(ca_file="),
        ("tls", None, "TLS(ca_file="),
        ("metadata", ["x-team"], "Mapping"),
        ("wait_for_ready", "yes", "bool"),
    ],
)
def test_a_part_of_another_kind_is_named_with_what_to_give(name, wrong, hint):
    with pytest.raises(ConfigurationError, match=f"^{name} is a ") as caught:
        ClientConfig(**{name: wrong})
    assert hint in str(caught.value)


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file"])
def test_a_certificate_is_named_by_its_path(name):
    with pytest.raises(ConfigurationError, match=rf"TLS\.{name} is a bytes"):
        TLS(**{name: b"-----BEGIN"})


@pytest.mark.parametrize("target", ["127.0.0.1:1", "unix:/run/gw.sock", "dns:///localhost:1"])
def test_nothing_stands_between_a_client_and_its_own_machine(target):
    assert dict(ClientConfig().channel_options(target))["grpc.enable_http_proxy"] == 0


@pytest.mark.parametrize("target", ["", "gw.internal:443"])
def test_a_proxy_may_stand_before_another_host(target):
    assert "grpc.enable_http_proxy" not in dict(ClientConfig().channel_options(target))


CONFIGS = [ClientConfig(), ClientConfig(metadata={"x-team": "a"}, tls=TLS("ca.pem"), retry=Retry(attempts=1))]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_is_a_value(config):
    for twin in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), copy.copy(config), replace(config)):
        assert twin == config
        assert hash(twin) == hash(config)
        assert twin.channel_options() == config.channel_options()
    parts = asdict(config)
    assert parts["metadata"] == config.metadata
    assert parts["timeouts"]["connect"] == 5
    assert len({*CONFIGS, config}) == len(CONFIGS)


def test_a_config_keeps_a_copy_of_its_metadata():
    mine = {"x-team": "a"}
    config = ClientConfig(metadata=mine)
    mine["x-team"] = "b"
    assert config.metadata == {"x-team": "a"}
    assert repr(config.metadata) == "{'x-team': 'a'}"
    with pytest.raises(TypeError):
        config.metadata["x-team"] = "c"


def test_tls_reads_its_files_and_names_the_one_it_cannot(tmp_path):
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_bytes(name.encode())
    tls = TLS(tmp_path / "ca", str(tmp_path / "cert"), tmp_path / "key")
    assert tls.read() == (b"ca", b"key", b"cert")
    assert TLS().read() == (None, None, None)
    with pytest.raises(ConfigurationError, match=r"TLS\.ca_file.*missing\.pem.*No such file"):
        TLS(tmp_path / "missing.pem").read()


# Where plain text may go


@pytest.mark.parametrize(
    "target",
    [
        "localhost",
        "localhost:443",
        "127.0.0.1:1",
        "127.1.2.3:1",
        "dns:127.0.0.1:1",
        "dns:///127.0.0.1:1",
        "dns:///localhost:1",
        "ipv4:127.0.0.1:1",
        "[::1]:1",
        "dns:///[::1]:1",
        "ipv6:[::1]:1",
        "unix:/run/gw.sock",
        "unix:///run/gw.sock",
        "unix:gw.sock",
        "unix-abstract:gw",
    ],
)
def test_loopback(target):
    assert is_loopback(target)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "127.0.0.1.evil.com:443",
        "localhost.evil.com:443",
        "dns:///localhost.evil.com:443",
        "127.0.0.1@evil.com:443",
        "evil.com/127.0.0.1",
        "evil.com:443/127.0.0.1:1",
        "dns://evil.com/localhost:443",  # evil.com's name server says where that is
        "ipv4:127.0.0.1:1,10.0.0.1:1",
        "ipv4:10.0.0.1:1,127.0.0.1:1",
        "ipv6:[::1]:1,[2001:db8::1]:1",
        "127.0.0.1:1\n",
        "127.0.0.1:1\nevil.com",
        "127.0.0.1:port",
        "http://127.0.0.1:1",
        "xds:///localhost",
        "0.0.0.0:443",
        "[::]:443",
        "10.0.0.1:443",
        "128.0.0.1:1",
        "[2001:db8::1]:1",
        "gateway.internal:443",
        "unixes.com:443",
    ],
)
def test_not_loopback_or_not_surely(target):
    assert not is_loopback(target)


@pytest.mark.parametrize("target", ["gw.internal:443", "127.0.0.1.evil.com:443", "10.0.0.1:1"])
@pytest.mark.parametrize("delivery", ["call", "metadata"])
def test_plain_text_to_another_host_is_refused(target, delivery):
    config = ClientConfig(tls=False, token_delivery=delivery)
    with pytest.raises(ConfigurationError, match="plain-text") as caught:
        channel_credentials(target, config, StaticToken("hidden-token"))
    assert repr(target) in str(caught.value)
    assert "hidden-token" not in str(caught.value)


@pytest.mark.parametrize("target", ["127.0.0.1:1", "unix:/run/gw.sock", "gw.internal:443"])
@pytest.mark.parametrize("source", [None, StaticToken("t")])
@pytest.mark.parametrize("delivery", ["call", "metadata"])
def test_everywhere_else_there_are_credentials(target, source, delivery):
    assert channel_credentials(target, ClientConfig(token_delivery=delivery), source)


class Context:
    """A servicer's context as far as a deadline goes."""

    def __init__(self, remaining):
        self._remaining = remaining

    def time_remaining(self):
        return self._remaining


@pytest.mark.parametrize(
    ("remaining", "total"),
    [(None, 600.0), (2.5, 2.5), (0, 0), (-1.0, 0), (1e12, 999_999_999.0)],
    ids=["no deadline", "some time", "none", "overdue", "for ever"],
)
def test_an_inbound_calls_deadline_is_inherited(remaining, total):
    limits = Timeouts.from_context(Context(remaining)).over(Timeouts.defaults())
    assert (limits.total, limits.idle) == (total, 30.0)
