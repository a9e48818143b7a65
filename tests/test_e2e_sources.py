"""Wheels that are built from source, with the real room: the same ones on every machine, from the lock alone."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tomli

from tests.e2e import add_settings, build, example, lock, run, update_json
from tests.small_project import tar_gz

pytestmark = [pytest.mark.network, pytest.mark.slow]

EVERYTHING = """\
[base]
debian = "trixie"
[runtime]
closure = "full"
[python]
requires = ["markupsafe"]
build-from-source = ["markupsafe"]
[python.build]
packages = ["gcc", "libc6-dev", "python3-dev"]
"""
OWN = {"fetched", "beside", "given"}


def platform_of(project: Path) -> dict[str, Any]:
    """The only platform of the project's lock."""
    (lockfile,) = (project / "lockfiles").iterdir()
    (platform,) = tomli.loads(lockfile.read_text())["platforms"]
    return dict(platform)


def built(project: Path) -> dict[str, dict[str, Any]]:
    """The packages of the project's lock that are built from source, by name."""
    return {each["name"]: each for each in platform_of(project)["packages"] if "source" in each}


def without(store: Path, digests: set[str], parent: Path) -> Path:
    """Another store that has the same blobs but *digests*, and no record of what was made of them."""
    other = parent / "other-store"
    (other / "blobs/sha256").mkdir(parents=True)
    for each in (store / "blobs/sha256").iterdir():
        if each.name not in digests:
            os.link(each, other / "blobs/sha256" / each.name)
    return other


def wheels(project: Path) -> set[str]:
    """The digests of the wheels that are built from source."""
    return {each["wheel"]["sha256"] for each in built(project).values()}


def keep_layers(store: Path, other: Path, lost: set[str]) -> None:
    """Let *other* know the layers of *store*, but those of the steps *lost*: they are not what is tested."""
    for kind in ("layer", "step"):
        (other / "records" / kind).mkdir(parents=True)
        for each in (store / "records" / kind).iterdir():
            if each.name not in lost:
                os.link(each, other / "records" / kind / each.name)


def steps_of(image: dict[str, Any], packages: set[str]) -> set[str]:
    """The steps of the image whose layers are those of *packages*."""
    (platform,) = image["platforms"]
    found = {each["name"].split()[0]: each["step"] for each in platform["layers"]}
    return {found[each].removeprefix("sha256:") for each in packages}


def test_what_is_built_from_source_is_built_equal_elsewhere(warm_store: Path, tmp_path: Path) -> None:
    """The full closure and a C extension: from the lock alone, in another store, without a network; locking again
    builds nothing. The compiler is pinned, and not in the image."""
    project = add_settings(example("hello-service", tmp_path), EVERYTHING)
    names = {"wget", "jsonify", "markupsafe"}
    first = run("lock", project, "--store", warm_store)
    assert names == {line.split()[0] for line in first.stderr.splitlines() if " was built from source: " in line}
    assert names == set(built(project))
    platform = platform_of(project)
    assert "gcc" in {each["name"] for each in platform["build"]} - {each["name"] for each in platform["debian"]}
    assert "cp313-linux_x86_64" in built(project)["markupsafe"]["wheel"]["name"]
    before = next((project / "lockfiles").iterdir()).read_bytes()
    assert lock(project, store=warm_store)["changed"] is False
    assert before == next((project / "lockfiles").iterdir()).read_bytes()
    here = build(project, store=warm_store, output=tmp_path / "here.tar")
    other = without(warm_store, wheels(project), tmp_path)
    there = build(project, "--offline", store=other, output=tmp_path / "there.tar")
    assert here["digest"] == there["digest"]
    assert (tmp_path / "here.tar").read_bytes() == (tmp_path / "there.tar").read_bytes()


# -- what the project itself names --


def package(name: str, more: str = "") -> dict[str, bytes]:
    """The files of the simplest package; setuptools builds it, with *more* in its setup.py."""
    setup = f"{more}\nfrom setuptools import setup\nsetup(name='{name}', version='1.0', py_modules=['{name}'])\n"
    return {"setup.py": setup.encode(), f"{name}.py": b"A = 1\n"}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def committed(folder: Path) -> str:
    """Make the folder a git repository; its commit."""
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "--message=x"]):
        subprocess.run(["git", "-C", folder, *words], check=True)
    found = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def require(project: Path, line: str) -> None:
    with (project / "requirements.txt").open("a") as handle:
        handle.write(f"\n{line}\n")


