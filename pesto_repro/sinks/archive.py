"""An OCI archive: byte-identical between builds, and written again only from the first byte that changed.

The largest blobs come first: what changes from build to build is mostly small. So the archive before this one and the
new one begin alike, and what they have in common is not written again:

* The archive that is replaced is kept, by a second name in the store: the *spare* of this output.
* The next build writes what changed into the spare, and gives it the output's name; the two change places.
* Where there is no spare, what both have in common is copied from the output (at no cost where files can share blocks).

A file that is not as it was left (its size, inode and times tell) is not built upon. The output itself is never
written to: it is whole at any moment.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pesto_repro.build.entry import Entry
from pesto_repro.build.tar import END, arrange, write_entries
from pesto_repro.digest import Digest, digest_of_value
from pesto_repro.oci import Image
from pesto_repro.registry.content import Document
from pesto_repro.registry.ports import Content
from pesto_repro.sinks.files import BLOBS, files_beside, files_of, files_of_copy
from pesto_repro.sinks.layers import require_layers
from pesto_repro.sinks.writing import beside, replacing, writing
from pesto_repro.store import Record, Store

if TYPE_CHECKING:
    from pesto_repro.registry.companions import Companion

SPARES = "spares"
"""The store's folder for them."""
_ROOM = 4
"""A spare is kept where so many times its size is free."""


def write_archive(image: Image, reference: str, path: Path, store: Store) -> bool:
    """Write *image* as the OCI archive *path*. False if an equal one was already there and untouched."""
    state = str(digest_of_value({"image": str(image.digest), "reference": reference}))
    output = _Output(path, store)
    if output.is_in(state):
        return False
    entries = _ordered(files_of(image, reference, store, docker=True))
    with writing(path), beside(path) as (_, fresh):
        before = output.spare() or output.current()
        kept = _common(entries, before.members) if before else ()
        rest = {each.path for each in entries[len(kept) :]}
        require_layers((digest for digest in image.layers() if f"{BLOBS}/{digest.hex}" in rest), store)
        with output.draft(before, kept, fresh) as (handle, draft):
            members = _write(entries, kept, handle)
        output.replace(draft, _Known(path, state, members))
    return True


def copy_archive(content: Content, image: Sequence[Document], reference: str | None, path: Path) -> None:
    """Write the image that *content* has as the OCI archive *path*: byte for byte what ``write_archive`` writes."""
    with replacing(path) as handle:
        _write(_ordered(files_of_copy(content, image, reference, docker=True)), (), handle)


def copy_beside_archive(content: Content, companions: Sequence[Companion], path: Path) -> None:
    """Write what goes with an image as an archive of its own."""
    with replacing(path) as handle:
        _write(_ordered(files_beside(content, companions)), (), handle)


