"""A project on a base image, by the command line: what is locked, what is asked again, what a build needs.

The base is an archive beside the project; none of it runs. Nothing here needs a network.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tomli

from pesto_repro.digest import Digest
from pesto_repro.store import Store
from pesto_repro.validate import validate
from tests.base_images import PATH, archive, look_alike, made, package, without_base
from tests.e2e import lock, plan, run, update_json
from tests.python_index import simple_wheel
from tests.small_project import Small, make_small

SITE = "usr/local/lib/python3.11/dist-packages"
REQUIRES = '[python]\nrequires = ["alpha", "beta"]\n'


class Based:
    """The small project on the archive base.tar."""

    def __init__(self, small: Small) -> None:
        self.small, self.made = small, Store(small.root.parent / "made")
        self.rebase(look_alike())
        without_base(small.root, "oci-archive:base.tar", REQUIRES)

    def rebase(self, *layers: Any, **how: Any) -> Path:
        return archive(self.small.root / "base.tar", self.made, made(self.made, *layers, **how))

    def settings(self, text: str) -> None:
        self.small.settings.write_text(text)

    def lock(self, *arguments: str, **how: Any) -> dict[str, Any]:
        return lock(self.small.root, *arguments, store=self.small.store, env=self.small.env, **how)

    def told(self, *arguments: str) -> str:
        """What ``lock`` says on stderr."""
        return run("lock", self.small.root, "--store", self.small.store, *arguments, env=self.small.env).stderr

    def failure(self, command: str, *arguments: str) -> str:
        found = run(command, self.small.root, "--store", self.small.store, *arguments, env=self.small.env, check=False)
        assert 1 == found.returncode
        return found.stderr

    def platforms(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = tomli.loads(self.small.lockfile.read_text())["platforms"]
        return found

    def unpack(self, key: str, value: str, how: str, *paths: str) -> str:
        """What ``tar`` says of the layer whose *key* is *value*, of the image that is built now."""
        layers = self.small.build()["platforms"][0]["layers"]
        digest = Digest.parse(next(each["digest"] for each in layers if each[key] == value))
        command = ["tar", how, str(Store(self.small.store).path(digest)), *paths]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def config(self) -> dict[str, Any]:
        """The config of the image that was built."""
        folder = self.small.root.parent / "unpacked"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        subprocess.run(["tar", "-xf", self.small.output, "-C", folder], check=True)
        name = json.loads((folder / "manifest.json").read_text())[0]["Config"]
        found: dict[str, Any] = json.loads((folder / name).read_text())
        return found


@pytest.fixture
def based(runtime_wheel: Path, tmp_path: Path) -> Based:
    return Based(make_small(tmp_path, runtime_wheel))


def test_lock_and_build_on_an_archive(based: Based) -> None:
    """The base's layers are the lowest, untouched; the lock names its digests and no place of this machine."""
    based.rebase(look_alike(), history=["RUN base"], Env=[f"PATH={PATH}", "LANG=de", "PYTHONPATH=/opt/base", "B=1"])
    based.lock()
    text = based.small.lockfile.read_text()
    assert str(based.small.root) not in text
    (locked,) = based.platforms()
    assert "oci-archive:base.tar" == locked["base"]["original"]
    assert ("/usr/bin/python3.11", "glibc 2.36") == (locked["python"]["executable"], locked["python"]["libc"])
    built = based.small.build()
    validate(based.small.output)
    layers = built["platforms"][0]["layers"]
    assert ("base", locked["base"]["layers"][0]["digest"]) == (layers[0]["kind"], layers[0]["digest"])
    config = based.config()
    assert [
        f"PATH=/opt/venv/bin:{PATH}",
        "LANG=de",
        "PYTHONPATH=/opt/base:/opt/small",
        "B=1",
        "PESTO_PROFILE=",
    ] == config["config"]["Env"]
    assert [{"created_by": "RUN base"}, {"created_by": "ENV LANG=C.UTF-8", "empty_layer": True}] == config["history"][
        :2
    ]
    assert config["rootfs"]["diff_ids"][0] == locked["base"]["layers"][0]["diff-id"]


def test_locking_again_changes_nothing(based: Based) -> None:
    """The same bytes, with and without a store that knows the base."""
    based.lock()
    text = based.small.lockfile.read_text()
    assert not based.lock()["changed"]
    based.small.lockfile.unlink()
    shutil.rmtree(based.small.store)
    based.lock()
    assert text == based.small.lockfile.read_text()


def test_a_base_that_moved(based: Based) -> None:
    """It is said; nothing changes until -U, whatever else is locked anew; offline nobody is asked."""
    based.lock()
    before = based.platforms()[0]["base"]
    assert "has moved" not in based.told()
    based.rebase(look_alike(version="3.11.9"))
    now = json.loads(run("lock", based.small.root, "--json", "--check", env=based.small.env).stdout)
    assert not now["changed"]
    moved = "oci-archive:base.tar has moved: locked is"
    assert moved in based.told()
    assert "hint: the image stays as it is; `pesto-repro lock -U` takes the new one" in based.told()
    assert "has moved" not in based.told("--offline")
    simple_wheel(based.small.wheels, "gamma", "1.0")
    based.settings('[python]\nrequires = ["alpha", "beta", "gamma"]\n')
    assert moved in based.told()
    assert before == based.platforms()[0]["base"]
    told = based.told("-U")
    assert "has moved" not in told
    assert f"~ base oci-archive:base.tar@{before['manifest'][:19]} -> oci-archive:base.tar@sha256:" in told
    assert "3.11.9" == based.platforms()[0]["python"]["version"]


