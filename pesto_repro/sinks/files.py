"""What is in a layout or an archive of an image, a finished one or a copy: every path, as entries.

The archive is at once an OCI layout (``oci-layout``, ``index.json`` with exactly one entry) and what ``docker load``
reads (``manifest.json``).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from pesto_repro.build.entry import Entry, Opener, data, directory, file
from pesto_repro.digest import Digest, canonical_json
from pesto_repro.oci import Descriptor, Image, MediaType
from pesto_repro.registry.content import REF_NAME, Document, blobs_of
from pesto_repro.registry.ports import Content
from pesto_repro.store import Store

if TYPE_CHECKING:
    from pesto_repro.registry.companions import Companion

BLOBS = "blobs/sha256"
_CONFIGS = (MediaType.CONFIG, "application/vnd.docker.container.image.v1+json")
"""Of what ``docker load`` can read; the config of another artifact has another type."""
_LAYOUT = canonical_json({"imageLayoutVersion": "1.0.0"})


def files_of(image: Image, reference: str, store: Store, *, docker: bool) -> list[Entry]:
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


def files_of_copy(content: Content, image: Sequence[Document], reference: str | None, *, docker: bool) -> list[Entry]:
    """The same of an image that lies elsewhere."""
    found = _frame(image[-1].descriptor, reference)
    manifests = [each for each in image if each.blobs and each.blobs[0].media_type in _CONFIGS]
    if docker and manifests:
        config, *layers = manifests[0].blobs
        found.append(data("manifest.json", _manifest_json(config, layers, reference)))
    return [*found, *_copied_blobs(content, image)]


def files_beside(content: Content, companions: Sequence[Companion]) -> list[Entry]:
    """Those of what goes with an image, as a layout of its own: index.json names each."""
    found = [data("oci-layout", _LAYOUT), directory(BLOBS)]
    found.append(data("index.json", _entries_json([each.entry() for each in companions])))
    return [*found, *_copied_blobs(content, [each.document for each in companions])]


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