def output_slot(path: Path) -> Digest:
    """What the records of the archive *path* are called."""
    return digest_of_value({"output": str(path.absolute())})


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of the archive that ends at the byte *end*."""

    path: str
    end: int


@dataclass(frozen=True, slots=True)
class _Known:
    """An archive at *path* that is as it was left: which image and name it has (*state*), and its members."""

    path: Path
    state: str
    members: tuple[_Member, ...]


class _Output:
    """The archive *path*, and its spare: what *store* knows of both."""

    def __init__(self, path: Path, store: Store) -> None:
        self._path, self._store = path, store
        self._slot = output_slot(path).hex
        self._spare = store.root / SPARES / self._slot

    def is_in(self, state: str) -> bool:
        """Whether the archive is there, with the image and the name that *state* tells."""
        current = self.current()
        return current is not None and current.state == state

    def current(self) -> _Known | None:
        """The archive that is there, if it is as it was left."""
        return self._known("output", self._path)

    def spare(self) -> _Known | None:
        """The one before, if it is there and as it was left, and can take the output's name."""
        known = self._known("spare", self._spare)
        return known if known is not None and _same_device(self._spare, self._path.parent) else None

    @contextlib.contextmanager
    def draft(self, before: _Known | None, kept: Sequence[_Member], fresh: Path) -> Iterator[tuple[IO[bytes], Path]]:
        """A file that begins with *kept*: the spare, or *fresh* with what it has in common with *before*."""
        path = fresh
        if before is not None and before.path == self._spare:
            path = self._spare
            self._store.remember("spare", self._slot, {"state": ""})  # from here on it is not what was known
        elif before is not None and kept:
            _copy_start(before.path, fresh, kept[-1].end)
        with path.open("r+b") as handle:
            yield handle, path

    def replace(self, draft: Path, made: _Known) -> None:
        """Give *draft* the output's name; what had it becomes the spare."""
        draft.chmod(0o644)
        before = self.current()
        spare = self._put_aside(before) if before is not None else None
        draft.replace(self._path)
        self._remember("output", made)
        if spare is not None and before is not None:
            spare.replace(self._spare)
            self._remember("spare", _Known(self._spare, before.state, before.members))

    def _put_aside(self, before: _Known) -> Path | None:
        """A second name for the archive that is there; None where there is no room, or no way."""
        aside = self._spare.with_suffix(".next")
        try:
            self._spare.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(aside.parent).free < _ROOM * before.path.stat().st_size:
                return None
            aside.unlink(missing_ok=True)
            aside.hardlink_to(before.path)
        except OSError:
            return None
        return aside

    def _known(self, kind: str, path: Path) -> _Known | None:
        record, stamp = self._store.record(kind, self._slot), _stamp(path)
        if record is None or stamp is None or any(record.get(key) != value for key, value in stamp.items()):
            return None
        lines = (line.rpartition(" ") for line in str(record.get("members", "")).splitlines())
        return _Known(path, str(record["state"]), tuple(_Member(name, int(end)) for name, _, end in lines))

    def _remember(self, kind: str, known: _Known) -> None:
        stamp = _stamp(known.path)
        if stamp is not None:
            members = "\n".join(f"{each.path} {each.end}" for each in known.members)
            self._store.remember(kind, self._slot, {"state": known.state, "members": members, **stamp})


def _stamp(path: Path) -> Record | None:
    """What tells that a file is still the one that was written: as a version control system tells it."""
    try:
        found = path.lstat()
    except OSError:
        return None
    times = {"mtime": str(found.st_mtime_ns), "ctime": str(found.st_ctime_ns)}
    return {"size": found.st_size, "inode": found.st_ino, **times}


def _same_device(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def _copy_start(source: Path, target: Path, size: int) -> None:
    """The first *size* bytes of *source*, copied inside the kernel."""
    with source.open("rb") as given, target.open("r+b") as taken:
        done = 0
        while done < size:
            copied = os.copy_file_range(given.fileno(), taken.fileno(), size - done, done, done)
            if not copied:
                raise OSError(errno.EIO, f"{source} is shorter than it was")
            done += copied


def _ordered(entries: Iterable[Entry]) -> list[Entry]:
    """Directories, then files, the largest first."""
    return sorted(arrange(entries), key=lambda each: (each.kind != "directory", -each.size, each.path))


def _common(entries: Sequence[Entry], members: Sequence[_Member]) -> tuple[_Member, ...]:
    """The members that an earlier archive begins with, as the new one does. A blob's name says what is in it."""
    kept = []
    for entry, member in zip(entries, members, strict=False):
        if entry.path != member.path or not (entry.kind == "directory" or entry.path.startswith(BLOBS)):
            break
        kept.append(member)
    return tuple(kept)


def _write(entries: Sequence[Entry], kept: Sequence[_Member], handle: IO[bytes]) -> tuple[_Member, ...]:
    """Write what comes after *kept*, which is there; all members."""
    members = list(kept)
    handle.seek(members[-1].end if members else 0)
    handle.truncate()
    for entry in entries[len(kept) :]:
        write_entries([entry], handle)
        members.append(_Member(entry.path, handle.tell()))
    handle.write(END)
    return tuple(members)
