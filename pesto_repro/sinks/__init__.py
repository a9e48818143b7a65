"""Where an image goes, a finished one or a copy: an OCI archive, or an OCI layout folder (image-layout.md).

Nothing is visible under the output's name before it is whole; a layer that is not in the store, or not intact, is
reported by :class:`~pesto_repro.registry.content.LostLayers` before anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_repro.registry.ports import Content
from pesto_repro.sinks.archive import copy_archive, copy_beside_archive, output_slot, write_archive
from pesto_repro.sinks.layout import copy_beside_layout, copy_layout, write_layout
from pesto_repro.sinks.writing import write_bytes, write_text

if TYPE_CHECKING:
    from pesto_repro.registry.companions import Companion

__all__ = [
    "copy_archive",
    "copy_beside",
    "copy_layout",
    "output_slot",
    "write_archive",
    "write_bytes",
    "write_layout",
    "write_text",
]


def copy_beside(content: Content, companions: Sequence[Companion], path: Path, *, archive: bool) -> None:
    """Write what goes with an image, as an archive or a layout of its own: index.json names each."""
    write = copy_beside_archive if archive else copy_beside_layout
    write(content, companions, path)
