"""Where an image's bytes are, a store, an archive, a layout folder or a repository, and what an image consists of.

Whatever its place, content is read through one port (:class:`~pesto_repro.registry.ports.Content`): documents whole,
blobs as verified streams. An archive is never unpacked: a member is read from where it lies. Documents of others are
taken as they are; of them only what must be known to move an image is read (image-spec: manifest.md, image-index.md;
Docker's "Image Manifest V 2, Schema 2" has the same words).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from pesto_repro.digest import Digest
from pesto_repro.errors import FetchError, MismatchError
from pesto_repro.oci import Descriptor, Image, MediaType, Platform
from pesto_repro.registry.ports import Content, Repository
from pesto_repro.store import Store

INDICES = frozenset([MediaType.INDEX, "application/vnd.docker.distribution.manifest.list.v2+json"])
MANIFESTS = frozenset([MediaType.MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"])
MAX_DOCUMENT = 4 << 20
"""distribution-spec, "Pushing manifests": registries need not take larger manifests."""
REF_NAME = "org.opencontainers.image.ref.name"
"""annotations.md: what an index.json calls one of its entries."""
BASE = "base"
"""The kind of a layer that comes from the base image."""


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index, byte-exact, and what it names.

    *blobs* are a manifest's config, then its layers; *children* an index's manifests, *platforms* what it says of each.
    """

    descriptor: Descriptor
    data: bytes
    blobs: tuple[Descriptor, ...] = ()
    children: tuple[Descriptor, ...] = ()
    platforms: tuple[Platform | None, ...] = ()


class LostLayers(FetchError):
    """Layers (by digest of their blob) that should be in the store are not there, or not intact: make them again."""

    def __init__(self, digests: frozenset[Digest], reason: str) -> None:
        names = ", ".join(map(str, sorted(digests)))
        super().__init__(f"the store has no intact {names}: {reason}", "run the command again")
        self.digests = digests
        self.reason = reason


def documents(content: Content, root: Descriptor) -> tuple[Document, ...]:
    """The manifests and indices of the image *root*, each once, bottom-up: what others name comes before them."""
    found: dict[Digest, Document] = {}

    def collect(descriptor: Descriptor) -> None:
        if descriptor.digest in found:
            return
        document = read_document(descriptor, content.document(descriptor))
        for child in document.children:
            collect(child)
        found[descriptor.digest] = document

    collect(root)
    return tuple(found.values())


def read_document(descriptor: Descriptor, data: bytes) -> Document:
    """What the manifest or index *data* names. Raises FetchError for anything else."""
    try:
        value = json.loads(data)
        if descriptor.media_type in MANIFESTS:
            blobs = [read_descriptor(each) for each in (value["config"], *value["layers"])]
            return Document(descriptor, data, tuple(blobs))
        if descriptor.media_type in INDICES:
            children = tuple(read_descriptor(each) for each in value["manifests"])
            return Document(descriptor, data, (), children, tuple(map(_platform, value["manifests"])))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise FetchError(f"{descriptor.digest} is not what the image-spec says: {reason}") from None
    raise FetchError(f"{descriptor.digest} is of the type {descriptor.media_type}, which is no image")


def read_descriptor(value: Mapping[str, Any]) -> Descriptor:
    """descriptor.md: "mediaType", "digest" and "size" are REQUIRED. Raises KeyError, TypeError, ValueError."""
    size = value["size"]
    if not isinstance(size, int) or size < 0:
        raise ValueError(f"{size!r} is no size")
    return Descriptor(str(value["mediaType"]), Digest.parse(value["digest"]), size)


def blobs_of(found: Sequence[Document]) -> tuple[Descriptor, ...]:
    """Every config and layer that *found* names, each once."""
    return tuple({blob.digest: blob for document in found for blob in document.blobs}.values())


