"""A source as a value: a directory with all that it needs to be built, as one canonical tar in the store.

The tar is written by our own writer: sorted, owner 0, one file time, modes 644 and 755. So the tree of a commit or of a
directory has one digest on every machine, which is its pin; an archive from an index is pinned by its own bytes. What
is unpacked of it is unpacked in the room, never on the host.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import IO, Literal

from pesto_repro.build.entry import Entry
from pesto_repro.build.tar import arrange, write_tar
from pesto_repro.digest import Digest
from pesto_repro.errors import BuildError
from pesto_repro.store import Store

FOLDER = "source"
"""The name of a source's directory in the room where it brings none of its own."""
LIMIT = 4 << 30
"""Bytes that a source may have when it is unpacked."""
_DOCUMENT = 4 << 20

Kind = Literal["sdist", "git", "directory"]


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A source: *digest* and *size* are its pin, *tree* the tar of its files, all below *folder*.

    *name* is what the lock calls it: an archive's file name, an address, a path. *package* and *version* are what must
    come out of it, as far as known. *pyproject* is its ``pyproject.toml``.
    """

    kind: Kind
    name: str
    digest: Digest
    size: int
    tree: Digest
    folder: str = FOLDER
    commit: str | None = None
    subdirectory: str | None = None
    package: str | None = None
    version: str | None = None
    pyproject: bytes | None = field(default=None, repr=False)

    @property
    def label(self) -> str:
        """What to call it in a message."""
        return f"{self.name} at {self.commit[:12]}" if self.commit else self.name

    @property
    def root(self) -> str:
        """The directory that is built, as the tar names it."""
        return f"{self.folder}/{self.subdirectory}" if self.subdirectory else self.folder


def write_tree(entries: Iterable[Entry], store: Store) -> tuple[Digest, int]:
    """*entries* as one canonical tar in *store*: its digest and size. Raises BuildError."""
    arranged = [replace(each, mode=_mode(each), uid=0, gid=0) for each in arrange(entries)]
    if sum(each.size for each in arranged) > LIMIT:
        raise too_large()
    with store.writer() as blob:
        write_tar(arranged, blob)
        return blob.commit(), blob.size


def below(folder: str, entry: Entry) -> Entry:
    """*entry* in *folder*."""
    return replace(entry, path=f"{folder}/{entry.path}")


def opened(source: Unpacked, store: Store) -> Unpacked:
    """*source* with its pyproject.toml, read from its tar. Raises BuildError if it has no such subdirectory."""
    if source.subdirectory and ".." in source.subdirectory.split("/"):
        raise BuildError(f"{source.label}: the subdirectory {source.subdirectory!r} leaves the source")
    pyproject, seen = None, False
    with store.open(source.tree) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        for member in archive:
            seen = seen or member.name == source.root
            if member.name == f"{source.root}/pyproject.toml":
                pyproject = _document(archive, member, source)
    if not seen:
        raise BuildError(f"{source.label} has no directory {source.subdirectory or source.folder!r}")
    return replace(source, pyproject=pyproject)


def too_large() -> BuildError:
    """The error for a source that does not end."""
    return BuildError(f"it is more than {LIMIT >> 30} GiB when it is unpacked")


def _mode(entry: Entry) -> int:
    """0777 for links, else as a file or directory of a tree has it."""
    if entry.kind in ("symlink", "directory"):
        return {"symlink": 0o777, "directory": 0o755}[entry.kind]
    return 0o755 if entry.mode & 0o100 else 0o644


def _document(archive: tarfile.TarFile, member: tarfile.TarInfo, source: Unpacked) -> bytes:
    stream: IO[bytes] | None = archive.extractfile(member) if member.isfile() else None
    if stream is None or member.size > _DOCUMENT:
        raise BuildError(f"{source.label}: {member.name} is no file of a sensible size")
    return stream.read()
