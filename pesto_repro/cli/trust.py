"""``[trust]`` of image.toml and ``--key``: what is not signed with the key that is demanded is not used."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_repro.build.base import RemoteSource, Source, Sources
from pesto_repro.digest import Digest
from pesto_repro.errors import PestoError
from pesto_repro.lock.model import BaseImage, Lock, PlatformLock
from pesto_repro.project import Project, layout_path
from pesto_repro.registry.content import RemoteContent

if TYPE_CHECKING:
    from pesto_repro.cli.push import Found
    from pesto_repro.registry.cosign import Claim


def require_signed_with(path: Path, found: Found) -> tuple[Claim, ...]:
    """What says that *found* is signed with the key at *path*. Raises PestoError if nothing does."""
    if not isinstance(found.content, RemoteContent):
        raise PestoError("only a registry's image has signatures", "push it, or leave --key out")
    from pesto_repro.cli.sign import read_key  # imported late: most images are asked for no signature
    from pesto_repro.registry.cosign import require_signed

    key = read_key(path)
    return require_signed(found.content.repository, str(found.reference), found.root.digest, key, str(path))


def require_trusted(project: Project, lock: Lock, sources: Sources, *, offline: bool = False) -> None:
    """The bases of *lock* are signed, where the project demands it. Raises PestoError.

    Without the network no base is new: what an earlier lock pinned was looked at then.
    """
    if project.settings.trust.base_key is None:
        return
    for original, base in _bases(lock.platforms).items():
        if layout_path(original) is not None or not offline:
            _require(project, base, sources(original))


def trusted(sources: Sources, project: Project, lock: Lock) -> Sources:
    """*sources*, of which nothing is fetched before its signature was looked at, where the project demands it."""
    return trusted_for(lock.platforms, sources, project)


def trusted_for(platforms: Iterable[PlatformLock], sources: Sources, project: Project) -> Sources:
    """The same for *platforms*, of which there need be no lock yet."""
    if project.settings.trust.base_key is None:
        return sources
    bases = _bases(platforms)

    @cache
    def source(original: str) -> Source:
        found = sources(original)
        _require(project, bases[original], found)
        return found

    return source


def _bases(platforms: Iterable[PlatformLock]) -> dict[str, BaseImage]:
    """Each base once, by its name: the platforms of an index have one signature."""
    return {each.base.original: each.base for each in platforms if each.base is not None}


def _require(project: Project, base: BaseImage, source: Source) -> None:
    from pesto_repro.cli.sign import read_key  # imported late: few projects demand it
    from pesto_repro.registry.cosign import require_signed

    name = project.settings.trust.base_key
    assert name is not None
    if not isinstance(source, RemoteSource):
        raise PestoError(
            f"the base image {base.original} is to be signed with {name}, but only a registry has signatures",
            "name the base in its registry, or take base-key out of [trust]",
        )
    key = read_key(project.root / name)
    require_signed(source.content.repository, base.original, Digest.parse(base.root), key, name)
