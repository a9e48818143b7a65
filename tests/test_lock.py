"""The lock as text and as values: canonical, sealed, and how a project may drift from it."""

from __future__ import annotations

from typing import Any

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.digest import Digest
from pesto_repro.errors import DriftError, LockError
from pesto_repro.lock import toml
from pesto_repro.lock.drift import (
    asks_debian_anew,
    asks_python_anew,
    changes,
    drift,
    require_no_drift,
    versions,
)
from pesto_repro.lock.model import (
    Assembly,
    DebianPackage,
    Input,
    Interpreter,
    Lock,
    Pin,
    PlatformLock,
    PythonPackage,
    Resource,
    ResourceInput,
    canonicalize_name,
)
from pesto_repro.lock.text import HEADER, agreed, dumps, has_conflict, loads, seal, split_conflict

_RESTORE = "restore it from version control, or remove it and run `pesto-repro lock`"


def sha256(text: str) -> str:
    return Digest.of(text.encode()).hex


def wheel(name: str, version: str, size: int = 1000, **more: str) -> PythonPackage:
    """A package of the index."""
    file = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    return PythonPackage(
        name=name,
        version=version,
        wheel=Pin(name=file, sha256=sha256(file), size=size),
        index=more.get("index", None if more else "default"),
        resource=more.get("resource"),
        upload_time=more.get("upload_time"),
    )


def deb(name: str, version: str, architecture: str = "amd64", size: int = 2000) -> DebianPackage:
    """A package of the suite."""
    file = f"{name}_{version}_{architecture}.deb"
    return DebianPackage(
        name=name,
        version=version,
        architecture=architecture,
        filename=f"pool/main/{name[0]}/{name}/{file}",
        suite="trixie",
        snapshot="2026-01-10T09:40:37Z",
        sha256=sha256(file),
        size=size,
    )


def platform(
    name: str = "linux/amd64", *packages: PythonPackage, debian: tuple[DebianPackage, ...] = ()
) -> PlatformLock:
    python = Interpreter(version="3.13.5", executable="/usr/bin/python3.13", libc="glibc 2.41")
    return PlatformLock(platform=name, python=python, packages=packages, debian=debian)


def asked(**changed: Any) -> Input:
    """What was asked, with *changed* fields."""
    known: dict[str, Any] = {
        "name": "hello",
        "platforms": ("linux/amd64",),
        "base": "debian:trixie",
        "runtime": "processing-factory==1.7.2",
        "max_layers": 40,
        "user": "65532:65532",
    }
    return Input(**(known | changed))


def sealed(*platforms: PlatformLock, asked_for: Input | None = None, resources: tuple[Resource, ...] = ()) -> Lock:
    """A lock with the content-hash it ought to have."""
    return seal(
        Lock(
            lock_version=1,
            content_hash=str(Digest.of(b"")),
            assembly=Assembly(
                version=1, compression="gzip", compressor="zlib-ng 2.3.3 level 6", epoch="2026-01-10T09:40:37Z"
            ),
            input=asked_for or asked(),
            resources=resources,
            platforms=platforms,
        )
    )


LOCK = sealed(
    platform(
        "linux/amd64",
        wheel("idna", "3.11"),
        wheel("model", "1.0", resource="model"),
        debian=(deb("libc6", "2.41-12"), deb("libgl1", "1.7.0-1+b2")),
    ),
    platform("linux/arm64", wheel("idna", "3.11"), debian=(deb("libc6", "2.41-12", "arm64"),)),
    asked_for=asked(
        profiles=("cpu", "été"),
        platforms=("linux/amd64", "linux/arm64"),
        python="3.13",
        requires=("idna>=3",),
        labels={"org.example/a b": 'quote " and \\', "plain": "line\nbreak"},
        environments=("A=\x00\x7f\u2028", "B=$A"),
        resources=(ResourceInput(key="model", source="model.whl", type="pip"),),
        documents={"description": str(Digest.of(b"description"))},
    ),
    resources=(
        Resource(key="data", form="directory", source="data", to="/opt/data", tree=str(Digest.of(b"tree"))),
        Resource(key="zip", form="archive", source="a.zip", to="/opt/zip", sha256=sha256("zip"), size=3),
    ),
)


# -- canonical TOML ----------------------------------------------------------------------------------------------

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_PLAIN = _TEXTS | st.booleans() | st.integers(-(2**63), 2**63 - 1)
_VALUES = st.recursive(_PLAIN, lambda each: st.lists(each, max_size=3) | st.dictionaries(_TEXTS, each, max_size=3))
_TABLES = st.dictionaries(_TEXTS | st.just("platforms"), _VALUES, max_size=5)
_DOCUMENTS = _TABLES | st.dictionaries(st.just("platforms"), st.lists(_TABLES, max_size=3))


