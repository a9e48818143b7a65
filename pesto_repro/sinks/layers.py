"""Layers that must be in the store."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from pesto_repro.digest import Digest
from pesto_repro.store import Store


class MissingLayers(Exception):
    """The store lost layers (by digest of their blob) that the image needs: make them again."""

    def __init__(self, digests: frozenset[Digest]) -> None:
        super().__init__(f"{len(digests)} layers are not in the store")
        self.digests = digests


def require_layers(digests: Iterable[Digest], store: Store) -> None:
    """Raises MissingLayers that names all of *digests* that are not in *store*, or not intact."""
    wanted = list(digests)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        missing = [digest for digest, there in zip(wanted, pool.map(store.has, wanted), strict=True) if not there]
    if missing:
        raise MissingLayers(frozenset(missing))
