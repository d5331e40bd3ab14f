"""`token`."""

import jwt
import pytest

from deepseek_grpc import JWTSigner
from tests.cli.running import CLI, SECRET, events, finish, run, run_here
from tests.unit.keys import pair


def test_a_minted_token_opens_the_gateway_and_shows_what_is_in_it(fake):
    minted = run("token", "mint", "--lifetime", "3600", env=fake.environ)
    token = minted.stdout.rstrip("\n")
    assert minted.returncode == 0
    assert token.count(".") == 2
    assert run("models", env={"DEEPSEEK_GRPC_TARGET": fake.target, "DEEPSEEK_GRPC_TOKEN": token}).returncode == 0
    shown = run("token", "inspect", token)
    assert shown.returncode == 0
    assert shown.stdout.startswith("not verified: ")
    assert '  alg: "HS256"\n' in shown.stdout
    assert f'  iss: "{fake.client_id}"\n' in shown.stdout
    assert '  aud: "deepseek-grpc"\n' in shown.stdout
    assert "\nexpires in 59 min " in shown.stdout
    assert token.rpartition(".")[2] not in shown.stdout


def test_tokens_as_json_and_through_a_pipe():
    env = {"DEEPSEEK_GRPC_CLIENT_ID": "unused", "DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}
    (minted,) = events(run("token", "mint", "--client-id", "svc-a", "--audience", "", "--json", env=env))
    (shown,) = events(run("token", "inspect", "--json", stdin=f"{minted['token']}\n"))
    assert (shown["verified"], shown["header"]) == (False, {"alg": "HS256", "typ": "JWT"})
    assert shown["claims"]["iss"] == "svc-a"
    assert "aud" not in shown["claims"]
    assert 0 < shown["expires_in"] <= 900


def test_an_expired_token_says_for_how_long():
    token = JWTSigner("svc-a", SECRET, lifetime=60, clock=lambda: 1_000_000_000).token()
    shown = run("token", "inspect", "-", stdin=token)
    assert shown.returncode == 0
    assert shown.stdout.rstrip().endswith(" ago")


@pytest.mark.parametrize("token", ["", "opaque", "a.b.c", "e30.e30", "\x1b.\x1b.\x1b"])
def test_what_is_no_token_is_not_shown(token):
    done = run("token", "inspect", token or "-", stdin="")
    assert (done.returncode, done.stdout) == (2, "")
    assert "TOKEN is no JWT" in done.stderr


@pytest.mark.parametrize(
    ("args", "env"),
    [
        ([], {"DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}),
        (["--client-id", "a"], {}),
        (["--client-id", "a"], {"DEEPSEEK_GRPC_CLIENT_SECRET": "short-canary"}),
        (["--client-id", "a", "--lifetime", "3601"], {"DEEPSEEK_GRPC_CLIENT_SECRET": SECRET}),
        (["--client-secret", SECRET], {}),
    ],
)
def test_a_token_cannot_be_minted(args, env):
    done = run("token", "mint", *args, env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_token_signed_with_a_private_key(algorithm, tmp_path):
    private, public = pair(algorithm)
    (tmp_path / "key.pem").write_bytes(private)
    options = ["--client-id", "svc-a", "--key-file", str(tmp_path / "key.pem"), "--algorithm", algorithm]
    (minted,) = events(run_here("token", "mint", *options, "--key-id", "k1", "--json"))
    claims = jwt.decode(minted["token"], public, [algorithm], audience="deepseek-grpc")
    assert claims["iss"] == "svc-a"
    assert jwt.get_unverified_header(minted["token"])["kid"] == "k1"
    piped = finish([*CLI, "token", "mint", *options[:2], "--key-file", "-", *options[4:]], stdin=private.decode())
    assert jwt.decode(piped.stdout.strip(), public, [algorithm], audience="deepseek-grpc")["iss"] == "svc-a"


def test_a_secret_in_a_file(fake, tmp_path):
    (tmp_path / "secret").write_text(f"{fake.client_secret}\n")
    done = run_here("token", "mint", "--client-id", fake.client_id, "--secret-file", str(tmp_path / "secret"))
    env = {"DEEPSEEK_GRPC_TARGET": fake.target, "DEEPSEEK_GRPC_TOKEN": done.stdout.strip()}
    assert run_here("models", env=env).returncode == 0
    (tmp_path / "token").write_text(done.stdout)
    assert f'iss: "{fake.client_id}"' in run_here("token", "inspect", f"@{tmp_path}/token").stdout


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--key-file", "{}/none.pem", "--algorithm", "RS256"], "--key-file: cannot read"),
        (["--key-file", "{}", "--algorithm", "RS256"], "Is a directory"),
        (["--key-file", "{}/junk", "--algorithm", "RS256"], "RS256"),
        (["--key-file", "{}/junk"], "--key-file and --algorithm go together"),
        (["--algorithm", "ES256"], "--key-file and --algorithm go together"),
        (["--key-file", "{}/junk", "--algorithm", "HS256"], "'HS256' is no private key's; one of RS256, ES256, EdDSA"),
        (["--key-file", "{}/junk", "--algorithm", "ES256", "--secret-file", "{}/junk"], "not both"),
        (["--secret-file", "{}/none"], "--secret-file: cannot read"),
        (["--secret-file", "{}/junk"], "at least 32"),
    ],
)
def test_files_that_sign_nothing(options, says, tmp_path):
    (tmp_path / "junk").write_text("canary")
    done = run_here("token", "mint", "--client-id", "a", *[option.format(tmp_path) for option in options])
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "canary" not in done.stderr
