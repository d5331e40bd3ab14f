"""TLS and mutual TLS, with certificates made here."""

from __future__ import annotations

import datetime as dt
import ipaddress
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deepseek_grpc import TLS, AsyncClient, ClientConfig, JWTSigner, Retry
from deepseek_grpc.errors import ConfigurationError, ConnectError, ServiceUnavailableError
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.settings import ClientSettings, Settings, TLSSettings
from deepseek_grpc.testing import ScriptedEngine

SECRET = "0123456789abcdef0123456789abcdef"
CLIENT = ClientSettings("test-client", SECRET.encode(), roles=("test",))
ROLES = {"test": ("*",)}


class Authority:
    """Signs certificates."""

    def __init__(self, folder, name):
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._build(self._name, self._key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._sign(certificate))

    def _build(self, subject, key):
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(hours=1))
        )

    def _sign(self, builder):
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, name, *alternatives):
        """Writes a certificate and its key; returns their paths."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._build(subject, key.public_key()).add_extension(
            x509.SubjectAlternativeName(alternatives or [x509.DNSName(name)]), critical=False
        )
        cert_file, key_file = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        cert_file.write_bytes(self._sign(builder))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert_file, key_file


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


@pytest.fixture(scope="module")
def certificate(authority):
    return authority.issue("gateway", x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


def gateway_with(tls, **values):
    settings = Settings(**{"listen": "127.0.0.1:0", "clients": (CLIENT,), "roles": ROLES, "tls": tls, **values})
    return Gateway(settings, backends=[Backend(ScriptedEngine(), ("*",))])


def client_of(gateway, tls, **config):
    return AsyncClient(
        gateway.address,
        credentials=JWTSigner("test-client", SECRET),
        config=ClientConfig(tls=tls, retry=Retry(attempts=1), **config),
    )


async def use(client):
    async with client:
        answers = [(await client.text.generate("Hi")).text, (await client.text.stream("Hi").final()).text]
        async with client.text.session() as session:
            answers.append((await session.generate("Hi")).text)
        assert answers == ["Hello from the fake server."] * 3
        assert await client.health() == "SERVING"


@pytest.mark.parametrize("delivery", ["call", "metadata"])
async def test_tls(authority, certificate, delivery):
    async with gateway_with(TLSSettings(*certificate)) as gateway:
        await use(client_of(gateway, TLS(ca_file=authority.file), token_delivery=delivery))


async def test_tls_by_another_name(authority):
    async with gateway_with(TLSSettings(*authority.issue("gateway.internal"))) as gateway:
        await use(client_of(gateway, TLS(ca_file=str(authority.file), server_name="gateway.internal")))
        with pytest.raises(ConnectError):
            await use(client_of(gateway, TLS(ca_file=authority.file)))


async def test_an_authority_that_is_not_trusted(certificate, tmp_path):
    async with gateway_with(TLSSettings(*certificate)) as gateway:
        with pytest.raises(ConnectError, match=gateway.address):
            await use(client_of(gateway, TLS(ca_file=Authority(tmp_path, "stranger").file)))
        with pytest.raises(ConnectError):
            await use(client_of(gateway, True))  # the system's authorities


async def test_plain_text_where_tls_is_spoken(certificate):
    async with gateway_with(TLSSettings(*certificate)) as gateway:
        with pytest.raises(ServiceUnavailableError):
            await use(client_of(gateway, False))


async def test_tls_where_plain_text_is_spoken(authority, fake_server):
    async with gateway_with(None) as gateway:
        with pytest.raises(ConnectError):
            await use(client_of(gateway, TLS(ca_file=authority.file)))


async def test_mutual_tls(authority, certificate, tmp_path):
    async with gateway_with(TLSSettings(*certificate, authority.file)) as gateway:
        await use(client_of(gateway, TLS(authority.file, *authority.issue("client"))))
        with pytest.raises(ServiceUnavailableError):
            await use(client_of(gateway, TLS(authority.file)))
        with pytest.raises(ServiceUnavailableError):
            await use(client_of(gateway, TLS(authority.file, *Authority(tmp_path, "stranger").issue("intruder"))))


async def test_beyond_loopback(authority, certificate):
    async with gateway_with(TLSSettings(*certificate), listen="0.0.0.0:0") as gateway:
        address = f"127.0.0.1:{gateway.address.rpartition(':')[2]}"
        client = AsyncClient(
            address,
            credentials=JWTSigner("test-client", SECRET),
            config=ClientConfig(tls=TLS(ca_file=authority.file)),
        )
        await use(client)


def test_beyond_loopback_needs_tls_and_clients(certificate):
    with pytest.raises(ConfigurationError, match=r"that needs \[tls\]"):
        gateway_with(None, listen="0.0.0.0:0")
    with pytest.raises(ConfigurationError, match=r"that needs \[\[clients\]\]"):
        gateway_with(TLSSettings(*certificate), listen="0.0.0.0:0", clients=())


async def test_files_that_are_not_there(certificate, tmp_path):
    for tls in (
        TLSSettings(tmp_path / "none.crt", certificate[1]),
        TLSSettings(certificate[0], tmp_path / "none.key"),
        TLSSettings(*certificate, tmp_path / "none.pem"),
    ):
        with pytest.raises(ConfigurationError, match=r"none\."):
            await gateway_with(tls).start()


async def test_files_that_are_no_certificates(authority, certificate, tmp_path):
    junk, other_key = tmp_path / "junk", authority.issue("other")[1]
    junk.write_text("junk")
    locked = tmp_path / "locked"
    key = serialization.load_pem_private_key(certificate[1].read_bytes(), None)
    password = serialization.BestAvailableEncryption(b"x")
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, password))
    for tls, *says in (
        (TLSSettings(junk, certificate[1]), "tls.cert_file: .*junk' holds no certificate"),
        (TLSSettings(certificate[1], certificate[1]), "tls.cert_file: .* holds no certificate"),
        (TLSSettings(certificate[0], junk), "tls.key_file: .*junk' holds no private key"),
        (TLSSettings(certificate[0], certificate[0]), "tls.key_file: .* holds no private key"),
        (TLSSettings(certificate[0], other_key), "tls.key_file: .*other.key' isn't the key of .*gateway.crt'"),
        (
            TLSSettings(certificate[0], locked),
            "tls.key_file: .*locked' holds no private key in PEM, or one with a pass",
        ),
        (TLSSettings(*certificate, junk), "tls.client_ca_file: .*junk' holds no certificate"),
        (TLSSettings(junk, tmp_path / "none", junk), "tls.cert_file: ", "tls.key_file: cannot", "tls.client_ca_file: "),
    ):
        with pytest.raises(ConfigurationError) as caught:
            await gateway_with(tls).start()
        lines = caught.value.details.splitlines()
        assert len(lines) == len(says), lines
        for pattern, line in zip(says, lines, strict=True):
            assert re.match(pattern, line)


async def test_words_between_certificates_do_no_harm(authority, certificate, tmp_path):
    chain = tmp_path / "chain.pem"
    chain.write_bytes("subject: Müller\n".encode() + certificate[0].read_bytes() + b"\n" + authority.file.read_bytes())
    async with gateway_with(TLSSettings(chain, certificate[1])) as gateway:
        await use(client_of(gateway, TLS(ca_file=authority.file)))
