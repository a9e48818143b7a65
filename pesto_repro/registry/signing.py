"""Signatures over what a cache claims: ed25519 (RFC 8032), keys in PEM as OpenSSL writes them.

A registry vouches for bytes by their digest, but nobody vouches that a step makes them: whoever may write to a cache
may claim so. A signature by a key of the team's does. The only module that imports cryptography.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from pesto_repro.digest import Digest
from pesto_repro.errors import PestoError

_MAKE = "make one with `openssl genpkey -algorithm ed25519 -out cache.pem`"
_MAKE_PUBLIC = "make it of the private key with `openssl pkey -in cache.pem -pubout -out cache.pub.pem`"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The key that claims must be signed with: its 32 bytes (RFC 8032, 5.1.5)."""

    raw: bytes

    @property
    def fingerprint(self) -> Digest:
        """What names this key in records and messages."""
        return Digest.of(self.raw)

    def verifies(self, statement: bytes, signature: str) -> bool:
        """Whether *signature*, in base64, is this key's over *statement*."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(base64.b64decode(signature, validate=True), statement)
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """The key that signs claims. Nothing ever shows its bytes."""

    raw: bytes = field(repr=False)

    @property
    def public(self) -> PublicKey:
        """Its other half."""
        return PublicKey(self._key().public_key().public_bytes_raw())

    def sign(self, statement: bytes) -> str:
        """The signature over *statement*, in base64: always the same for the same bytes."""
        return base64.b64encode(self._key().sign(statement)).decode()

    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.raw)


def public_key(pem: bytes, where: str) -> PublicKey:
    """The public key in *pem*. Raises PestoError, naming *where* it was read."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise PestoError(f"{where} holds no public key in PEM", _MAKE_PUBLIC) from None
    if not isinstance(key, Ed25519PublicKey):
        raise PestoError(f"{where} holds a public key of another kind than ed25519", _MAKE)
    return PublicKey(key.public_bytes_raw())


def private_key(pem: bytes, where: str) -> PrivateKey:
    """The private key in *pem*. Raises PestoError, naming *where* it was read."""
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise PestoError(f"{where} holds a key under a password, which nobody can type in a build", _MAKE) from None
    except (ValueError, UnsupportedAlgorithm):
        raise PestoError(f"{where} holds no private key in PEM", _MAKE) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise PestoError(f"{where} holds a private key of another kind than ed25519", _MAKE)
    return PrivateKey(key.private_bytes_raw())
