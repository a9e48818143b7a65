"""What is special about the root of a Debian image: directories that are links, or not 0755 root:root.

A layer that lies above the base must know both: the directories that it names on the way to its own paths take the
place of what the base has there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

USER = 65532
"""``nonroot``, the user that images run as unless told otherwise; the number is that of distroless images."""
_MAIL = 8

MERGED_USR = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
LINKS: Mapping[str, str] = {**{name: f"usr/{name}" for name in MERGED_USR}, "var/run": "run", "var/lock": "run/lock"}
"""Directories that are links in the base (made by "debian-system"), and where they lead.

/usr is merged; base-files moves what lasts as long as a boot to /run.
"""


class Permissions(NamedTuple):
    """Permission bits and numeric owners."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0


SPECIAL: Mapping[str, Permissions] = {
    **dict.fromkeys(["tmp", "var/tmp", "run/lock"], Permissions(0o1777)),
    "root": Permissions(0o700),
    "var/mail": Permissions(0o2775, gid=_MAIL),
    "home/nonroot": Permissions(0o700, USER, USER),
}
"""Directories that must not become 0755 root:root because a layer puts something into them."""


def real(path: str, links: Mapping[str, str]) -> str:
    """Where *path* really lies, given the directories that are *links*.

    >>> real("lib/x", LINKS)
    'usr/lib/x'
    """
    for link, target in links.items():
        if path == link or path.startswith(f"{link}/"):
            return target + path[len(link) :]
    return path
