"""Layers that must be in the store."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from pesto_repro.digest import Digest
from pesto_repro.registry.content import LostLayers
from pesto_repro.store import Store


def require_layers(digests: Iterable[Digest], store: Store) -> None:
    """Raises LostLayers that names all of *digests* that are not in *store*, or not intact."""
    wanted = list(digests)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        missing = [digest for digest, there in zip(wanted, pool.map(store.has, wanted), strict=True) if not there]
    if missing:
        raise LostLayers(frozenset(missing), "not there, or another content")
