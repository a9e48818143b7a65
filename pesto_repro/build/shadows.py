"""Nothing is dropped silently: a path of one layer that a layer above it hides is told.

Within a layer two different things under one path are an error. Between layers the upper one wins, as pip lets the
package win that is installed last; which is allowed, and rarely meant. Each made step leaves the list of its paths in
the store for this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pesto_repro.build.entry import Entry
from pesto_repro.digest import Digest
from pesto_repro.store import Store

SHOWN = 3
"""How many paths of one pair of steps are named."""


def remember_paths(entries: Iterable[Entry], store: Store) -> Digest:
    """Keep the paths of *entries* that are no directories; the digest of the list."""
    paths = sorted(entry.path for entry in entries if entry.kind != "directory")
    return store.put("\n".join(paths).encode())


def shadows(steps: Sequence[tuple[str, Digest]], store: Store) -> Iterator[str]:
    """Which of *steps*, (name, digest of its paths) from the base up, hide paths of those below them.

    Steps of one name hide nothing of each other.
    """
    owners: dict[str, str] = {}
    hidden: dict[tuple[str, str], list[str]] = {}
    for name, paths in steps:
        for path in _paths(paths, store):
            below = owners.setdefault(path, name)
            if below != name:
                hidden.setdefault((below, name), []).append(path)
                owners[path] = name
    for (below, above), found in hidden.items():
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        yield f"{above} hides {', '.join(f'/{path}' for path in found[:SHOWN])}{more} of {below}"


def _paths(digest: Digest, store: Store) -> list[str]:
    if not store.has(digest):
        return []
    with store.open(digest) as stream:
        text = stream.read().decode()
        return text.split("\n") if text else []