def test_a_repository_a_folder_and_an_sdist_are_built(warm_store: Path, tmp_path: Path) -> None:
    """Elsewhere they are brought and built again; a change of the folder is drift that says which."""
    project = add_settings(example("hello-service", tmp_path))
    repository = write(tmp_path / "fetched", package("fetched"))
    commit = committed(repository)
    folder = write(project / "libs/beside", package("beside"))
    (project / "given-1.0.tar.gz").write_bytes(tar_gz({f"given-1.0/{k}": v for k, v in package("given").items()}))
    require(project, f"fetched @ git+{repository.as_uri()}")
    require(project, "-e ./libs/beside")
    entry = {"from": "file://given-1.0.tar.gz", "type": "pip"}
    update_json(project / "pesto/build/requirements.json", requirements={"given": entry})
    lock(project, store=warm_store)
    pins = built(project)
    assert OWN == set(pins)
    assert commit == pins["fetched"]["source"]["commit"]
    here = build(project, store=warm_store, output=tmp_path / "here.tar")
    sources = {each["source"]["sha256"] for each in pins.values()}
    other = without(warm_store, wheels(project) | sources, tmp_path)
    keep_layers(warm_store, other, steps_of(here, OWN))
    there = build(project, store=other, output=tmp_path / "there.tar")
    assert OWN == {each["name"].split()[0] for each in there["platforms"][0]["layers"] if not each["cached"]}
    assert here["digest"] == there["digest"]

    (folder / "beside.py").write_text("A = 2\n")
    told = (
        f"error: sources are not what was locked:\n  libs/beside was sha256:{pins['beside']['source']['sha256']}, is "
    )
    for words in ("build", "lock --check", "export --format apt", f"vendor -o {tmp_path}/x.tar"):
        command, *options = words.split()
        done = run(command, project, *options, "--store", warm_store, check=False)
        assert (1, "", True) == (done.returncode, done.stdout, done.stderr.startswith(told)), done.stderr
    lock(project, store=warm_store)
    after = built(project)
    assert {"beside"} == {name for name in OWN if pins[name] != after[name]}


# -- what nobody should require --

HOSTILE = """
import os, socket, subprocess, sys
def attempt(what, act):
    try:
        print(what, "succeeded:", act())
    except Exception as error:
        print(what, "was refused:", type(error).__name__)
attempt("home", lambda: open("OUTSIDE/secret").read())
attempt("outside", lambda: open("OUTSIDE/written", "w"))
attempt("socket", lambda: socket.create_connection(("127.0.0.1", PORT), 5))
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)", "OUTSIDE"], start_new_session=True)
print('{"wheel": "fake-1.0-py3-none-any.whl"}')
sys.exit("that was all" if "bdist_wheel" in sys.argv else 0)
"""


def test_a_hostile_source_is_shown_what_was_refused(warm_store: Path, tmp_path: Path) -> None:
    """It reads nothing, writes nothing, reaches nobody, leaves no process and no lock."""
    outside = write(tmp_path / "outside", {"secret": b"a secret"})
    project = add_settings(example("hello-service", tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        text = HOSTILE.replace("OUTSIDE", str(outside)).replace("PORT", str(server.getsockname()[1]))
        write(project / "libs/evil", package("evil", text))
        require(project, "./libs/evil")
        done = run("lock", project, "--store", warm_store, check=False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert (1, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("error: libs/evil cannot be built: "), done.stderr
    lines = [line.strip() for line in done.stderr.splitlines()]
    refused = ["home was refused: FileNotFoundError", "outside was refused: FileNotFoundError"]
    for each in [*refused, "socket was refused: ConnectionRefusedError", "that was all"]:
        assert each in lines, done.stderr
    assert ["secret"] == [each.name for each in outside.iterdir()]
    assert not (project / "lockfiles").exists()
    left = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [each for each in left if str(outside).encode() in each.split(b"\0")]
