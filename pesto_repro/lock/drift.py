"""Drift: how what a project asks for now differs from what was locked, told by value.

>>> print(Drift("python.requires", "", "numpy>=2"))
numpy>=2 was added to python.requires
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pesto_repro.errors import DriftError
from pesto_repro.lock.model import DebianPackage, Input, Lock, PlatformLock, PythonPackage, ResourceInput

_LISTS = {
    "requires": "python.requires",
    "constraints": "python constraints",
    "base_packages": "base.packages",
    "platforms": "image.platforms",
    "build_from_source": "python.build-from-source",
    "allow_unreproducible": "python.allow-unreproducible",
    "build_packages": "python.build.packages",
}
_VALUES = {
    "name": "description.name",
    "merge": "profiles.merge",
    "base": "base",
    "python": "python.version",
    "system_packages": "python.system-packages",
    "runtime": "runtime.package",
    "closure": "runtime.closure",
    "max_layers": "layers.max",
    "compression": "layers.compression",
    "user": "image.user",
    "embed_lock": "image.embed-lock",
}


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference: *locked* and *now* are values as text, "" where there is none."""

    what: str
    locked: str
    now: str

    def __str__(self) -> str:
        if not self.locked:
            return f"{self.now} was added to {self.what}"
        if not self.now:
            return f"{self.locked} was removed from {self.what}"
        return f"{self.what} was {self.locked}, is {self.now}"


@dataclass(frozen=True, slots=True)
class DocumentDrift(Drift):
    """A document that the lock holds by digest only."""

    def __str__(self) -> str:
        if self.locked and self.now:
            return f"{self.what} changed"
        return f"{self.what} was {'removed' if self.locked else 'added'}"


def drift(locked: Input, now: Input) -> tuple[Drift, ...]:
    """Every difference between what was *locked* and what is asked *now*; empty if there is none."""
    return tuple(_differences(locked, now))


def require_no_drift(locked: Input, now: Input, command: str) -> None:
    """Raises DriftError that lists the differences; *command* is what mends them."""
    found = drift(locked, now)
    if found:
        lines = "\n  ".join(map(str, found))
        raise DriftError(f"the project is not what was locked:\n  {lines}", f"run `{command}`")


def asks_python_anew(found: tuple[Drift, ...]) -> bool:
    """Can these differences change which Python packages are right?"""
    return _touches(found, _PYTHON)


def asks_debian_anew(found: tuple[Drift, ...]) -> bool:
    """Can these differences change which Debian packages are right?"""
    return _touches(found, _DEBIAN)


_DEBIAN = ("base", "base.packages", "python.build.packages")
_PYTHON = (
    *_DEBIAN,
    "python.version",
    "python.system-packages",
    "python.requires",
    "python constraints",
    "python.build-from-source",
    "python.allow-unreproducible",
    "runtime.",
    "requirements",
)


def _touches(found: tuple[Drift, ...], areas: tuple[str, ...]) -> bool:
    return any(
        each.what == area or each.what.startswith(f"{area.rstrip('.')}.")
        for each in found
        for area in areas
        if not isinstance(each, DocumentDrift)
    )


def _differences(locked: Input, now: Input) -> Iterator[Drift]:
    if locked.profiles != now.profiles:
        yield Drift("the list of profiles", _words(locked.profiles), _words(now.profiles))
    if locked.overrides != now.overrides:
        yield Drift("what the command line chose", _words(locked.overrides), _words(now.overrides))
    for field, what in _VALUES.items():
        one, other = getattr(locked, field), getattr(now, field)
        if one != other:
            yield Drift(what, _value(one), _value(other))
    for field, what in _LISTS.items():
        yield from _list(what, getattr(locked, field), getattr(now, field))
    yield from _table("image.labels", locked.labels, now.labels)
    yield from _environments(locked.environments, now.environments)
    yield from _resources(locked.resources, now.resources)
    for name in sorted(locked.documents.keys() | now.documents.keys()):
        one, other = locked.documents.get(name, ""), now.documents.get(name, "")
        if one != other:
            yield DocumentDrift(f"{name}.json", one, other)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value or "the base's own")


def _words(words: tuple[str, ...]) -> str:
    return " ".join(words) or "empty"


def _list(what: str, locked: tuple[str, ...], now: tuple[str, ...]) -> Iterator[Drift]:
    yield from (Drift(what, "", each) for each in now if each not in locked)
    yield from (Drift(what, each, "") for each in locked if each not in now)
    yield from _order(what, locked, now)


def _table(what: str, locked: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Drift]:
    for key in sorted(locked.keys() | now.keys()):
        one, other = locked.get(key), now.get(key)
        if one is None:
            yield Drift(what, "", f"{key}={other}")
        elif other is None:
            yield Drift(what, f"{key}={one}", "")
        elif one != other:
            yield Drift(f"{what}.{key}", repr(one), repr(other))


