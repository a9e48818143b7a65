"""Where each pinned artifact of a lock may lie: the one place that knows all kinds of pins.

A wheel that was built from source lies nowhere: it is built again, from artifacts that are pinned, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from pesto_repro.digest import Digest
from pesto_repro.errors import FetchError
from pesto_repro.fetch import Fetcher
from pesto_repro.fetch.world import World
from pesto_repro.lock.model import DebianPackage, Lock, Pin, PlatformLock, PythonPackage
from pesto_repro.project import Project

_SUPERSEDED = (
    "Debian's mirrors drop packages that were superseded: lock again with -U, or name a mirror of the snapshot "
    "archive, with {snapshot} in its address, as a second one"
)


@dataclass(frozen=True, slots=True)
class Artifact:
    """Pinned bytes: what they are called, and who may have them, asked only when they are needed."""

    label: str
    digest: Digest
    size: int | None
    urls: Callable[[], Iterable[str]]
    hint: str | None = None
    """What to do where nobody has them any more."""
    make: Callable[[], None] | None = None
    """Has them in the store where they lie nowhere."""


@dataclass(frozen=True, slots=True)
class Artifacts:
    """Every artifact of *lock* by digest; :meth:`fetch` brings one into the store."""

    fetcher: Fetcher
    found: dict[Digest, Artifact]

    def fetch(self, digest: Digest) -> None:
        """Have the bytes of *digest* in the store. Raises FetchError, MismatchError, OfflineError."""
        artifact = self.found.get(digest)
        if artifact is None:
            raise FetchError(f"the lock does not say what {digest} is", "run `pesto-repro lock`")
        if artifact.make is not None:
            self._made(artifact, artifact.make)
            return
        try:
            self.fetcher.blob(digest, artifact.size, artifact.urls, artifact.label)
        except FetchError as error:
            error.hint = error.hint or artifact.hint
            raise

    def _made(self, artifact: Artifact, make: Callable[[], None]) -> None:
        store = self.fetcher.store
        if not store.has(artifact.digest):
            make()
        if not store.has(artifact.digest):
            raise FetchError(f"{artifact.label} was made, but is not in the store at {store.root}")


Make = Callable[[PlatformLock, PythonPackage, Callable[[Digest], None]], None]
"""Builds the wheel of a package of a platform from its pins, whose bytes the function brings, into the store."""


def artifacts(lock: Lock, project: Project, world: World, make: Make | None = None) -> Artifacts:
    """Everything that *lock* pins; downloads of resources lie where *project* says, *make* builds from source."""
    sources = addresses(project)
    found = []
    for each in lock.resources:
        if each.sha256 is not None:
            urls = partial(_source, sources, each.key)
            found.append(Artifact(each.key, Digest(each.sha256), each.size, urls))
    whole = Artifacts(world.fetcher, {each.digest: each for each in found})
    for platform in lock.platforms:
        whole.found.update(platform_artifacts(platform, sources, world))
        for package in platform.built:
            job = partial(make or _refuse_to_make, platform, package, whole.fetch)
            whole.found[package.wheel.digest] = replace(whole.found[package.wheel.digest], make=job)
    return whole


def addresses(project: Project) -> dict[str, str]:
    """Where each resource of *project* lies, by key."""
    return {
        each.key: (project.root / each.path).absolute().as_uri() if each.path is not None else each.source
        for each in project.resources
    }


def platform_artifacts(platform: PlatformLock, sources: Mapping[str, str], world: World) -> dict[Digest, Artifact]:
    """What *platform* pins, and what its wheels are built from and with; *sources* says where resources lie."""
    found = [_deb(each, world) for each in (*platform.debian, *platform.build)]
    for package in platform.packages:
        found.append(_wheel(package, sources, world))
        found += build_artifacts(package, sources, world)
    return {each.digest: each for each in found}


def build_artifacts(package: PythonPackage, sources: Mapping[str, str], world: World) -> list[Artifact]:
    """What the wheel of *package* is built from and with, as far as that is downloaded as it is."""
    source = package.source
    found = [_wheel(each, sources, world) for each in source.requires] if source is not None else []
    if source is not None and source.kind == "sdist":
        sdist = Pin(name=source.name, sha256=source.sha256, size=source.size)
        found.append(_wheel(package.model_copy(update={"wheel": sdist}), sources, world))
    return found


def _refuse_to_make(platform: PlatformLock, package: PythonPackage, fetch: Callable[[Digest], None]) -> None:
    raise FetchError(
        f"{package.name} {package.version} is built from source, and its wheel is not in the store",
        "run `pesto-repro build` first, which builds it",
    )


def _deb(package: DebianPackage, world: World) -> Artifact:
    label = f"{package.name} {package.version}"
    return Artifact(label, package.digest, package.size, partial(_on_mirrors, package, world), _SUPERSEDED)


def _wheel(package: PythonPackage, sources: Mapping[str, str], world: World) -> Artifact:
    wheel = package.wheel
    if package.resource is not None:
        urls: Callable[[], Iterable[str]] = partial(_source, sources, package.resource)
    else:
        urls = partial(_on_indexes, package, world)
    return Artifact(f"{package.name} {package.version}", wheel.digest, wheel.size, urls)


def _on_mirrors(package: DebianPackage, world: World) -> Iterable[str]:
    from pesto_repro.fetch import debian  # imported late: a build that has everything asks nobody

    return debian.urls(package, world.mirrors())


def _on_indexes(package: PythonPackage, world: World) -> Iterable[str]:
    from pesto_repro.fetch import index

    return index.urls(package, world.indexes()[0], world.fetcher)


def _source(sources: Mapping[str, str], key: str) -> Iterable[str]:
    return [sources[key]] if key in sources else []
