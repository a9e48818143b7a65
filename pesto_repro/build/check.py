"""Is everything in the store what it says it is? Every blob is hashed anew, every record and every need looked up.

A store heals by itself where it is used: what does not verify is never used, and made or fetched again. This finds
the harm before, and says what it was.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from pesto_repro.build.keep import BLOBS, HELD, Contents, Item, Kept, contents, holds
from pesto_repro.build.roots import Root, live, renounce
from pesto_repro.digest import CHUNK, Digest, chunks
from pesto_repro.progress import Activity, Reporter
from pesto_repro.store import Store


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: with a "blob", a "stray" file among them, a "record", or a "need".

    The last is a blob that a root needs and that is not there.
    """

    kind: str
    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.what}"


@dataclass(frozen=True, slots=True)
class Health:
    """What was found: how many *blobs*, *records* and *bytes* were looked at, the *faults*, and the *roots*."""

    blobs: int
    records: int
    bytes: int
    faults: tuple[Fault, ...]
    roots: tuple[Root, ...]

    @property
    def lost(self) -> frozenset[Digest]:
        """The blobs that are not there or not intact."""
        return frozenset(Digest(each.name) for each in self.faults if each.kind in ("blob", "need"))


def check(store: Store, reporter: Reporter) -> Health:
    """Look at everything in *store*; nothing is changed."""
    with store.in_use():
        found = contents(store)
        blobs = [each for each in found.items if each.kind == "blob"]
        size = sum(each.size for each in blobs)
        with reporter.activity("check", str(store.root), size) as activity, ThreadPoolExecutor(os.cpu_count()) as pool:
            faults = [fault for fault in pool.map(partial(_blob_fault, activity), blobs) if fault]
        harmed = {each.name for each in faults}
        intact = {each.name for each in blobs} - harmed
        faults += _record_faults(found.records, intact)
        faults += _need_faults(found, intact | harmed)
    return Health(len(blobs), len(found.records), size, tuple(faults), found.roots)


def remove_faults(health: Health, store: Store) -> None:
    """Remove every broken blob and record."""
    for each in health.faults:
        if each.kind in ("blob", "stray"):
            with store.guarded():
                (store.root / BLOBS / each.name).unlink(missing_ok=True)
        elif each.kind == "record":
            kind, _, name = each.name.partition("/")
            store.forget(kind, name)


def give_up(health: Health, brought: Collection[Digest], store: Store) -> None:
    """What was lost and not *brought* back is asked of no root any more."""
    lost = health.lost - frozenset(brought)
    for root in health.roots:
        if root.blobs() & lost:
            renounce(root, lost, store)


def _blob_fault(activity: Activity, item: Item) -> Fault | None:
    fault = partial(Fault, "blob", item.name)
    try:
        wanted = Digest(item.name)
    except ValueError:
        return Fault("stray", item.name, "its name is no digest")
    try:
        actual = _hash(item, activity)
    except FileNotFoundError:
        return None  # removed by whoever uses the store meanwhile
    except OSError as error:
        return fault(f"it cannot be read: {error.strerror or error}")
    return None if actual == wanted else fault(f"its bytes are those of {actual}")


def _hash(item: Item, activity: Activity) -> Digest:
    state = hashlib.sha256()
    with item.path.open("rb") as stream:
        for piece in chunks(stream, CHUNK):
            state.update(piece)
            activity.advance(len(piece))
    return Digest(state.hexdigest())


def _record_faults(records: Sequence[Kept], intact: set[str]) -> Iterator[Fault]:
    for each in records:
        name = f"{each.kind}/{each.name}"
        if each.value is None:
            yield Fault("record", name, "it is not what was recorded")
        elif not holds(each, intact):
            named = each.value[HELD[each.kind]]
            yield Fault("record", name, f"it points to {named}, which is not there or not intact")


def _need_faults(found: Contents, there: set[str]) -> Iterator[Fault]:
    told: set[Digest] = set()
    for root in live(found.roots):
        for kind, digests in root.needs.items():
            for digest in digests:
                if digest.hex not in there and digest not in told:
                    told.add(digest)
                    yield Fault("need", digest.hex, f"a {kind} that {root.reference} needs is not there")
