"""What a cache's entries are: claims about steps, where they are found, and who signed them."""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.digest import Digest
from pesto_repro.errors import PestoError
from pesto_repro.oci import Descriptor, MediaType
from pesto_repro.registry.cache import Claim, entry, read_entry, tag
from pesto_repro.registry.signing import PrivateKey, PublicKey, private_key, public_key
from tests.judges import judge

COMPRESSOR = "zlib-ng 2.2.4 level 6"
CLAIM = Claim(Digest.of(b"step"), COMPRESSOR, Digest.of(b"tar"), Descriptor(MediaType.LAYER_GZIP, Digest.of(b"gz"), 2))
KEY = PrivateKey(bytes(range(32)))

digests = st.binary(max_size=4).map(Digest.of)
descriptors = st.builds(Descriptor, st.text(max_size=8), digests, st.integers(0, 1 << 50))
claims = st.builds(Claim, digests, st.text(max_size=8), digests, descriptors)


@given(claims, st.none() | st.text(min_size=1, max_size=8))
def test_an_entry_is_read_as_it_was_written(claim: Claim, signature: str | None) -> None:
    """Round trip."""
    assert (claim, signature) == read_entry(entry(claim, signature).data)


def test_an_entry_is_an_artifact_manifest() -> None:
    """manifest.md, "Guidelines for Artifact Usage": artifactType, the empty config, the blob, annotations."""
    expected = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.pesto-repro.step.v1",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
            "size": 2,
        },
        "layers": [{"mediaType": MediaType.LAYER_GZIP, "digest": str(Digest.of(b"gz")), "size": 2}],
        "annotations": {
            "org.pesto-repro.step": str(Digest.of(b"step")),
            "org.pesto-repro.compressor": COMPRESSOR,
            "org.pesto-repro.diff-id": str(Digest.of(b"tar")),
        },
    }
    assert expected == json.loads(entry(CLAIM).data)


def test_the_tag_is_fixed() -> None:
    """Other versions of this program find today's entries: step and compressor decide, and both do."""
    assert "step-e8e62a285b15ef988c32742d22e0390ea36a8568" == tag(CLAIM.step, COMPRESSOR)
    assert 3 == len({tag(CLAIM.step, COMPRESSOR), tag(CLAIM.step, "none"), tag(CLAIM.diff_id, COMPRESSOR)})


def test_the_statement_is_fixed() -> None:
    """A signature of today is good tomorrow."""
    assert "sha256:acc4d58c297c4132974137d35e6b16a83b59e2ec74729bc13254da73e28a5a59" == str(
        Digest.of(CLAIM.statement())
    )


def changed(**changes: Any) -> bytes:
    document = json.loads(entry(CLAIM).data)
    return json.dumps({**document, **changes}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"[" * 60_000,
        changed(artifactType="application/vnd.other"),
        changed(layers=[]),
        changed(layers=[CLAIM.layer.document()] * 2),
        changed(layers=[{**CLAIM.layer.document(), "size": -1}]),
        changed(layers=[{**CLAIM.layer.document(), "size": "2"}]),
        changed(layers=[{**CLAIM.layer.document(), "digest": "sha512:00"}]),
        changed(annotations=None),
        changed(annotations={"org.pesto-repro.step": "sha256:../../x"}),
        changed(more="x" * (64 << 10)),
    ],
)
def test_what_is_no_entry_is_refused(data: bytes) -> None:
    """Whatever lies under the tag: one kind of error, for it is a stranger's."""
    with pytest.raises(ValueError, match=r"\S"):
        read_entry(data)


@given(claims, claims)
def test_a_signature_is_for_one_claim(one: Claim, other: Claim) -> None:
    """It holds for what was signed and for nothing that differs in anything."""
    signature = KEY.sign(one.statement())
    assert KEY.public.verifies(one.statement(), signature)
    assert (one == other) == KEY.public.verifies(other.statement(), signature)


