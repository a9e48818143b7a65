"""Packages that exist only as source: which version, what they are built with, what stays pinned.

The room in which they are built is a twin that builds nothing.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.build.realise import Workshop
from pesto_repro.digest import Digest
from pesto_repro.errors import DriftError, FetchError, MismatchError, OfflineError, PestoError, ResolveError
from pesto_repro.fetch import Fetcher
from pesto_repro.fetch.debian import Mirrors
from pesto_repro.fetch.index import Index, Indexes
from pesto_repro.fetch.world import World as Places
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.model import Interpreter, Lock, PlatformLock, PythonPackage
from pesto_repro.resolve.builder import Builder
from pesto_repro.resolve.failures import NO_WHEEL_HINT
from pesto_repro.resolve.origins import Fetch, Origins, changed_folders, restore
from pesto_repro.resolve.request import LocalWheel, Request
from pesto_repro.resolve.sources import resolve
from pesto_repro.sandbox.rootfs import Roots
from pesto_repro.source.unpacked import Unpacked
from pesto_repro.source.workbench import Built, Workbench
from pesto_repro.store import Store
from tests.python_index import PrivateIndex, digest_of_file, serving, simple_wheel
from tests.small_project import tar_gz
from tests.test_lock import deb, sealed
from tests.test_python_resolve import Recorder

PYTHON = Interpreter(version="3.13.5", executable="/usr/bin/python3.13", libc="glibc 2.41")
ROOM = PlatformLock(platform="linux/amd64", python=PYTHON)
GCC = deb("gcc", "1")


def recipe(name: str, version: str, *requires: str, build: Sequence[str] = ("tool",), **more: Any) -> bytes:
    """What the twin of the workbench reads of a source in place of building it."""
    return json.dumps({"name": name, "version": version, "requires": requires, "build": build, **more}).encode()


def make_sdist(folder: Path, name: str, version: str, *requires: str, **more: Any) -> Path:
    """A source distribution in *folder*."""
    path = folder / f"{name}-{version}.tar.gz"
    path.write_bytes(tar_gz({f"{name}-{version}/recipe.json": recipe(name, version, *requires, **more)}))
    return path


@dataclass
class Done:
    """What the twins were asked to build, and what they were given."""

    sources: list[str] = field(default_factory=list)
    requires: list[list[str]] = field(default_factory=list)


@dataclass(frozen=True)
class Bench(Workbench):
    """A workbench whose wheels are what the source's recipe says."""

    done: Done = field(default_factory=Done)

    def static_requires(self, source: Unpacked) -> tuple[str, ...]:
        return tuple(self._recipe(source)["build"])

    def dynamic_requires(self, source: Unpacked, requires: Sequence[PythonPackage]) -> tuple[str, ...]:
        return tuple(self._recipe(source).get("dynamic", ()))

    def build(self, source: Unpacked, requires: Sequence[PythonPackage]) -> Built:
        found = self._recipe(source)
        name, version = found["name"], found["version"]
        self.done.sources.append(f"{name} {version}")
        self.done.requires.append([f"{each.name} {each.version}" for each in requires])
        noise = str(len(self.done.sources)) if found.get("noisy") else ""
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {each}" for each in found["requires"])]
        lines += [f"Provides-Extra: {each}" for each in found.get("extras", ())]
        info = f"{name}-{version}.dist-info"
        files = {**found.get("vendored", {}), f"{name}.py": noise, f"{info}/RECORD": ""}
        files[f"{info}/METADATA"] = "\n".join(lines) + "\n"
        files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            for path, text in files.items():
                archive.writestr(zipfile.ZipInfo(path), text)
        digest = self.shop.store.put(data.getvalue())
        told = tuple(f"{Digest.of(text.encode()).hex[:16]} {path}" for path, text in files.items())
        filename, requires_dist = f"{name}-{version}-py3-none-any.whl", tuple(found["requires"])
        return Built(filename, digest, len(data.getvalue()), name, version, requires_dist, None, told)

    def _recipe(self, source: Unpacked) -> dict[str, Any]:
        with self.shop.store.open(source.tree) as stream, tarfile.open(fileobj=stream) as archive:
            member = archive.extractfile(f"{source.root}/recipe.json")
            assert member is not None
            found: dict[str, Any] = json.load(member)
            return found


