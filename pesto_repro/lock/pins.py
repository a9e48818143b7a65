"""Every pin of a lock in one list: what is kept for it in a store, and what a bundle of it holds.

What lies in the project itself (its local resources) is no part of it: it comes with the project.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pesto_repro.digest import Digest
from pesto_repro.lock.model import BaseImage, DebianPackage, Lock, PlatformLock, PythonPackage, Resource, Source

Kind = Literal["wheel", "deb", "resource", "source", "config", "layer"]


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """Bytes that a lock pins: what *kind* they are, and what they are called."""

    kind: Kind
    name: str
    digest: Digest
    size: int
    media_type: str | None = None
    """Of a base's layer: as its manifest says."""


def pinned_files(lock: Lock) -> tuple[PinnedFile, ...]:
    """Each once, in an order of their own: equal locks give equal lists."""
    local = {each.key for each in lock.resources if not _is_download(each.source)}
    local |= {each.key for each in lock.input.resources if not _is_download(each.source)}
    found = [pin for each in lock.platforms for pin in _of_platform(each, local)]
    found += [_resource(each) for each in lock.resources if each.key not in local and each.sha256 is not None]
    once: dict[Digest, PinnedFile] = {}
    for each in sorted(found, key=_order):
        once.setdefault(each.digest, each)
    return tuple(once.values())


def _order(pin: PinnedFile) -> tuple[str, str, Digest]:
    return pin.kind, pin.name, pin.digest


def _is_download(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _of_platform(locked: PlatformLock, local: set[str]) -> Iterator[PinnedFile]:
    if locked.base is not None:
        yield from _of_base(locked.base)
    yield from map(_deb, (*locked.debian, *locked.build))
    for each in locked.packages:
        if each.source is not None:
            yield _wheel(each)
            yield from _of_source(each.source, each.resource in local)
        elif each.resource not in local:
            yield _wheel(each)


def _of_source(source: Source, local: bool) -> Iterator[PinnedFile]:
    """What a wheel was built from, as far as that is one file, and with."""
    if source.kind == "sdist" and not local:
        yield PinnedFile("source", source.name, source.digest, source.size)
    yield from map(_wheel, source.requires)


def _of_base(base: BaseImage) -> Iterator[PinnedFile]:
    config = Digest.parse(base.config.digest)
    yield PinnedFile("config", config.hex, config, base.config.size)
    for each in base.layers:
        digest = Digest.parse(each.digest)
        yield PinnedFile("layer", digest.hex, digest, each.size, each.media_type)


def _deb(package: DebianPackage) -> PinnedFile:
    return PinnedFile("deb", posixpath.basename(package.filename), package.digest, package.size)


def _wheel(package: PythonPackage) -> PinnedFile:
    return PinnedFile("wheel", package.wheel.name, package.wheel.digest, package.wheel.size)


def _resource(resource: Resource) -> PinnedFile:
    assert resource.sha256 is not None
    name = posixpath.basename(resource.source.rstrip("/")) or resource.key
    return PinnedFile("resource", name, Digest(resource.sha256), resource.size or 0)
