"""`doctor`, on set-ups that are broken, each in its own way."""

import http.server
import socket
import sys
import threading
import time
from concurrent import futures
from contextlib import contextmanager, nullcontext

import grpc
import jwt
import pytest
from cryptography import x509

from deepseek_grpc import JWTSigner
from deepseek_grpc.cli.doctor.target import TargetError, parse_target, proxy_variable
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.settings import ClientSettings, Settings, TLSSettings
from deepseek_grpc.local import GatewayThread
from deepseek_grpc.testing import FakeServer, ScriptedEngine
from tests.certificates import HOUR, Authority
from tests.cli.running import SECRET, events, finish, run, run_here

CREDENTIAL = {"DEEPSEEK_GRPC_CLIENT_ID": "svc-a", "DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


@contextmanager
def encrypted(certificate, client_ca=None):
    """A gateway with TLS; gives its environment, without the authority."""
    client = ClientSettings("svc-a", SECRET.encode(), roles=("all",))
    tls = TLSSettings(*certificate, client_ca)
    settings = Settings("127.0.0.1:0", clients=(client,), roles={"all": ("*",)}, default_model="fake", tls=tls)
    thread = GatewayThread(lambda: nullcontext(Gateway(settings, backends=[Backend(ScriptedEngine(), ("*",))])), client)
    thread.start()
    try:
        yield CREDENTIAL | {"DEEPSEEK_GRPC_TARGET": thread.target}
    finally:
        thread.stop()


@contextmanager
def bare(certificate):
    """A server with a certificate that a gateway wouldn't start with; gives an environment, without the authority."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    pair = certificate[1].read_bytes(), certificate[0].read_bytes()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        yield CREDENTIAL | {"DEEPSEEK_GRPC_TARGET": f"127.0.0.1:{port}"}
    finally:
        server.stop(None).wait()


@contextmanager
def listening(answer):
    """Answers every connection with some bytes and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def examined(env, *args):
    """Runs `doctor`; returns the exit code and, by check, what was found."""
    done = run_here("doctor", "--json", *args, env=env)
    assert done.stderr == ""
    found = events(done)
    assert all(set(each) == {"type", "check", "status", "detail", "advice", "code"} for each in found)
    assert all(each["advice"] for each in found if each["status"] == "FAIL")
    return done.returncode, {each["check"]: each for each in found}


def the_fault(env, *args):
    """Runs `doctor`, which shall find one fault; returns the exit code and the fault."""
    code, found = examined(env, *args)
    faults = [each for each in found.values() if each["status"] == "FAIL"]
    assert len(faults) == 1
    assert faults[0]["code"] == code
    return code, faults[0]


def test_all_is_well(fake):
    done = run("doctor", env=fake.environ)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["ok"] * len(lines)
    assert [line[6:24].strip() for line in lines] == [
        *("environment", "target", "resolve", "connect", "protocol"),
        *("token", "health", "call", "version", "round trip"),
    ]
    assert "set: DEEPSEEK_GRPC_CLIENT_ID, DEEPSEEK_GRPC_CLIENT_SECRET, DEEPSEEK_GRPC_TARGET" in lines[0]
    assert "of 'test-client', iat 20" in lines[5]
    assert "1 model: fake" in lines[7]
    assert "(n=10)" in lines[9]


def test_all_is_well_over_mutual_tls(authority):
    with encrypted(authority.issue("gateway"), authority.file) as env:
        cert, key = authority.issue("client")
        env["DEEPSEEK_GRPC_CA_FILE"] = str(authority.file)
        code, found = examined(env | {"DEEPSEEK_GRPC_CERT_FILE": str(cert), "DEEPSEEK_GRPC_KEY_FILE": str(key)})
        assert code == 0
        assert found["tls"]["detail"].startswith("TLSv1.3, TLS_")
        assert found["certificate"]["status"] == "warn"  # it has an hour left
        assert found["certificate"]["detail"].startswith("'CN=gateway' by 'CN=authority', is good for '127.0.0.1', ")
        assert found["protocol"]["detail"] == "HTTP/2 over TLS"
        assert found["client certificate"]["detail"] == "asked for, given and accepted"
        assert found["call"]["detail"] == "1 model: fake"


def test_a_client_certificate_that_nobody_wants(authority):
    with encrypted(authority.issue("gateway", until=60 * 24 * HOUR)) as env:
        cert, key = authority.issue("client")
        env["DEEPSEEK_GRPC_CA_FILE"] = str(authority.file)
        code, found = examined(env | {"DEEPSEEK_GRPC_CERT_FILE": str(cert), "DEEPSEEK_GRPC_KEY_FILE": str(key)})
        assert (code, {each["status"] for each in found.values()}) == (0, {"ok"})
        assert "59 days left" in found["certificate"]["detail"]
        assert found["client certificate"]["detail"] == "given, but the gateway needs none"


def test_a_unix_socket(tmp_path):
    with FakeServer(listen=f"unix:{tmp_path}/gw.sock") as fake:
        code, found = examined(fake.environ)
    assert code == 0
    assert found["resolve"]["detail"] == f"a Unix socket: {tmp_path}/gw.sock"
    code, fault = the_fault(fake_environ := CREDENTIAL | {"DEEPSEEK_GRPC_TARGET": f"unix:{tmp_path}/none.sock"})
    assert (code, fault["check"]) == (5, "connect")
    assert fake_environ["DEEPSEEK_GRPC_TARGET"].removeprefix("unix:") in fault["detail"]
    assert "Check the path" in fault["advice"]


# the environment and the target


def test_nothing_is_set():
    code, fault = the_fault({})
    assert (code, fault["check"]) == (2, "settings")
    assert "DEEPSEEK_GRPC_TARGET is not set" in fault["detail"]


def test_half_of_a_pair_and_a_variable_that_nobody_knows():
    env = {"DEEPSEEK_GRPC_TARGET": "127.0.0.1:1", "DEEPSEEK_GRPC_CLIENT_SECRET": SECRET, "DEEPSEEK_GRPC_TOKN": "x"}
    code, found = examined(env)
    assert (code, found["settings"]["status"]) == (2, "FAIL")
    assert "go together" in found["settings"]["detail"]
    assert found["environment"]["status"] == "warn"
    assert "DEEPSEEK_GRPC_TOKN" in found["environment"]["advice"]


@pytest.mark.parametrize(
    "target",
    ["http://gateway.internal:50051", "gw.internal:port", "gw.internal:0", "gw.internal:65536", "a/b:1", "::1"],
)
def test_a_target_of_the_wrong_form(target):
    code, fault = the_fault(CREDENTIAL, "--target", target)
    assert (code, fault["check"]) == (2, "target")


def test_targets_of_every_kind():
    def places(target):
        return [str(place) for place in parse_target(target)]

    assert places("gw.internal") == ["gw.internal:443"]
    assert places("dns:gw.internal:1") == places("dns://8.8.8.8/gw.internal:1") == ["gw.internal:1"]
    assert places("ipv4:10.0.0.1:1,10.0.0.2:2") == ["10.0.0.1:1", "10.0.0.2:2"]
    assert places("ipv6:[::1]:5") == ["[::1]:5"]
    assert places("unix:///run/gw") == places("unix:/run/gw") == ["/run/gw"]
    assert places("unix-abstract:gw") == ["@gw"]
    with pytest.raises(TargetError, match="no host and port"):
        parse_target("")


def test_files_that_are_no_certificates(tmp_path):
    (tmp_path / "junk").write_text("junk")
    files = {"DEEPSEEK_GRPC_CA_FILE": str(tmp_path / "junk"), "DEEPSEEK_GRPC_TARGET": "127.0.0.1:1"}
    code, fault = the_fault(CREDENTIAL | files)
    assert (code, fault["check"]) == (2, "files")
    assert "DEEPSEEK_GRPC_CA_FILE: " in fault["detail"]
    assert "holds no certificate" in fault["detail"]


def test_a_proxy_is_named_and_never_what_the_variable_holds():
    assert proxy_variable("gw.internal:1", {"https_proxy": "http://user:canary@proxy:1"}) == "https_proxy"
    assert proxy_variable("127.0.0.1:1", {"https_proxy": "http://proxy:1"}) == ""
    env = CREDENTIAL | {"DEEPSEEK_GRPC_TARGET": "gateway.invalid:1", "https_proxy": "http://user:canary@127.0.0.1:1"}
    code, found = examined(env)
    assert (code, found["health"]["status"], found["proxy"]["status"]) == (5, "FAIL", "warn")
    assert "canary" not in str(found)


@pytest.mark.parametrize(
    ("env", "target", "proxied"),
    [
        ({"no_proxy": "example.test"}, "example.test:443", False),
        ({"no_proxy": "a.test, .EXAMPLE.test"}, "dns:///gw.example.test:443", False),
        ({"no_proxy": ".example.test"}, "example.test:443", False),
        ({"no_proxy": "ample.test"}, "example.test:443", True),
        ({"no_proxy": " "}, "example.test:443", True),
        ({"no_proxy": "other.test,,*"}, "example.test:443", True),
        ({"no_proxy": "example.test", "no_grpc_proxy": ""}, "example.test:443", True),
        ({"no_grpc_proxy": "example.test", "no_proxy": "x"}, "example.test:443", False),
        ({"no_proxy": "10.1.0.0/16"}, "10.1.2.3:443", False),
        ({"no_proxy": "10.1.0.0/16,fd00::/x"}, "ipv6:[fd00::1]:443", True),
        ({"no_proxy": "10.0.0.1"}, "ipv4:10.0.0.1:1,10.0.0.2:1", True),
        ({"grpc_proxy": ""}, "example.test:443", False),
        ({"grpc_proxy": "socks5://proxy:1"}, "example.test:443", False),
    ],
)
def test_what_does_not_go_through_a_proxy(env, target, proxied):
    assert proxy_variable(target, {"https_proxy": "http://proxy:1"} | env) == ("https_proxy" if proxied else "")


def test_no_proxy_leaves_the_way_to_be_looked_at():
    env = CREDENTIAL | {"https_proxy": "http://127.0.0.1:1", "no_proxy": "gateway.invalid"}
    code, fault = the_fault(env, "--target", "gateway.invalid:443")
    assert (code, fault["check"]) == (5, "resolve")


# the way


def test_a_name_that_does_not_resolve():
    code, fault = the_fault(CREDENTIAL, "--target", "gateway.invalid:443")
    assert (code, fault["check"]) == (5, "resolve")
    assert "'gateway.invalid' doesn't resolve" in fault["detail"]


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code, fault = the_fault(CREDENTIAL, "--target", f"127.0.0.1:{port}")
    assert (code, fault["check"]) == (5, "connect")
    assert f"127.0.0.1:{port}: nobody listens there (connection refused)" in fault["detail"]


@pytest.mark.parametrize("address", ["reached", "refused"])
def test_one_of_two_addresses(fake, address):
    target = f"ipv4:127.0.0.1:1,{fake.target}" if address == "reached" else "ipv4:127.0.0.1:1,127.0.0.1:2"
    code, found = examined(CREDENTIAL, "--target", target)
    assert found["connect"]["status"] == ("warn" if address == "reached" else "FAIL")
    assert "127.0.0.1:1: nobody listens" in found["connect"]["detail"]
    assert code != 0


class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(404)

    def log_message(self, *args):
        pass


def test_a_web_server(authority):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        target = f"127.0.0.1:{server.server_port}"
        code, fault = the_fault(CREDENTIAL, "--target", target)
        assert (code, fault["check"]) == (5, "protocol")
        assert "a web server that speaks HTTP/1" in fault["detail"]
        code, fault = the_fault(CREDENTIAL | {"DEEPSEEK_GRPC_CA_FILE": str(authority.file)}, "--target", target)
        assert (code, fault["check"]) == (5, "tls")
        assert "speaks no TLS" in fault["detail"]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [(b"", "closes the connection"), (b"+PONG\r\n", "no gRPC"), (b"SSH-2.0-OpenSSH_9\r\n", "no gRPC")],
)
def test_something_else_that_listens(answer, says):
    with listening(answer) as target:
        code, fault = the_fault(CREDENTIAL, "--target", target)
    assert (code, fault["check"]) == (5, "protocol")
    assert says in fault["detail"]


