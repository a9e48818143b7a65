"""``store``: where it is, what was built with it, what is in it, what of it may go, whether it is intact."""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pesto_repro.cli.console import Console, human, show, show_json
from pesto_repro.cli.options import talking_command
from pesto_repro.cli.world import store_at
from pesto_repro.errors import EXIT_FAILURE, StoreError
from pesto_repro.store import Store

if TYPE_CHECKING:
    from pesto_repro.build.check import Fault, Health
    from pesto_repro.build.keep import Contents, Sweep
    from pesto_repro.build.roots import Root
    from pesto_repro.digest import Digest

KEEP_DAYS = 30
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)?", re.IGNORECASE)
_PLACES = ("blobs", "records", "partial")
"""What a store has one of."""


@click.group()
def store() -> None:
    """Look after the store: what is in it, what may go, whether it is intact."""


def _command(function: Callable[..., Any]) -> click.Command:
    """A command on the store alone, named as *function* without its mark of being private."""
    option = click.option(
        "--store", "place", type=click.Path(path_type=Path), help="The store. [env: PESTO_REPRO_STORE]"
    )
    name = function.__name__.removeprefix("_")
    return store.command(name)(option(talking_command(function)))


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """``500M``, ``1.5GiB``, ``123``: k, M, G, T are powers of 1000, of 1024 with an i."""
    found = _SIZE.fullmatch(value.strip()) if value is not None else None
    if value is None:
        return None
    if found is None:
        raise click.BadParameter(f'"{value}" is no size: it reads 500M or 20GiB')
    number, unit, binary = found.groups()
    power = " kmgt".index(unit.lower()) if unit else 0
    return int(float(number) * (1024 if binary else 1000) ** power)


@_command
def _path(console: Console, as_json: bool, place: Path | None) -> int:
    """Print where the store is."""
    found = store_at(place)
    if as_json:
        show_json({"path": str(found.root)})
    else:
        show(str(found.root))
    return 0


@_command
def _ls(console: Console, as_json: bool, place: Path | None) -> int:
    """List the images that were built, the newest first.

    What is marked with * is kept by gc: of each lock that is still there, what was built last.
    """
    from pesto_repro.build.roots import live, roots

    found = roots(_existing(place))
    kept = {each.name for each in live(found)}
    if as_json:
        show_json({"images": [_root_json(each, each.name in kept) for each in found]})
        return 0
    for each in found:
        mark = "*" if each.name in kept else " "
        show(f"{mark} {_when(each)}  {human(each.size):>9}  {each.reference}@{each.digest}  {each.output}".rstrip())
    return 0


@_command
def _info(console: Console, as_json: bool, place: Path | None) -> int:
    """Show how much of what is in the store."""
    from pesto_repro.build.keep import contents

    found = _existing(place)
    kinds = _kinds(contents(found))
    total = sum(size for _, size in kinds.values())
    free = shutil.disk_usage(_above(found.root)).free
    if as_json:
        counted = {kind: {"count": count, "bytes": size} for kind, (count, size) in kinds.items()}
        show_json({"path": str(found.root), "kinds": counted, "bytes": total, "free": free})
        return 0
    show(str(found.root))
    for kind, (count, size) in kinds.items():
        show(f"  {kind:<9}  {count:>6}  {human(size):>9}")
    show(f"  {'all':<9}  {sum(count for count, _ in kinds.values()):>6}  {human(total):>9}")
    show(f"  {'free':<9}  {'':>6}  {human(free):>9}")
    return 0


@_command
@click.option("--keep-days", type=click.FloatRange(0), default=KEEP_DAYS, show_default=True, metavar="N")
@click.option("--max-size", callback=_size, metavar="SIZE", help="Then go on until it is that small: 500M, 20GiB.")
@click.option("--dry-run", is_flag=True, help="Say what would go; remove nothing.")
@click.option("--no-wait", is_flag=True, help="Fail if the store is in use, instead of waiting.")
def _gc(
    console: Console,
    as_json: bool,
    place: Path | None,
    keep_days: float,
    max_size: int | None,
    dry_run: bool,
    no_wait: bool,
) -> int:
    """Remove what no image last built needs, and nobody needed for N days.

    Of each lock that is still there, what was built last is kept. Builds that run are waited for; with --max-size, what
    was not needed for longest goes first, and in the end also what an image needs. All of it can be had again.
    """
    from pesto_repro.build.keep import DAY, contents, remove, sweep

    found = _existing(place)

    def on_wait() -> None:
        if no_wait:
            raise StoreError(f"the store at {found.root} is in use", "run it again later, or without --no-wait")
        console.info(f"waiting for who uses the store at {found.root}")

    if not found.root.is_dir():
        return _tell_swept(None, console, as_json, dry_run)
    with found.in_use() if dry_run else found.exclusive(on_wait):
        going = sweep(contents(found), before=time.time() - keep_days * DAY, max_size=max_size)
        done = going if dry_run else remove(going, found)
    return _tell_swept(done, console, as_json, dry_run)


