import re
import traceback
from pathlib import Path

import pytest

from deepseek_grpc.auth import Secret
from deepseek_grpc.errors import ConfigurationError
from deepseek_grpc.gateway.settings import (
    EMBEDDED_MODEL,
    BackendSettings,
    ClientSettings,
    JWKSSettings,
    Settings,
    TLSSettings,
    development,
)
from deepseek_grpc.gateway.settings_file import load

from .keys import SECRET, pair

CLIENT = '[[clients]]\nid = "a"\n'
GOOD_CLIENT = f'{CLIENT}secret_file = "svc-a.secret"\n'
EXAMPLE = """
[gateway]
listen = "0.0.0.0:8443"
default_model = "deepseek-chat"
audience = "prod"
drain_seconds = 10
resume_seconds = 5

[[backends]]
name = "small"
dialect = "embedded"
models = ["embedded-*", "tiny"]
pace = 20

[[backends]]
dialect = "embedded"

[aliases]
"deepseek-chat" = "embedded-ngram"

[[clients]]
id = "svc-a"
secret_file = "svc-a.secret"
tenant = "team-a"
roles = ["writer", "reader"]

[[clients]]
id = "svc-b"
public_key_file = "keys/svc-b.pem"
algorithm = "ES256"

[[clients]]
id = "svc-c"
secret_env = "SVC_C_SECRET"

[roles]
writer = ["text.*", "data.analyze"]
reader = ["*"]

[tls]
cert_file = "tls/cert.pem"
key_file = "tls/key.pem"
client_ca_file = "tls/ca.pem"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with what the example names; the program runs elsewhere."""
    folder = tmp_path / "etc"
    for name in ("keys", "tls"):
        (folder / name).mkdir(parents=True)
    (folder / "svc-a.secret").write_text(f"{SECRET}\n")
    (folder / "keys" / "svc-b.pem").write_bytes(pair("ES256")[1])
    for name in ("cert", "key", "ca"):
        (folder / "tls" / f"{name}.pem").write_text(name)
    monkeypatch.chdir(tmp_path)
    return folder


def read(folder, text, **environ):
    path = folder / "gateway.toml"
    path.write_text(text)
    return load(path, environ)


def lines(folder, text, **environ):
    """Returns what is wrong with a file: the line, or None, and the rest of the sentence."""
    with pytest.raises(ConfigurationError) as caught:
        read(folder, text, **environ)
    form = re.compile(re.escape(str(folder / "gateway.toml")) + r"(?::(\d+))?: (.*)")
    found = [form.fullmatch(line).groups() for line in caught.value.details.splitlines()]
    return [(None if line is None else int(line), rest) for line, rest in found]


def problems(folder, text, **environ):
    """Returns what is wrong with a file, a line for each, without the place before it."""
    return [rest for _, rest in lines(folder, text, **environ)]


def test_the_example(folder):
    assert read(folder, EXAMPLE, SVC_C_SECRET=SECRET) == Settings(
        listen="0.0.0.0:8443",
        backends=(
            BackendSettings("small", "embedded", ("embedded-*", "tiny"), 20.0),
            BackendSettings("embedded", "embedded", (EMBEDDED_MODEL,), None),
        ),
        aliases={"deepseek-chat": "embedded-ngram"},
        default_model="deepseek-chat",
        clients=(
            ClientSettings("svc-a", SECRET.encode(), "HS256", "team-a", ("writer", "reader")),
            ClientSettings("svc-b", pair("ES256")[1].strip(), "ES256", "default", ()),
            ClientSettings("svc-c", SECRET.encode(), "HS256", "default", ()),
        ),
        roles={"writer": ("text.*", "data.analyze"), "reader": ("*",)},
        tls=TLSSettings(*(folder / "tls" / f"{name}.pem" for name in ("cert", "key", "ca"))),
        audience="prod",
        drain_seconds=10.0,
        resume_seconds=5.0,
    )


def test_what_a_file_leaves_out_is_the_default(folder):
    client = ClientSettings("a", SECRET.encode())
    assert read(folder, GOOD_CLIENT) == Settings(clients=(client,))
    assert Settings().listen == "127.0.0.1:50051"


@pytest.mark.parametrize("text", ["", "[gateway]\nlisten = 'unix:/tmp/gw.sock'", "clients = []"])
def test_a_gateway_that_nobody_could_call_does_not_start(folder, text):
    assert problems(folder, text) == ["clients: there is none, so nobody could call; give [[clients]]"]


