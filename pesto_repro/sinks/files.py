"""What is in a layout or an archive of an image, a finished one or a copy: every path, as entries.

The archive is at once an OCI layout (``oci-layout``, ``index.json`` with exactly one entry) and what ``docker load``
reads (``manifest.json``).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from functools import partial
from typing import cast

from pesto_repro.build.entry import Entry, Opener, data, directory, file
from pesto_repro.digest import Digest, canonical_json
from pesto_repro.oci import Descriptor, Image
from pesto_repro.registry.content import Document, blobs_of
from pesto_repro.registry.ports import Content
from pesto_repro.store import Store

BLOBS = "blobs/sha256"
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
    manifests = [each for each in image if each.blobs]
    if docker and manifests:
        config, *layers = manifests[0].blobs
        found.append(data("manifest.json", _manifest_json(config, layers, reference)))
    found += [data(_blob_path(each.descriptor), each.data) for each in image]
    for blob in blobs_of(image):
        found.append(file(_blob_path(blob), cast(Opener, partial(_Opened, content, blob)), blob.size))
    return found


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
    named = {"annotations": {"org.opencontainers.image.ref.name": reference}} if reference else {}
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [root.document() | named],
        }
    )


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
