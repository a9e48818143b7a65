"""Where an image goes, a finished one or a copy: an OCI archive, or an OCI layout folder (image-layout.md).

Nothing is visible under the output's name before it is whole; a layer that is not in the store, or not intact, is
reported by :class:`MissingLayers` before anything is written.
"""

from pesto_repro.sinks.archive import copy_archive, write_archive
from pesto_repro.sinks.layers import MissingLayers
from pesto_repro.sinks.layout import copy_layout, write_layout
from pesto_repro.sinks.writing import write_text

__all__ = ["MissingLayers", "copy_archive", "copy_layout", "write_archive", "write_layout", "write_text"]
