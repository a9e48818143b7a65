"""Wheels that are built from source, with the real room: the same ones on every machine, from the lock alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import tomli

from tests.e2e import add_settings, build, example, lock, run

pytestmark = [pytest.mark.network, pytest.mark.slow]

FULL = '[base]\ndebian = "trixie"\n[runtime]\nclosure = "full"\n'
EXTENSION = """\
[base]
debian = "trixie"
[python]
requires = ["markupsafe"]
build-from-source = ["markupsafe"]
[python.build]
packages = ["gcc", "libc6-dev", "python3-dev"]
"""


def built(project: Path) -> dict[str, dict[str, Any]]:
    """The packages of the project's lock that are built from source, by name."""
    (lockfile,) = (project / "lockfiles").iterdir()
    (platform,) = tomli.loads(lockfile.read_text())["platforms"]
    return {each["name"]: each for each in platform["packages"] if "source" in each}


def without(store: Path, digests: set[str], parent: Path) -> Path:
    """Another store that has the same blobs but *digests*, and no record of what was made of them."""
    other = parent / "other-store"
    (other / "blobs/sha256").mkdir(parents=True)
    for each in (store / "blobs/sha256").iterdir():
        if each.name not in digests:
            os.link(each, other / "blobs/sha256" / each.name)
    return other


@pytest.mark.parametrize(
    ("settings", "names"), [(FULL, {"wget", "jsonify"}), (EXTENSION, {"markupsafe"})], ids=["full", "extension"]
)
def test_what_is_built_from_source_is_built_equal_elsewhere(
    settings: str, names: set[str], warm_store: Path, tmp_path: Path
) -> None:
    """From the lock alone, in another store, without a network; locking again builds nothing."""
    project = add_settings(example("hello-service", tmp_path), settings)
    first = run("lock", project, "--store", warm_store)
    assert names <= {line.split()[0] for line in first.stderr.splitlines() if " was built from source: " in line}
    assert names == set(built(project))
    before = next((project / "lockfiles").iterdir()).read_bytes()
    assert lock(project, store=warm_store)["changed"] is False
    assert before == next((project / "lockfiles").iterdir()).read_bytes()
    here = build(project, store=warm_store, output=tmp_path / "here.tar")
    other = without(warm_store, {each["wheel"]["sha256"] for each in built(project).values()}, tmp_path)
    there = build(project, "--offline", store=other, output=tmp_path / "there.tar")
    assert here["digest"] == there["digest"]
    assert (tmp_path / "here.tar").read_bytes() == (tmp_path / "there.tar").read_bytes()


def test_a_folder_of_the_project_is_built_with_it(warm_store: Path, tmp_path: Path) -> None:
    """Its change after locking is drift that says which; locking again takes the new one."""
    project = add_settings(example("hello-service", tmp_path))
    folder = project / "libs/own"
    folder.mkdir(parents=True)
    (folder / "setup.py").write_text(
        "from setuptools import setup\nsetup(name='own', version='1.0', py_modules=['own'])\n"
    )
    (folder / "own.py").write_text("A = 1\n")
    with (project / "requirements.txt").open("a") as handle:
        handle.write("\n-e ./libs/own\n")
    lock(project, store=warm_store)
    digest = built(project)["own"]["source"]["sha256"]
    (folder / "own.py").write_text("A = 2\n")
    for command in (["build"], ["lock", "--check"]):
        done = run(command[0], project, *command[1:], "--store", warm_store, check=False)
        told = f"error: sources are not what was locked:\n  libs/own was sha256:{digest}, is sha256:"
        assert (1, True) == (done.returncode, done.stderr.startswith(told)), done.stderr
    lock(project, store=warm_store)
    assert digest != built(project)["own"]["source"]["sha256"]
    made = build(project, store=warm_store, output=tmp_path / "image.tar")
    assert any("own 1.0" in each["name"] for each in made["platforms"][0]["layers"])