@given(_DOCUMENTS)
def test_toml_is_read_back(document: dict[str, Any]) -> None:
    """By a reader of others, whatever keys and strings hold."""
    assert document == tomli.loads(toml.dumps(document))


@given(_DOCUMENTS)
def test_toml_does_not_depend_on_the_order_of_keys(document: dict[str, Any]) -> None:
    """Nor on tuples being lists."""
    assert toml.dumps(document) == toml.dumps(_reversed(document))


def _reversed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reversed(value[key]) for key in reversed(value)}
    return tuple(map(_reversed, value)) if isinstance(value, list) else value


def test_toml_has_one_artifact_in_a_line() -> None:
    """So that a change of one package is a change of one line; its name comes first."""
    pins = [{"size": 1, "name": "b", "sha256": "0"}, {"wheel": {"size": 2, "name": "w"}, "name": "a"}]
    assert (
        "list = []\n"
        "\n"
        "[empty]\n"
        "\n"
        "[[platforms]]\n"
        "pins = [\n"
        '    { name = "b", sha256 = "0", size = 1 },\n'
        '    { name = "a", wheel = { name = "w", size = 2 } },\n'
        "]\n"
        "\n"
        "[platforms.python]\n"
        'version = "3"\n'
    ) == toml.dumps({"platforms": [{"python": {"version": "3"}, "pins": pins}], "empty": {}, "list": ()})


@pytest.mark.parametrize("value", [1.5, None, b"x", {1}])
def test_toml_refuses_what_a_lock_does_not_hold(value: object) -> None:
    """A float's text would depend on who prints it."""
    with pytest.raises(TypeError) as caught:
        toml.dumps({"a": [value]})
    assert f"not a value of a lock: {value!r}" == str(caught.value)


# -- the lock's text ---------------------------------------------------------------------------------------------


def test_a_lock_is_read_back() -> None:
    """loads is the inverse of dumps; the text is canonical, ends in a line's end and has no carriage return."""
    text = dumps(LOCK)
    assert LOCK == loads(text, "hello.lock.toml")
    assert text == dumps(loads(text, "hello.lock.toml"))
    assert text.startswith(HEADER)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert "\r" not in text
    assert text.count(sha256("idna-3.11-py3-none-any.whl")) == 2


def test_golden_content_hash() -> None:
    """An upgrade of a library, or of this program, must not change the address of an unchanged lock."""
    assert "sha256:f380be7c39b936f93b9414065f0ecccd1a7c0004360fea7e2b5f1b78209c1bf0" == LOCK.content_hash


def test_the_content_hash_is_of_everything_else() -> None:
    """Every other lock has another address; sealing twice changes nothing."""
    others = [
        sealed(*LOCK.platforms),
        sealed(LOCK.platforms[0], asked_for=LOCK.input, resources=LOCK.resources),
        sealed(*reversed(LOCK.platforms), asked_for=LOCK.input, resources=LOCK.resources),
        sealed(*LOCK.platforms, asked_for=LOCK.input),
    ]
    assert 5 == len({each.content_hash for each in (LOCK, *others)})
    assert LOCK == seal(LOCK)


def _refused(text: str) -> tuple[str, str | None]:
    with pytest.raises(LockError) as caught:
        loads(text, "hello.lock.toml")
    return caught.value.message, caught.value.hint


def test_a_lock_that_was_edited() -> None:
    """Both hashes are told. One side of a merge may be read all the same."""
    edited = dumps(LOCK).replace('"idna>=3"', '"idna>=4"')
    actual = loads(edited, "hello.lock.toml", trusted=False)
    assert ("idna>=4",) == actual.input.requires
    assert (
        f"hello.lock.toml was edited by hand: its content-hash is {LOCK.content_hash}, "
        f"its content has {seal(actual).content_hash}",
        _RESTORE,
    ) == _refused(edited)


@pytest.mark.parametrize(("number", "shown"), [("2", "2"), ('"1"', "'1'"), ("0", "0")])
def test_a_lock_of_another_version(number: str, shown: str) -> None:
    """Said before anything else of it is looked at."""
    assert (
        f"hello.lock.toml has lock-version {shown}; this pesto-repro reads lock-version 1",
        "use the pesto-repro that wrote it, or remove it and run `pesto-repro lock`",
    ) == _refused(f"lock-version = {number}\nnonsense = true\n")
    assert "hello.lock.toml has lock-version None; this pesto-repro reads lock-version 1" == _refused("")[0]


