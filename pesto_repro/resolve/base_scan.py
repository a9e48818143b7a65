"""What lies in the layers of an image that nobody unpacked: links, interpreters, the C library, packages.

Each layer is read once, from start to end, and only what may matter is kept: every symbolic link, every directory, and
the few files by which a Python is known. What is kept of a layer goes by its digest, so that a layer that many images
share is read once. :class:`Root` is what a container would see: later layers win, whiteouts hide (layer.md,
"Whiteouts").
"""

from __future__ import annotations

import json
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from pesto_repro.digest import CHUNK, Digest, canonical_json
from pesto_repro.store import Store

SCAN_VERSION = 1
"""Raise it when something else is kept of a layer."""
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_LINKS_FOLLOWED = 40
"""path_resolution(7): as many as Linux follows."""
_OVERLAP = 128
_VAR = ("var/lock", "var/run")
PIECE = 64 << 10
"""tarfile copies what is left of a piece at every read."""

_PYTHON = re.compile(r"(?:.*/)?bin/python(?:3(?:\.\d+)?t?)?")
_LIBRARY = re.compile(r"(?:.*/)?libpython3\.\d+t?\.so\.1\.0")
_LIBC = re.compile(r"(?:.*/)?(?:libc\.so\.6|libc-2\.\d+\.so)")
_MUSL = re.compile(r"(?:.*/)?ld-musl-[\w]+\.so\.1")
_HEADER = re.compile(r".*/include/python3\.\d+t?/patchlevel\.h")
_OTHERS = re.compile(
    r"(?:.*/)?(?:lib\d*/python3\.\d+t?/os\.py|pyvenv\.cfg|[^/]+\.dist-info/METADATA|[^/]+\.egg-info(?:/PKG-INFO)?)"
)
_FACTS: tuple[tuple[re.Pattern[str], dict[str, re.Pattern[bytes]]], ...] = (
    (
        # PY_VERSION is a literal of its own, and the linker may let it end another one. PT_INTERP names the loader.
        re.compile(f"{_PYTHON.pattern}|{_LIBRARY.pattern}"),
        {
            "version": re.compile(rb"(?<![0-9.])(3\.[0-9]{1,2}\.[0-9]{1,3}(?:(?:a|b|rc)[0-9]{1,2})?)\+?\0"),
            "loader": re.compile(rb"(/lib[0-9]*/ld-(?:linux|musl)[\w-]*\.so\.[0-9])\0"),
        },
    ),
    (_HEADER, {"version": re.compile(rb'#define PY_VERSION\s+"(3\.[0-9.]+(?:(?:a|b|rc)[0-9]+)?)\+?"')}),
    # glibc's banner, csu/version.c
    (_LIBC, {"version": re.compile(rb"(?:stable|development) release version (2\.[0-9]{1,3})")}),
    (_MUSL, {"version": re.compile(rb"(?<![0-9.])(1\.[0-9]{1,2}\.[0-9]{1,3})\0")}),
)


@dataclass(frozen=True, slots=True)
class Node:
    """A path that matters: a *file*, a *symlink*, a *hardlink* or a *directory*.

    *facts* are what was read in a file, (name, value) in the order of reading.
    """

    path: str
    kind: str
    target: str = ""
    facts: tuple[tuple[str, str], ...] = ()

    def fact(self, name: str, start: str = "") -> str | None:
        """The first value of *name* that begins with *start*."""
        return next((value for key, value in self.facts if key == name and value.startswith(start)), None)


@dataclass(frozen=True, slots=True)
class Listing:
    """What is kept of one layer: its nodes, the paths that it hides, the folders of which it hides all."""

    nodes: tuple[Node, ...]
    hidden: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()

    def document(self) -> bytes:
        """To be kept, and read by :meth:`parse`."""
        nodes = [[each.path, each.kind, each.target, list(map(list, each.facts))] for each in self.nodes]
        return canonical_json({"nodes": nodes, "hidden": list(self.hidden), "opaque": list(self.opaque)})

    @classmethod
    def parse(cls, document: bytes) -> Listing:
        """The inverse of :meth:`document`."""
        value = json.loads(document)
        nodes = (Node(path, kind, target, tuple(map(tuple, facts))) for path, kind, target, facts in value["nodes"])
        return cls(tuple(nodes), tuple(value["hidden"]), tuple(value["opaque"]))


def remembered(layer: Digest, store: Store, read: Callable[[], Listing]) -> Listing:
    """The listing of *layer*, which *read* gives if it was not read before."""
    name = f"{layer.hex}.{SCAN_VERSION}"
    record = store.record("listing", name)
    if record is not None and store.has(kept := Digest.parse(str(record["listing"]))):
        with store.open(kept) as stream:
            return Listing.parse(stream.read())
    found = read()
    store.remember("listing", name, {"listing": str(store.put(found.document()))})
    return found


