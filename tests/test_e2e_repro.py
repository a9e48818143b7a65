"""The same digest whoever builds, wherever, whenever, with whatever machine; and nothing done twice.

A real project (hello-service with three resources) is locked and built once. Each test changes one thing of the world
and builds again from the *light* store, in which all layers of small inputs are missing: some of every kind.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tomli
import uv

from tests.e2e import REPOSITORY, build, example, lock, plan, run, update_json
from tests.judges import judge
from tests.python_index import CANARY, digest_of_file, serving
from tests.small_project import make_small, tar_gz

LIGHT = 300_000
"""Bytes of input below which a step is made again in each test; the lightest of its kind always is."""
NO_NETWORK = ("unshare", "-rn", sys.executable)

network = pytest.mark.network
slow = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Built:
    """A project that was locked and built: *full* knows everything, *light* lacks the small layers."""

    project: Path
    archive: Path
    full: Path
    light: Path
    downloads: Path
    result: dict[str, Any]

    @property
    def digest(self) -> str:
        return str(self.result["digest"])

    @property
    def layers(self) -> list[dict[str, Any]]:
        return list(self.result["platforms"][0]["layers"])


@pytest.fixture(scope="session")
def built(warm_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """hello-service with resources, locked and built; not to be changed."""
    folder = tmp_path_factory.mktemp("repro")
    project = with_resources(example("hello-service", folder))
    lock(project, store=warm_store)
    archive, full = folder / "image.tar", folder / "full"
    steps = plan(project, store=warm_store)["platforms"][0]["steps"]
    build(project, store=warm_store, output=folder / "first.tar")
    inputs = {digest for step in steps for digest in step["inputs"]}
    link_blobs(inputs, warm_store, full)
    link_blobs(inputs, warm_store, folder / "downloads")
    result = build(project, "--offline", store=full, output=archive)
    copy_tree(full, folder / "light")
    forget([each["step"] for each in light_steps(steps, full)], result, folder / "light")
    return Built(project, archive, full, folder / "light", folder / "downloads", result)


def with_resources(project: Path) -> Path:
    """The *project* with a file, a directory and an archive more."""
    data = project / "data"
    (data / "tables").mkdir(parents=True)
    (data / "tables/größe.txt").write_text("one\n")
    (data / "tables/two.sh").write_text("#!/bin/sh\n")
    (data / "tables/two.sh").chmod(0o755)
    (data / "note.txt").write_text("a note\n")
    (data / "model.tar.gz").write_bytes(tar_gz({"model.txt": b"weights\n", "sub/part": b"more\n"}))
    entries = {
        "model": {"from": "file://data/model.tar.gz", "to": "/opt/model"},
        "note": {"from": "file://data/note.txt", "to": "/opt/note.txt"},
        "tables": {"from": "file://data/tables", "to": "/opt/tables"},
    }
    update_json(project / "pesto/build/requirements.json", requirements=entries)
    return project


def light_steps(steps: Sequence[dict[str, Any]], store: Path) -> list[dict[str, Any]]:
    """The steps that take no time: those of small inputs, and the lightest of each kind."""

    def weight(step: dict[str, Any]) -> int:
        blobs = (store / "blobs/sha256" / digest.removeprefix("sha256:") for digest in step["inputs"])
        return sum(blob.stat().st_size for blob in blobs if blob.exists())

    ordered = sorted(steps, key=weight)
    first = {step["kind"]: step["step"] for step in reversed(ordered)}
    return [step for step in ordered if weight(step) < LIGHT or step["step"] == first[step["kind"]]]


def forget(keys: Sequence[str], result: Mapping[str, Any], store: Path) -> None:
    """Take the layers of these steps out of *store*, and what it knows of them."""
    for layer in result["platforms"][0]["layers"]:
        if layer["step"] in keys:
            (store / "records/step" / layer["step"].removeprefix("sha256:")).unlink()
            (store / "blobs/sha256" / layer["digest"].removeprefix("sha256:")).unlink(missing_ok=True)


def link_blobs(digests: set[str], source: Path, target: Path) -> None:
    """The blobs of *digests* that *source* has, in the store *target* too."""
    (target / "blobs/sha256").mkdir(parents=True)
    for digest in digests:
        blob = source / "blobs/sha256" / digest.removeprefix("sha256:")
        if blob.exists():
            link(blob, target / "blobs/sha256" / blob.name)


def link(source: str | Path, target: str | Path) -> None:
    """A hard link; a copy where that cannot be. A store's files are never written to, only replaced."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def copy_tree(source: Path, target: Path) -> Path:
    """A copy of a store, of links."""
    return Path(shutil.copytree(source, target, copy_function=link))


