"""From a lock to steps: keys that say what decides the bytes, groups that stay as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pesto_repro.build.realise import MAKERS
from pesto_repro.digest import Digest
from pesto_repro.errors import BuildError
from pesto_repro.lock.model import Lock, Resource
from pesto_repro.oci import Descriptor, Layer, MediaType, Platform, Recipe, assemble
from pesto_repro.plan import Pinned, Plan, Step, Tree, TreeFile, group, make_plan
from pesto_repro.plan.grouping import OUTLIER
from pesto_repro.plan.make import in_root, tree_digest
from pesto_repro.plan.root import LINKS, real
from pesto_repro.plan.step import MAKER_VERSIONS
from pesto_repro.project import Project, Reference, Settings
from pesto_repro.project.requirements import ResourceSpec
from tests.test_lock import asked, deb, platform, sealed, sha256, wheel

_INPUT = Pinned("a.whl", Digest.of(b"a"), 1)


# -- keys --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("archive", "c125977d0d7e36572ddf6bedf1defc84257ce3fada33a16a649762fda0d8b001"),
        ("debian-system", "1861315d9cfb11407017d0aff33070eb3fb169887adfa9822029c149efd66f6e"),
        ("debs", "20f381d2d17c71b113fc6e85d2dc7fb197fa2d5dfefbd9704b468100de768f3b"),
        ("documents", "99a17b004dd5898d6a1bd1cffd9f879c8f77851453f39ed3e1462c5c1d1e54cc"),
        ("file", "9698f048e59160c971a7a4e9a96a74ff689d974190e54a0c2c0c1ff2c0a61a7a"),
        ("tree", "7e0128bb2a2ab86356c9e34142ebcd3c5dbbfc6481ff31e860ffd279483a896a"),
        ("venv", "04a52358da38d26bd0eab593072551b2fc4e3d091b114e5d97e510658abaa130"),
        ("wheels", "e4c8ae595f138bbe5f866d1263acbd25730ed6021c8d06072c2ece627c8a538c"),
    ],
)
def test_golden_keys(kind: str, key: str) -> None:
    """One known key per kind: another one means that every store forgets its layers of this kind."""
    step = Step(kind, "name", "section", {"to": "opt/a", "list": [1, "é", None, True]}, (_INPUT,))
    assert key == step.key.hex


def test_every_kind_has_a_version_and_a_maker() -> None:
    """A kind without a version could not tell that its maker changed."""
    assert set(MAKERS) == set(MAKER_VERSIONS)


def test_a_key_is_not_about_names_sizes_and_sections() -> None:
    """What only people read must not rebuild a layer."""
    step = Step("wheels", "numpy", "python", {"a": 1, "b": 2}, (_INPUT,))
    same = Step("wheels", "other", "runtime", {"b": 2, "a": 1}, (replace(_INPUT, size=None),))
    assert step.key == same.key


@pytest.mark.parametrize(
    "other",
    [
        Step("debs", "numpy", "python", {"a": 1}, (_INPUT,)),
        Step("wheels", "numpy", "python", {"a": 2}, (_INPUT,)),
        Step("wheels", "numpy", "python", {"a": "1"}, (_INPUT,)),
        Step("wheels", "numpy", "python", {}, (_INPUT,)),
        Step("wheels", "numpy", "python", {"a": 1}),
        Step("wheels", "numpy", "python", {"a": 1}, (_INPUT, _INPUT)),
        Step("wheels", "numpy", "python", {"a": 1}, (replace(_INPUT, name="b.whl"),)),
        Step("wheels", "numpy", "python", {"a": 1}, (replace(_INPUT, digest=Digest.of(b"b")),)),
    ],
)
def test_a_key_is_about_everything_that_decides_bytes(other: Step) -> None:
    """Kind, parameters, inputs, their names and their digests."""
    assert other.key != Step("wheels", "numpy", "python", {"a": 1}, (_INPUT,)).key


def test_a_key_holds_no_float() -> None:
    """Its text would depend on who prints it."""
    with pytest.raises(TypeError, match=r"^a float has no canonical text: 1\.5$"):
        _ = Step("venv", "", "", {"a": [1.5]}).key


def test_the_weight_of_a_step() -> None:
    """All inputs whose size is known."""
    inputs = (_INPUT, replace(_INPUT, size=None), replace(_INPUT, size=41))
    assert 42 == Step("wheels", "", "", {}, inputs).weight


# -- groups ------------------------------------------------------------------------------------------------------

_SIZES = st.dictionaries(st.text("abcdefgh-", min_size=1, max_size=4), st.integers(0, 4 * OUTLIER), max_size=60).map(
    lambda found: list(found.items())
)
_LIMITS = st.integers(1, 60)


def _where(groups: tuple[tuple[str, ...], ...]) -> dict[str, tuple[str, ...]]:
    return {name: names for names in groups for name in names}


@given(_SIZES, _LIMITS)
def test_every_package_is_in_one_of_at_most_so_many_groups(sizes: list[tuple[str, int]], limit: int) -> None:
    """Nothing is dropped, nothing is there twice, no group is empty, names in a group are sorted."""
    groups = group(sizes, limit)
    assert len(groups) <= limit
    assert sorted(name for name, _ in sizes) == sorted(name for names in groups for name in names)
    assert all(names and list(names) == sorted(names) for names in groups)


@given(_SIZES, _LIMITS, st.randoms(use_true_random=False))
def test_groups_do_not_depend_on_the_order(sizes: list[tuple[str, int]], limit: int, rng: Any) -> None:
    """A set in, the same groups in the same order out."""
    shuffled = sizes.copy()
    rng.shuffle(shuffled)
    assert group(sizes, limit) == group(shuffled, limit)


@given(_SIZES, _LIMITS, st.data())
def test_a_package_that_stays_small_moves_nobody(sizes: list[tuple[str, int]], limit: int, data: st.DataObject) -> None:
    """A new version of other size, below the threshold: the groups are the same."""
    small = [each for each in sizes if each[1] < OUTLIER]
    assume(small)
    name, _ = data.draw(st.sampled_from(small))
    bumped = [(each, data.draw(st.integers(0, OUTLIER - 1)) if each == name else size) for each, size in sizes]
    assert group(sizes, limit) == group(bumped, limit)


@given(_SIZES, _LIMITS, st.text("ijk", min_size=1, max_size=3), st.integers(0, OUTLIER - 1))
def test_a_small_package_that_is_added_changes_one_group(
    sizes: list[tuple[str, int]], limit: int, name: str, size: int
) -> None:
    """All others are as they were, and so are their layers."""
    before, after = set(group(sizes, limit)), set(group([*sizes, (name, size)], limit))
    assert 1 == len(after - before)
    assert len(before - after) <= 1


@given(_SIZES, _LIMITS)
def test_the_largest_are_alone(sizes: list[tuple[str, int]], limit: int) -> None:
    """Half of the groups are for the outliers, largest first."""
    where = _where(group(sizes, limit))
    largest = sorted((each for each in sizes if each[1] >= OUTLIER), key=lambda each: (-each[1], each[0]))
    assert all((name,) == where[name] for name, _ in largest[: limit // 2])


# -- paths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/opt/a", "opt/a"),
        ("/opt//a/./b/", "opt/a/b"),
        ("//opt/a", "opt/a"),
        ("/", ""),
        ("/lib/../etc/a", "etc/a"),
    ],
)
def test_paths_below_the_root(path: str, expected: str) -> None:
    """Absolute in what users write, relative in a layer."""
    assert expected == in_root(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("lib", "usr/lib"),
        ("lib64/ld.so", "usr/lib64/ld.so"),
        ("bin/tool", "usr/bin/tool"),
        ("sbin/tool", "usr/sbin/tool"),
        ("var/run/a.pid", "run/a.pid"),
        ("var/lock", "run/lock"),
        ("usr/lib/a", "usr/lib/a"),
        ("library/a", "library/a"),
        ("opt/lib/a", "opt/lib/a"),
        ("", ""),
    ],
)
def test_where_paths_really_lie(path: str, expected: str) -> None:
    """Debian's /bin, /sbin and /lib* are links, two of /var as well; without links every path is what it says."""
    assert expected == real(path, LINKS)
    assert path == real(path, {})


