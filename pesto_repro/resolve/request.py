"""What is asked of Python's packages for one platform, and what answers that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from pesto_repro.digest import Digest
from pesto_repro.errors import ResolveError
from pesto_repro.lock.model import BroughtPackage, Interpreter, Pin, PythonPackage, Source
from pesto_repro.resolve.wheel_tags import musl_minor


@dataclass(frozen=True, slots=True)
class LocalWheel:
    """A wheel that the project brings: the *path* of its bytes, the *key* of its ``type: pip`` requirement, if any.

    *source* is what it was made from, *extras* those of the requirement by address that it answers.
    """

    key: str | None
    filename: str
    path: Path
    digest: Digest
    size: int
    source: Source | None = None
    extras: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a package that is built from source says of itself."""

    name: str
    version: str
    requires_dist: tuple[str, ...] = ()
    requires_python: str | None = None
    extras: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sdist:
    """The source distribution that was chosen for a package, and where it lies."""

    name: str
    version: str
    file: Pin
    url: str
    index: str | None = None
    upload_time: str | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """What answers a request: *packages* that have wheels, and *sdists* of those that are to be built; by name."""

    packages: tuple[PythonPackage, ...]
    sdists: tuple[Sdist, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for one platform; *closure* says how much of the *runtime*'s dependencies is wanted.

    *brought* are packages that the base has and that are to be used: they are pinned, and not installed again. Of
    *from_source* only sdists are taken, of the others only wheels; *metadata* is what is known of such sdists. The
    closure is "none" where no runtime is asked for.
    """

    requires: tuple[str, ...]
    constraints: tuple[str, ...]
    runtime: str
    closure: str
    python: Interpreter
    platform: str
    wheels: tuple[LocalWheel, ...] = ()
    brought: tuple[BroughtPackage, ...] = ()
    keep: tuple[PythonPackage, ...] = ()
    upgrade: bool = False
    upgrade_packages: tuple[str, ...] = ()
    from_source: tuple[str, ...] = ()
    metadata: tuple[Metadata, ...] = ()

    @property
    def target(self) -> str:
        libc = " with musl" if musl_minor(self.python.libc) else ""
        return f"Python {self.python.minor} on {self.platform}{libc}"

    @property
    def used(self) -> tuple[BroughtPackage, ...]:
        """Those of *brought* that count: the runtime is always ours, as are the wheels that the project brings."""
        runtime = {canonicalize_name(Requirement(self.runtime).name)} if self.runtime else set()
        ours = {*runtime, *map(wheel_name, self.wheels)}
        return tuple(each for each in self.brought if each.name not in ours)

    def keeps(self, name: str) -> bool:
        """Whether the pin of package *name* is to stay if it can."""
        return not self.upgrade and name not in {canonicalize_name(each) for each in self.upgrade_packages}


def wheel_name(wheel: LocalWheel) -> str:
    """The package that *wheel* is of. Raises ResolveError for what is no wheel."""
    try:
        return parse_wheel_filename(wheel.filename)[0]
    except InvalidWheelFilename:
        raise ResolveError(
            f'requirement "{wheel.key}": {wheel.filename} is not a wheel', "name a wheel or a source distribution"
        ) from None
