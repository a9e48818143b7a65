"""Why a step is to be made: what of its inputs changed since the nearest earlier one, by value.

A build leaves records of its steps in the store (:mod:`~pesto_repro.audit.remembered`).

Of a step that is missing, the nearest earlier one is that step of the last build, of its kind and section, that has
most in common with it. Without records nothing is guessed: it was never made here.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pesto_repro.audit.compare import ABSENT, said, values
from pesto_repro.audit.remembered import build_document, slots_of
from pesto_repro.errors import LockError
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.drift import changes as pin_changes
from pesto_repro.lock.drift import drift
from pesto_repro.lock.model import Lock
from pesto_repro.plan import Plan, Step
from pesto_repro.store import Store

_WHEEL = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(?:-\d[^-]*)?-[^-]+-[^-]+-[^-]+\.whl")
_DEB = re.compile(r"(?P<name>[^_]+)_(?P<version>[^_]+)_[^_]+\.deb")
Document = Mapping[str, Any]
"""What a step's key is made of, or what is remembered of a build."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Of one *step*: is its layer *there*, the key of the *earlier* step it is compared with, and *why* it is new."""

    step: Step
    there: bool
    earlier: str | None
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explained:
    """Of one platform: every step, and what changes the *image* alone."""

    platform: str
    steps: tuple[Explanation, ...]
    image: tuple[str, ...]


def explain(plan: Plan, lock: Lock, store: Store, there: Callable[[Step], bool]) -> Explained:
    """Why the image of *plan* is not the last one; *there* says whether the store has a step's layer."""
    last = _last(plan, lock, store)
    past = _Past.of(last, store)
    steps = tuple(_step(step, there(step), past, lock) for step in plan.steps)
    image = tuple(_image(build_document(plan, lock), last)) if last else ()
    return Explained(str(plan.platform), steps, image)


def _last(plan: Plan, lock: Lock, store: Store) -> Document | None:
    for slot in slots_of(plan, lock):
        if (record := store.record("last", slot)) is not None:
            found: Document = json.loads(str(record["build"]))
            return found
    return None


@dataclass(frozen=True, slots=True)
class _Past:
    """The steps of the last build: (section, kind, name, key, document)."""

    steps: tuple[tuple[str, str, str, str, Document], ...] = ()
    max_layers: int | None = None

    @classmethod
    def of(cls, last: Document | None, store: Store) -> _Past:
        if last is None:
            return cls()
        found = []
        for section, kind, name, key in last["steps"]:
            record = store.record("explain", key)
            if record is not None:
                found.append((section, kind, name, key, json.loads(str(record["step"]))))
        return cls(tuple(found), last["layers.max"])

    def nearest(self, step: Step) -> tuple[str, Document] | None:
        """The step of the last build that has most in common with *step*."""
        alike = [each for each in self.steps if each[:2] == (step.section, step.kind)]
        if step.section == "resources":
            alike = [each for each in self.steps if (each[0], each[2]) == (step.section, step.name)]
        if not alike:
            return None
        mine = _marks(step.document)
        best = max(alike, key=lambda each: (each[3] == step.key.hex, len(mine & _marks(each[4])), each[3]))
        return (best[3], best[4]) if mine & _marks(best[4]) else None

    def home(self, digest: str) -> str | None:
        """The step of the last build that an input was in."""
        for _, kind, name, _, document in self.steps:
            if kind in ("wheels", "debs") and any(digest == each for _, each in document["inputs"]):
                return name
        return None


def _marks(document: Document) -> set[str]:
    """What two steps may have in common: inputs, packages by name, places."""
    found = {digest for _, digest in document["inputs"]}
    found |= {package[0] for name, _ in document["inputs"] if (package := _package(name))}
    params = document["params"]
    places = [key for key in ("root", "to", "prefix", "architecture", "links") if key in params]
    return found | {f"{key}={said(params[key])}" for key in places}


def _step(step: Step, there: bool, past: _Past, lock: Lock) -> Explanation:
    if there:
        return Explanation(step, True, step.key.hex, ())
    nearest = past.nearest(step)
    if nearest is None:
        text = "nothing like it was part of the last build" if past.steps else "the project was never built here"
        return Explanation(step, False, None, (text,))
    key, document = nearest
    if key == step.key.hex:
        return Explanation(step, False, key, ("none of its inputs changed; its layer is not in the store",))
    why = tuple(_differences(document, step.document, past, lock))
    return Explanation(step, False, key, why)


def _differences(before: Document, after: Document, past: _Past, lock: Lock) -> Iterator[str]:
    """What differs between two steps, by value."""
    if before["kind"] != after["kind"]:
        yield f"it was made as {before['kind']}, is made as {after['kind']}"
    for key in ("maker", "tar"):
        if before[key] != after[key] and before["kind"] == after["kind"]:
            what = f"the maker of {after['kind']}" if key == "maker" else "the tar writer"
            yield f"{what} is another: version {before[key]}, now {after[key]}"
    yield from _params(before["params"], after["params"])
    if "files" not in after["params"]:  # of a tree they say it already
        yield from _inputs(before["inputs"], after["inputs"], past, lock)


