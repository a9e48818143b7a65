"""Where wheels are built from source: the workbench of each platform, wired to the store and to this machine's ways.

Everything here is imported when a wheel is built: most commands build none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pesto_repro.build.base import Sources
    from pesto_repro.fetch.artifacts import Make
    from pesto_repro.fetch.world import World
    from pesto_repro.lock.model import PlatformLock, PythonPackage
    from pesto_repro.oci import Descriptor
    from pesto_repro.progress import Reporter
    from pesto_repro.project import Project
    from pesto_repro.resolve.origins import Benches, Fetch
    from pesto_repro.sandbox.rootfs import Roots
    from pesto_repro.source.workbench import Workbench
    from pesto_repro.store import Store


@contextmanager
def benches_of(project: Project, store: Store, sources: Sources, reporter: Reporter) -> Iterator[Benches]:
    """The workbench of a platform, for as long as the context lasts; *sources* says where base images lie."""
    with ExitStack() as stack:

        @cache
        def roots() -> Roots:
            from pesto_repro.sandbox.rootfs import Roots

            return stack.enter_context(Roots(store, reporter))

        yield lambda locked, fetch: _bench(project, store, sources, reporter, roots(), locked, fetch)


def _bench(
    project: Project,
    store: Store,
    sources: Sources,
    reporter: Reporter,
    roots: Roots,
    locked: PlatformLock,
    fetch: Fetch,
) -> Workbench:
    from pesto_repro.build.compress import describe
    from pesto_repro.build.realise import Workshop
    from pesto_repro.cli.trust import trusted_for
    from pesto_repro.resolve.wheel_tags import image_tags
    from pesto_repro.source.workbench import Workbench

    layers = project.settings.layers
    shop = Workshop(store, {}, fetch, layers.compression, describe(layers.compression), reporter)
    sources = trusted_for([locked], sources, project)
    base = _BaseContent(locked.base.original, sources) if locked.base is not None else None
    return Workbench(locked, layers.max, image_tags(locked.python, locked.platform), shop, roots, base)


@dataclass(frozen=True, slots=True)
class _BaseContent:
    """The content of a base image (the Content port), which nobody looks for before it is needed."""

    original: str
    sources: Sources

    def document(self, descriptor: Descriptor) -> bytes:
        return self.sources(self.original).content.document(descriptor)

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        return self.sources(self.original).content.open(descriptor)


def maker(project: Project, world: World, offline: bool) -> Make:
    """Builds a wheel of a lock again, from its pins: one at a time, for each build uses all that there is."""
    lock = threading.Lock()

    def make(platform: PlatformLock, package: PythonPackage, fetch: Fetch) -> None:
        from pesto_repro.cli.world import base_sources
        from pesto_repro.resolve.origins import Origins, restore

        store, reporter = world.fetcher.store, world.reporter
        with lock, base_sources(project, reporter, offline=offline) as sources:
            if store.has(package.wheel.digest):
                return
            with benches_of(project, store, sources, reporter) as benches:
                restore(package, benches(platform, fetch), Origins.of(project, world), fetch)

    return make
