"""The closure of Debian packages: what is chosen, why it fails, that the order of asking is nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.errors import ResolveError
from pesto_repro.fetch import Fetcher
from pesto_repro.lock.model import DebianPackage, Interpreter
from pesto_repro.progress import Reporter
from pesto_repro.resolve.debian import ROOTS, besides, closure, resolve
from pesto_repro.resolve.debian_index import Index
from pesto_repro.resolve.debian_relation import Clause, Relation, clauses
from pesto_repro.store import Store
from tests.debian_archive import Archive, stanza

BASE = [
    *(stanza(name) for name in ROOTS),
    stanza("libc6", "2.41-12+deb13u4"),
    stanza("python3-minimal", "3.13.5-1", pre_depends="python3.13-minimal (>= 3.13.5-1~)", depends="dpkg"),
    stanza("python3.13-minimal", "3.13.5-2+deb13u5", depends="libc6 (>= 2.38)"),
    stanza("libpython3.13-stdlib", "3.13.5-2+deb13u5"),
]
BASE_NAMES = sorted({*ROOTS, "libc6", "python3.13-minimal", "libpython3.13-stdlib"})


def names(packages: Iterable[str], stanzas: Iterable[str], keep: Iterable[DebianPackage] = ()) -> list[str]:
    """What is chosen besides the base, as "name version"."""
    suites = [Index("trixie", "", "\n".join([*BASE, *stanzas]).encode())]
    return [str(each) for each in closure(suites, "amd64", packages, keep) if each.name not in BASE_NAMES]


def failure(packages: Iterable[str], stanzas: Iterable[str]) -> tuple[list[str], str | None]:
    with pytest.raises(ResolveError) as caught:
        names(packages, stanzas)
    return caught.value.message.splitlines(), caught.value.hint


def test_a_base_without_wishes_is_the_roots_and_their_needs() -> None:
    """The suite's own Python, without the package manager that python3-minimal needs."""
    found = closure([Index("trixie", "", "\n".join(BASE).encode())], "amd64", ())
    assert BASE_NAMES == [each.name for each in found]


def test_what_building_needs_lies_beside_the_base() -> None:
    """The base is what it is without, and who wants it otherwise is told."""
    stanzas = [stanza("gcc", depends="cpp, libc6 (>= 2)"), stanza("cpp"), stanza("odd", depends="libc6 (>= 3)")]
    suites = [Index("trixie", "", "\n".join([*BASE, *stanzas, stanza("libc6", "3")]).encode())]
    base = closure([Index("trixie", "", "\n".join([*BASE, *stanzas]).encode())], "amd64", ())
    assert ["cpp 1", "gcc 1"] == [str(each) for each in besides(suites, "amd64", base, ["gcc"])]
    assert () == besides(suites, "amd64", base, ["libc6"])
    with pytest.raises(ResolveError) as caught:
        besides(suites, "amd64", base, ["odd"])
    assert (
        "[python.build] packages (odd) do not go with the image's base:\n  libc6 2.41-12+deb13u4 would be libc6 3"
        == caught.value.message
    )


