"""Two images, or two layers, side by side: what differs, down to the file and what about it.

Both layers are streamed: what is held in memory is what stands in one and not yet in the other, never a content. Of a
file the type, content, mode, owner, times and link target count; of a layer also the order of its entries.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import IO, Any, BinaryIO

from pesto_repro.build.compress import as_stream, decompressed
from pesto_repro.digest import CHUNK, Digest, chunks, hash_stream
from pesto_repro.errors import BuildError, FetchError
from pesto_repro.oci import HISTORY, MEDIA_TYPES, OCI_LAYERS, Descriptor
from pesto_repro.registry.content import Document
from pesto_repro.registry.ports import Content

ABSENT = "nothing"
"""How a value that is not there is called."""
NO_PLATFORM = "unknown/unknown"
"""What indices of others say of manifests that are no images: of attestations, above all."""
_COMPRESSION = {media_type: name for name, media_type in MEDIA_TYPES.items()}
_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.LNKTYPE: "hard link",
    tarfile.SYMTYPE: "link",
    tarfile.DIRTYPE: "directory",
}


# -- images ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """An image that can be read: its manifests and indices, bottom-up, and where its blobs are."""

    content: Content
    documents: tuple[Document, ...]

    @property
    def root(self) -> Descriptor:
        return self.documents[-1].descriptor

    @property
    def index(self) -> Document | None:
        """The index, if there is one."""
        return self.documents[-1] if self.documents[-1].children else None


@dataclass(frozen=True, slots=True)
class HeldLayer:
    """A layer of an image: *name* is what the history says of it, *diff_id* what the config claims."""

    descriptor: Descriptor
    diff_id: str | None
    name: str


@dataclass(frozen=True, slots=True)
class HeldPlatform:
    """One platform's part of an image; *platform* is "linux/amd64"."""

    platform: str
    manifest: Document
    config: Mapping[str, Any]
    layers: tuple[HeldLayer, ...]


def platforms(held: Held) -> dict[str, HeldPlatform]:
    """The parts of *held* by platform. Raises FetchError for a config that is none."""
    stated = {
        child.digest: platform
        for document in held.documents
        for child, platform in zip(document.children, document.platforms, strict=True)
    }
    found = {}
    for document in held.documents:
        if document.blobs:
            config = read_config(document, held.content)
            said = [config.get(key) for key in ("os", "architecture", "variant")]
            name = str(stated.get(document.descriptor.digest) or "/".join(str(each) for each in said if each))
            found[name] = HeldPlatform(name, document, config, tuple(_layers(document, config)))
    return found


def read_config(manifest: Document, content: Content) -> Mapping[str, Any]:
    """The config document of *manifest*. Raises FetchError."""
    descriptor = manifest.blobs[0]
    try:
        config = json.loads(content.document(descriptor))
    except ValueError as error:
        raise FetchError(f"the config {descriptor.digest} is no JSON document: {error}") from None
    return config if isinstance(config, dict) else {}


def labels_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The labels in *config*. config.md: they are OPTIONAL; others write null for none."""
    execution = config.get("config")
    labels = execution.get("Labels") if isinstance(execution, dict) else None
    return labels if isinstance(labels, dict) else {}


def _layers(manifest: Document, config: Mapping[str, Any]) -> Iterator[HeldLayer]:
    """config.md, "history": entries with "empty_layer" have no layer; others stand in the layers' order."""
    layers = manifest.blobs[1:]
    history = [str(each.get("created_by", "")) for each in config.get("history") or () if not each.get("empty_layer")]
    names = history if len(history) == len(layers) else [""] * len(layers)
    diff_ids: Sequence[str] = (config.get("rootfs") or {}).get("diff_ids") or ()
    for layer, diff_id, name in zip_longest(layers, diff_ids[: len(layers)], names):
        yield HeldLayer(layer, diff_id, name.removeprefix(f"{HISTORY} "))


# -- layers ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Summary:
    """One entry of a layer: all that can differ, of a file's content the digest."""

    path: str
    kind: str
    mode: int
    owner: str
    mtime: str
    target: str = ""
    size: int = 0
    content: str = ""

    def values(self) -> dict[str, str]:
        """What it is, by what one calls it."""
        found = {"type": self.kind, "content": self.content, "link target": self.target}
        return found | {"mode": f"{self.mode:04o}", "owner": self.owner, "mtime": self.mtime}


@dataclass(frozen=True, slots=True)
class Change:
    """What differs of the entry *path*, from *before* to *after*; "entry" is about the whole of it."""

    path: str
    what: str
    before: str
    after: str


