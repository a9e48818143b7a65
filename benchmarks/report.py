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
OBSTACLES: dict[str, str] = {}
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
