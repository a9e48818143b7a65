"""Sources: archives and directories as one canonical tar, and what they say of themselves."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.digest import Digest
from pesto_repro.errors import BuildError, ResolveError
from pesto_repro.source import archive, unpacked
from pesto_repro.source.archive import read_directory, read_sdist
from pesto_repro.source.requires import LEGACY_BACKEND, BuildSystem, build_system
from pesto_repro.source.unpacked import Unpacked
from pesto_repro.store import Store
from tests.small_project import tar_gz, tar_gz_of

NOTHING = Digest.of(b"")
SDIST = Unpacked("sdist", "a-1.0.tar.gz", NOTHING, 0, NOTHING, "a-1.0")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def members(store: Store, source: Unpacked) -> dict[str, tuple[int, bytes | str]]:
    """Path -> mode and content (or target) of everything in the source's tar."""
    with store.open(source.tree) as stream, tarfile.open(fileobj=stream) as tar:
        return {each.name: (each.mode, _content(tar, each)) for each in tar if not each.isdir()}


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | str:
    stream = tar.extractfile(member) if member.isfile() else None
    return stream.read() if stream is not None else member.linkname


def sdist(store: Store, files: dict[str, bytes], name: str = "a-1.0.tar.gz") -> Unpacked:
    return read_sdist(store, name, store.put(tar_gz(files)))


# -- archives ----------------------------------------------------------------------------------------------


def test_an_sdist_is_its_top_folder(store: Store) -> None:
    """The archive's one folder keeps its name, and its name says package and version."""
    source = sdist(store, {"a-1.0/setup.py": b"x", "a-1.0/pyproject.toml": b"y", "a-1.0/PKG-INFO": b"z"})
    found = source.folder, source.package, source.version, source.pyproject
    assert found == ("a-1.0", "a", "1.0", b"y")
    assert members(store, source) == {
        "a-1.0/PKG-INFO": (0o644, b"z"),
        "a-1.0/pyproject.toml": (0o644, b"y"),
        "a-1.0/setup.py": (0o644, b"x"),
    }


def test_an_sdist_without_a_top_folder_gets_one(store: Store) -> None:
    """Old archives exist that lack it, and their names may say nothing."""
    source = sdist(store, {"setup.py": b"x"}, "odd.tar.gz")
    assert (source.folder, source.package, source.version) == ("source", None, None)
    assert members(store, source) == {"source/setup.py": (0o644, b"x")}


def test_a_zip_and_a_tar_of_the_same_files_are_the_same_tree(store: Store) -> None:
    """The form of an archive does not get into the room."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("a-1.0/setup.py", b"x")
    zipped_source = read_sdist(store, "a-1.0.zip", store.put(buffer.getvalue()))
    assert zipped_source.tree == sdist(store, {"a-1.0/setup.py": b"x"}).tree


def test_members_that_escape_are_refused(store: Store) -> None:
    """Each of them is named, and nothing is kept."""
    link = tarfile.TarInfo("a-1.0/link")
    link.type, link.linkname = tarfile.SYMTYPE, "../../secret"
    device = tarfile.TarInfo("a-1.0/device")
    device.type = tarfile.CHRTYPE
    data = tar_gz_of([(tarfile.TarInfo("../out"), b""), (link, b""), (device, b"")])
    with pytest.raises(BuildError) as caught:
        read_sdist(store, "a-1.0.tar.gz", store.put(data))
    assert caught.value.message.splitlines() == [
        "a-1.0.tar.gz has members that are refused:",
        "  '../out': leaves the folder it is unpacked into",
        "  'a-1.0/device': a device, pipe or socket",
        "  'a-1.0/link': a link to '../../secret', outside the folder it is unpacked into",
    ]


def test_an_archive_that_grows_without_end_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up where the limit is, not where the disk is full."""
    monkeypatch.setattr(archive, "LIMIT", 4096)
    with pytest.raises(
        BuildError, match=r"^a-1\.0\.tar\.gz cannot be unpacked: it is more than 4 GiB when it is unpacked"
    ):
        sdist(store, {"a-1.0/zeros": bytes(1 << 20)})