# -- trees -------------------------------------------------------------------------------------------------------

_TREE: Tree = (
    TreeFile("b/run.sh", sha256("run"), 3, executable=True),
    TreeFile("a.py", sha256("a"), 1),
    TreeFile("same.py", sha256("a"), 1),
    TreeFile("link", target="a.py"),
)


def test_an_empty_directory_counts(tmp_path: Path) -> None:
    """With a digest that is pinned, too; in a step it is no input."""
    tree = (*_TREE, TreeFile("empty/"))
    assert "55e24870904fc6e7a59e583824d1bd6f4b9d18a980db75000e9ff0cc4e9fdc2c" == tree_digest(tree).hex
    lock = a_lock()
    (step,) = [each for each in planned(lock, a_project(tmp_path), tree).steps if each.section == "algorithm"]
    assert ["empty/", "", 0, False, None] in step.params["files"]
    assert {sha256("a"), sha256("run")} == {each.digest.hex for each in step.inputs}


def test_the_digest_of_a_tree() -> None:
    """Pinned, and independent of the order in which a folder was read."""
    assert "9feb58d7b505f9204f2b3d13003e45ddb53b465583ccbf52a8fe38bc5d626fa0" == tree_digest(_TREE).hex
    assert tree_digest(_TREE) == tree_digest(tuple(reversed(_TREE)))


