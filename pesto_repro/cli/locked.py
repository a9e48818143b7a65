"""A project with its lock, as the commands need them: where the lock lies, what to read it with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pesto_repro.build.compress import describe
from pesto_repro.build.local import LocalFile, hash_tree
from pesto_repro.build.resources import Local
from pesto_repro.build.seen import Seen
from pesto_repro.digest import Digest
from pesto_repro.errors import DriftError, LockError
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.asked import asked_again
from pesto_repro.lock.drift import drift, require_no_drift
from pesto_repro.lock.model import Lock
from pesto_repro.plan import ASSEMBLY_VERSION, Plan, make_plan
from pesto_repro.progress import Reporter
from pesto_repro.project import Project, list_files, lock_path, read_project
from pesto_repro.store import Store

Merge = Literal["root", "deep"]


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line says of a project."""

    path: Path
    profiles: tuple[str, ...] = ()
    lockfile: Path | None = None

    def command(self, verb: str) -> str:
        """The command that does *verb* to the same project."""
        words = ["pesto-repro", verb, str(self.path)]
        words += ["-p", *self.profiles] if self.profiles else []
        words += ["--lockfile", str(self.lockfile)] if self.lockfile else []
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Locked:
    """A project, its lock, the plans that follow from both, and where the project's own bytes lie."""

    project: Project
    lock: Lock
    plans: tuple[Plan, ...]
    local: dict[Digest, LocalFile]


def read(request: Request, merge: Merge | None = None, *, checked: bool = False) -> Project:
    """The project as declared now."""
    return read_project(request.path, request.profiles, merge, checked=checked)


def find_lock(project: Project, request: Request) -> tuple[Path, str | None]:
    """Where the lock lies, and its text if it is there."""
    path = lock_path(project, request.lockfile)
    try:
        return path, path.read_text("utf-8")
    except FileNotFoundError:
        return path, None
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(f"{path} cannot be read: {error}") from None


def locked(request: Request, reporter: Reporter, store: Store, *, remember: bool = True) -> Locked:
    """Everything that a build starts from. Raises LockError, DriftError, ProjectError.

    *store* remembers what the project's files hold; all are read again unless *remember*. Documents that are those of
    the lock were checked when it was made; others are now, for what is wrong with them is said before what is not
    locked.
    """
    project = read(request, checked=True)
    for warning in project.warnings:
        reporter.warn(warning)
    path, text = find_lock(project, request)
    if text is None:
        read(request)
        raise LockError(f"there is no lock at {path}", f"run `{request.command('lock')}`")
    lock = lock_text.loads(text, str(path))
    merge = lock.input.merge if "merge" in lock.input.overrides else None
    if merge is not None:
        project = read(request, merge, checked=True)
    mend = request.command("lock")
    require_rules(lock, path, mend)
    now = asked_again(project, lock)
    if drift(lock.input, now):
        read(request, merge)
        require_no_drift(lock.input, now, mend)
    require_folders(lock, project, store, mend)
    return _planned(project, lock, mend, Seen(store if remember else None, project.root))


def _planned(project: Project, lock: Lock, mend: str, seen: Seen) -> Locked:
    local = Local(project, seen)
    require_resources(lock, local, mend)
    files, found = hash_tree(list_files(project), seen)
    seen.save()
    plans = tuple(make_plan(lock, each, project, files, local.folders) for each in lock.platforms)
    return Locked(project, lock, plans, local.files | found)


def require_rules(lock: Lock, path: Path, mend: str) -> None:
    """The rules that decide bytes are those the lock was made for, or there is no promise to keep."""
    here, there = describe(lock.assembly.compression), lock.assembly.compressor
    if lock.assembly.version != ASSEMBLY_VERSION:
        here, there = f"assembly version {ASSEMBLY_VERSION}", f"assembly version {lock.assembly.version}"
    if here != there:
        raise LockError(
            f"{path} was made for {there}; this pesto-repro has {here}, which makes other bytes",
            f"use the version that made it, or run `{mend}`",
        )


def require_resources(lock: Lock, local: Local, mend: str) -> None:
    """Local resources are those that were locked."""
    changed = []
    for each in lock.resources:
        now = local.resources.get(each.key)
        if now is not None and now != each:
            before, after = each.sha256 or each.tree, now.sha256 or now.tree
            changed.append(f"requirements.{each.key}: {each.source} was {before}, is {after}")
    if changed:
        raise DriftError("\n  ".join(["resources are not what was locked:", *changed]), f"run `{mend}`")


def require_folders(lock: Lock, project: Project, store: Store, mend: str) -> None:
    """The folders that wheels of *lock* are built from are those that were locked. Raises DriftError."""
    built = [each.source for platform in lock.platforms for each in platform.built]
    if any(each is not None and each.kind == "directory" for each in built):
        from pesto_repro.resolve.origins import require_directories  # imported late: most locks have none

        require_directories(lock, project, store, mend)