def scan(tar: IO[bytes]) -> Listing:
    """What matters of the layer *tar*, uncompressed, which is read to its end. Raises tarfile.TarError."""
    nodes: dict[str, Node] = {}
    hidden, opaque = [], []
    with tarfile.open(fileobj=tar, mode="r|", bufsize=PIECE, encoding="utf-8", errors="surrogateescape") as archive:
        while (info := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # or it keeps every header that it has read
            path = _clean(info.name)
            folder, name = posixpath.split(path)
            if name == _OPAQUE:
                opaque.append(folder)
            elif name.startswith(_WHITEOUT):
                hidden.append(posixpath.join(folder, name.removeprefix(_WHITEOUT)))
            elif path and (node := _node(path, info, archive, nodes)) is not None:
                nodes[path] = node
    while tar.read(CHUNK):
        pass
    return Listing(tuple(nodes.values()), tuple(hidden), tuple(opaque))


def _clean(name: str) -> str:
    """Others' tars say ``./usr/``; what would leave the root is nothing."""
    path = posixpath.normpath("/" + name).strip("/")
    return path.encode("utf-8", "replace").decode()


def _node(path: str, info: tarfile.TarInfo, archive: tarfile.TarFile, before: dict[str, Node]) -> Node | None:
    if info.isdir():
        return Node(path, "directory")
    if info.issym():
        return Node(path, "symlink", info.linkname.encode("utf-8", "replace").decode())
    wanted = next((facts for pattern, facts in _FACTS if pattern.fullmatch(path)), None)
    if wanted is None and not _OTHERS.fullmatch(path):
        return None
    if info.islnk():
        other = before.get(_clean(info.linkname))
        return Node(path, "hardlink", _clean(info.linkname), other.facts if other else ())
    stream = archive.extractfile(info) if info.isfile() and wanted else None
    return Node(path, "file", facts=_read_facts(stream, wanted) if stream and wanted else ())


def _read_facts(stream: IO[bytes], wanted: dict[str, re.Pattern[bytes]]) -> tuple[tuple[str, str], ...]:
    """Each different value in *stream*, without holding all of it."""
    found: dict[tuple[str, str], None] = {}
    rest = b""
    while piece := stream.read(CHUNK):
        data = rest + piece
        for name, pattern in wanted.items():
            found.update(dict.fromkeys((name, match[1].decode()) for match in pattern.finditer(data)))
        rest = data[-_OVERLAP:]
    return tuple(found)


class Root:
    """The file system that *listings*, of layers from the bottom up, make together."""

    def __init__(self, listings: Iterable[Listing]) -> None:
        self._nodes: dict[str, Node] = {}
        for each in listings:
            self._lay(each)

    def find(self, path: str) -> Node | None:
        """The file at *path*, links followed; None if there is none that matters."""
        node = self._nodes.get(self.real(path))
        return node if node is not None and node.kind in ("file", "hardlink") else None

    def real(self, path: str) -> str:
        """*path* with every link in it followed, relative to the root; what goes round in circles stays as it is."""
        todo, done, links = path.strip("/").split("/"), "", 0
        while todo:
            name = todo.pop(0)
            if name in ("", "."):
                continue
            done = posixpath.dirname(done) if name == ".." else posixpath.join(done, name)
            node = self._nodes.get(done)
            if node is not None and node.kind == "symlink" and links < _LINKS_FOLLOWED:
                links += 1
                done = "" if node.target.startswith("/") else posixpath.dirname(done)
                todo = [*node.target.split("/"), *todo]
        return done

    def links(self) -> dict[str, str]:
        """The links in the root directory, and those that distributions have in /var: ``lib`` -> ``usr/lib``."""
        links = (path for path, node in self._nodes.items() if node.kind == "symlink")
        found = {path: self.real(path) for path in sorted(links) if "/" not in path or path in _VAR}
        return {path: target for path, target in found.items() if target not in ("", path)}

    def files(self, folders: Sequence[str]) -> Iterator[tuple[str, str]]:
        """(folder, path below it) of every file that matters, in the order of *folders*."""
        for folder in dict.fromkeys(map(self.real, folders)):
            for path in sorted(self._nodes):
                if path.startswith(f"{folder}/") and self._nodes[path].kind in ("file", "hardlink"):
                    yield folder, path.removeprefix(f"{folder}/")

    def _lay(self, layer: Listing) -> None:
        """layer.md: "Whiteout files MUST only apply to resources in lower/parent layers"."""
        # what was a directory and is something else now takes all below it along
        replaced = {each.path for each in layer.nodes if each.kind != "directory"}
        gone, emptied = {*layer.hidden, *replaced}, set(layer.opaque)
        kept = {path: node for path, node in self._nodes.items() if not _is_gone(path, gone, emptied)}
        for each in layer.nodes:
            if each.kind == "directory" and each.path not in kept:
                continue  # only what it takes the place of matters
            kept[each.path] = each
        self._nodes = {path: node for path, node in kept.items() if node.kind != "directory"}


def _is_gone(path: str, gone: set[str], emptied: set[str]) -> bool:
    if path in gone:
        return True
    while path:
        path = posixpath.dirname(path)
        if path in emptied or (path and path in gone):
            return True
    return False
