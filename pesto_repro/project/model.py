"""A PESTO project as values: all that its files declare, profiles applied, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pesto_repro.project.profiles import Merge
from pesto_repro.project.pyrequires import IndexOption
from pesto_repro.project.reference import Reference
from pesto_repro.project.requirements import ResourceSpec
from pesto_repro.project.settings import Settings


@dataclass(frozen=True, slots=True)
class Project:
    """What the user declares.

    *root* is the folder that holds ``pesto``; *name* is description.name, the folder's name below /opt;
    *documents* are those of ``pesto/api`` by name ("description", "input_schema"...); *environments* are in
    the order of the file and not expanded.
    """

    root: Path
    name: str
    reference: Reference
    profiles: tuple[str, ...]
    merge: Merge
    documents: Mapping[str, Mapping[str, Any]]
    settings: Settings
    requires: tuple[str, ...]
    constraints: tuple[str, ...]
    index_options: tuple[IndexOption, ...]
    resources: tuple[ResourceSpec, ...]
    environments: Mapping[str, str]
    docker_base_image: str | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProjectFile:
    """One of the project's own files: *path* relative to the root with "/", *source* where it lies on this
    machine.

    A symlink has a *target*, relative to its folder, and neither size nor executable bit.
    """

    path: str
    executable: bool
    size: int
    source: Path
    target: str | None = None
