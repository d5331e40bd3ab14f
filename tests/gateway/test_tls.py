"""TLS and mutual TLS, with certificates made here."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import re
import shutil
import socket
import ssl
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deepseek_grpc import TLS, AsyncClient, ClientConfig, JWTSigner, Retry
from deepseek_grpc.auth import Secret
from deepseek_grpc.errors import ConfigurationError, ConnectError, ServiceUnavailableError
from deepseek_grpc.gateway.certificates import CertificateFiles
from deepseek_grpc.gateway.router import Backend
from deepseek_grpc.gateway.server import Gateway
from deepseek_grpc.gateway.settings import ClientSettings, Settings, TLSSettings
from deepseek_grpc.testing import ScriptedEngine
from deepseek_grpc.types import Finished, Started, TextDelta

SECRET = "0123456789abcdef0123456789abcdef"
CLIENT = ClientSettings("test-client", Secret(SECRET), roles=("test",))
ROLES = {"test": ("*",)}


class Authority:
    """Signs certificates."""

    def __init__(self, folder, name, **dates):
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._build(self._name, self._key.public_key(), **dates).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._sign(certificate))

    def _build(self, subject, key, begins=-5, ends=60):
        """Begins a certificate; minutes from now."""
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + dt.timedelta(minutes=begins))
            .not_valid_after(now + dt.timedelta(minutes=ends))
        )

    def _sign(self, builder):
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, name, *alternatives, extensions=(), **dates):
        """Writes a certificate and its key; returns their paths."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._build(subject, key.public_key(), **dates).add_extension(
            x509.SubjectAlternativeName(alternatives or [x509.DNSName(name)]), critical=False
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
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
            "tls.key_file: .*locked' is locked with a password",
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


KEY_USAGE = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


async def test_certificates_that_no_client_would_accept(authority, certificate, tmp_path):
    cases = {
        "expired on 20[0-9-]+ at [0-9:]+ UTC; no client": {"begins": -90, "ends": -30},
        "isn't valid before 20[0-9-]+ at [0-9:]+ UTC; is this": {"begins": 30},
        "is an authority's certificate, which signs others": {
            "extensions": [x509.KeyUsage(**{**KEY_USAGE, "key_cert_sign": True})]
        },
        "isn't for servers: its extended key usage lacks": {
            "extensions": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])]
        },
    }
    for says, options in cases.items():
        with pytest.raises(ConfigurationError, match=rf"\Atls\.cert_file: '.*bad\.crt' {says}"):
            await gateway_with(TLSSettings(*authority.issue("bad", **options))).start()
    old = Authority(tmp_path, "old", begins=-90, ends=-30)
    with pytest.raises(ConfigurationError, match=r"\Atls\.client_ca_file: '.*old\.pem' expired on"):
        await gateway_with(TLSSettings(*certificate, old.file)).start()


async def test_certificates_that_clients_accept(authority, tmp_path):
    local = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    server = [
        x509.KeyUsage(**{**KEY_USAGE, "digital_signature": True}),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
    ]
    both = tmp_path / "both.pem"  # an authority that has expired may stand beside its successor
    both.write_bytes(Authority(tmp_path, "old", begins=-90, ends=-30).file.read_bytes() + authority.file.read_bytes())
    async with gateway_with(TLSSettings(*authority.issue("good", local, extensions=server), both)) as gateway:
        await use(client_of(gateway, TLS(authority.file, *authority.issue("client"))))


# Versions


def shake_hands(gateway, authority, certificate=None, **versions):
    """Makes a connection; returns the version and the name in the gateway's certificate."""
    context = ssl.create_default_context(cafile=str(authority.file))
    context.set_alpn_protocols(["h2"])
    if certificate is not None:
        context.load_cert_chain(*certificate)
    if versions:
        context.set_ciphers("ALL:@SECLEVEL=0")  # or this side refuses first
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, versions["maximum"]
    host, _, port = gateway.address.rpartition(":")
    with socket.create_connection((host, int(port)), 20) as raw, context.wrap_socket(raw, server_hostname=host) as tls:
        # With TLS 1.3 only now the gateway looks at the client's certificate; if it is good, HTTP/2 begins.
        if certificate is not None and not tls.recv(1):
            raise ConnectionError
        return tls.version(), tls.getpeercert()["subject"][0][0][1]


