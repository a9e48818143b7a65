"""Images made again with something altered in a layer, sound in their form: what ``verify`` is to find."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pesto_repro.build.compress import LayerWriter, decompressed
from pesto_repro.digest import Digest, canonical_json
from pesto_repro.oci import MediaType

Members = list[tuple[tarfile.TarInfo, bytes]]


def alter(layout: Path, path: str, change: Callable[[Members], Members]) -> None:
    """Let *change* alter the members of the layer of *layout* that has *path*; digests are made right again."""
    index = json.loads((layout / "index.json").read_text())
    manifest = _read(layout, index["manifests"][0])
    config = _read(layout, manifest["config"])
    number, members = _layer_with(layout, manifest, path)
    tar = _tar(change(members))
    config["rootfs"]["diff_ids"][number] = str(Digest.of(tar))
    manifest["layers"][number] |= _write(layout, _gzip(tar))
    manifest["config"] |= _write(layout, canonical_json(config))
    index["manifests"][0] |= _write(layout, canonical_json(manifest))
    (layout / "index.json").write_bytes(canonical_json(index))


def alter_config(layout: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Let *change* alter the config of the image in *layout*."""
    index = json.loads((layout / "index.json").read_text())
    manifest = _read(layout, index["manifests"][0])
    config = _read(layout, manifest["config"])
    change(config)
    manifest["config"] |= _write(layout, canonical_json(config))
    index["manifests"][0] |= _write(layout, canonical_json(manifest))
    (layout / "index.json").write_bytes(canonical_json(index))


def alter_archive(archive: Path, target: Path, change: Callable[[Members], Members]) -> None:
    """Write to *target* what *change* makes of the members of *archive*, whatever digests say."""
    with tarfile.open(archive) as found:
        members = [(info, _data(found, info)) for info in found]
    target.write_bytes(_tar(change(members)))


def attest(layout: Path) -> None:
    """Put the image of *layout* into an index, beside what other builders put there: a manifest that is no image."""
    index = json.loads((layout / "index.json").read_text())
    (image,) = index["manifests"]
    config = _write(layout, canonical_json({"architecture": "unknown", "os": "unknown", "config": {}}))
    statement = {"mediaType": "application/vnd.in-toto+json", **_write(layout, b"{}")}
    document = {
        "schemaVersion": 2,
        "mediaType": MediaType.MANIFEST,
        "config": {"mediaType": MediaType.CONFIG, **config},
        "layers": [statement],
    }
    nowhere = {"platform": {"os": "unknown", "architecture": "unknown"}}
    attestation = {"mediaType": MediaType.MANIFEST, **_write(layout, canonical_json(document)), **nowhere}
    image["platform"] = {"os": "linux", "architecture": "amd64"}
    both = {"schemaVersion": 2, "mediaType": MediaType.INDEX, "manifests": [image, attestation]}
    index["manifests"] = [{"mediaType": MediaType.INDEX, **_write(layout, canonical_json(both))}]
    (layout / "index.json").write_bytes(canonical_json(index))


def members(layout: Path, path: str) -> Members:
    """The members of the layer of *layout* that has *path*."""
    index = json.loads((layout / "index.json").read_text())
    return _layer_with(layout, _read(layout, index["manifests"][0]), path)[1]


def content(path: str, new: bytes) -> Callable[[Members], Members]:
    """Put *new* into the file *path*."""

    def change(members: Members) -> Members:
        for info, _ in members:
            if info.name == path:
                info.size = len(new)
        return [(info, new if info.name == path else data) for info, data in members]

    return change


def field(path: str, **fields: Any) -> Callable[[Members], Members]:
    """Set *fields* of the header of *path*."""

    def change(members: Members) -> Members:
        for info, _ in members:
            for name, value in fields.items() if info.name == path else ():
                setattr(info, name, value)
        return members

    return change


def _layer_with(layout: Path, manifest: dict[str, Any], path: str) -> tuple[int, Members]:
    for number, layer in enumerate(manifest["layers"]):
        blob = (layout / "blobs/sha256" / layer["digest"].removeprefix("sha256:")).read_bytes()
        with tarfile.open(fileobj=io.BytesIO(b"".join(decompressed([blob], "gzip")))) as archive:
            members = [(info, _data(archive, info)) for info in archive]
        if path in (info.name for info, _ in members):
            return number, members
    raise KeyError(path)


def _data(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(info) if info.isreg() else None
    return stream.read() if stream is not None else b""


def _tar(members: Members) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _gzip(tar: bytes) -> bytes:
    sink = io.BytesIO()
    writer = LayerWriter("gzip", sink)
    writer.write(tar)
    writer.close()
    return sink.getvalue()


def _read(layout: Path, descriptor: dict[str, Any]) -> dict[str, Any]:
    path = layout / "blobs/sha256" / descriptor["digest"].removeprefix("sha256:")
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def _write(layout: Path, data: bytes) -> dict[str, Any]:
    digest = Digest.of(data)
    (layout / "blobs/sha256" / digest.hex).write_bytes(data)
    return {"digest": str(digest), "size": len(data)}


def recompress(layout: Path, path: str) -> None:
    """Compress the layer that has *path* in another way."""
    index = json.loads((layout / "index.json").read_text())
    manifest = _read(layout, index["manifests"][0])
    number, _ = _layer_with(layout, manifest, path)
    blob = (layout / "blobs/sha256" / manifest["layers"][number]["digest"].removeprefix("sha256:")).read_bytes()
    manifest["layers"][number] |= _write(layout, gzip.compress(b"".join(decompressed([blob], "gzip")), 1, mtime=0))
    index["manifests"][0] |= _write(layout, canonical_json(manifest))
    (layout / "index.json").write_bytes(canonical_json(index))
