"""Where an image goes, a finished one or a copy: an OCI archive, or an OCI layout folder (image-layout.md).

The archive is at once an OCI layout (``oci-layout``, ``index.json`` with exactly one entry) and what ``docker load``
reads (``manifest.json``), byte-identical between builds. Nothing is visible under the output's name before it is
whole; a layer that is not in the store, or not intact, is reported by :class:`MissingLayers` before anything is
written.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from pesto_repro.build.entry import Entry, Opener, data, directory, file
from pesto_repro.build.tar import arrange, write_tar
from pesto_repro.digest import Digest, canonical_json, digest_of_value
from pesto_repro.errors import BuildError, PestoError
from pesto_repro.oci import Descriptor, Image, MediaType
from pesto_repro.registry.content import REF_NAME, Document, blobs_of
from pesto_repro.registry.ports import Content
from pesto_repro.store import Store, open_locked

if TYPE_CHECKING:
    from pesto_repro.registry.companions import Companion

_CONFIGS = (MediaType.CONFIG, "application/vnd.docker.container.image.v1+json")
"""Of what ``docker load`` can read; the config of another artifact has another type."""
_LAYOUT = canonical_json({"imageLayoutVersion": "1.0.0"})


class MissingLayers(Exception):
    """The store lost layers (by digest of their blob) that the image needs: make them again."""

    def __init__(self, digests: frozenset[Digest]) -> None:
        super().__init__(f"{len(digests)} layers are not in the store")
        self.digests = digests


def write_archive(image: Image, reference: str, path: Path, store: Store) -> bool:
    """Write *image* as the OCI archive *path*. False if an equal one was already there and untouched."""
    state = digest_of_value({"image": str(image.digest), "reference": reference})
    slot = output_slot(path).hex
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


def output_slot(path: Path) -> Digest:
    """What the record of the archive *path* is called."""
    return digest_of_value({"output": str(path.absolute())})


def write_layout(image: Image, reference: str, folder: Path, store: Store) -> bool:
    """Write *image* as the OCI layout *folder*, in place of the layout that is there."""
    _require_layout(folder)
    _require_layers(image, store)
    _replace_layout(_files(image, reference, store, docker=False), folder)
    return True


def copy_archive(content: Content, image: Sequence[Document], reference: str | None, path: Path) -> None:
    """Write the image that *content* has as the OCI archive *path*: byte for byte what ``write_archive`` writes."""
    with _replacing(path) as handle:
        write_tar(arrange(_copied_files(content, image, reference, docker=True)), handle)


def copy_layout(content: Content, image: Sequence[Document], reference: str | None, folder: Path) -> None:
    """Write the image that *content* has as the OCI layout *folder*, in place of the layout that is there."""
    _require_layout(folder)
    _replace_layout(_copied_files(content, image, reference, docker=False), folder)


def copy_beside(content: Content, companions: Sequence[Companion], path: Path, *, archive: bool) -> None:
    """Write what goes with an image, as an archive or a layout of its own: index.json names each."""
    documents = [each.document for each in companions]
    found = [data("oci-layout", _LAYOUT), directory("blobs/sha256")]
    found.append(data("index.json", _entries_json([each.entry() for each in companions])))
    found += _copied_blobs(content, documents)
    if archive:
        with _replacing(path) as handle:
            write_tar(arrange(found), handle)
    else:
        _require_layout(path)
        _replace_layout(found, path)


def _replace_layout(entries: Sequence[Entry], folder: Path) -> None:
    wanted = {entry.path for entry in entries}
    with _writing(folder):
        for entry in sorted(entries, key=lambda each: each.path == "index.json"):
            _place(entry, folder / entry.path)
        for blob in (folder / "blobs" / "sha256").iterdir():
            if f"blobs/sha256/{blob.name}" not in wanted:
                blob.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a small document, whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, found: bytes) -> None:
    """Write a small file, whole or not at all."""
    with _replacing(path) as handle:
        handle.write(found)


def _files(image: Image, reference: str, store: Store, *, docker: bool) -> list[Entry]:
    """Every path of the layout."""
    found = _frame(image.descriptor, reference)
    if docker:
        first = image.platforms[0]
        layers = [layer.descriptor for layer in first.layers]
        found.append(data("manifest.json", _manifest_json(first.config_descriptor, layers, reference)))
    found += [data(f"blobs/sha256/{digest.hex}", content) for digest, content in image.documents().items()]
    for digest, layer in image.layers().items():
        found.append(file(f"blobs/sha256/{digest.hex}", _opener(store, digest), layer.descriptor.size))
    return found


def _copied_files(content: Content, image: Sequence[Document], reference: str | None, *, docker: bool) -> list[Entry]:
    """The same of an image that lies elsewhere."""
    found = _frame(image[-1].descriptor, reference)
    manifests = [each for each in image if each.blobs and each.blobs[0].media_type in _CONFIGS]
    if docker and manifests:
        config, *layers = manifests[0].blobs
        found.append(data("manifest.json", _manifest_json(config, layers, reference)))
    return [*found, *_copied_blobs(content, image)]


def _copied_blobs(content: Content, documents: Sequence[Document]) -> Iterator[Entry]:
    for each in documents:
        yield data(_blob_path(each.descriptor), each.data)
    for blob in blobs_of(documents):
        yield file(_blob_path(blob), cast(Opener, partial(_Opened, content, blob)), blob.size)


class _Opened(io.BufferedIOBase):
    """A blob of *content*, entered already: closing it leaves it."""

    def __init__(self, content: Content, blob: Descriptor) -> None:
        self._stack = contextlib.ExitStack()
        self._stream = self._stack.enter_context(content.open(blob))

    def read(self, size: int | None = -1, /) -> bytes:
        return self._stream.read(-1 if size is None else size)

    def close(self) -> None:
        self._stack.close()
        super().close()


def _frame(root: Descriptor, reference: str | None) -> list[Entry]:
    return [
        data("oci-layout", _LAYOUT),
        data("index.json", _index_json(root, reference)),
        directory("blobs/sha256"),
    ]


def _opener(store: Store, digest: Digest) -> Opener:
    return lambda: store.open(digest)


def _blob_path(descriptor: Descriptor) -> str:
    return f"blobs/sha256/{descriptor.digest.hex}"


def _index_json(root: Descriptor, reference: str | None) -> bytes:
    """image-layout.md, "index.json file": one entry, named by "org.opencontainers.image.ref.name"."""
    named = {"annotations": {REF_NAME: reference}} if reference else {}
    return _entries_json([root.document() | named])


def _entries_json(entries: Sequence[Mapping[str, object]]) -> bytes:
    return canonical_json({"schemaVersion": 2, "mediaType": MediaType.INDEX, "manifests": list(entries)})


def _manifest_json(config: Descriptor, layers: Iterable[Descriptor], reference: str | None) -> bytes:
    """What ``docker load`` reads where it does not know OCI layouts: the first platform's image."""
    return canonical_json(
        [
            {
                "Config": _blob_path(config),
                "RepoTags": [reference] if reference else [],
                "Layers": [_blob_path(layer) for layer in layers],
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
