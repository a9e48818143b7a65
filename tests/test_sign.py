"""Keys and signatures: what is signed, what counts, and what openssl and cosign have to say."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.poly1305 import Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.digest import Digest
from pesto_repro.errors import PestoError
from pesto_repro.oci import Descriptor, MediaType
from pesto_repro.registry import cosign, shared_tag
from pesto_repro.registry.cosign import BUNDLE, SIGNATURE, claims, encoded, require_signed, sign
from pesto_repro.registry.ports import Manifest, Repository
from pesto_repro.registry.referrers import referrers
from pesto_repro.registry.secretbox import WrongPassword, poly1305, unseal
from pesto_repro.registry.signing import ImageSigner, image_key, image_signer
from pesto_repro.sinks import write_archive
from pesto_repro.store import Store
from tests.e2e import run
from tests.images import make_image, make_layers
from tests.judges import judge
from tests.memory_registry import MemoryRegistry, MemoryRepository
from tests.registries import LiveRegistry
from tests.signatures import signed_by

COSIGN_KEY = """\
-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----
eyJrZGYiOnsibmFtZSI6InNjcnlwdCIsInBhcmFtcyI6eyJOIjo2NTUzNiwiciI6
OCwicCI6MX0sInNhbHQiOiJ4MzE2clltL1JxY1ZhUUpyUVorbDc4K1ZEQzFEQU9y
YmkvR25pNzJwei9nPSJ9LCJjaXBoZXIiOnsibmFtZSI6Im5hY2wvc2VjcmV0Ym94
Iiwibm9uY2UiOiJicnhGUDNoY3NiNGpDNFhsKzhxM2gwOGZDZllRdjhLNiJ9LCJj
aXBoZXJ0ZXh0IjoiUXNzM1pDWGtUU3pNNWl5eHhqVHpWbEkyaFBmQXFRMFIrbUFj
cVZPQVZibElUb2tlN2EzcGRnZythdzF1TW1uVTFRUDFrMWpkSWI1MFZxK28yVXhH
RHVLVGU1R3JkY1FwNUdjamdDamIvMDNQK0NTVUhnRnVOanRDMkM1ZG1nTWk2YlUr
VXBQS3BWTW12VVNXUmIzenBzOEJHQzVhbEdkS2FFVERzY1pHem9jYXA3V1Vva29r
dDlyZVB2a2FTSUtwSE90VERpWDQwY3lsSUE9PSJ9
-----END ENCRYPTED SIGSTORE PRIVATE KEY-----
"""
"""Made by cosign 3.1.3, of nothing and for nothing but these tests; its pass phrase is "s3cret"."""
COSIGN_PUBLIC = """\
-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAER0+YMyjYo8L5bEjXDfVk7pCseiPi
nQvfSC2fpqLx7GPze/hUDC2Wd4kDNQrB0AZ23mTyfMaN+vh6StfCLv5M7Q==
-----END PUBLIC KEY-----
"""
IMAGE = Descriptor.of(MediaType.MANIFEST, b"the image")
OTHER = Digest.of(b"another image")
PASSWORD = "PESTO_REPRO_KEY_PASSWORD"


def nobody() -> bytes:
    raise AssertionError("no pass phrase is needed")


@pytest.fixture(scope="module")
def signer() -> ImageSigner:
    return ImageSigner.new()


@pytest.fixture
def cosign_signer() -> ImageSigner:
    return image_signer(COSIGN_KEY.encode(), "cosign.key", lambda: b"s3cret")


def repository(*, lists: bool = False) -> MemoryRepository:
    return MemoryRegistry(lists=lists).repository("team/app")


def at_once(target: Repository, tag: str, mine: shared_tag.Entries, form: shared_tag.Form) -> None:
    """Adds without waiting."""
    shared_tag.add(target, tag, mine, form, sleep=lambda seconds: None)


# -- keys --------------------------------------------------------------------------------------------------------------


def test_cosigns_own_file_is_opened(cosign_signer: ImageSigner) -> None:
    """What cosign encrypted is the private half of what cosign calls the public key."""
    assert COSIGN_PUBLIC == cosign_signer.public.pem.decode()
    assert cosign_signer.public == image_key(COSIGN_PUBLIC.encode(), "cosign.pub")


def test_nacls_own_example_is_opened() -> None:
    """The secretbox of NaCl's tests (tests/secretbox.c)."""
    key = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    box = bytes.fromhex(
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186a"
        "c0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae"
        "90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74"
        "e355a5"
    )
    expected = bytes.fromhex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c6129"
        "6cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde"
        "048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705"
    )
    assert expected == unseal(box, nonce, key)
    with pytest.raises(WrongPassword):
        unseal(box[:-1] + b"\0", nonce, key)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_poly1305_is_the_librarys(key: bytes, message: bytes) -> None:
    """Whatever the key and the message, the tag is that of cryptography."""
    assert Poly1305.generate_tag(key, message) == poly1305(key, message)


