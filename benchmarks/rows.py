"""The rows of the table, by section: each function measures one section in a Setting and gives its rows."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from growth import SIZES, measure, not_linear, tables
from measure import Contestant, Done, execute, in_turns
from peers import HERE, contestants
from projects import BIG, TEMPLATE, WITH_RESOURCE, Kind, Ours, tool
from pushing import pushes
from report import Goal, Row, timed
from setting import UPSTREAM, Setting, downloaders, kinds_with_room, total, uv

MEMORY = 150_000_000
BUMP = 0.06


def first(setting: Setting) -> Iterator[Row]:
    """First build, downloads present, empty store."""
    for kind in (TEMPLATE, BIG):
        ours = setting.ours(kind)
        we = _ours(setting, kind, "first")
        others = [*contestants(setting.dockerfiles(kind, built=False), "first"), uv(ours)]
        times = in_turns(f"first build, {kind.title}", [we, *others, setting.floor(kind)], setting.rounds)
        floor = times.pop("the floor").median
        goal = Goal(faster={UPSTREAM: 20, "uv, tar, pigz": 3}, floor=1.6)
        yield timed(
            f"first-{kind.name}", f"first build, downloads present, empty store: {kind.title}", goal, times, floor
        )


def unchanged(setting: Setting) -> Iterator[Row]:
    """Nothing changed, archive in place."""
    for kind in kinds_with_room(setting, (TEMPLATE, BIG, WITH_RESOURCE)):
        setting.ready(kind)
        peers = contestants(setting.dockerfiles(kind), "unchanged") if kind is TEMPLATE else []
        times = in_turns(f"nothing changed, {kind.title}", [_ours(setting, kind, "unchanged"), *peers], setting.rounds)
        goal = Goal(seconds=0.5 if kind.resource else 0.35)
        yield timed(f"unchanged-{kind.name}", f"nothing changed, archive in place: {kind.title}", goal, times)


def edited(setting: Setting) -> Iterator[Row]:
    """One line changed, archive in place."""
    for kind in (TEMPLATE, BIG):
        setting.ready(kind)
        peers = contestants(setting.dockerfiles(kind), "edited")
        times = in_turns(f"one line changed, {kind.title}", [_ours(setting, kind, "edited"), *peers], setting.rounds)
        goal = Goal(seconds=0.5, faster={UPSTREAM: 25})
        yield timed(f"edited-{kind.name}", f"one line changed, archive in place: {kind.title}", goal, times)


def cold(setting: Setting) -> Iterator[Row]:
    """Lock and build with nothing present, beside loading the same bytes."""
    for kind in (TEMPLATE, BIG):
        ours = setting.ours(kind)
        place = ours.folder / "cold"
        place.mkdir(exist_ok=True)
        listed = execute([sys.executable, HERE / "addresses.py", ours.project, ours.warm], ours.folder)
        (place / "addresses").touch(mode=0o600)
        (place / "addresses").write_text(listed.stdout)
        least = total([*ours.downloads["wheels"], *ours.downloads["debs"]])
        others = [_loading(name, script, place, least) for name, script in downloaders().items()]
        times = in_turns(
            f"lock and build, nothing present, {kind.title}",
            [_cold(setting, ours, place), *others],
            min(3, setting.rounds),
        )
        best = min((each.median for name, each in times.items() if name != "ours"), default=None)
        row = timed(f"cold-{kind.name}", f"lock and build, nothing present: {kind.title}", Goal(floor=1.3), times, best)
        yield row
        shutil.rmtree(place)


def _cold(setting: Setting, ours: Ours, place: Path) -> Contestant:
    lock = ours.project / f"lockfiles/{ours.project.name}.lock.toml"
    kept = lock.read_text()
    env = {"UV_CACHE_DIR": str(place / "uv")}

    def prepare(_: int) -> None:
        shutil.rmtree(place / "store", ignore_errors=True)
        shutil.rmtree(place / "uv", ignore_errors=True)
        lock.unlink(missing_ok=True)
        (place / "image.tar").unlink(missing_ok=True)

    def run(_: int) -> Done:
        how: list[str | Path] = ["--store", place / "store", "-q"]
        done = execute(tool("lock", ours.project, *how), place, env)
        done = done.then(execute(tool("build", ours.project, *how, "-o", place / "image.tar"), place, env))
        lock.write_text(kept)  # the other rows go on with the same versions
        return setting.noted(ours.kind, done)

    return Contestant("ours", run, prepare, patient=True)


def _loading(name: str, script: str, place: Path, least: int) -> Contestant:
    folder = place / "loaded"

    def prepare(_: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()

    def run(_: int) -> Done:
        done = execute(["sh", "-ec", script], folder)
        if total(folder.iterdir()) < least:
            sys.exit(f"error: {name} did not load everything")
        return done

    return Contestant(name, run, prepare)


def relock(setting: Setting) -> Iterator[Row]:
    """Lock again, nothing changed."""
    for kind in (TEMPLATE, BIG):
        ours = setting.ours(kind)
        we = Contestant("ours", partial(_command, ours, "lock", ours.warm), patient=True)
        times = in_turns(f"re-lock, {kind.title}", [we], setting.rounds)
        yield timed(f"relock-{kind.name}", f"lock again, nothing changed: {kind.title}", Goal(seconds=1), times)


def push(setting: Setting) -> Iterator[Row]:
    """Push after one line, and of the whole image."""
    for kind in (TEMPLATE, BIG):
        yield from pushes(setting, setting.ready(kind))


def size(setting: Setting) -> Iterator[Row]:
    """The image's compressed size."""
    for kind in (TEMPLATE, BIG):
        ours = setting.ready(kind)
        we = sum(layer["size"] for layer in ours.layers)
        made_of = total([*ours.downloads["wheels"], *ours.downloads["debs"]])
        theirs = {each.name: each.archive.stat().st_size for each in setting.dockerfiles(kind)}
        missed = [f"{we / theirs[UPSTREAM]:.2f} of upstream's"] if we > theirs.get(UPSTREAM, 2 * we) / 2 else []
        missed += [f"{we / made_of:.3f} of its wheels and debs"] if we > made_of else []
        yield Row(
            f"size-{kind.name}",
            f"size, compressed: {kind.title}",
            "at most half of upstream's Dockerfile's; at most its wheels and debs",
            f"{we / 1e6:.1f} MB",
            1,
            "; ".join(f"{name} {each / 1e6:.1f} MB: {each / we:.2f} ×" for name, each in theirs.items()),
            f"wheels and debs {made_of / 1e6:.1f} MB: {we / made_of:.3f} ×",
            tuple(missed),
        )


