"""Whom to ask: everything that a machine's configuration says of where things lie, as one value.

What costs time to read is read when it is needed: a build that has all it needs asks nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from pesto_repro.fetch import Fetcher
from pesto_repro.progress import Reporter

if TYPE_CHECKING:
    from pesto_repro.fetch.debian import Mirrors
    from pesto_repro.fetch.index import Indexes


@dataclass(frozen=True, slots=True)
class World:
    """*indexes* gives the package indexes and uv's environment, *mirrors* the Debian mirrors.

    *epoch* is SOURCE_DATE_EPOCH as RFC 3339; *now* is for warnings only. *environment* is what git is started with.
    """

    fetcher: Fetcher
    indexes: Callable[[], tuple[Indexes, Mapping[str, str]]]
    mirrors: Callable[[], Mirrors]
    reporter: Reporter
    now: datetime
    epoch: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
