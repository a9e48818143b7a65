"""Keeping the store: what is in it, and what of it may go.

Needed is what a live root (see :mod:`pesto_repro.build.roots`) needs, and what records say of that: a record is about
what its name begins with, so a needed name needs what its record names (a step its diff_id, that its layer's blob).
Everything else was last needed when a root needed it last, or when it came; it goes once that is longer ago than
asked, or, the longest unneeded first, until the store is small enough. What is live goes only for the latter, last,
and its roots with it. All of it can be had again: by the next build, or from where it came. What cannot, a wheel whose
build does not come out equal, stays as long as its root is live, however small the store is to be.

Spares, archives that the next build of an output begins with (see :mod:`pesto_repro.sinks.archive`), only save time:
they go first, and at once where their output is gone.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pesto_repro.build.roots import KIND as ROOT
from pesto_repro.build.roots import UNIQUE, Root, live, roots
from pesto_repro.digest import Digest
from pesto_repro.store import Record, Store

BLOBS = "blobs/sha256"
UNPACKED = ("trees", "roots")
"""Folders of the store with layers unpacked for the sandbox: trees by diff_id, and what was put together of them."""
DAY = 86400.0
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_HEX = re.compile(r"\b[0-9a-f]{64}\b")
_SUBJECT = re.compile(r"([0-9a-f]{64})(?:\.|$)")
HELD = {"layer": "digest", "listing": "listing", "step": "paths"}
"""Kind of record -> its key that names a blob without which it is worth nothing."""
ABOUT = {"checked": "blob", "spare": "spare"}
"""Kind of record -> the kind of what it is about, and worth nothing without."""


@dataclass(frozen=True, slots=True)
class Item:
    """Something that the store keeps: a blob, a partial download, an unpacked layer, a spare. *mtime* is in seconds."""

    kind: str
    path: Path
    size: int
    mtime: float

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True, slots=True)
class Kept:
    """A record: *value* is None if it cannot be read, or its checksum is wrong."""

    kind: str
    name: str
    value: Record | None
    size: int
    mtime: float

    @property
    def subject(self) -> str | None:
        """The digest, in hex, of what it is about."""
        found = _SUBJECT.match(self.name)
        return found[1] if found else None

    @property
    def named(self) -> set[str]:
        """The digests, in hex, that it names."""
        return self._found(_DIGEST)

    @property
    def mentioned(self) -> set[str]:
        """What it is about, and what it names, which may be the key of a step: all that is as long as a digest.

        What an archive holds keeps no record of it: other images hold that, too.
        """
        subject = {self.subject} if self.subject else set()
        return subject if self.kind == "output" else subject | self._found(_HEX)

    def _found(self, pattern: re.Pattern[str]) -> set[str]:
        texts = [each for each in (self.value or {}).values() if isinstance(each, str)]
        return {found for text in texts for found in pattern.findall(text)}


@dataclass(frozen=True, slots=True)
class Contents:
    """What a store holds at one moment."""

    items: tuple[Item, ...]
    records: tuple[Kept, ...]
    roots: tuple[Root, ...]


@dataclass(frozen=True, slots=True)
class Sweep:
    """What goes: *items*, *records*. *kept* is the size in bytes of what stays."""

    items: tuple[Item, ...]
    records: tuple[Kept, ...]
    kept: int

    @property
    def freed(self) -> int:
        """In bytes."""
        return _total(self.items, self.records)


def contents(store: Store) -> Contents:
    """Everything in *store* but files being written."""
    folders = {BLOBS: "blob", "partial": "partial", "spares": "spare"}
    items = [item for folder, kind in folders.items() for item in _files(store.root / folder, kind)]
    seen: set[tuple[int, int]] = set()
    for kind in UNPACKED:
        items += _trees(store.root / kind, kind.removesuffix("s"), seen)
    return Contents(tuple(items), tuple(_records(store)), roots(store))


def sweep(found: Contents, *, before: float, max_size: int | None = None) -> Sweep:
    """What of *found* goes: what was not needed since *before*, and then what is more than *max_size* bytes."""
    current = live(found.roots)
    alive = needed(found, current)
    last = _last_needed(found)
    outputs = _outputs(current)

    def goes(item: Item) -> bool:
        if item.kind == "spare":
            return item.name not in outputs
        return item.name not in alive and _when(item, last) < before

    order = sorted(found.items, key=lambda each: (_rank(each, alive), _when(each, last), each.path))
    going = [each for each in order if goes(each)]
    if max_size is not None:
        unique = {digest.hex for root in current for digest in root.needs.get(UNIQUE, ())}
        going += _surplus([each for each in order if not goes(each)], unique, max_size)
    records = tuple(_pointless(found, going, alive, before))
    gone = _total(going, records)
    return Sweep(tuple(going), records, _total(found.items, found.records) - gone)


def _rank(item: Item, alive: set[str]) -> int:
    """Which goes first where room is needed: what only saves time, what is not needed, what is."""
    return 0 if item.kind == "spare" else 1 + (item.name in alive)


def _when(item: Item, last: Mapping[str, float]) -> float:
    """When it was last needed, or came."""
    return max(item.mtime, last.get(item.name, item.mtime))


def _outputs(current: Iterable[Root]) -> set[str]:
    """What else the roots are about whose output is there: the names of their spares are among it."""
    return {each.hex for root in current if Path(root.output).is_file() for each in root.subjects}


def _surplus(order: Sequence[Item], unique: set[str], max_size: int) -> Iterator[Item]:
    """Those of *order* but *unique*, from its start, without which the rest is no more than *max_size* bytes."""
    left = sum(each.size for each in order)
    for each in order:
        if left <= max_size:
            return
        if each.name not in unique:
            left -= each.size
            yield each


def _total(items: Iterable[Item], records: Iterable[Kept]) -> int:
    """In bytes."""
    return sum(each.size for each in items) + sum(each.size for each in records)


def remove(going: Sweep, store: Store) -> Sweep:
    """Remove what goes, and leftovers of killed processes. What was removed: unpacked layers in use stay.

    To be called while nobody else uses the store (:meth:`Store.exclusive`).
    """
    with store.unused("trees") as unused:
        items = [each for each in going.items if unused or each.kind not in ("tree", "root")]
        for record in going.records:  # first: what is cut off here leaves no record of what is not there
            store.forget(record.kind, record.name)
        for item in items:
            _remove(item, store)
    for path in _entries(store.root / "tmp"):
        _remove_path(path, store)
    stayed = sum(each.size for each in going.items) - sum(each.size for each in items)
    return Sweep(tuple(items), going.records, going.kept + stayed)


def needed(found: Contents, wanted: Iterable[Root]) -> set[str]:
    """What *wanted* need, in hex: blobs, steps, diff_ids, and whatever records say of those."""
    about = _by_subject(found)
    return _closure({digest.hex for root in wanted for digest in (*root.blobs(), *root.subjects)}, about)


def _last_needed(found: Contents) -> dict[str, float]:
    """When each thing that some root needs was last needed."""
    about = _by_subject(found)
    last: dict[str, float] = {}
    for root in sorted(found.roots, key=lambda each: each.when):
        things = _closure({digest.hex for digest in (*root.blobs(), *root.subjects)}, about)
        last.update(dict.fromkeys(things, root.when))
    return last


def _by_subject(found: Contents) -> Mapping[str, set[str]]:
    about: defaultdict[str, set[str]] = defaultdict(set)
    for each in found.records:
        if each.subject is not None and each.kind != ROOT:
            about[each.subject] |= each.named
    return about


def _closure(start: Iterable[str], about: Mapping[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    todo = set(start)
    while todo:
        reached |= todo
        todo = {named for each in todo for named in about.get(each, ())} - reached
    return reached


def _pointless(found: Contents, going: Iterable[Item], alive: set[str], before: float) -> Iterator[Kept]:
    """Records that cannot be read, that point to what is not there any more, or that nobody needed for long."""
    gone = {each.name for each in going if each.kind == "blob"}
    left = set(found.items) - set(going)
    there = {kind: {each.name for each in left if each.kind == kind} for kind in ABOUT.values()}
    blobs = there["blob"]
    cut = {root.name for root in found.roots if any(digest.hex in gone for digest in root.blobs())}
    current = {root.name for root in live(found.roots)}
    made = {each.subject for each in found.records if each.kind == "layer" and holds(each, blobs)}
    for each in found.records:
        old = each.mtime < before
        if each.value is None or not holds(each, blobs):
            yield each
        elif each.kind == ROOT:
            if each.name in cut or (old and each.name not in current):
                yield each
        elif each.kind == "step":
            if not made & each.named:
                yield each
        elif each.kind in ABOUT:
            if each.subject not in there[ABOUT[each.kind]]:
                yield each
        elif each.kind not in HELD and old and not each.mentioned & alive:
            yield each


def holds(record: Kept, blobs: set[str]) -> bool:
    """Whether the blob that *record* is nothing without is one of *blobs*."""
    named = (record.value or {}).get(HELD.get(record.kind, ""))
    return named is None or str(named).removeprefix("sha256:") in blobs


# -- files -------------------------------------------------------------------------------------------------------


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _files(folder: Path, kind: str) -> Iterator[Item]:
    for path in _entries(folder):
        with suppress(FileNotFoundError):
            status = path.lstat()
            yield Item(kind, path, status.st_size, status.st_mtime)


def _trees(folder: Path, kind: str, seen: set[tuple[int, int]]) -> Iterator[Item]:
    for path in _entries(folder):
        with suppress(FileNotFoundError):
            yield Item(kind, path, _size(path, seen), path.lstat().st_mtime)


def _size(path: Path, seen: set[tuple[int, int]]) -> int:
    """The bytes of the files below *path*; those in *seen*, which other names have, count once."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                status = Path(folder, name).lstat()
                identity = status.st_dev, status.st_ino
                total += 0 if identity in seen else status.st_size
                seen.add(identity)
    return total


def _records(store: Store) -> Iterator[Kept]:
    for folder in _entries(store.root / "records"):
        for path in _entries(folder):
            with suppress(FileNotFoundError):
                status = path.lstat()
                value = _value(folder.name, path.name, store)
                yield Kept(folder.name, path.name, value, status.st_size, status.st_mtime)


def _value(kind: str, name: str, store: Store) -> Record | None:
    try:
        return store.record(kind, name)
    except ValueError:  # a checksum that is right, of what is no record
        return None


def _remove(item: Item, store: Store) -> None:
    if item.kind == "blob" and _SUBJECT.fullmatch(item.name):
        store.discard(Digest(item.name))
    else:
        _remove_path(item.path, store)


def _remove_path(path: Path, store: Store) -> None:
    """A tree may hold folders that may not be written: those of its layer."""
    with store.guarded():
        if not path.is_dir() or path.is_symlink():
            path.unlink(missing_ok=True)
            return
        path.chmod(0o700)
        for folder, below, _ in os.walk(path):
            for each in below:
                if not (inside := Path(folder, each)).is_symlink():
                    inside.chmod(0o700)
        shutil.rmtree(path)
