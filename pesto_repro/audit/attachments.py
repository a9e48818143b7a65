"""What travels with an image in a registry: its lock, its bills of materials, its provenance.

``push --attach`` makes a referrer of each. Nothing else than an :class:`Attachment` is needed for that: its type, its
bytes, the name of the file that it would be, and the manifest or index that it is about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pesto_repro.audit import cyclonedx, spdx
from pesto_repro.audit.contents import contents
from pesto_repro.audit.provenance import Builder, Commit, statement, subjects
from pesto_repro.audit.scan import manifests
from pesto_repro.digest import Digest
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.model import Lock
from pesto_repro.plan.make import LOCK_TYPE
from pesto_repro.registry.content import Document
from pesto_repro.registry.ports import Content

CYCLONEDX_TYPE = "application/vnd.cyclonedx+json"
SPDX_TYPE = "application/spdx+json"
PROVENANCE_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A document about an image. *subject* is the image's root, or the manifest of the one platform it is about."""

    artifact_type: str
    media_type: str
    filename: str
    data: bytes = field(repr=False)
    subject: Digest


def of_project(
    content: Content,
    image: Sequence[Document],
    lock: Lock,
    reference: str,
    builder: Builder,
    commit: Commit | None = None,
) -> tuple[Attachment, ...]:
    """Everything about *image* (bottom-up, as ``documents`` gives it), which was made from *lock*.

    A bill of materials is of one platform, so its subject is that platform's manifest; lock and provenance are about
    the whole. Only the provenance says who built, when and from what commit: the rest is the same for equal images.
    """
    root = image[-1].descriptor.digest
    made = statement(subjects(image, reference), lock, builder, commit)
    return (
        Attachment(LOCK_TYPE, LOCK_TYPE, "lock.toml", lock_text.dumps(lock).encode(), root),
        *_bills(content, image, lock),
        Attachment(PROVENANCE_TYPE, PROVENANCE_TYPE, "provenance.intoto.json", made, root),
    )


def _bills(content: Content, image: Sequence[Document], lock: Lock) -> Iterator[Attachment]:
    for manifest in manifests(image):
        found, subject = contents(manifest, content, lock), manifest.descriptor.digest
        yield Attachment(CYCLONEDX_TYPE, CYCLONEDX_TYPE, "bom.cdx.json", cyclonedx.document(found), subject)
        yield Attachment(SPDX_TYPE, SPDX_TYPE, "bom.spdx.json", spdx.document(found), subject)
