"""How two things differ that are locks, projects with their locks, plans or images, told by name and value.

What both know is compared: packages by version and size, resources, settings, the keys of documents; of images also
the config, the layers, and the bytes that somebody who has the first would download for the second. An image's packages
come from the lock that travels with it, and only where there is none from its layers. A lock holds documents by digest:
their keys can be told where the documents themselves are at hand, in a project or an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pesto_repro.audit.compare import (
    NO_PLATFORM,
    Held,
    HeldLayer,
    HeldPlatform,
    Summary,
    config_changes,
    describe,
    of_entry,
    opened,
    platforms,
    said,
    values,
)
from pesto_repro.audit.contents import contents
from pesto_repro.audit.documents import API, ETC, GENERATED, Documents, document_digest, inside, same_documents
from pesto_repro.errors import PestoError
from pesto_repro.lock.drift import DocumentDrift, drift
from pesto_repro.lock.model import Lock, PlatformLock
from pesto_repro.plan.make import LOCK_LABEL
from pesto_repro.registry.content import BASE

Kind = Literal["lock", "project", "plan", "image"]
AREAS = "base python debian resources settings documents config steps layers files lock".split()
"""What is compared, in the order in which it is told."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: *name* is what the user calls it. What it does not know is None."""

    name: str
    kind: Kind
    lock: Lock | None = None
    documents: Documents = field(default_factory=dict)
    image: Held | None = None
    plan: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs: *before* and *after* as text, None where it is not. *sizes* in bytes, where known."""

    area: str
    name: str
    before: str | None
    after: str | None
    platform: str | None = None
    sizes: tuple[int | None, int | None] = (None, None)


@dataclass(frozen=True, slots=True)
class Download:
    """What somebody who has the first image fetches of the second: layers, and their bytes."""

    platform: str
    shared: int
    shared_bytes: int
    new: int
    new_bytes: int


def differences(one: Side, other: Side, *, files: bool = False) -> tuple[Difference, ...]:
    """Everything that differs, in the order of AREAS. Raises PestoError for two that cannot be compared."""
    if (one.kind == "plan") != (other.kind == "plan"):
        raise PestoError(
            f"{one.name} and {other.name} cannot be compared: a {one.kind} and a {other.kind}",
            "compare a plan with a plan",
        )
    found = _merged(_differences(one, other, files), _platform_names(one) & _platform_names(other))
    return tuple(sorted(found, key=lambda each: AREAS.index(each.area)))


def _differences(one: Side, other: Side, files: bool) -> Iterator[Difference]:
    if one.plan is not None and other.plan is not None:
        yield from _plans(one.plan, other.plan)
        return
    if one.image is not None and other.image is not None and one.image.root.digest == other.image.root.digest:
        return
    found = [*_packages(one, other), *_documents(one, other)]
    if one.lock is not None and other.lock is not None:
        found += _pins(one.lock, other.lock)
    if one.image is not None and other.image is not None:
        found += _images(one.image, other.image, files)
    elif one.lock is not None and other.lock is not None:
        found += _settings(one.lock, other.lock)
        if not found and one.lock.content_hash != other.lock.content_hash:
            found.append(Difference("lock", "content-hash", one.lock.content_hash, other.lock.content_hash))
    yield from found


def _merged(found: Iterable[Difference], every: set[str]) -> Iterator[Difference]:
    """What is the same on *every* platform is told once, without them."""
    groups: dict[Difference, list[str | None]] = {}
    for each in found:
        groups.setdefault(replace(each, platform=None), []).append(each.platform)
    for difference, where in groups.items():
        if set(where) >= every:
            yield difference
        else:
            yield from (replace(difference, platform=name) for name in where)


def _parts(image: Held) -> dict[str, HeldPlatform]:
    """The parts of *image* that are for a platform."""
    return {name: each for name, each in platforms(image).items() if name != NO_PLATFORM}


def _platform_names(side: Side) -> set[str]:
    if side.plan is not None:
        return {str(each["platform"]) for each in side.plan["platforms"]}
    if side.image is not None:
        return set(_parts(side.image))
    return {each.platform for each in side.lock.platforms} if side.lock is not None else set()


# -- packages ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Package:
    version: str
    size: int | None = None
    digest: str | None = None


_Packages = dict[tuple[str, str], _Package]
"""By kind ("python", "debian") and name."""


def _packages(one: Side, other: Side) -> Iterator[Difference]:
    locked = one.lock is not None and other.lock is not None
    before, after = (_packages_of(side, locked) for side in (one, other))
    for platform in (name for name in before if name in after):
        old, new = before[platform], after[platform]
        for kind, name in sorted(old.keys() | new.keys()):
            difference = _package(kind, name, old.get((kind, name)), new.get((kind, name)), platform)
            yield from [difference] if difference else []
    for name in before.keys() ^ after.keys():
        yield Difference("settings", "platform", *((name, None) if name in before else (None, name)))


def _packages_of(side: Side, locked: bool) -> dict[str, _Packages]:
    """By platform. An image's own layers are asked if not both sides have a lock; then of what stands on the base."""
    if side.lock is not None and (locked or side.image is None):
        return {each.platform: dict(_locked_packages(each)) for each in side.lock.platforms}
    assert side.image is not None
    found: dict[str, _Packages] = {}
    for name, part in _parts(side.image).items():
        packages = contents(part.manifest, side.image.content).packages
        found[name] = {(each.kind, each.name): _Package(each.version) for each in packages if each.section != BASE}
    return found