def test_a_zip_that_declares_too_much_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a zip declares is added up before anything is read."""
    monkeypatch.setattr(unpacked, "LIMIT", 4096)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("a-1.0/zeros", bytes(1 << 20))
    with pytest.raises(BuildError, match=r"a-1\.0\.zip cannot be used: it is more than"):
        read_sdist(store, "a-1.0.zip", store.put(buffer.getvalue()))


@pytest.mark.parametrize("subdirectory", ["nowhere", "../a-1.0"])
def test_a_subdirectory_must_be_there(store: Store, subdirectory: str) -> None:
    """It cannot be outside of the source either."""
    digest = store.put(tar_gz({"a-1.0/setup.py": b""}))
    with pytest.raises(BuildError, match="director"):
        read_sdist(store, "a-1.0.tar.gz", digest, subdirectory=subdirectory)


# -- directories -------------------------------------------------------------------------------------------


def test_what_was_built_or_is_private_stays_out_of_a_directory(store: Store, tmp_path: Path) -> None:
    """Only sources get into the tar: the same ones before and after a build beside them."""
    folder = tmp_path / "lib"
    for path in ("lib.py", "sub/more.py"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("x")
    before = read_directory(store, "lib", folder)
    for path in (
        *(".git/config", "build/lib/lib.py", "dist/lib.whl", "lib.egg-info/PKG-INFO", "sub/__pycache__/more.pyc"),
        *("venv/pyvenv.cfg", "venv/bin/python", ".venv/x", ".env", ".eggs/x"),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("x")
    assert read_directory(store, "lib", folder) == before
    assert list(members(store, before)) == ["source/lib.py", "source/sub/more.py"]


def test_a_directorys_digest_is_of_names_contents_and_execute_bits(store: Store, tmp_path: Path) -> None:
    """Times, other permissions and empty folders do not change it; this digest is the same on every machine."""
    folder = tmp_path / "lib"
    folder.mkdir()
    (folder / "b.py").write_text("b\n")
    (folder / "a.sh").write_text("a\n")
    (folder / "a.sh").chmod(0o744)
    (folder / "link").symlink_to("b.py")
    source = read_directory(store, "lib", folder)
    (folder / "b.py").chmod(0o600)
    (folder / "empty").mkdir()
    os.utime(folder / "b.py", (1, 1))
    assert read_directory(store, "lib", folder) == source
    assert str(source.digest) == "sha256:8af8496fdc5d564d41242378e970467e4e6781e0f3b912877f3f93d5d93ac5e2"
    assert members(store, source) == {
        "source/a.sh": (0o755, b"a\n"),
        "source/b.py": (0o644, b"b\n"),
        "source/link": (0o777, "b.py"),
    }


def test_links_out_of_a_directory_are_refused(store: Store, tmp_path: Path) -> None:
    """All of them are named."""
    (tmp_path / "one").symlink_to("/etc")
    (tmp_path / "two").symlink_to("../x")
    with pytest.raises(BuildError) as caught:
        read_directory(store, "lib", tmp_path)
    assert caught.value.message.splitlines() == [
        "lib has links that leave it, or go in a circle:",
        "  one leads to /etc",
        "  two leads to ../x",
    ]


# -- what builds it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, BuildSystem(("setuptools>=40.8.0",), LEGACY_BACKEND)),
        ("[project]\nname = 'a'", BuildSystem(("setuptools>=40.8.0",), LEGACY_BACKEND)),
        ("[build-system]\nrequires = ['Setuptools', 'x']", BuildSystem(("Setuptools", "x"), LEGACY_BACKEND)),
        ("[build-system]\nrequires = ['x']", BuildSystem(("x", "setuptools>=40.8.0"), LEGACY_BACKEND)),
        (
            "[build-system]\nrequires = []\nbuild-backend = 'b.c:d'\nbackend-path = ['.', 'sub']",
            BuildSystem((), "b.c:d", (".", "sub")),
        ),
    ],
)
def test_the_build_system_by_pep_517(text: str | None, expected: BuildSystem) -> None:
    """What is not said is as PEP 517 and 518 say."""
    assert build_system(replace(SDIST, pyproject=text.encode() if text is not None else None)) == expected


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[build-system]", "build-system.requires is missing, which PEP 518 demands"),
        ("[build-system]\nrequires = 'x'", "build-system.requires is no list of texts"),
        ("build-system = 1", "build-system is no table"),
        (
            "[build-system]\nrequires = []\nbuild-backend = 'a b'",
            "build-system.build-backend is 'a b', not module:object",
        ),
        (
            "[build-system]\nrequires = []\nbuild-backend = 'b'\nbackend-path = ['../x']",
            "build-system.backend-path has '../x', which leaves the source",
        ),
        (
            "[build-system]\nrequires = ['a b']",
            "build-system.requires has 'a b', which is no requirement: Expected semicolon (after name with no version"
            " specifier) or end",
        ),
        ("[", "Invalid initial character for a key part (at end of document)"),
    ],
)
def test_a_broken_build_system_is_said_where_it_is(text: str, what: str) -> None:
    """Source, file, key and reason."""
    with pytest.raises(ResolveError) as caught:
        build_system(replace(SDIST, pyproject=text.encode()))
    assert caught.value.message == f"a-1.0.tar.gz cannot be built: pyproject.toml: {what}"


@given(st.binary(max_size=200))
def test_no_text_is_a_bug(text: bytes) -> None:
    """Whatever a source says of itself is understood, or an error of ours."""
    with contextlib.suppress(ResolveError):
        build_system(replace(SDIST, pyproject=text))