def test_what_does_not_fit_together_is_said_with_the_rest(folder):
    found = problems(
        folder,
        """
        [gateway]
        listen = "127.0.0.1:99999"
        default_model = "large"
        workers = 4
        [[backends]]
        models = ["small-*"]
        [aliases]
        good = "small-1"
        chained = "good"
        typo = "smal-1"
        number = 1
        [roles]
        writer = ["text.generat", "text.*", "txt.*", "data.read", "*"]
        """,
    )
    assert [line.partition(":")[0] for line in found] == [
        "gateway.listen",
        "gateway.default_model",
        "gateway.workers",
        "aliases.chained",
        "aliases.typo",
        "aliases.number",
        "roles.writer",
        "roles.writer",
        "clients",
    ]
    text = "\n".join(found)
    assert "gateway.default_model: no backend serves 'large'" in text
    assert "aliases.chained: no backend serves 'good'" in text
    assert "'text.generat' is no permission" in text
    assert "'txt.*' is no permission" in text
    assert "text.balance, text.complete, text.generate, text.models, text.session" in text
    assert "the port of '127.0.0.1:99999' is too large; ports end at 65535" in text


def test_everything_that_is_wrong_is_said_at_once(folder):
    found = problems(
        folder,
        """
        speed = 11
        [gateway]
        listen = "0.0.0.0:8443"
        workers = 4
        drain_seconds = "long"
        [[backends]]
        dialect = "smoke-signals"
        [[clients]]
        id = "svc-a"
        secret_file = "missing.secret"
        roles = ["pilot"]
        [[clients]]
        secret_env = "NOT_SET"
        [roles]
        writer = ["write everything"]
        """,
    )
    assert [line.partition(":")[0] for line in found] == [
        "speed",
        "gateway.listen",
        "gateway.workers",
        "gateway.drain_seconds",
        "backends[0].dialect",
        "clients[0].secret_file",
        "clients[0].roles",
        "clients[1].id",
        "clients[1].secret_env",
        "roles.writer",
    ]
    text = "\n".join(found)
    assert "known are gateway, backends" in text
    assert "smoke-signals" in text
    assert "missing.secret" in text
    assert "No such file" in text
    assert "'pilot'" in text
    assert "[tls]" in text


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("gateway = 1", "gateway", "table"),
        ("[gateway]\nlisten = 5", "gateway.listen", "string"),
        ('[gateway]\nlisten = ""', "gateway.listen", "string"),
        ("[gateway]\ndrain_seconds = 0", "gateway.drain_seconds", "positive"),
        ("[gateway]\ndrain_seconds = nan", "gateway.drain_seconds", "positive"),
        ("[gateway]\ndrain_seconds = inf", "gateway.drain_seconds", "positive"),
        (f"[gateway]\ndrain_seconds = 1{'0' * 400}", "gateway.drain_seconds", "positive"),
        ("[gateway]\ndrain_seconds = true", "gateway.drain_seconds", "positive"),
        ("[gateway]\nresume_seconds = -1", "gateway.resume_seconds", "positive"),
        ("backends = 1", "backends", "[[backends]]"),
        ("backends = []", "backends", "at least one"),
        ("backends = [1]", "backends", "[[backends]]"),
        ("[[backends]]\nspeed = 1", "backends[0].speed", "unknown key"),
        ("[[backends]]\npace = -1", "backends[0].pace", "positive"),
        ('[[backends]]\nmodels = "x"', "backends[0].models", "list"),
        ("[[backends]]\nmodels = [1]", "backends[0].models", "list"),
        ("[aliases]\na = 1", "aliases.a", "string"),
        ('[gateway]\ndefault_model = "x"', "gateway.default_model", "no backend serves 'x'"),
        ('[gateway]\ndefault_model = 1\n[[backends]]\nmodels = ["x"]', "gateway.default_model", "string"),
        ('[aliases]\na = "b"', "aliases.a", "no backend serves 'b'"),
        ('[roles]\nr = "text.*"', "roles.r", "list"),
        ('[roles]\nr = ["text"]', "roles.r", "one of *, data.*, data.analyze"),
        ('[roles]\nr = ["*.generate"]', "roles.r", "one of *, data.*, data.analyze"),
        ('[[clients]]\nid = ""\nsecret_file = "svc-a.secret"', "clients[0].id", "empty"),
        (CLIENT, "clients[0]", "one of secret_file, secret_env, public_key_file"),
        (f'{CLIENT}secret_file = "svc-a.secret"\nsecret_env = "X"', "clients[0]", "one of"),
        (f"{CLIENT}secret_env = 5", "clients[0].secret_env", "string"),
        (f'{CLIENT}secret_file = "short"', "clients[0].secret_file", "5 bytes; HS256 needs at least 32"),
        (f'{CLIENT}secret_file = "empty"', "clients[0].secret_file", "empty"),
        (f'{CLIENT}secret_file = "keys/svc-b.pem"', "clients[0].secret_file", "PEM or SSH"),
        (f'{CLIENT}secret_file = "keys"', "clients[0].secret_file", "directory"),
        (f'{CLIENT}secret_file = "a\\u0000b"', "clients[0].secret_file", "cannot read"),
        (f'{CLIENT}secret_file = "svc-a.secret"\nalgorithm = "RS256"', "clients[0].algorithm", "give HS256"),
        (f'{CLIENT}secret_file = "svc-a.secret"\nalgorithm = "none"', "clients[0].algorithm", "give HS256"),
        (f'{CLIENT}public_key_file = "keys/svc-b.pem"\nalgorithm = "HS256"', "clients[0].algorithm", "ES256"),
        (f'{CLIENT}public_key_file = "keys/svc-b.pem"', "clients[0].algorithm", "RS256 or ES256 or EdDSA"),
        (f'{CLIENT}public_key_file = "keys/svc-b.pem"\nalgorithm = "EdDSA"', "clients[0].public_key_file", "EdDSA"),
        (f'{CLIENT}public_key_file = "svc-a.secret"\nalgorithm = "RS256"', "clients[0].public_key_file", "RS256"),
        (f'{CLIENT}secret_file = "svc-a.secret"\n' * 2, "clients[1].id", "'a' is there twice"),
        ('[tls]\ncert_file = "tls/cert.pem"', "tls.key_file", "missing"),
        ('[tls]\ncert_file = "tls/none.pem"\nkey_file = "tls/key.pem"', "tls.cert_file", "No such file"),
        ('[tls]\ncert_file = 1\nkey_file = "tls/key.pem"', "tls.cert_file", "string"),
    ],
)
def test_each_problem_has_its_key(folder, text, key, says):
    (folder / "short").write_text("12345")
    (folder / "empty").write_text("\n")
    [line] = problems(folder, text if "[[clients]]" in text else f"{text}\n{GOOD_CLIENT}")
    assert line.startswith(f"{key}: ")
    assert says in line


