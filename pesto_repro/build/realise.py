"""Realises plans: what the store already knows is used, what is missing is fetched and made, on all cores.

A step is known if the store has a record of its diff_id and of the blob that holds it. The blob itself is looked
at when a sink needs it; if it is gone or broken by then, :func:`realise` is called again with it in *lost*:
:func:`persist` does so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, BinaryIO, TypeVar

from pesto_repro.build.compress import LayerWriter
from pesto_repro.build.entry import Entry
from pesto_repro.build.links import follow
from pesto_repro.build.local import LocalFiles
from pesto_repro.build.maker import Inputs, Maker
from pesto_repro.build.shadows import remember_paths, shadows
from pesto_repro.build.tar import arrange, write_tar
from pesto_repro.digest import Digest
from pesto_repro.errors import OfflineError, PestoError, StoreError
from pesto_repro.fetch import PARALLEL
from pesto_repro.oci import MEDIA_TYPES, Descriptor, Layer
from pesto_repro.plan import Step
from pesto_repro.progress import Reporter
from pesto_repro.registry.content import LostLayers
from pesto_repro.store import Store

T = TypeVar("T")
Lost = frozenset[Digest]
"""Layers, by digest of their blob, that the store has no more, or not intact."""
_TRIES = 3

MAKERS = {
    "debs": "debs:entries",
    "debian-system": "debian_system:entries",
    "venv": "venv:entries",
    "wheels": "wheels:entries",
    "tree": "tree:entries",
    "documents": "documents:entries",
    "archive": "archive:entries",
    "file": "tree:file_entries",
    "lock": "embedded:entries",
}
"""Kind of step -> module and function of its maker, imported when a layer is made: most builds make few."""


_LAST = ("debian-system",)
"""Kinds of steps that come last: they find on the shelf what others have put there."""


def maker(kind: str) -> Maker:
    """The maker of *kind*."""
    module, _, name = MAKERS[kind].partition(":")
    found: Maker = getattr(import_module(f"pesto_repro.build.{module}"), name)
    return found


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where steps are realised: *local* says where the project's own bytes lie, *fetch* brings pinned ones.

    *compressor* is the lock's words for it (it decides the bytes), *workers* how many steps are made at once.
    """

    store: Store
    local: LocalFiles
    fetch: Callable[[Digest], None]
    compression: str
    compressor: str
    reporter: Reporter
    workers: int = os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Realised:
    """A step's layer, and whether it was there before: in the store, or in the cache *origin*."""

    step: Step
    layer: Layer
    cached: bool
    origin: str | None = None


def known(step: Step, shop: Workshop) -> Layer | None:
    """The layer that *step* makes, if the store has a record of it."""
    made = shop.store.record("step", step.key.hex)
    if made is None:
        return None
    diff_id = Digest.parse(str(made["diff-id"]))
    blob = shop.store.record("layer", _slot(diff_id, shop))
    if blob is None:
        return None
    return layer_of(step, diff_id, Digest.parse(str(blob["digest"])), int(blob["size"]), shop)


def realise(steps: Iterable[Step], shop: Workshop, lost: Collection[Digest] = ()) -> dict[Digest, Realised]:
    """The layer of every step, by the step's key. Layers whose blob is in *lost* are made again."""
    found: dict[Digest, Realised] = {}
    missing: dict[Digest, Step] = {}
    for step in steps:
        layer = known(step, shop)
        if layer is None or layer.descriptor.digest in lost:
            missing[step.key] = step
        else:
            found[step.key] = Realised(step, layer, cached=True)
    for made in _make_all(tuple(missing.values()), shop):
        found[made.step.key] = made
    return found


def persist(attempt: Callable[[Lost], T], bring: Callable[[Lost], Lost], store: Store) -> T:
    """What *attempt* makes of layers. What it finds lost it is to make again, but for what *bring* brings.

    Raises StoreError if that does not end.
    """
    lost = Lost()
    for _ in range(_TRIES):
        try:
            return attempt(lost)
        except LostLayers as error:
            lost = bring(error.digests)
    raise StoreError(f"the store at {store.root} loses layers as fast as they are made", "check its disk")


def hidden_paths(steps: Sequence[Step], store: Store) -> list[str]:
    """What layers of *steps*, from the base up, hide of layers below them, for people."""
    found = []
    for step in steps:
        record = store.record("step", step.key.hex) or {}
        if "paths" in record:
            owner = "Debian's packages" if step.section == "debian" else step.name
            found.append((owner, Digest.parse(str(record["paths"]))))
    return list(shadows(found, store))