def test_a_lock_that_is_no_toml() -> None:
    """With the place."""
    assert (
        "hello.lock.toml is not TOML: Expected '=' after a key in a key/value pair (at line 1, column 5)",
        _RESTORE,
    ) == _refused("not toml")


def test_a_lock_that_is_none() -> None:
    """Every problem with its path: what is unknown, of another type, out of range, or no digest."""
    text = (
        dumps(LOCK)
        .replace("size = 3", "size = true")
        .replace(sha256("zip"), "ABC")
        .replace("max-layers", "maximum-layers")
        .replace("size = 1000", "size = -1", 1)
    )
    assert (
        "hello.lock.toml is not a lock:\n"
        "  input.max-layers: Field required\n"
        "  input.maximum-layers: Extra inputs are not permitted\n"
        "  resources.1.sha256: Value error, 'ABC' is not a sha256 in lower-case hex\n"
        "  resources.1.size: Input should be a valid integer\n"
        "  platforms.0.packages.0.wheel.size: Input should be greater than or equal to 0",
        _RESTORE,
    ) == _refused(text)


def test_platforms_by_name() -> None:
    """As the command line names them."""
    assert LOCK.platforms[1] == LOCK.platform("linux/arm64")
    with pytest.raises(KeyError):
        LOCK.platform("linux/riscv64")
    assert "3.13" == LOCK.platforms[0].python.minor


@pytest.mark.parametrize("name", ["A.B_c", "a-b-c", "a__b.-c", "A-B--C"])
def test_names_in_normal_form(name: str) -> None:
    """PEP 503: "all runs of the characters ., -, or _ replaced with a single - character"."""
    assert "a-b-c" == canonicalize_name(name)


# -- conflicts ---------------------------------------------------------------------------------------------------

_OURS, _THEIRS = "    { ours },", "    { theirs },"


@pytest.mark.parametrize("ancestor", [[], ["||||||| 1234567", "    { base },"]])
def test_both_sides_of_a_conflict(ancestor: list[str]) -> None:
    """With and without the common ancestor (merge.conflictStyle diff3); what is outside belongs to both."""
    head, tail = ["a = 1", "====", "list = [", '    "\u2028",'], ["]", ""]
    marked = ["<<<<<<< HEAD", _OURS, *ancestor, "=======", _THEIRS, ">>>>>>> branch"]
    text = "\n".join([*head, *marked, "    { both },", *marked, *tail])
    assert has_conflict(text)
    assert (
        "\n".join([*head, _OURS, "    { both },", _OURS, *tail]),
        "\n".join([*head, _THEIRS, "    { both },", _THEIRS, *tail]),
    ) == split_conflict(text)


def test_a_text_without_a_conflict_is_both_sides() -> None:
    """Unchanged, byte for byte."""
    text = dumps(LOCK)
    assert not has_conflict(text)
    assert (text, text) == split_conflict(text)


def test_a_lock_with_a_conflict_is_no_lock() -> None:
    """`build` does not guess which side is meant."""
    assert (
        "hello.lock.toml has the conflict markers of a merge",
        "run `pesto-repro lock`: it keeps what both sides agree on",
    ) == _refused("<<<<<<< HEAD\n" + dumps(LOCK))


def _merged(ours: str, theirs: str) -> str:
    """What a merge leaves of two texts of as many lines."""
    lines = []
    for one, other in zip(ours.split("\n"), theirs.split("\n"), strict=True):
        lines += [one] if one == other else ["<<<<<<< HEAD", one, "=======", other, ">>>>>>> branch"]
    return "\n".join(lines)


def test_what_both_sides_of_a_merge_agree_on() -> None:
    """Their common pins are kept, all others are left to be resolved anew; the result is sealed."""
    a, b, c = wheel("a", "1"), wheel("b", "1"), wheel("c", "1")
    ours = sealed(platform("linux/amd64", a, b, c, debian=(deb("x", "1"), deb("y", "1"))))
    theirs = sealed(platform("linux/amd64", a, wheel("b", "2"), c, debian=(deb("x", "1"), deb("y", "2"))))
    sides = split_conflict(_merged(dumps(ours), dumps(theirs)))
    assert (dumps(ours), dumps(theirs)) == sides
    one, other = (loads(side, "hello.lock.toml", trusted=False) for side in sides)
    assert sealed(platform("linux/amd64", a, c, debian=(deb("x", "1"),))) == agreed(one, other)
    assert agreed(other, one) == agreed(one, other)


