"""Where all that a lock needs lies: ``python addresses.py PROJECT STORE`` prints one address per line.

Wheels and .debs, and the two files of each Debian suite that ``lock`` reads: so that a parallel downloader can be let
loose on the same bytes. uv's questions to the index are not among them: they are the tool's, and small.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pesto_repro.cli.world import world_of
from pesto_repro.fetch.artifacts import artifacts
from pesto_repro.lock import text as lock_text
from pesto_repro.progress import Reporter
from pesto_repro.project import lock_path, read_project
from pesto_repro.store import Store


def addresses(project: Path, store: Store) -> Iterator[str]:
    """One address of each file."""
    reporter = Reporter()
    declared = read_project(project)
    lock = lock_text.loads(lock_path(declared).read_text(), "the lock")
    world = world_of(declared, store, reporter)
    for each in artifacts(lock, declared, world).found.values():
        yield next(iter(each.urls()))
    (platform,) = lock.platforms
    release = platform.debian[0].suite.partition("-")[0]
    for suite in (release, f"{release}-updates", f"{release}-security"):
        top = f"{world.mirrors().current(suite)[0]}/dists/{suite}"
        yield f"{top}/InRelease"
        yield f"{top}/main/binary-{platform.platform.partition('/')[2]}/Packages.xz"


if __name__ == "__main__":
    print("\n".join(addresses(Path(sys.argv[1]), Store(Path(sys.argv[2])))))
