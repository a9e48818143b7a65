"""The project's own bytes: hashed when the build starts, held to it when it ends; and where pinned bytes may lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import pytest

from pesto_repro.build.local import hash_file, hash_tree, list_folder
from pesto_repro.digest import Digest
from pesto_repro.errors import BuildError, FetchError, OfflineError
from pesto_repro.fetch import Fetcher
from pesto_repro.fetch.artifacts import artifacts
from pesto_repro.fetch.world import World
from pesto_repro.lock.asked import Override, asked, asked_again
from pesto_repro.lock.model import Pin, PlatformLock, PythonPackage, Resource, Source
from pesto_repro.plan import TreeFile
from pesto_repro.progress import Reporter
from pesto_repro.project import Settings
from pesto_repro.project.requirements import ResourceSpec
from pesto_repro.project.settings import Base, Image
from pesto_repro.store import Store
from tests.test_lock import deb, platform, sealed, wheel
from tests.test_plan import a_lock, a_project

# -- files -------------------------------------------------------------------------------------------------------


def _rewrite(path: Path) -> None:
    path.write_bytes(b"other")


def _replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(0, path.stat().st_mtime_ns))
    other.replace(path)


def test_a_file_that_stays_as_it_is(tmp_path: Path) -> None:
    """Its digest and size; touching only its permissions is no change of its bytes."""
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    digest, size, local = hash_file(path)
    assert (Digest.of(b"hello"), 5, path) == (digest, size, local.path)
    path.chmod(0o600)
    local.require_unchanged()


@pytest.mark.parametrize("change", [_rewrite, _replace, Path.touch])
def test_a_file_that_changes_during_the_build(tmp_path: Path, change: object) -> None:
    """In place, or another file in its place: the layer may hold a mixture."""
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    os.utime(path, ns=(0, 1))
    *_, local = hash_file(path)
    assert callable(change)
    change(path)
    with pytest.raises(BuildError) as caught:
        local.require_unchanged()
    assert (f"{path} changed while it was being built", "run the build again") == (
        caught.value.message,
        caught.value.hint,
    )


def test_a_file_that_vanishes(tmp_path: Path) -> None:
    """Before it is read, or while the build runs."""
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    *_, local = hash_file(path)
    path.unlink()
    for action in (local.require_unchanged, lambda: hash_file(path)):
        with pytest.raises(BuildError) as caught:
            action()
        assert f"{path} cannot be read: No such file or directory" == caught.value.message


# -- folders -----------------------------------------------------------------------------------------------------


def _a_folder(root: Path) -> Path:
    for name, content in {"b/c.py": b"c", "a.py": b"a", "b/run": b"run", "same": b"a"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "b" / "run").chmod(0o700)
    (root / "b" / "link").symlink_to("../a.py")
    (root / "folder-link").symlink_to("b")
    (root / "empty").mkdir()
    return root


def test_a_folder(tmp_path: Path) -> None:
    """Files, links and empty folders, sorted; a link to a folder is a link; the owner's executable bit counts."""
    tree, files = hash_tree(list_folder(_a_folder(tmp_path)))
    a, c, run = (Digest.of(each) for each in (b"a", b"c", b"run"))
    assert (
        TreeFile("a.py", a.hex, 1),
        TreeFile("b/c.py", c.hex, 1),
        TreeFile("b/link", target="../a.py"),
        TreeFile("b/run", run.hex, 3, executable=True),
        TreeFile("empty/"),
        TreeFile("folder-link", target="b"),
        TreeFile("same", a.hex, 1),
    ) == tree
    assert {a: b"a", c: b"c", run: b"run"} == {digest: each.path.read_bytes() for digest, each in files.items()}


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "b/../../outside"])
def test_a_link_that_leaves_its_folder(tmp_path: Path, target: str) -> None:
    """In the image it would point somewhere else, or nowhere."""
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(BuildError) as caught:
        list(list_folder(tmp_path))
    assert f"{tmp_path}/link is a link to {target}, outside its folder" == caught.value.message
    assert "replace the link by what it means" == caught.value.hint


