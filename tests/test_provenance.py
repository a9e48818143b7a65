"""Provenance: in-toto's form, SLSA's predicate, every pinned input, and who built."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pesto_repro import __version__
from pesto_repro.audit.attachments import CYCLONEDX_TYPE, PROVENANCE_TYPE, SPDX_TYPE, of_project
from pesto_repro.audit.provenance import BUILD_TYPE, LOCAL_BUILDER, Builder, Commit, Subject, statement
from pesto_repro.cli.builder import builder_of, commit_of
from pesto_repro.cli.main import run
from pesto_repro.digest import Digest
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.model import BaseImage, Blob, DebianPackage, Lock, PlatformLock, Resource, Source
from pesto_repro.oci import Platform, Recipe, assemble, assemble_index
from pesto_repro.plan.make import LOCK_TYPE
from pesto_repro.registry.content import LayoutContent, StoreContent, documents
from pesto_repro.store import Store
from tests.images import CREATED, make_layers
from tests.test_sbom import Made, made
from tests.test_sbom_contents import make_lock, wheel

__all__ = ["made"]  # a fixture

SUBJECT = Subject("small:1", Digest("5" * 64))
BUILDER = Builder("0.1")
SECRET = "s3cr3t"


def predicate(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data)["predicate"]
    return found


def dependencies(lock: Lock, commit: Commit | None = None) -> list[dict[str, Any]]:
    found = predicate(statement([SUBJECT], lock, BUILDER, commit))
    listed: list[dict[str, Any]] = found["buildDefinition"]["resolvedDependencies"]
    return listed


def with_platforms(lock: Lock, *platforms: PlatformLock, **more: Any) -> Lock:
    return lock_text.seal(lock.model_copy(update={"platforms": platforms, **more}))


def deb(name: str, digit: str) -> DebianPackage:
    return DebianPackage(
        name=name,
        version="1+b1",
        architecture="amd64",
        filename=f"pool/main/{name}_1+b1_amd64.deb",
        suite="trixie-security",
        snapshot="20260101T000000Z",
        sha256=digit * 64,
        size=1,
    )


def test_it_is_an_in_toto_statement_with_slsas_predicate() -> None:
    """Every key that Statement v1 and provenance v1 require, and no other."""
    document = json.loads(statement([SUBJECT], make_lock(wheel("numpy", "2")), BUILDER))
    assert {"_type", "predicate", "predicateType", "subject"} == set(document)
    assert ("https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1") == (
        document["_type"],
        document["predicateType"],
    )
    assert [{"name": "small:1", "digest": {"sha256": "5" * 64}}] == document["subject"]
    definition, details = document["predicate"]["buildDefinition"], document["predicate"]["runDetails"]
    assert {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"} == set(definition)
    assert BUILD_TYPE == definition["buildType"]
    assert {"builder": {"id": LOCAL_BUILDER, "version": {"pesto-repro": "0.1"}}, "metadata": {}} == details


def test_its_parameters_are_the_locks() -> None:
    """What was asked is said by the lock's address; the only time is the image's own."""
    lock = make_lock()
    found = predicate(statement([SUBJECT], lock, BUILDER))["buildDefinition"]
    expected = {"project": "small", "profiles": [], "platforms": ["linux/amd64"], "lock": lock.content_hash}
    assert expected == found["externalParameters"]
    assert {"assembly": 1, "compressor": "zlib-ng", "epoch": CREATED} == found["internalParameters"]


def test_every_pinned_input_is_a_dependency() -> None:
    """Wheels, .debs, base, resources, sources, and what sources are built with: exactly these."""
    source = Source(
        kind="git",
        name="https://example.org/wget.git",
        sha256="1" * 64,
        size=1,
        commit="c0ffee",
        requires=(wheel("setuptools", "80"),),
    )
    base = BaseImage(
        original="registry.example/team/Python:3.13",
        manifest=f"sha256:{'2' * 64}",
        media_type="m",
        config=Blob(digest=f"sha256:{'3' * 64}", size=1),
        layers=(),
    )
    before = make_lock(wheel("wget", "3.2", source=source)).platforms[0]
    part = before.model_copy(update={"base": base, "debian": (deb("libx", "4"),), "build": (deb("gcc", "5"),)})
    resources = (
        Resource(key="model", form="file", source="https://example.org/m.bin", to="/m", sha256="6" * 64, size=1),
        Resource(key="tables", form="directory", source="data/tables", to="/t", tree=f"sha256:{'8' * 64}"),
    )
    building = {"annotations": {"use": "build"}}
    expected = [
        {"name": "model", "uri": "https://example.org/m.bin", "digest": {"sha256": "6" * 64}},
        {"name": "tables", "digest": {"sha256": "8" * 64}},
        _pin("gcc_1+b1_amd64.deb", "pkg:deb/debian/gcc@1%2Bb1?arch=amd64&distro=trixie", "5") | building,
        {
            "name": "https://example.org/wget.git",
            "uri": "git+https://example.org/wget.git@c0ffee",
            "digest": {"sha256": "1" * 64, "gitCommit": "c0ffee"},
        }
        | building,
        _pin("libx_1+b1_amd64.deb", "pkg:deb/debian/libx@1%2Bb1?arch=amd64&distro=trixie", "4"),
        _pin("registry.example/team/Python:3.13", f"pkg:oci/python@sha256:{'2' * 64}", "2"),
        _pin("setuptools-80-py3-none-any.whl", "pkg:pypi/setuptools@80", "7") | building,
        _pin("wget-3.2-py3-none-any.whl", "pkg:pypi/wget@3.2", "7"),
    ]
    assert expected == dependencies(with_platforms(make_lock(), part, resources=resources))


def _pin(name: str, address: str, digit: str) -> dict[str, Any]:
    return {"name": name, "uri": address, "digest": {"sha256": digit * 64}}


def test_an_input_of_one_platform_names_it() -> None:
    """One that all platforms share is said once, without."""
    first = make_lock(wheel("numpy", "2"), debian=(deb("libx", "4"),)).platforms[0]
    second = first.model_copy(update={"platform": "linux/arm64", "debian": ()})
    found = dependencies(with_platforms(make_lock(), first, second))
    annotations = {each["name"]: each.get("annotations") for each in found}
    expected = {"libx_1+b1_amd64.deb": {"platforms": ["linux/amd64"]}, "numpy-2-py3-none-any.whl": None}
    assert expected == annotations


def test_the_small_projects_wheels_are_its_dependencies(made: Made) -> None:
    """Of a real lock, compared as sets, in both directions."""
    (platform,) = made.lock.platforms
    expected = {each.wheel.sha256 for each in platform.packages} | {
        each.sha256 or (each.tree or "").removeprefix("sha256:") for each in made.lock.resources
    }
    assert expected == {each["digest"]["sha256"] for each in dependencies(made.lock)}


def test_builders_differ_only_in_who_and_when() -> None:
    """The definition of the build is the same whoever builds."""
    lock = make_lock(wheel("numpy", "2"))
    other = Builder("0.2", "https://ci.example/runner", "https://ci.example/1", CREATED, CREATED)
    one, two = (predicate(statement([SUBJECT], lock, each)) for each in (BUILDER, other))
    assert one["buildDefinition"] == two["buildDefinition"]
    assert {
        "builder": {"id": "https://ci.example/runner", "version": {"pesto-repro": "0.2"}},
        "metadata": {"invocationId": "https://ci.example/1", "startedOn": CREATED, "finishedOn": CREATED},
    } == two["runDetails"]


@pytest.mark.parametrize(
    ("environment", "stated", "name", "invocation"),
    [
        ({}, None, LOCAL_BUILDER, None),
        ({"PESTO_REPRO_BUILDER_ID": "urn:x"}, None, "urn:x", None),
        ({"PESTO_REPRO_BUILDER_ID": "urn:x"}, "urn:y", "urn:y", None),
        (
            {
                "GITHUB_SERVER_URL": "https://hub.example",
                "GITHUB_WORKFLOW_REF": "a/b/.github/workflows/x.yml@refs/heads/main",
                "GITHUB_REPOSITORY": "a/b",
                "GITHUB_RUN_ID": "7",
            },
            None,
            "https://hub.example/a/b/.github/workflows/x.yml@refs/heads/main",
            "https://hub.example/a/b/actions/runs/7",
        ),
        (
            {"CI_PROJECT_URL": "https://lab.example/a", "CI_RUNNER_ID": "9", "CI_JOB_URL": "https://lab.example/j/1"},
            None,
            "https://lab.example/a/-/runners/9",
            "https://lab.example/j/1",
        ),
    ],
)
def test_who_builds(environment: dict[str, str], stated: str | None, name: str, invocation: str | None) -> None:
    """As said on the command line, else by the environment, else nobody in particular."""
    assert Builder(__version__, name, invocation) == builder_of(environment, stated, None, None)


# -- the commit --------------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit, and a project in a folder of it."""
    folder = tmp_path / "repository"
    (folder / "project").mkdir(parents=True)
    (folder / "project/file").write_text("1")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    return folder