@dataclass(frozen=True, slots=True)
class StoreContent:
    """An image just put together: its documents at hand, its layers in *store*; those of a base may be in *base*.

    Raises LostLayers for a layer that the store has no more, and nobody else has.
    """

    found: Mapping[Digest, bytes]
    store: Store
    base: Content | None = None
    base_layers: frozenset[Digest] = frozenset()

    @classmethod
    def of(cls, image: Image, store: Store, base: Content | None = None) -> StoreContent:
        """The content of *image*."""
        kept = frozenset(digest for digest, layer in image.layers().items() if layer.kind == BASE)
        return cls(image.documents(), store, base, kept)

    def document(self, descriptor: Descriptor) -> bytes:
        return self.found[descriptor.digest]

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        digest = descriptor.digest
        if digest in self.found:
            return io.BytesIO(self.found[digest])
        path = self.store.path(digest)
        if digest in self.base_layers and self.base is not None and not path.exists():
            return self.base.open(descriptor)
        try:
            stream = path.open("rb", buffering=0)
        except OSError as error:
            raise LostLayers(frozenset([digest]), error.strerror or str(error)) from None
        return _verified(stream, descriptor, self._lost(digest))

    def _lost(self, digest: Digest) -> Callable[[str], FetchError]:
        def lost(reason: str) -> FetchError:
            self.store.discard(digest)
            return LostLayers(frozenset([digest]), reason)

        return lost


@dataclass(frozen=True, slots=True)
class LayoutContent:
    """An OCI layout (image-layout.md), a folder or an uncompressed archive, by the place of each of its files."""

    path: Path
    places: Mapping[str, tuple[Path, int, int]]
    """Name in the layout -> the file that holds it, offset, size."""

    @classmethod
    def at(cls, path: Path) -> LayoutContent:
        """The layout at *path*. Raises FetchError if it is none."""
        try:
            places = _folder_places(path) if path.is_dir() else _archive_places(path)
        except OSError as error:
            raise FetchError(f"{path} cannot be read: {error.strerror or error}") from None
        except tarfile.TarError as error:
            raise FetchError(f"{path} is no uncompressed tar archive: {error}", _hint(path)) from None
        if "index.json" not in places:
            raise FetchError(f"{path} is no OCI archive or layout: it has no index.json", _hint(path))
        return cls(path, places)

    def root(self) -> Descriptor:
        """The one image that index.json names. Raises FetchError if it names none, or several."""
        return self._entry()[0]

    def name(self) -> str | None:
        """What index.json calls the image: "org.opencontainers.image.ref.name"."""
        return self._entry()[1]

    def document(self, descriptor: Descriptor) -> bytes:
        if descriptor.size > MAX_DOCUMENT:
            raise FetchError(f"{self.path}: {descriptor.digest} is too large for a document: {descriptor.size} bytes")
        with self.open(descriptor) as stream:
            return stream.read()

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        digest = descriptor.digest
        place = self.places.get(f"blobs/sha256/{digest.hex}")
        if place is None:
            raise FetchError(f"{self.path} has no {digest}", "make or copy it again")
        if place[2] != descriptor.size:
            raise self._mismatch(digest)(f"it has {place[2]} bytes, not {descriptor.size}")
        return _verified(self._open(place), descriptor, self._mismatch(digest))

    def entries(self) -> list[tuple[Descriptor, str | None]]:
        """Everything that index.json names, and what it calls it. Raises FetchError."""
        with contextlib.closing(self._open(self.places["index.json"])) as stream:
            data = stream.read(min(self.places["index.json"][2], MAX_DOCUMENT))
        try:
            entries = json.loads(data)["manifests"]
            return [(read_descriptor(each), _name(each)) for each in entries]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise FetchError(f"{self.path}: index.json is not what the image-spec says: {reason}") from None

    def _entry(self) -> tuple[Descriptor, str | None]:
        read = self.entries()
        if len(read) != 1:
            names = ", ".join(name or str(descriptor.digest) for descriptor, name in read) or "none"
            raise FetchError(
                f"{self.path}: index.json must name exactly one image; it names {len(read)}: {names}",
                "copy the one you mean into a layout of its own, with skopeo for example",
            )
        return read[0]

    def _open(self, place: tuple[Path, int, int]) -> BinaryIO:
        path, offset, _ = place
        try:
            stream = path.open("rb", buffering=0)
            stream.seek(offset)
        except OSError as error:
            raise FetchError(f"{path} cannot be read: {error.strerror or error}") from None
        return cast(BinaryIO, stream)

    def _mismatch(self, digest: Digest) -> Callable[[str], FetchError]:
        return lambda reason: MismatchError(f"{self.path}: {digest} is not intact: {reason}", "make or copy it again")


