"""A lock -> the manifest of its bundle. The bytes that it names are in the store, or it is not made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pesto_repro.digest import Digest, canonical_json
from pesto_repro.errors import BuildError
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.model import Lock
from pesto_repro.lock.pins import Kind, PinnedFile, pinned_files
from pesto_repro.oci import OCI_LAYERS, Descriptor, MediaType
from pesto_repro.plan.make import LOCK_LABEL, LOCK_TYPE
from pesto_repro.registry.content import MAX_DOCUMENT, StoreContent
from pesto_repro.store import Store

ARTIFACT_TYPE = "application/vnd.pesto-repro.bundle.v1"
# manifest.md, "Guidance for an Empty Descriptor": "application/vnd.oci.empty.v1+json" with the content "{}".
EMPTY = Descriptor.of("application/vnd.oci.empty.v1+json", b"{}")
TITLE = "org.opencontainers.image.title"

_PLACES: dict[Kind, tuple[str, str]] = {
    "wheel": ("wheels", "application/vnd.pesto-repro.wheel.v1+zip"),
    "deb": ("debs", "application/vnd.debian.binary-package"),
    "resource": ("resources", "application/octet-stream"),
    "source": ("sources", "application/vnd.pesto-repro.source.v1"),
    "config": ("base", MediaType.CONFIG),
    "layer": ("base", MediaType.LAYER),
}
"""Kind of pin -> its folder, and the media type of its bytes."""


@dataclass(frozen=True, slots=True)
class Part:
    """One blob of a bundle, and its title."""

    descriptor: Descriptor
    title: str

    def document(self) -> dict[str, Any]:
        return self.descriptor.document() | {"annotations": {TITLE: self.title}}


@dataclass(frozen=True)
class BundleImage:
    """The bundle of *lock*, as an image whose layers are *parts*."""

    lock: Lock
    parts: tuple[Part, ...]
    lock_text: bytes

    @cached_property
    def manifest(self) -> bytes:
        """The same for equal locks. Raises BuildError if it is larger than registries take."""
        document = {
            "schemaVersion": 2,
            "mediaType": MediaType.MANIFEST,
            "artifactType": ARTIFACT_TYPE,
            "config": EMPTY.document(),
            "layers": [each.document() for each in self.parts],
            "annotations": {LOCK_LABEL: self.lock.content_hash, TITLE: self.lock.input.name},
        }
        data = canonical_json(document)
        if len(data) > MAX_DOCUMENT:
            raise BuildError(f"the bundle's manifest has {len(data)} bytes; registries take at most {MAX_DOCUMENT}")
        return data

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor.of(MediaType.MANIFEST, self.manifest)

    def content(self, store: Store) -> StoreContent:
        """Its bytes, out of *store*."""
        documents = {self.descriptor.digest: self.manifest, EMPTY.digest: b"{}"}
        return StoreContent({**documents, Digest.of(self.lock_text): self.lock_text}, store)


def bundle_of(lock: Lock) -> BundleImage:
    """The bundle of *lock*. Nothing is read."""
    text = lock_text.dumps(lock).encode()
    first = Part(Descriptor.of(LOCK_TYPE, text), f"{lock.input.name}.lock.toml")
    return BundleImage(lock, (first, *_parts(pinned_files(lock))), text)


def _parts(pins: Sequence[PinnedFile]) -> Iterator[Part]:
    """Each with a title of its own: of several with one name, all but the first have their digest in it."""
    used: set[str] = set()
    for pin in pins:
        folder, media_type = _PLACES[pin.kind]
        title = f"{folder}/{pin.name}"
        if title in used:
            title = f"{folder}/{pin.digest.hex}/{pin.name}"
        used.add(title)
        said = OCI_LAYERS.get(pin.media_type or "", media_type)
        yield Part(Descriptor(said, pin.digest, pin.size), title)