def _locked_packages(platform: PlatformLock) -> Iterator[tuple[tuple[str, str], _Package]]:
    for python in platform.packages:
        pin = python.wheel
        yield ("python", python.name), _Package(python.version, pin.size, str(pin.digest))
    for deb in platform.debian:
        yield ("debian", deb.name), _Package(deb.version, deb.size, str(deb.digest))


def _package(kind: str, name: str, old: _Package | None, new: _Package | None, platform: str) -> Difference | None:
    sizes = (old.size if old else None, new.size if new else None)
    if old is not None and new is not None:
        if old.version != new.version:
            return Difference(kind, name, old.version, new.version, platform, sizes)
        if None in (old.digest, new.digest) or old.digest == new.digest:
            return None
        return Difference(kind, name, f"{old.version} {old.digest}", f"{new.version} {new.digest}", platform, sizes)
    return Difference(kind, name, old.version if old else None, new.version if new else None, platform, sizes)


# -- the rest of a lock ------------------------------------------------------------------------------------------


def _pins(one: Lock, other: Lock) -> Iterator[Difference]:
    """Base images, interpreters and resources."""
    after = {each.platform: each for each in other.platforms}
    for old in one.platforms:
        if (new := after.get(old.platform)) is not None:
            yield from _changed("base", "image", _base(old), _base(new), old.platform)
            yield from _changed("base", "Python", old.python.version, new.python.version, old.platform)
    before_resources, after_resources = ({each.key: each for each in side.resources} for side in (one, other))
    for key in sorted(before_resources.keys() | after_resources.keys()):
        pair = [side.get(key) for side in (before_resources, after_resources)]
        texts = [
            f"{each.source} {each.tree or f'sha256:{each.sha256}'} at {each.to}" if each else None for each in pair
        ]
        sizes = [each.size if each else None for each in pair]
        for each in _changed("resources", key, *texts):
            yield replace(each, sizes=(sizes[0], sizes[1]))


def _base(locked: PlatformLock) -> str | None:
    return f"{locked.base.original}@{locked.base.manifest}" if locked.base is not None else None


def _settings(one: Lock, other: Lock) -> Iterator[Difference]:
    """What was asked for, and the rules of assembly; resources that differ were told by their pins."""
    told = {each.key for each in one.resources} | {each.key for each in other.resources}
    for each in drift(one.input, other.input):
        is_resource = each.what == "requirements" or each.what.removeprefix("requirements.") in told
        if not isinstance(each, DocumentDrift) and not is_resource:
            yield Difference("settings", each.what, each.locked or None, each.now or None)
    for name in ("version", "compressor", "epoch"):
        yield from _changed(
            "settings", f"assembly.{name}", str(getattr(one.assembly, name)), str(getattr(other.assembly, name))
        )


def _changed(
    area: str, name: str, before: str | None, after: str | None, platform: str | None = None
) -> Iterator[Difference]:
    if before != after:
        yield Difference(area, name, before, after, platform)


# -- documents ---------------------------------------------------------------------------------------------------


def _documents(one: Side, other: Side) -> Iterator[Difference]:
    """PESTO's documents by key, where both are at hand; else which of them changed."""
    if one.image is not None and other.image is not None:
        if same_documents(one.image, other.image):
            return
        before, after = (inside(side.image, ETC) for side in (one, other) if side.image is not None)
        yield from _by_key(before, after, before.keys() | after.keys())
        return
    leave_out = GENERATED if one.image is not None or other.image is not None else frozenset[str]()
    before, after = _own(one), _own(other)
    old, new = _digests(one, before), _digests(other, after)
    changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)} - leave_out
    known = {
        name for name in changed if all(name in has or name not in side for side, has in ((old, before), (new, after)))
    }
    yield from _by_key(before, after, known)
    for name in sorted(changed - known):
        yield Difference("documents", f"{name}.json", old.get(name), new.get(name))