@pytest.mark.parametrize("target", ["p/q/../../etc/passwd", "link"])
def test_a_link_that_leaves_its_folder_by_another(tmp_path: Path, target: str) -> None:
    """What a path looks like is not where it leads; nor does a circle lead anywhere."""
    (tmp_path / "p").mkdir()
    (tmp_path / "p/q").symlink_to(".")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(BuildError) as caught:
        list_folder(tmp_path)
    expected = f"{tmp_path}/link is a link to {target}, by other links outside its folder or in a circle"
    assert expected == caught.value.message


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    """What lies in it would be missing from the image."""
    (tmp_path / "locked").mkdir(mode=0)
    with pytest.raises(BuildError) as caught:
        list_folder(tmp_path)
    assert f"{tmp_path}/locked cannot be read: Permission denied" == caught.value.message


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    """Not one without files."""
    with pytest.raises(BuildError) as caught:
        list_folder(tmp_path / "gone")
    assert f"{tmp_path}/gone cannot be read: No such file or directory" == caught.value.message


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    """Of a file, or where a link points: image tools disagree on them."""
    (tmp_path / "caf\udce9").touch()
    with pytest.raises(BuildError) as caught:
        list_folder(tmp_path)
    assert f"'{tmp_path}/caf\\udce9' has a name that is not UTF-8" == caught.value.message
    (tmp_path / "caf\udce9").rename(tmp_path / "cafe")
    (tmp_path / "link").symlink_to("caf\udce9")
    with pytest.raises(BuildError) as caught:
        list_folder(tmp_path)
    assert f"'{tmp_path}/link' has a target that is not UTF-8" == caught.value.message
    assert "give it another one" == caught.value.hint


