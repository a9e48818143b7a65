"""``explain``: whatever was changed is named, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pesto_repro.audit.remembered import remember
from pesto_repro.cli.locked import Request, locked
from pesto_repro.plan.step import MAKER_VERSIONS
from pesto_repro.progress import Reporter
from pesto_repro.store import Store
from tests.e2e import update_json
from tests.inside import Done, inside
from tests.relocked import CONFIG, bumped, copied, lock_of, relock
from tests.small_project import SETTINGS, Small, make_small, tar_gz
from tests.test_lock import deb

PROCESS = "algorithm/process.py"


@pytest.fixture(scope="session")
def built_once(runtime_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small project, built; not to be changed."""
    small = make_small(tmp_path_factory.mktemp("explain"), runtime_wheel)
    build(small)
    return small


@pytest.fixture
def small(built_once: Small, tmp_path: Path) -> Small:
    """A copy of it, to be changed."""
    return copied(built_once, tmp_path)


def build(small: Small, *arguments: str) -> Done:
    return inside("build", small.root, *arguments, "-o", small.output, "--store", small.store, env=small.env)


def explain(small: Small, *arguments: str) -> list[str]:
    """Every reason that ``explain --json`` gives, each with its section."""
    found = inside("explain", small.root, *arguments, "--json", "--store", small.store, env=small.env).json
    (platform,) = found["platforms"]
    reasons = [f"{step['section']}: {reason}" for step in platform["steps"] for reason in step["because"]]
    return reasons + [f"image: {reason}" for reason in platform["image"] if "org.pesto-repro.lock" not in reason]


# -- each kind of change -----------------------------------------------------------------------------------------


def edit(path: str, text: str = "# more\n") -> Callable[[Small], None]:
    """Append to a file of the project."""

    def change(small: Small) -> None:
        with (small.root / path).open("a") as file:
            file.write(text)

    return change


def remove(small: Small) -> None:
    (small.root / "algorithm/input_output.py").unlink()


def make_executable(small: Small) -> None:
    (small.root / PROCESS).chmod(0o755)


def set_config(small: Small) -> None:
    update_json(small.root / CONFIG, mark="?")


def set_variable(small: Small) -> None:
    update_json(small.requirements, environments={"LEVEL": "2"})


def replace_model(small: Small) -> None:
    (small.root / "data/model.tar.gz").write_bytes(tar_gz({"model.txt": b"other weights\n"}))


def set_settings(text: str) -> Callable[[Small], None]:
    """Add to image.toml."""

    def change(small: Small) -> None:
        small.settings.write_text(SETTINGS + text)

    return change


def bump(small: Small) -> None:
    relock(small, packages=bumped(small, "beta", "2.1"))


def require_gamma(small: Small) -> None:
    """A requirement that is locked, too."""
    small.settings.write_text(SETTINGS.replace('"beta"', '"beta", "gamma"'))
    packages = lock_of(small).platforms[0].packages
    gamma = next(each for each in packages if each.name == "beta")
    pin = gamma.wheel.model_copy(update={"name": "gamma-3.0-py3-none-any.whl", "sha256": "3" * 64})
    added = gamma.model_copy(update={"name": "gamma", "version": "3.0", "wheel": pin})
    relock(small, packages=tuple(sorted((*packages, added), key=lambda each: each.name)))


def move_python(small: Small) -> None:
    """What another base brings."""
    python = lock_of(small).platforms[0].python
    relock(small, python=python.model_copy(update={"version": "3.13.6"}))


def group_anew(small: Small) -> None:
    small.settings.write_text(SETTINGS + "[layers]\nmax = 3\n")


