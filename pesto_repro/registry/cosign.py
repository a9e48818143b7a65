"""Signatures of images, as cosign makes and checks them, by a key and without a log that everybody reads.

Two forms, so that every version of cosign, and whoever else reads either, finds one:

========== ===========================================================================================================
simple     containers-signature(5)'s JSON, as a layer of the image at the tag ``sha256-<hex>.sig``, with the signature
           as its annotation
bundle     a Sigstore bundle v0.3 with a DSSE envelope of an in-toto statement, attached as a referrer
========== ===========================================================================================================

What is signed names the digest, never a tag. Signing again makes the same bytes, and several keys' signatures stand
side by side. A signature that is not understood, or by another key, counts as none; only what holds is reported.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from pesto_repro.digest import Digest, canonical_json
from pesto_repro.errors import FetchError, PestoError
from pesto_repro.oci import Descriptor, MediaType
from pesto_repro.registry import shared_tag
from pesto_repro.registry.content import MANIFESTS, MAX_DOCUMENT, read_descriptor
from pesto_repro.registry.ports import Manifest, Repository
from pesto_repro.registry.referrers import Add, Artifact, Payload, attach, fetch, referrers, send_blob
from pesto_repro.registry.signing import ImageKey, ImageSigner

SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT = "application/vnd.in-toto+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
PREDICATE = "https://sigstore.dev/cosign/sign/v1"
_TYPE = "cosign container image signature"
_STATEMENTS = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")

Form = Literal["simple", "bundle"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One signature that is there, by whomever: *signed* are the bytes it is over, *image* the digest they name.

    *digest* is that of the layer or of the referrer that has it.
    """

    form: Form
    digest: Digest
    image: Digest
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    def holds(self, image: Digest, key: ImageKey) -> bool:
        """Whether it is *key*'s word that *image* is meant."""
        return self.image == image and key.verifies(self.signed, self.signature)


def signature_tag(image: Digest) -> str:
    """Where cosign keeps signatures of the simple form."""
    return f"sha256-{image.hex}.sig"


def simple_payload(name: str, image: Digest) -> bytes:
    """containers-signature(5), "JSON Data Format": what is signed in the simple form. *name*: HOST/REPOSITORY."""
    critical = {
        "identity": {"docker-reference": name},
        "image": {"docker-manifest-digest": str(image)},
        "type": _TYPE,
    }
    return canonical_json({"critical": critical, "optional": None})


def statement(image: Digest) -> bytes:
    """The in-toto statement that is signed in a bundle."""
    return canonical_json(
        {
            "_type": _STATEMENTS[0],
            "subject": [{"digest": {"sha256": image.hex}}],
            "predicateType": PREDICATE,
            "predicate": {},
        }
    )


def encoded(payload_type: str, payload: bytes) -> bytes:
    """DSSE v1, "Signature Definition": the pre-authentication encoding, which is what is signed."""
    return b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)


def bundle(payload: bytes, signer: ImageSigner) -> bytes:
    """*payload*, an in-toto statement, signed: sigstore_bundle.proto in its JSON form."""
    signature = signer.sign(encoded(STATEMENT, payload))
    return canonical_json(
        {
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": signer.public.hint}},
            "dsseEnvelope": {
                "payload": _base64(payload),
                "payloadType": STATEMENT,
                "signatures": [{"sig": _base64(signature)}],
            },
        }
    )


def sign(
    repository: Repository, image: Descriptor, signer: ImageSigner, add: Add = shared_tag.add
) -> tuple[Claim, ...]:
    """Sign *image*, which *repository* has, in both forms. Raises PestoError."""
    payload = simple_payload(f"{repository.host}/{repository.name}", image.digest)
    layer = Descriptor.of(SIMPLE, payload)
    signature = signer.sign(payload)
    send_blob(repository, layer, payload)
    entry = layer.document() | {"annotations": {SIGNATURE: _base64(signature)}}
    add(repository, signature_tag(image.digest), {_key(entry): entry}, Signatures())
    simple = Claim("simple", layer.digest, image.digest, payload, signature)
    return simple, _sign_bundle(repository, image, signer, add)


def _sign_bundle(repository: Repository, image: Descriptor, signer: ImageSigner, add: Add) -> Claim:
    signed = statement(image.digest)
    about = {"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": PREDICATE}
    artifact = Artifact(BUNDLE, (Payload(BUNDLE, bundle(signed, signer)),), about)
    (referrer,) = attach(repository, image, [artifact], add)
    (claim,) = _bundle_claims(referrer.descriptor.digest, artifact.payloads[0].data)
    return claim