def test_each_problem_has_its_line(folder):
    found = lines(
        folder,
        """# a gateway
[gateway]
listn = "127.0.0.1:0"
"drain_seconds" = 0

[roles]
writer = [
    "text.generate",
    "text.generat",
]

[[clients]]
id = "a"
secret_file = "svc-a.secret"
rolls = ["writer"]
roles = ["reader"]

[[clients]]
id = "a"
secret_env = "X"

[[clients]]
tenant = "t"
secret_file = "svc-a.secret"
""",
        X="short",
    )
    assert [(line, what.partition(":")[0]) for line, what in found] == [
        (3, "gateway.listn"),
        (4, "gateway.drain_seconds"),
        (7, "roles.writer"),
        (15, "clients[0].rolls"),
        (16, "clients[0].roles"),
        (19, "clients[1].id"),
        (20, "clients[1].secret_env"),
        (22, "clients[2].id"),
    ]
    text = dict(found)
    assert "did you mean listen?" in text[3]
    assert "did you mean text.generate?" in text[7]
    assert "did you mean roles?" in text[15]


def test_a_syntax_error_has_its_line(folder):
    path = folder / "gateway.toml"
    path.write_text("[gateway]\nlisten = \n")
    with pytest.raises(ConfigurationError, match=r"is no TOML: .*line 2"):
        load(path)


def test_a_table_that_is_nested_too_deep(folder):
    path = folder / "gateway.toml"
    path.write_text(f"x = {'[' * 20000}")
    with pytest.raises(ConfigurationError, match="is no TOML"):
        load(path)


