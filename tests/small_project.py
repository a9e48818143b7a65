"""A project with a lock made by hand: every kind of step but Debian's, made in a moment and without a network.

What it needs lies in a folder of wheels beside it. ``lock`` works on it too, as long as nothing new is asked for.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pesto_repro import scaffold
from pesto_repro.build.compress import describe
from pesto_repro.build.resources import Local
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.asked import asked
from pesto_repro.lock.model import LOCK_VERSION, Assembly, Interpreter, Lock, Pin, PlatformLock, PythonPackage
from pesto_repro.plan import ASSEMBLY_VERSION
from pesto_repro.project import lock_path, read_project
from tests.e2e import build
from tests.python_index import digest_of_file, make_wheel, simple_wheel

PLATFORM = "linux/amd64"
SETTINGS = '[base]\ndebian = "trixie"\n[python]\nrequires = ["alpha", "beta"]\n'
STAND_INS = ("fastapi-0.83.0", "jsonschema-4.0", "loguru-0.7", "numpy-2.0", "rasterio-1.4", "uvicorn-0.54")
"""What the runtime's minimal closure names, as empty packages."""
_UNSEALED = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True)
class Small:
    """A project at *root*, its *store*, and the folder *wheels* where its lock's wheels lie."""

    root: Path
    store: Path
    wheels: Path

    @property
    def env(self) -> dict[str, str]:
        """The configuration of uv that knows the wheels and nothing else."""
        return {"UV_FIND_LINKS": str(self.wheels), "UV_NO_INDEX": "1"}

    @property
    def lockfile(self) -> Path:
        return self.root / "lockfiles/small.lock.toml"

    @property
    def output(self) -> Path:
        return self.root.parent / "small.oci.tar"

    @property
    def requirements(self) -> Path:
        return self.root / "pesto/build/requirements.json"

    @property
    def settings(self) -> Path:
        return self.root / "pesto/build/image.toml"

    def build(self, *arguments: str | Path, **how: Any) -> dict[str, Any]:
        """Build it; what ``--json`` printed."""
        environment = {**self.env, **how.pop("env", {})}
        return build(self.root, *arguments, store=self.store, output=self.output, env=environment, **how)


def make_small(parent: Path, runtime_wheel: Path) -> Small:
    """A new small project below *parent*, locked, with an empty store."""
    small = Small(parent / "small", parent / "store", parent / "wheels")
    scaffold.create(small.root, "small")
    (small.root / "setup.py").write_text("from setuptools import setup\n\nsetup()\n")
    small.settings.write_text(SETTINGS)
    wheels = _wheels(small.wheels, runtime_wheel)
    _resources(small)
    write_lock(small, wheels)
    return small


def write_lock(small: Small, wheels: tuple[PythonPackage, ...]) -> None:
    """Pin *wheels* and the project's resources for one platform without Debian packages."""
    project = read_project(small.root)
    python = Interpreter(version="3.13.5", executable="/usr/bin/python3.13", libc="glibc 2.41")
    lock = Lock(
        lock_version=LOCK_VERSION,
        content_hash=_UNSEALED,
        assembly=Assembly(
            version=ASSEMBLY_VERSION,
            compression="gzip",
            compressor=describe("gzip"),
            epoch="2026-01-02T03:04:05Z",
        ),
        input=asked(project, (PLATFORM,)),
        resources=tuple(each for _, each in sorted(Local(project).resources.items())),
        platforms=(PlatformLock(platform=PLATFORM, python=python, packages=wheels),),
    )
    path = lock_path(project)
    path.parent.mkdir(exist_ok=True)
    path.write_text(lock_text.dumps(lock_text.seal(lock)))


def add_resource(small: Small, key: str, source: str, to: str) -> None:
    """Another entry of requirements.json, not locked."""
    document = json.loads(small.requirements.read_text())
    document["requirements"][key] = {"from": source, "to": to}
    small.requirements.write_text(json.dumps(document))


def _wheels(folder: Path, runtime_wheel: Path) -> tuple[PythonPackage, ...]:
    noise = random.Random(0).randbytes(1 << 20)
    make_wheel(folder, "alpha-1.0-py3-none-any.whl", {"alpha.py": b"A = 1\n", "alpha.bin": noise})
    make_wheel(folder, "beta-2.0-py3-none-any.whl", {"beta/__init__.py": b"B = 2\n"})
    for each in STAND_INS:
        simple_wheel(folder, *each.split("-"))
    shutil.copy(runtime_wheel, folder)
    return tuple(_pin(each) for each in sorted(folder.iterdir()))


def _pin(wheel: Path) -> PythonPackage:
    name, version = wheel.name.split("-")[:2]
    pin = Pin(name=wheel.name, sha256=digest_of_file(wheel).hex, size=wheel.stat().st_size)
    return PythonPackage(name=name.replace("_", "-"), version=version, index="find-links", wheel=pin)


def _resources(small: Small) -> None:
    """A file, a directory and an archive."""
    folder = small.root / "data"
    (folder / "tables").mkdir(parents=True)
    (folder / "tables/one.txt").write_text("one\n")
    (folder / "tables/two.txt").write_text("two\n")
    (folder / "note.txt").write_text("a note\n")
    (folder / "model.tar.gz").write_bytes(tar_gz({"model.txt": b"weights\n", "sub/part": b"more\n"}))
    add_resource(small, "note", "file://data/note.txt", "/etc/note.txt")
    add_resource(small, "tables", "file://data/tables", "/opt/tables")
    add_resource(small, "model", "file://data/model.tar.gz", "/opt/model")


def tar_gz(files: dict[str, bytes]) -> bytes:
    """A compressed tar of *files*."""
    return tar_gz_of([(_member(name, len(data)), data) for name, data in files.items()])


def tar_gz_of(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A compressed tar of *members*, whatever they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0)


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


@pytest.fixture(scope="session")
def built_once(runtime_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Small, str]:
    """The small project, built, and its image's digest: not to be changed."""
    small = make_small(tmp_path_factory.mktemp("built"), runtime_wheel)
    return small, small.build()["digest"]


@pytest.fixture
def built(built_once: tuple[Small, str], tmp_path: Path) -> tuple[Small, str]:
    """The small project with a copy of the store that it was built with, and the image's digest."""
    small, digest = built_once
    shutil.copytree(small.store, tmp_path / "store")
    return replace(small, store=tmp_path / "store"), digest