class World:
    """An index with wheels and sdists, a project's folder, a store, and the twin of the room."""

    def __init__(self, root: Path, server: PrivateIndex) -> None:
        self.folder, self.project = server.folder, root / "project"
        self.project.mkdir()
        self.reporter, self.done, self.offline = Recorder(), Done(), False
        self.store = Store(root / "store")
        indexes = Indexes((Index("default", server.url),))
        environment = {"PATH": os.environ["PATH"], "HOME": str(root), "UV_CACHE_DIR": f"{root}/cache"}
        self.places = Places(
            Fetcher(self.store, self.reporter),
            lambda: (indexes, environment),
            lambda: Mirrors((), ()),
            self.reporter,
            datetime(2026, 1, 1, tzinfo=UTC),
            environment=environment,
        )
        self.origins = Origins(self.places, self.project)
        self.roots = Roots(self.store, self.reporter)

    def bench(self, room: PlatformLock, fetch: Fetch) -> Bench:
        shop = Workshop(self.store, {}, fetch, "gzip", "gzip", self.reporter)
        return Bench(room, 40, (), shop, self.roots, done=self.done)

    def lock(
        self,
        *requires: str,
        forced: Sequence[str] = (),
        before: Lock | None = None,
        renew: Collection[str] = (),
        room: PlatformLock = ROOM,
        allowed: Collection[str] = (),
        wheels: tuple[LocalWheel, ...] = (),
    ) -> Lock:
        """What *requires* resolve to, as a lock for one platform; *renew* as with -P."""
        pins = before.platforms[0] if before is not None else None
        request = Request(
            requires,
            (),
            "rt==1.0",
            "full",
            PYTHON,
            room.platform,
            wheels=wheels,
            keep=pins.packages if pins else (),
            upgrade_packages=tuple(renew),
        )
        builder = Builder(
            room,
            self.bench,
            self.origins,
            before=pins,
            asked=before.input if before is not None else None,
            keeps=lambda name: name not in renew,
            allowed=allowed,
        )
        packages = resolve(request, builder, forced)
        platform = room.model_copy(update={"packages": packages})
        now = sealed().input.model_copy(update={"requires": requires, "build_from_source": tuple(forced)})
        return sealed(platform, asked_for=now)

    def failure(self, *requires: str, **how: Any) -> PestoError:
        with pytest.raises(PestoError) as caught:
            self.lock(*requires, **how)
        return caught.value


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    files = tmp_path / "files"
    simple_wheel(files, "rt", "1.0")
    for version in ("1.0", "2.0"):
        simple_wheel(files, "b", version)
        simple_wheel(files, "tool", version)
    make_sdist(files, "src", "1.0", "b<2")
    with serving(files) as server:
        yield World(tmp_path, server)


def pins(lock: Lock) -> dict[str, str]:
    return {each.name: each.version for each in lock.platforms[0].packages}


def package(lock: Lock, name: str) -> PythonPackage:
    return next(each for each in lock.platforms[0].packages if each.name == name)


def test_a_package_without_wheels_is_built(world: World) -> None:
    """Twice; what it requires counts, and what it was built from and with is pinned."""
    lock = world.lock("src", "b")
    assert {"rt": "1.0", "src": "1.0", "b": "1.0"} == pins(lock)
    assert ["src 1.0", "src 1.0"] == world.done.sources
    source = package(lock, "src").source
    assert source is not None
    sdist = world.folder / "src-1.0.tar.gz"
    assert ("sdist", sdist.name, digest_of_file(sdist)) == (source.kind, source.name, source.digest)
    assert ["tool 2.0"] == [f"{each.name} {each.version}" for each in source.requires]
    assert ("default", "src-1.0-py3-none-any.whl") == (package(lock, "src").index, package(lock, "src").wheel.name)
    assert "src 1.0 was built from source: src-1.0.tar.gz" in world.reporter.told


def test_a_lock_with_sources_is_read_back(world: World) -> None:
    """Equal text, equal values; a lock without sources does not mention them."""
    lock = world.lock("src")
    text = lock_text.dumps(lock)
    assert lock == lock_text.loads(text, "lock")
    assert text == lock_text.dumps(lock_text.loads(text, "lock"))
    plain = lock_text.dumps(world.lock("b"))
    assert not [word for word in ("source =", "build = [") if word in plain]


def test_a_version_whose_requirements_cannot_be_met_gives_way(world: World) -> None:
    """That is known when it was built."""
    make_sdist(world.folder, "src", "2.0", "b>=3")
    assert "1.0" == pins(world.lock("src"))["src"]
    assert ["src 2.0", "src 2.0", "src 1.0", "src 1.0"] == world.done.sources


def test_vendored_metadata_is_not_the_wheels_own(world: World) -> None:
    """A wheel such as setuptools' own brings the metadata of others, which sorts first."""
    other = {"_vendor/x-9.dist-info/METADATA": "Name: x\nVersion: 9\nRequires-Dist: missing\n"}
    make_sdist(world.folder, "src", "2.0", "b<2", vendored=other)
    assert {"rt": "1.0", "src": "2.0", "b": "1.0"} == pins(world.lock("src"))