def test_the_commit_is_the_projects(repository: Path) -> None:
    """Its repository is named without credentials; what changed elsewhere does not count."""
    git(repository, "remote", "add", "origin", f"https://bob:{SECRET}@example.org/a.git")
    (repository / "elsewhere").write_text("2")
    expected = Commit(git(repository, "rev-parse", "HEAD"), "https://example.org/a.git", dirty=False)
    assert expected == commit_of(repository / "project")
    found = dependencies(make_lock(), expected)
    assert {"name": "project", "uri": f"git+https://example.org/a.git@{expected.hex}"} == {
        key: found[0][key] for key in ("name", "uri")
    }
    assert {"gitCommit": expected.hex} == found[0]["digest"]


@pytest.mark.parametrize("name", ["file", "new"])
def test_changed_files_are_said(name: str, repository: Path) -> None:
    """A file that differs from the commit's, or that the commit has not."""
    (repository / "project" / name).write_text("2")
    commit = commit_of(repository / "project")
    assert commit is not None
    assert commit.dirty
    assert {"dirty": True} == dependencies(make_lock(), commit)[0]["annotations"]


@pytest.mark.parametrize("address", ["/srv/git/a.git", "file:///srv/git/a.git"])
def test_a_folder_of_a_machine_is_no_address(address: str, repository: Path) -> None:
    """Nobody else could follow it."""
    git(repository, "remote", "add", "origin", address)
    commit = commit_of(repository / "project")
    assert commit is not None
    assert None is commit.address


