"""What a build leaves in the store for ``store``: a root. And how what a root lacks is brought back."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pesto_repro.build.base import Bases
from pesto_repro.build.roots import LAYER, UNIQUE, Root, remember_root
from pesto_repro.cli.locked import Locked, Request, find_lock, read
from pesto_repro.cli.options import Session
from pesto_repro.cli.world import base_sources, world_of
from pesto_repro.digest import Digest
from pesto_repro.errors import LockError, PestoError, StoreError
from pesto_repro.fetch.artifacts import artifacts
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.model import Lock
from pesto_repro.lock.pins import pinned_files
from pesto_repro.oci import Image
from pesto_repro.progress import Reporter
from pesto_repro.project import Project, lock_path
from pesto_repro.sinks import output_slot
from pesto_repro.store import Store


def remember_build(session: Session, found: Locked, image: Image, output: str | None) -> None:
    """Record what was built. A store that may only be read is asked for nothing: nobody removes from it, either."""
    try:
        remember_root(_root(session.request, found, image, output), session.store)
    except StoreError as error:
        session.console.debug(f"what was built is not remembered: {error.message}")


def _root(request: Request, found: Locked, image: Image, output: str | None) -> Root:
    project = found.project
    layers = image.layers()
    needs: dict[str, list[Digest]] = {LAYER: list(layers)}
    for pin in pinned_files(found.lock):
        if pin.digest not in layers:
            needs.setdefault(pin.kind, []).append(pin.digest)
    built = [each for platform in found.lock.platforms for each in platform.built]
    needs[UNIQUE] = [each.wheel.digest for each in built if each.source is not None and not each.source.reproducible]
    subjects = [step.key for plan in found.plans for step in plan.steps]
    subjects += [layer.diff_id for layer in layers.values()]
    subjects += [output_slot(Path(output))] if output is not None else []
    return Root(
        reference=str(project.reference),
        digest=image.digest,
        lock=found.lock.content_hash,
        lockfile=str(lock_path(project, request.lockfile).absolute()),
        project=str(request.path.absolute()),
        profiles=request.profiles,
        output="" if output is None else _absolute(output),
        size=sum(layer.descriptor.size for layer in layers.values()),
        subjects=tuple(subjects),
        needs={kind: tuple(digests) for kind, digests in needs.items()},
    )


def _absolute(output: str) -> str:
    scheme = "oci:" if output.startswith("oci:") else ""
    return scheme + str(Path(output.removeprefix(scheme)).absolute())


def bring_back(root: Root, lost: Collection[Digest], store: Store, reporter: Reporter) -> frozenset[Digest]:
    """Fetch those of *lost* that the lock of *root* pins; what was brought. Says why not, where that fails."""
    try:
        project, lock = _as_built(root)
    except PestoError as error:
        reporter.warn(f"{root.reference}: {error.message}", error.hint)
        return frozenset()
    pinned = {pin.digest: pin.kind for pin in pinned_files(lock) if pin.digest in lost}
    base = [digest for digest, kind in pinned.items() if kind in ("config", "layer")]
    world = world_of(project, store, reporter)
    fetch = artifacts(lock, project, world).fetch
    brought: list[Digest] = []
    with base_sources(project, reporter) as sources:
        bases = Bases(lock, store, sources, reporter)
        for digest in pinned:
            try:
                if digest not in base:
                    fetch(digest)
                elif bases.bring([digest]):
                    _bring_config(lock, digest, bases)
                brought.append(digest)
            except PestoError as error:
                reporter.warn(f"{root.reference}: {error.message}", error.hint)
    return frozenset(brought)


def _bring_config(lock: Lock, digest: Digest, bases: Bases) -> None:
    for each in lock.platforms:
        if each.base is not None and each.base.config.digest == str(digest):
            bases.image(each.base)


def _as_built(root: Root) -> tuple[Project, Lock]:
    """The project and the lock of *root*, if they still are those that were built."""
    request = Request(Path(root.project), root.profiles, Path(root.lockfile))
    project = read(request)
    path, text = find_lock(project, request)
    if text is None:
        raise LockError(f"there is no lock at {path}")
    lock = lock_text.loads(text, str(path))
    if lock.content_hash != root.lock:
        raise LockError(f"{path} is another lock now", "the next build brings what it needs")
    return project, lock
