"""Sources by their pins: the bytes that a wheel was built from, brought back, and the wheel built from them again.

``build`` needs this where nobody has the wheel, and ``lock`` to keep what is pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pesto_repro.addresses import public
from pesto_repro.digest import Digest
from pesto_repro.errors import DriftError, FetchError, MismatchError, OfflineError
from pesto_repro.fetch.world import World
from pesto_repro.lock.model import Lock, PlatformLock, PythonPackage, Source
from pesto_repro.project import Project
from pesto_repro.project.pyaddress import Address, address_of
from pesto_repro.source.archive import read_directory, read_sdist
from pesto_repro.source.git import read_commit
from pesto_repro.source.unpacked import Unpacked, opened
from pesto_repro.store import Store

if TYPE_CHECKING:
    from pesto_repro.source.workbench import Workbench

Fetch = Callable[[Digest], None]
"""Has the bytes of a pin in the store. Raises FetchError."""
Benches = Callable[[PlatformLock, Fetch], "Workbench"]
"""The workbench whose room is made of the base, Python and Debian packages of a platform."""


@dataclass(frozen=True, slots=True)
class Origins:
    """Where sources come from: *root* is the project's, *addresses* are those that it requires."""

    world: World
    root: Path
    addresses: Mapping[str, Address] = field(default_factory=dict)

    @classmethod
    def of(cls, project: Project, world: World) -> Origins:
        """The origins of what *project* requires."""
        found = [each for text in project.requires if (each := address_of(text)) is not None]
        return cls(world, project.root, {public(each.location): each for each in found if each.kind == "git"})

    def commit(self, address: Address, commit: str | None = None) -> Unpacked:
        """The source at git's *address*; its *commit*, if that is pinned."""
        return self._commit(address.location, address.ref, address.subdirectory, commit, address.name)

    def directory(self, location: str, package: str | None) -> Unpacked:
        """The source in a folder of the project, as it is now."""
        folder = self.root / location
        if not folder.is_dir():
            raise FetchError(f"{location} is required, but there is no such folder", f"it is looked for at {folder}")
        return read_directory(self.world.fetcher.store, location, folder, package=package)

    def pinned(self, package: PythonPackage, fetch: Fetch) -> Unpacked:
        """What the wheel of *package* was built from. Raises FetchError, MismatchError, DriftError."""
        source = package.source
        assert source is not None
        if source.kind == "sdist":
            fetch(source.digest)
            store = self.world.fetcher.store
            return read_sdist(store, source.name, source.digest, package=package.name, version=package.version)
        found = self._tree(source, package.name)
        if found.digest != source.digest:
            _refuse(source, found.digest)
        return found

    def _tree(self, source: Source, package: str) -> Unpacked:
        if source.kind == "directory":
            return self.directory(source.name, package)
        store = self.world.fetcher.store
        if store.has(source.digest):
            known = Unpacked(
                "git",
                source.name,
                source.digest,
                source.size,
                source.digest,
                commit=source.commit,
                subdirectory=source.subdirectory,
                package=package,
            )
            return opened(known, store)
        address = self.addresses.get(source.name)
        location = address.location if address is not None else source.name
        return self._commit(location, None, source.subdirectory, source.commit, package)

    def _commit(
        self, location: str, ref: str | None, subdirectory: str | None, commit: str | None, package: str | None
    ) -> Unpacked:
        fetcher, name = self.world.fetcher, public(location)
        if fetcher.offline:
            raise OfflineError(
                f"{name} is not in the store at {fetcher.store.root}, and the network is not to be used",
                "run once without --offline, or point --store at a store that has it",
                what=name,
            )
        return read_commit(
            fetcher.store,
            location,
            ref,
            self.world.environment,
            fetcher.reporter,
            commit=commit,
            subdirectory=subdirectory,
            package=package,
        )


def _refuse(source: Source, found: Digest) -> NoReturn:
    if source.kind == "directory":
        raise DriftError(f"{source.name} was {source.digest}, is {found}", "run `pesto-repro lock`")
    raise MismatchError(
        f"{source.name} is not what was locked: commit {source.commit} was {source.digest}, has {found}",
        "find out who changed it, then lock again with -U",
    )


def restore(package: PythonPackage, bench: Workbench, origins: Origins, fetch: Fetch) -> None:
    """Have the wheel of *package* in the store, built from its pins. Raises MismatchError if another one comes out."""
    from pesto_repro.source.again import rebuild  # imported late: most locks have no sources

    source = package.source
    assert source is not None
    unpacked = origins.pinned(package, fetch)
    for each in source.requires:
        fetch(each.wheel.digest)
    try:
        rebuild(bench, unpacked, source.requires, package.wheel, source.files)
    except MismatchError as error:
        if source.reproducible:
            raise
        raise MismatchError(
            f"{error.message}\n  it was locked as one that does not come out equal ([python] allow-unreproducible)",
            "bring the store, or a bundle, of the machine that locked it",
        ) from None


def require_directories(lock: Lock, project: Project, store: Store, mend: str) -> None:
    """The folders that wheels are built from are those that were locked. Raises DriftError that lists the others."""
    changed = changed_folders(lock.platforms, project.root, store)
    if changed:
        raise DriftError("\n  ".join(["sources are not what was locked:", *changed]), f"run `{mend}`")


def changed_folders(platforms: Iterable[PlatformLock], root: Path, store: Store) -> list[str]:
    """The folders below *root* from which wheels of *platforms* were built, and that are others now."""
    pinned = {
        each.source.name: str(each.source.digest)
        for platform in platforms
        for each in platform.built
        if each.source is not None and each.source.kind == "directory"
    }
    now = {name: _digest(root, name, store) for name in pinned}
    return [f"{name} was {pinned[name]}, is {now[name]}" for name in sorted(pinned) if now[name] != pinned[name]]


def _digest(root: Path, name: str, store: Store) -> str:
    folder = root / name
    return str(read_directory(store, name, folder).digest) if folder.is_dir() else "gone"
