"""Which Debian packages make a base: the closure of a few roots and of what the user asked for.

Rules:

* The candidate of a name is its highest version over the suite, its updates and its security updates; a
  version that the old lock has pinned goes first as long as an index still has it.
* Depends and Pre-Depends are followed, Recommends are not. What has only one answer is decided first. Of
  several alternatives, one that is there anyway wins, then the first as written; of several packages that
  provide a virtual one, the one with the highest priority, then the first by name. An alternative that cannot
  be installed yields to the next.
* No chosen package may conflict with or break another.
* The answer depends on the set that was asked for, never on its order.
"""

from __future__ import annotations

import difflib
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from pesto_repro.errors import ResolveError
from pesto_repro.fetch import Fetcher
from pesto_repro.fetch.debian import Mirrors
from pesto_repro.lock.model import DebianPackage, Interpreter
from pesto_repro.resolve.debian_index import Index, Key, Record, Release, index, obtain, release
from pesto_repro.resolve.debian_relation import Clause, Relation, Version, clauses

SUITES = ("bookworm", "trixie")
ARCHITECTURES = {"linux/amd64": "amd64", "linux/arm64": "arm64"}
"""Debian's name for the architecture of each platform."""
ROOTS = (
    "base-files",
    "base-passwd",
    "ca-certificates",
    "libc-bin",
    "libstdc++6",
    "netbase",
    "tzdata",
    "zlib1g",
)
"""What every base has, besides the interpreter and its standard library.

libstdc++6 and zlib1g because wheels count on them (PEP 600: what the manylinux policies take for granted).
"""
_PRIORITIES = ("required", "important", "standard", "optional", "extra")
_PYTHON = re.compile(r"(python3\.\d+)-minimal")


@dataclass(frozen=True, slots=True)
class Base:
    """A resolved base: its packages sorted by name, and the interpreter among them.

    *build* is what building needs beside them.
    """

    packages: tuple[DebianPackage, ...]
    python: Interpreter
    build: tuple[DebianPackage, ...] = ()


@dataclass(frozen=True, slots=True)
class Demand:
    """Somebody's need: *by* is the package whose need it is, "" for what was asked for."""

    clause: Clause
    by: str


class _Unsatisfiable(Exception):
    """No answer: *lines* say why, *involved* are the packages without which it would not be so.

    *nearest* are those of them whose version, were it another one, might mend it.
    """

    def __init__(self, lines: Sequence[str], involved: Iterable[str], nearest: Iterable[str]) -> None:
        super().__init__(*lines)
        self.lines, self.involved, self.nearest = tuple(lines), frozenset(involved), frozenset(nearest)


def resolve(
    suite: str,
    packages: Iterable[str],
    architectures: Iterable[str],
    *,
    mirrors: Mirrors,
    fetcher: Fetcher,
    now: datetime,
    keep: Iterable[DebianPackage] = (),
    upgrade: bool = False,
    keys: Sequence[Key] | None = None,
    build: Iterable[str] = (),
) -> dict[str, Base]:
    """The base made of *packages* and what every base has, for each of Debian's *architectures*.

    *build* names what is to be beside it while wheels are built; the base is what it would be without.
    *keep* are the pins of an older lock, preferred unless *upgrade*. Raises FetchError where an index cannot
    be had or is not signed by *keys* (default: Debian's), ResolveError where there is no answer.
    """
    if suite not in SUITES:
        raise ResolveError(f"{suite!r} is not a suite of Debian that can be a base", f"use one of {', '.join(SUITES)}")
    wanted = sorted(set(architectures))
    releases = [
        release(each, mirrors, fetcher, now=now, keys=keys) for each in (suite, f"{suite}-updates", f"{suite}-security")
    ]
    fetcher.many(partial(obtain, each, arch, mirrors, fetcher) for arch in wanted for each in releases)
    pins = () if upgrade else tuple(keep)
    names = sorted(set(packages)), sorted(set(build))
    return {arch: _base(releases, arch, *names, pins, fetcher) for arch in wanted}


def _base(
    releases: Sequence[Release],
    architecture: str,
    packages: Sequence[str],
    build: Sequence[str],
    keep: Iterable[DebianPackage],
    fetcher: Fetcher,
) -> Base:
    indices = [index(each, architecture, fetcher.store.open) for each in releases]
    with fetcher.reporter.activity("resolve", f"Debian {releases[0].suite} {architecture}"):
        chosen = closure(indices, architecture, packages, keep)
        beside = besides(indices, architecture, chosen, build, keep) if build else ()
    return Base(_pins(chosen), interpreter(chosen), _pins(beside))


def _pins(chosen: Iterable[Record]) -> tuple[DebianPackage, ...]:
    return tuple(each.pin() for each in chosen)


def besides(
    indices: Sequence[Index],
    architecture: str,
    base: Sequence[Record],
    packages: Sequence[str],
    keep: Iterable[DebianPackage] = (),
) -> tuple[Record, ...]:
    """What *packages* add to *base*, of which nothing may change, sorted by name. Raises ResolveError."""
    names = {each.name for each in base}
    chosen = closure(indices, architecture, [*names, *packages], [*keep, *_pins(base)])
    now = {each.name: each for each in chosen}
    moved = [f"{each} would be {now[each.name]}" for each in base if each.version != now[each.name].version]
    if moved:
        raise ResolveError(
            "\n  ".join([f"[python.build] packages ({', '.join(packages)}) do not go with the image's base:", *moved]),
            "`pesto-repro lock -U` renews the base, too",
        )
    return tuple(each for each in chosen if each.name not in names)


def closure(
    indices: Sequence[Index], architecture: str, packages: Iterable[str], keep: Iterable[DebianPackage] = ()
) -> tuple[Record, ...]:
    """The records of *packages*, of what every base has and of all that they need, sorted by name."""
    pins = {each.name: each for each in keep if each.architecture in (architecture, "all")}
    while True:
        universe = _Universe(indices, architecture, pins)
        try:
            return _solve(universe, _asked(universe, packages))
        except _Unsatisfiable as failure:
            stale = _stale_pins(universe, failure)
            if not stale:
                raise ResolveError(
                    "\n  ".join([f"Debian {indices[0].suite} for {architecture} has no answer:", *failure.lines])
                ) from None
            pins = {name: pin for name, pin in pins.items() if name not in stale}


def interpreter(chosen: Iterable[Record]) -> Interpreter:
    """The Python of a base, and the C library that wheels must fit."""
    by_name = {each.name: each for each in chosen}
    python = min(name for name in by_name if _PYTHON.fullmatch(name))
    match = _PYTHON.fullmatch(python)
    assert match is not None
    return Interpreter(
        version=_upstream(by_name[python].version),
        executable=f"/usr/bin/{match[1]}",
        libc=f"glibc {_upstream(by_name['libc6'].version)}",
    )


def _upstream(version: str) -> str:
    """``3.11.2`` of ``3.11.2-6+deb12u9``: the upstream version without what Debian appends to it."""
    upstream = Version(version).upstream_version or ""
    match = re.match(r"\d+(?:\.\d+)*", upstream)
    assert match is not None, version
    return match[0]


def _asked(universe: _Universe, packages: Iterable[str]) -> list[Demand]:
    """What was asked for. All names that no suite has are told at once."""
    names = sorted({*ROOTS, *_python_roots(universe), *packages})
    unknown = [name for name in names if not universe.options(Clause((Relation(name),)))]
    if unknown:
        listed = ", ".join(map(repr, unknown))
        raise ResolveError(
            f"Debian {universe.suite} for {universe.architecture} has no package {listed}",
            _close_names(unknown, universe),
        )
    return [Demand(Clause((Relation(name),)), "") for name in names]


def _python_roots(universe: _Universe) -> tuple[str, str]:
    """The suite's own Python without ``python3-minimal`` itself, which needs the package manager."""
    default = universe.candidate("python3-minimal")
    for clause in clauses(default.fields.get("pre-depends", "")) if default else ():
        if match := _PYTHON.fullmatch(clause.alternatives[0].name):
            return match[0], f"lib{match[1]}-stdlib"
    raise ResolveError(f"Debian {universe.suite} for {universe.architecture} has no package 'python3-minimal'")


def _close_names(unknown: Iterable[str], universe: _Universe) -> str | None:
    close: list[str] = []
    for name in unknown:
        near = [each for each in universe.names() if each[:2] == name[:2]]
        close += difflib.get_close_matches(name, sorted(near), n=3)
    return f"did you mean {', '.join(dict.fromkeys(close))}?" if close else None


def _stale_pins(universe: _Universe, failure: _Unsatisfiable) -> frozenset[str]:
    """The pins that stand in the way of an answer: the nearest ones, else whichever led there."""
    nearest = frozenset(filter(universe.is_pinned, failure.nearest))
    return nearest or frozenset(filter(universe.is_pinned, failure.involved))


class _Universe:
    """One candidate for each name, over all suites."""

    def __init__(self, indices: Sequence[Index], architecture: str, pins: Mapping[str, DebianPackage]) -> None:
        self.suite, self.architecture = indices[0].suite, architecture
        self._indices, self._pins = indices, pins
        self._candidates: dict[str, Record | None] = {}
        self._options: dict[Clause, tuple[Record, ...]] = {}

    def names(self) -> Iterator[str]:
        return (name for each in self._indices for name in each.names())

    def is_pinned(self, name: str) -> bool:
        return name in self._pins

    def candidate(self, name: str) -> Record | None:
        """The record that stands for *name*: the pinned version, else the highest."""
        if name not in self._candidates:
            self._candidates[name] = self._best(name)
        return self._candidates[name]

    def options(self, clause: Clause) -> tuple[Record, ...]:
        """The candidates that satisfy *clause*, the preferred one first, each once."""
        if clause not in self._options:
            alternatives = (each for each in clause.alternatives if each.concerns(self.architecture))
            found = {record.name: record for relation in alternatives for record in self._meeting(relation)}
            self._options[clause] = tuple(found.values())
        return self._options[clause]

    def _meeting(self, relation: Relation) -> Iterator[Record]:
        real = self.candidate(relation.name)
        if real is not None and real.satisfies(relation):
            yield real
        providers = {each.name for index in self._indices for each in index.providers(relation.name)}
        candidates = (each for name in providers if (each := self.candidate(name)) is not None)
        yield from sorted((each for each in candidates if each.satisfies(relation)), key=_preference)

    def _best(self, name: str) -> Record | None:
        records = [record for each in self._indices for record in each.named(name)]
        pin = self._pins.get(name)
        pinned = (
            each for each in records if pin and (each.version, each.fields["sha256"]) == (pin.version, pin.sha256)
        )
        return next(pinned, None) or max(records, key=lambda each: Version(each.version), default=None)


def _preference(record: Record) -> tuple[int, str]:
    priority = record.fields.get("priority", "")
    return (_PRIORITIES.index(priority) if priority in _PRIORITIES else len(_PRIORITIES), record.name)


@dataclass(frozen=True, slots=True)
class _State:
    """What has been chosen, and why: the first demand that brought each package."""

    chosen: Mapping[str, Record]
    reasons: Mapping[str, Demand]

    def meets(self, options: Iterable[Record]) -> bool:
        return any(each.name in self.chosen for each in options)

    def chain(self, name: str) -> Iterator[Demand]:
        """Why *name* is there: its own reason first, what was asked for last."""
        while name:
            yield self.reasons[name]
            name = self.reasons[name].by


def _solve(universe: _Universe, demands: Sequence[Demand]) -> tuple[Record, ...]:
    state = _search(universe, _State({}, {}), demands)
    return tuple(state.chosen[name] for name in sorted(state.chosen))


def _search(universe: _Universe, state: _State, demands: Sequence[Demand]) -> _State:
    """Follow what has one answer; then try the options of one open demand in turn."""
    state, open_demands = _propagate(universe, state, demands)
    if not open_demands:
        _refuse_conflicts(state)
        return state
    demand = min(open_demands, key=lambda each: (str(each.clause), each.by))
    first: _Unsatisfiable | None = None
    for option in universe.options(demand.clause):
        try:
            return _search(universe, *_take(state, option, demand, open_demands))
        except _Unsatisfiable as failure:
            if option.name not in failure.involved:  # another option would end in the same place
                raise
            first = first or failure
    assert first is not None
    raise first


def _take(state: _State, record: Record, demand: Demand, rest: Iterable[Demand]) -> tuple[_State, list[Demand]]:
    chosen = {**state.chosen, record.name: record}
    reasons = {**state.reasons, record.name: demand}
    return _State(chosen, reasons), [*rest, *(Demand(clause, record.name) for clause in record.needs)]


def _propagate(universe: _Universe, state: _State, demands: Iterable[Demand]) -> tuple[_State, list[Demand]]:
    """Choose all that has no alternative: the new state, and the demands that are still open."""
    chosen, reasons = dict(state.chosen), dict(state.reasons)
    queue, several = deque(demands), []
    current = _State(chosen, reasons)
    while queue:
        demand = queue.popleft()
        options = universe.options(demand.clause)
        if not options:
            raise _missing(universe, current, demand)
        if len(options) > 1:
            several.append(demand)
        elif options[0].name not in chosen:
            record = options[0]
            chosen[record.name], reasons[record.name] = record, demand
            queue.extend(Demand(clause, record.name) for clause in record.needs)
    return current, [each for each in several if not current.meets(universe.options(each.clause))]


def _missing(universe: _Universe, state: _State, demand: Demand) -> _Unsatisfiable:
    """A demand that nothing meets, with the chain of those who led to it."""
    has = "; ".join(_offer(universe, each) for each in demand.clause.alternatives)
    steps = [demand, *state.chain(demand.by)]
    lines = [_told(state, each) for each in reversed(steps)]
    nearest = {each.name for each in demand.clause.alternatives}
    return _Unsatisfiable([*lines[:-1], f"{lines[-1]}, but {has}"], nearest | {each.by for each in steps}, nearest)


def _offer(universe: _Universe, relation: Relation) -> str:
    record = universe.candidate(relation.name)
    return f"{record.suite} has {record}" if record else f"{universe.suite} has no {relation.name}"


def _told(state: _State, demand: Demand) -> str:
    return f"{state.chosen[demand.by]} needs {demand.clause}" if demand.by else f"{demand.clause} is asked for"


def _refuse_conflicts(state: _State) -> None:
    provided = _provided(state.chosen.values())
    for name in sorted(state.chosen):
        record = state.chosen[name]
        for relation in record.excludes:
            for other in (state.chosen.get(relation.name), *provided.get(relation.name, ())):
                # Debian Policy 7.4: a package may conflict with what it provides: that excludes the others
                if other is not None and other.name != name and other.satisfies(relation):
                    raise _conflict(state, record, relation, other)


def _provided(records: Iterable[Record]) -> dict[str, list[Record]]:
    table: dict[str, list[Record]] = {}
    for record in records:
        for relation in record.provides:
            table.setdefault(relation.name, []).append(record)
    return table


def _conflict(state: _State, record: Record, relation: Relation, other: Record) -> _Unsatisfiable:
    lines, involved = [f"{record} excludes {relation}, and {other} is needed too"], set[str]()
    for name in (record.name, other.name):
        steps = list(state.chain(name))
        lines += [f"{name}: {_told(state, each)}" for each in reversed(steps)]
        involved |= {name, *(each.by for each in steps)}
    return _Unsatisfiable(lines, involved, {record.name, other.name})