def test_a_number_that_cannot_be_written(folder):
    [line] = problems(folder, f"[gateway]\ndrain_seconds = 0x{'f' * 5000}\n{GOOD_CLIENT}")
    assert line == "gateway.drain_seconds: is a huge number; give a positive number"


# Clients of an issuer

JWKS = f"""{CLIENT}jwks_url = "https://idp.example/keys"
issuer = "https://idp.example/"
algorithms = ["RS256", "EdDSA"]
"""


def test_a_client_of_an_issuer(folder):
    [client] = read(folder, f'{JWKS}roles = ["r"]\n[roles]\nr = ["*"]').clients
    jwks = JWKSSettings("https://idp.example/keys", "https://idp.example/", ("RS256", "EdDSA"))
    assert client == ClientSettings("a", roles=("r",), jwks=jwks)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/k", "http://[::1]/k", "http://localhost/k", "HTTPS://x/k"])
def test_plain_http_is_for_this_machine(folder, url):
    assert read(folder, JWKS.replace("https://idp.example/keys", url)).clients[0].jwks.url == url


@pytest.mark.parametrize(
    ("old", "new", "key", "says"),
    [
        ("https://idp.example/keys", "http://idp.example/keys", "jwks_url", "isn't https"),
        ("https://idp.example/keys", "ftp://idp.example/keys", "jwks_url", "no address of a key set"),
        ("https://idp.example/keys", "file:///etc/passwd", "jwks_url", "no address of a key set"),
        ("https://idp.example/keys", "idp.example", "jwks_url", "no address of a key set"),
        ("https://idp.example/keys", "https://me:secret@idp.example/", "jwks_url", "no address of a key set"),
        ("https://idp.example/keys", "https://[", "jwks_url", "no address of a key set"),
        ("https://idp.example/keys", "https://x:99999/", "jwks_url", "no address of a key set"),
        ("https://idp.example/keys", "https://x/\\ny", "jwks_url", "no address of a key set"),
        ('issuer = "https://idp.example/"', "", "issuer", "missing"),
        ('issuer = "https://idp.example/"', "issuer = 1", "issuer", "string"),
        ('algorithms = ["RS256", "EdDSA"]', "", "algorithms", "pin one or more of RS256, ES256, EdDSA"),
        ('["RS256", "EdDSA"]', "[]", "algorithms", "pin one or more"),
        ('["RS256", "EdDSA"]', '["HS256"]', "algorithms", "pin one or more"),
        ('["RS256", "EdDSA"]', '["RS256", "none"]', "algorithms", "pin one or more"),
        ('["RS256", "EdDSA"]', '"RS256"', "algorithms", "list"),
        ("algorithms =", 'algorithm = "RS256"\nalgorithms =', "algorithm", "doesn't go with jwks_url"),
    ],
)
def test_what_is_wrong_with_an_issuer(folder, old, new, key, says):
    assert old in JWKS
    [line] = problems(folder, JWKS.replace(old, new))
    assert line.startswith(f"clients[0].{key}: ")
    assert says in line
    assert "secret" not in line


def test_clients_of_one_issuer_agree(folder):
    other = JWKS.replace('id = "a"', 'id = "b"')
    assert len(read(folder, JWKS + other).clients) == 2
    [line] = problems(folder, JWKS + other.replace("/keys", "/other"))
    assert line == "clients[1].jwks_url: 'https://idp.example/' has another key set, or other algorithms"


def test_no_client_is_called_like_an_issuer(folder):
    own = GOOD_CLIENT.replace('"a"', '"https://idp.example/"')
    [line] = problems(folder, own + JWKS)
    assert line.startswith("clients[0].id: 'https://idp.example/' is also the issuer")


def test_a_key_of_its_own_goes_without_an_issuer(folder):
    [line] = problems(folder, f'{GOOD_CLIENT}issuer = "https://idp.example/"')
    assert line == "clients[0].issuer: doesn't go with secret_file"


def test_settings_of_a_program_are_checked_too():
    short, again = ClientSettings("a", Secret("short"), roles=("r",)), ClientSettings("a", Secret(SECRET))
    with pytest.raises(ConfigurationError) as caught:
        Settings(clients=(short, again, ClientSettings("b")))
    assert [line.partition(":")[0] for line in caught.value.details.splitlines()] == [
        "clients[0].roles",
        "clients[0].key",
        "clients[1].id",
        "clients[2].key",
    ]
    assert "short" not in caught.value.details


