"""A room to build wheels in: that of the locked template project, and sources that bring their own backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pesto_repro.build.compress import describe
from pesto_repro.build.realise import Workshop
from pesto_repro.cli.world import world_of
from pesto_repro.digest import Digest
from pesto_repro.fetch import index
from pesto_repro.fetch.artifacts import artifacts
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.model import Pin, PythonPackage
from pesto_repro.progress import Reporter
from pesto_repro.project import lock_path, read_project
from pesto_repro.resolve.wheel_tags import image_tags
from pesto_repro.sandbox.rootfs import Roots
from pesto_repro.source.archive import read_sdist
from pesto_repro.source.unpacked import Unpacked
from pesto_repro.source.workbench import Workbench
from pesto_repro.store import Store
from tests.small_project import tar_gz

SETUPTOOLS = PythonPackage(
    name="setuptools",
    version="80.9.0",
    wheel=Pin(
        name="setuptools-80.9.0-py3-none-any.whl",
        sha256="062d34222ad13e0cc312a4c02d73f059e86a4acbfbdea8f8f76b28c99f306922",
        size=1201486,
    ),
)
WGET = PythonPackage(
    name="wget",
    version="3.2",
    wheel=Pin(
        name="wget-3.2.zip", sha256="35e630eca2aa50ce998b9b1a127bb26b30dfee573702782aa982f875e3f16061", size=10857
    ),
)
JSONIFY = PythonPackage(
    name="jsonify",
    version="0.5",
    wheel=Pin(
        name="jsonify-0.5.tar.gz", sha256="f340032753577575e9777835809b283fdc9b251867d5d5600389131647f8bfe1", size=1007
    ),
)
"""Files of the index, whatever they are: an archive is pinned as a wheel is."""

BACKEND = """\
import os, zipfile

def build_wheel(folder, settings=None, metadata=None):
    return make(folder, {"a.py": "A = 1\\n"})

def make(folder, files, name="a-1.0-py3-none-any.whl", meta="Name: a\\nVersion: 1.0\\n"):
    base = "a-1.0.dist-info/"
    files = {**files, base + "METADATA": "Metadata-Version: 2.1\\n" + meta, base + "RECORD": "",
             base + "WHEEL": "Wheel-Version: 1.0\\nGenerator: own\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
    with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return name
"""
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n'


@dataclass
class Heard(Reporter):
    """Keeps what was said for whoever asks for details."""

    lines: list[str] = field(default_factory=list)

    def debug(self, message: str) -> None:
        self.lines.append(message)


@dataclass(frozen=True)
class Room:
    """A *bench* and what belongs to it."""

    bench: Workbench
    heard: Heard
    fetch: Callable[[PythonPackage], None]

    @property
    def store(self) -> Store:
        return self.bench.shop.store

    def sdist(self, package: PythonPackage) -> Unpacked:
        """The source of a *package* of the index."""
        self.fetch(package)
        return read_sdist(self.store, package.wheel.name, package.wheel.digest, package=package.name)

    def own(self, backend: str = "", files: Mapping[str, bytes] | None = None) -> Unpacked:
        """A source ``a`` 1.0 whose own backend is BACKEND, and *backend* after it."""
        everything = {
            "a-1.0/pyproject.toml": PYPROJECT.encode(),
            "a-1.0/own.py": (BACKEND + backend).encode(),
            **{f"a-1.0/{path}": data for path, data in (files or {}).items()},
        }
        return read_sdist(self.store, "a-1.0.tar.gz", self.store.put(tar_gz(everything)))


@contextmanager
def make_room(project_root: Path, store: Store) -> Iterator[Room]:
    """The room of the project at *project_root*, which is locked for one platform."""
    project, heard = read_project(project_root), Heard()
    lock = lock_text.loads(lock_path(project).read_text(), lock_path(project).name)
    world = world_of(project, store, heard)
    pinned = artifacts(lock, project, world)

    def fetch(package: PythonPackage) -> None:
        indexes, wheel = world.indexes()[0], package.wheel
        world.fetcher.blob(wheel.digest, wheel.size, lambda: index.urls(package, indexes, world.fetcher), package.name)

    def fetch_digest(digest: Digest) -> None:
        if digest == SETUPTOOLS.wheel.digest:
            fetch(SETUPTOOLS)
        else:
            pinned.fetch(digest)

    locked = lock.platforms[0]
    shop = Workshop(store, {}, fetch_digest, "gzip", describe("gzip"), heard)
    accepted = frozenset(image_tags(locked.python, locked.platform))
    with Roots(store, heard) as roots:
        yield Room(Workbench(locked, 40, accepted, shop, roots), heard, fetch)