def bump(setting: Setting) -> Iterator[Row]:
    """One package gets another version: the bytes of the layers that change, mean over all packages of the lock.

    Grouping looks at names and sizes only, so another wheel of the same size changes the layer it is in and no other; a
    Debian package also the layer of the system's own files.
    """
    for kind in (TEMPLATE, BIG):
        ours = setting.ready(kind)
        sizes = {layer["step"]: layer["size"] for layer in ours.layers}
        system = sum(sizes[step["step"]] for step in ours.steps if step["kind"] == "debian-system")
        changed: list[int] = []
        python: list[int] = []
        for step in ours.steps:
            if step["kind"] == "wheels":
                python += [sizes[step["step"]]] * len(step["inputs"])
            elif step["kind"] == "debs":
                changed += [sizes[step["step"]] + system] * len(step["inputs"])
        made = sum(sizes[step["step"]] for step in ours.steps if step["kind"] in ("wheels", "debs"))
        wheels = sum(sizes[step["step"]] for step in ours.steps if step["kind"] == "wheels")
        mean = sum(changed + python) / len(changed + python) / made
        alone = sum(python) / len(python) / wheels
        yield Row(
            f"bump-{kind.name}",
            f"one package bumped, mean over the {len(changed + python)} of the lock: {kind.title}",
            f"at most {BUMP:.0%} of the packages' bytes again",
            f"{mean:.1%} ({mean * made / 1e6:.1f} MB); of the {len(python)} wheels {alone:.1%}",
            1,
            "Dockerfiles: all packages are one layer: 100 %",
            missed=(f"{mean:.1%}",) if mean > BUMP else (),
        )


def start(setting: Setting) -> Iterator[Row]:
    """--help, and plan on a warm store."""
    floor = Contestant("python alone", lambda _: execute([sys.executable, "-c", ""], setting.scratch))
    asked = Contestant("ours", lambda _: execute(tool("--help"), setting.scratch), patient=True)
    times = in_turns("--help", [asked, floor], setting.rounds)
    bare = times.pop("python alone").median
    yield timed("help", "`pesto-repro --help`", Goal(seconds=0.12), times, bare)
    for kind in (TEMPLATE, BIG):
        ours = setting.ready(kind)
        we = Contestant("ours", partial(_command, ours, "plan", ours.store), patient=True)
        times = in_turns(f"plan, {kind.title}", [we], setting.rounds)
        yield timed(f"plan-{kind.name}", f"`plan` on a warm store: {kind.title}", Goal(seconds=0.25), times, bare)


def growth(setting: Setting) -> Iterator[Row]:
    """How cost grows. The tables go beside the rows."""
    found = measure(setting.prepared, setting.scratch, min(3, setting.rounds))
    (setting.prepared / "growth.md").write_text(tables(found))
    for kind, cases in found.items():
        bent = [f"{case}: {said}" for case, times in cases.items() if (said := not_linear(times))]
        last = str(SIZES[kind][-1])
        yield Row(
            f"growth-{kind}",
            f"how cost grows with {kind}",
            "linear",
            f"{', '.join(f'{times[last].median:.2f} s' for times in cases.values())} at {int(last):,}",
            min(3, setting.rounds),
            missed=tuple(bent),
        )


def memory(peaks: dict[str, int]) -> Iterator[Row]:
    """The most that any build above took."""
    for title, peak in sorted(peaks.items()):
        missed = (f"{peak / 1e6:.0f} MB",) if peak >= MEMORY else ()
        yield Row(f"memory-{title}", f"peak memory: {title}", "under 150 MB", f"{peak / 1e6:.0f} MB", 1, missed=missed)


def _command(ours: Ours, verb: str, store: Path, _: int) -> Done:
    return ours.command(verb, store)


def _ours(setting: Setting, kind: Kind, case: str) -> Contestant:
    ours = setting.ours(kind)

    def prepare(number: int) -> None:
        if case == "first":
            ours.forget()
        elif case == "edited":
            ours.edit(f"round {number}")

    return Contestant("ours", lambda _: setting.noted(kind, ours.build(case)), prepare, patient=True)


SECTIONS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    each.__name__: each for each in (start, first, unchanged, edited, cold, relock, push, size, bump, growth)
}


def kept(path: Path) -> dict[str, Any]:
    """What earlier runs measured, by section."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def keep(path: Path, section: str, rows: list[Row], peaks: dict[str, int]) -> None:
    """Add a section's rows to the file at *path*."""
    everything = kept(path) | {section: {"rows": [asdict(row) for row in rows], "peaks": peaks}}
    path.write_text(json.dumps(everything, indent=1))
