"""An OCI layout in a folder (image-layout.md): what changed is written, what is not wanted any more is removed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_repro.build.entry import Entry
from pesto_repro.errors import BuildError
from pesto_repro.oci import Image
from pesto_repro.registry.content import Document
from pesto_repro.registry.ports import Content
from pesto_repro.sinks.files import files_beside, files_of, files_of_copy
from pesto_repro.sinks.layers import require_layers
from pesto_repro.sinks.writing import replacing, writing
from pesto_repro.store import Store

if TYPE_CHECKING:
    from pesto_repro.registry.companions import Companion


def write_layout(image: Image, reference: str, folder: Path, store: Store) -> bool:
    """Write *image* as the OCI layout *folder*, in place of the layout that is there."""
    _require_layout(folder)
    require_layers(image.layers(), store)
    _replace_layout(files_of(image, reference, store, docker=False), folder)
    return True


def copy_layout(content: Content, image: Sequence[Document], reference: str | None, folder: Path) -> None:
    """Write the image that *content* has as the OCI layout *folder*, in place of the layout that is there."""
    _require_layout(folder)
    _replace_layout(files_of_copy(content, image, reference, docker=False), folder)


def copy_beside_layout(content: Content, companions: Sequence[Companion], folder: Path) -> None:
    """Write what goes with an image as a layout of its own."""
    _require_layout(folder)
    _replace_layout(files_beside(content, companions), folder)


def _replace_layout(entries: Sequence[Entry], folder: Path) -> None:
    wanted = {entry.path for entry in entries}
    with writing(folder):
        for entry in sorted(entries, key=lambda each: each.path == "index.json"):
            _place(entry, folder / entry.path)
        for blob in (folder / "blobs" / "sha256").iterdir():
            if f"blobs/sha256/{blob.name}" not in wanted:
                blob.unlink()


def _require_layout(folder: Path) -> None:
    with writing(folder):
        if folder.exists() and any(folder.iterdir()) and not (folder / "oci-layout").exists():
            raise BuildError(f"{folder} is not empty and is no OCI layout", "name another folder after -o oci:")


def _place(entry: Entry, path: Path) -> None:
    """Write one file of a layout folder."""
    if entry.kind == "directory":
        path.mkdir(parents=True, exist_ok=True)
        return
    assert entry.open is not None
    with replacing(path) as target, entry.open() as source:
        shutil.copyfileobj(source, target, 1 << 20)
