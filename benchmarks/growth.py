"""How a build's cost grows: with the packages of a lock, with the project's files, with the bytes that changed.

Projects are made by hand, without a network: N wheels of a module each in a folder; N files of 100 bytes; one file of N
megabytes that nothing makes smaller. ``python growth.py KIND N FOLDER`` makes one, in a process of its own.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from measure import Contestant, Done, Times, execute, in_turns, say
from projects import edit, tool, write_noise

from tests import upstream

SIZES = {"packages": (1, 10, 100, 1000), "files": (10, 100, 1000, 10_000, 100_000), "megabytes": (1, 10, 100, 300)}
CASES = ("first build", "nothing changed", "one changed")
LINEAR = 1.5
"""A step to the next size may cost so many times as much for each as the step before."""
NOTICEABLE = 0.2
"""Seconds; steps that cost less say nothing."""


@dataclass(frozen=True, slots=True)
class Grown:
    """A project of one kind and size in *folder*."""

    kind: str
    number: int
    folder: Path

    def forget(self) -> None:
        shutil.rmtree(self.folder / "store", ignore_errors=True)

    def change(self, round_: int) -> None:
        """One file; of megabytes, all of it counts as changed."""
        if self.kind == "megabytes":
            with (self.folder / "small/data.bin").open("r+b") as file:
                file.write(f"round {round_}".encode())
        else:
            edit(self.folder / "small", f"round {round_}")

    def build(self) -> Done:
        env = {"UV_FIND_LINKS": str(self.folder / "wheels"), "UV_NO_INDEX": "1"}
        how: list[str | Path] = ["-o", self.folder / "small.oci.tar", "-q", "--store", self.folder / "store"]
        return execute(tool("build", self.folder / "small", *how), self.folder, env)


def measure(prepared: Path, scratch: Path, rounds: int) -> dict[str, dict[str, dict[str, Times]]]:
    """Times by kind, case and size."""
    found: dict[str, dict[str, dict[str, Times]]] = {}
    for kind, sizes in SIZES.items():
        grown = [_made(kind, number, prepared, scratch) for number in sizes]
        found[kind] = {case: _case(case, grown, rounds) for case in CASES}
        for each in grown:
            shutil.rmtree(each.folder)
    return found


def _made(kind: str, number: int, prepared: Path, scratch: Path) -> Grown:
    folder = scratch / f"{kind}-{number}"
    folder.mkdir()
    say(f"{kind}: making a project with {number}")
    execute([sys.executable, __file__, kind, str(number), folder, upstream.download(prepared)], scratch)
    return Grown(kind, number, folder)


def _case(case: str, grown: list[Grown], rounds: int) -> dict[str, Times]:
    def prepare(each: Grown, number: int) -> None:
        if case == CASES[0]:
            each.forget()
        elif case == CASES[2]:
            each.change(number)

    who = [Contestant(str(each.number), partial(_build, each), partial(prepare, each)) for each in grown]
    return in_turns(f"{grown[0].kind}, {case}", who, rounds)


def _build(each: Grown, _: int) -> Done:
    return each.build()


def not_linear(times: Mapping[str, Times]) -> str:
    """Where the last step costs more for each than the step before: a sentence, or nothing."""
    sizes = sorted(map(int, times))
    seconds = [times[str(size)].median for size in sizes]
    slopes = [(b - a) / (n - m) for a, b, m, n in zip(seconds, seconds[1:], sizes, sizes[1:], strict=False)]
    for at in range(1, len(slopes)):
        noticeable = seconds[at] - seconds[at - 1] > NOTICEABLE
        if noticeable and slopes[at] > LINEAR * slopes[at - 1]:
            return f"from {sizes[at]} to {sizes[at + 1]} each costs {slopes[at] / slopes[at - 1]:.1f} × as much"
    return ""


def tables(found: Mapping[str, Mapping[str, Mapping[str, Times]]]) -> str:
    """A table for each kind, as Markdown: seconds, and what each more costs from the last size but one to the last."""
    lines = []
    for kind, cases in found.items():
        sizes = SIZES[kind]
        lines += [f"| {kind} | {' | '.join(f'{size:,}' for size in sizes)} | each more, ms |"]
        lines += [f"|---|{'--:|' * (len(sizes) + 1)}"]
        for case, times in cases.items():
            seconds = [times[str(size)].median for size in sizes]
            slope = (seconds[-1] - seconds[-2]) / (sizes[-1] - sizes[-2]) * 1e3
            lines += [f"| {case}, s | {' | '.join(f'{each:.2f}' for each in seconds)} | {slope:.3f} |"]
        lines += [""]
    return "\n".join(lines)


def make(kind: str, number: int, folder: Path, runtime_wheel: Path) -> None:
    """A locked project of *kind* with *number* of them."""
    # Here: the process that measures does not import them.
    from pesto_repro.lock.model import Pin, PythonPackage
    from tests.python_index import digest_of_file, simple_wheel
    from tests.small_project import make_small, write_lock

    small = make_small(folder, runtime_wheel)
    if kind == "packages":
        for each in range(number):
            simple_wheel(small.wheels, f"package{each}", "1.0")
    elif kind == "files":
        for each in range(number):
            path = small.root / f"many/{each // 500}/{each}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{each}\n" * (100 // len(f"{each}\n")))
    else:
        write_noise(small.root / "data.bin", number * 1_000_000)
    pins = []
    for wheel in sorted(small.wheels.iterdir()):
        name, version = wheel.name.split("-")[:2]
        pin = Pin(name=wheel.name, sha256=digest_of_file(wheel).hex, size=wheel.stat().st_size)
        pins.append(PythonPackage(name=name.replace("_", "-"), version=version, index="find-links", wheel=pin))
    write_lock(small, tuple(sorted(pins, key=lambda each: each.name)))


if __name__ == "__main__":
    make(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