# TLS


def test_plain_text_to_a_port_with_tls(authority):
    with encrypted(authority.issue("gateway")) as env:
        code, fault = the_fault(env)
    assert (code, fault["check"]) == (5, "protocol")
    assert "speaks TLS" in fault["detail"]
    assert "DEEPSEEK_GRPC_CA_FILE" in fault["advice"]


def test_an_expired_certificate(authority):
    with bare(authority.issue("expired", since=-3 * HOUR, until=-2 * HOUR)) as env:
        code, fault = the_fault(env | {"DEEPSEEK_GRPC_CA_FILE": str(authority.file)})
    assert (code, fault["check"]) == (5, "certificate")
    assert "'CN=expired' by 'CN=authority' expired 2 h ago" in fault["detail"]


def test_a_certificate_of_tomorrow(authority):
    with bare(authority.issue("early", since=24 * HOUR, until=48 * HOUR)) as env:
        code, fault = the_fault(env | {"DEEPSEEK_GRPC_CA_FILE": str(authority.file)})
    assert (code, fault["check"]) == (5, "certificate")
    assert "is valid from 20" in fault["detail"]


def test_an_unknown_authority(authority, tmp_path):
    with encrypted(authority.issue("gateway")) as env:
        code, fault = the_fault(env | {"DEEPSEEK_GRPC_CA_FILE": str(Authority(tmp_path, "stranger").file)})
    assert (code, fault["check"]) == (5, "certificate")
    assert "'CN=gateway' by 'CN=authority' is of an authority that isn't trusted here" in fault["detail"]


