"""``diff``: two things that differ in some respects differ in exactly those, whatever they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.audit.diff import Side, differences
from pesto_repro.errors import PestoError
from tests import altered
from tests.e2e import update_json
from tests.inside import Done, inside
from tests.registries import LiveRegistry
from tests.relocked import CONFIG, bumped, copied, lock_of, relock
from tests.small_project import SETTINGS, Small, make_small
from tests.test_lock import deb

PROFILE = "pesto/api/config.p1.json"


@pytest.fixture(scope="session")
def built_before(runtime_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small project, locked with and without a profile, and built with it; not to be changed."""
    small = make_small(tmp_path_factory.mktemp("diff"), runtime_wheel)
    relock(small, "p1")
    build(small)
    return small


@pytest.fixture(scope="session")
def built_after(built_before: Small, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The same with one wheel bumped, one variable more, one key of the profile changed."""
    small = copied(built_before, tmp_path_factory.mktemp("after"))
    update_json(small.root / PROFILE, prefix="[new]")
    update_json(small.requirements, environments={"LEVEL": "2"})
    relock(small, "p1", packages=bumped(small, "beta", "2.1"))
    build(small)
    return small


def build(small: Small) -> None:
    inside("build", small.root, "-p", "p1", "-o", small.output, "--store", small.store, env=small.env)


def lockfile(small: Small) -> Path:
    return small.root / "lockfiles/small.p1.lock.toml"


def diff(one: str | Path, other: str | Path, *arguments: str) -> dict[str, Any]:
    """``diff --json``: what it printed."""
    return inside("diff", one, other, "--json", *arguments).json


def told(found: dict[str, Any]) -> list[tuple[str, str, str | None, str | None]]:
    """The differences without sizes."""
    return [(each["area"], each["name"], each["before"], each["after"]) for each in found["differences"]]


THREE = [
    ("python", "beta", "2.0", "2.1"),
    ("settings", "environments", None, "LEVEL=2"),
    ("documents", "config.json: prefix", '"[P1]"', '"[new]"'),
]


def test_three_changes_are_three_differences(built_before: Small, built_after: Small) -> None:
    """Between two locks in their projects: one wheel, one variable, one key of a profile, and nothing else."""
    found = diff(lockfile(built_before), lockfile(built_after))
    assert (THREE, False) == (told(found), found["equal"])
    wheels = [
        small.wheels / f"beta-{version}-py3-none-any.whl"
        for small, version in ((built_after, "2.0"), (built_after, "2.1"))
    ]
    sizes = [each.stat().st_size for each in wheels]
    assert sizes == [found["differences"][0][key] for key in ("before_size", "after_size")]
    back = diff(lockfile(built_after), lockfile(built_before))
    assert [(area, name, after, before) for area, name, before, after in THREE] == told(back)


def test_for_people(built_before: Small, built_after: Small) -> None:
    """The same as a short table; the exit code tells only if asked to, as with git."""
    done = inside("diff", lockfile(built_before), lockfile(built_after))
    lines = done.stdout.splitlines()
    assert ["python", "settings", "  + environments LEVEL=2", "documents"] == [lines[0], *lines[2:5]]
    assert lines[1].startswith("  ~ beta 2.0 -> 2.1  [")
    assert '  ~ config.json: prefix "[P1]" -> "[new]"' == lines[5]
    assert 6 == len(lines)
    assert 1 == inside("diff", lockfile(built_before), lockfile(built_after), "--exit-code", code=1).code
    assert "no difference\n" == inside("diff", lockfile(built_after), lockfile(built_after), "--exit-code").stdout


def test_a_lock_away_from_its_project(built_before: Small, built_after: Small, tmp_path: Path) -> None:
    """It has documents by digest only: which one changed is said, and no key is guessed."""
    alone = Path(shutil.copy(lockfile(built_before), tmp_path))
    names = [(each["area"], each["name"]) for each in diff(alone, lockfile(built_after))["differences"]]
    assert [("python", "beta"), ("settings", "environments"), ("documents", "config.json")] == names


def test_locks_that_lie_together(built_before: Small, built_after: Small, tmp_path: Path) -> None:
    """Several projects may keep their locks in one folder, which their pyproject.toml names: it says the same."""
    locks = []
    for small, folder in ((built_before, tmp_path / "one"), (built_after, tmp_path / "other")):
        shutil.copytree(small.root, folder / "services/small", ignore=shutil.ignore_patterns("lockfiles"))
        shutil.copytree(small.root, folder / "services/aside")
        build_json = folder / "services/aside/pesto/build/build.json"
        build_json.write_text(build_json.read_text().replace("small", "aside"))
        (folder / "pyproject.toml").write_text('[tool.pesto-repro]\nlockfiles = "locks"\n')
        (folder / "locks").mkdir()
        locks.append(Path(shutil.copy(lockfile(small), folder / "locks")))
    one, other = locks
    assert THREE == told(diff(one, other))


def test_a_document_that_is_not_the_locked_one(built_before: Small, built_after: Small, tmp_path: Path) -> None:
    """A project that went on since it was locked does not speak for its lock."""
    moved = copied(built_before, tmp_path)
    update_json(moved.root / PROFILE, prefix="[later]")
    assert ("documents", "config.json") in [each[:2] for each in told(diff(lockfile(moved), lockfile(built_after)))]


def test_projects(built_before: Small, built_after: Small, tmp_path: Path) -> None:
    """A project is its lock: here those without profiles, in which only what was changed here differs."""
    changed = copied(built_before, tmp_path)
    update_json(changed.root / CONFIG, mark="?")
    changed.settings.write_text(SETTINGS + '[image.labels]\nteam = "eo"\n')
    relock(changed)
    expected = [("settings", "image.labels", None, "team=eo"), ("documents", "config.json: mark", '"!"', '"?"')]
    assert expected == told(diff(built_before.root, changed.root))
    assert expected == told(diff(built_before.lockfile, changed.root))
    shutil.rmtree(changed.root / "lockfiles")
    done = inside("diff", built_before.root, changed.root, code=1)
    assert f"error: there is no lock at {changed.lockfile}\n" in done.stderr


def test_debian_packages_resources_and_the_base(built_before: Small, tmp_path: Path) -> None:
    """Whatever a lock pins, by its name."""
    one, other = copied(built_before, tmp_path / "one"), copied(built_before, tmp_path / "other")
    relock(one, debian=(deb("libc6", "2.41-1"), deb("zlib1g", "1.3")))
    (other.root / "data/note.txt").write_text("another note\n")
    python = lock_of(other).platforms[0].python.model_copy(update={"version": "3.13.6"})
    relock(other, debian=(deb("libc6", "2.41-2"), deb("tzdata", "2026a")), python=python)
    names = [(area, name) for area, name, _, _ in told(diff(one.lockfile, other.lockfile))]
    debian = [("debian", "libc6"), ("debian", "tzdata"), ("debian", "zlib1g")]
    assert [("base", "Python"), *debian, ("resources", "note")] == names


# -- images ------------------------------------------------------------------------------------------------------


def test_images(built_before: Small, built_after: Small) -> None:
    """Packages out of the layers, the config and the documents by key, layers, and what a client would download."""
    found = diff(built_before.output, built_after.output)
    plain = [each for each in told(found) if each[0] != "layers"]
    variable = ("config", "Env.LEVEL", None, '"2"')
    assert [THREE[0], THREE[2], variable] == plain
    layers = [(each["name"], each["after"] is not None) for each in found["differences"] if each["area"] == "layers"]
    assert [("configuration: configuration", False), ("configuration: configuration", True)] == [
        each for each in sorted(layers) if each[0].startswith("configuration")
    ]
    new = [each for each in found["differences"] if each["area"] == "layers" and each["after"]]
    (download,) = found["downloads"]
    assert (len(new), sum(each["after_size"] for each in new)) == (download["new"], download["new_bytes"])
    inspected = inside("inspect", built_after.output, "--json").json["platforms"][0]
    assert len(inspected["layers"]) == download["new"] + download["shared"]
    assert inspected["size"] == download["new_bytes"] + download["shared_bytes"]


def test_files_of_images(built_before: Small, tmp_path: Path) -> None:
    """With ``--files``, what differs of each file of the layers that are not shared."""
    layout, path = tmp_path / "image", "opt/tables/one.txt"
    inside("copy", built_before.output, f"oci:{layout}")
    altered.alter(layout, path, altered.field(path, mode=0o755))
    files = [each for each in told(diff(built_before.output, layout, "--files")) if each[0] == "files"]
    assert [("files", f"{path}: mode", "0644", "0755")] == files
    assert "files" not in [each[0] for each in told(diff(built_before.output, layout))]


def test_equal_images(built_before: Small, tmp_path: Path) -> None:
    """An archive and a layout of one image do not differ; one whose history was changed does, in its form."""
    layout = tmp_path / "image"
    inside("copy", built_before.output, f"oci:{layout}")
    assert "no difference\n" == inside("diff", built_before.output, layout, "--exit-code").stdout
    altered.alter_config(layout, lambda config: config["history"][0].update(comment="x"))
    done = inside("diff", built_before.output, layout, "--exit-code", code=1)
    assert "the images differ in their form only: in history, compression or the order of layers" in done.stdout


def test_an_image_and_a_lock(built_before: Small, built_after: Small) -> None:
    """What both know: packages, by the image's layers, and the project's documents."""
    assert [THREE[0], THREE[2]] == told(diff(built_before.output, lockfile(built_after)))
    assert [] == told(diff(built_before.output, lockfile(built_before)))


@pytest.mark.judge
def test_a_registry_s_image(built_before: Small, built_after: Small, plain_registry: LiveRegistry) -> None:
    """The same as of its archive."""
    reference = f"{plain_registry.host}/team/small:1"
    inside("push", built_before.output, reference)
    expected = diff(built_before.output, built_after.output)["differences"]
    assert expected == diff(reference, built_after.output)["differences"]


def test_images_with_their_locks_inside(built_before: Small, tmp_path: Path) -> None:
    """Their packages are known with sizes, and no layer need be read for them."""
    one, other = copied(built_before, tmp_path / "one"), copied(built_before, tmp_path / "other")
    for small in (one, other):
        small.settings.write_text(SETTINGS + "[image]\nembed-lock = true\n")
        relock(small, packages=bumped(small, "beta", "2.1") if small is other else None)
        inside("build", small.root, "-o", small.output, "--store", small.store, env=small.env)
    found = diff(one.output, other.output)
    assert [lock_of(each).content_hash for each in (one, other)] == [found[side]["lock"] for side in ("a", "b")]
    package, *others = found["differences"]
    assert ("python", "beta", "2.0", "2.1") == tuple(package[key] for key in ("area", "name", "before", "after"))
    assert None not in (package["before_size"], package["after_size"])
    assert {"layers"} == {each["area"] for each in others}


# -- plans -------------------------------------------------------------------------------------------------------


def test_plans(built_before: Small, built_after: Small, tmp_path: Path) -> None:
    """What ``plan --json`` printed: which steps have other keys."""
    for name, small in (("one", built_before), ("other", built_after)):
        plan = inside("plan", small.root, "-p", "p1", "--json", "--store", small.store, env=small.env)
        (tmp_path / f"{name}.json").write_text(plan.stdout)
    found = diff(tmp_path / "one.json", tmp_path / "other.json")
    names = [(name, before is not None, after is not None) for _, name, before, after in told(found)]
    assert ("configuration: configuration", True, True) in names
    assert {"steps"} == {each["area"] for each in found["differences"]}


def test_what_cannot_be_compared(built_before: Small, tmp_path: Path) -> None:
    """A plan and a lock have nothing in common; a file of JSON need not be a plan."""
    plan = Side("plan.json", "plan", plan={"platforms": []})
    with pytest.raises(PestoError, match="cannot be compared: a plan and a lock"):
        differences(plan, Side("a.lock.toml", "lock", lock_of(built_before)))
    (tmp_path / "x.json").write_text(json.dumps({"platforms": [{}]}))
    done: Done = inside("diff", tmp_path / "x.json", built_before.root, code=1)
    assert f"error: {tmp_path / 'x.json'} is not what `plan --json` prints\n" in done.stderr