def test_a_named_package_is_built_although_it_has_a_wheel(world: World) -> None:
    """And only while it is named."""
    make_sdist(world.folder, "b", "2.0")
    lock = world.lock("b", forced=["b"])
    assert package(lock, "b").source is not None
    assert package(world.lock("b", before=lock), "b").source is None


def test_what_the_backend_asks_for_is_there_too(world: World) -> None:
    """PEP 517: get_requires_for_build_wheel."""
    make_sdist(world.folder, "src", "2.0", dynamic=["b==1.0"])
    world.lock("src")
    assert [["b 1.0", "tool 2.0"]] * 2 == world.done.requires


def test_what_is_pinned_stays(world: World) -> None:
    """Nothing is built again, whatever is new, until the package or what built it is renewed, or the room is new."""
    lock = world.lock("src")
    make_sdist(world.folder, "src", "1.1")
    simple_wheel(world.folder, "tool", "3.0")
    assert lock.platforms == world.lock("src", before=lock).platforms
    assert 2 == len(world.done.sources)
    renewed = world.lock("src", before=lock, renew=["tool"])
    assert ("1.0", ["tool 3.0"]) == (pins(renewed)["src"], world.done.requires[-1])
    assert "1.1" == pins(world.lock("src", before=lock, renew=["src"]))["src"]
    count = len(world.done.sources)
    world.lock("src", before=lock, room=ROOM.model_copy(update={"build": (GCC,)}))
    assert (count + 2, ["tool 2.0"]) == (len(world.done.sources), world.done.requires[-1])


def test_a_build_that_needs_a_source_is_refused(world: World) -> None:
    """With the chain of who needs what."""
    make_sdist(world.folder, "top", "1.0", build=["src"])
    failure = world.failure("top")
    assert failure.message.startswith(
        "top-1.0.tar.gz is to be built from source, but what its build needs is there only as source, too:\n"
        "src 1.0 has no wheel for Python 3.13 on linux/amd64 (only a source distribution):\n"
    )
    assert NO_WHEEL_HINT == failure.hint


def test_a_package_that_does_not_come_out_equal_is_refused_or_recorded(world: World) -> None:
    """The files that differ are named; accepted, the lock says so."""
    make_sdist(world.folder, "src", "2.0", noisy=True)
    failure = world.failure("src")
    assert "src 2.0 does not come out equal when it is built twice:\n  src.py differs" == failure.message
    lock = world.lock("src", allowed=["src"])
    source = package(lock, "src").source
    assert source is not None
    assert not source.reproducible
    assert "reproducible = false" in lock_text.dumps(lock)
    assert "does not come out equal" in world.failure("src", before=lock).message


def test_a_wheel_that_is_lost_is_built_from_its_pins(world: World) -> None:
    """As on another machine; another result is told by file, and offline what is lacking."""
    lock = world.lock("src")
    src, store = package(lock, "src"), world.store
    builder = Builder(lock.platforms[0], world.bench, world.origins)
    store.discard(src.wheel.digest)
    builder.bring(src)
    assert store.has(src.wheel.digest)
    assert src.source is not None
    other = src.wheel.model_copy(update={"sha256": "1" * 64})
    changed = src.source.model_copy(update={"files": ("0123456789abcdef src.py", *src.source.files[1:])})
    with pytest.raises(MismatchError) as caught:
        builder.bring(src.model_copy(update={"wheel": other, "source": changed}))
    assert caught.value.message.splitlines()[1:] == ["  src.py differs"]
    for each in (src.wheel.digest, src.source.digest):
        store.discard(each)
    origins = replace(world.origins, world=replace(world.places, fetcher=Fetcher(store, world.reporter, offline=True)))
    with pytest.raises(OfflineError):
        Builder(lock.platforms[0], world.bench, origins).bring(src)


# -- by address --------------------------------------------------------------------------------------------


def folder(world: World, path: str, *requires: str, **more: Any) -> Path:
    """A source in a folder of the project."""
    target = world.project / path
    target.mkdir(parents=True, exist_ok=True)
    (target / "recipe.json").write_bytes(recipe("own", "1.0", *requires, **more))
    return target


