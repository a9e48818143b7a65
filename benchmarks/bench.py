"""How fast are we, beside others and beside what the machine can do? ``make bench`` answers with a table.

All lies in one folder: downloads, which happen once and stay, and a folder of this run, which goes away. buildah's
storage and the caches of pip and uv lie there, too: nothing of the user's is touched. METHOD.md says what is compared.

Parts: ``--only first edited``; quickly: ``--rounds 1``; ``--resume`` keeps what an interrupted run has measured. One
run at a time in one folder.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

from measure import say
from peers import HERE, present
from projects import BIG, TEMPLATE, WITH_RESOURCE, Kind
from report import Row, document, machine, table, version_of
from rows import SECTIONS, keep, kept, memory
from setting import Setting, uv

RESULTS = HERE / "RESULTS.md"
PEERS = ("buildah", "mmdebstrap", "skopeo", "docker-registry", "pigz", "aria2c", "curl", "crane")


def main() -> None:
    """Run the benchmark; print the table."""
    arguments = _arguments()
    prepared: Path = arguments.folder.expanduser().resolve()
    prepared.mkdir(parents=True, exist_ok=True)
    results = prepared / "results.json"
    if not arguments.resume:
        results.unlink(missing_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=prepared, prefix="run-") as scratch:
        setting = Setting(prepared, Path(scratch), arguments.rounds)
        if arguments.prepare:
            _prepare(setting)
            return
        for name in arguments.only or SECTIONS:
            if name not in kept(results):
                say(f"-- {name}")
                setting.peaks.clear()
                keep(results, name, list(SECTIONS[name](setting)), dict(setting.peaks))
    text = _text(results, prepared, setting)
    print(text, end="")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    say(f"{time.monotonic() - started:.0f} s in all; own memory {own / 1e6:.0f} MB: no peak can be seen below it")
    if arguments.write:
        RESULTS.write_text(document(text, (HERE / "METHOD.md").read_text()))


def _prepare(setting: Setting) -> None:
    """Everything that happens once."""
    setting.crane()
    kinds: list[Kind] = [TEMPLATE, BIG, *([WITH_RESOURCE] if setting.room() else [])]
    for kind in kinds:
        setting.ready(kind)
    for kind in (TEMPLATE, BIG):
        setting.dockerfiles(kind)
        uv(setting.ours(kind))


def _text(results: Path, prepared: Path, setting: Setting) -> str:
    """All rows that were measured, in the order of the sections."""
    found = kept(results)
    rows = [
        Row(**{**row, "missed": tuple(row["missed"])})
        for name in SECTIONS
        if name in found
        for row in found[name]["rows"]
    ]
    peaks: dict[str, int] = {}
    for section in found.values():
        for title, peak in section["peaks"].items():
            peaks[title] = max(peak, peaks.get(title, 0))
    rows += memory(peaks)
    growth = prepared / "growth.md"
    extra = ["How cost grows:", "", growth.read_text()] if "growth" in found and growth.exists() else []
    absent = [name for name in PEERS if not (setting.crane() if name == "crane" else present(name))]
    extra += [f"Not on this machine: {', '.join(absent)}.", ""] if absent else []
    versions = [version_of([name, "--version"]) for name in ("buildah", "skopeo") if present(name)]
    return table(rows, [*extra, machine(versions)])


def _arguments() -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "pesto-repro-bench"
    parser = argparse.ArgumentParser(description="Compare our speed with that of others.")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contestant (default: 5)")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), metavar="NAME", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--resume", action="store_true", help="go on after what the last run measured")
    parser.add_argument("--prepare", action="store_true", help="only do what happens once: downloads, base images")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} too")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(os.environ.get("BENCH_FOLDER") or cache),
        help="where everything lies, 25 GB with the large file (default: $BENCH_FOLDER, else in the XDG cache folder)",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
