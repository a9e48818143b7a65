"""Holds a finished image, in an archive, a layout or a registry, against the image-spec: the validator every test uses.

It trusts nothing that wrote the image: every digest and size is computed anew, every layer is unpacked and read, and
what a layer holds must be what a container engine can take without harm. Of a base's layers, which others made, less is
asked: that they are what the documents say, and that a container engine can read them.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from pesto_repro.build.compress import as_stream, decompressed
from pesto_repro.digest import CHUNK, Digest, canonical_json, chunks, hash_stream
from pesto_repro.errors import FetchError, ImageError, PestoError
from pesto_repro.oci import HISTORY, MEDIA_TYPES, OCI_LAYERS, MediaType
from pesto_repro.registry.content import Document, LayoutContent, blobs_of, documents
from pesto_repro.registry.ports import Content

_COMPRESSION = {media_type: name for name, media_type in MEDIA_TYPES.items()}
_TAR_KINDS = {tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE}
_Found = Generator[str, None, dict[str, Any] | None]


def validate(path: Path) -> None:
    """Check the archive or layout at *path*. Raises ImageError that lists every violation."""
    try:
        if path.is_dir():
            violations = list(_Image(lambda name: (path / name).open("rb")).violations())
        else:
            with tarfile.open(path, "r:") as archive:
                violations = list(_Image(lambda name: _member(archive, name)).violations())
    except (tarfile.TarError, OSError) as error:
        raise ImageError([f"{path} cannot be read: {error}"]) from None
    if violations := violations or other_readings(path):
        raise ImageError(violations)


def other_readings(path: Path) -> list[str]:
    """In what the archive at *path* may be read as another image than the one that its index.json names.

    That is: what `docker load` goes by, members of one name, links. A folder is read in one way only. Raises
    FetchError.
    """
    if path.is_dir():
        return []
    with tarfile.open(path, "r:") as archive:
        members = [each for each in archive if not each.isdir()]
    counts = Counter(each.name.removeprefix("./") for each in members)
    found = [f"{name} is there {count} times" for name, count in counts.items() if count > 1]
    found += [f"{each.name} is no file" for each in members if not each.isreg()]
    return found or list(_loaded(LayoutContent.at(path)))


def _loaded(layout: LayoutContent) -> Iterator[str]:
    """`docker load` reads manifest.json: if there is one, it names what index.json does."""
    if "manifest.json" not in layout.places:
        return
    file, offset, size = layout.places["manifest.json"]
    with file.open("rb") as stream:
        stream.seek(offset)
        data = stream.read(size)
    image = documents(layout, layout.root())
    named = [[_path(blob.document()) for blob in each.blobs] for each in image if each.blobs]
    try:
        loaded = [[each["Config"], *each["Layers"]] for each in json.loads(data)]
    except (KeyError, TypeError, ValueError) as error:
        yield f"manifest.json is not what `docker load` reads: {type(error).__name__}: {error}"
        return
    if any(each not in named for each in loaded):
        yield "manifest.json, which `docker load` reads, does not name what index.json does"


def validate_content(content: Content, image: Sequence[Document]) -> None:
    """The same of an *image* (its documents, bottom-up) that lies elsewhere; what *content* gives, it verifies itself.

    Each layer is read once, as a stream. Raises ImageError that lists every violation.
    """
    root = image[-1].descriptor
    frame = {"oci-layout": {"imageLayoutVersion": "1.0.0"}, "index.json": {"manifests": [root.document()]}}
    blobs = {_path(each.document()): each for each in (*blobs_of(image), *(each.descriptor for each in image))}

    def read(name: str) -> AbstractContextManager[BinaryIO]:
        if name in frame:
            return io.BytesIO(canonical_json(frame[name]))
        if blobs[name].media_type in OCI_LAYERS:
            return content.open(blobs[name])
        return io.BytesIO(content.document(blobs[name]))

    violations = list(_Image(read, verified=True).violations())
    if violations:
        raise ImageError(violations)


def _member(archive: tarfile.TarFile, name: str) -> BinaryIO:
    try:
        stream = archive.extractfile(name)
    except KeyError:
        stream = None
    if stream is None:
        raise FileNotFoundError(name)
    return cast(BinaryIO, stream)


@dataclass
class _Image:
    open: Callable[[str], AbstractContextManager[BinaryIO]]
    verified: bool = False
    """Whether what is opened has the right bytes, or raises FetchError at its end."""
    seen: set[tuple[str, str | None]] = field(default_factory=set)

    def violations(self) -> Iterator[str]:
        """Every violation; a document that lacks what it must have, or is none, ends the search."""
        try:
            yield from self._layout()
        except FileNotFoundError as error:
            yield f"{error.filename or error} is missing"
        except FetchError as error:
            yield error.message
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            yield f"a document is not what the image-spec says: {type(error).__name__}: {error}"

    def _layout(self) -> Iterator[str]:
        """image-layout.md: oci-layout and index.json must exist."""
        layout = self._json("oci-layout")
        if layout.get("imageLayoutVersion") != "1.0.0":
            yield "oci-layout: imageLayoutVersion must be 1.0.0"
        entries = self._json("index.json").get("manifests", [])
        if len(entries) != 1:
            yield f"index.json: exactly one entry expected, found {len(entries)}"
        for entry in entries:
            yield from self._root(entry)

    def _root(self, entry: dict[str, Any]) -> Iterator[str]:
        document = yield from self._document(entry, "index.json")
        if document is None:
            return
        if entry["mediaType"] == MediaType.MANIFEST:
            yield from self._manifest(document, _path(entry))
        elif entry["mediaType"] == MediaType.INDEX:
            yield from self._index(document)
        else:
            yield f"index.json: {entry['mediaType']} is neither a manifest nor an index"

    def _index(self, index: dict[str, Any]) -> Iterator[str]:
        """image-index.md: each manifest names its platform; here the config must agree."""
        for entry in index["manifests"]:
            manifest = yield from self._document(entry, "the index")
            if manifest is None:
                continue
            config = yield from self._manifest(manifest, _path(entry))
            if config is not None and any(config.get(key) != value for key, value in entry["platform"].items()):
                yield f"the index: {entry['platform']} is not what the config says"

    def _manifest(self, manifest: dict[str, Any], where: str) -> _Found:
        """manifest.md, config.md: as many diff_ids and history entries as layers, in the same order."""
        if manifest.get("schemaVersion") != 2 or manifest.get("mediaType") != MediaType.MANIFEST:
            yield f"{where}: schemaVersion or mediaType is wrong"
        config = yield from self._document(manifest["config"], where)
        diff_ids: list[str | None] = [None] * len(manifest["layers"])
        ours = [True] * len(diff_ids)
        if config is not None:
            diff_ids = config["rootfs"]["diff_ids"]
            history = [each for each in config.get("history", []) if not each.get("empty_layer")]
            # config.md: "history" is OPTIONAL; nothing says then that a layer is ours
            counted = {len(diff_ids), len(manifest["layers"]), *([len(history)] if "history" in config else [])}
            if len(counted) > 1:
                counts = f"{len(diff_ids)} diff_ids, {len(history)} history entries"
                yield f"{where}: {len(manifest['layers'])} layers, {counts}"
            named = [str(each.get("created_by", "")).startswith(f"{HISTORY} ") for each in history]
            ours = named + ours if "history" in config else [False] * len(diff_ids)
        for layer, diff_id, is_ours in zip(manifest["layers"], diff_ids, ours, strict=False):
            if (yield from self._blob(layer, where)):
                yield from self._layer(layer, diff_id, is_ours)
        return config

    def _document(self, descriptor: dict[str, Any], where: str) -> _Found:
        """The JSON document that *descriptor* describes; None if its bytes are not those."""
        return self._json(_path(descriptor)) if (yield from self._blob(descriptor, where)) else None

    def _blob(self, descriptor: dict[str, Any], where: str) -> Generator[str, None, bool]:
        """descriptor.md: digest and size are those of the content. Are they?"""
        if self.verified:
            return True
        try:
            with self.open(_path(descriptor)) as stream:
                digest, size = hash_stream(stream)
        except FileNotFoundError:
            yield f"{where}: {descriptor['digest']} is missing"
            return False
        if str(digest) != descriptor["digest"]:
            yield f"{where}: {descriptor['digest']} has the digest {digest}"
        if size != descriptor["size"]:
            yield f"{where}: {descriptor['digest']} has {size} bytes, not {descriptor['size']}"
        return bool(descriptor["digest"] == str(digest))

    def _layer(self, layer: dict[str, Any], diff_id: str | None, is_ours: bool) -> Iterator[str]:
        digest, compression = layer["digest"], _COMPRESSION.get(layer["mediaType"])
        if compression is None:
            yield f"{digest}: {layer['mediaType']} is not a layer"
        elif (digest, diff_id) not in self.seen:
            self.seen.add((digest, diff_id))
            try:
                with self.open(_path(layer)) as stream:
                    yield from (f"{digest}: {each}" for each in _tar(stream, compression, diff_id, is_ours))
            except (PestoError, tarfile.TarError) as error:
                yield f"{digest}: {error}"

    def _json(self, name: str) -> dict[str, Any]:
        with self.open(name) as stream:
            found: dict[str, Any] = json.load(stream)
            return found


def _tar(blob: BinaryIO, compression: str, diff_id: str | None, is_ours: bool) -> Iterator[str]:
    """config.md, "rootfs": a diff_id is the digest of the uncompressed tar."""
    state = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for piece in decompressed(chunks(blob), compression):
            state.update(piece)
            yield piece

    with as_stream(hashed()) as tar:
        yield from _entries(tar) if is_ours else _foreign_entries(tar)
        while tar.read(CHUNK):
            pass
    actual = str(Digest(state.hexdigest()))
    if diff_id is not None and actual != diff_id:
        yield f"the tar has the digest {actual}, the config says {diff_id}"


def _entries(tar: IO[bytes]) -> Iterator[str]:
    """layer.md: paths are relative and clean; ours are sorted, unique, and have their parents before them."""
    last: tuple[str, ...] = ()
    known: dict[tuple[str, ...], bytes] = {(): tarfile.DIRTYPE}
    with tarfile.open(fileobj=tar, mode="r|") as archive:
        for info in archive:
            parts = tuple(info.name.split("/"))
            if any(part in ("", ".", "..") for part in parts):
                yield f"{info.name!r} is not a path below the root"
            if parts <= last:
                yield f"{info.name} is out of order or there twice"
            if known.get(parts[:-1]) != tarfile.DIRTYPE:
                yield f"{info.name} stands before its directory"
            if info.type not in _TAR_KINDS:
                yield f"{info.name} is of the type {info.type!r}"
            if info.islnk() and known.get(tuple(info.linkname.split("/"))) != tarfile.REGTYPE:
                yield f"{info.name} is a hard link to {info.linkname}, which is no file before it"
            if info.uname or info.gname:
                yield f"{info.name} names its owner"
            last = parts
            known[parts] = info.type


def _foreign_entries(tar: IO[bytes]) -> Iterator[str]:
    """layer.md: others write ``./usr/``, devices, whiteouts, names of owners; but nothing leaves the root."""
    with tarfile.open(fileobj=tar, mode="r|") as archive:
        yield from (f"{each.name!r} is not a path below the root" for each in archive if ".." in each.name.split("/"))


def _path(descriptor: dict[str, Any]) -> str:
    return "blobs/" + str(descriptor["digest"]).replace(":", "/")
