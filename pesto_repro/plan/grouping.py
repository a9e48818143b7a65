"""How packages are grouped into layers, so that one bumped package re-uploads one small layer.

Outliers by size get a layer each; the rest is spread over a fixed number of buckets by the hash of its name. A
package never moves because another one changed its version, and rarely because one was added or removed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

OUTLIER = 1 << 20
"""Bytes from which on a package may have a layer of its own."""


def group(sizes: Iterable[tuple[str, int]], limit: int) -> tuple[tuple[str, ...], ...]:
    """Names in at most *limit* groups, from (name, size in bytes); the order of the input does not matter.

    >>> group([("numpy", 70 << 20), ("six", 10), ("idna", 20)], 2)
    (('numpy',), ('idna', 'six'))
    """
    ordered = sorted(sizes, key=lambda each: (-each[1], each[0]))
    outliers = [name for name, size in ordered[: limit // 2] if size >= OUTLIER]
    rest = sorted(name for name, _ in ordered if name not in set(outliers))
    buckets: dict[int, list[str]] = {}
    for name in rest:
        buckets.setdefault(_bucket(name, limit - limit // 2), []).append(name)
    return (*((name,) for name in sorted(outliers)), *(tuple(buckets[each]) for each in sorted(buckets)))


def _bucket(name: str, count: int) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % count
