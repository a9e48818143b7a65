"""A bundle as a place to build from: it is asked before the network, and what it gives is verified.

Rules: a bundle of another lock is refused, with what differs. A blob goes into the store when it is needed, hashed on
its way; a bundle that is truncated or altered is an error that says so, and never another image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

from pesto_repro.build.base import Source, Sources
from pesto_repro.bundle.make import ARTIFACT_TYPE
from pesto_repro.digest import Digest, chunks
from pesto_repro.errors import FetchError, LockError, MismatchError
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.drift import changes, drift
from pesto_repro.lock.model import Lock
from pesto_repro.oci import Descriptor
from pesto_repro.plan.make import LOCK_TYPE
from pesto_repro.progress import Reporter
from pesto_repro.registry.content import Document
from pesto_repro.registry.ports import Content
from pesto_repro.store import Store

_SHOWN = 20
"""How many differences of two locks are named."""


@dataclass(frozen=True)
class Bundle:
    """The bundle that *content* has, called *where* in messages. *lock* is the one that it was made of."""

    content: Content
    where: str
    lock: Lock
    blobs: Mapping[Digest, Descriptor]

    def bring(self, digest: Digest, store: Store, reporter: Reporter) -> None:
        """Have one of its *blobs* in *store*. Raises FetchError, MismatchError."""
        descriptor = self.blobs[digest]
        with (
            reporter.activity("unpack", digest.hex[:12], descriptor.size) as activity,
            self.content.open(descriptor) as stream,
            store.writer() as blob,
        ):
            for piece in chunks(stream):
                blob.write(piece)
                activity.advance(len(piece))
            if blob.commit() != digest:
                raise MismatchError(f"{self.where}: {digest} is not intact", "make or copy it again")

    def require(self, lock: Lock, mend: str) -> None:
        """It is the bundle of *lock*, or LockError says what differs; *mend* is the command that makes a new one."""
        if lock.content_hash == self.lock.content_hash:
            return
        lines = [*map(str, drift(self.lock.input, lock.input)), *changes(self.lock, lock)]
        lines = lines or [f"it is {self.lock.content_hash}, the project's is {lock.content_hash}"]
        more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise LockError(
            "\n  ".join([f"{self.where} is the bundle of another lock:", *lines[:_SHOWN], *more]), f"run `{mend}`"
        )


def read_bundle(content: Content, image: tuple[Document, ...], where: str) -> Bundle:
    """The bundle whose documents are *image*. Raises FetchError, LockError."""
    manifest = image[-1]
    try:
        artifact_type = json.loads(manifest.data).get("artifactType")
    except (ValueError, AttributeError) as error:
        raise FetchError(f"{where} has no manifest that can be read: {error}") from None
    locks = [each for each in manifest.blobs if each.media_type == LOCK_TYPE]
    if artifact_type != ARTIFACT_TYPE or not locks:
        kind = f"an artifact of the type {artifact_type}" if artifact_type else "an image"
        raise FetchError(f"{where} is no bundle but {kind}", "make a bundle with `pesto-repro vendor`")
    lock = lock_text.loads(content.document(locks[0]).decode(errors="replace"), f"{where}: the lock")
    return Bundle(content, where, lock, {each.digest: each for each in manifest.blobs})


@dataclass(frozen=True)
class Bundled:
    """What to build with, the *bundle* first."""

    bundle: Bundle
    store: Store
    reporter: Reporter

    def fetch(self, other: Callable[[Digest], None]) -> Callable[[Digest], None]:
        """What brings a pinned artifact into the store: out of the bundle, or what *other* does."""

        def bring(digest: Digest) -> None:
            if digest not in self.bundle.blobs:
                other(digest)
            elif not self.store.has(digest):
                self.bundle.bring(digest, self.store, self.reporter)

        return bring

    def sources(self, other: Sources) -> Sources:
        """Where bases lie: in the bundle, and only then where *other* says."""
        return lambda original: BundledSource(self.bundle, lambda: other(original))


@dataclass(frozen=True)
class BundledSource:
    """A base image whose blobs are in a bundle. What is not is asked of *other*."""

    bundle: Bundle
    other: Callable[[], Source]

    @cached_property
    def content(self) -> Content:
        return _Content(self.bundle, self.other)

    def root(self, digest: Digest | None = None) -> Descriptor:
        return self.other().root(digest)

    def current(self) -> Digest | None:
        return self.other().current()


@dataclass(frozen=True)
class _Content:
    """The Content port of both."""

    bundle: Bundle
    other: Callable[[], Source]

    def document(self, descriptor: Descriptor) -> bytes:
        found = self.bundle.blobs.get(descriptor.digest)
        return self.bundle.content.document(found) if found else self.other().content.document(descriptor)

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        found = self.bundle.blobs.get(descriptor.digest)
        return self.bundle.content.open(found) if found else self.other().content.open(descriptor)