@pytest.mark.parametrize("password", [None, b"p4ss w\xc3\xb6rd"])
def test_a_key_goes_out_and_comes_back(signer: ImageSigner, password: bytes | None) -> None:
    """PKCS #8 in PEM, with a pass phrase or without; its public half is in PEM, too."""
    pem = signer.pem(password)
    head = "ENCRYPTED PRIVATE KEY" if password else "PRIVATE KEY"
    assert pem.startswith(f"-----BEGIN {head}-----\n".encode())
    assert signer == image_signer(pem, "a.key", (lambda: password) if password else nobody)
    assert signer.public == image_key(signer.public.pem, "a.pub")


def test_nothing_shows_a_private_key(signer: ImageSigner) -> None:
    """Neither the key itself nor what it is part of says its bytes."""
    assert "ImageSigner()" == repr(signer)


def pem_of(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


@pytest.mark.parametrize(
    ("pem", "message"),
    [
        (b"", "a.key holds no private key in PEM"),
        (b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nbm8=\n", "a.key holds no private key in PEM"),
        (
            pem_of(ed25519.Ed25519PrivateKey.generate()),
            "a.key holds a private key of another kind than ECDSA over P-256",
        ),
        (
            pem_of(ec.generate_private_key(ec.SECP384R1())),
            "a.key holds a private key of another kind than ECDSA over P-256",
        ),
        (COSIGN_KEY.encode(), "the pass phrase does not open a.key"),
        (ImageSigner.new().pem(b"right"), "the pass phrase does not open a.key"),
    ],
)
def test_what_is_no_key_to_sign_with(pem: bytes, message: str) -> None:
    """Each is told apart, and none with a traceback."""
    with pytest.raises(PestoError) as caught:
        image_signer(pem, "a.key", lambda: b"wrong")
    assert message == caught.value.message


def test_what_is_no_key_to_check_with() -> None:
    """A private key is no public one, and ed25519 is the cache's."""
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for data, message in (
        (COSIGN_KEY.encode(), "a.pub holds no public key in PEM"),
        (pem, "a.pub holds a public key of another kind than ECDSA over P-256"),
    ):
        with pytest.raises(PestoError) as caught:
            image_key(data, "a.pub")
        assert message == caught.value.message


@given(st.binary(max_size=200))
def test_equal_bytes_get_equal_signatures(statement: bytes) -> None:
    """RFC 6979: nothing of a signature is chance; it holds for these bytes only."""
    signer = ImageSigner(_ONE.der)
    assert signer.sign(statement) == _ONE.sign(statement)
    assert signer.public.verifies(statement, signer.sign(statement))
    assert not signer.public.verifies(statement + b"\0", signer.sign(statement))
    assert not ImageSigner.new().public.verifies(statement, signer.sign(statement))


_ONE = ImageSigner.new()


# -- signatures --------------------------------------------------------------------------------------------------------


def test_what_is_signed() -> None:
    """The payload and the statement, as cosign writes them; DSSE's encoding from its own specification."""
    digest = str(IMAGE.digest)
    simple = (
        '{"critical":{"identity":{"docker-reference":"registry.example/team/app"},'
        f'"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}'
    )
    assert simple.encode() == cosign.simple_payload("registry.example/team/app", IMAGE.digest)
    expected = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": IMAGE.digest.hex}}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    }
    assert expected == json.loads(cosign.statement(IMAGE.digest))
    assert b"DSSEv1 29 http://example.com/HelloWorld 11 hello world" == encoded(
        "http://example.com/HelloWorld", b"hello world"
    )


@pytest.mark.parametrize("lists", [True, False])
def test_a_signature_is_found_in_both_forms(lists: bool, signer: ImageSigner) -> None:
    """With the referrers API and without; by its key only, and for its image only."""
    target = repository(lists=lists)
    made = sign(target, IMAGE, signer, at_once)
    assert ("simple", "bundle") == tuple(each.form for each in made)
    assert made == signed_by(target, IMAGE.digest, signer.public)
    assert () == signed_by(target, IMAGE.digest, ImageSigner.new().public)
    assert () == signed_by(target, OTHER, signer.public)


def test_the_bundle(signer: ImageSigner) -> None:
    """A Sigstore bundle v0.3 that names its key by cosign's hint, without a log."""
    found = json.loads(cosign.bundle(cosign.statement(IMAGE.digest), signer))
    hint = base64.b64encode(bytes.fromhex(Digest.of(signer.public.der).hex)).decode()
    assert "application/vnd.dev.sigstore.bundle.v0.3+json" == found["mediaType"]
    assert {"publicKey": {"hint": hint}} == found["verificationMaterial"]
    assert "application/vnd.in-toto+json" == found["dsseEnvelope"]["payloadType"]


def test_signing_again_changes_nothing(signer: ImageSigner) -> None:
    """The same bytes in the same places."""
    target = repository()
    sign(target, IMAGE, signer, at_once)
    before = dict(target.manifests)
    sign(target, IMAGE, signer, at_once)
    assert before == target.manifests


def test_signatures_of_several_keys_stand_side_by_side(signer: ImageSigner, cosign_signer: ImageSigner) -> None:
    """The second takes nothing from the first, and the order in which they came does not show."""
    both, turned = repository(), repository()
    for target, signers in ((both, (signer, cosign_signer)), (turned, (cosign_signer, signer))):
        for each in signers:
            sign(target, IMAGE, each, at_once)
    for tag in both.tags():
        assert both.manifests[tag] == turned.manifests[tag]
    for each in (signer, cosign_signer):
        assert 2 == len(signed_by(both, IMAGE.digest, each.public))
    assert 4 == len(claims(both, IMAGE.digest))


def test_a_signature_of_another_image_is_none(signer: ImageSigner) -> None:
    """A signature that is moved to another image's tag and list is over the digest it was made for."""
    target = repository()
    sign(target, Descriptor.of(MediaType.MANIFEST, b"another image"), signer, at_once)
    tag, own = cosign.signature_tag(OTHER), cosign.signature_tag(IMAGE.digest)
    target.manifests[own] = target.manifests[tag]
    assert 1 == len(claims(target, IMAGE.digest))
    assert () == signed_by(target, IMAGE.digest, signer.public)


def test_what_is_not_understood_counts_as_no_signature(signer: ImageSigner) -> None:
    """Whoever may write to a registry may write nonsense; what holds is found beside it."""
    target = repository()
    sign(target, IMAGE, signer, at_once)
    nonsense = [
        b"",
        b"[]",
        b"{",
        b'{"critical": 1}',
        b"[" * 100_000,
        b'{"critical":{"type":"atomic container signature"}}',
    ]
    layers = json.loads(target.manifests[cosign.signature_tag(IMAGE.digest)].data)["layers"]
    for each in nonsense:
        layer = Descriptor.of(cosign.SIMPLE, each)
        target.blobs[layer.digest] = each
        layers.append(layer.document() | {"annotations": {SIGNATURE: "%%%"}})
    layers.append({key: value for key, value in layers[0].items() if key != "annotations"})
    config = Descriptor.of(MediaType.CONFIG, b"{}")
    target.blobs[config.digest] = b"{}"
    document = {"schemaVersion": 2, "mediaType": MediaType.MANIFEST, "config": config.document(), "layers": layers}
    data = json.dumps(document).encode()
    target.push_manifest(cosign.signature_tag(IMAGE.digest), Manifest(MediaType.MANIFEST, Digest.of(data), data))
    assert ["simple", "bundle"] == [each.form for each in signed_by(target, IMAGE.digest, signer.public)]


def test_an_attestation_is_no_signature(signer: ImageSigner) -> None:
    """Who signs what a scanner found does not say that the image is good: the predicate must be cosign's own."""
    statement = json.loads(cosign.statement(IMAGE.digest)) | {"predicateType": "https://slsa.dev/provenance/v1"}
    made = cosign.bundle(json.dumps(statement).encode(), signer)
    assert [] == cosign._bundle_claims(IMAGE.digest, made)


def test_a_demanded_signature(signer: ImageSigner) -> None:
    """Without it: what is wrong, and with which key; it matters whether others have signed."""
    target = repository()
    name = "registry.example/team/app:1.0"
    messages = []
    for _ in range(2):
        with pytest.raises(PestoError) as caught:
            require_signed(target, name, IMAGE.digest, signer.public, "team.pub")
        messages.append(caught.value.message)
        sign(target, IMAGE, ImageSigner.new(), at_once)
    key = signer.public.fingerprint
    assert [
        f"{name} is not signed with the key team.pub: it has no signature that is by {key}",
        f"{name} is not signed with the key team.pub: none of its 2 signatures is by {key}",
    ] == messages
    sign(target, IMAGE, signer, at_once)
    assert 2 == len(require_signed(target, name, IMAGE.digest, signer.public, "team.pub"))


# -- the command line --------------------------------------------------------------------------------------------------


def refused(*arguments: str | Path, env: Mapping[str, str] | None = None) -> str:
    """The stderr of a command that must fail."""
    done = run(*arguments, env=env, check=False)
    assert (1, "") == (done.returncode, done.stdout), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_keygen(tmp_path: Path) -> None:
    """Two files, the private one for its owner only and under the pass phrase; nothing is written over."""
    prefix, env = tmp_path / "team", {PASSWORD: "s3cret"}
    made = json.loads(run("keygen", "-o", prefix, "--json", env=env).stdout)
    private, public = Path(made["private"]), Path(made["public"])
    assert (tmp_path / "team.key", tmp_path / "team.pub") == (private, public)
    assert 0o600 == stat.S_IMODE(private.stat().st_mode)
    signer = image_signer(private.read_bytes(), "team.key", lambda: b"s3cret")
    assert signer.public == image_key(public.read_bytes(), "team.pub")
    assert str(signer.public.fingerprint) == made["key"]
    private.unlink()
    expected = f"error: {public} is there already, and keys are never written over\nhint: say another name with -o\n"
    assert expected == refused("keygen", "-o", prefix, env=env)
    assert not private.exists()


def test_keygen_without_a_pass_phrase_has_to_be_said(tmp_path: Path) -> None:
    """Nobody gets an open key by accident."""
    env = {key: value for key, value in os.environ.items() if key != PASSWORD}
    done = subprocess.run(
        [shutil.which("env") or "env", "-u", PASSWORD, *_command("keygen", "-o", tmp_path / "a")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    assert (1, "error: Pass phrase of the new key: there is nobody to ask\nhint: set PESTO_REPRO_KEY_PASSWORD\n") == (
        done.returncode,
        done.stderr,
    )
    expected = "error: the pass phrase is empty\nhint: for a key without one say --no-password\n"
    assert expected == refused("keygen", "-o", tmp_path / "a", env={PASSWORD: ""})
    assert [] == list(tmp_path.iterdir())
    run("keygen", "-o", tmp_path / "a", "--no-password")
    image_signer((tmp_path / "a.key").read_bytes(), "a.key", nobody)


def _command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "pesto_repro", *map(str, arguments)]


@pytest.fixture
def signed(plain_registry: LiveRegistry, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """An image in a registry, signed with the key of cosign's file: its reference, and what ``sign`` said."""
    store = Store(tmp_path / "images")
    write_archive(make_image(make_layers(store)), "hello:1.0", tmp_path / "image.tar", store)
    (tmp_path / "cosign.key").write_text(COSIGN_KEY)
    (tmp_path / "cosign.pub").write_text(COSIGN_PUBLIC)
    reference = f"{plain_registry.host}/team/hello:1.0"
    run("push", tmp_path / "image.tar", reference)
    done = run("sign", reference, "--key", tmp_path / "cosign.key", "--json", env={PASSWORD: "s3cret"})
    return reference, json.loads(done.stdout)


@pytest.mark.judge
def test_sign_and_what_openssl_says(
    signed: tuple[str, dict[str, Any]], plain_registry: LiveRegistry, tmp_path: Path
) -> None:
    """The simple form: openssl verifies the layer by its annotation and nothing else."""
    said = signed[1]
    assert ["simple", "bundle"] == [each["form"] for each in said["signatures"]]
    tag = f"sha256-{Digest.parse(said['digest']).hex}.sig"
    run("copy", f"{plain_registry.host}/team/hello:{tag}", f"oci:{tmp_path}/sig")
    index = json.loads((tmp_path / "sig/index.json").read_text())
    blobs = tmp_path / "sig/blobs/sha256"
    (layer,) = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())["layers"]
    (tmp_path / "signature").write_bytes(base64.b64decode(layer["annotations"][SIGNATURE]))
    payload = blobs / layer["digest"][7:]
    assert said["digest"] == json.loads(payload.read_bytes())["critical"]["image"]["docker-manifest-digest"]
    check = [judge("openssl"), "dgst", "-sha256", "-verify", "cosign.pub", "-signature", "signature"]
    done = subprocess.run([*check, payload], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Verified OK\n" == done.stdout
    (tmp_path / "changed").write_bytes(payload.read_bytes().replace(b"sha256:", b"sha256;"))
    done = subprocess.run([*check, "changed"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Verification failure\n" == done.stdout


@pytest.mark.judge
def test_referrers_lists_and_fetches_the_bundle(signed: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    """``referrers`` shows type, digest and annotations; --get writes the file, verified."""
    reference, said = signed
    (entry,) = json.loads(run("referrers", reference, "--json").stdout)["referrers"]
    assert (BUNDLE, said["digest"]) == (entry["artifact_type"], entry["subject"])
    assert said["signatures"][1]["digest"] == entry["digest"]
    lines = run("referrers", reference, "--type", BUNDLE).stdout.splitlines()
    assert [entry["digest"], BUNDLE] == [lines[0].split()[0], lines[0].split()[-1]]
    assert "" == run("referrers", reference, "--type", "text/plain").stdout
    run("referrers", reference, "--get", BUNDLE, "-o", tmp_path / "bundle.json")
    assert BUNDLE == json.loads((tmp_path / "bundle.json").read_text())["mediaType"]
    expected = f"error: {reference} has no referrer text/plain; attached is: {BUNDLE}\n"
    assert expected == refused("referrers", reference, "--get", "text/plain", "-o", tmp_path / "x")


@pytest.mark.judge
def test_cosign_agrees(signed: tuple[str, dict[str, Any]], plain_registry: LiveRegistry, tmp_path: Path) -> None:
    """cosign, where there is one (Debian has none), accepts both forms, and neither for a changed image."""
    program = shutil.which("cosign")
    if program is None:
        pytest.skip("cosign is not installed; `go install github.com/sigstore/cosign/v3/cmd/cosign@latest` makes it")
    reference, _ = signed
    store = Store(tmp_path / "images")
    changed = make_image(make_layers(store)[:2])
    write_archive(changed, "hello:2.0", tmp_path / "changed.tar", store)
    run("push", tmp_path / "changed.tar", f"{plain_registry.host}/team/hello:2.0")
    check = [program, "verify", "--key", "cosign.pub", "--insecure-ignore-tlog=true", "--allow-http-registry"]
    env = {**os.environ, "HOME": str(tmp_path)}
    for form in ("--new-bundle-format=true", "--new-bundle-format=false"):
        for name, expected in ((reference, True), (f"{plain_registry.host}/team/hello:2.0", False)):
            done = subprocess.run([*check, form, name], cwd=tmp_path, env=env, capture_output=True, check=False)
            assert expected is (done.returncode == 0), done.stderr.decode()


def test_the_bundles_own_referrer(signer: ImageSigner) -> None:
    """The bundle is attached as cosign attaches its own: the type and the annotations that it looks for."""
    target = repository()
    sign(target, IMAGE, signer, at_once)
    (found,) = referrers(target, IMAGE.digest)
    assert BUNDLE == found.artifact_type
    assert {
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1",
    } == found.annotations