def _by_key(before: Documents, after: Documents, names: Iterable[str]) -> Iterator[Difference]:
    for name in sorted(names):
        for place, here, there in values(before.get(name), after.get(name)):
            full = ": ".join(filter(None, (f"{name}.json", place)))
            yield Difference("documents", full, _said(here), _said(there))


def _said(value: object) -> str | None:
    return None if value is None else said(value)


def _own(side: Side) -> Documents:
    """The project's own documents that *side* is known to be made of."""
    if side.image is None:
        return side.documents
    return {name: each for name, each in inside(side.image, API).items() if name not in GENERATED}


def _digests(side: Side, own: Documents) -> Mapping[str, str]:
    return side.lock.input.documents if side.lock is not None else {name: document_digest(own[name]) for name in own}


# -- images ------------------------------------------------------------------------------------------------------


def _images(one: Held, other: Held, files: bool) -> Iterator[Difference]:
    before, after = _parts(one), _parts(other)
    for name in (each for each in before if each in after):
        for key, here, there in config_changes(before[name].config, after[name].config):
            if key != f"Labels.{LOCK_LABEL}":  # that is told by what differs in the lock
                yield Difference("config", key, _said(here), _said(there), name)
        for layer in _only(before[name], after[name]):
            title, digest_ = _layer(layer)
            yield Difference("layers", title, digest_, None, name, (layer.descriptor.size, None))
        for layer in _only(after[name], before[name]):
            title, digest_ = _layer(layer)
            yield Difference("layers", title, None, digest_, name, (None, layer.descriptor.size))
        if files:
            old, new = _entries(one, before[name], after[name]), _entries(other, after[name], before[name])
            yield from (replace(each, platform=name) for each in _files(old, new))


def _layer(layer: HeldLayer) -> tuple[str, str]:
    return layer.name or str(layer.descriptor.digest), str(layer.descriptor.digest)


def _only(one: HeldPlatform, other: HeldPlatform) -> list[HeldLayer]:
    """The layers of *one* that *other* has not."""
    has = {each.descriptor.digest for each in other.layers}
    return [each for each in one.layers if each.descriptor.digest not in has]


def _entries(image: Held, part: HeldPlatform, other: HeldPlatform) -> dict[str, Summary]:
    """What the layers that *other* has not hold: of each path what is uppermost, contents by digest."""
    found: dict[str, Summary] = {}
    for layer in _only(part, other):
        with opened(image.content, layer.descriptor) as reader:
            found.update((each.path, each) for each in reader.entries())
    return found


def _files(old: Mapping[str, Summary], new: Mapping[str, Summary]) -> Iterator[Difference]:
    for path in sorted(old.keys() | new.keys(), key=lambda path: path.split("/")):
        one, other = old.get(path), new.get(path)
        if one is not None and other is not None:
            for each in of_entry(one, other):
                yield Difference("files", f"{path}: {each.what}", each.before, each.after, None, (one.size, other.size))
        elif one is not None and one.kind != "directory":
            yield Difference("files", path, describe(one), None, None, (one.size, None))
        elif other is not None and other.kind != "directory":
            yield Difference("files", path, None, describe(other), None, (None, other.size))


def downloads(one: Side, other: Side) -> Iterator[Download]:
    """What is to be fetched of *other*'s layers by who has those of *one*, platform by platform."""
    if one.image is None or other.image is None:
        return
    before, after = _parts(one.image), _parts(other.image)
    for name in (each for each in after if each in before):
        new = {each.descriptor for each in _only(after[name], before[name])}
        shared = {each.descriptor for each in after[name].layers} - new
        yield Download(name, len(shared), sum(each.size for each in shared), len(new), sum(each.size for each in new))


# -- plans -------------------------------------------------------------------------------------------------------


def _plans(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Difference]:
    """Steps by section and name, from what ``plan --json`` printed."""
    before, after = _steps(one), _steps(other)
    for platform, section, name in before | after:
        here, there = (side.get((platform, section, name)) for side in (before, after))
        yield from _changed("steps", f"{section}: {name}", here, there, platform)


def _steps(plan: Mapping[str, Any]) -> dict[tuple[str, str, str], str]:
    return {
        (each["platform"], step["section"], step["name"]): step["step"]
        for each in plan["platforms"]
        for step in each["steps"]
    }
