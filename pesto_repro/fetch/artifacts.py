"""Where each pinned artifact of a lock may lie: the one place that knows all kinds of pins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from pesto_repro.digest import Digest
from pesto_repro.errors import FetchError
from pesto_repro.fetch import Fetcher, debian, index
from pesto_repro.fetch.debian import Mirrors
from pesto_repro.fetch.index import Indexes
from pesto_repro.lock.model import DebianPackage, Lock, PythonPackage
from pesto_repro.project import Project


@dataclass(frozen=True, slots=True)
class Artifact:
    """Pinned bytes: what they are called, and who may have them, asked only when they are needed."""

    label: str
    digest: Digest
    size: int | None
    urls: Callable[[], Iterable[str]]


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
        self.fetcher.blob(digest, artifact.size, artifact.urls, artifact.label)


def artifacts(
    lock: Lock, project: Project, fetcher: Fetcher, indexes: Indexes, mirrors: Callable[[], Mirrors]
) -> Artifacts:
    """Everything that *lock* pins; downloads of resources lie where *project* says."""
    sources = {each.key: each.source for each in project.resources}
    found = []
    for platform in lock.platforms:
        found += [_deb(each, mirrors) for each in platform.debian]
        found += [_wheel(each, sources, indexes, fetcher) for each in platform.packages]
    for each in lock.resources:
        if each.sha256 is not None:
            urls = partial(_source, sources, each.key)
            found.append(Artifact(each.key, Digest(each.sha256), each.size, urls))
    return Artifacts(fetcher, {each.digest: each for each in found})


def _deb(package: DebianPackage, mirrors: Callable[[], Mirrors]) -> Artifact:
    label = f"{package.name} {package.version}"
    return Artifact(label, package.digest, package.size, lambda: debian.urls(package, mirrors()))


def _wheel(package: PythonPackage, sources: dict[str, str], indexes: Indexes, fetcher: Fetcher) -> Artifact:
    wheel = package.wheel
    if package.resource is not None:
        urls: Callable[[], Iterable[str]] = partial(_source, sources, package.resource)
    else:
        urls = partial(index.urls, package, indexes, fetcher)
    return Artifact(f"{package.name} {package.version}", wheel.digest, wheel.size, urls)


def _source(sources: dict[str, str], key: str) -> Iterable[str]:
    return [sources[key]] if key in sources else []
