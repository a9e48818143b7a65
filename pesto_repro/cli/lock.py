"""``lock``: pin everything that a project depends on."""

from __future__ import annotations

from pathlib import Path

import click

from pesto_repro.build.resources import Local
from pesto_repro.build.seen import Seen
from pesto_repro.cli.benches import benches_of
from pesto_repro.cli.console import show, show_json
from pesto_repro.cli.locked import Merge, find_lock, read, require_folders, require_resources, require_rules
from pesto_repro.cli.options import Session, project_command
from pesto_repro.cli.trust import require_trusted
from pesto_repro.cli.world import base_sources, world_of
from pesto_repro.errors import LockError
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.asked import Override, asked
from pesto_repro.lock.drift import changes, require_no_drift
from pesto_repro.lock.model import Input, Lock, canonicalize_name
from pesto_repro.project import Project
from pesto_repro.resolve.lock import lock_project
from pesto_repro.resolve.old import Old
from pesto_repro.sinks import write_text


@click.command()
@project_command
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    type=click.Choice(["linux/amd64", "linux/arm64"]),
    help="In place of image.toml's platforms.",
)
@click.option("--merge", type=click.Choice(["root", "deep"]), help="How profiles update nested objects.")
@click.option("-U", "--upgrade", is_flag=True, help="Renew every pin.")
@click.option("-P", "--upgrade-package", "packages", multiple=True, metavar="NAME", help="Renew the pin of NAME.")
@click.option("--check", is_flag=True, help="Write nothing; fail if the lock is missing or stale.")
@click.option("--offline", is_flag=True, help="Never use the network.")
def lock(
    session: Session,
    platforms: tuple[str, ...],
    merge: Merge | None,
    upgrade: bool,
    packages: tuple[str, ...],
    check: bool,
    offline: bool,
) -> int:
    """Pin everything PROJECT depends on into its lock.

    \b
    pesto-repro lock hello-service
    pesto-repro lock hello-service -p p1 p2
    pesto-repro lock hello-service -U          renew every pin
    pesto-repro lock hello-service --check     for CI: is the lock up to date?
    """
    path, text = find_lock(read(session.request, merge), session.request)
    old = _old(text, str(path), upgrade, packages) if not check else Old(_locked(session, path, text))
    project, chosen, overrides = _choices(session, old.lock, merge, platforms)
    if check:
        return _check(session, project, path, asked(project, chosen, overrides), old.lock)
    world = world_of(project, session.store, session.console, offline=offline)
    with base_sources(project, session.console, offline=offline) as sources:
        with benches_of(project, session.store, sources, session.console) as benches:
            made = lock_project(project, chosen, world, old, sources, overrides, benches=benches)
        require_trusted(project, made, sources, offline=offline)
    _save(session, path, text, old.lock, made)
    return 0


def _choices(
    session: Session, old: Lock | None, merge: Merge | None, platforms: tuple[str, ...]
) -> tuple[Project, tuple[str, ...], tuple[Override, ...]]:
    """The project, the platforms, and which of both the command line chose, now or when it was locked before."""
    before = old.input if old is not None else None
    if merge is None and before is not None and "merge" in before.overrides:
        merge = before.merge
    project = read(session.request, merge)
    for warning in project.warnings:
        session.console.warn(warning)
    if not platforms and before is not None and "platforms" in before.overrides:
        platforms = before.platforms
    declared = project.settings
    overrides: list[Override] = ["merge"] if merge not in (None, declared.profiles.merge) else []
    if platforms and platforms != declared.image.platforms:
        overrides.append("platforms")
    return project, platforms or declared.image.platforms, tuple(overrides)


def _locked(session: Session, path: Path, text: str | None) -> Lock:
    if text is None:
        raise LockError(f"there is no lock at {path}", f"run `{session.request.command('lock')}`")
    return lock_text.loads(text, str(path))


def _check(session: Session, project: Project, path: Path, now: Input, lock: Lock | None) -> int:
    """The lock is there, unharmed, and answers everything that is asked now."""
    assert lock is not None
    mend = session.request.command("lock")
    require_rules(lock, path, mend)
    require_no_drift(lock.input, now, mend)
    seen = Seen(session.store, project.root)
    require_resources(lock, Local(project, seen), mend)
    require_folders(lock, project, session.store, mend)
    if session.json:
        show_json({"lockfile": str(path), "content-hash": lock.content_hash, "changed": False})
    session.console.info(f"{path} is up to date")
    return 0


def _old(text: str | None, where: str, upgrade: bool, packages: tuple[str, ...]) -> Old:
    """What the lock that is there pins; of a lock with the conflict markers of a merge, what both sides agree on."""
    names = tuple(canonicalize_name(each) for each in packages)
    if text is None:
        return Old(packages=names)
    if lock_text.has_conflict(text):
        ours, theirs = (lock_text.loads(side, where, trusted=False) for side in lock_text.split_conflict(text))
        return Old(lock_text.agreed(ours, theirs), whole=False, everything=upgrade, packages=names)
    if upgrade:  # nothing of it is kept, so it may be broken
        return Old(_readable(text, where), everything=True)
    return Old(lock_text.loads(text, where), packages=names)


def _readable(text: str, where: str) -> Lock | None:
    try:
        return lock_text.loads(text, where)
    except LockError:
        return None


def _save(session: Session, path: Path, text: str | None, before: Lock | None, made: Lock) -> None:
    """Write the lock if it is another one, and say what changed."""
    new = lock_text.dumps(made)
    changed = list(changes(before, made))
    for line in changed:
        session.console.info(line)
    if new != text:
        write_text(path, new)
    if session.json:
        found = {"lockfile": str(path), "content-hash": made.content_hash, "changed": new != text}
        show_json(found | {"changes": changed})
    else:
        show(str(path))
    session.console.info(_summary(made, new != text))


def _summary(lock: Lock, changed: bool) -> str:
    first = lock.platforms[0]
    parts = [f"{len(first.packages)} Python packages"]
    parts += [first.base.original] if first.base is not None else [f"{len(first.debian)} Debian packages"]
    parts += [f"{len(lock.resources)} resources"] if lock.resources else []
    platforms = ", ".join(each.platform for each in lock.platforms)
    return f"{'locked' if changed else 'unchanged:'} {', '.join(parts)} for {platforms}"
