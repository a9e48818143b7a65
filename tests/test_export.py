"""Exports: the lock in other tools' words, and those tools install exactly what is locked."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import tomli
import uv
from packaging.pylock import Pylock

from pesto_repro.audit.export import apt, choose, pylock, requirements
from pesto_repro.cli.main import run
from pesto_repro.errors import PestoError
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.model import Lock, PlatformLock, ResourceInput, Source
from pesto_repro.store import Store
from tests.e2e import EXAMPLES
from tests.python_index import CANARY, serving
from tests.small_project import Small, make_small, write_lock
from tests.test_provenance import deb, with_platforms
from tests.test_sbom_contents import make_lock, wheel

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="session")
def made_once(runtime_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small project, locked; not to be changed."""
    return make_small(tmp_path_factory.mktemp("export"), runtime_wheel)


@pytest.fixture
def small(made_once: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    """The same with a store of its own, and the configuration that knows its wheels."""
    for name, value in made_once.env.items():
        monkeypatch.setenv(name, value)
    return replace(made_once, store=tmp_path / "store")


def export(small: Small, form: str, *arguments: str | Path) -> int:
    words = ["export", small.root, "--format", form, "--store", small.store, "-q", *arguments]
    return run(list(map(str, words)))


def lock_of(small: Small) -> Lock:
    return lock_text.loads(small.lockfile.read_text(), "lock")


def installed(folder: Path) -> set[tuple[str, str]]:
    """(name, version) of what lies in *folder*."""
    found = (path.name.removesuffix(".dist-info").partition("-")[::2] for path in folder.glob("*.dist-info"))
    return {(name.lower().replace("_", "-"), version) for name, version in found}


def locked_in(lock: Lock) -> set[tuple[str, str]]:
    return {(each.name, each.version) for each in lock.platforms[0].packages}


def uv_install(source: Path, target: Path, *more: str | Path) -> None:
    command = [uv.find_uv_bin(), "pip", "install", "--offline", "--no-config", "--python", sys.executable]
    call([*command, "--target", target, "-r", source, *more])


def call(command: Sequence[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr


def here(locked: PlatformLock) -> PlatformLock:
    """The same for the interpreter that runs the tests: of the small project all wheels are for any."""
    name = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}[platform.machine()]
    python = locked.python.model_copy(update={"version": f"{HERE}.0"})
    return locked.model_copy(update={"platform": name, "python": python})


# -- pylock.toml -------------------------------------------------------------------------------------------------


def test_pylock_is_valid_and_lists_the_lock(small: Small, tmp_path: Path) -> None:
    """By packaging's reading of PEP 751: each package with its wheel, size and hash; by which file it lies."""
    assert 0 == export(small, "pylock", "-o", tmp_path / "pylock.toml")
    found = Pylock.from_dict(tomli.loads((tmp_path / "pylock.toml").read_text()))
    found.validate()
    (part,) = lock_of(small).platforms
    expected = [
        (each.name, each.version, each.wheel.name, each.wheel.size, each.wheel.sha256) for each in part.packages
    ]
    actual = []
    for package in found.packages:
        (one,) = package.wheels or ()
        actual.append((package.name, str(package.version), one.name, one.size, one.hashes["sha256"]))
        assert one.path is not None
        assert (small.wheels / str(one.name)).samefile(tmp_path / one.path)
        assert not Path(one.path).is_absolute()
    assert expected == actual
    assert (">=3.13", "pesto-repro") == (str(found.requires_python), found.created_by)
    marker = (
        'implementation_name == "cpython" and platform_machine == "x86_64"'
        ' and python_version == "3.13" and sys_platform == "linux"'
    )
    assert [marker] == list(map(str, found.environments or ()))


def test_uv_installs_a_pylock(small: Small, tmp_path: Path) -> None:
    """Exactly what is locked, from the places that the file names."""
    lock = lock_of(small)
    path = tmp_path / "pylock.toml"
    path.write_text(pylock(here(lock.platforms[0]), lambda each: ("path", str(small.wheels / each.wheel.name))))
    uv_install(path, tmp_path / "target")
    assert locked_in(lock) == installed(tmp_path / "target")


def test_uv_refuses_other_bytes(small: Small, tmp_path: Path) -> None:
    """The hashes are really demanded."""
    part = here(lock_of(small).platforms[0])
    first, *others = part.packages
    forged = first.model_copy(update={"wheel": first.wheel.model_copy(update={"sha256": "0" * 64})})
    path = tmp_path / "pylock.toml"
    part = part.model_copy(update={"packages": (forged, *others)})
    path.write_text(pylock(part, lambda each: ("path", str(small.wheels / each.wheel.name))))
    with pytest.raises(AssertionError, match="Hash mismatch"):
        uv_install(path, tmp_path / "target")


def test_vendored_wheels_lie_beside_it(small: Small, tmp_path: Path) -> None:
    """With --vendor the file and the folder are all that an installation needs; nobody is asked for addresses."""
    path = tmp_path / "out/pylock.toml"
    path.parent.mkdir()
    assert 0 == export(small, "pylock", "-o", path, "--vendor", tmp_path / "out/wheels")
    found = Pylock.from_dict(tomli.loads(path.read_text()))
    names = [f"wheels/{each.wheel.name}" for each in lock_of(small).platforms[0].packages]
    assert names == [one.path for package in found.packages for one in package.wheels or ()]
    assert {path.name: path.read_bytes() for path in small.wheels.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "out/wheels").iterdir()
    }


def test_an_address_never_holds_a_credential(
    small: Small, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of an index that wants a password the file has the addresses without it."""
    monkeypatch.delenv("UV_NO_INDEX")
    monkeypatch.delenv("UV_FIND_LINKS")
    with serving(small.wheels, CANARY) as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url_with_password)
        assert 0 == export(small, "pylock")
    text = capsys.readouterr().out
    assert CANARY not in text
    assert CANARY.replace("/", "%2F") not in text
    found = Pylock.from_dict(tomli.loads(text))
    origin = f"http://127.0.0.1:{index.port}/files"
    expected = [f"{origin}/{each.wheel.name}" for each in lock_of(small).platforms[0].packages]
    assert expected == [one.url for package in found.packages for one in package.wheels or ()]


def test_a_wheel_that_nobody_has_is_an_error(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PEP 751 wants a place, and none is guessed; no file is left."""
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "none"))
    assert 1 == export(small, "pylock", "-o", tmp_path / "pylock.toml")
    assert "error: alpha 1.0: alpha-1.0-py3-none-any.whl was not found" in capsys.readouterr().err
    assert not (tmp_path / "pylock.toml").exists()