@dataclass(frozen=True, slots=True)
class RemoteContent:
    """What a repository has. Nothing is kept on disk."""

    repository: Repository

    def document(self, descriptor: Descriptor) -> bytes:
        if descriptor.media_type in INDICES | MANIFESTS:
            return self.repository.manifest(str(descriptor.digest)).data
        if descriptor.size > MAX_DOCUMENT:
            raise FetchError(f"{descriptor.digest} is too large for a document: {descriptor.size} bytes")
        return self.repository.read_blob(descriptor)

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        return self.repository.open_blob(descriptor)

    def root(self, reference: str) -> Descriptor:
        """What the tag or digest *reference* names."""
        found = self.repository.manifest(reference)
        return Descriptor(found.media_type, found.digest, len(found.data))


class Verified(io.BufferedIOBase):
    """Reads what *descriptor* says from *stream*, and never gives the last byte of anything else.

    *failure* makes the error for a reason.
    """

    def __init__(self, stream: BinaryIO, descriptor: Descriptor, failure: Callable[[str], FetchError]) -> None:
        self._stream, self._descriptor, self._failure = stream, descriptor, failure
        self._state, self._left = hashlib.sha256(), descriptor.size

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any stream. A short answer is not the end, an empty one is. Raises FetchError."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        return self._piece(min(size, self._left)) if self._left and size else b""

    def read1(self, size: int = -1, /) -> bytes:
        return self.read(size)

    def close(self) -> None:
        self._stream.close()
        super().close()

    def _piece(self, size: int) -> bytes:
        try:
            data = self._stream.read(size)
        except OSError as error:
            raise self._failure(error.strerror or str(error)) from None
        if not data:
            raise self._failure(f"it ends {self._left} bytes too early")
        self._state.update(data)
        self._left -= len(data)
        if not self._left and self._state.hexdigest() != self._descriptor.digest.hex:
            raise self._failure(f"its digest is sha256:{self._state.hexdigest()}")
        return data


def _verified(
    stream: io.RawIOBase | BinaryIO, descriptor: Descriptor, failure: Callable[[str], FetchError]
) -> AbstractContextManager[BinaryIO]:
    return cast(BinaryIO, Verified(cast(BinaryIO, stream), descriptor, failure))


def _folder_places(folder: Path) -> dict[str, tuple[Path, int, int]]:
    paths = [path for path in (folder / "oci-layout", folder / "index.json") if path.is_file()]
    paths += (folder / "blobs/sha256").glob("*")
    return {path.relative_to(folder).as_posix(): (path, 0, path.stat().st_size) for path in paths}


def _archive_places(path: Path) -> dict[str, tuple[Path, int, int]]:
    with tarfile.open(path, "r:") as archive:
        return {name: (path, info.offset_data, info.size) for name, info in _members(archive)}


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The regular files; others' tars say ``./index.json``."""
    for info in archive:
        if info.isreg() and not info.issparse():
            yield info.name.removeprefix("./"), info


def _hint(path: Path) -> str:
    return f"convert it: skopeo copy docker-archive:{path} oci-archive:image.oci.tar"


def _platform(entry: Mapping[str, Any]) -> Platform | None:
    """image-index.md: "platform" is OPTIONAL."""
    stated = entry.get("platform")
    return Platform(stated["os"], stated["architecture"], stated.get("variant")) if stated else None


def _name(entry: Mapping[str, Any]) -> str | None:
    name = (entry.get("annotations") or {}).get(REF_NAME)
    return str(name) if name else None
