"""The local resources of ``requirements.json``: hashed when a command starts, in the lock's own terms."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Literal

from pesto_repro.build.local import LocalFile, hash_file, hash_tree, list_folder
from pesto_repro.build.seen import Seen
from pesto_repro.digest import Digest
from pesto_repro.errors import MismatchError, Problem, ProjectError
from pesto_repro.lock.model import Resource
from pesto_repro.plan import Tree
from pesto_repro.plan.make import tree_digest
from pesto_repro.project import Project
from pesto_repro.project.requirements import ResourceSpec

Form = Literal["archive", "file", "directory"]
FILE = "pesto/build/requirements.json"


class Local:
    """The local resources of a project, hashed: what the lock says of them, and where their bytes lie.

    Files that *seen* knows are not read again.
    """

    def __init__(self, project: Project, seen: Seen | None = None) -> None:
        self._seen = seen
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
            tree, files = hash_tree(list_folder(path), self._seen)
            self.folders[spec.key], size = tree, sum(each.size for each in tree)
            self.files.update(files)
            self.resources[spec.key] = resource(spec, None, size, str(tree_digest(tree)))
        else:
            digest, size, local = hash_file(path, self._seen)
            require_declared(spec, digest)
            self.files[digest] = local
            self.resources[spec.key] = resource(spec, digest, size)


def local_path(project: Project, spec: ResourceSpec) -> Path | None:
    """Where a local resource lies; None for a download."""
    return project.root / spec.path if spec.path is not None else None


def require_declared(spec: ResourceSpec, digest: Digest) -> None:
    """Raises MismatchError if requirements.json declares another sha256."""
    if spec.sha256 is not None and spec.sha256 != digest.hex:
        raise MismatchError(
            f"requirements.{spec.key}: {spec.public_source} has sha256 {digest.hex}, declared is {spec.sha256}",
            f"correct the sha256 in {FILE}, or find out who changed the file",
        )


def resource(spec: ResourceSpec, digest: Digest | None, size: int, tree: str | None = None) -> Resource:
    """What the lock says of *spec*: its *digest* and *size* in bytes, or the digest of a directory's *tree*."""
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
