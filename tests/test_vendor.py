"""``vendor`` and ``build --from``: a bundle builds the same image elsewhere, or says why not; never another one."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.bundle.make import ARTIFACT_TYPE, EMPTY, TITLE, bundle_of
from pesto_repro.cli.main import run as command_line
from pesto_repro.digest import Digest
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.asked import asked
from pesto_repro.lock.model import BaseImage, BaseLayer, Blob, Lock, Pin, PythonPackage, Source
from pesto_repro.lock.pins import pinned_files
from pesto_repro.oci import MediaType
from pesto_repro.project import read_project
from pesto_repro.registry.content import MAX_DOCUMENT, documents
from pesto_repro.sinks import copy_layout
from pesto_repro.store import Store
from tests.base_images import archive, look_alike, made
from tests.e2e import run
from tests.judges import judge
from tests.registries import LiveRegistry
from tests.small_project import Small, make_small
from tests.test_store_check import HARMS

Pesto = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class Vendored:
    """The small project, its image's digest, and its bundle as a layout."""

    small: Small
    digest: str
    bundle: Path


@pytest.fixture(scope="module")
def vendored(runtime_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Vendored:
    """Made once; not to be changed. Its wheels are gone, and it has no store."""
    parent = tmp_path_factory.mktemp("vendor")
    small = make_small(parent, runtime_wheel)
    digest = small.build()["digest"]
    run("vendor", small.root, "-o", f"oci:{parent / 'bundle'}", "--store", small.store, env=small.env)
    small.store.rename(parent / "store-that-was")
    return Vendored(small, digest, parent / "bundle")


@pytest.fixture
def pesto(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Pesto:
    """The command line in this process, on an empty store: its exit code, stdout and stderr. Nobody has any wheel."""
    for name, value in {"UV_NO_INDEX": "1", "HOME": str(tmp_path), "PESTO_REPRO_STORE": str(tmp_path / "mine")}.items():
        monkeypatch.setenv(name, value)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = command_line([*map(str, arguments), "-q"])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def locked(small: Small) -> Lock:
    return lock_text.loads(small.lockfile.read_text(), "the lock")


def manifest_of(layout: Path) -> dict[str, Any]:
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    found: dict[str, Any] = json.loads((layout / "blobs/sha256" / entry["digest"].removeprefix("sha256:")).read_text())
    return found


# -- what it is --------------------------------------------------------------------------------------------------


def test_what_is_in_a_bundle(vendored: Vendored) -> None:
    """An artifact whose layers are the lock and all that it pins, each under its name."""
    manifest = manifest_of(vendored.bundle)
    assert (ARTIFACT_TYPE, "application/vnd.oci.empty.v1+json") == (
        manifest["artifactType"],
        manifest["config"]["mediaType"],
    )
    lock = locked(vendored.small)
    expected = {f"wheels/{each.wheel.name}": str(each.wheel.digest) for each in lock.platforms[0].packages}
    first, *rest = manifest["layers"]
    assert expected == {each["annotations"][TITLE]: each["digest"] for each in rest}
    path = vendored.bundle / "blobs/sha256" / first["digest"].removeprefix("sha256:")
    assert ("small.lock.toml", lock_text.dumps(lock)) == (first["annotations"][TITLE], path.read_text())


def test_equal_locks_give_equal_bundles(vendored: Vendored, pesto: Pesto, tmp_path: Path) -> None:
    """To the byte: of another store, another folder, out of another bundle, as an archive, copied."""
    root = shutil.copytree(vendored.small.root, tmp_path / "elsewhere")
    archives = [tmp_path / name for name in ("one.tar", "two.tar", "copied.tar")]
    build = ("build", root, "--from", vendored.bundle, "--offline", "-o", tmp_path / "image.tar")
    assert (0, f"small:1.0.0@{vendored.digest}\n", "") == pesto(*build)
    assert 0 == pesto("vendor", root, "-o", archives[0], "--offline")[0]
    store = tmp_path / "other"
    shutil.copytree(tmp_path / "mine/blobs", store / "blobs")
    assert 0 == pesto("vendor", vendored.small.root, "-o", archives[1], "--offline", "--store", store)[0]
    assert 0 == pesto("copy", vendored.bundle, archives[2])[0]
    assert 1 == len({each.read_bytes() for each in archives})
    with tarfile.open(archives[0]) as found:
        assert "manifest.json" not in found.getnames(), "docker load would take it for an image"


def test_titles_and_size_of_a_large_bundle(vendored: Vendored) -> None:
    """Three thousand wheels of long names, all alike: each has a title of its own, and registries take the manifest."""
    name = f"{'x' * 60}-1.0-cp313-cp313-manylinux_2_28_x86_64.whl"
    packages = tuple(
        PythonPackage(name=f"x{n}", version="1", wheel=Pin(name=name, sha256=Digest.of(b"%d" % n).hex, size=1 << 30))
        for n in range(3000)
    )
    lock = locked(vendored.small)
    large = lock.model_copy(update={"platforms": (lock.platforms[0].model_copy(update={"packages": packages}),)})
    bundle = bundle_of(lock_text.seal(large))
    assert 3001 == len({each.title for each in bundle.parts})
    assert len(bundle.manifest) < MAX_DOCUMENT


def test_sources_are_pins_too(vendored: Vendored) -> None:
    """Of a wheel that is built: the wheel, what it is built from, and what with; not a folder of the project."""
    lock = locked(vendored.small)
    (first, second, *_), tool = lock.platforms[0].packages, Pin(name="tool-1.whl", sha256="1" * 64, size=1)
    requires = (PythonPackage(name="tool", version="1", wheel=tool),)
    sdist = Source(kind="sdist", name="first-1.tar.gz", sha256="2" * 64, size=2, requires=requires)
    folder = Source(kind="directory", name="libs/second", sha256="3" * 64, size=3, requires=requires)
    packages = (first.model_copy(update={"source": sdist}), second.model_copy(update={"source": folder}))
    built = lock.model_copy(update={"platforms": (lock.platforms[0].model_copy(update={"packages": packages}),)})
    assert [
        ("source", "first-1.tar.gz"),
        ("wheel", first.wheel.name),
        ("wheel", second.wheel.name),
        ("wheel", "tool-1.whl"),
    ] == [(each.kind, each.name) for each in pinned_files(built)]


# -- building from it --------------------------------------------------------------------------------------------


def test_another_machine_without_a_network(vendored: Vendored, tmp_path: Path) -> None:
    """Another user's empty home, an empty store, no interface but loopback: an equal digest, the network not asked."""
    unshare = judge("unshare")
    root = shutil.copytree(vendored.small.root, tmp_path / "elsewhere")
    shutil.copytree(vendored.bundle, tmp_path / "carried")
    home = tmp_path / "home"
    home.mkdir()
    arguments: list[str | Path] = [
        "build",
        root,
        "--from",
        tmp_path / "carried",
        "--offline",
        "-o",
        tmp_path / "image.tar",
        "-q",
    ]
    environment = {"HOME": str(home), "XDG_CACHE_HOME": "", "UV_INDEX_URL": "http://127.0.0.1:1/", "UV_NO_INDEX": "1"}
    done = run(*arguments, env=environment, python=(unshare, "-r", "-n", sys.executable))
    assert (f"small:1.0.0@{vendored.digest}\n", "") == (done.stdout, done.stderr)
    assert vendored.small.output.read_bytes() == (tmp_path / "image.tar").read_bytes()


@pytest.mark.network
@pytest.mark.slow
def test_a_whole_service(locked_template: Path, warm_store: Path, tmp_path: Path) -> None:
    """Upstream's template with Debian's and Python's packages: what one machine brought, another builds from."""
    here = run("build", locked_template, "-o", tmp_path / "here.tar", "-q", "--store", warm_store)
    run("vendor", locked_template, "-o", tmp_path / "bundle.tar", "--offline", "--store", warm_store)
    arguments: list[str | Path] = ["--from", tmp_path / "bundle.tar", "--offline", "-o", tmp_path / "there.tar", "-q"]
    cut_off = (judge("unshare"), "-r", "-n", sys.executable)
    there = run("build", locked_template, *arguments, "--store", tmp_path / "store", python=cut_off)
    assert here.stdout == there.stdout
    assert (tmp_path / "here.tar").read_bytes() == (tmp_path / "there.tar").read_bytes()


def test_only_what_is_needed_is_taken(vendored: Vendored, pesto: Pesto, tmp_path: Path) -> None:
    """Where the store has the layers, the bundle is only asked for its lock."""
    build = ("build", vendored.small.root, "--from", vendored.bundle, "--offline", "-o")
    assert 0 == pesto(*build, tmp_path / "one.tar")[0]
    wheels = {each["digest"].removeprefix("sha256:") for each in manifest_of(vendored.bundle)["layers"][1:]}
    for each in wheels:
        (tmp_path / "mine/blobs/sha256" / each).unlink()
    assert (0, f"small:1.0.0@{vendored.digest}\n", "") == pesto(*build, tmp_path / "two.tar")
    assert not wheels & {each.name for each in (tmp_path / "mine/blobs/sha256").iterdir()}


@pytest.mark.parametrize("form", ["oci-archive:base.tar", "oci:base"])
def test_the_base_is_in_it(vendored: Vendored, pesto: Pesto, tmp_path: Path, form: str) -> None:
    """Config and layers: once the bundle is made, the base itself is asked no more."""
    small = on_a_base(vendored.small, tmp_path, form)
    places = ("--store", tmp_path / "store", "-o")
    shutil.copytree(vendored.small.store.with_name("store-that-was"), tmp_path / "store")
    code, expected, err = pesto("build", small.root, *places, tmp_path / "here.tar")
    assert (0, "") == (code, err)
    assert 0 == pesto("vendor", small.root, *places, tmp_path / "bundle.tar")[0]
    for each in ("base.tar", "base"):
        shutil.rmtree(small.root / each, ignore_errors=True)
        (small.root / each).unlink(missing_ok=True)
    bundled = ("--from", tmp_path / "bundle.tar", "--offline", "-o", tmp_path / "there.tar")
    assert (0, expected, "") == pesto("build", small.root, *bundled)
    assert (tmp_path / "here.tar").read_bytes() == (tmp_path / "there.tar").read_bytes()


def on_a_base(small: Small, parent: Path, form: str) -> Small:
    """A copy of *small* that stands on a base image beside it, locked by hand."""
    root = Path(shutil.copytree(small.root, parent / "on-a-base"))
    store = Store(parent / "base-store")
    base = made(store, look_alike(minor="3.13", version="3.13.5"))
    archive(root / "base.tar", store, base)
    assert 0 == command_line(["copy", str(root / "base.tar"), f"oci:{root / 'base'}", "-q"])
    (root / ".dockerignore").write_text("base\nbase.tar\n")
    (root / "pesto/build/image.toml").write_text('[python]\nrequires = ["alpha", "beta"]\n')
    requirements = root / "pesto/build/requirements.json"
    requirements.write_text(json.dumps(json.loads(requirements.read_text()) | {"dockerBaseImage": form}))
    image = base.image()
    pinned = BaseImage(
        original=form,
        manifest=str(image.descriptor.digest),
        media_type=MediaType.MANIFEST,
        config=Blob(digest=str(image.config_descriptor.digest), size=image.config_descriptor.size),
        layers=tuple(
            BaseLayer(
                digest=str(each.descriptor.digest),
                size=each.descriptor.size,
                diff_id=str(each.diff_id),
                media_type=each.descriptor.media_type,
            )
            for each in image.layers
        ),
    )
    copy = replace(small, root=root)
    lock, project = locked(copy), read_project(root)
    platforms = (lock.platforms[0].model_copy(update={"base": pinned}),)
    sealed = lock_text.seal(lock.model_copy(update={"platforms": platforms, "input": asked(project, ("linux/amd64",))}))
    copy.lockfile.write_text(lock_text.dumps(sealed))
    return copy


def test_what_a_bundle_lacks(vendored: Vendored, pesto: Pesto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is fetched as usual; with --offline it is named."""
    whole = bundle_of(locked(vendored.small))
    bundle = replace(whole, parts=tuple(each for each in whole.parts if "/alpha" not in each.title))
    content = bundle.content(Store(vendored.small.store.with_name("store-that-was")))
    copy_layout(content, documents(content, bundle.descriptor), None, tmp_path / "less")
    build = ("build", vendored.small.root, "--from", tmp_path / "less", "-o", tmp_path / "image.tar")
    code, _, err = pesto(*build, "--offline")
    assert (1, f"error: alpha 1.0 is not in the store at {tmp_path / 'mine'}") == (code, err.partition(",")[0])
    monkeypatch.setenv("UV_FIND_LINKS", str(vendored.small.wheels))
    assert (0, f"small:1.0.0@{vendored.digest}\n", "") == pesto(*build)


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", HARMS)
def test_a_harmed_bundle_is_told(vendored: Vendored, pesto: Pesto, tmp_path: Path, harm: str) -> None:
    """Each of its files in turn: an error that names the bundle, or the one right image; the store stays healthy."""
    for number, path in enumerate(sorted(each for each in vendored.bundle.rglob("*") if each.is_file())):
        bundle = Path(shutil.copytree(vendored.bundle, tmp_path / f"{number}"))
        name = path.relative_to(vendored.bundle)
        HARMS[harm](bundle / name)
        store = tmp_path / f"store{number}"
        build = ("build", vendored.small.root, "--offline", "-o", tmp_path / "image.tar", "--store", store, "--from")
        code, out, err = pesto(*build, bundle)
        if name.name not in ("oci-layout", EMPTY.digest.hex):  # of which nothing is read
            assert (1, "", True) == (code, out, str(bundle) in err), (name, err)
            assert not (tmp_path / "image.tar").exists()
        assert (0, f"small:1.0.0@{vendored.digest}\n", "") == pesto(*build, vendored.bundle), name
        assert 0 == pesto("store", "check", "--store", store)[0]
        (tmp_path / "image.tar").unlink()
        shutil.rmtree(store)
        shutil.rmtree(bundle)


def test_the_bundle_of_another_lock(vendored: Vendored, pesto: Pesto, tmp_path: Path) -> None:
    """Is refused before anything is made, with what differs by value."""
    root = Path(shutil.copytree(vendored.small.root, tmp_path / "small"))
    lock = locked(vendored.small)
    packages = tuple(
        each.model_copy(update={"version": "3.0"}) if each.name == "beta" else each
        for each in lock.platforms[0].packages
    )
    other = lock.model_copy(update={"platforms": (lock.platforms[0].model_copy(update={"packages": packages}),)})
    (root / "lockfiles/small.lock.toml").write_text(lock_text.dumps(lock_text.seal(other)))
    code, out, err = pesto("build", root, "--from", vendored.bundle, "--offline", "-o", tmp_path / "image.tar")
    assert (1, "") == (code, out)
    expected = f"error: {vendored.bundle} is the bundle of another lock:\n  ~ beta 2.0 -> 3.0\n"
    assert expected + f"hint: run `pesto-repro vendor {root} -o BUNDLE`\n" == err
    assert not (tmp_path / "mine").exists()


def test_what_is_no_bundle(vendored: Vendored, pesto: Pesto, tmp_path: Path) -> None:
    """An image, a file that is not there, a registry without the network; and a place where none can be written."""
    build = ("build", vendored.small.root, "--offline", "-o", tmp_path / "image.tar", "--from")
    image = vendored.small.output
    assert (
        f"error: {image} is no bundle but an image\nhint: make a bundle with `pesto-repro vendor`\n"
        == pesto(*build, image)[2]
    )
    assert (1, f"error: {tmp_path / 'x'} cannot be read: No such file or directory\n") == pesto(*build, tmp_path / "x")[
        ::2
    ]
    reference = "registry.example/team/bundle:1"
    assert (
        f"error: there is no archive or layout {reference}, and the network is not to be used\n"
        f"hint: copy it first: pesto-repro copy {reference} oci:bundle\n"
    ) == pesto(*build, reference)[2]
    assert (
        f"error: {reference} is neither an archive nor a layout\nhint: say -o FILE.tar or -o oci:DIR; then push it\n"
        == pesto("vendor", vendored.small.root, "-o", reference)[2]
    )


# -- through a registry ------------------------------------------------------------------------------------------


def test_a_bundle_goes_through_a_registry(
    vendored: Vendored, pesto: Pesto, tmp_path: Path, plain_registry: LiveRegistry
) -> None:
    """Pushed, copied back to an equal layout, and built from, there and here."""
    reference = f"{plain_registry.host}/team/small:bundle"
    assert (0, "") == pesto("push", vendored.bundle, reference)[::2]
    assert (0, "") == pesto("copy", reference, f"oci:{tmp_path / 'back'}")[::2]
    assert manifest_of(vendored.bundle) == manifest_of(tmp_path / "back")
    for number, place in enumerate((reference, tmp_path / "back")):
        output = ("-o", tmp_path / "image.tar", "--store", tmp_path / f"store{number}")
        built = pesto("build", vendored.small.root, "--from", place, *output)
        assert (0, f"small:1.0.0@{vendored.digest}\n", "") == built
