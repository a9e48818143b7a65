"""What the layers of an image say of themselves: the documents by which packages are known, and small files' digests.

Each layer is read once, from start to end, from the base up; later layers win and whiteouts hide (layer.md,
"Whiteouts"). These are the paths that scanners of others look at, so what is found here is what they find.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from pesto_repro.audit.compare import NO_PLATFORM, clean, opened
from pesto_repro.digest import Digest
from pesto_repro.errors import BuildError, FetchError
from pesto_repro.oci import HISTORY, Descriptor
from pesto_repro.plan.make import LOCK_PLACE
from pesto_repro.registry.content import BASE, Document
from pesto_repro.registry.ports import Content

OS_RELEASE = ("etc/os-release", "usr/lib/os-release")
"""os-release(5): the first takes precedence."""
HASHED = frozenset(["algorithm", "configuration", "lock"])
"""The sections whose files are listed one by one."""
_DOCUMENTS = re.compile(
    r"(?:.*/)?(?:site|dist)-packages/[^/]+(?:\.dist-info/METADATA|\.egg-info(?:/PKG-INFO)?)"
    r"|var/lib/dpkg/(?:status|status\.d/(?!.*\.md5sums)[^/]+)"
    r"|usr/share/doc/[^/]+/copyright"
    rf"|{'|'.join(map(re.escape, (LOCK_PLACE, *OS_RELEASE)))}"
)
_DOC_LINK = re.compile(r"usr/share/doc/[^/]+(?:/copyright)?")
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_LIMIT = 64 << 20
"""Bytes of a document; what is larger is none."""
_LINKS_FOLLOWED = 40
"""path_resolution(7): as many as Linux follows."""


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """A layer of an image: the *section* of it ("base", "python"...) and what the history calls it."""

    number: int
    section: str
    name: str
    descriptor: Descriptor
    diff_id: Digest


@dataclass(frozen=True, slots=True)
class Found:
    """A path of an image: a document with its *data*, a file with its digests, or a link with its *target*."""

    path: str
    layer: ImageLayer
    data: bytes | None = None
    sha256: str | None = None
    sha1: str | None = None
    size: int = 0
    executable: bool = False
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a container would see of the paths that matter."""

    paths: Mapping[str, Found]

    def document(self, path: str) -> Found | None:
        """The document at *path*, links followed; None if there is none."""
        for _ in range(_LINKS_FOLLOWED):
            found = self.paths.get(path)
            if found is not None and found.target is None:
                return found if found.data is not None else None
            path = self._resolved(path)
        return None

    def _resolved(self, path: str) -> str:
        """*path* with its first link followed; the same if no part of it is a link."""
        parts = path.split("/")
        for number in range(1, len(parts) + 1):
            link = self.paths.get("/".join(parts[:number]))
            if link is not None and link.target is not None:
                target = posixpath.join("/" + posixpath.dirname(link.path), link.target, *parts[number:])
                return posixpath.normpath(target).lstrip("/")
        return path


def manifests(image: Sequence[Document]) -> list[Document]:
    """The manifests of *image*, one for each platform, in the order of its index. What is for none is no image."""
    root = image[-1]
    if not root.children:
        return [root]
    found = {each.descriptor.digest: each for each in image if each.blobs}
    pairs = zip(root.children, root.platforms, strict=True)
    return [found[each.digest] for each, stated in pairs if each.digest in found and str(stated) != NO_PLATFORM]


