"""What is attached to an image: artifacts of its own (a bill of materials, a signature) that name it as their subject.

image-spec, manifest.md, "subject"; distribution-spec, "Listing Referrers" and "Referrers Tag Schema".

* An artifact is a manifest with the empty config and its payloads as layers. Equal payloads make equal manifests, so
  attaching again changes nothing.
* A registry with the referrers API lists it by itself. In any other the list is an index at the tag
  ``sha256-<hex of the subject>``, which the clients keep (:mod:`~pesto_repro.registry.shared_tag`).
* A list is what a registry says. What is then fetched is verified: by its digest, and by the subject it names.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pesto_repro.digest import Digest, canonical_json
from pesto_repro.errors import FetchError
from pesto_repro.oci import Descriptor, MediaType
from pesto_repro.registry import shared_tag
from pesto_repro.registry.content import INDICES, read_descriptor
from pesto_repro.registry.ports import Manifest, Repository

TITLE = "org.opencontainers.image.title"
"""annotations.md: the name of the file that a payload was, and that other tools write it to."""
MAX_PAYLOAD = 256 << 20
_EMPTY = b"{}"
_EMPTY_CONFIG = Descriptor.of("application/vnd.oci.empty.v1+json", _EMPTY)
"""manifest.md, "Guidance for an Empty Descriptor"."""

Add = Callable[[Repository, str, shared_tag.Entries, shared_tag.Form], None]
"""How a list at a tag is added to: :func:`shared_tag.add`, or with other clocks."""


@dataclass(frozen=True, slots=True)
class Payload:
    """One blob of an artifact."""

    media_type: str
    data: bytes = field(repr=False)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor.of(self.media_type, self.data)

    @property
    def filename(self) -> str | None:
        """The file it was, if that is said."""
        return self.annotations.get(TITLE)


@dataclass(frozen=True, slots=True)
class Artifact:
    """What is attached, or was."""

    artifact_type: str
    payloads: tuple[Payload, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_file(cls, artifact_type: str, media_type: str, filename: str, data: bytes) -> Artifact:
        """The artifact that is one file."""
        return cls(artifact_type, (Payload(media_type, data, {TITLE: filename}),))


@dataclass(frozen=True, slots=True)
class Referrer:
    """What a list says of one artifact; *size* of the descriptor is its manifest's."""

    descriptor: Descriptor
    artifact_type: str
    annotations: Mapping[str, str]


def fallback_tag(subject: Digest) -> str:
    """distribution-spec, "Referrers Tag Schema": the algorithm, "-", the hex digits."""
    return f"sha256-{subject.hex}"


