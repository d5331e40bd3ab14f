"""Keys of every kind, made once a run."""

from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

SECRET = "0123456789abcdef0123456789abcdef"
ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")


@cache
def pair(algorithm: str) -> tuple[bytes, bytes]:
    """Returns what signs and what verifies."""
    match algorithm:
        case "RS256":
            private = rsa.generate_private_key(65537, 2048)
        case "ES256":
            private = ec.generate_private_key(ec.SECP256R1())
        case "EdDSA":
            private = ed25519.Ed25519PrivateKey.generate()
        case _:
            return SECRET.encode(), SECRET.encode()
    return (
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )
