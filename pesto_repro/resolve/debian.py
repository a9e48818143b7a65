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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from pesto_repro.errors import ResolveError
from pesto_repro.fetch import Fetcher
from pesto_repro.fetch.debian import Mirrors
from pesto_repro.lock.model import DebianPackage, Interpreter
from pesto_repro.resolve.debian_index import Index, Key, Record, Release, index, obtain, release
from pesto_repro.resolve.debian_relation import Clause, Relation, Version, clauses
from pesto_repro.resolve.debian_solver import Demand, Universe, Unsatisfiable, solve

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
_PYTHON = re.compile(r"(python3\.\d+)-minimal")


@dataclass(frozen=True, slots=True)
class Base:
    """A resolved base: its packages sorted by name, and the interpreter among them.

    *build* is what building needs beside them.
    """

    packages: tuple[DebianPackage, ...]
    python: Interpreter
    build: tuple[DebianPackage, ...] = ()


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
        universe = Universe(indices, architecture, pins)
        try:
            return solve(universe, _asked(universe, packages))
        except Unsatisfiable as failure:
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


def _asked(universe: Universe, packages: Iterable[str]) -> list[Demand]:
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


def _python_roots(universe: Universe) -> tuple[str, str]:
    """The suite's own Python without ``python3-minimal`` itself, which needs the package manager."""
    default = universe.candidate("python3-minimal")
    for clause in clauses(default.fields.get("pre-depends", "")) if default else ():
        if match := _PYTHON.fullmatch(clause.alternatives[0].name):
            return match[0], f"lib{match[1]}-stdlib"
    raise ResolveError(f"Debian {universe.suite} for {universe.architecture} has no package 'python3-minimal'")


def _close_names(unknown: Iterable[str], universe: Universe) -> str | None:
    close: list[str] = []
    for name in unknown:
        near = [each for each in universe.names() if each[:2] == name[:2]]
        close += difflib.get_close_matches(name, sorted(near), n=3)
    return f"did you mean {', '.join(dict.fromkeys(close))}?" if close else None


def _stale_pins(universe: Universe, failure: Unsatisfiable) -> frozenset[str]:
    """The pins that stand in the way of an answer: the nearest ones, else whichever led there."""
    nearest = frozenset(filter(universe.is_pinned, failure.nearest))
    return nearest or frozenset(filter(universe.is_pinned, failure.involved))