def test_building_on_a_base_that_moved(based: Based) -> None:
    """The bytes that were locked are not there any more: one clear error, unless the store has them."""
    based.lock()
    based.rebase(look_alike(version="3.11.9"))
    assert f"error: {based.small.root}/base.tar has no sha256:" in based.failure("build")
    based.rebase(look_alike())
    first = based.small.build()["digest"]
    (based.small.root / "base.tar").unlink()
    based.small.output.unlink()
    assert first == based.small.build("--offline")["digest"]


def test_two_platforms_on_an_index(based: Based) -> None:
    """Each platform has its own manifest, interpreter and layers; both are of one index."""
    both = [
        made(based.made, look_alike()),
        made(based.made, look_alike("aarch64", version="3.11.9"), platform="linux/arm64/v8"),
    ]
    archive(based.small.root / "base.tar", based.made, *both)
    based.settings('[image]\nplatforms = ["linux/amd64", "linux/arm64"]\n' + REQUIRES)
    based.lock()
    amd64, arm64 = based.platforms()
    assert ("3.11.2", "3.11.9") == (amd64["python"]["version"], arm64["python"]["version"])
    assert amd64["base"]["index"] == arm64["base"]["index"]
    based.small.build()
    validate(based.small.output)


def test_a_platform_that_is_added_stands_on_the_same_index(based: Based) -> None:
    """Or the image's platforms would be of different bases."""
    both = [
        made(based.made, look_alike()),
        made(based.made, look_alike("aarch64", version="3.11.9"), platform="linux/arm64/v8"),
    ]
    archive(based.small.root / "base.tar", based.made, *both)
    based.lock()
    archive(based.small.root / "base.tar", based.made, *reversed(both))
    based.settings('[image]\nplatforms = ["linux/amd64", "linux/arm64"]\n' + REQUIRES)
    assert "base.tar is not what was locked: expected sha256:" in based.failure("lock")


def test_packages_of_the_base_are_used(based: Based) -> None:
    """system-packages: pinned to what the base has, not installed again, said in the plan; and the venv sees them."""
    brought = [*package(SITE, "alpha", "0.5+cu1"), *package(SITE, "beta", "1.5"), *package(SITE, "torch", "2.9.0")]
    based.rebase(look_alike(), brought)
    told = based.told()
    assert "linux/amd64: the base has alpha 0.5+cu1, beta 1.5 too; [python] system-packages = true would use" in told
    based.settings(REQUIRES + "system-packages = true\n")
    assert "python.system-packages was false, is true" in based.failure("build")
    based.lock()
    names = {each["name"] for each in based.platforms()[0]["packages"]}
    assert ({"alpha", "beta", "torch"} & names, "numpy" in names) == (set(), True)
    (planned,) = plan(based.small.root, store=based.small.store, env=based.small.env)["platforms"]
    assert ["alpha 0.5+cu1", "beta 1.5", "torch 2.9.0"] == planned["uses"]
    shown = run("plan", based.small.root, "--store", based.small.store, env=based.small.env).stdout
    assert "brings, and they are used: alpha 0.5+cu1, beta 1.5, torch 2.9.0" in shown
    assert "include-system-site-packages = true\n" in based.unpack("kind", "venv", "-xzOf", "opt/venv/pyvenv.cfg")


def test_a_base_whose_packages_do_not_fit(based: Based) -> None:
    """The error says that it is the base's own that are pinned."""
    based.rebase(look_alike(), package(SITE, "alpha", "0.5"))
    based.settings('[python]\nrequires = ["alpha>=1"]\nsystem-packages = true\n')
    told = based.failure("lock")
    assert "error: the requirements for Python 3.11 on linux/amd64 cannot be met together:" in told
    assert "hint: [python] system-packages = true pins what the base has: ask for versions that fit it" in told


def test_settings_that_are_for_another_kind_of_base(based: Based) -> None:
    """A setting that does nothing is worse than an error."""
    based.settings('[base]\npackages = ["libgl1"]\n')
    assert (
        "error: [base] packages (libgl1) are for a base made of Debian packages; this one is oci-archive:base.tar"
        in (based.failure("lock"))
    )
    based.settings('[python.build]\npackages = ["gcc"]\n')
    assert "error: [python.build] packages (gcc) need [base] debian; this base is oci-archive:base.tar" in (
        based.failure("lock")
    )
    based.settings('[base]\ndebian = "trixie"\n[python]\nsystem-packages = true\n')
    assert "error: [python] system-packages is for base images" in based.failure("lock")


def test_a_resource_below_a_directory_that_is_a_link_elsewhere(based: Based) -> None:
    """/lib is a folder of this base, so it is one in ours."""
    plain = [each for each in look_alike() if each.kind != "symlink" or each.path.startswith("usr")]
    based.rebase(plain)
    document = json.loads(based.small.requirements.read_text())
    entries = document["requirements"] | {"deep": {"from": "file://data/note.txt", "to": "/lib/note.txt"}}
    update_json(based.small.requirements, requirements=entries)
    based.lock()
    (planned,) = plan(based.small.root, store=based.small.store, env=based.small.env)["platforms"]
    assert "deep" in [each["name"] for each in planned["steps"]]
    assert ["lib/", "lib/note.txt"] == based.unpack("name", "deep", "-tzf").split()


def test_a_merge_of_locks_with_other_bases(based: Based) -> None:
    """What both sides do not agree on is looked up anew."""
    based.lock()
    ours = based.small.lockfile.read_text()
    based.rebase(look_alike(version="3.11.9"))
    based.lock("-U")
    theirs = based.small.lockfile.read_text()
    based.small.lockfile.write_text(f"<<<<<<< ours\n{ours}=======\n{theirs}>>>>>>> theirs\n")
    based.lock()
    assert theirs == based.small.lockfile.read_text()