def manifest_of(artifact: Artifact, subject: Descriptor) -> Manifest:
    """The manifest that attaches *artifact* to *subject*."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MediaType.MANIFEST,
        "artifactType": artifact.artifact_type,
        "config": _EMPTY_CONFIG.document(),
        "layers": [_annotated(each.descriptor.document(), each.annotations) for each in artifact.payloads],
        "subject": subject.document(),
    }
    data = canonical_json(_annotated(document, artifact.annotations))
    return Manifest(MediaType.MANIFEST, Digest.of(data), data)


def attach(
    repository: Repository, subject: Descriptor, artifacts: Iterable[Artifact], add: Add = shared_tag.add
) -> tuple[Referrer, ...]:
    """Attach each of *artifacts* to *subject*. Raises RegistryError."""
    manifests = []
    for artifact in artifacts:
        for payload in artifact.payloads:
            send_blob(repository, payload.descriptor, payload.data)
        send_blob(repository, _EMPTY_CONFIG, _EMPTY)
        manifests.append(manifest_of(artifact, subject))
    return register(repository, subject.digest, manifests, add)


def register(
    repository: Repository, subject: Digest, manifests: Sequence[Manifest], add: Add = shared_tag.add
) -> tuple[Referrer, ...]:
    """Push *manifests*, whose blobs are there, so that they are listed as referrers of *subject*."""
    unlisted = [each for each in manifests if not repository.push_manifest(str(each.digest), each)]
    # There are registries that list referrers and do not say so with "OCI-Subject": these need no tag either.
    if unlisted and repository.referrers(subject) is None:
        entries = {str(each.digest): entry_of(each) for each in unlisted}
        add(repository, fallback_tag(subject), entries, _Index())
    return tuple(_referrer(entry_of(each)) for each in manifests)


def referrers(repository: Repository, subject: Digest, artifact_type: str | None = None) -> tuple[Referrer, ...]:
    """What is attached to *subject*, of one type or all, in an order of its own. Raises RegistryError."""
    entries = (_typed(repository, _referrer(each)) for each in _entries(repository, subject))
    listed = {each.descriptor.digest: each for each in entries}
    wanted = (each for each in listed.values() if artifact_type in (None, each.artifact_type))
    return tuple(sorted(wanted, key=lambda each: (each.artifact_type, each.descriptor.digest)))


def fetch(repository: Repository, subject: Digest, referrer: Referrer) -> Artifact:
    """The artifact itself, verified. Raises FetchError if it is another one's."""
    digest = referrer.descriptor.digest
    document = _json(repository.manifest(str(digest)).data, f"the referrer {digest}")
    try:
        named = Digest.parse(document["subject"]["digest"])
        layers = [(read_descriptor(each), dict(each.get("annotations") or {})) for each in document["layers"]]
        said = str(document.get("artifactType") or document["config"]["mediaType"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _malformed(f"the referrer {digest}", error) from None
    if named != subject:
        raise FetchError(f"{digest} is listed as a referrer of {subject}, but is one of {named}")
    payloads = tuple(Payload(each.media_type, _read_blob(repository, each), about) for each, about in layers)
    return Artifact(said, payloads, dict(document.get("annotations") or {}))


def entry_of(manifest: Manifest) -> dict[str, Any]:
    """How a list names *manifest*: its descriptor, with its artifact's type and annotations."""
    document = json.loads(manifest.data)
    described = Descriptor(manifest.media_type, manifest.digest, len(manifest.data)).document()
    # distribution-spec, "Listing Referrers": artifactType is the manifest's, else its config's media type.
    said = document.get("artifactType") or (document.get("config") or {}).get("mediaType")
    return _annotated(described | ({"artifactType": said} if said else {}), document.get("annotations") or {})


class _Index:
    """The list at the fallback tag. An entry of somebody else is kept as it is."""

    def read(self, manifest: Manifest) -> shared_tag.Entries:
        if manifest.media_type not in INDICES:
            raise FetchError(f"{manifest.digest} is of the type {manifest.media_type}, which lists no referrers")
        return {str(read_descriptor(each).digest): each for each in json.loads(manifest.data)["manifests"]}

    def write(self, entries: shared_tag.Entries, repository: Repository) -> Manifest:
        listed = [entries[key] for key in sorted(entries)]
        data = canonical_json({"schemaVersion": 2, "mediaType": MediaType.INDEX, "manifests": listed})
        return Manifest(MediaType.INDEX, Digest.of(data), data)


def _entries(repository: Repository, subject: Digest) -> Iterable[Any]:
    """The descriptors of the referrers API, or else of the index at the fallback tag."""
    pages = repository.referrers(subject)
    if pages is None:
        return shared_tag.read(repository, fallback_tag(subject), _Index()).values()
    what = f"the list of what refers to {subject}"
    try:
        return [each for page in pages for each in _json(page, what)["manifests"]]
    except (KeyError, TypeError) as error:
        raise _malformed(what, error) from None


def _referrer(entry: Mapping[str, Any]) -> Referrer:
    try:
        annotations = {str(key): str(value) for key, value in (entry.get("annotations") or {}).items()}
        return Referrer(read_descriptor(entry), str(entry.get("artifactType") or ""), annotations)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _malformed("a list of referrers", error) from None


def _typed(repository: Repository, referrer: Referrer) -> Referrer:
    """With its own type: lists of registries that do not know "artifactType" have the empty config's, or none."""
    if referrer.artifact_type not in ("", _EMPTY_CONFIG.media_type):
        return referrer
    return _referrer(entry_of(repository.manifest(str(referrer.descriptor.digest))))


def send_blob(repository: Repository, descriptor: Descriptor, data: bytes) -> None:
    """Send a small blob, unless it is there."""
    if not repository.has_blob(descriptor.digest):
        repository.push_blob(descriptor, partial(io.BytesIO, data))


def _read_blob(repository: Repository, descriptor: Descriptor) -> bytes:
    if descriptor.size > MAX_PAYLOAD:
        raise FetchError(f"the payload {descriptor.digest} is too large: {descriptor.size} bytes")
    return repository.read_blob(descriptor)


def _annotated(document: dict[str, Any], annotations: Mapping[str, str]) -> dict[str, Any]:
    return document | ({"annotations": dict(annotations)} if annotations else {})


def _json(data: bytes, what: str) -> Mapping[str, Any]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise _malformed(what, error) from None
    if not isinstance(found, dict):
        raise FetchError(f"{what} is no JSON object")
    return found


def _malformed(what: str, error: Exception) -> FetchError:
    return FetchError(f"{what} is not what the image-spec says: {type(error).__name__}: {error}")