def test_another_host_name(authority):
    with encrypted(authority.issue("other", x509.DNSName("gw.internal"))) as env:
        code, fault = the_fault(env | {"DEEPSEEK_GRPC_CA_FILE": str(authority.file)})
    assert (code, fault["check"]) == (5, "certificate")
    assert "is not for '127.0.0.1', but for gw.internal" in fault["detail"]


def test_no_client_certificate_where_one_is_wanted(authority, tmp_path):
    with encrypted(authority.issue("gateway"), authority.file) as env:
        env["DEEPSEEK_GRPC_CA_FILE"] = str(authority.file)
        code, fault = the_fault(env)
        assert (code, fault["check"]) == (5, "client certificate")
        assert "wants a client certificate, and none is set" in fault["detail"]
        cert, key = Authority(tmp_path, "stranger").issue("intruder")
        env |= {"DEEPSEEK_GRPC_CERT_FILE": str(cert), "DEEPSEEK_GRPC_KEY_FILE": str(key)}
        code, fault = the_fault(env)
        assert (code, fault["check"]) == (5, "client certificate")
        assert "refuses this client's certificate" in fault["detail"]


# the gateway


def test_a_gateway_that_does_not_serve():
    with FakeServer() as fake:
        fake.set_serving(False)
        code, fault = the_fault(fake.environ)
    assert (code, fault["check"]) == (1, "health")
    assert "is NOT_SERVING" in fault["detail"]


