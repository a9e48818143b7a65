"""What is trusted, end to end: a bundle of everything that is pinned, what a build attaches, keys that are demanded."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.lock import text as lock_text
from pesto_repro.lock.model import Lock
from tests.e2e import add_settings, build, example, lock, run
from tests.inside import inside
from tests.judges import judge
from tests.registries import LiveRegistry
from tests.small_project import Small, make_small
from tests.test_base_lock import REQUIRES, Based
from tests.test_source_git import Repo

FROM_SOURCE = """\
[base]
debian = "trixie"
[python]
requires = ["jsonify", "fetched @ git+{url}"]
build-from-source = ["jsonify"]
"""


def setup_of(name: str) -> str:
    """The setup.py of the simplest package."""
    return f"from setuptools import setup\nsetup(name='{name}', version='1.0', py_modules=['{name}'])\n"


def lock_of(project: Path) -> Lock:
    (path,) = (project / "lockfiles").iterdir()
    return lock_text.loads(path.read_text(), path.name)


# -- a bundle ----------------------------------------------------------------------------------------------------


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.usefixtures("sandboxes")
def test_a_bundle_of_debian_packages_and_sources(warm_store: Path, tmp_path: Path) -> None:
    """An sdist, a repository and a folder are built when locking; elsewhere their wheels lie in the bundle.

    There: an empty home, an empty store, no network, no repository, and nothing is built from source.
    """
    unshare = judge("unshare")
    repo = Repo(tmp_path / "repo")
    commit = repo.commit(setup__py=setup_of("fetched"), fetched__py="A = 1\n")
    project = add_settings(example("hello-service", tmp_path), FROM_SOURCE.format(url=repo.root.as_uri()))
    folder = project / "libs/beside"
    folder.mkdir(parents=True)
    (folder / "setup.py").write_text(setup_of("beside"))
    (folder / "beside.py").write_text("A = 1\n")
    with (project / "requirements.txt").open("a") as file:
        file.write("\n-e ./libs/beside\n")
    lock(project, store=warm_store)
    here = build(project, store=warm_store, output=tmp_path / "here.tar")
    (platform,) = lock_of(project).platforms
    sources = {each.name: each.source for each in platform.built if each.source is not None}
    assert {"jsonify": "sdist", "fetched": "git", "beside": "directory"} == {
        name: each.kind for name, each in sources.items()
    }
    assert commit == sources["fetched"].commit

    bundle, home, there = tmp_path / "bundle.tar", tmp_path / "home", tmp_path / "there.tar"
    made = json.loads(run("vendor", project, "-o", bundle, "--offline", "--json", "--store", warm_store).stdout)
    titles = {each["title"] for each in made["parts"]}
    expected = {f"wheels/{each.wheel.name}" for each in platform.packages}
    assert expected == {each for each in titles if each.startswith("wheels/") and "setuptools" not in each}
    assert {f"sources/{sources['jsonify'].name}"} == {each for each in titles if each.startswith("sources/")}
    assert len(platform.debian) == len([each for each in titles if each.startswith("debs/")])

    shutil.rmtree(repo.root)
    home.mkdir()
    environment = {"HOME": str(home), "XDG_CACHE_HOME": "", "PESTO_REPRO_STORE": "", "UV_NO_INDEX": "1"}
    words: list[str | Path] = ["build", project, "--from", bundle, "--offline", "-o", there]
    done = run(*words, env=environment, python=(unshare, "-r", "-n", sys.executable))
    assert f"{here['reference']}@{here['digest']}\n" == done.stdout
    assert "built from source" not in done.stderr
    assert (tmp_path / "here.tar").read_bytes() == there.read_bytes()


# -- what a build attaches ---------------------------------------------------------------------------------------


def attached(found: dict[str, Any], repository: str) -> list[tuple[str, str, str]]:
    """The type, the subject and the digest of each that ``--json`` tells of in *repository*."""
    return sorted(
        (each["artifact_type"], each["subject"], each["digest"])
        for each in found["attached"]
        if each["repository"] == repository
    )


@pytest.mark.judge
def test_build_attaches_what_push_attaches(runtime_wheel: Path, plain_registry: LiveRegistry, tmp_path: Path) -> None:
    """In every repository that it pushed to, the same four, byte for byte; and they make the image again."""
    small = make_small(tmp_path, runtime_wheel)
    first, second, third = (f"{plain_registry.host}/{name}/small" for name in ("one", "other", "later"))
    words: list[str | Path] = ["build", small.root, "--push", f"{first}:1", "--push", f"{second}:1", "--push"]
    common: list[str | Path] = ["-o", small.output, "--json", "--store", small.store]
    built = inside(*words, f"{first}:2", "--attach", *common, env=small.env).json
    again = inside("push", small.output, f"{third}:1", "--attach", small.root, "--json", env=small.env).json
    types = ["application/spdx+json", "application/vnd.cyclonedx+json", "application/vnd.in-toto+json"]
    assert [*types, "application/vnd.pesto-repro.lock.v1+toml"] == [each[0] for each in attached(built, first)]
    assert attached(built, first) == attached(built, second)
    # The provenance names its subject by the reference that was pushed; all else is the same.
    equal = [[each for each in attached(*one) if each[0] != types[2]] for one in ((built, first), (again, third))]
    assert equal[0] == equal[1]
    listed = {each["digest"] for each in inside("referrers", f"{second}:1", "--json").json["referrers"]}
    assert {each[2] for each in attached(built, second)} == listed
    assert (built["lock"], "attached") == tuple(
        inside("verify", f"{first}:1", "--json").json[key] for key in ("lock", "lock_is")
    )


@pytest.mark.judge
def test_build_attaches_nothing_unasked(runtime_wheel: Path, plain_registry: LiveRegistry, tmp_path: Path) -> None:
    """Without --attach the registry has the image alone; without --push there is nothing to attach to."""
    small = make_small(tmp_path, runtime_wheel)
    reference = f"{plain_registry.host}/team/small:1"
    words: list[str | Path] = ["build", small.root, "--store", small.store]
    built = inside(*words, "--push", reference, "--json", env=small.env).json
    assert "attached" not in built
    assert [] == inside("referrers", reference, "--json").json["referrers"]
    done = inside(*words, "--attach", env=small.env, code=2)
    assert "Error: --attach is for what --push sends\n" in done.stderr


# -- keys --------------------------------------------------------------------------------------------------------


@pytest.mark.judge
@pytest.mark.network
@pytest.mark.slow
@pytest.mark.usefixtures("sandboxes")
def test_run_demands_a_signature(
    locked_once: Path, warm_store: Path, plain_registry: LiveRegistry, tmp_path: Path
) -> None:
    """Of an image that is not signed with the key no layer is fetched; one that is runs."""
    reference = f"{plain_registry.host}/team/template:1"
    inside("build", locked_once, "--push", reference, "--store", warm_store)
    for name in ("ours", "theirs"):
        inside("keygen", "-o", tmp_path / name, "--no-password")
    inside("sign", reference, "--key", tmp_path / "theirs.key")
    plain_registry.forget()
    words: list[str | Path] = ["run", reference, "--store", warm_store, "--key"]
    command = ("--", "python3", "-c", "print(6 * 7)")
    done = run(*words, tmp_path / "ours.pub", *command, check=False)
    told = f"error: {reference} is not signed with the key {tmp_path}/ours.pub: none of its 2 signatures is by "
    assert (1, "", True) == (done.returncode, done.stdout, done.stderr.startswith(told)), done.stderr
    layers = {each["digest"] for each in inside("inspect", reference, "--json").json["platforms"][0]["layers"]}
    assert layers
    assert not [each for each in plain_registry.requests() if any(layer in each.path for layer in layers)]
    assert "42\n" == run(*words, tmp_path / "theirs.pub", *command).stdout


def test_a_key_is_for_a_registry_s_image(runtime_wheel: Path, tmp_path: Path) -> None:
    """A file has no signatures, and a project is no image: neither runs as if it had been looked at."""
    small = make_small(tmp_path, runtime_wheel)
    small.build()
    words: list[str | Path] = ["--key", tmp_path / "any.pub", "--store", small.store]
    done = inside("run", small.output, *words, code=1)
    assert "error: only a registry's image has signatures\nhint: push it, or leave --key out\n" == done.stderr
    expected = (
        f"error: --key is for a registry's image, and {small.root} is a project\n"
        "hint: leave it out; `[trust] base-key` of image.toml demands a signature of the base image\n"
    )
    assert expected == inside("run", small.root, *words, code=1).stderr


@pytest.fixture(scope="module")
def based(runtime_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Based:
    """The small project, locked and built on a base that nobody signed, and then made to demand a signature."""
    based = Based(make_small(tmp_path_factory.mktemp("based"), runtime_wheel))
    based.lock()
    based.small.build()
    based.settings(f'{REQUIRES}[trust]\nbase-key = "base.pub"\n')
    (based.small.root / "base.pub").write_text("")
    return based


COMMANDS: dict[str, Callable[[Small, Path], list[str | Path]]] = {
    "build": lambda small, folder: ["build", small.root, "-o", folder / "image.tar"],
    "run": lambda small, folder: ["run", small.root],
    "test": lambda small, folder: ["test", small.root],
    "vendor": lambda small, folder: ["vendor", small.root, "-o", folder / "bundle.tar"],
    "verify": lambda small, folder: ["verify", small.output, small.root],
    "sbom": lambda small, folder: ["sbom", small.root],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_no_command_takes_a_base_that_is_not_signed(
    based: Based, words: Callable[[Small, Path], list[str | Path]], tmp_path: Path
) -> None:
    """Whatever brings the base asks for the signature that the project demands, and brings nothing without it."""
    store = tmp_path / "store"
    done = inside(*words(based.small, tmp_path), "--store", store, env=based.small.env, code=1)
    told = (
        "error: the base image oci-archive:base.tar is to be signed with base.pub, but only a registry has signatures"
    )
    assert told in done.stderr.splitlines()
    (locked,) = lock_text.loads(based.small.lockfile.read_text(), "lock").platforms
    assert locked.base is not None
    have = {path.name for path in (store / "blobs/sha256").glob("*")}
    assert not have & {each.digest.removeprefix("sha256:") for each in locked.base.layers}