def test_a_folder_is_built_and_its_changes_are_seen(world: World) -> None:
    """With extras and markers; what did not change is not built again."""
    target = folder(world, "libs/own", "b<2 ; extra == 'x'", extras=["x"])
    lock = world.lock("own[x] @ file:libs/own", "file:libs/own", 'file:gone ; sys_platform == "win32"')
    assert {"rt": "1.0", "own": "1.0", "b": "1.0"} == pins(lock)
    source = package(lock, "own").source
    assert source is not None
    assert ("directory", "libs/own") == (source.kind, source.name)
    world.lock("file:libs/own", before=lock)
    assert 2 == len(world.done.sources)
    assert [] == changed_folders(lock.platforms, world.project, world.store)
    (target / "more.py").write_text("")
    (told,) = changed_folders(lock.platforms, world.project, world.store)
    assert told.startswith(f"libs/own was {source.digest}, is sha256:")
    (target / "__pycache__").mkdir()
    again = package(world.lock("file:libs/own", before=lock), "own").source
    assert again is not None
    assert (4, False) == (len(world.done.sources), again.digest == source.digest)


def test_a_folder_that_is_not_there_is_told(world: World) -> None:
    """By its name, with where it was looked for."""
    failure = world.failure("file:libs/own")
    assert ("libs/own is required, but there is no such folder", True) == (
        failure.message,
        str(world.project / "libs/own") in str(failure.hint),
    )
    assert isinstance(failure, FetchError)


def test_a_folder_that_requires_an_address_is_refused(world: World) -> None:
    """uv would build it on this machine to know what it requires."""
    folder(world, "own", "b @ git+https://h.test/b")
    failure = world.failure("file:own")
    assert "own requires b @ git+https://h.test/b, an address" == failure.message
    assert isinstance(failure, ResolveError)


def git(where: Path, *arguments: str) -> str:
    who = [
        "-c",
        "user.name=n",
        "-c",
        "user.email=e@h.test",
        "-c",
        "init.defaultBranch=main",
        "-c",
        "commit.gpgsign=false",
    ]
    done = subprocess.run(["git", *who, *arguments], cwd=where, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_commit_stays_until_it_is_renewed(world: World, tmp_path: Path) -> None:
    """However the branch moves; another branch is another question."""
    repository = tmp_path / "repository"
    (repository / "sub").mkdir(parents=True)
    git(repository, "init", "--quiet")
    commits = []
    for version in ("1.0", "1.1"):
        (repository / "sub/recipe.json").write_bytes(recipe("own", version))
        git(repository, "add", ".")
        git(repository, "commit", "--quiet", "-m", version)
        commits.append(git(repository, "rev-parse", "HEAD"))
        git(repository, "branch", f"v{version}")
    git(repository, "reset", "--quiet", "--hard", commits[0])
    text = f"git+{repository.as_uri()}@main#subdirectory=sub"
    lock = world.lock(text)
    source = package(lock, "own").source
    assert source is not None
    assert ("git", commits[0], "sub") == (source.kind, source.commit, source.subdirectory)
    git(repository, "reset", "--quiet", "--hard", commits[1])
    assert "1.0" == pins(world.lock(text, before=lock))["own"]
    assert 2 == len(world.done.sources)
    assert "1.1" == pins(world.lock(text, before=lock, renew=["own"]))["own"]
    assert "1.1" == pins(world.lock(text.replace("main", "v1.1"), before=lock))["own"]
    for digest in (source.digest, package(lock, "own").wheel.digest):
        world.store.discard(digest)
    Builder(lock.platforms[0], world.bench, world.origins).bring(package(lock, "own"))
    assert world.store.has(package(lock, "own").wheel.digest)


def test_an_sdist_of_the_project_is_built(world: World) -> None:
    """A ``type: pip`` requirement may be one; it is built again when its bytes change."""
    path = make_sdist(world.project, "own", "1.0")

    def brought() -> tuple[LocalWheel, ...]:
        return (LocalWheel("mine", path.name, path, digest_of_file(path), path.stat().st_size),)

    lock = world.lock(wheels=brought())
    assert ("mine", None) == (package(lock, "own").resource, package(lock, "own").index)
    world.lock(wheels=brought(), before=lock)
    assert 2 == len(world.done.sources)
    make_sdist(world.project, "own", "1.0", "b")
    assert "2.0" == pins(world.lock(wheels=brought(), before=lock))["b"]


def test_a_folder_that_changed_is_not_what_was_locked(world: World) -> None:
    """``build`` rebuilds from the pins or not at all."""
    target = folder(world, "own")
    lock = world.lock("file:own")
    own = package(lock, "own")
    (target / "more.py").write_text("")
    bench = world.bench(ROOM, lambda digest: None)
    with pytest.raises(DriftError) as caught:
        restore(own, bench, world.origins, lambda digest: None)
    assert own.source is not None
    assert caught.value.message.startswith(f"own was {own.source.digest}, is sha256:")