def image_layers(manifest: Document, config: Mapping[str, Any]) -> tuple[ImageLayer, ...]:
    """The layers of *manifest* by its *config*: those whose history is not ours are the base's."""
    layers = manifest.blobs[1:]
    try:
        diff_ids = [Digest.parse(each) for each in config["rootfs"]["diff_ids"]]
        said = [
            str(each.get("created_by") or "") for each in config.get("history") or () if not each.get("empty_layer")
        ]
        said += [""] * (len(layers) - len(said))
        return tuple(
            ImageLayer(number, *_section(text), layer, diff_id)
            for number, (layer, diff_id, text) in enumerate(zip(layers, diff_ids, said, strict=True), 1)
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise FetchError(f"the config of {manifest.descriptor.digest} is not that of its layers: {reason}") from None


def _section(created_by: str) -> tuple[str, str]:
    prefix, _, rest = created_by.partition(" ")
    section, colon, name = rest.partition(": ")
    return (section, name) if prefix == HISTORY and colon else (BASE, created_by)


def readable(path: str) -> str:
    """*path* as a document can hold it: a name that is no UTF-8 has its bytes spelled out."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def scan(layers: Sequence[ImageLayer], content: Content) -> Scanned:
    """Read every layer. Raises FetchError for one that cannot be read."""
    paths: dict[str, Found] = {}
    for layer in layers:
        found, gone, emptied = _read(layer, content)
        _hide(paths, gone, emptied)
        paths.update((each.path, each) for each in found)
    return Scanned(paths)


def _hide(paths: dict[str, Found], gone: set[str], emptied: set[str]) -> None:
    """layer.md: "Whiteout files MUST only apply to resources in lower/parent layers"."""
    for path in list(paths):
        if path in gone or any(folder in gone or folder in emptied for folder in _folders(path)):
            del paths[path]


def _folders(path: str) -> Iterator[str]:
    """Every folder that *path* lies in, the root ("") last."""
    while path:
        path = posixpath.dirname(path)
        yield path


def _read(layer: ImageLayer, content: Content) -> tuple[list[Found], set[str], set[str]]:
    """What *layer* has, the paths that it hides or replaces, and the folders of which it hides all."""
    found: list[Found] = []
    gone: set[str] = set()
    emptied: set[str] = set()
    try:
        with opened(content, layer.descriptor) as reader:
            for info, data in reader.members():
                _member(info, data, layer, found, gone, emptied)
            reader.diff_id()  # to the end, so that all of it was verified
    except BuildError as error:
        raise FetchError(f"the layer {layer.descriptor.digest} cannot be read: {error}") from None
    return found, gone, emptied


def _member(
    info: tarfile.TarInfo,
    content: IO[bytes] | None,
    layer: ImageLayer,
    found: list[Found],
    gone: set[str],
    emptied: set[str],
) -> None:
    path = clean(readable(info.name))
    folder, name = posixpath.split(path)
    if name == _OPAQUE:
        emptied.add(folder)
    elif name.startswith(_WHITEOUT):
        gone.add(posixpath.join(folder, name.removeprefix(_WHITEOUT)))
    elif info.issym():
        gone.add(path)
        if _DOC_LINK.fullmatch(path) or path in OS_RELEASE or "/" not in path:
            found.append(Found(path, layer, target=info.linkname))
    elif content is not None:
        gone.add(path)
        found += _file(info, content, path, layer)
    elif info.islnk() and _DOCUMENTS.fullmatch(path):
        target = clean(info.linkname)
        found += [Found(path, layer, each.data) for each in found if each.path == target]


def _file(info: tarfile.TarInfo, stream: IO[bytes], path: str, layer: ImageLayer) -> Iterable[Found]:
    if _DOCUMENTS.fullmatch(path):
        if info.size > _LIMIT:
            raise FetchError(f"{path} in the layer {layer.descriptor.digest} is too large: {info.size} bytes")
        data = stream.read()
        sha256, sha1 = hashlib.sha256(data).hexdigest(), _sha1(data).hexdigest()
        return [Found(path, layer, data, sha256, sha1, info.size, bool(info.mode & 0o100))]
    if layer.section in HASHED:
        return [Found(path, layer, None, *_digests(stream), info.size, bool(info.mode & 0o100))]
    return ()


def _digests(stream: IO[bytes]) -> tuple[str, str]:
    sha256, sha1 = hashlib.sha256(), _sha1()
    while piece := stream.read(1 << 20):
        sha256.update(piece)
        sha1.update(piece)
    return sha256.hexdigest(), sha1.hexdigest()


def _sha1(data: bytes = b"") -> hashlib._Hash:
    """SPDX 2.3, 8.4: every file has a SHA1, whatever else it has."""
    return hashlib.sha1(data, usedforsecurity=False)
