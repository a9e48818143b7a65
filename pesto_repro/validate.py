"""Holds a finished image, an OCI archive or layout, against the image-spec: the validator every test uses.

It trusts nothing that wrote the image: every digest and size is computed anew, every layer is unpacked and read, and
what a layer holds must be what a container engine can take without harm.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from pesto_repro.build.compress import decompressed
from pesto_repro.digest import Digest, chunks, hash_stream
from pesto_repro.errors import ImageError, PestoError
from pesto_repro.oci import MEDIA_TYPES, MediaType

_COMPRESSION = {media_type: name for name, media_type in MEDIA_TYPES.items()}
_TAR_KINDS = {tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE}


def validate(path: Path) -> None:
    """Check the archive or layout at *path*. Raises ImageError that lists every violation."""
    if path.is_dir():
        violations = list(_Image(lambda name: (path / name).open("rb")).violations())
    else:
        with tarfile.open(path, "r:") as archive:
            violations = list(_Image(lambda name: _member(archive, name)).violations())
    if violations:
        raise ImageError(violations)


def _member(archive: tarfile.TarFile, name: str) -> BinaryIO:
    try:
        return cast(BinaryIO, archive.extractfile(name))
    except KeyError:
        raise FileNotFoundError(name) from None


@dataclass
class _Image:
    open: Callable[[str], BinaryIO]
    seen: set[str] = field(default_factory=set)

    def violations(self) -> Iterator[str]:
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
        yield from self._blob(entry, "index.json")
        document = self._json(_path(entry))
        if entry["mediaType"] == MediaType.MANIFEST:
            yield from self._manifest(document, _path(entry))
        elif entry["mediaType"] == MediaType.INDEX:
            yield from self._index(document)
        else:
            yield f"index.json: {entry['mediaType']} is neither a manifest nor an index"

    def _index(self, index: dict[str, Any]) -> Iterator[str]:
        """image-index.md: each manifest names its platform; here the config must agree."""
        for entry in index["manifests"]:
            yield from self._blob(entry, "the index")
            manifest = self._json(_path(entry))
            yield from self._manifest(manifest, _path(entry))
            config = self._json(_path(manifest["config"]))
            if any(config.get(key) != value for key, value in entry["platform"].items()):
                yield f"the index: {entry['platform']} is not what the config says"

    def _manifest(self, manifest: dict[str, Any], where: str) -> Iterator[str]:
        """manifest.md, config.md: as many diff_ids and history entries as layers, in the same order."""
        if manifest.get("schemaVersion") != 2 or manifest.get("mediaType") != MediaType.MANIFEST:
            yield f"{where}: schemaVersion or mediaType is wrong"
        yield from self._blob(manifest["config"], where)
        config = self._json(_path(manifest["config"]))
        diff_ids, layers = config["rootfs"]["diff_ids"], manifest["layers"]
        history = [each for each in config.get("history", []) if not each.get("empty_layer")]
        if not len(diff_ids) == len(layers) == len(history):
            yield f"{where}: {len(layers)} layers, {len(diff_ids)} diff_ids, {len(history)} history entries"
        for layer, diff_id in zip(layers, diff_ids, strict=False):
            yield from self._blob(layer, where)
            yield from self._layer(layer, diff_id)

    def _blob(self, descriptor: dict[str, Any], where: str) -> Iterator[str]:
        """descriptor.md: digest and size are those of the content."""
        try:
            with self.open(_path(descriptor)) as stream:
                digest, size = hash_stream(stream)
        except FileNotFoundError:
            yield f"{where}: {descriptor['digest']} is missing"
            return
        if str(digest) != descriptor["digest"]:
            yield f"{where}: {descriptor['digest']} has the digest {digest}"
        if size != descriptor["size"]:
            yield f"{where}: {descriptor['digest']} has {size} bytes, not {descriptor['size']}"

    def _layer(self, layer: dict[str, Any], diff_id: str) -> Iterator[str]:
        digest, compression = layer["digest"], _COMPRESSION.get(layer["mediaType"])
        if digest in self.seen or compression is None:
            if compression is None:
                yield f"{digest}: {layer['mediaType']} is not a layer"
            return
        self.seen.add(digest)
        try:
            with self.open(_path(layer)) as stream, closing(_Tar(stream, compression)) as tar:
                yield from (f"{digest}: {each}" for each in _entries(tar))
                tar.drain()
                if str(tar.digest) != diff_id:
                    yield f"{digest}: the tar has the digest {tar.digest}, the config says {diff_id}"
        except (PestoError, tarfile.TarError, FileNotFoundError) as error:
            yield f"{digest}: {error}"

    def _json(self, name: str) -> dict[str, Any]:
        with self.open(name) as stream:
            found: dict[str, Any] = json.load(stream)
            return found


class _Tar:
    """The tar inside a layer as a stream that hashes what is read of it."""

    def __init__(self, stream: BinaryIO, compression: str) -> None:
        self._pieces, self._rest = decompressed(chunks(stream), compression), b""
        self._state = hashlib.sha256()

    def read(self, size: int) -> bytes:
        found = [self._rest]
        have = len(self._rest)
        while have < size and (piece := next(self._pieces, None)) is not None:
            found.append(piece)
            have += len(piece)
        joined = b"".join(found)
        self._rest, result = joined[size:], joined[:size]
        self._state.update(result)
        return result

    def drain(self) -> None:
        while self.read(1 << 20):
            pass

    def close(self) -> None:
        self._rest = b""

    @property
    def digest(self) -> Digest:
        return Digest(self._state.hexdigest())


def _entries(tar: _Tar) -> Iterator[str]:
    """layer.md: paths are relative and clean; ours are sorted, unique, and have their parents before them."""
    last: tuple[str, ...] = ()
    known: dict[tuple[str, ...], bytes] = {(): tarfile.DIRTYPE}
    with tarfile.open(fileobj=cast(BinaryIO, tar), mode="r|", tarinfo=tarfile.TarInfo) as archive:
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


def _path(descriptor: dict[str, Any]) -> str:
    return "blobs/" + str(descriptor["digest"]).replace(":", "/")