def _make_all(steps: Sequence[Step], shop: Workshop) -> list[Realised]:
    """Fetch inputs and make layers side by side: a step starts once its own inputs are there, large ones first."""
    if not steps:
        return []
    needed = {each.digest: each.size or 0 for step in steps for each in step.inputs if each.digest not in shop.local}
    with (
        ThreadPoolExecutor(PARALLEL, thread_name_prefix="fetch") as fetchers,
        ThreadPoolExecutor(shop.workers, thread_name_prefix="make") as makers,
    ):
        largest = sorted(needed, key=lambda digest: (-needed[digest], digest))
        fetching = {fetchers.submit(shop.fetch, digest): digest for digest in largest}
        try:
            return _drive(steps, shop, fetching, makers)
        except OfflineError as error:
            wait(fetching)
            raise _all_missing(error, [future.exception() for future in fetching], shop) from None
        except BaseException:
            shop.store.give_up()  # or Ctrl-C would wait for the layers and downloads that are under way
            fetchers.shutdown(cancel_futures=True, wait=False)
            makers.shutdown(cancel_futures=True, wait=False)
            raise


def _all_missing(first: OfflineError, errors: Iterable[BaseException | None], shop: Workshop) -> OfflineError:
    """One error that names everything that is missing."""
    names = sorted(error.what for error in errors if isinstance(error, OfflineError))
    if len(names) > 1:
        head = f"{len(names)} artifacts are not in the store at {shop.store.root}, and the network is not to be used:"
        first.message = "\n  ".join([head, *names])
    return first


def _drive(
    steps: Sequence[Step], shop: Workshop, fetching: Mapping[Future[None], Digest], makers: ThreadPoolExecutor
) -> list[Realised]:
    absent = set(fetching.values())
    waiting = sorted(steps, key=lambda step: (step.kind in _LAST, -step.weight, step.key))
    pending: set[Future[Any]] = set(fetching)
    making: list[Future[Realised]] = []
    while True:
        free = shop.workers - sum(not future.done() for future in making)
        ready = [step for step in waiting if not any(each.digest in absent for each in step.inputs)][:free]
        waiting = [step for step in waiting if step not in ready]
        started = [makers.submit(make, step, shop) for step in ready]
        making += started
        pending.update(started)
        if not pending:
            return [future.result() for future in making]
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
            if future in fetching:
                absent.discard(fetching[future])


def make(step: Step, shop: Workshop) -> Realised:
    """Make one layer, whatever the store knows of it."""
    with ExitStack() as stack, shop.reporter.activity("build", step.name), shop.store.writer() as blob:
        inputs = Inputs(partial(_open_input, shop), shop.store.scratch, stack, _Shelf(shop.store))
        writer = LayerWriter(shop.compression, blob)
        try:
            entries = _entries(step, inputs)
            write_tar(entries, writer, writer.copy)
        except PestoError as error:
            error.message = f"{step.section} ({step.name}): {error.message}"
            raise
        diff_id = writer.close()
        for each in step.inputs:
            if each.digest in shop.local:
                shop.local[each.digest].require_unchanged()
        digest = blob.commit()
    shop.store.remember("layer", _slot(diff_id, shop), {"digest": str(digest), "size": blob.size})
    paths = remember_paths(entries, shop.store)
    shop.store.remember("step", step.key.hex, {"diff-id": str(diff_id), "size": writer.size, "paths": str(paths)})
    return Realised(step, layer_of(step, diff_id, digest, blob.size, shop), cached=False)


def owners(step: Step, shop: Workshop) -> dict[str, str]:
    """Who brought each path of the layer that *step* makes: "numpy 2.3.1". Its inputs must be in the store."""
    with ExitStack() as stack:
        inputs = Inputs(partial(_open_input, shop), shop.store.scratch, stack)
        return {each.path: each.origin for each in _entries(step, inputs) if each.origin}


def _entries(step: Step, inputs: Inputs) -> list[Entry]:
    return arrange(follow(maker(step.kind)(step, inputs), step.params.get("links", {})))


def _open_input(shop: Workshop, digest: Digest) -> BinaryIO:
    local = shop.local.get(digest)
    return local.path.open("rb") if local else shop.store.open(digest)


@dataclass(frozen=True, slots=True)
class _Shelf:
    """The store's records as a shelf."""

    store: Store

    def find(self, kind: str, digest: Digest) -> str | None:
        found = self.store.record(kind, digest.hex)
        return None if found is None else str(found["text"])

    def put(self, kind: str, digest: Digest, text: str) -> None:
        self.store.remember(kind, digest.hex, {"text": text})


def layer_of(step: Step, diff_id: Digest, digest: Digest, size: int, shop: Workshop) -> Layer:
    """The layer that *step* makes, from what is known of it."""
    descriptor = Descriptor(MEDIA_TYPES[shop.compression], digest, size)
    return Layer(step.section, step.name, str(step.key), descriptor, diff_id)


def _slot(diff_id: Digest, shop: Workshop) -> str:
    return f"{diff_id.hex}.{shop.compressor.replace(' ', '-')}"
