"""Where a finished image goes: an OCI archive, or an OCI layout folder (image-spec, image-layout.md).

The archive is at once an OCI layout (``oci-layout``, ``index.json`` with exactly one entry) and what ``docker load``
reads (``manifest.json``), byte-identical between builds. Nothing is visible under the output's name before it is
whole; a layer that is not in the store, or not intact, is reported by :class:`MissingLayers` before anything is
written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from pesto_repro.build.entry import Entry, Opener, data, directory, file
from pesto_repro.build.tar import arrange, write_tar
from pesto_repro.digest import Digest, canonical_json, digest_of_value
from pesto_repro.errors import BuildError, PestoError
from pesto_repro.oci import Image
from pesto_repro.store import Store, open_locked

_LAYOUT = canonical_json({"imageLayoutVersion": "1.0.0"})


class MissingLayers(Exception):
    """The store lost layers (by digest of their blob) that the image needs: make them again."""

    def __init__(self, digests: frozenset[Digest]) -> None:
        super().__init__(f"{len(digests)} layers are not in the store")
        self.digests = digests


def write_archive(image: Image, reference: str, path: Path, store: Store) -> bool:
    """Write *image* as the OCI archive *path*. False if an equal one was already there and untouched."""
    state = digest_of_value({"image": str(image.digest), "reference": reference})
    slot = digest_of_value({"output": str(path.absolute())}).hex
    stamp = _stamp(path, str(state))
    if stamp is not None and stamp == store.record("output", slot):
        return False
    _require_layers(image, store)
    with _replacing(path) as handle:
        write_tar(arrange(_files(image, reference, store, docker=True)), handle)
    stamp = _stamp(path, str(state))
    if stamp is not None:
        store.remember("output", slot, stamp)
    return True


def write_layout(image: Image, reference: str, folder: Path, store: Store) -> bool:
    """Write *image* as the OCI layout *folder*, in place of the layout that is there."""
    _require_layout(folder)
    _require_layers(image, store)
    entries = _files(image, reference, store, docker=False)
    wanted = {entry.path for entry in entries}
    with _writing(folder):
        for entry in sorted(entries, key=lambda each: each.path == "index.json"):
            _place(entry, folder / entry.path)
        for blob in (folder / "blobs" / "sha256").iterdir():
            if f"blobs/sha256/{blob.name}" not in wanted:
                blob.unlink()
    return True


def write_text(path: Path, text: str) -> None:
    """Write a small document, whole or not at all."""
    with _replacing(path) as handle:
        handle.write(text.encode())


def _files(image: Image, reference: str, store: Store, *, docker: bool) -> list[Entry]:
    """Every path of the layout."""
    found = [
        data("oci-layout", _LAYOUT),
        data("index.json", _index_json(image, reference)),
        directory("blobs/sha256"),
    ]
    if docker:
        found.append(data("manifest.json", _manifest_json(image, reference)))
    found += [data(f"blobs/sha256/{digest.hex}", content) for digest, content in image.documents().items()]
    for digest, layer in image.layers().items():
        found.append(file(f"blobs/sha256/{digest.hex}", _opener(store, digest), layer.descriptor.size))
    return found


def _opener(store: Store, digest: Digest) -> Opener:
    return lambda: store.open(digest)


def _index_json(image: Image, reference: str) -> bytes:
    """image-layout.md, "index.json file": one entry, named by "org.opencontainers.image.ref.name"."""
    entry = image.descriptor.document() | {"annotations": {"org.opencontainers.image.ref.name": reference}}
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        }
    )


def _manifest_json(image: Image, reference: str) -> bytes:
    """What ``docker load`` reads where it does not know OCI layouts: the first platform's image."""
    first = image.platforms[0]
    return canonical_json(
        [
            {
                "Config": f"blobs/sha256/{first.config_descriptor.digest.hex}",
                "RepoTags": [reference],
                "Layers": [f"blobs/sha256/{layer.descriptor.digest.hex}" for layer in first.layers],
            }
        ]
    )


def _require_layout(folder: Path) -> None:
    with _writing(folder):
        if folder.exists() and any(folder.iterdir()) and not (folder / "oci-layout").exists():
            raise BuildError(f"{folder} is not empty and is no OCI layout", "name another folder after -o oci:")


def _require_layers(image: Image, store: Store) -> None:
    digests = list(image.layers())
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        missing = [digest for digest, there in zip(digests, pool.map(store.has, digests), strict=True) if not there]
    if missing:
        raise MissingLayers(frozenset(missing))


def _stamp(path: Path, state: str) -> dict[str, str | int] | None:
    """What tells that *path* is still the file that was written: as a version control system tells it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return {
        "state": state,
        "size": found.st_size,
        "inode": found.st_ino,
        "mtime": str(found.st_mtime_ns),
        "ctime": str(found.st_ctime_ns),
    }


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except PestoError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free some space, or choose another place" if full else "choose another place"
        raise BuildError(f"{path} cannot be written: {error.strerror or error}", hint) from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A locked file beside *path* that takes its place at the end, or is gone.

    Its name is always the same: what a killed process left there is written over by the next.
    """
    with _writing(path):
        temporary = path.with_name(f".{path.name}.partial")
        with open_locked(temporary) as handle:
            try:
                handle.truncate(0)
                yield handle
                handle.flush()
                temporary.chmod(0o644)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise


def _place(entry: Entry, path: Path) -> None:
    """Write one file of a layout folder."""
    if entry.kind == "directory":
        path.mkdir(parents=True, exist_ok=True)
        return
    assert entry.open is not None
    with _replacing(path) as target, entry.open() as source:
        shutil.copyfileobj(source, target, 1 << 20)
