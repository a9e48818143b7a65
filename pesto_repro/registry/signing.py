"""Signatures: ed25519 (RFC 8032) over what a cache claims, ECDSA over P-256 (as cosign has it) over images.

A registry vouches for bytes by their digest, but nobody vouches that a step makes them, or that an image is ours:
whoever may write to it may claim so. A signature by a key of the team's does. Equal bytes get equal signatures: ECDSA
takes its secret number from the message (RFC 6979). The only module that imports cryptography.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from pesto_repro.digest import Digest
from pesto_repro.errors import PestoError
from pesto_repro.registry.secretbox import WrongPassword, open_file

_MAKE = "make one with `openssl genpkey -algorithm ed25519 -out cache.pem`"
_MAKE_PUBLIC = "make it of the private key with `openssl pkey -in cache.pem -pubout -out cache.pub.pem`"
_KEYGEN = "make one with `pesto-repro keygen`"
_COSIGN = ("ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
"""How the PEM of cosign's own files is called."""

Ask = Callable[[], bytes]
"""Gives the pass phrase, when it turns out that there is one."""


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


@dataclass(frozen=True, slots=True)
class ImageKey:
    """The public key that images must be signed with: its SubjectPublicKeyInfo (RFC 5280) in DER."""

    der: bytes

    @property
    def fingerprint(self) -> Digest:
        """What names this key in messages and, in base64, in Sigstore's bundles."""
        return Digest.of(self.der)

    @property
    def hint(self) -> str:
        """The fingerprint as cosign writes it into a bundle."""
        return base64.b64encode(bytes.fromhex(self.fingerprint.hex)).decode()

    @property
    def pem(self) -> bytes:
        return self._key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def verifies(self, statement: bytes, signature: bytes) -> bool:
        """Whether *signature*, in DER, is this key's over *statement*."""
        try:
            self._key().verify(signature, statement, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True

    def _key(self) -> ec.EllipticCurvePublicKey:
        return cast(ec.EllipticCurvePublicKey, load_der_public_key(self.der))


@dataclass(frozen=True, slots=True)
class ImageSigner:
    """The private key that signs images: its PrivateKeyInfo (PKCS #8) in DER. Nothing ever shows its bytes."""

    der: bytes = field(repr=False)

    @classmethod
    def new(cls) -> ImageSigner:
        """A key that nobody has."""
        return cls(_pkcs8(ec.generate_private_key(ec.SECP256R1())))

    @property
    def public(self) -> ImageKey:
        """Its other half."""
        return ImageKey(self._key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    def sign(self, statement: bytes) -> bytes:
        """The signature over *statement*, in DER: always the same for the same bytes. Raises PestoError."""
        try:
            return self._key().sign(statement, ec.ECDSA(SHA256(), deterministic_signing=True))
        except UnsupportedAlgorithm:
            raise PestoError(
                "this machine's OpenSSL makes no deterministic signatures (RFC 6979)",
                "use the wheel of cryptography, which brings an OpenSSL of its own, or OpenSSL 3.2",
            ) from None

    def pem(self, password: bytes | None) -> bytes:
        """As a file has it: PKCS #8 in PEM, encrypted with *password*."""
        protection = BestAvailableEncryption(password) if password else NoEncryption()
        return self._key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)

    def _key(self) -> ec.EllipticCurvePrivateKey:
        return cast(ec.EllipticCurvePrivateKey, load_der_private_key(self.der, password=None))


def image_key(pem: bytes, where: str) -> ImageKey:
    """The public key in *pem*. Raises PestoError, naming *where* it was read."""
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise PestoError(f"{where} holds no public key in PEM", _KEYGEN) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise PestoError(f"{where} holds a public key of another kind than ECDSA over P-256", _KEYGEN)
    return ImageKey(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def image_signer(pem: bytes, where: str, ask: Ask) -> ImageSigner:
    """The private key in *pem*: PKCS #8, or cosign's own file. Raises PestoError, naming *where* it was read."""
    try:
        key = _opened(pem, ask)
    except (WrongPassword, _WrongPassword):
        raise PestoError(f"the pass phrase does not open {where}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise PestoError(f"{where} holds no private key in PEM", _KEYGEN) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise PestoError(f"{where} holds a private key of another kind than ECDSA over P-256", _KEYGEN)
    return ImageSigner(_pkcs8(key))


class _WrongPassword(Exception):
    """The pass phrase of a PKCS #8 file is another one."""


def _opened(pem: bytes, ask: Ask) -> object:
    """Whatever key *pem* has. Raises ValueError and its likes for none."""
    for label in _COSIGN:
        if f"-----BEGIN {label}-----".encode() in pem:
            return load_der_private_key(open_file(_inside(pem, label), ask()), password=None)
    if b"-----BEGIN ENCRYPTED PRIVATE KEY-----" not in pem:
        return load_pem_private_key(pem, password=None)
    try:
        return load_pem_private_key(pem, password=ask())
    except ValueError:
        raise _WrongPassword from None


def _inside(pem: bytes, label: str) -> bytes:
    """RFC 7468: what is between the lines that begin and end it."""
    text = pem.partition(f"-----BEGIN {label}-----".encode())[2].partition(f"-----END {label}-----".encode())[0]
    return base64.b64decode(b"".join(text.split()), validate=True)


def _pkcs8(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