def test_a_wheel_that_lies_nowhere_is_vendored(
    runtime_wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is built from source has no address; out of a store that has it, it goes into the folder."""
    small = make_small(tmp_path, runtime_wheel)
    for name, value in small.env.items():
        monkeypatch.setenv(name, value)
    source = Source(kind="sdist", name="alpha-1.0.tar.gz", sha256="1" * 64, size=1)
    first, *others = lock_of(small).platforms[0].packages
    write_lock(small, (first.model_copy(update={"source": source}), *others))
    assert 1 == export(small, "pylock")
    expected = "error: alpha 1.0 is built from source: its wheel lies nowhere\nhint: export it with --vendor DIR\n"
    assert expected == capsys.readouterr().err
    Store(small.store).put((small.wheels / first.wheel.name).read_bytes())
    assert 0 == export(small, "pylock", "--vendor", tmp_path / "vendored")
    assert (small.wheels / first.wheel.name).read_bytes() == (tmp_path / "vendored" / first.wheel.name).read_bytes()


# -- requirements ------------------------------------------------------------------------------------------------


@pytest.fixture
def requirements_file(small: Small, tmp_path: Path) -> Path:
    path = tmp_path / "requirements.txt"
    assert 0 == export(small, "requirements", "-o", path)
    return path


def test_pip_installs_requirements(requirements_file: Path, small: Small, tmp_path: Path) -> None:
    """With --require-hashes, exactly what is locked."""
    target = tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "--isolated", "install", "--quiet", "--disable-pip-version-check"]
    places = ["--no-index", "--find-links", str(small.wheels), "--no-deps", "--no-compile", "--target", str(target)]
    call([*pip, *places, "--require-hashes", "-r", str(requirements_file)])
    assert locked_in(lock_of(small)) == installed(target)


def test_uv_installs_requirements(requirements_file: Path, small: Small, tmp_path: Path) -> None:
    """The same with uv."""
    places: list[str | Path] = ["--no-index", "--find-links", small.wheels, "--no-deps", "--require-hashes"]
    uv_install(requirements_file, tmp_path / "target", *places)
    assert locked_in(lock_of(small)) == installed(tmp_path / "target")


def test_requirements_name_no_index(requirements_file: Path, small: Small) -> None:
    """Comments and pins, nothing else: where packages lie is the business of whoever installs."""
    lock = lock_of(small)
    expected = [
        f"# Made by pesto-repro from the lock {lock.content_hash}: linux/amd64, Python 3.13.",
        "# Everything is in here: pip install --require-hashes --no-deps -r FILE",
        *(f"{each.name}=={each.version} --hash=sha256:{each.wheel.sha256}" for each in lock.platforms[0].packages),
    ]
    assert expected == requirements_file.read_text().splitlines()


def test_what_no_index_has_is_said() -> None:
    """A wheel of an address is named by it; one of a file, or built from source, needs --vendor."""
    source = Source(kind="sdist", name="wget-3.2.zip", sha256="1" * 64, size=1)
    packages = (
        wheel("far", "1", resource="far"),
        wheel("near", "1", resource="near"),
        wheel("wget", "3.2", source=source),
    )
    lock = make_lock(*packages)
    resources = (
        ResourceInput(key="far", source="https://example.org/far-1-py3-none-any.whl", type="pip"),
        ResourceInput(key="near", source="wheels/near-1-py3-none-any.whl", type="pip"),
    )
    lock = with_platforms(lock, *lock.platforms, input=lock.input.model_copy(update={"resources": resources}))
    pin = f"--hash=sha256:{'7' * 64}"
    expected = [
        f"far @ https://example.org/far-1-py3-none-any.whl {pin}",
        "# near: a file of the project, so no index has this wheel: export it with --vendor DIR",
        f"near==1 {pin}",
        "# wget: built from source, so no index has this wheel: export it with --vendor DIR",
        f"wget==3.2 {pin}",
    ]
    assert expected == requirements(lock, lock.platforms[0]).splitlines()[2:]


# -- apt, and what all have in common ----------------------------------------------------------------------------


def test_apt_is_told_names_and_versions() -> None:
    """Each below a comment with the pin: apt knows no digests."""
    lock = make_lock(debian=(deb("gcc", "5"), deb("libx", "4")))
    expected = [
        f"# Made by pesto-repro from the lock {lock.content_hash}: linux/amd64, trixie-security.",
        "# apt-get install --no-install-recommends $(grep -v '^#' FILE)",
        f"# pool/main/gcc_1+b1_amd64.deb trixie-security 20260101T000000Z sha256:{'5' * 64} 1",
        "gcc=1+b1",
        f"# pool/main/libx_1+b1_amd64.deb trixie-security 20260101T000000Z sha256:{'4' * 64} 1",
        "libx=1+b1",
    ]
    assert expected == apt(lock, lock.platforms[0]).splitlines()


def test_apt_gets_an_examples_packages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a real lock all Debian packages, and nothing is asked of anyone."""
    arguments = ["export", str(EXAMPLES / "hello-service"), "--format", "apt", "--store", str(tmp_path), "--offline"]
    assert 0 == run(arguments)
    lock = lock_text.loads((EXAMPLES.parent / "lockfiles/hello-service.lock.toml").read_text(), "lock")
    expected = [f"{each.name}={each.version}" for each in lock.platforms[0].debian]
    assert expected == [line for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]


def test_apt_has_no_wheels(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake of usage, said before anything is done."""
    assert 2 == export(small, "apt", "--vendor", tmp_path / "wheels")
    assert "Error: --vendor is for wheels, and apt has none" in capsys.readouterr().err
    assert not (tmp_path / "wheels").exists()


def test_a_platform_is_chosen() -> None:
    """The only one by itself, of several the one that is named."""
    lock = make_lock()
    (first,) = lock.platforms
    second = first.model_copy(update={"platform": "linux/arm64"})
    both = with_platforms(lock, first, second)
    assert (first, second) == (choose(lock, None), choose(both, "linux/arm64"))
    with pytest.raises(PestoError) as caught:
        choose(both, None)
    assert "the lock is for linux/amd64, linux/arm64" == caught.value.message
    with pytest.raises(PestoError) as caught:
        choose(both, "linux/s390x")
    assert "the lock is not for linux/s390x, but for linux/amd64, linux/arm64" == caught.value.message
    assert "choose one of them with --platform" == caught.value.hint
