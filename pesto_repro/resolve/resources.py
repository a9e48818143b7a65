"""Resources of ``requirements.json``: a local file or directory is hashed, a download is fetched once and pinned."""

from __future__ import annotations

from collections.abc import Mapping

from pesto_repro.build.resources import Local, local_path, require_declared, resource
from pesto_repro.digest import Digest
from pesto_repro.errors import ResolveError
from pesto_repro.fetch import Fetcher
from pesto_repro.lock.model import Resource
from pesto_repro.project import Project
from pesto_repro.project.requirements import ResourceSpec
from pesto_repro.resolve.request import LocalWheel

SDISTS = (".tar.gz", ".zip")
"""How the name of a source distribution ends (PEP 625; older ones are zip files)."""


def resolve_resources(
    project: Project, local: Local, fetcher: Fetcher, keep: Mapping[str, Resource], *, upgrade: bool
) -> tuple[Resource, ...]:
    """Every resource pinned, sorted by key. A download that was pinned stays so, unless *upgrade*."""
    found = dict(local.resources)
    for spec in project.resources:
        if spec.key not in found:
            old = None if upgrade else keep.get(spec.key)
            found[spec.key] = _kept(spec, old) or _download(spec, fetcher)
    return tuple(found[key] for key in sorted(found))


def _kept(spec: ResourceSpec, old: Resource | None) -> Resource | None:
    if old is None or old.sha256 is None or old.source != spec.public_source:
        return None
    if spec.sha256 not in (None, old.sha256):
        return None
    return resource(spec, Digest(old.sha256), old.size or 0)


def _download(spec: ResourceSpec, fetcher: Fetcher) -> Resource:
    digest, size = fetcher.pin(spec.source, spec.key)
    require_declared(spec, digest)
    return resource(spec, digest, size)


def local_wheels(project: Project, pinned: tuple[Resource, ...], fetcher: Fetcher) -> tuple[LocalWheel, ...]:
    """What ``type: pip`` entries bring to the joint resolution: wheels and sdists, with a path to read them from."""
    by_key = {each.key: each for each in pinned}
    return tuple(_wheel(project, spec, by_key[spec.key], fetcher) for spec in project.resources if spec.type == "pip")


def _wheel(project: Project, spec: ResourceSpec, pinned: Resource, fetcher: Fetcher) -> LocalWheel:
    _require_package(spec)
    digest, path = Digest(str(pinned.sha256)), local_path(project, spec)
    if path is None:
        fetcher.blob(digest, pinned.size, lambda: [spec.source], spec.key)
        path = fetcher.store.path(digest)
    return LocalWheel(spec.key, spec.filename, path, digest, pinned.size or 0)


def _require_package(spec: ResourceSpec) -> None:
    if not spec.filename.endswith((".whl", *SDISTS)):
        raise ResolveError(
            f"requirements.{spec.key} is of type pip, but {spec.filename} is neither a wheel nor a source distribution",
            'name a .whl, .tar.gz or .zip, or require the folder itself: "./FOLDER" in requirements.txt',
        )