@dataclass(frozen=True, slots=True)
class Again:
    """A second build, of copies of *built*'s project and light store below *folder*."""

    built: Built
    folder: Path

    @property
    def project(self) -> Path:
        return self.folder / "hello-service"

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def output(self) -> Path:
        return self.folder / "out/image.tar"

    def require_same(self, *arguments: str, store: Path | None = None, **how: Any) -> None:
        """Build; the digests of the image, of each layer and of the archive are those of the first build."""
        store = store or copy_tree(self.built.light, self.store)
        made = build(self.project, "--offline", *arguments, store=store, output=self.output, **how)
        assert self.built.digest == made["digest"]
        assert [each["digest"] for each in self.built.layers] == [
            each["digest"] for each in made["platforms"][0]["layers"]
        ]
        kinds = {each["kind"] for each in made["platforms"][0]["layers"] if not each["cached"]}
        assert {each["kind"] for each in self.built.layers} == kinds
        assert digest_of_file(self.built.archive) == digest_of_file(self.output)


@pytest.fixture
def again(built: Built, tmp_path: Path) -> Again:
    """A copy of the project, to be built once more."""
    shutil.copytree(built.project, tmp_path / "hello-service")
    return Again(built, tmp_path)


# -- another place, another user, another time -------------------------------------------------------------------


@network
def test_another_directory(again: Again) -> None:
    """Neither the project's place nor the current directory is in the image."""
    elsewhere = again.folder / "a place/with spaces & umlauts äöü"
    elsewhere.mkdir(parents=True)
    shutil.move(again.project, elsewhere)
    store = copy_tree(again.built.light, again.store)
    done = run("build", "hello-service", "--offline", "--store", store, cwd=elsewhere)
    assert f"hello-service:1.0.0@{again.built.digest}\n" == done.stdout
    assert digest_of_file(again.built.archive) == digest_of_file(elsewhere / "dist/hello-service-1.0.0.oci.tar")