@_command
@click.option("--repair", is_flag=True, help="Remove what is broken, and fetch again what images need.")
def _check(console: Console, as_json: bool, place: Path | None, repair: bool) -> int:
    """Hash everything in the store anew; exit with 1 if anything is not what it should be."""
    from pesto_repro.build.check import check

    found = _existing(place)
    health = check(found, console)
    brought = _repaired(health, found, console) if repair and health.faults else frozenset()
    _tell_health(health, brought, console, as_json, repair)
    return EXIT_FAILURE if health.faults and not repair else 0


def _existing(place: Path | None) -> Store:
    """The store, which need not be there; but what is there must be a store. Raises StoreError."""
    found = store_at(place)
    if found.root.is_dir() and any(found.root.iterdir()) and not any((found.root / each).is_dir() for each in _PLACES):
        raise StoreError(f"{found.root} is no store", "name the store's own folder")
    return found


def _repaired(health: Health, found: Store, console: Console) -> frozenset[Digest]:
    """Remove what is broken, fetch what can be fetched; what was brought back."""
    from pesto_repro.build.check import give_up, remove_faults
    from pesto_repro.build.roots import live
    from pesto_repro.cli.kept import bring_back

    found.release()  # what was seen intact may be what is removed now
    remove_faults(health, found)
    brought: frozenset[Digest] = frozenset()
    for root in live(health.roots):
        lost = root.blobs() & health.lost - brought
        if lost:
            brought |= bring_back(root, lost, found, console)
    give_up(health, brought, found)
    return brought


# -- what is said ----------------------------------------------------------------------------------------------


def _when(root: Root) -> str:
    return datetime.fromtimestamp(root.when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _root_json(root: Root, kept: bool) -> dict[str, Any]:
    return {
        "reference": root.reference,
        "digest": str(root.digest),
        "lock": root.lock,
        "lockfile": root.lockfile,
        "project": root.project,
        "profiles": list(root.profiles),
        "output": root.output or None,
        "built": _when(root),
        "size": root.size,
        "kept": kept,
    }


def _kinds(found: Contents) -> Mapping[str, tuple[int, int]]:
    """Kind -> how many, and their bytes."""
    plural = {"wheel": "wheels", "deb": "debs", "resource": "resources", "layer": "layers", "config": "configs"}
    names = {digest.hex: kind for root in found.roots for kind, digests in root.needs.items() for digest in digests}
    names |= {each: "layer" for each in _layers(found)}
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for item in found.items:
        kind = plural.get(names.get(item.name, ""), "other") if item.kind == "blob" else f"{item.kind}s"
        counts[kind] += 1
        sizes[kind] += item.size
    counts["records"], sizes["records"] = len(found.records), sum(each.size for each in found.records)
    order = [*plural.values(), "other", "partials", "spares", "trees", "roots", "records"]
    return {kind: (counts[kind], sizes[kind]) for kind in order}


def _layers(found: Contents) -> Iterable[str]:
    """The blobs that records say are layers."""
    for each in found.records:
        if each.kind in ("layer", "claim") and each.value is not None:
            yield str(each.value.get("digest")).removeprefix("sha256:")


def _above(folder: Path) -> Path:
    """*folder*, or the nearest one above it that is there."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())


def _tell_swept(done: Sweep | None, console: Console, as_json: bool, dry_run: bool) -> int:
    items = done.items if done else ()
    freed, kept = (done.freed, done.kept) if done else (0, 0)
    for each in items:
        console.debug(f"{each.kind} {each.name}: {human(each.size)}")
    if as_json:
        removed = [{"kind": each.kind, "name": each.name, "bytes": each.size} for each in items]
        show_json({"removed": removed, "freed": freed, "kept": kept, "dry_run": dry_run})
        return 0
    verb = "would be freed" if dry_run else "freed"
    counts = Counter(each.kind for each in items)
    counted = ", ".join(f"{number} {kind}{'s' if number > 1 else ''}" for kind, number in sorted(counts.items()))
    show(f"{counted + ': ' if counted else ''}{human(freed)} {verb}, {human(kept)} kept")
    return 0


def _tell_health(health: Health, brought: frozenset[Digest], console: Console, as_json: bool, repair: bool) -> None:
    if as_json:
        faults = [_fault_json(each, brought, repair) for each in health.faults]
        counts = {"blobs": health.blobs, "records": health.records, "bytes": health.bytes}
        show_json({**counts, "faults": faults, "repaired": repair})
        return
    for each in health.faults:
        show(f"{each}{_outcome(each, brought) if repair else ''}")
    said = f"{health.blobs} blobs and {health.records} records, {human(health.bytes)}: "
    console.info(said + (f"{len(health.faults)} faults" if health.faults else "all intact"))
    if health.faults and not repair:
        console.info("hint: pesto-repro store check --repair")


def _outcome(fault: Fault, brought: frozenset[Digest]) -> str:
    if fault.kind in ("blob", "need"):
        back = fault.name in {each.hex for each in brought}
        return "; fetched again" if back else "; the next build that needs it brings or makes it"
    return "; removed"


def _fault_json(fault: Fault, brought: frozenset[Digest], repair: bool) -> dict[str, Any]:
    outcome = {"outcome": _outcome(fault, brought).removeprefix("; ")} if repair else {}
    return {"kind": fault.kind, "name": fault.name, "what": fault.what, **outcome}
