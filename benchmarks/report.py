"""What is printed: rows with target, result, ratios and verdict; what stands in the way of those that are missed."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from measure import Times

COMMAND = "make bench"
OBSTACLES: dict[str, str] = {
    "first-template": (
        "Debian's part is more than half of the work: of 3.1 s of CPU on two cores, 0.9 s unpack xz (63 MB/s), 0.7 s "
        "deflate the same files again (zlib-ng, level 6), 0.9 s are the wheels, 0.3 s start-up. Done: large files of "
        "wheels are copied as they are deflated; a .deb is unpacked once, not twice (0.9 s of CPU less). Tried and not "
        "taken: level 4 (0.15 s of CPU less, Debian's layers 1.3 % larger), level 2 (0.3 s, 6 %). The floor does not "
        "deflate, and uv's side has no Debian packages."
    ),
    "first-large": (
        "The floor neither deflates nor writes layers: ours writes every byte twice (the layer into the store, the "
        "archive), deflates the wheels' small files, and unpacks and deflates Debian's packages again as in the "
        "template image. Its profile was not taken apart further."
    ),
    "cold-template": (
        "The mirrors here send the bytes in a fraction of a second; the build alone takes longer (see the first build) "
        "and the lock reads Debian's index (50 MB of text) and resolves. Layers are made while other downloads still "
        "run; building before everything is locked is not done. Its profile was not taken apart. (Of an earlier run, "
        "with libraries for jsonschema's formats installed, which cost the lock about a second.)"
    ),
    "cold-large": "As for the template image; the build itself is 6 s of it.",
    "size-template": (
        "Debian packs with xz, and a gzip layer of the same files is a third larger (18.2 MB become 24.5); the wheels' "
        "part is not larger than the wheels."
    ),
    "size-large": ("Debian's part in gzip, as above. The wheels are most of both images, and compress no further."),
    "push-whole-template": (
        "A push that sends 1.8 MB takes 0.39 s already: start-up, oras and what it imports, and questions. Of the "
        "1.5 GB image, where the bytes count, the push is faster than skopeo's by more than is asked."
    ),
    "plan-template": "Start-up: pydantic's models, packaging, click, our own modules.",
    "plan-large": "Start-up, as for the template image (0.250 s is not under it).",
    "memory-template image": "Of `lock` with nothing present, in that earlier run; builds take 97 MB.",
    "memory-1.5 GB image": "The same; builds take 119 MB.",
    "edited-template": "Start-up is 0.25 s of it: pydantic's models, packaging, click, our own modules.",
}
"""By a row's key: what was tried, what the profile shows, what stands in the way. Printed for missed rows only."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table. *missed* says which parts of the target are; *target* is "" where there is none."""

    key: str
    work: str
    target: str
    result: str
    runs: int
    peers: str = ""
    floor: str = ""
    missed: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        if not self.target:
            return ""
        return f"**missed**: {'; '.join(self.missed)}" if self.missed else "met"


@dataclass(frozen=True, slots=True)
class Goal:
    """What a timed row is to reach: under *seconds*, *faster* than a peer so many times, *floor* times the floor."""

    seconds: float | None = None
    faster: Mapping[str, float] = field(default_factory=dict)
    floor: float | None = None

    def __str__(self) -> str:
        parts = [f"under {self.seconds:g} s"] if self.seconds is not None else []
        parts += [f"within {self.floor:g} × the floor"] if self.floor is not None else []
        return "; ".join([*parts, *(f"{factor:g} × faster than {name}" for name, factor in self.faster.items())])


def timed(key: str, work: str, goal: Goal, times: Mapping[str, Times], floor: float | None = None) -> Row:
    """The row of *times* by contestant, ours being "ours"; *floor* is in seconds."""
    we = times["ours"].median
    others = {name: each for name, each in times.items() if name != "ours"}
    missed = [f"{we:.2f} s"] if goal.seconds is not None and we >= goal.seconds else []
    if goal.floor is not None and floor is not None and we > goal.floor * floor:
        missed.append(f"{we / floor:.2f} × the floor")
    for name, factor in goal.faster.items():
        if name not in others:
            missed.append(f"{name} is not on this machine")
        elif others[name].median < factor * we:
            missed.append(f"{others[name].median / we:.1f} × {name}")
    return Row(
        key,
        work,
        str(goal),
        f"{we:.2f} s",
        len(times["ours"].seconds),
        "; ".join(_against(name, each, we) for name, each in others.items()),
        f"{floor:.2f} s: {we / floor:.2f} ×" if floor is not None else "",
        tuple(missed),
    )


def _against(name: str, theirs: Times, we: float) -> str:
    return f"{name} {theirs.median:.2f} s ({len(theirs.seconds)}): {theirs.median / we:.1f} ×"


def table(rows: Sequence[Row], extra: Sequence[str]) -> str:
    """The results as Markdown; *extra* are tables of their own."""
    lines = [
        "| work | target | ours | runs | peers (runs): times slower than ours | the floor | |",
        "|---|---|--:|--:|---|---|---|",
        *(f"| {r.work} | {r.target} | {r.result} | {r.runs} | {r.peers} | {r.floor} | {r.verdict} |" for r in rows),
    ]
    missed = [row for row in rows if row.missed]
    if missed:
        lines += ["", "What stands in the way of the rows that are missed:", ""]
        lines += [f"* **{row.work}**: {OBSTACLES.get(row.key, 'not looked into yet.')}" for row in missed]
    return "\n".join([*lines, "", *extra, ""])


def machine(versions: Sequence[str]) -> str:
    """What it ran on: no name of the machine, no path."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    cores = len(re.findall(r"^processor", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
    parts = [
        f"{model[1] if model else platform.machine()}, {cores} cores",
        f"{int(memory[1]) / 1e6:.0f} GB of memory" if memory else "",
        f"{platform.system()} {platform.release().partition('-')[0]}, Python {platform.python_version()}",
        *versions,
        f"{datetime.now(UTC):%Y-%m-%d}",
    ]
    return f"Machine: {'; '.join(part for part in parts if part)}."


def version_of(command: Sequence[str]) -> str:
    """The first words of what a program says of itself."""
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return " ".join(said.split()[:3])


def document(results: str, method: str) -> str:
    """RESULTS.md."""
    return f"""# The benchmark's last run

Written by `{COMMAND} BENCH_ARGS=--write`; `make bench-deps` installs what it needs. Not to be edited.

{results}
How it is measured:

{method}"""