@pytest.mark.parametrize(
    "change",
    [
        {"step": Digest.of(b"x")},
        {"compressor": "none"},
        {"diff_id": Digest.of(b"x")},
        {"layer": replace(CLAIM.layer, digest=Digest.of(b"x"))},
        {"layer": replace(CLAIM.layer, size=3)},
        {"layer": replace(CLAIM.layer, media_type=MediaType.LAYER)},
    ],
)
def test_every_part_of_a_claim_is_signed(change: dict[str, Any]) -> None:
    """No part of it can be exchanged."""
    assert not KEY.public.verifies(replace(CLAIM, **change).statement(), KEY.sign(CLAIM.statement()))


@pytest.mark.parametrize("signature", ["", "x", "é", "AAAA", "A" * 86 + "==", "=" * 4])
def test_what_is_no_signature_verifies_nothing(signature: str) -> None:
    """It is not an error either: an entry's annotation is a stranger's text."""
    assert not KEY.public.verifies(CLAIM.statement(), signature)


def test_another_key_verifies_nothing() -> None:
    """Who signed it matters."""
    assert not PrivateKey(bytes(32)).public.verifies(CLAIM.statement(), KEY.sign(CLAIM.statement()))


def test_a_private_key_is_not_shown() -> None:
    """Not by its text, which may land in a traceback."""
    assert "PrivateKey()" == repr(KEY)


# -- keys in PEM -------------------------------------------------------------------------------------------------------


def openssl(folder: Path, arguments: str) -> None:
    subprocess.run([judge("openssl"), *arguments.split()], cwd=folder, check=True, capture_output=True)


@pytest.mark.judge
def test_keys_are_those_of_openssl(tmp_path: Path) -> None:
    """The two commands of the README make a pair, and openssl accepts what we sign."""
    openssl(tmp_path, "genpkey -algorithm ed25519 -out cache.pem")
    openssl(tmp_path, "pkey -in cache.pem -pubout -out cache.pub.pem")
    private = private_key((tmp_path / "cache.pem").read_bytes(), "cache.pem")
    public = public_key((tmp_path / "cache.pub.pem").read_bytes(), "cache.pub.pem")
    assert public == private.public
    (tmp_path / "statement").write_bytes(CLAIM.statement())
    (tmp_path / "signature").write_bytes(base64.b64decode(private.sign(CLAIM.statement())))
    openssl(tmp_path, "pkeyutl -verify -pubin -inkey cache.pub.pem -rawin -in statement -sigfile signature")


@pytest.mark.judge
@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("genpkey -algorithm ed448 -out key", "key holds a private key of another kind than ed25519"),
        ("genpkey -algorithm ed25519 -aes256 -pass pass:x -out key", "key holds a key under a password, which nobody"),
        ("rand -out key 64", "key holds no private key in PEM"),
    ],
)
def test_other_private_keys_are_refused(tmp_path: Path, command: str, message: str) -> None:
    """With what to do instead."""
    openssl(tmp_path, command)
    with pytest.raises(PestoError) as caught:
        private_key((tmp_path / "key").read_bytes(), "key")
    assert caught.value.message.startswith(message)
    assert "make one with `openssl genpkey -algorithm ed25519 -out cache.pem`" == caught.value.hint


def test_a_private_key_is_no_public_key(tmp_path: Path) -> None:
    """The two options are not to be exchanged."""
    openssl(tmp_path, "genpkey -algorithm ed25519 -out key")
    with pytest.raises(PestoError) as caught:
        public_key((tmp_path / "key").read_bytes(), "key")
    assert "key holds no public key in PEM" == caught.value.message


def test_keys_are_values() -> None:
    """Equal bytes, equal keys; a fingerprint names one."""
    assert PublicKey(KEY.public.raw) == KEY.public
    assert Digest.of(KEY.public.raw) == KEY.public.fingerprint