def test_no_credential(fake):
    code, found = examined({"DEEPSEEK_GRPC_TARGET": fake.target})
    assert (code, found["token"]["status"], found["call"]["status"]) == (3, "warn", "FAIL")
    assert found["round trip"]["status"] == "ok"
    assert "no credential is set" in found["call"]["detail"]
    assert "clock" not in str(found["call"])
    assert "DEEPSEEK_GRPC_CLIENT_ID and DEEPSEEK_GRPC_CLIENT_SECRET, or DEEPSEEK_GRPC_TOKEN" in found["call"]["advice"]


def test_a_token_endpoint_that_gives_none(fake):
    with listening(b"") as address:
        url = {"DEEPSEEK_GRPC_TOKEN_URL": f"http://{address}/token"}
        code, found = examined(CREDENTIAL | url, "--target", fake.target)
    assert (code, found["token"]["status"], found["health"]["status"]) == (3, "FAIL", "ok")
    assert list(found).index("token") < list(found).index("health")
    assert "call" not in found


def test_a_wrong_secret(fake):
    code, fault = the_fault(fake.environ | {"DEEPSEEK_GRPC_CLIENT_SECRET": SECRET})
    assert (code, fault["check"]) == (3, "call")
    assert "both clocks agree" in fault["detail"]
    assert "its secret" in fault["advice"]