def _params(before: Document, after: Document) -> Iterator[str]:
    for key in sorted(before.keys() | after.keys()):
        one, other = before.get(key), after.get(key)
        if one == other:
            continue
        if key == "files":
            yield from _files(one or [], other or [])
        elif key == "documents":
            yield from _documents(one or {}, other or {})
        elif key == "text":
            yield from _locks(str(one), str(other))
        elif key == "links":
            yield from (_was(f"the base's link {name}", *pair) for name, *pair in values(one or {}, other or {}))
        else:
            yield _was(_NAMES.get(key, key), one, other)


_NAMES = {
    "version": "the base's Python",
    "executable": "the base's interpreter",
    "site": "the packages' folder",
    "to": "the target",
    "runtime": "the runtime",
}


def _was(what: str, one: object, other: object) -> str:
    """ "x was 1, is 2"."""
    return f"{what} was {_plain(one)}, is {_plain(other)}"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else said(value)


def _files(before: Sequence[Sequence[Any]], after: Sequence[Sequence[Any]]) -> Iterator[str]:
    """Of a tree: each file by its path; (path, sha256, size, executable, target)."""
    old, new = ({each[0]: each[1:] for each in side} for side in (before, after))
    for path in sorted(old.keys() | new.keys()):
        if path not in old:
            yield f"{path} was added"
        elif path not in new:
            yield f"{path} was removed"
        elif old[path] != new[path]:
            yield f"{path} {_file(old[path], new[path])}"


def _file(before: Sequence[Any], after: Sequence[Any]) -> str:
    if before[3] != after[3]:
        kinds = [f"a link to {each[3]}" if each[3] is not None else "a file" for each in (before, after)]
        return f"was {kinds[0]}, is {kinds[1]}"
    if before[0] == after[0]:
        return "is executable now" if after[2] else "is not executable any more"
    bit = "" if before[2] == after[2] else " and its executable bit"
    return f"changed{bit}"


def _documents(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        one, other = (json.loads(side[name]) if name in side else None for side in (before, after))
        yield from (
            _was(": ".join(filter(None, (f"{name}.json", place))), said(here), said(there))
            for place, here, there in values(one, other)
        )


def _locks(before: str, after: str) -> Iterator[str]:
    """What another lock says otherwise; that it is another if one of the texts is of another version."""
    try:
        old, new = (lock_text.loads(text, "the embedded lock") for text in (before, after))
    except LockError:
        yield "the lock changed"
        return
    found = [*map(str, drift(old.input, new.input)), *pin_changes(old, new)]
    yield from (f"lock: {each}" for each in found or ["it changed"])


def _inputs(before: Iterable[Any], after: Iterable[Any], past: _Past, lock: Lock) -> Iterator[str]:
    """Packages by version; other inputs by digest."""
    old, new = (dict(_named(side)) for side in (before, after))
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            yield f"{name} {new[name][0]} {_arrival(new[name][1], past, lock)}".replace("  ", " ")
        elif name not in new:
            yield f"{name} {old[name][0]} is not part of it any more".replace("  ", " ")
        elif old[name][0] != new[name][0]:
            yield f"{name} {old[name][0]} -> {new[name][0]}"
        elif old[name] != new[name]:
            yield " ".join(filter(None, (name, old[name][0]))) + f" changed: {old[name][1]} -> {new[name][1]}"


def _named(inputs: Iterable[Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    for name, digest in inputs:
        package, version = _package(name) or (name, "")
        yield package, (version, digest)


def _arrival(digest: str, past: _Past, lock: Lock) -> str:
    """How an input that is new to a step got there."""
    if (home := past.home(digest)) is None:
        return "was added"
    if past.max_layers != lock.input.max_layers:
        return f"came from another layer ({home}): layers.max was {past.max_layers}, is {lock.input.max_layers}"
    return f"came from another layer ({home}): packages are grouped by their sizes and names"


def _package(file: str) -> tuple[str, str] | None:
    """Name and version in the name of a wheel or a .deb."""
    name = posixpath.basename(file)
    match = _WHEEL.fullmatch(name) or _DEB.fullmatch(name)
    return (match["name"].replace("_", "-").lower(), match["version"].replace("%3a", ":")) if match else None


def _image(now: Document, last: Document) -> Iterator[str]:
    """What changes the image and none of its steps."""
    for key in ("base", "compressor", "layers.max"):
        if now[key] != last[key]:
            yield _was(key, last[key] or ABSENT, now[key] or ABSENT)
    yield from (f"config: {_was(place, here, there)}" for place, here, there in values(last["config"], now["config"]))
    yield from _gone(now["steps"], last["steps"])


def _gone(now: Iterable[Sequence[str]], last: Iterable[Sequence[str]]) -> Iterator[str]:
    """Steps of the last build that have no successor: of resources that of the same name, of others that of a kind."""
    left = {(section, name if section == "resources" else kind) for section, kind, name, _ in now}
    for section, kind, name, _ in last:
        if (section, name if section == "resources" else kind) not in left:
            yield f"{section} ({name}) is not part of it any more"
