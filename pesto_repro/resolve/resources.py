"""Resources of ``requirements.json``: a local file or directory is hashed, a download is fetched once and pinned."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pesto_repro.build.local import LocalFile, hash_file, hash_tree, list_folder
from pesto_repro.digest import Digest
from pesto_repro.errors import MismatchError, Problem, ProjectError, ResolveError
from pesto_repro.fetch import Fetcher
from pesto_repro.lock.model import Resource
from pesto_repro.plan import Tree
from pesto_repro.plan.make import tree_digest
from pesto_repro.project import Project
from pesto_repro.project.requirements import ResourceSpec
from pesto_repro.resolve.python import LocalWheel

Form = Literal["archive", "file", "directory"]
FILE = "pesto/build/requirements.json"


class Local:
    """The local resources of a project, hashed: what the lock says of them, and where their bytes lie."""

    def __init__(self, project: Project) -> None:
        self.resources: dict[str, Resource] = {}
        self.files: dict[Digest, LocalFile] = {}
        self.folders: dict[str, Tree] = {}
        problems = []
        for spec in project.resources:
            path = local_path(project, spec)
            if path is None:
                continue
            if not path.exists():
                problems.append(Problem(FILE, f"requirements.{spec.key}.from", f"{spec.source} does not exist"))
            else:
                self._add(spec, path)
        if problems:
            raise ProjectError(problems)

    def _add(self, spec: ResourceSpec, path: Path) -> None:
        if path.is_dir():
            tree, files = hash_tree(list_folder(path))
            self.folders[spec.key], size = tree, sum(each.size for each in tree)
            self.files.update(files)
            self.resources[spec.key] = _resource(spec, None, size, str(tree_digest(tree)))
        else:
            digest, size, local = hash_file(path)
            _require_declared(spec, digest)
            self.files[digest] = local
            self.resources[spec.key] = _resource(spec, digest, size)


def local_path(project: Project, spec: ResourceSpec) -> Path | None:
    """Where a local resource lies; None for a download."""
    return project.root / spec.path if spec.path is not None else None


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
    return _resource(spec, Digest(old.sha256), old.size or 0)


def _download(spec: ResourceSpec, fetcher: Fetcher) -> Resource:
    digest, size = fetcher.pin(spec.source, spec.key)
    _require_declared(spec, digest)
    return _resource(spec, digest, size)


def _require_declared(spec: ResourceSpec, digest: Digest) -> None:
    if spec.sha256 is not None and spec.sha256 != digest.hex:
        raise MismatchError(
            f"requirements.{spec.key}: {spec.public_source} has sha256 {digest.hex}, declared is {spec.sha256}",
            f"correct the sha256 in {FILE}, or find out who changed the file",
        )


def _resource(spec: ResourceSpec, digest: Digest | None, size: int, tree: str | None = None) -> Resource:
    form: Form = "directory" if tree else "archive" if spec.suffix == "archive" else "file"
    return Resource(
        key=spec.key,
        form=form,
        source=spec.public_source,
        to=_normalised(spec),
        sha256=digest.hex if digest else None,
        size=size,
        tree=tree,
    )


def _normalised(spec: ResourceSpec) -> str:
    if spec.to is None:
        return ""
    return posixpath.normpath(spec.to) + ("/" if spec.to.endswith("/") and spec.to != "/" else "")


def local_wheels(project: Project, local: Local, fetcher: Fetcher) -> tuple[LocalWheel, ...]:
    """What ``type: pip`` entries bring to the joint resolution: wheels, by key, with a path to read them from."""
    found = []
    for spec in project.resources:
        if spec.type != "pip":
            continue
        _require_wheel(spec)
        path = local_path(project, spec)
        if path is None:
            digest, size = fetcher.pin(spec.source, spec.key)
            path = fetcher.store.path(digest)
        else:
            pinned = local.resources[spec.key]
            digest, size = Digest(str(pinned.sha256)), int(pinned.size or 0)
        found.append(LocalWheel(spec.key, spec.filename, path, digest, size))
    return tuple(found)


def _require_wheel(spec: ResourceSpec) -> None:
    if not spec.filename.endswith(".whl"):
        raise ResolveError(
            f"requirements.{spec.key} is of type pip, but {spec.filename} is not a wheel",
            "build a wheel of it and name that; building from source comes with a later version",
        )