def token_of(fake, *, shift):
    return JWTSigner(fake.client_id, fake.client_secret, lifetime=900, clock=lambda: time.time() + shift).token()


def test_an_expired_token(fake):
    token = token_of(fake, shift=-4500)
    code, fault = the_fault({"DEEPSEEK_GRPC_TARGET": fake.target, "DEEPSEEK_GRPC_TOKEN": token})
    assert (code, fault["check"]) == (3, "token")
    assert "expired 36" in fault["detail"]
    assert token not in str(fault)


def test_a_token_of_a_machine_whose_clock_is_ahead(fake):
    token = token_of(fake, shift=600)
    code, fault = the_fault({"DEEPSEEK_GRPC_TARGET": fake.target, "DEEPSEEK_GRPC_TOKEN": token})
    assert (code, fault["check"]) == (3, "call")
    assert "s in the future by the gateway's clock" in fault["detail"]


def token_with(fake, **claims):
    """A token that is signed by a stranger."""
    return {"DEEPSEEK_GRPC_TARGET": fake.target, "DEEPSEEK_GRPC_TOKEN": jwt.encode({"iss": "svc-a", **claims}, SECRET)}


def test_a_token_of_somebody_else(fake):
    now = int(time.time())
    code, fault = the_fault(token_with(fake, iat=now, exp=now + 900))
    assert (code, fault["check"]) == (3, "call")
    assert "the token is in its time" in fault["detail"]
    assert "signature, issuer and audience" in fault["advice"]
    _, fault = the_fault(token_with(fake, iat=now, nbf=now + 600, exp=now + 900))
    assert "isn't good for another" in fault["detail"]
    _, fault = the_fault(token_with(fake, iat=now))
    assert "says no time at which it expires" in fault["detail"]


def test_a_token_that_is_no_jwt(fake):
    code, found = examined({"DEEPSEEK_GRPC_TARGET": fake.target, "DEEPSEEK_GRPC_TOKEN": "canary-opaque"})
    assert (code, found["call"]["status"]) == (3, "FAIL")
    assert "isn't a JWT" in found["token"]["detail"]
    assert "can't be looked into" in found["call"]["detail"]
    assert "clock" not in str(found["call"])
    assert "secret" not in str(found["call"])
    assert "canary" not in str(found)


def test_a_clock_that_is_off(fake):
    script = (
        "import time; now = time.time; time.time = lambda: now() + 600; "
        "from deepseek_grpc.cli.app import run; raise SystemExit(run(['doctor']))"
    )
    done = finish([sys.executable, "-c", script], env=fake.environ)
    assert done.returncode == 3
    (fault,) = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert "this machine's clock is 6" in fault
    assert "s ahead of the gateway's" in fault
    assert "Set this machine's clock." in done.stdout


def test_a_missing_permission():
    with FakeServer(permissions=("text.generate",)) as fake:
        code, fault = the_fault(fake.environ)
    assert (code, fault["check"]) == (3, "call")
    assert "lacks the permission 'text.models'" in fault["detail"]
