"""Paths inside a root file system: every symlink is followed as if the root were ``/``, so none leads out.

Only for roots that nobody changes meanwhile.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

MAX_LINKS = 40
"""As the kernel's own limit (path_resolution(7))."""


def parts_of(path: str) -> list[str]:
    """The names that *path* consists of, from the root on; ``..`` is kept, as it depends on links."""
    return [part for part in path.split("/") if part not in ("", ".")]


def resolve(root: Path, path: str) -> str:
    """Where the absolute *path* really is inside *root*: without links, beginning with ``/``. It need not exist.

    Raises OSError (ELOOP) for links that go in circles.
    """
    found: list[str] = []
    left, links = parts_of(path)[::-1], 0
    while left:
        part = left.pop()
        if part == "..":
            del found[-1:]
            continue
        here = root.joinpath(*found, part)
        if not here.is_symlink():
            found.append(part)
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target = str(here.readlink())
        found = [] if target.startswith("/") else found
        left += parts_of(target)[::-1]
    return "/" + "/".join(found)


def inside(root: Path, path: str) -> Path:
    """The place on the host of the absolute *path* inside *root*, which need not exist."""
    return root / resolve(root, path).lstrip("/")