class LayerReader:
    """The tar in a layer, read once from start to end: first its :meth:`entries`, then its :meth:`diff_id`."""

    def __init__(self, blob: BinaryIO, media_type: str) -> None:
        compression = _COMPRESSION.get(OCI_LAYERS.get(media_type, ""))
        if compression is None:
            raise BuildError(f"{media_type} is no layer that can be read")
        self._state = hashlib.sha256()
        self._tar = as_stream(self._hashed(decompressed(chunks(blob), compression)))

    def entries(self) -> Iterator[Summary]:
        """Every entry, in order. Raises BuildError for what is no tar, FetchError for what cannot be read."""
        for info, content in self.members():
            digest = str(hash_stream(content)[0]) if content is not None else ""  # type: ignore[arg-type]
            yield Summary(
                path=clean(info.name),
                kind=_KINDS.get(info.type, f"type {info.type!r}"),
                mode=info.mode,
                owner=f"{info.uid}:{info.gid}" + (f" ({info.uname}:{info.gname})" if info.uname or info.gname else ""),
                mtime=str(info.mtime),
                target=info.linkname,
                size=info.size,
                content=digest,
            )

    def members(self) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
        """Every entry, and the content of a file, to be read before the next entry is asked for."""
        try:
            with tarfile.open(fileobj=self._tar, mode="r|", encoding="utf-8") as archive:
                while (info := archive.next()) is not None:
                    yield info, archive.extractfile(info) if info.isreg() else None
                    archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps what it has seen
        except tarfile.TarError as error:
            raise BuildError(f"it is no tar: {error}") from None

    def diff_id(self) -> Digest:
        """The digest of the whole tar."""
        while self._tar.read(CHUNK):
            pass
        return Digest(self._state.hexdigest())

    def _hashed(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._state.update(piece)
            yield piece


@contextlib.contextmanager
def opened(content: Content, descriptor: Descriptor) -> Iterator[LayerReader]:
    """The layer *descriptor*, open."""
    with content.open(descriptor) as blob:
        yield LayerReader(blob, descriptor.media_type)


def clean(path: str) -> str:
    """*path* as ours are written: others say ``./usr/`` and ``/usr``."""
    return path.removeprefix("./").strip("/")


def changes(before: Iterable[Summary], after: Iterable[Summary]) -> Iterator[Change]:
    """What differs between the entries of two layers, in no particular order."""
    waiting: tuple[dict[str, list[Summary]], dict[str, list[Summary]]] = ({}, {})
    orders = (_Order(), _Order())
    for pair in zip_longest(before, after):
        for side, entry in enumerate(pair):
            if entry is None:
                continue
            orders[side].see(entry.path)
            others = waiting[1 - side].get(entry.path)
            if others is None:
                waiting[side].setdefault(entry.path, []).append(entry)
                continue
            other = others.pop(0)
            if not others:
                del waiting[1 - side][entry.path]
            yield from of_entry(other, entry) if side else of_entry(entry, other)
    yield from (Change(path, "entry", describe(each), ABSENT) for path, left in waiting[0].items() for each in left)
    yield from (Change(path, "entry", ABSENT, describe(each)) for path, left in waiting[1].items() for each in left)
    if orders[0].broken is None and orders[1].broken is not None:
        path, last = orders[1].broken
        yield Change(path, "order", "sorted by path", f"after {last}")


def of_entry(before: Summary, after: Summary) -> Iterator[Change]:
    """What differs between two entries of one path."""
    one, other = before.values(), after.values()
    for what, value in one.items():
        if value != other[what]:
            yield Change(before.path, what, value or ABSENT, other[what] or ABSENT)


def describe(entry: Summary) -> str:
    """The entry in some words."""
    return " ".join(filter(None, (entry.kind, entry.content, entry.target and f"to {entry.target}")))


class _Order:
    """Where a layer's entries are first not sorted by the parts of their paths: (path, the one before it)."""

    def __init__(self) -> None:
        self.broken: tuple[str, str] | None = None
        self._last = ""

    def see(self, path: str) -> None:
        if self.broken is None and self._last and path.split("/") < self._last.split("/"):
            self.broken = path, self._last
        self._last = path


# -- documents ---------------------------------------------------------------------------------------------------


def values(before: object, after: object, place: str = "") -> Iterator[tuple[str, object, object]]:
    """Where two JSON values differ: (key path, before, after), with ``None`` for what is not there.

    >>> list(values({"a": {"b": 1}, "c": [1]}, {"a": {"b": 2}, "c": [1, 2]}))
    [('a.b', 1, 2), ('c', [1], [1, 2])]
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from values(before.get(key), after.get(key), f"{place}.{key}" if place else key)
    elif before != after or isinstance(before, bool) != isinstance(after, bool):
        yield place, before, after


def config_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, object, object]]:
    """Where two configs differ (config.md), by key; diff_ids and history follow from the layers and are left out."""
    yield from values(_by_key(before), _by_key(after))


def _by_key(config: Mapping[str, Any]) -> dict[str, Any]:
    """*config* with its environment by name."""
    execution = dict(config.get("config") or {})
    environment: list[str] = execution.get("Env") or []
    execution["Env"] = dict(each.partition("=")[::2] for each in environment)
    rest = {key: value for key, value in config.items() if key not in ("rootfs", "history", "config")}
    return {**rest, **execution}


def said(value: object) -> str:
    """A JSON value in a line; one that is not there."""
    return ABSENT if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)
