"""What files of this machine were found to hold, so that they need not be read again: by size, times and inode, as
version control systems tell whether a file changed.

A file that is changed right after it was read may keep its times, as clocks are coarse. So what is remembered counts
only for files whose times were old when it was written down: younger ones are read again (and remembered then).
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import NamedTuple

from pesto_repro.digest import Digest, digest_of_value
from pesto_repro.errors import StoreError
from pesto_repro.store import Store

_KIND = "seen-1"
_COARSE = 2_000_000_000
"""Nanoseconds: the coarsest clock of a file system in use."""


class Signature(NamedTuple):
    """Equal before and after, the content is the same. Times in nanoseconds."""

    size: int
    mtime: int
    ctime: int
    inode: int

    @property
    def of_content(self) -> tuple[int, int, int]:
        """Without ctime, which other names and other modes of the file change, too."""
        return self.size, self.mtime, self.inode

    @classmethod
    def of(cls, path: Path) -> Signature:
        """That of *path* now. Raises OSError."""
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


class Seen:
    """The digests of files below one folder, as *store* remembers them; without a store nothing is remembered."""

    def __init__(self, store: Store | None = None, folder: Path | None = None) -> None:
        self._store = store
        self._slot = digest_of_value({"folder": str(folder)}).hex
        self._before = self._load()
        self._now: dict[str, tuple[Signature, Digest]] = {}

    def find(self, path: Path, signature: Signature) -> Digest | None:
        """The digest of *path*, if it is known and the file is still the same."""
        known = self._before.get(str(path))
        if known is None or known[0] != signature:
            return None
        self._now[str(path)] = known
        return known[1]

    def add(self, path: Path, signature: Signature, digest: Digest) -> None:
        """*path* had *digest* when it had *signature*."""
        self._now[str(path)] = (signature, digest)

    def save(self) -> None:
        """Remember what was found, if it is not what was known."""
        if self._store is None:
            return
        limit = time.time_ns() - _COARSE
        settled = {path: each for path, each in self._now.items() if max(each[0].mtime, each[0].ctime) < limit}
        if settled != self._before:
            rows = [[path, *signature, digest.hex] for path, (signature, digest) in sorted(settled.items())]
            with contextlib.suppress(StoreError):  # a store that takes nothing: the files are read again
                self._store.remember(_KIND, self._slot, {"files": json.dumps(rows, separators=(",", ":"))})

    def _load(self) -> dict[str, tuple[Signature, Digest]]:
        record = self._store.record(_KIND, self._slot) if self._store is not None else None
        rows = json.loads(str(record["files"])) if record is not None else []
        return {path: (Signature(*numbers), Digest(sha256)) for path, *numbers, sha256 in rows}