def claims(repository: Repository, image: Digest) -> tuple[Claim, ...]:
    """Every signature of *image* that is there, not yet verified. Raises RegistryError."""
    found = list(_simple_claims(repository, image))
    for referrer in referrers(repository, image, BUNDLE):
        for payload in fetch(repository, image, referrer).payloads:
            found += _bundle_claims(referrer.descriptor.digest, payload.data)
    return tuple(found)


def require_signed(repository: Repository, name: str, image: Digest, key: ImageKey, where: str) -> tuple[Claim, ...]:
    """*image*, called *name*, is signed with *key*, which was read at *where*. Raises PestoError."""
    every = claims(repository, image)
    found = tuple(each for each in every if each.holds(image, key))
    if not found:
        others = f"none of its {len(every)} signatures is" if every else "it has no signature that is"
        raise PestoError(
            f"{name} is not signed with the key {where}: {others} by {key.fingerprint}",
            f"if you trust {image}, have it signed: pesto-repro sign REF --key KEY",
        )
    return found


class Signatures:
    """The image at the signature tag: a layer for each signature."""

    def read(self, manifest: Manifest) -> shared_tag.Entries:
        if manifest.media_type not in MANIFESTS:
            raise FetchError(f"{manifest.digest} is of the type {manifest.media_type}, which has no signatures")
        return {_key(each): each for each in json.loads(manifest.data)["layers"]}

    def write(self, entries: shared_tag.Entries, repository: Repository) -> Manifest:
        layers = [entries[key] for key in sorted(entries)]
        config = _config([str(each["digest"]) for each in layers])
        described = Descriptor.of(MediaType.CONFIG, config)
        send_blob(repository, described, config)
        document = {"schemaVersion": 2, "mediaType": MediaType.MANIFEST, "config": described.document()}
        data = canonical_json(document | {"layers": layers})
        return Manifest(MediaType.MANIFEST, Digest.of(data), data)


def _config(diff_ids: list[str]) -> bytes:
    """config.md: what an image's config must have. The layers are no archives; their digests are their diff_ids."""
    return canonical_json({"architecture": "", "os": "", "rootfs": {"type": "layers", "diff_ids": diff_ids}})


def _key(entry: Mapping[str, Any]) -> str:
    """Two keys sign the same payload: what tells layers apart is digest and signature."""
    digest = read_descriptor(entry).digest
    return f"{digest} {(entry.get('annotations') or {}).get(SIGNATURE)}"


def _simple_claims(repository: Repository, image: Digest) -> Iterator[Claim]:
    for entry in shared_tag.read(repository, signature_tag(image), Signatures()).values():
        layer = read_descriptor(entry)
        if layer.media_type == SIMPLE and layer.size <= MAX_DOCUMENT:
            payload = repository.read_blob(layer)
            yield from _understood(partial(_simple_claim, layer.digest, payload, entry))


def _simple_claim(layer: Digest, payload: bytes, entry: Mapping[str, Any]) -> list[Claim]:
    critical = json.loads(payload)["critical"]
    if critical["type"] != _TYPE:
        return []
    named = Digest.parse(critical["image"]["docker-manifest-digest"])
    return [Claim("simple", layer, named, payload, _from_base64(entry["annotations"][SIGNATURE]))]


def _bundle_claims(referrer: Digest, data: bytes) -> list[Claim]:
    return _understood(partial(_envelope_claims, referrer, data))


def _envelope_claims(referrer: Digest, data: bytes) -> list[Claim]:
    envelope = json.loads(data)["dsseEnvelope"]
    payload = _from_base64(envelope["payload"])
    document = json.loads(payload)
    known = document["_type"] in _STATEMENTS and document["predicateType"] == PREDICATE
    if not known or envelope["payloadType"] != STATEMENT:
        return []
    signed = encoded(STATEMENT, payload)
    return [
        Claim("bundle", referrer, Digest(subject["digest"]["sha256"]), signed, _from_base64(each["sig"]))
        for subject in document["subject"]
        for each in envelope["signatures"]
    ]


def _understood(read: Callable[[], list[Claim]]) -> list[Claim]:
    """What *read* finds; nothing in what is not of the form."""
    try:
        return read()
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return []


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