def test_without_a_repository_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And without git there is none either."""
    assert None is commit_of(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert None is commit_of(tmp_path)


# -- the command, and what is attached ---------------------------------------------------------------------------


def test_the_command_writes_it(made: Made, tmp_path: Path) -> None:
    """Of the project and of its archive with the lock: the same, as the small project is in no repository."""
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    project = ["provenance", str(made.small.root), "--store", str(made.small.store), "-o", str(one)]
    archive = ["provenance", str(made.small.output), "--lockfile", str(made.small.lockfile), "-o", str(two)]
    times = ["--builder-id", "urn:x", "--started-on", "2026-01-02T03:04:05Z", "--finished-on", "2026-01-02T03:05:05Z"]
    assert [0, 0] == [run([*project, *times]), run([*archive, *times])]
    assert one.read_bytes() == two.read_bytes()
    assert {"sha256": made.digest.removeprefix("sha256:")} == json.loads(one.read_bytes())["subject"][0]["digest"]
    assert "2026-01-02T03:05:05Z" == predicate(one.read_bytes())["runDetails"]["metadata"]["finishedOn"]


def test_without_a_lock_there_is_none(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """An image alone does not say what it was made of."""
    assert 1 == run(["provenance", str(made.small.output)])
    expected = "error: small:1.0.0 comes without its lock\nhint: name it with --lockfile\n"
    assert expected == capsys.readouterr().err


def test_another_images_lock_is_refused(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A statement about an image must be of its own lock."""
    other = lock_text.seal(made.lock.model_copy(update={"resources": ()}))
    path = tmp_path / "other.lock.toml"
    path.write_text(lock_text.dumps(other))
    assert 1 == run(["provenance", str(made.small.output), "--lockfile", str(path)])
    assert f"not from {other.content_hash}" in capsys.readouterr().err


@pytest.mark.parametrize("moment", ["yesterday", "2026-01-02T03:04:05"])
def test_a_time_has_a_zone(moment: str, capsys: pytest.CaptureFixture[str]) -> None:
    """RFC 3339, or it is a mistake of usage."""
    assert 2 == run(["provenance", "x.tar", "--started-on", moment])
    assert f"'{moment}' is no time like 2026-01-02T03:04:05Z" in capsys.readouterr().err


def test_what_is_attached(tmp_path: Path) -> None:
    """Lock and provenance to the whole image, two bills of materials to the manifest of each platform."""
    store, lock = Store(tmp_path / "store"), make_lock()
    part = lock.platforms[0]
    lock = with_platforms(lock, part, part.model_copy(update={"platform": "linux/arm64"}))
    layers = make_layers(store)
    recipes = [
        Recipe(Platform.parse(name), CREATED, "1:1", labels={"org.pesto-repro.lock": lock.content_hash})
        for name in ("linux/amd64", "linux/arm64")
    ]
    image = assemble_index([assemble(each, layers) for each in recipes])
    content = StoreContent.of(image, store)
    found = of_project(content, documents(content, image.descriptor), lock, "some:1", BUILDER)
    first, second = (each.descriptor.digest for each in image.platforms)
    expected = [
        (LOCK_TYPE, image.digest),
        (CYCLONEDX_TYPE, first),
        (SPDX_TYPE, first),
        (CYCLONEDX_TYPE, second),
        (SPDX_TYPE, second),
        (PROVENANCE_TYPE, image.digest),
    ]
    assert expected == [(each.artifact_type, each.subject) for each in found]
    assert lock == lock_text.loads(found[0].data.decode(), "attached")
    subjects = [
        ("some:1", image.digest.hex, None),
        ("some:1 linux/amd64", first.hex, {"platform": "linux/amd64"}),
        ("some:1 linux/arm64", second.hex, {"platform": "linux/arm64"}),
    ]
    listed = json.loads(found[-1].data)["subject"]
    assert subjects == [(each["name"], each["digest"]["sha256"], each.get("annotations")) for each in listed]


def test_attached_bills_are_those_of_the_command(made: Made) -> None:
    """Byte for byte."""
    archive = LayoutContent.at(made.small.output)
    found = of_project(archive, documents(archive, archive.root()), made.lock, "small:1.0.0", BUILDER)
    assert [made.bills["cyclonedx"], made.bills["spdx"]] == [each.data for each in found[1:3]]
