"""A step: what makes one layer. Its key says everything that decides its bytes, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pesto_repro.digest import Digest, digest_of_value

ASSEMBLY_VERSION = 1
"""Counts changes of any rule that decides an image's bytes; a lock says which rules it was made for."""

TAR_VERSION = 1
MAKER_VERSIONS = {
    "debs": 1,
    "debian-system": 1,
    "venv": 1,
    "wheels": 1,
    "tree": 1,
    "documents": 1,
    "archive": 1,
    "file": 1,
    "lock": 1,
}
"""Raise a maker's number when it makes other bytes of the same inputs (and ``ASSEMBLY_VERSION`` with it)."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """An input: bytes by digest, the name that the maker knows them by, their size in bytes if known."""

    name: str
    digest: Digest
    size: int | None = None


@dataclass(frozen=True)
class Step:
    """What Nix calls a derivation: *kind* of maker, its *params* (JSON values), its *inputs*, in order.

    *name* is for people ("numpy, rasterio") and *section* the part of the image it belongs to; neither is part of
    the key, nor is anything of the steps below it: editing one thing rebuilds one layer.
    """

    kind: str
    name: str
    section: str
    params: Mapping[str, Any]
    inputs: tuple[Pinned, ...] = ()

    @property
    def document(self) -> dict[str, Any]:
        """Kind, versions, parameters and inputs: all that decides the layer's bytes."""
        return {
            "kind": self.kind,
            "maker": MAKER_VERSIONS[self.kind],
            "tar": TAR_VERSION,
            "params": dict(self.params),
            "inputs": [[each.name, str(each.digest)] for each in self.inputs],
        }

    @cached_property
    def key(self) -> Digest:
        """sha256 over canonical JSON of the document. Equal keys give equal bytes."""
        return digest_of_value(self.document)

    @property
    def weight(self) -> int:
        """The bytes of all inputs, as far as known: how much work it is."""
        return sum(each.size or 0 for each in self.inputs)
