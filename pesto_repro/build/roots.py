"""Roots: what was last built, and what of the store it needs. ``store gc`` keeps that, ``store ls`` shows it.

Each build leaves one record for its lock and reference; building again renews it, and its file's time says when.
A root is *live* if its lock is still there and nothing newer was built from it. What only others need may go, once it
was not needed for long enough. Only what was in the store when the build ended is said to be needed: a build that
got its layers from a cache has no wheels to keep.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pesto_repro.digest import Digest, digest_of_value
from pesto_repro.store import Record, Store

KIND = "root"
LAYER = "layer"
"""The kind of need that is a layer of the image; all others are those of pins."""
UNIQUE = "unique wheel"
"""The kind of need that nobody can make or fetch again: its build does not come out equal."""
_NEED = "needs."


@dataclass(frozen=True, slots=True)
class Root:
    """An image that was built, of which *project*, and the *needs* of that build by kind: blobs in the store.

    *lock* is the lock's address and *lockfile* where it lies; *output* is where the image was written, *size* the
    sum of its layers in bytes; *subjects* are what else records may be about: keys of its steps, diff_ids. *when*
    (seconds since 1970) is the time of the record's file.
    """

    reference: str
    digest: Digest
    lock: str
    lockfile: str
    project: str
    profiles: tuple[str, ...]
    output: str
    size: int
    subjects: tuple[Digest, ...]
    needs: Mapping[str, tuple[Digest, ...]]
    when: float = field(default=0.0, compare=False)

    @property
    def name(self) -> str:
        """The name of its record."""
        return digest_of_value({"lockfile": self.lockfile, "reference": self.reference}).hex

    def blobs(self) -> set[Digest]:
        """Everything needed."""
        return {digest for digests in self.needs.values() for digest in digests}

    def without(self, lost: Iterable[Digest]) -> Root:
        """The same, needing none of *lost*."""
        gone = frozenset(lost)
        needs = {kind: tuple(each for each in all_ if each not in gone) for kind, all_ in self.needs.items()}
        return replace(self, needs=needs)


def remember_root(root: Root, store: Store) -> None:
    """Record *root*, as built now. Of its needs counts what is in the store."""
    absent = {each for each in root.blobs() if not store.path(each).exists()}
    store.remember(KIND, root.name, _record(root.without(absent)))


def renounce(root: Root, lost: Iterable[Digest], store: Store) -> None:
    """Record that *root* needs none of *lost* any more; when it was built stays what it was."""
    store.remember(KIND, root.name, _record(root.without(lost)))
    with contextlib.suppress(FileNotFoundError):
        os.utime(_file(root.name, store), (root.when, root.when))


def roots(store: Store) -> tuple[Root, ...]:
    """Every root whose record can be read, the last built first."""
    return tuple(sorted(_roots(store), key=lambda each: (-each.when, each.reference)))


def live(found: Iterable[Root]) -> tuple[Root, ...]:
    """Of *found*, those whose lock is there: of each lock the one that was built last."""
    newest: dict[str, Root] = {}
    for each in sorted(found, key=lambda root: root.when):
        newest[each.lockfile] = each
    return tuple(each for each in newest.values() if Path(each.lockfile).is_file())


def _roots(store: Store) -> Iterator[Root]:
    folder = store.root / "records" / KIND
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for name in names:
        record = store.record(KIND, name)
        with contextlib.suppress(FileNotFoundError, KeyError, ValueError):  # gone meanwhile, or of another version
            if record is not None:
                yield _root(record, _file(name, store).stat().st_mtime)


def _file(name: str, store: Store) -> Path:
    return store.root / "records" / KIND / name


def _record(root: Root) -> Record:
    return {
        "reference": root.reference,
        "digest": str(root.digest),
        "lock": root.lock,
        "lockfile": root.lockfile,
        "project": root.project,
        "profiles": " ".join(root.profiles),
        "output": root.output,
        "size": root.size,
        "subjects": _words(root.subjects),
        **{_NEED + kind: _words(digests) for kind, digests in root.needs.items()},
    }


def _root(record: Record, when: float) -> Root:
    texts = {key: str(value) for key, value in record.items()}
    return Root(
        reference=texts["reference"],
        digest=Digest.parse(texts["digest"]),
        lock=texts["lock"],
        lockfile=texts["lockfile"],
        project=texts["project"],
        profiles=tuple(texts["profiles"].split()),
        output=texts["output"],
        size=int(record["size"]),
        subjects=_digests(texts["subjects"]),
        needs={key.removeprefix(_NEED): _digests(text) for key, text in texts.items() if key.startswith(_NEED)},
        when=when,
    )


def _words(digests: Iterable[Digest]) -> str:
    return " ".join(each.hex for each in digests)


def _digests(text: str) -> tuple[Digest, ...]:
    return tuple(map(Digest, text.split()))