def test_a_key_is_a_secret_however_it_is_given():
    assert ClientSettings("a", SECRET.encode()) == ClientSettings("a", Secret(SECRET)) == ClientSettings("a", SECRET)
    assert SECRET not in repr(ClientSettings("a", SECRET.encode()))


def test_no_secret_shows_in_an_error(folder):
    hidden = SECRET[:9]
    (folder / "short").write_text(hidden)
    with pytest.raises(ConfigurationError) as caught:
        read(folder, f'{CLIENT}secret_env = "X"\n[[clients]]\nid = "b"\nsecret_file = "short"', X=f"{hidden}\udcff")
    assert "no UTF-8" in str(caught.value)
    assert hidden not in "".join(traceback.format_exception(caught.value))


def test_no_secret_shows_in_the_settings(folder):
    assert SECRET not in repr(read(folder, EXAMPLE, SVC_C_SECRET=SECRET))


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"[gateway", "no TOML"), (b"\xff", "no TOML"), (b"x = 1" + b"0" * 5000, "no TOML")],
)
def test_what_is_no_toml(folder, content, says):
    path = folder / "gateway.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=says) as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("path", ["missing.toml", "."])
def test_a_file_that_cannot_be_read(path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(path)


def test_the_example_without_tls_or_without_clients_is_open_to_the_world():
    client = ClientSettings("a", SECRET.encode())
    tls = TLSSettings(Path("cert"), Path("key"))
    for wrong, says in [({}, "[tls]"), ({"clients": (client,)}, "[tls]"), ({"tls": tls}, "[[clients]]")]:
        with pytest.raises(ConfigurationError) as caught:
            Settings(listen="0.0.0.0:8443", **wrong)
        assert says in str(caught.value)
    assert Settings(listen="0.0.0.0:8443", tls=tls, clients=(client,))


@pytest.mark.parametrize("listen", ["127.0.0.1:65536", "[::1]:99999", "localhost:70000"])
def test_a_port_ends_at_65535(listen):
    with pytest.raises(ConfigurationError, match="ports end at 65535"):
        Settings(listen=listen)


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:0", "[::1]:0", "localhost:65535", "unix:/tmp/gw.sock", "unix:/tmp/gw:99999"]
)
def test_loopback_needs_neither(listen):
    assert Settings(listen=listen).listen == listen


# Without a file


def test_development_makes_a_client_and_may_print_it():
    settings, made = development({})
    [client] = settings.clients
    assert made
    assert client.id.startswith("dev-")
    assert len(client.key) >= 32
    assert settings.roles[client.roles[0]] == ("*",)
    assert (settings.listen, settings.tls) == ("127.0.0.1:0", None)
    assert development({})[0].clients != settings.clients


def test_a_credential_from_the_environment_is_never_printed():
    environ = {"DEEPSEEK_GRPC_CLIENT_ID": "me", "DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}
    settings, made = development(environ)
    assert not made
    assert (settings.clients[0].id, settings.clients[0].key.reveal()) == ("me", SECRET.encode())
    assert SECRET not in repr(settings)


def test_development_names_the_model_truthfully():
    settings, _ = development({}, pace=20)
    assert settings.default_model == EMBEDDED_MODEL
    assert settings.aliases == {"deepseek-chat": EMBEDDED_MODEL}
    assert settings.backends == (BackendSettings("embedded", pace=20),)


@pytest.mark.parametrize(
    ("environ", "options", "says"),
    [
        ({"DEEPSEEK_GRPC_CLIENT_ID": "me"}, {}, "both or neither"),
        ({"DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}, {}, "both or neither"),
        ({"DEEPSEEK_GRPC_CLIENT_ID": "me", "DEEPSEEK_GRPC_CLIENT_SECRET": "short"}, {}, "5 bytes"),
        ({"DEEPSEEK_GRPC_CLIENT_ID": "me", "DEEPSEEK_GRPC_CLIENT_SECRET": "\udcff" * 40}, {}, "UTF-8"),
        ({}, {"listen": "0.0.0.0:50051"}, "loopback only"),
        ({}, {"listen": "gw.internal:50051"}, "loopback only"),
    ],
)
def test_development_stays_on_this_machine_with_a_good_secret(environ, options, says):
    with pytest.raises(ConfigurationError, match=says):
        development(environ, **options)
