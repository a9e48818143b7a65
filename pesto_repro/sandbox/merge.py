"""What a root file system consists of, computed from the entries of its layers; touches no file.

image-spec, layer.md: a layer's whiteouts come first, and "MUST only apply to resources in lower/parent layers"; then
its entries. A parent that is a symlink is followed inside the root, one that is missing is made. An entry takes the
place of what was there, unless both are directories.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pesto_repro.errors import BuildError
from pesto_repro.sandbox.paths import MAX_LINKS, parts_of
from pesto_repro.sandbox.unpack import Entry

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
MAX_DEPTH = 256
"""Folders that may lie in one another: whoever writes or removes a root goes down one by one."""


@dataclass(frozen=True, slots=True)
class File:
    """A file whose bytes lie at *source*."""

    source: Path


@dataclass(frozen=True, slots=True)
class Provided:
    """A file of no layer."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Symlink:
    text: str


@dataclass(slots=True)
class Directory:
    """The one value here that changes: a root under construction."""

    mode: int = 0o755
    children: dict[str, Node] = field(default_factory=dict)


Node = File | Provided | Symlink | Directory


def merge(layers: Iterable[tuple[Path, Sequence[Entry]]]) -> Directory:
    """The root of *layers*, from the bottom up: each the folder of its files, and its entries. Raises BuildError."""
    root = Directory()
    for folder, entries in layers:
        for entry in entries:
            _hide(root, entry.path)
        for entry in entries:
            if not entry.path.rpartition("/")[2].startswith(WHITEOUT):
                _add(root, folder, entry)
    return root


def find(root: Directory, path: str, *, make: bool = False) -> Node | None:
    """What *path* leads to, every link followed inside *root*; None if it leads to nothing and may not *make* it.

    Raises BuildError if a part of it is no directory, lies too deep, or links go in circles.
    """
    trail: list[Directory] = [root]
    here: Node = root
    left, links = parts_of(path)[::-1], 0
    while left:
        part = left.pop()
        if part == "..":
            trail = trail[:-1] or [root]
            here = trail[-1]
            continue
        if not isinstance(here, Directory):
            raise BuildError(f"/{path} leads through a file")
        child = here.children.get(part)
        if isinstance(child, Symlink):
            links += 1
            if links > MAX_LINKS:
                raise BuildError(f"/{path} leads through links that go in circles")
            left += parts_of(child.text)[::-1]
            if child.text.startswith("/"):
                trail, here = [root], root
            continue
        if child is None:
            if not make:
                return None
            child = here.children[part] = Directory()
        here = child
        if isinstance(here, Directory):
            trail.append(here)
        if len(trail) > MAX_DEPTH:
            raise BuildError(f"/{path[:MAX_DEPTH]} lies deeper than {MAX_DEPTH} folders")
    return here


def _hide(root: Directory, path: str) -> None:
    """Apply the whiteout *path*, if it is one."""
    parent, _, name = path.rpartition("/")
    if not name.startswith(WHITEOUT):
        return
    folder = find(root, parent)
    if not isinstance(folder, Directory):
        return
    if name == OPAQUE:
        folder.children.clear()
    else:
        folder.children.pop(name.removeprefix(WHITEOUT), None)


def _add(root: Directory, folder: Path, entry: Entry) -> None:
    parent, _, name = entry.path.rpartition("/")
    if not name:
        root.mode = entry.mode
        return
    place = find(root, parent, make=True)
    if not isinstance(place, Directory):
        raise BuildError(f"/{entry.path} leads through a file")
    before = place.children.get(name)
    if entry.kind == "directory" and isinstance(before, Directory):
        before.mode = entry.mode
        return
    place.children[name] = _node(root, folder, entry)


def _node(root: Directory, folder: Path, entry: Entry) -> Node:
    if entry.kind == "directory":
        return Directory(entry.mode)
    if entry.kind == "file":
        return File(folder / entry.value)
    if entry.kind == "symlink":
        return Symlink(entry.value)
    return _linked(root, entry)


def _linked(root: Directory, entry: Entry) -> Node:
    """What the hard link *entry* leads to: what has that name, itself, were it a symlink."""
    parent, _, name = entry.value.rpartition("/")
    place = find(root, parent)
    found = place.children.get(name) if isinstance(place, Directory) else None
    if found is None or isinstance(found, Directory):
        raise BuildError(f"/{entry.path} is a hard link to /{entry.value}, which is no file of the image")
    return found
