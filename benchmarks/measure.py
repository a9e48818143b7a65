"""How things are timed: the wall clock of whole processes, contestants in turns, a warm-up round thrown away.

What brings a case about (forgetting layers, editing a line) is not timed. Who takes long is repeated less often than
*rounds* says, so that a whole run stays short: as often as fits into BUDGET, and at least once. The table says it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BUDGET = 12.0
"""Seconds that one contestant may take for one row, unless it takes longer once."""
ROUNDS = (5, 3, 1)


@dataclass(frozen=True, slots=True)
class Done:
    """A process that ended well: seconds of wall clock, peak memory of the largest process in it, what it printed."""

    seconds: float
    peak: int
    stdout: str = ""

    def then(self, after: Done) -> Done:
        """Both, one after the other."""
        return Done(self.seconds + after.seconds, max(self.peak, after.peak), self.stdout + after.stdout)


def execute(command: Sequence[str | Path], folder: Path, env: Mapping[str, str] | None = None) -> Done:
    """Run *command* in *folder*, with *env* over ours. The benchmark ends where it fails."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        started = time.monotonic()
        process = subprocess.Popen(words, stdout=stdout, stderr=stderr, cwd=folder, env={**os.environ, **(env or {})})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout.seek(0)
        stderr.seek(0)
        if process.returncode:
            said = stdout.read() + stderr.read()
            sys.exit(f"error: {' '.join(words)} ended with {process.returncode}:\n{said}")
        return Done(seconds, usage.ru_maxrss * 1024, stdout.read())


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to do a row's work: *prepare* is not timed, *run* says what it took; both get the round's number.

    *patient* is run as often as asked, however long it takes.
    """

    name: str
    run: Callable[[int], Done]
    prepare: Callable[[int], None] = lambda _: None
    patient: bool = False


@dataclass(slots=True)
class Times:
    """What one contestant took, by round."""

    seconds: list[float] = field(default_factory=list)
    peak: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def add(self, done: Done) -> None:
        self.seconds.append(done.seconds)
        self.peak = max(self.peak, done.peak)


def in_turns(title: str, contestants: Sequence[Contestant], rounds: int) -> dict[str, Times]:
    """What each took, by name. The first round warms up; it counts only for who is too slow for another one."""
    warm = {each.name: _attempt(title, each, 0) for each in contestants}
    wanted = {each.name: _rounds(each, warm[each.name].seconds, rounds) for each in contestants}
    found = {each.name: Times(peak=warm[each.name].peak) for each in contestants}
    for number in range(1, rounds + 1):
        for each in contestants:
            if number <= wanted[each.name]:
                found[each.name].add(_attempt(title, each, number))
    for name, times in found.items():
        if not times.seconds:
            times.add(warm[name])
    return found


def _rounds(contestant: Contestant, seconds: float, rounds: int) -> int:
    """How often it is repeated after the warm-up."""
    if contestant.patient:
        return rounds
    fitting = [number for number in ROUNDS if number * seconds <= BUDGET]
    return min(rounds, fitting[0]) if fitting else 0


def _attempt(title: str, contestant: Contestant, number: int) -> Done:
    contestant.prepare(number)
    done = contestant.run(number)
    say(f"{title}: {contestant.name}: {done.seconds:.2f} s{'' if number else ' (warm-up)'}")
    return done


def say(text: str) -> None:
    """Tell whoever waits what goes on."""
    print(text, file=sys.stderr, flush=True)


def link(source: Path, target: Path) -> None:
    """Have the file *source* at *target*, too."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.hardlink_to(source)


def write(path: Path, content: bytes) -> None:
    """Write *content*, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