def test_a_pipe_in_a_folder(tmp_path: Path) -> None:
    """Reading it would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BuildError) as caught:
        list(list_folder(tmp_path))
    assert f"{tmp_path}/pipe is neither a file nor a directory" == caught.value.message


# -- where pinned bytes may lie ----------------------------------------------------------------------------------


def _nobody() -> NoReturn:
    pytest.fail("somebody was asked who need not be")


def _world(store: Store, *, offline: bool = False) -> World:
    fetcher = Fetcher(store, Reporter(), offline=offline, sleep=lambda delay: None)
    return World(fetcher, _nobody, _nobody, Reporter(), datetime(2026, 1, 1, tzinfo=UTC))


def test_a_download_lies_where_the_project_says(tmp_path: Path) -> None:
    """A resource, and a wheel that a resource brings: no index and no mirror is asked."""
    (tmp_path / "model.zip").write_bytes(b"zip")
    content = b"model-1.0-py3-none-any.whl"
    (tmp_path / "model.whl").write_bytes(content)
    lock = sealed(
        platform("linux/amd64", wheel("model", "1.0", len(content), resource="model")),
        resources=(
            Resource(key="zip", form="archive", source="x", to="/z", sha256=Digest.of(b"zip").hex, size=3),
            Resource(key="gone", form="file", source="x", to="/g", sha256=Digest.of(b"gone").hex, size=4),
            Resource(key="folder", form="directory", source="x", to="/f", tree=str(Digest.of(b""))),
        ),
    )
    specs = (
        ResourceSpec("model", f"file://{tmp_path}/model.whl", None, "pip"),
        ResourceSpec("zip", f"file://{tmp_path}/model.zip", "/z"),
    )
    store = Store(tmp_path / "store")
    found = artifacts(lock, a_project(tmp_path, resources=specs), _world(store))
    for each in (content, b"zip"):
        found.fetch(Digest.of(each))
        assert store.has(Digest.of(each))
    with pytest.raises(FetchError) as caught:
        found.fetch(Digest.of(b"gone"))
    assert "gone: nobody says where it lies" == caught.value.message
    with pytest.raises(FetchError) as caught:
        found.fetch(Digest.of(b"unknown"))
    assert f"the lock does not say what {Digest.of(b'unknown')} is" == caught.value.message
    assert "run `pesto-repro lock`" == caught.value.hint


def test_offline_names_what_is_missing(tmp_path: Path) -> None:
    """By name and version, of Python and of Debian, without asking where it lies."""
    lock = sealed(platform("linux/amd64", wheel("idna", "3.11"), debian=(deb("libc6", "2.41-12"),)))
    store = Store(tmp_path / "store")
    found = artifacts(lock, a_project(tmp_path), _world(store, offline=True))
    (locked,) = lock.platforms
    for digest, name in ((locked.packages[0].wheel.digest, "idna 3.11"), (locked.debian[0].digest, "libc6 2.41-12")):
        with pytest.raises(OfflineError) as caught:
            found.fetch(digest)
        assert f"{name} is not in the store at {store.root}, and the network is not to be used" == caught.value.message


def test_a_wheel_that_is_built_from_source_is_made_where_it_is_lacking(tmp_path: Path) -> None:
    """Once, with the pins of what it is built from and with; who makes none, says so."""
    source = Source(
        kind="sdist", name="a-1.0.tar.gz", sha256=Digest.of(b"sdist").hex, size=5, requires=(wheel("tool", "1"),)
    )
    content = b"a wheel"
    package = wheel("a", "1.0").model_copy(
        update={"wheel": Pin(name="a-1.0-py3-none-any.whl", sha256=Digest.of(content).hex, size=7), "source": source}
    )
    locked = platform("linux/amd64", package).model_copy(update={"build": (deb("gcc", "14"),)})
    store, made = Store(tmp_path / "store"), []

    def make(where: PlatformLock, which: PythonPackage, fetch: Callable[[Digest], None]) -> None:
        made.append((where, which))
        store.put(content)

    found = artifacts(sealed(locked), a_project(tmp_path), _world(store), make)
    for _ in range(2):
        found.fetch(Digest.of(content))
    assert [(locked, package)] == made
    pinned = {source.digest, source.requires[0].wheel.digest, locked.build[0].digest, Digest.of(content)}
    assert pinned == found.found.keys()
    store.discard(Digest.of(content))
    with pytest.raises(FetchError) as caught:
        artifacts(sealed(locked), a_project(tmp_path), _world(store)).fetch(Digest.of(content))
    assert "a 1.0 is built from source, and its wheel is not in the store" == caught.value.message


# -- what a project asks -----------------------------------------------------------------------------------------


def test_what_a_project_asks(tmp_path: Path) -> None:
    """In the lock's terms: sorted only where order means nothing, without credentials, documents by digest."""
    spec = ResourceSpec("b", "https://me:secret@example.org/b.zip", "/b")
    settings = Settings(base=Base(debian="trixie", packages=("libgl1", "gdal-bin")))
    project = a_project(tmp_path, settings=settings, resources=(spec, ResourceSpec("a", "a.whl", None, "pip")))
    found = asked(project, ("linux/amd64",))
    assert ("hello", "debian:trixie", ("gdal-bin", "libgl1")) == (found.name, found.base, found.base_packages)
    assert [("b", "https://example.org/b.zip"), ("a", "a.whl")] == [(each.key, each.source) for each in found.resources]
    assert ("A=1", "B=$A-$PATH", "PYTHONPATH=/own") == found.environments
    assert {"description"} == set(found.documents)
    other = a_project(tmp_path, documents={"description": {"title": "Other"}})
    assert found.documents != asked(other, ()).documents


@pytest.mark.parametrize(("overrides", "expected"), [((), ("linux/arm64",)), (("platforms",), ("linux/amd64",))])
def test_platforms_that_a_lock_was_made_for(
    tmp_path: Path, overrides: tuple[Override, ...], expected: tuple[str, ...]
) -> None:
    """Those of image.toml, unless the command line chose others when it was locked."""
    project = a_project(tmp_path, settings=Settings(image=Image(platforms=("linux/arm64",))))
    lock = a_lock()
    chosen = lock.model_copy(update={"input": lock.input.model_copy(update={"overrides": overrides})})
    assert expected == asked_again(project, chosen).platforms