@pytest.mark.filterwarnings("ignore:.*TLSv1:DeprecationWarning")
async def test_versions(authority, certificate):
    async with gateway_with(TLSSettings(*certificate)) as gateway:

        def version(maximum):
            return shake_hands(gateway, authority, maximum=maximum)[0]

        assert await asyncio.to_thread(version, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        assert await asyncio.to_thread(version, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        for old in (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.to_thread(version, old)


# Files that change while it runs


class Files:
    """The files of a gateway, which a test replaces."""

    def __init__(self, folder, authority, *, mutual=False):
        folder.mkdir()
        self._authority = authority
        names = ("cert.pem", "key.pem", "ca.pem")
        self.cert, self.key, self.ca = (folder / name for name in names)
        self.install("first")
        shutil.copy(authority.file, self.ca)
        self.tls = TLSSettings(self.cert, self.key, self.ca if mutual else None)

    def issue(self, name, **options):
        return self._authority.issue(name, x509.IPAddress(ipaddress.ip_address("127.0.0.1")), **options)

    def install(self, name, **options):
        for new, file in zip(self.issue(name, **options), (self.cert, self.key), strict=True):
            self.replace(file, new)

    @staticmethod
    def replace(file, new):
        shutil.copy(new, f"{file}.new")
        Path(f"{file}.new").replace(file)


async def until(look, wanted):
    """Looks until what is wanted is seen; the test's own time limit is the end of that."""
    while (seen := await asyncio.to_thread(look)) != wanted:  # noqa: ASYNC110 - files have no event
        await asyncio.sleep(0.05)
    return seen


class Gated(ScriptedEngine):
    """Says "one", and "two" once it may."""

    def __init__(self):
        super().__init__()
        self.gate = asyncio.Event()

    async def stream(self, request):
        yield Started(), TextDelta("one")
        await self.gate.wait()
        yield TextDelta("two"), Finished("stop")


async def test_new_certificates_count_from_the_next_connection(authority, tmp_path):
    files = Files(tmp_path / "tls", authority)
    engine = Gated()
    settings = Settings("127.0.0.1:0", clients=(CLIENT,), roles=ROLES, tls=files.tls)
    async with Gateway(settings, backends=[Backend(engine, ("*",))]) as gateway:
        tls = TLS(ca_file=authority.file)
        async with client_of(gateway, tls) as client, client.text.stream("Hi") as stream:
            pieces = stream.text()
            assert await anext(pieces) == "one"

            def look():
                return shake_hands(gateway, authority)[1]

            assert await asyncio.to_thread(look) == "first"
            files.install("second")
            await until(look, "second")
            engine.gate.set()
            assert [piece async for piece in pieces] == ["two"]  # what ran goes on
            files.install("third")
            await until(look, "third")


async def test_new_certificates_that_are_not_good_do_not_count(authority, tmp_path, caplog):
    caplog.set_level("INFO", "deepseek_grpc.gateway")
    files = Files(tmp_path / "tls", authority)

    def said():
        return [record.getMessage() for record in caplog.records if "certificates" in record.getMessage()]

    async with gateway_with(files.tls) as gateway:

        def look():
            return shake_hands(gateway, authority)[1], len(said())

        spoilt = [
            (lambda: files.replace(files.cert, files.issue("half")[0]), "isn't the key of the certificate"),
            (lambda: files.cert.write_bytes(files.cert.read_bytes()[:300]), "holds no certificate"),
            (files.cert.unlink, "cannot read"),
            (lambda: files.install("old", begins=-90, ends=-30), "expired on"),
        ]
        for times, (spoil, says) in enumerate(spoilt, 1):
            spoil()
            assert await until(look, ("first", times)) == ("first", times)
            assert says in said()[-1]
            assert "the old ones stay" in said()[-1]
        files.install("second")
        await until(lambda: look()[0], "second")
        assert len(said()) == len(spoilt) + 1  # once a change, not once a connection


async def test_another_authority_of_clients(authority, tmp_path):
    files = Files(tmp_path / "tls", authority, mutual=True)
    other = Authority(tmp_path, "other")
    ours, theirs = authority.issue("ours"), other.issue("theirs")
    async with gateway_with(files.tls) as gateway:

        def welcome():
            found = []
            for certificate in (ours, theirs):
                try:
                    shake_hands(gateway, authority, certificate)
                except (ssl.SSLError, ConnectionError):
                    found.append(False)
                else:
                    found.append(True)
            return found

        assert await asyncio.to_thread(welcome) == [True, False]
        files.replace(files.ca, other.file)
        await until(welcome, [False, True])
        await use(client_of(gateway, TLS(authority.file, *theirs)))


def test_files_are_looked_at_once_a_second(authority, tmp_path):
    files, now = Files(tmp_path / "tls", authority), 0.0
    watched = CertificateFiles(files.tls, lambda: now)
    files.install("second")
    now = 0.9
    assert watched._renewed() is None
    now = 1.0
    assert isinstance(watched._renewed(), grpc.ServerCertificateConfiguration)
    now = 2.0
    assert watched._renewed() is None  # nothing new
    files.install("third")
    files.cert.unlink()
    now = 2.9
    assert watched._renewed() is None
    files.install("fourth")
    now = 3.0
    assert isinstance(watched._renewed(), grpc.ServerCertificateConfiguration)