def _environments(locked: tuple[str, ...], now: tuple[str, ...]) -> Iterator[Drift]:
    before, after = (dict(_split(each) for each in side) for side in (locked, now))
    yield from _table("environments", before, after)
    yield from _order("environments", tuple(before), tuple(after))


def _split(line: str) -> tuple[str, str]:
    name, _, value = line.partition("=")
    return name, value


def _order(what: str, locked: tuple[str, ...], now: tuple[str, ...]) -> Iterator[Drift]:
    """The same names in another order: a value may refer to those before it."""
    if locked != now and sorted(locked) == sorted(now):
        yield Drift(f"the order of {what}", _words(locked), _words(now))


def _resources(locked: tuple[ResourceInput, ...], now: tuple[ResourceInput, ...]) -> Iterator[Drift]:
    before, after = {each.key: each for each in locked}, {each.key: each for each in now}
    for key in sorted(before.keys() | after.keys()):
        one, other = before.get(key), after.get(key)
        if one != other:
            yield Drift(
                f"requirements.{key}" if one and other else "requirements",
                _resource(one, named=not other),
                _resource(other, named=not one),
            )
    yield from _order("requirements", tuple(before), tuple(after))


def _resource(each: ResourceInput | None, *, named: bool) -> str:
    if each is None:
        return ""
    text = f"{each.source} -> {each.to or 'pip'}" + (f" ({each.type})" if each.type else "")
    text += f" with sha256 {each.sha256}" if each.sha256 else ""
    return f"{each.key} ({text})" if named else text


def changes(before: Lock | None, after: Lock) -> Iterator[str]:
    """What another lock pins otherwise, a line for each package: "+ numpy 2.3.1", "~ idna 3.10 -> 3.11".

    One of the same version whose bytes are others (it was built from source) is told by its digests.
    The base image first, then Python's packages, then Debian's, then those that only builds from source see: they
    may have the same names.
    """
    for old, new in (
        (_bases(before), _bases(after)),
        *((_files(before, kind), _files(after, kind)) for kind in _KINDS),
    ):
        for name, platform in sorted(old.keys() | new.keys()):
            where = f" ({platform})" if len(after.platforms) > 1 else ""
            change = _change(name, old.get((name, platform)), new.get((name, platform)))
            yield from [change + where] if change else []


_Known = tuple[str, str]
"""The version of a package, and the digest of its file; of a base, what it is called, and nothing."""


def _change(name: str, old: _Known | None, new: _Known | None) -> str:
    if old is None or new is None:
        return f"+ {name} {new[0]}" if new else f"- {name} {old[0]}" if old else ""
    if old[0] != new[0]:
        return f"~ {name} {old[0]} -> {new[0]}"
    return f"~ {name} {new[0]}: sha256:{old[1][:12]} -> sha256:{new[1][:12]}" if old != new else ""


def versions(lock: Lock | None) -> dict[tuple[str, str], str]:
    """The version of every package, by name and platform; also of those that only builds from source see."""
    builders = {
        (each.name, platform.platform): each.version
        for platform in (lock.platforms if lock is not None else ())
        for package in platform.packages
        for each in (package.source.requires if package.source is not None else ())
    }
    return builders | _pins(lock, "build") | _pins(lock, "packages") | _pins(lock, "debian")


def _bases(lock: Lock | None) -> dict[tuple[str, str], _Known]:
    """The base image of each platform: its name, and enough of its digest to tell it from another."""
    found = lock.platforms if lock is not None else ()
    bases = [(each.platform, each.base) for each in found if each.base is not None]
    return {("base", platform): (f"{base.original}@{base.manifest[:19]}", "") for platform, base in bases}


_Kind = Literal["packages", "debian", "build"]
_KINDS: tuple[_Kind, ...] = ("packages", "debian", "build")


def _pins(lock: Lock | None, kind: _Kind) -> dict[tuple[str, str], str]:
    return {key: version for key, (version, _) in _files(lock, kind).items()}


def _files(lock: Lock | None, kind: _Kind) -> dict[tuple[str, str], _Known]:
    found = lock.platforms if lock is not None else ()
    return {
        (each.name, platform.platform): (
            each.version,
            each.digest.hex if isinstance(each, DebianPackage) else each.wheel.sha256,
        )
        for platform in found
        for each in _of(platform, kind)
    }


def _of(platform: PlatformLock, kind: _Kind) -> tuple[DebianPackage, ...] | tuple[PythonPackage, ...]:
    if kind == "packages":
        return platform.packages
    return platform.debian if kind == "debian" else platform.build