CHANGES: dict[str, tuple[Callable[[Small], object], list[str]]] = {
    "a source line": (edit(PROCESS), ["algorithm: algorithm/process.py changed"]),
    "a new file": (edit("algorithm/new.py"), ["algorithm: algorithm/new.py was added"]),
    "a removed file": (remove, ["algorithm: algorithm/input_output.py was removed"]),
    "an executable bit": (make_executable, ["algorithm: algorithm/process.py is executable now"]),
    "a config value": (set_config, ['configuration: config.json: mark was "!", is "?"']),
    "a variable": (set_variable, ["image: config: env.LEVEL was nothing, is 2"]),
    "a bumped wheel": (bump, ["python: beta 2.0 -> 2.1"]),
    "a resource": (
        replace_model,
        ["algorithm: data/model.tar.gz changed", "resources: model.tar.gz changed: {old} -> {new}"],
    ),
    "a resource's folder": (
        edit("data/tables/two.txt"),
        ["algorithm: data/tables/two.txt changed", "resources: two.txt changed"],
    ),
    "a requirement": (require_gamma, ["python: gamma 3.0 was added"]),
    "the base's Python": (move_python, ["python: the base's Python was 3.13.5, is 3.13.6"]),
    "a label": (set_settings('[image.labels]\nteam = "eo"\n'), ["image: config: labels.team was nothing, is eo"]),
    "the user": (set_settings('[image]\nuser = "1000"\n'), ["image: config: user was 65532:65532, is 1000"]),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_what_was_changed_is_named(small: Small, change: Callable[[Small], None], expected: list[str]) -> None:
    """By value, at the step that it changes, and at no other; built again, there is nothing to explain."""
    before = {each.key: each.sha256 for each in lock_of(small).resources}
    lock = small.lockfile.read_bytes()
    change(small)
    if lock == small.lockfile.read_bytes():
        relock(small)
    after = {each.key: each.sha256 for each in lock_of(small).resources}
    digests = {"old": f"sha256:{before['model']}", "new": f"sha256:{after['model']}"}
    assert [each.format(**digests) for each in expected] == explain(small)


def test_nothing_is_left_to_explain_after_a_build(small: Small) -> None:
    """Nor before a first change; the changed state is the one to compare with from then on."""
    assert [] == explain(small)
    edit(PROCESS)(small)
    build(small)
    assert [] == explain(small)
    make_executable(small)
    assert ["algorithm: algorithm/process.py is executable now"] == explain(small)


def test_a_profile_s_key_is_named(small: Small) -> None:
    """The first build with a profile is compared with the last one without, later ones with their own."""
    relock(small, "p1")
    prefix = json.loads((small.root / "pesto/api/config.p1.json").read_text())
    reasons = explain(small, "-p", "p1")
    assert [f"configuration: config.json: {key}" for key in sorted(prefix)] == [
        each.partition(" was ")[0] for each in reasons if each.startswith("configuration")
    ]
    assert "image: config: env.PESTO_PROFILE was , is p1" in reasons
    build(small, "-p", "p1")
    update_json(small.root / "pesto/api/config.p1.json", mark="#")
    relock(small, "p1")
    (reason,) = explain(small, "-p", "p1")
    assert reason.startswith("configuration: config.json: mark was ")
    assert reason.endswith(', is "#"')


def test_packages_that_are_grouped_anew(small: Small) -> None:
    """With another layers.max a package comes from another layer, and that is what is said."""
    group_anew(small)
    relock(small)
    reasons = explain(small)
    assert any("came from another layer" in each and each.endswith("layers.max was 40, is 3") for each in reasons)
    assert "image: layers.max was 40, is 3" in reasons


def test_debian_packages_by_version(small: Small) -> None:
    """Both steps that depend on one: its own, and the system's files."""
    old, new = (tuple([deb("libc6", version), deb("zlib1g", "1.3")]) for version in ("2.41-1", "2.41-2"))
    relock(small, debian=old)
    found = locked(Request(small.root), Reporter(), Store(small.store))
    remember(found.plans, found.lock, Store(small.store))
    relock(small, debian=new)
    reasons = [each for each in explain(small) if "libc6" in each]
    assert ["debian: libc6 2.41-1 -> 2.41-2"] * 2 == reasons


def test_an_embedded_lock_on_debian_packages(small: Small) -> None:
    """Its step is compared with the last lock's, whatever links the base has: what the lock pins otherwise is said."""
    small.settings.write_text(SETTINGS + "[image]\nembed-lock = true\n")
    relock(small, debian=(deb("libc6", "2.41-1"), deb("zlib1g", "1.3")))
    found = locked(Request(small.root), Reporter(), Store(small.store))
    remember(found.plans, found.lock, Store(small.store))
    relock(small, packages=bumped(small, "beta", "2.1"))
    assert ["lock: lock: ~ beta 2.0 -> 2.1"] == [each for each in explain(small) if each.startswith("lock:")]


def test_another_version_of_a_maker(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program itself is an input."""
    monkeypatch.setitem(MAKER_VERSIONS, "tree", 99)
    assert "algorithm: the maker of tree is another: version 1, now 99" in explain(small)


def test_a_layer_that_was_thrown_away(small: Small) -> None:
    """Nothing changed, and still it is to be made."""
    for record in (small.store / "records/layer").iterdir():
        record.unlink()
    assert {"none of its inputs changed; its layer is not in the store"} == {
        each.partition(": ")[2] for each in explain(small)
    }


def test_where_nothing_was_built(small: Small) -> None:
    """Nothing is guessed."""
    shutil.rmtree(small.store)
    assert {"the project was never built here"} == {each.partition(": ")[2] for each in explain(small)}


# -- how it is told ----------------------------------------------------------------------------------------------


def test_one_step(small: Small) -> None:
    """By its section, its name, a word of that or its key; what is no step is an error that says where they are."""
    edit(PROCESS)(small)
    plan = inside("plan", small.root, "--json", "--store", small.store, env=small.env).json
    key = next(each["step"] for each in plan["platforms"][0]["steps"] if each["section"] == "algorithm")
    expected = f"linux/amd64\n  {key[7:19]}  to make       algorithm      algorithm small\n      {PROCESS} changed\n"
    for name in ("algorithm", "algorithm small", "small", key, key[7:15]):
        assert expected == inside("explain", small.root, name, "--store", small.store, env=small.env).stdout
    done = inside("explain", small.root, "gamma", "--store", small.store, env=small.env, code=1)
    hint = f"hint: list them with `pesto-repro plan {small.root}`\n"
    assert f"error: no step of the image is called gamma\n{hint}" == done.stderr


def test_drift_is_named_before(small: Small) -> None:
    """A requirement that is not locked yet."""
    small.settings.write_text(SETTINGS.replace('"beta"', '"beta", "gamma"'))
    done = inside("explain", small.root, "--store", small.store, env=small.env, code=1)
    assert "gamma was added to python.requires" in done.stderr


def test_a_build_that_changes_nothing_writes_no_record(small: Small) -> None:
    """A warm build stays as fast as it was."""
    folders = [small.store / "records" / kind for kind in ("explain", "last")]

    def state() -> list[tuple[str, int]]:
        return [(path.name, path.stat().st_ino) for folder in folders for path in sorted(folder.iterdir())]

    before = state()
    build(small)
    assert before == state()
