"""Where each pinned artifact of a lock may lie: the one place that knows all kinds of pins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from pesto_repro.digest import Digest
from pesto_repro.errors import FetchError
from pesto_repro.fetch import Fetcher
from pesto_repro.fetch.world import World
from pesto_repro.lock.model import DebianPackage, Lock, PythonPackage
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
        try:
            self.fetcher.blob(digest, artifact.size, artifact.urls, artifact.label)
        except FetchError as error:
            error.hint = error.hint or artifact.hint
            raise


def artifacts(lock: Lock, project: Project, world: World) -> Artifacts:
    """Everything that *lock* pins; downloads of resources lie where *project* says."""
    sources = {each.key: each.source for each in project.resources}
    found = []
    for platform in lock.platforms:
        found += [_deb(each, world) for each in platform.debian]
        found += [_wheel(each, sources, world) for each in platform.packages]
    for each in lock.resources:
        if each.sha256 is not None:
            urls = partial(_source, sources, each.key)
            found.append(Artifact(each.key, Digest(each.sha256), each.size, urls))
    return Artifacts(world.fetcher, {each.digest: each for each in found})


def _deb(package: DebianPackage, world: World) -> Artifact:
    label = f"{package.name} {package.version}"
    return Artifact(label, package.digest, package.size, partial(_on_mirrors, package, world), _SUPERSEDED)


def _wheel(package: PythonPackage, sources: dict[str, str], world: World) -> Artifact:
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


def _source(sources: dict[str, str], key: str) -> Iterable[str]:
    return [sources[key]] if key in sources else []