def test_agreement_on_platforms_and_resources() -> None:
    """What one side does not have is not agreed on."""
    kept = sealed(LOCK.platforms[0], asked_for=LOCK.input, resources=LOCK.resources[1:])
    assert kept == agreed(LOCK, kept)
    assert LOCK == agreed(LOCK, LOCK)


# -- drift -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "locked", "now", "told"),
    [
        ("name", "a", "b", ["description.name was a, is b"]),
        ("profiles", (), ("cpu",), ["the list of profiles was empty, is cpu"]),
        ("profiles", ("a", "b"), ("b", "a"), ["the list of profiles was a b, is b a"]),
        ("merge", "root", "deep", ["profiles.merge was root, is deep"]),
        ("base", "debian:trixie", "debian:bookworm", ["base was debian:trixie, is debian:bookworm"]),
        ("python", None, "3.13", ["python.version was the base's own, is 3.13"]),
        ("python", "3.12", None, ["python.version was 3.12, is the base's own"]),
        (
            "runtime",
            "processing-factory==1.7.2",
            "processing-factory",
            ["runtime.package was processing-factory==1.7.2, is processing-factory"],
        ),
        ("closure", "minimal", "full", ["runtime.closure was minimal, is full"]),
        ("max_layers", 40, 8, ["layers.max was 40, is 8"]),
        ("compression", "gzip", "zstd", ["layers.compression was gzip, is zstd"]),
        ("user", "1", "2", ["image.user was 1, is 2"]),
        ("requires", (), ("numpy>=2",), ["numpy>=2 was added to python.requires"]),
        ("requires", ("numpy",), (), ["numpy was removed from python.requires"]),
        ("requires", ("a", "b"), ("b", "c"), ["c was added to python.requires", "a was removed from python.requires"]),
        ("requires", ("a", "b"), ("b", "a"), ["the order of python.requires was a b, is b a"]),
        ("constraints", (), ("numpy<3",), ["numpy<3 was added to python constraints"]),
        ("base_packages", (), ("libgl1",), ["libgl1 was added to base.packages"]),
        ("platforms", ("linux/amd64",), ("linux/amd64", "linux/arm64"), ["linux/arm64 was added to image.platforms"]),
        (
            "labels",
            {"a": "1", "b": "1"},
            {"a": "2", "c": ""},
            ["image.labels.a was '1', is '2'", "b=1 was removed from image.labels", "c= was added to image.labels"],
        ),
        ("environments", ("A=",), ("A=x",), ["environments.A was '', is 'x'"]),
        ("environments", ("A=1", "B=$A"), ("B=$A", "A=1"), ["the order of environments was A B, is B A"]),
        ("environments", (), ("A=b=c",), ["A=b=c was added to environments"]),
        ("overrides", (), ("platforms",), ["what the command line chose was empty, is platforms"]),
        (
            "documents",
            {"input_schema": str(Digest.of(b"1"))},
            {"input_schema": str(Digest.of(b"2"))},
            ["input_schema.json changed"],
        ),
        ("documents", {}, {"config": str(Digest.of(b"2"))}, ["config.json was added"]),
        ("documents", {"config": str(Digest.of(b"2"))}, {}, ["config.json was removed"]),
        (
            "resources",
            (),
            (ResourceInput(key="m", source="m.zip", to="/m"),),
            ["m (m.zip -> /m) was added to requirements"],
        ),
        (
            "resources",
            (ResourceInput(key="m", source="m.whl", type="pip"),),
            (),
            ["m (m.whl -> pip (pip)) was removed from requirements"],
        ),
        (
            "resources",
            (ResourceInput(key="m", source="m.zip", to="/m"),),
            (ResourceInput(key="m", source="n.zip", to="/m", type="python"),),
            ["requirements.m was m.zip -> /m, is n.zip -> /m (python)"],
        ),
        (
            "resources",
            (ResourceInput(key="m", source="m.zip", to="/m"),),
            (ResourceInput(key="m", source="m.zip", to="/m", sha256="0" * 64),),
            [f"requirements.m was m.zip -> /m, is m.zip -> /m with sha256 {'0' * 64}"],
        ),
        (
            "resources",
            (ResourceInput(key="a", source="a", to="/a"), ResourceInput(key="b", source="b", to="/b")),
            (ResourceInput(key="b", source="b", to="/b"), ResourceInput(key="a", source="a", to="/a")),
            ["the order of requirements was a b, is b a"],
        ),
    ],
)
def test_drift_is_told_by_value(field: str, locked: object, now: object, told: list[str]) -> None:
    """Each field of what was asked, each way in which it may differ."""
    before, after = asked(**{field: locked}), asked(**{field: now})
    assert told == list(map(str, drift(before, after)))
    with pytest.raises(DriftError) as caught:
        require_no_drift(before, after, "pesto-repro lock .")
    assert "\n  ".join(["the project is not what was locked:", *told]) == caught.value.message
    assert "run `pesto-repro lock .`" == caught.value.hint


