"""The workbench: builds wheels for one platform in the sealed room.

The room is the image's own base, read-only, with what building needs (:mod:`pesto_repro.plan.room`). In it there is no
network, no file of the host, and always the same of what gets into wheels: paths, user, locale, time zone, file times,
hash seed, umask. A source goes in through a pipe, one wheel comes out through another, and is judged
(:mod:`pesto_repro.source.wheel`) and repacked (:mod:`pesto_repro.source.repack`) before anybody believes it.

Not fixed are the clock and the CPU: a build that asks for the date, or for what this very CPU can do, shows itself only
on another day or machine, where :func:`pesto_repro.source.again.rebuild` says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag

from pesto_repro.build.base import layers_of
from pesto_repro.build.realise import Lost, Workshop, persist, realise
from pesto_repro.build.zipped import Window
from pesto_repro.digest import Digest
from pesto_repro.errors import BuildError, ResolveError
from pesto_repro.lock.model import PlatformLock, PythonPackage, canonicalize_name
from pesto_repro.oci import Layer, Platform
from pesto_repro.plan.make import DEFAULT_PATH, VENV
from pesto_repro.plan.room import room_steps
from pesto_repro.registry.content import StoreContent
from pesto_repro.registry.ports import Content
from pesto_repro.sandbox.cell import Cell
from pesto_repro.sandbox.engines import Engine
from pesto_repro.sandbox.rootfs import Roots
from pesto_repro.source.repack import File, repack
from pesto_repro.source.requires import BuildSystem, build_system
from pesto_repro.source.talk import Limits, Log, printable, talk
from pesto_repro.source.unpacked import Unpacked
from pesto_repro.source.wheel import MAX_WHEEL, Judged, judge

ENVIRONMENT: Mapping[str, str] = {
    "HOME": "/tmp/home",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "SOURCE_DATE_EPOCH": "315532800",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}
"""1980-01-01T00:00:00Z is the file time of sources, too."""
USER = "65532:65532"
TIME = 4 * 60 * 60.0
"""Seconds that a build may take."""
_PLACES = {"sources": "/tmp/src", "home": ENVIRONMENT["HOME"], "output": "/tmp/out"}
_HEADER = 1 << 20
_FROM_HISTORY = frozenset(
    [
        "setuptools-scm",
        "hatch-vcs",
        "versioningit",
        "pbr",
        "dunamai",
        "poetry-dynamic-versioning",
        "setuptools-git-versioning",
    ]
)


@dataclass(frozen=True, slots=True)
class Built:
    """A canonical wheel in the store, and what it says of itself.

    *files* are "<16 hex digits of its sha256> <path>" of each file; *reproducible* is False if two builds were not
    equal and that was allowed.
    """

    filename: str
    digest: Digest
    size: int
    name: str
    version: str
    requires_dist: tuple[str, ...]
    requires_python: str | None
    files: tuple[str, ...]
    reproducible: bool = True


@dataclass(frozen=True)
class Workbench:
    """Builds for the platform of *locked*, whose base, Python and Debian packages (``build`` too) make the room.

    *shop* realises the room's layers: its ``fetch`` must know their pins and those of every *requires*; *roots* unpacks
    them, *base* has the layers of a base image. *accepted* are the tags of wheels that the image's Python takes;
    *max_layers* is the image's. Methods raise BuildError, ResolveError, FetchError.
    """

    locked: PlatformLock
    max_layers: int
    accepted: Collection[Tag]
    shop: Workshop
    roots: Roots
    base: Content | None = None
    host: str = str(Platform.of_machine(os.uname().machine))
    engine: Engine | None = None
    time: float = TIME

    def static_requires(self, source: Unpacked) -> tuple[str, ...]:
        """What *source* says that its build needs. Nothing is run."""
        return build_system(source).requires

    def dynamic_requires(self, source: Unpacked, requires: Sequence[PythonPackage]) -> tuple[str, ...]:
        """What its backend, which is in *requires*, says that is needed besides (PEP 517)."""
        with self._called("get_requires_for_build_wheel", source, requires) as (said, _):
            found = said.get("requires")
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise BuildError(f"{source.label}: its backend does not say what it needs")
        return tuple(_requirement(source, each) for each in found)

    def build(self, source: Unpacked, requires: Sequence[PythonPackage]) -> Built:
        """The wheel of *source*, built with *requires* and nothing else, in canonical form in the store."""
        with self._called("build_wheel", source, requires) as (said, rest):
            name = said.get("wheel")
            if not isinstance(name, str):
                raise BuildError(f"{source.label}: its build ended without handing over a wheel")
            try:
                wheel = judge(name, rest, source, self.accepted)
                digest, size, files = repack(wheel, self.shop.store)
            except BuildError as error:
                raise BuildError(
                    f"{source.label} was built, but not into its wheel: {error.message}", error.hint
                ) from None
        return _built(wheel, digest, size, files)

    @contextmanager
    def _called(
        self, hook: str, source: Unpacked, requires: Sequence[PythonPackage]
    ) -> Iterator[tuple[Mapping[str, Any], BinaryIO]]:
        """Call *hook* in the room: the line that came back, and the bytes after it."""
        self._require_machine(source)
        system = build_system(source)
        cell = Cell(root=self._root(tuple(requires)), env=self._environment, user=USER)
        command = (f"/{VENV}/bin/python", "-c", _script(), json.dumps(_order(hook, source, system)))
        log = Log(self.shop.reporter.debug)
        with (
            self.shop.reporter.activity("build", source.label),
            self.shop.store.open(source.tree) as feed,
            self.shop.store.scratch() as answer,
        ):
            try:
                code = talk(cell, command, feed, answer, log, Limits(MAX_WHEEL, self.time), self.engine)
            except BuildError as error:
                raise _failed(source, system, log, error.message) from None
            if code:
                raise _failed(source, system, log, f"it ended with {code}")
            yield _read(source, answer)

    def _root(self, requires: Sequence[PythonPackage]) -> Path:
        """The room, unpacked. Layers that turn out to be lost or broken are made again."""
        steps = room_steps(self.locked, requires, self.max_layers)

        def attempt(lost: Lost) -> Path:
            made = realise(steps, self.shop, lost)
            return self.roots.root([*self._base_layers, *(made[step.key].layer for step in steps)], self._content)

        return persist(attempt, lambda lost: lost, self.shop.store)

    @cached_property
    def _base_layers(self) -> tuple[Layer, ...]:
        return tuple(layers_of(self.locked.base)) if self.locked.base is not None else ()

    @property
    def _content(self) -> Content:
        digests = frozenset(layer.descriptor.digest for layer in self._base_layers)
        return StoreContent({}, self.shop.store, self.base, digests)

    @property
    def _environment(self) -> dict[str, str]:
        theirs = dict(each.partition("=")[::2] for each in self.locked.base.env) if self.locked.base is not None else {}
        return {**theirs, **ENVIRONMENT, "PATH": f"/{VENV}/bin:{theirs.get('PATH') or DEFAULT_PATH}"}

    def _require_machine(self, source: Unpacked) -> None:
        if self.host == self.locked.platform:
            return
        raise ResolveError(
            f"{source.label} cannot be built for {self.locked.platform} on this machine, which is {self.host}",
            f"build its wheel on a {self.locked.platform} machine and name its folder in [python] find-links, or the "
            f'file as a "type": "pip" resource; or take {self.locked.platform} out of [image] platforms; or take a '
            "version that has a wheel",
        )


def _script() -> str:
    return Path(__file__).with_name("inside.py").read_text()


def _order(hook: str, source: Unpacked, system: BuildSystem) -> dict[str, Any]:
    return {"hook": hook, "backend": system.backend, "path": system.path, "root": source.root, **_PLACES}


def _read(source: Unpacked, answer: IO[bytes]) -> tuple[Mapping[str, Any], BinaryIO]:
    size = answer.seek(0, os.SEEK_END)
    answer.seek(0)
    line = answer.readline(_HEADER)
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise BuildError(f"{source.label}: its build ended without handing over what was asked for")
    return said, cast("BinaryIO", Window(answer, len(line), size - len(line)))


def _requirement(source: Unpacked, text: str) -> str:
    try:
        return str(Requirement(text))
    except InvalidRequirement:
        raise BuildError(f"{source.label}: its backend needs {printable(text)!r}, which is no requirement") from None


def _failed(source: Unpacked, system: BuildSystem, log: Log, why: str) -> BuildError:
    lines = [f"{source.label} cannot be built: {why}; the last it said:", *log.lines]
    return BuildError(
        "\n  ".join(lines if log.lines else [f"{source.label} cannot be built: {why}"]), _advice(source, system)
    )


def _advice(source: Unpacked, system: BuildSystem) -> str:
    named = {canonicalize_name(Requirement(each).name) for each in system.requires}
    if source.kind != "sdist" and named & _FROM_HISTORY:
        return (
            "a version that is computed from git's history cannot be had: write it down, or take a release of an index"
        )
    return (
        "it is built without a network and sees nothing of this machine: name compilers and headers in [python.build] "
        "packages; Python packages belong into the source's own build-system.requires"
    )


def _built(wheel: Judged, digest: Digest, size: int, files: Sequence[File]) -> Built:
    lines = tuple(f"{each.sha256[:16]} {each.path}" for each in files)
    return Built(
        wheel.filename, digest, size, wheel.name, wheel.version, wheel.requires_dist, wheel.requires_python, lines
    )
