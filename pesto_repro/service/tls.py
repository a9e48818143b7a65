"""TLS for a service whose image has no key: one is made, used once, and thrown away.

A PESTO service takes its key and certificate from /etc/pesto/ssl and from nowhere else; no key is in an image of
ours. Nothing can be mounted where an image has no folder, so that a copy of the image's /etc/pesto takes its place,
with the key in it. An image that brings a key of its own serves with that.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pesto_repro.errors import PestoError
from pesto_repro.sandbox.cell import Cell, Mount
from pesto_repro.sandbox.paths import inside

_PESTO = "/etc/pesto"
_KEY, _CERTIFICATE = "ssl/key.pem", "ssl/cert.pem"
_DAYS = 30


def with_tls(cell: Cell, scratch: Path) -> Cell:
    """*cell* with its service told to use TLS. The key is made in *scratch*, an empty folder that outlives the cell.

    Raises PestoError for an image that has no place for it.
    """
    told = replace(cell, env={**cell.env, "PESTO_USE_SSL": "true"})
    if _has(cell, _KEY) and _has(cell, _CERTIFICATE):
        return told
    if not _has(cell, "service.json"):
        raise PestoError(
            f"the image cannot use TLS: it has no {_PESTO}/service.json, so it is no PESTO service",
            "run it without --ssl",
        )
    own, copy = inside(cell.root, _PESTO), scratch / "pesto"
    # Not its ssl: what it has there may be a link, and what is written through one lands on the host.
    shutil.copytree(own, copy, symlinks=True, ignore=lambda folder, _: {"ssl"} if Path(folder) == own else set())
    key, certificate = key_and_certificate()
    (copy / "ssl").mkdir()
    (copy / _KEY).write_bytes(key)
    (copy / _CERTIFICATE).write_bytes(certificate)
    for path in (copy, *copy.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)  # the service's user must read them; scratch is ours alone
    return replace(told, mounts=(*told.mounts, Mount(copy, _PESTO)))


def _has(cell: Cell, name: str) -> bool:
    """Whether the image has the file *name* of PESTO's folder."""
    try:
        return inside(cell.root, f"{_PESTO}/{name}").is_file()
    except OSError:  # links that go in circles
        return False


def key_and_certificate() -> tuple[bytes, bytes]:
    """A new private key, and a certificate for localhost that it signs itself; both in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1")), x509.IPAddress(ip_address("::1"))]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, certificate.public_bytes(Encoding.PEM)