@pytest.mark.parametrize("change", [{"path": "c"}, {"sha256": sha256("x")}, {"executable": True}, {"target": "x"}])
def test_the_digest_of_another_tree(change: dict[str, Any]) -> None:
    """Path, content, executable bit and target of a link each make another one."""
    assert tree_digest(_TREE) != tree_digest((*_TREE[:1], replace(_TREE[1], **change), *_TREE[2:]))


# -- plans -------------------------------------------------------------------------------------------------------

RESOURCES = (
    Resource(
        key="archive",
        form="archive",
        source="https://example.org/model.zip?v=1",
        to="/opt/model",
        sha256=sha256("zip"),
        size=3,
    ),
    Resource(key="file", form="file", source="weights.bin", to="/lib/data/", sha256=sha256("w"), size=4),
    Resource(key="folder", form="directory", source="data", to="/opt/data", tree=str(tree_digest(_TREE))),
    Resource(key="named", form="file", source="weights.bin", to="/opt/w", sha256=sha256("w"), size=4),
    Resource(key="pip", form="file", source="model.whl", to="/opt/wheels/", sha256=sha256("model"), size=5),
)


def a_lock(**changed: Any) -> Lock:
    """With Debian packages, wheels, the runtime and one resource of each form."""
    wheels = (wheel("idna", "3.11"), wheel("numpy", "2.3.1", 20 << 20), wheel("processing-factory", "1.7.2"))
    return sealed(
        platform("linux/amd64", *wheels, debian=(deb("libc6", "2.41-12"), deb("libgl1", "1.7.0"))),
        asked_for=asked(profiles=("p1", "p2"), labels={"a": "b"}, **changed),
        resources=RESOURCES,
    )


def a_project(tmp_path: Path, **changed: Any) -> Project:
    """What such a lock could have been made of."""
    project = Project(
        root=tmp_path,
        name="hello",
        reference=Reference("hello", "1.0"),
        profiles=("p1", "p2"),
        merge="root",
        documents={"description": {"name": "hello", "title": "Hello", "version": "1.0", "description": "Says hello"}},
        settings=Settings(),
        requires=(),
        constraints=(),
        index_options=(),
        resources=(
            ResourceSpec("archive", "https://example.org/model.zip?v=1", "/opt/model"),
            ResourceSpec("file", "weights.bin", "/lib/data/", "python"),
            ResourceSpec("folder", "data", "/opt/data"),
            ResourceSpec("named", "weights.bin", "/opt/w"),
            ResourceSpec("pip", "model.whl", "/opt/wheels/", "pip"),
        ),
        environments={"A": "1", "B": "$A-$PATH", "PYTHONPATH": "/own"},
        docker_base_image=None,
        warnings=(),
    )
    return replace(project, **changed)