@pytest.mark.parametrize(
    ("asked", "stanzas", "expected"),
    [
        pytest.param(
            ["a"],
            [
                stanza("a", pre_depends="b", depends="c", recommends="d"),
                stanza("b"),
                stanza("c"),
                stanza("d"),
            ],
            ["a 1", "b 1", "c 1"],
            id="depends and pre-depends, not recommends",
        ),
        pytest.param(
            ["a"],
            [stanza("a", depends="b | c"), stanza("b"), stanza("c")],
            ["a 1", "b 1"],
            id="the first alternative",
        ),
        pytest.param(
            ["a", "c"],
            [stanza("a", depends="b | c"), stanza("b"), stanza("c")],
            ["a 1", "c 1"],
            id="an alternative that is there anyway",
        ),
        pytest.param(
            ["a", "z"],
            [
                stanza("a", depends="b | c"),
                stanza("b"),
                stanza("c"),
                stanza("z", depends="y"),
                stanza("y", depends="c"),
            ],
            ["a 1", "c 1", "y 1", "z 1"],
            id="an alternative that somebody else needs",
        ),
        pytest.param(
            ["a"],
            [stanza("a", depends="b (>= 2) | c"), stanza("b"), stanza("c")],
            ["a 1", "c 1"],
            id="too old",
        ),
        pytest.param(
            ["a"],
            [stanza("a", depends="b | c"), stanza("b", depends="gone"), stanza("c")],
            ["a 1", "c 1"],
            id="an alternative that cannot be installed",
        ),
        pytest.param(
            ["a"],
            [stanza("a", depends="b | c, d"), stanza("b", conflicts="d"), stanza("c"), stanza("d")],
            ["a 1", "c 1", "d 1"],
            id="an alternative that conflicts",
        ),
        pytest.param(
            ["a"],
            [
                stanza("a", depends="virtual"),
                stanza("b", provides="virtual"),
                stanza("y", provides="virtual", priority="standard"),
                stanza("x", provides="virtual", priority="standard"),
            ],
            ["a 1", "x 1"],
            id="of a virtual package's providers the highest priority, then the first name",
        ),
        pytest.param(
            ["a"],
            [
                stanza("a", depends="virtual (>= 2)"),
                stanza("b", provides="virtual"),
                stanza("c", provides="virtual (= 2)"),
            ],
            ["a 1", "c 1"],
            id="a versioned virtual package",
        ),
        pytest.param(
            ["virtual"],
            [stanza("b", provides="virtual", conflicts="virtual")],
            ["b 1"],
            id="itself is no conflict",
        ),
        pytest.param(
            ["a"],
            [
                stanza("a", depends="b:any, c [arm64] | d [amd64], e:i386 | d"),
                stanza("b"),
                stanza("c"),
                stanza("d"),
                stanza("e"),
            ],
            ["a 1", "b 1", "d 1"],
            id="architectures",
        ),
        pytest.param(
            ["a"],
            [stanza("a", "1:0.9"), stanza("a", "1.10~rc1"), stanza("a", "1.9")],
            ["a 1:0.9"],
            id="the highest version",
        ),
        pytest.param(["a"], [stanza("a", depends="b"), stanza("b", depends="a")], ["a 1", "b 1"], id="a circle"),
    ],
)
def test_what_is_chosen(asked: list[str], stanzas: list[str], expected: list[str]) -> None:
    """Each rule of the module's docstring."""
    assert expected == names(asked, stanzas)


def test_unknown_packages_are_told_all_at_once_with_close_names() -> None:
    assert (
        ["Debian trixie for amd64 has no package 'libgl', 'zzz'"],
        "did you mean libgl2, libgl1, libc6?",
    ) == failure(["zzz", "libgl"], [stanza("libgl1"), stanza("libgl2")])


def test_a_need_that_nothing_meets_is_told_with_its_reasons() -> None:
    """The chain from what was asked for, and the version that there is."""
    stanzas = [stanza("a", depends="b"), stanza("b", "3", depends="c (>= 2) | d"), stanza("c", "1.9")]
    assert (
        [
            "Debian trixie for amd64 has no answer:",
            "  a is asked for",
            "  a 1 needs b",
            "  b 3 needs c (>= 2) | d, but trixie has c 1.9; trixie has no d",
        ],
        None,
    ) == failure(["a"], stanzas)


def test_a_conflict_names_both_and_who_needs_them() -> None:
    stanzas = [stanza("a", depends="c"), stanza("c", breaks="b (<< 2)"), stanza("b")]
    assert (
        [
            "Debian trixie for amd64 has no answer:",
            "  c 1 excludes b (<< 2), and b 1 is needed too",
            "  c: a is asked for",
            "  c: a 1 needs c",
            "  b: b is asked for",
        ],
        None,
    ) == failure(["a", "b"], stanzas)


def test_many_choices_before_a_dead_end_cost_nothing() -> None:
    """A failure that no choice has led to is not tried again for each of 2^40 choices."""
    choices = [stanza(f"c{n}", depends=f"x{n} | y{n}") for n in range(40)]
    leaves = [stanza(f"{letter}{n}") for n in range(40) for letter in "xy"]
    dead_end = [stanza("zz", depends="p | q"), stanza("p", depends="gone"), stanza("q", depends="gone")]
    lines, _ = failure([*(f"c{n}" for n in range(40)), "zz"], [*choices, *leaves, *dead_end])
    assert "  p 1 needs gone, but trixie has no gone" == lines[-1]


def pin(name: str, version: str, **changes: str) -> DebianPackage:
    (record,) = Index("trixie", "", stanza(name, version).encode()).named(name)
    return record.pin().model_copy(update=changes)


def test_a_pin_is_kept_while_an_index_has_it() -> None:
    """Not if it is gone, of another architecture, or other bytes."""
    stanzas = [stanza("a", "1"), stanza("a", "2")]
    assert ["a 1"] == names(["a"], stanzas, [pin("a", "1")])
    assert ["a 2"] == names(["a"], stanzas, [pin("a", "0")])
    assert ["a 2"] == names(["a"], stanzas, [pin("a", "1", architecture="arm64")])
    assert ["a 2"] == names(["a"], stanzas, [pin("a", "1", sha256="0" * 64)])