@network
def test_another_user(again: Again) -> None:
    """Who builds is nobody's business."""
    unshare = judge("unshare")
    if subprocess.run([unshare, "-U", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    again.require_same(python=(unshare, "-U", sys.executable))  # nobody: uid and gid 65534


@network
def test_another_umask(again: Again) -> None:
    """Neither the umask nor what it made of the project's files counts; only who may execute them."""
    for path in again.project.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
    again.require_same(python=("sh", "-c", 'umask 077 && exec "$@"', "sh", sys.executable))


ENVIRONMENTS = {
    "time zone": {"TZ": "Pacific/Kiritimati"},
    "language": {"LANG": "tr_TR.UTF-8", "LC_ALL": "C", "LANGUAGE": "tr", "PYTHONUTF8": "0"},
    "hash seed 0": {"PYTHONHASHSEED": "0"},
    "hash seed 1": {"PYTHONHASHSEED": "1"},
    "clock of a reproducible build": {"SOURCE_DATE_EPOCH": "86400"},
}


@network
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_another_environment(name: str, again: Again) -> None:
    """No variable of the environment counts."""
    again.require_same(env=ENVIRONMENTS[name])


@network
def test_another_order_of_the_folders(again: Again) -> None:
    """Files are listed in whatever order by the file system; a tmpfs does it by age."""
    place = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else again.folder
    folder = place / f"pesto-repro-{os.getpid()}"
    try:
        orders = []
        for reverse in (False, True):
            shutil.rmtree(folder, ignore_errors=True)
            copy_in_order(again.project, folder / "hello-service", reverse=reverse)
            orders.append([each.name for each in os.scandir(folder / "hello-service/pesto/api")])
            store = copy_tree(again.built.light, again.folder / f"store-{reverse}")
            replace(again, folder=folder).require_same(store=store)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert orders[0] != orders[1] or place == again.folder


def copy_in_order(source: Path, target: Path, *, reverse: bool) -> None:
    """Copy files and folders one by one, by name."""
    target.mkdir(parents=True)
    for each in sorted(source.iterdir(), reverse=reverse):
        if each.is_dir():
            copy_in_order(each, target / each.name, reverse=reverse)
        else:
            shutil.copy(each, target / each.name)


@network
def test_touched_files(again: Again) -> None:
    """When a file was written does not count."""
    for number, path in enumerate(sorted(again.project.rglob("*"))):
        os.utime(path, (number * 86_400, number * 86_400))
    again.require_same()


@network
@pytest.mark.parametrize("jobs", ["1", "2", "7"])
def test_any_number_of_workers(jobs: str, again: Again) -> None:
    """How many layers are made at once does not count."""
    again.require_same("-j", jobs)


@network
@slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_store_that_is_half_warm(seed: int, again: Again) -> None:
    """Which layers, and which records of them, are there already does not count."""
    store = copy_tree(again.built.full, again.store)
    chance = random.Random(seed)
    layers = [store / "blobs/sha256" / each["digest"].removeprefix("sha256:") for each in again.built.layers]
    records = [path for path in sorted((store / "records").rglob("*")) if path.is_file()]
    for path in (*layers, *records):
        if chance.random() < 0.5:
            path.unlink(missing_ok=True)
    made = build(again.project, "--offline", store=store, output=again.output)
    assert {True, False} == {each["cached"] for each in made["platforms"][0]["layers"]}
    assert again.built.digest == made["digest"]
    assert digest_of_file(again.built.archive) == digest_of_file(again.output)


@network
@slow
def test_everything_at_once(again: Again) -> None:
    """The whole image, from nothing but downloads, in a world in which everything is different."""
    for path in again.project.rglob("*"):
        path.chmod(path.stat().st_mode & 0o700)
        os.utime(path, (86_400, 86_400))
    store = copy_tree(again.built.downloads, again.store)
    world = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "42", "HOME": str(again.folder)}
    python = ("sh", "-c", 'umask 077 && exec unshare -rn "$@"', "sh", sys.executable)
    again.require_same("-j", "1", store=store, env=world, python=python)


# -- another Python, another CPU ---------------------------------------------------------------------------------


@network
@slow
@pytest.mark.judge
@pytest.mark.parametrize("cpu", ["Nehalem", "max"])
def test_an_emulated_cpu(cpu: str, again: Again) -> None:
    """A CPU without any newer instruction, and one with all that the emulator knows."""
    again.require_same(python=(judge("qemu-x86_64"), "-cpu", cpu, sys.executable))


@network
@slow
@pytest.mark.judge
def test_the_python_of_our_own_image(again: Again, tmp_path: Path) -> None:
    """Debian's Python 3.13 out of the image that was built builds that image."""
    bwrap = judge("bwrap")
    root = unpacked_base(again.built.archive, tmp_path / "root")
    libraries = dependencies("x86_64-manylinux_2_28", tmp_path / "libraries")
    inside: list[str | Path] = [
        bwrap,
        "--bind",
        root,
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
        "--ro-bind",
        REPOSITORY,
        REPOSITORY,
    ]
    for path in (tmp_path, again.built.project.parent):
        inside += ["--bind", path, path]
    environment = {"PYTHONPATH": f"{libraries}:{REPOSITORY}", "HOME": str(tmp_path), "PATH": os.defpath}
    python: list[str | Path] = [*inside, "--clearenv", *settings(environment), "/usr/bin/python3.13"]
    assert "3.13" == told([*python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
    again.require_same(python=python)


@network
@slow
@pytest.mark.judge
def test_another_architecture(again: Again, warm_store: Path, tmp_path: Path) -> None:
    """On an emulated aarch64, the Python of our own arm64 image builds the amd64 image."""
    qemu = judge("qemu-aarch64")
    arm64 = Path(shutil.copytree(again.built.project, tmp_path / "arm64"))
    lock(arm64, "--platform", "linux/arm64", store=warm_store)
    build(arm64, store=warm_store, output=tmp_path / "arm64.tar")
    root = unpacked_base(tmp_path / "arm64.tar", tmp_path / "root")
    libraries = dependencies("aarch64-manylinux_2_28", tmp_path / "libraries")
    # A CPU without pointer authentication, whose emulation would make it five times slower.
    emulator: list[str | Path] = [qemu, "-cpu", "cortex-a57", "-L", root]
    python = [*emulator, "-E", f"PYTHONPATH={libraries}:{REPOSITORY}", root / "usr/bin/python3.13"]
    assert "aarch64" == told([*python, "-c", "import platform; print(platform.machine())"])
    again.require_same(python=python)


def unpacked_base(archive: Path, root: Path) -> Path:
    """The Debian part of the image in *archive*, unpacked into the folder *root*."""
    for layer in layers_of(archive).values():
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            if any(member.name.startswith("opt/venv") for member in tar):
                return root
            tar.extractall(root, filter="tar")
    raise AssertionError("no virtual environment")


def layers_of(archive: Path) -> dict[str, bytes]:
    """Every layer of the first image in *archive*, uncompressed, in order, by its path."""
    with tarfile.open(archive) as tar:
        (image,) = json.loads(member_of(tar, "manifest.json"))
        return {name: gzip.decompress(member_of(tar, name)) for name in image["Layers"]}


def member_of(tar: tarfile.TarFile, name: str) -> bytes:
    stream = tar.extractfile(name)
    assert stream is not None
    return stream.read()


def dependencies(platform: str, target: Path) -> Path:
    """What this program needs, for another platform and Python 3.13, in the folder *target*."""
    declared = tomli.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    options = ["--python-platform", platform, "--python-version", "3.13", "--only-binary", ":all:"]
    told([uv.find_uv_bin(), "pip", "install", "--quiet", "--target", target, *options, *declared])
    return target


def settings(environment: Mapping[str, str]) -> list[str]:
    return [word for name, value in environment.items() for word in ("--setenv", name, value)]


def told(command: Sequence[str | Path], **how: Any) -> str:
    """What a program that succeeds says."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **how)
    assert 0 == done.returncode, done.stderr
    return str(done.stdout).strip()


# -- nothing twice -----------------------------------------------------------------------------------------------


def made_again(result: Mapping[str, Any]) -> list[str]:
    """The kinds of the steps that were not in the store, of ``plan`` or ``build``."""
    (platform,) = result["platforms"]
    return [each["kind"] for each in platform.get("layers") or platform["steps"] if not each["cached"]]


@network
def test_nothing_changed(again: Again) -> None:
    """No step runs, nothing is downloaded (there is no network), and the archive is not even written again."""
    require_namespaces()
    store = copy_tree(again.built.full, again.store)
    first = build(again.project, store=store, output=again.output)
    before = again.output.stat()
    assert [] == made_again(plan(again.project, store=store, python=NO_NETWORK))
    second = build(again.project, store=store, output=again.output, python=NO_NETWORK)
    assert [] == made_again(second)
    assert first == second
    after = again.output.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@network
def test_one_line_of_the_algorithm_changed(again: Again) -> None:
    """One step runs, known beforehand; every other layer is the one it was."""
    require_namespaces()
    store = copy_tree(again.built.full, again.store)
    with (again.project / "algorithm/process.py").open("a") as source:
        source.write("# another line\n")
    assert ["tree"] == made_again(plan(again.project, store=store, python=NO_NETWORK))
    made = build(again.project, store=store, output=again.output, python=NO_NETWORK)
    assert ["tree"] == made_again(made)
    pairs = zip(again.built.layers, made["platforms"][0]["layers"], strict=True)
    changed = [old["name"] for old, new in pairs if old["digest"] != new["digest"]]
    assert ["algorithm hello-service"] == changed


@network
def test_the_configuration_changed(again: Again) -> None:
    """It is drift; locking again keeps all pins, so it needs no network; then what holds the document is made."""
    require_namespaces()
    store = copy_tree(again.built.full, again.store)
    update_json(again.project / "pesto/api/config.json", mark="?")
    done = run("build", again.project, "--store", store, "-o", again.output, check=False)
    assert (
        1,
        "",
        "error: the project is not what was locked:\n  config.json changed\n"
        f"hint: run `pesto-repro lock {again.project}`\n",
    ) == (done.returncode, done.stdout, talk(done.stderr))
    assert [] == lock(again.project, store=store, python=NO_NETWORK)["changes"]
    made = build(again.project, store=store, output=again.output, python=NO_NETWORK)
    assert ["documents"] == made_again(made)


@network
@slow
def test_offline_from_downloads(again: Again) -> None:
    """With the lock and the downloads the image is built without a network."""
    require_namespaces()
    store = copy_tree(again.built.downloads, again.store)
    again.require_same(store=store, python=NO_NETWORK)


@network
def test_what_is_locked_is_in_the_image(built: Built) -> None:
    """Every pin is the input of a step, and every input is a pin or one of the project's files."""
    locked = tomli.loads((built.project / "lockfiles/hello-service.lock.toml").read_text())
    (platform,) = locked["platforms"]
    pins = {each["sha256"] for each in platform["debian"]} | {each["wheel"]["sha256"] for each in platform["packages"]}
    own = {digest_of_file(path).hex for path in built.project.rglob("*") if path.is_file()}
    (planned,) = plan(built.project, store=built.full)["platforms"]
    inputs = {digest.removeprefix("sha256:") for step in planned["steps"] for digest in step["inputs"]}
    assert set() == pins - inputs
    assert set() == inputs - pins - own


@network
def test_the_project_s_files_are_in_the_image(built: Built) -> None:
    """Each of them with its bytes, but for those that .dockerignore names and PESTO's own, which are a layer more."""
    (name,) = [each["digest"] for each in built.layers if each["name"] == "algorithm hello-service"]
    blob = built.full / "blobs/sha256" / name.removeprefix("sha256:")
    with tarfile.open(blob) as tar:
        members = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        inside = {path.removeprefix("opt/hello-service/"): stream.read() for path, stream in members.items() if stream}
    files = (path for path in built.project.rglob("*") if path.is_file())
    own = {path.relative_to(built.project).as_posix(): path.read_bytes() for path in files}
    left_out = ("lockfiles/", "pesto/", "README.md", ".dockerignore")
    assert {path: data for path, data in own.items() if not path.startswith(left_out)} == inside


# -- secrets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["UV_DEFAULT_INDEX", "PIP_INDEX_URL"])
def test_the_password_of_a_private_index_is_nowhere(variable: str, runtime_wheel: Path, tmp_path: Path) -> None:
    """Not in the lock, the store, the archive, its layers, or what is said at ``-vv``, also when it is wrong."""
    small = make_small(tmp_path, runtime_wheel)
    (small.root / "requirements.txt").write_text("alpha>=1\n")  # asks for something new: the index is asked
    with serving(small.wheels, CANARY) as index:
        url, uv_cache = index.url_with_password, str(tmp_path / "uv")
        command = partial(run, cwd=tmp_path, check=False)
        common = (small.root, "--store", small.store, "-vv")
        known = {variable: url, "UV_CACHE_DIR": uv_cache}
        talks = [
            command("lock", *common, env=known),
            command("build", *common, "-o", small.output, env=known),
            command("plan", *common, "--json", env=known),
        ]
        shutil.rmtree(small.store / "blobs")
        wrong = {variable: url.replace("c4n4ry", "c4n4ry-wrong"), "UV_CACHE_DIR": uv_cache}
        talks.append(command("build", *common, env=wrong))
        (small.root / "requirements.txt").write_text("alpha>=1.0\n")
        talks.append(command("lock", *common, env=wrong))
    assert [0, 0, 0, 1, 1] == [each.returncode for each in talks], talks
    assert any(path.startswith("/files/alpha") for path in index.asked)
    said = "".join(each.stdout + each.stderr for each in talks)
    assert [] == [secret for secret in ("c4n4ry", "bob:", "Traceback") if secret in said]
    shutil.rmtree(uv_cache)  # not ours
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert small.output in files
    assert [] == [path for path in files if b"c4n4ry" in unpacked(path)]


def unpacked(path: Path) -> bytes:
    """The bytes of *path*, and those of every layer in it."""
    data = path.read_bytes()
    layers = layers_of(path).values() if path.name.endswith(".oci.tar") else ()
    plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else b""
    return b"".join([data, plain, *layers])


def talk(stderr: str) -> str:
    """*stderr* without warnings."""
    return "".join(line for line in stderr.splitlines(True) if not line.startswith("warning: "))


def require_namespaces() -> None:
    """Skip where this machine lets nobody make a namespace of their own."""
    if subprocess.run([judge("unshare"), "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
