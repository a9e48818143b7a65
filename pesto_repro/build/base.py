"""The base image: where it lies, its config, and its layers where their bytes must be at hand.

A base's layers are only in the store when an archive or a layout was written on them. A push does without: a registry
that has the base mounts them, or is sent them from where they lie.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pesto_repro.digest import Digest, chunks
from pesto_repro.errors import FetchError, MismatchError
from pesto_repro.lock.model import BaseImage, Lock
from pesto_repro.oci import OCI_LAYERS, Base, Descriptor, Layer, MediaType
from pesto_repro.progress import Reporter
from pesto_repro.project import layout_path
from pesto_repro.registry.content import BASE, LayoutContent, RemoteContent
from pesto_repro.registry.ports import Content
from pesto_repro.registry.reference import RemoteReference
from pesto_repro.store import Store

_PARALLEL = 4


class Source(Protocol):
    """A place that a base image is in. Methods raise FetchError."""

    @property
    def content(self) -> Content:
        """Its bytes."""

    def root(self, digest: Digest | None = None) -> Descriptor:
        """The manifest or index that the base's name leads to now; the one of *digest*, if that is still there."""

    def current(self) -> Digest | None:
        """The digest of what the name leads to now, asked as cheaply as can be; None if that cannot change."""


@dataclass(frozen=True, slots=True)
class RemoteSource:
    """A repository of a registry, and what to ask it for."""

    content: RemoteContent
    reference: RemoteReference

    def root(self, digest: Digest | None = None) -> Descriptor:
        return self.content.root(str(digest) if digest else self.reference.target)

    def current(self) -> Digest | None:
        return None if self.reference.digest else self.content.repository.has_manifest(self.reference.target)


@dataclass(frozen=True, slots=True)
class LayoutSource:
    """A layout folder or an archive."""

    content: LayoutContent

    def root(self, digest: Digest | None = None) -> Descriptor:
        found = self.content.root()
        if digest not in (None, found.digest):
            raise MismatchError(
                f"{self.content.path} is not what was locked: expected {digest}, it has {found.digest}",
                "if the change is wanted, lock again with -U",
            )
        return found

    def current(self) -> Digest | None:
        return self.content.root().digest


Sources = Callable[[str], Source]
"""Where a base lies, by its name as the lock has it. Raises PestoError."""


def layout_source(original: str, root: Path) -> LayoutSource | None:
    """The source of ``oci:DIR`` or ``oci-archive:FILE``, relative to the project's *root*; None for another name."""
    path = layout_path(original)
    return LayoutSource(LayoutContent.at(root / path)) if path is not None else None


def config_of(base: BaseImage, store: Store, sources: Sources) -> Mapping[str, Any]:
    """The config document of *base*, out of the store, or brought there. Raises FetchError."""
    digest = Digest.parse(base.config.digest)
    if store.has(digest):
        with store.open(digest) as stream:
            data = stream.read()
    else:
        data = sources(base.original).content.document(Descriptor(MediaType.CONFIG, digest, base.config.size))
        if store.put(data) != digest:
            raise MismatchError(f"the config of {base.original} is not what was locked: expected {digest}")
    found: Mapping[str, Any] = json.loads(data)
    return found


class Bases:
    """The base images of *lock*, and the content of their layers. Nobody is asked before something is lacking."""

    def __init__(self, lock: Lock, store: Store, sources: Sources, reporter: Reporter) -> None:
        self._store, self._sources, self._reporter = store, sources, reporter
        self._layers: dict[Digest, tuple[Layer, str]] = {
            layer.descriptor.digest: (layer, each.base.original)
            for each in lock.platforms
            if each.base is not None
            for layer in layers_of(each.base)
        }

    def image(self, locked: BaseImage | None) -> Base | None:
        """What an image stands on, as the assembly wants it; None for one that stands on no other."""
        if locked is None:
            return None
        return Base(tuple(layers_of(locked)), config_of(locked, self._store, self._sources))

    def mountable(self, host: str) -> dict[Digest, str]:
        """The layers that a registry has already, if it is on *host*, and in which of its repositories."""
        found = {}
        for digest, (_, original) in self._layers.items():
            reference = None if layout_path(original) else RemoteReference.parse(original)
            if reference is not None and reference.host == host:
                found[digest] = reference.repository
        return found

    def document(self, descriptor: Descriptor) -> bytes:
        """The Content port: no document of a base is part of an image of ours. Raises FetchError."""
        raise FetchError(f"{descriptor.digest} is no layer of the base image")

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        """The Content port: a layer from where the base lies, not kept. Raises FetchError."""
        layer, original = self._layers[descriptor.digest]
        return self._sources(original).content.open(layer.descriptor)

    def bring(self, digests: Collection[Digest]) -> frozenset[Digest]:
        """Have those of *digests* that are base layers in the store; the others. Raises FetchError."""
        wanted = sorted(digest for digest in digests if digest in self._layers)
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="base") as pool:
            list(pool.map(self._bring, wanted))
        return frozenset(digests) - frozenset(wanted)

    def _bring(self, digest: Digest) -> None:
        layer, original = self._layers[digest]
        with (
            self._reporter.activity("download", f"{original} {digest.hex[:12]}", layer.descriptor.size) as activity,
            self.open(layer.descriptor) as stream,
            self._store.writer() as blob,
        ):
            for piece in chunks(stream):
                blob.write(piece)
                activity.advance(len(piece))
            if blob.commit() != digest:
                raise MismatchError(f"a layer of {original} is not what was locked: expected {digest}")


def layers_of(base: BaseImage) -> Iterator[Layer]:
    """The layers of *base*, from the bottom up, in OCI's words: an image is of one dialect."""
    for each in base.layers:
        media_type = OCI_LAYERS.get(each.media_type)
        if media_type is None:
            raise FetchError(f"{base.original} has a layer of the type {each.media_type}, which cannot be copied")
        described = Descriptor(media_type, Digest.parse(each.digest), each.size)
        yield Layer(BASE, base.original, "", described, Digest.parse(each.diff_id))
