"""Certificates, good ones and others, made where a test needs them."""

import datetime as dt
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOUR = dt.timedelta(hours=1)
HERE = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


class Authority:
    """Signs certificates."""

    def __init__(self, folder, name):
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = self._write(f"{name}.pem", self._sign(name, self._key, x509.BasicConstraints(True, 0), -HOUR, HOUR))

    def issue(self, name, alternative=HERE, *, since=-HOUR, until=HOUR):
        """Returns the paths of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        certificate = self._sign(name, key, x509.SubjectAlternativeName([alternative]), since, until)
        return self._write(f"{name}.crt", certificate), self._write(f"{name}.key", key.private_bytes(*form))

    def _sign(self, name, key, extension, since, until):
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        builder = builder.issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now + since).not_valid_after(now + until)
        builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _write(self, name, data):
        path = self._folder / name
        path.write_bytes(data)
        return path