def test_only_the_pins_that_stand_in_the_way_are_given_up() -> None:
    stanzas = [stanza("a", depends="b (>= 2)"), *(stanza(name, version) for name in "bc" for version in "12")]
    assert ["a 1", "b 2", "c 1"] == names(["a", "c"], stanzas, [pin("b", "1"), pin("c", "1")])


def test_a_pin_whose_own_needs_are_gone_is_given_up() -> None:
    stanzas = [stanza("a", "1", depends="b (= 1)"), stanza("a", "2", depends="b (= 2)"), stanza("b", "2")]
    assert ["a 2", "b 2"] == names(["a"], stanzas, [pin("a", "1"), pin("b", "1")])


GRAPHS = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3, unique=True), max_size=3),
    min_size=2,
)


@given(GRAPHS, st.data())
def test_the_order_of_asking_and_of_the_index_does_not_matter(
    graph: Mapping[str, list[list[str]]], data: st.DataObject
) -> None:
    """And an answer meets every need of every package in it."""
    stanzas = [stanza(name, depends=", ".join(" | ".join(each) for each in needs)) for name, needs in graph.items()]
    asked = data.draw(st.lists(st.sampled_from(sorted(graph)), unique=True))
    outcomes = []
    for packages, index in (
        (asked, stanzas),
        (data.draw(st.permutations(asked)), data.draw(st.permutations(stanzas))),
    ):
        try:
            outcomes.append(names(packages, index))
        except ResolveError as error:
            outcomes.append([error.message])
    assert outcomes[0] == outcomes[1]
    chosen = {each.split()[0] for each in outcomes[0]}
    if chosen <= set(graph):
        assert set(asked) <= chosen
        assert all(chosen & set(clause) for name in chosen for clause in graph[name])


def test_relations_are_read() -> None:
    """Debian Policy 7.1."""
    field = "a (>= 1:2.0~rc1-1), b:any | c [amd64 arm64] ,\n d(<<3)"
    assert (
        Clause((Relation("a", ">=", "1:2.0~rc1-1"),)),
        Clause((Relation("b", qualifier="any"), Relation("c", architectures=("amd64", "arm64")))),
        Clause((Relation("d", "<<", "3"),)),
    ) == clauses(field)


@pytest.mark.parametrize("field", ["a (>= )", "a b", "a (!= 1)", "a |"])
def test_a_relation_that_is_none_is_an_error(field: str) -> None:
    with pytest.raises(ResolveError, match="is not a relation between Debian packages"):
        clauses(field)


def test_a_mirror_is_resolved_for_several_architectures(tmp_path: Path) -> None:
    """Indices of all three suites; the highest version wins; pins, interpreter and libc per architecture."""
    archive = Archive(tmp_path / "mirror")
    fetcher = Fetcher(Store(tmp_path / "store"), Reporter(), sleep=lambda _: None)
    everywhere = {"amd64": [*BASE, stanza("a", "1")], "arm64": [*BASE, stanza("a", "1")]}
    archive.publish_all("trixie", everywhere)
    archive.publish("trixie-security", {"amd64": [stanza("a", "1+deb13u1")], "arm64": []})

    def resolved(**options: object) -> dict[str, list[tuple[str, str]]]:
        bases = resolve(
            "trixie",
            ["a"],
            ["arm64", "amd64"],
            mirrors=archive.mirrors,
            fetcher=fetcher,
            now=datetime(2026, 11, 22, tzinfo=UTC),
            keys=archive.keys,
            **options,  # type: ignore[arg-type]  # keep and upgrade
        )
        python = Interpreter(version="3.13.5", executable="/usr/bin/python3.13", libc="glibc 2.41")
        assert [python, python] == [base.python for base in bases.values()]
        return {
            name: [(each.version, each.suite) for each in base.packages if each.name == "a"]
            for name, base in bases.items()
        }

    new = {"amd64": [("1+deb13u1", "trixie-security")], "arm64": [("1", "trixie")]}
    assert new == resolved()
    assert new == resolved(keep=[pin("a", "1")], upgrade=True)
    assert {"amd64": [("1", "trixie")], "arm64": [("1", "trixie")]} == resolved(keep=[pin("a", "1")])


def test_a_suite_that_cannot_be_a_base_is_refused(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    fetcher = Fetcher(Store(tmp_path / "store"), Reporter())
    with pytest.raises(ResolveError) as caught:
        resolve("sid", (), ("amd64",), mirrors=archive.mirrors, fetcher=fetcher, now=datetime.now(UTC))
    assert ("'sid' is not a suite of Debian that can be a base", "use one of bookworm, trixie") == (
        caught.value.message,
        caught.value.hint,
    )