def test_every_field_of_what_was_asked_can_drift() -> None:
    """A field that is added to the model must not be forgotten here."""
    other: dict[str, Any] = {name: _another(getattr(LOCK.input, name)) for name in Input.model_fields}
    for name, value in other.items():
        assert drift(LOCK.input, LOCK.input.model_copy(update={name: value})), name


def _another(value: object) -> object:
    if isinstance(value, tuple):
        return () if value else ("another",)
    if isinstance(value, dict):
        return {**value, "another": "value"}
    return 7 if isinstance(value, int) else "another"


def test_no_drift() -> None:
    """Equal is equal, whatever the order of tables."""
    one, other = asked(labels={"a": "1", "b": "2"}), asked(labels={"b": "2", "a": "1"})
    assert () == drift(one, other)
    require_no_drift(one, other, "pesto-repro lock .")


@pytest.mark.parametrize(
    ("changed", "python", "debian"),
    [
        ({"requires": ("numpy",)}, True, False),
        ({"constraints": ("numpy<3",)}, True, False),
        ({"python": "3.13"}, True, False),
        ({"runtime": "processing-factory"}, True, False),
        ({"closure": "full"}, True, False),
        ({"resources": (ResourceInput(key="m", source="m.whl", type="pip"),)}, True, False),
        ({"base": "debian:bookworm"}, True, True),
        ({"base_packages": ("libgl1",)}, True, True),
        ({"labels": {"a": "b"}}, False, False),
        ({"user": "1"}, False, False),
        ({"documents": {"requirements": str(Digest.of(b""))}}, False, False),
    ],
)
def test_what_a_drift_asks_anew(changed: dict[str, Any], python: bool, debian: bool) -> None:
    """A new label must not resolve versions; a new base must."""
    found = drift(asked(), asked(**changed))
    assert (python, debian) == (asks_python_anew(found), asks_debian_anew(found))


# -- changes -----------------------------------------------------------------------------------------------------


def test_changes_between_locks() -> None:
    """Added, removed, renewed; Python's tzdata is not Debian's; the platform is said where there are several."""
    before = sealed(
        platform(
            "linux/amd64",
            wheel("a", "1"),
            wheel("b", "1"),
            wheel("tzdata", "2025.1"),
            debian=(deb("tzdata", "2025a-1"), deb("x", "1")),
        )
    )
    after = sealed(
        platform(
            "linux/amd64",
            wheel("b", "2"),
            wheel("c", "1"),
            wheel("tzdata", "2025.2"),
            debian=(deb("tzdata", "2025b-1"), deb("x", "1")),
        )
    )
    assert [
        "- a 1",
        "~ b 1 -> 2",
        "+ c 1",
        "~ tzdata 2025.1 -> 2025.2",
        "~ tzdata 2025a-1 -> 2025b-1",
    ] == list(changes(before, after))
    both = sealed(platform("linux/amd64", wheel("b", "2")), platform("linux/arm64", wheel("b", "2")))
    assert ["+ b 2 (linux/amd64)", "+ b 2 (linux/arm64)"] == list(changes(None, both))
    assert [] == list(changes(both, both))


def test_changes_of_bytes_alone() -> None:
    """A wheel that was built anew from a folder has its version still."""
    old = wheel("own", "1.0")
    new = old.model_copy(update={"wheel": old.wheel.model_copy(update={"sha256": "1" * 64})})
    before, after = (sealed(platform("linux/amd64", each)) for each in (old, new))
    assert [f"~ own 1.0: sha256:{old.wheel.sha256[:12]} -> sha256:111111111111"] == list(changes(before, after))


def test_versions() -> None:
    """Of every package by name and platform; of no lock, none."""
    assert {
        ("idna", "linux/amd64"): "3.11",
        ("model", "linux/amd64"): "1.0",
        ("libc6", "linux/amd64"): "2.41-12",
        ("libgl1", "linux/amd64"): "1.7.0-1+b2",
        ("idna", "linux/arm64"): "3.11",
        ("libc6", "linux/arm64"): "2.41-12",
    } == versions(LOCK)
    assert {} == versions(None)
