"""What goes with an image when it is copied whole: its referrers, theirs, and signatures at cosign's tags.

All of it is moved byte for byte, so that it is attached, and signed, as it was. Beside an archive or a layout, whose
index.json names one image only, it is a layout of its own: an entry for each, a signature's with its tag as its name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pesto_repro.digest import Digest
from pesto_repro.errors import FetchError
from pesto_repro.oci import Descriptor
from pesto_repro.progress import Reporter
from pesto_repro.registry import shared_tag
from pesto_repro.registry.content import REF_NAME, Document, LayoutContent, read_document
from pesto_repro.registry.cosign import Signatures, signature_tag
from pesto_repro.registry.ports import Content, Manifest, Repository
from pesto_repro.registry.referrers import Add, entry_of, referrers, register
from pesto_repro.registry.transfer import push

_SIGNATURE_TAG = re.compile(r"sha256-[0-9a-f]{64}\.sig")


@dataclass(frozen=True, slots=True)
class Companion:
    """A manifest that is there because of another: a referrer of *subject*, or what is at *tag*."""

    document: Document
    subject: Digest | None = None
    tag: str | None = None

    @property
    def manifest(self) -> Manifest:
        described = self.document.descriptor
        return Manifest(described.media_type, described.digest, self.document.data)

    def entry(self) -> dict[str, Any]:
        """How an index.json names it (image-layout.md)."""
        found = entry_of(self.manifest)
        return found | ({"annotations": {REF_NAME: self.tag}} if self.tag else {})


def in_repository(repository: Repository, image: Sequence[Document]) -> tuple[Companion, ...]:
    """Everything that goes with *image*, sorted. Raises RegistryError."""
    found: dict[Digest, Companion] = {}
    pending = [each.descriptor.digest for each in image]
    while pending:
        for companion in _of(repository, pending.pop()):
            if companion.document.descriptor.digest not in found:
                found[companion.document.descriptor.digest] = companion
                pending.append(companion.document.descriptor.digest)
    return tuple(found[digest] for digest in sorted(found))


def in_layout(layout: LayoutContent) -> tuple[Companion, ...]:
    """Everything that a layout written beside an image has. Raises FetchError."""
    return tuple(_read(layout.document(each), each, name) for each, name in layout.entries())


def send(
    content: Content,
    companions: Sequence[Companion],
    repository: Repository,
    reporter: Reporter,
    add: Add = shared_tag.add,
) -> None:
    """Have *companions*, whose blobs *content* has, in *repository*, which has the image. Raises RegistryError."""
    groups: dict[Digest, list[Manifest]] = {}
    for each in companions:
        push(content, [each.document], repository, [], reporter=reporter)
        if each.tag is not None:
            _tag(each.manifest, each.tag, repository, add)
        elif each.subject is not None:
            groups.setdefault(each.subject, []).append(each.manifest)
    for subject, manifests in groups.items():
        register(repository, subject, manifests, add)


def _of(repository: Repository, digest: Digest) -> Iterator[Companion]:
    """What refers to *digest*, and the signatures at its tag."""
    for referrer in referrers(repository, digest):
        yield _companion(repository.manifest(str(referrer.descriptor.digest)), None)
    tag = signature_tag(digest)
    signed = repository.has_manifest(tag)
    if signed is not None:
        yield _companion(repository.manifest(str(signed)), tag)


def _companion(manifest: Manifest, tag: str | None) -> Companion:
    return _read(manifest.data, Descriptor(manifest.media_type, manifest.digest, len(manifest.data)), tag)


def _read(data: bytes, descriptor: Descriptor, tag: str | None) -> Companion:
    document = read_document(descriptor, data)
    if tag is not None:
        if not _SIGNATURE_TAG.fullmatch(tag):  # a layout of somebody else's could move any tag
            raise FetchError(f"{descriptor.digest} is attached to nothing: {tag} is no tag of signatures")
        return Companion(document, tag=tag)
    try:
        return Companion(document, Digest.parse(json.loads(data)["subject"]["digest"]))
    except (KeyError, TypeError, ValueError):
        raise FetchError(f"{descriptor.digest} is attached to nothing: it has no subject") from None


def _tag(manifest: Manifest, tag: str, repository: Repository, add: Add) -> None:
    """The very manifest where there is none yet; else its signatures beside those that are there."""
    if repository.has_manifest(tag) is None:
        repository.push_manifest(tag, manifest)
    else:
        add(repository, tag, Signatures().read(manifest), Signatures())