def planned(lock: Lock, project: Project, files: Tree = _TREE) -> Plan:
    return make_plan(lock, lock.platforms[0], project, files, {"folder": _TREE})


def test_the_steps_of_a_plan(tmp_path: Path) -> None:
    """In the order of PESTO's build; a wheel of ``type: pip`` is no resource layer, whatever its ``to``."""
    plan = planned(a_lock(), a_project(tmp_path))
    assert [
        ("debs", "debian", "libgl1"),
        ("debs", "debian", "libc6"),
        ("debian-system", "debian", "system files"),
        ("venv", "python", "virtual environment of Python 3.13"),
        ("wheels", "python", "numpy 2.3.1"),
        ("wheels", "python", "idna 3.11"),
        ("wheels", "runtime", "processing-factory 1.7.2"),
        ("tree", "algorithm", "algorithm hello"),
        ("documents", "configuration", "configuration"),
        ("archive", "resources", "archive"),
        ("file", "resources", "file"),
        ("tree", "resources", "folder"),
        ("file", "resources", "named"),
    ] == [(step.kind, step.section, step.name) for step in plan.steps]
    assert Platform("linux", "amd64") == plan.platform


def test_where_resources_land(tmp_path: Path) -> None:
    """A slash at the end means "into that folder"; an archive keeps its name without the query."""
    steps = {step.name: step for step in planned(a_lock(), a_project(tmp_path)).steps}
    assert ({"to": "opt/model", "links": LINKS}, "model.zip") == (
        steps["archive"].params,
        steps["archive"].inputs[0].name,
    )
    assert {"to": "lib/data/weights.bin", "links": LINKS} == steps["file"].params
    assert {"to": "opt/w", "links": LINKS} == steps["named"].params
    assert ("opt/data", LINKS) == (steps["folder"].params["root"], steps["folder"].params["links"])


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("file://m.zip", "m.zip"),
        ("we?ird.zip", "we?ird.zip"),
        ("sub/a#b.zip", "a#b.zip"),
        ("https://example.org/x/m.zip?v=1#top", "m.zip"),
    ],
)
@pytest.mark.parametrize("form", ["archive", "file"])
def test_the_name_of_a_resource(tmp_path: Path, source: str, name: str, form: Any) -> None:
    """That of the file, as the project reads its source: a local path has no query and no fragment."""
    resource = Resource(key="m", form=form, source=source, to="/opt/", sha256=sha256("m"), size=1)
    lock = a_lock().model_copy(update={"resources": (resource,)})
    *_, step = planned(lock, a_project(tmp_path, resources=(ResourceSpec("m", source, "/opt/"),))).steps
    assert ("m", name) == (step.name, step.inputs[0].name)
    assert ("opt" if form == "archive" else f"opt/{name}") == step.params["to"]


def test_a_base_without_links(tmp_path: Path) -> None:
    """Where nothing is known of a base, paths are what they say; the keys tell."""
    lock = a_lock()
    bare = lock.model_copy(update={"platforms": (lock.platforms[0].model_copy(update={"debian": ()}),)})
    one, other = (planned(each, a_project(tmp_path)).steps[-1] for each in (lock, bare))
    assert (LINKS, {}) == (one.params["links"], other.params["links"])
    assert one.key != other.key


def test_the_algorithm_s_step(tmp_path: Path) -> None:
    """Its key is independent of the order of files; equal files are one input; a link has none."""
    one = planned(a_lock(), a_project(tmp_path))
    other = planned(a_lock(), a_project(tmp_path), tuple(reversed(_TREE)))
    assert [step.key for step in one.steps] == [step.key for step in other.steps]
    (step,) = [step for step in one.steps if step.section == "algorithm"]
    assert {sha256("a"), sha256("run")} == {each.digest.hex for each in step.inputs}
    assert ["a.py", "b/run.sh", "link", "same.py"] == [each[0] for each in step.params["files"]]


