"""What a layer puts below a directory that is a link in the base goes to where the link leads.

Engines unpack a layer as it is: a directory ``lib`` in it would take the place of the base's link ``/lib``, and with
it of every library. A step says which links there are ("links"), so its key tells bases without them from others.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import replace

from pesto_repro.build.entry import Entry, directory
from pesto_repro.errors import BuildError
from pesto_repro.plan.root import real


def follow(entries: Iterable[Entry], links: Mapping[str, str]) -> list[Entry]:
    """*entries* where they really lie. Raises BuildError that lists what would take the place of a link."""
    entries = list(entries)
    refused = sorted(
        f"/{each.path}: a {each.kind}, where the base has a link to /{links[each.path]}"
        for each in entries
        if _replaces(each, links)
    )
    if refused:
        raise BuildError("\n  ".join(["these would take the place of directories of the base:", *refused]))
    return [_followed(each, links) for each in entries]


def _replaces(entry: Entry, links: Mapping[str, str]) -> bool:
    """Would *entry* put something else where the base has a link?"""
    return entry.path in links and entry.kind != "directory" and _destination(entry) != links[entry.path]


def _followed(entry: Entry, links: Mapping[str, str]) -> Entry:
    path = real(entry.path, links)
    if path == entry.path or (entry.path in links and entry.kind == "symlink"):
        return entry
    if entry.kind == "directory":
        return directory(path, origin=entry.origin)
    if entry.kind == "symlink" and not entry.target.startswith("/"):
        target = posixpath.relpath("/" + real(_destination(entry), links), "/" + posixpath.dirname(path))
        return replace(entry, path=path, target=target)
    return replace(entry, path=path)


def _destination(link: Entry) -> str:
    """Where a symlink points, below the root."""
    return posixpath.normpath(posixpath.join("/", posixpath.dirname(link.path), link.target)).lstrip("/")