def test_editing_the_algorithm_changes_one_step(tmp_path: Path) -> None:
    """Unlike in a Dockerfile, what is above an edited layer stays as it is."""
    lock, project = a_lock(), a_project(tmp_path)
    before, after = planned(lock, project), planned(lock, project, _TREE[1:])
    assert ["algorithm"] == [
        one.section for one, other in zip(before.steps, after.steps, strict=True) if one.key != other.key
    ]
    assert before.recipe == after.recipe


def test_nothing_pinned_is_dropped(tmp_path: Path) -> None:
    """Every artifact of the lock that has a place in the image is an input of a step."""
    lock = a_lock()
    inputs = {each.digest.hex for step in planned(lock, a_project(tmp_path)).steps for each in step.inputs}
    (locked,) = lock.platforms
    pinned = {each.wheel.sha256 for each in locked.packages} | {each.sha256 for each in locked.debian}
    pinned |= {each.sha256 for each in lock.resources if each.sha256 and each.key != "pip"}
    assert pinned <= inputs


@given(st.integers(3, 120), st.integers(0, 150), st.integers(0, 150))
def test_packages_take_no_more_layers_than_allowed(limit: int, wheels: int, debs: int) -> None:
    """Debian's and Python's together, the runtime too."""
    packages = [wheel(f"p{number}", "1", 2 << 20) for number in range(wheels)]
    debian = tuple(deb(f"d{number}", "1", size=2 << 20) for number in range(debs))
    lock = sealed(
        platform("linux/amd64", *packages, wheel("processing-factory", "1"), debian=debian),
        asked_for=asked(max_layers=limit),
    )
    plan = planned(lock, a_project(Path("/project")))
    assert limit >= sum(step.kind in ("wheels", "debs") for step in plan.steps)


def test_the_recipe(tmp_path: Path) -> None:
    """The image's environment, in the order of PESTO's build, and what registries show of it."""
    lock = a_lock()
    recipe = planned(lock, a_project(tmp_path)).recipe
    system = "/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert (
        f"PATH={system}",
        "LANG=C.UTF-8",
        "PESTO_PROFILE=p1-p2",
        "A=1",
        f"B=1-{system}",
        "PYTHONPATH=/own:/opt/hello:/lib/data",
    ) == recipe.env
    assert {
        "org.opencontainers.image.title": "Hello",
        "org.opencontainers.image.version": "1.0",
        "org.opencontainers.image.description": "Says hello",
        "org.pesto-repro.lock": lock.content_hash,
        "a": "b",
    } == recipe.labels
    assert ("65532:65532", ("processing",), ("8080/tcp",), "2026-01-10T09:40:37Z") == (
        recipe.user,
        recipe.cmd,
        recipe.ports,
        recipe.created,
    )


def test_without_profiles_and_paths(tmp_path: Path) -> None:
    """PESTO_PROFILE is empty, and PYTHONPATH has no empty part (which would mean the working directory)."""
    lock = sealed(platform("linux/amd64", wheel("processing-factory", "1.7.2")))
    recipe = planned(lock, a_project(tmp_path, environments={}, resources=())).recipe
    assert {"PESTO_PROFILE=", "PYTHONPATH=/opt/hello"} <= set(recipe.env)


def test_too_many_layers() -> None:
    """Engines on overlayfs take 127: one more is an error that says what to do."""
    recipe = Recipe(Platform("linux", "amd64"), "1980-01-01T00:00:00Z", "0")
    layer = Layer("python", "x", "sha256:0", Descriptor(MediaType.LAYER, Digest.of(b""), 0), Digest.of(b""))
    assert 127 == len(assemble(recipe, [layer] * 127).layers)
    with pytest.raises(BuildError) as caught:
        assemble(recipe, [layer] * 128)
    assert "the image would have 128 layers; engines take at most 127" == caught.value.message
    assert "lower [layers] max in pesto/build/image.toml, or join resources into one archive" == caught.value.hint
