"""The cascade of profiles: the documentation's examples, and its laws."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.project.profiles import Merge, cascade, differences, origin

_KEYS = st.sampled_from("abc")
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2),
    lambda inner: st.dictionaries(_KEYS, inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=8,
)
_DOCUMENTS = st.dictionaries(_KEYS, _VALUES, max_size=3)
_CASCADES = st.lists(_DOCUMENTS, min_size=1, max_size=4)
_POLICIES = st.sampled_from(["root", "deep"])


def _same(one: object, other: object) -> bool:
    """Equal as JSON, where 1 is not true."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@pytest.mark.parametrize("merge", ["root", "deep"])
def test_the_documentation_s_first_example(merge: Merge) -> None:
    """The base values that a profile does not name stay as they are."""
    base, p1 = {"key": "value", "key2": "value2"}, {"key": "value3"}
    assert {"key": "value3", "key2": "value2"} == cascade([base, p1], merge)


@pytest.mark.parametrize("merge", ["root", "deep"])
def test_the_documentation_s_second_example(merge: Merge) -> None:
    """Two profiles in order, and in the other order another document."""
    base = {"base": "default", "field_0": "default"}
    p1 = {"field_0": "profile P1", "field_1": "profile P1"}
    p2 = {"field_0": "profile P2", "field_2": "profile P2"}
    expected = {"base": "default", "field_0": "profile P2", "field_1": "profile P1", "field_2": "profile P2"}
    assert expected == cascade([base, p1, p2], merge)
    assert {**expected, "field_0": "profile P1"} == cascade([base, p2, p1], merge)


def test_the_policies_differ_for_nested_objects() -> None:
    """Only the root level is compared: a nested object is replaced whole, unless deep is asked for."""
    base, p1 = {"resources": {"cpu": 4, "gpu": {"n": 0}}}, {"resources": {"gpu": {"n": 1}}}
    assert {"resources": {"gpu": {"n": 1}}} == cascade([base, p1])
    assert {"resources": {"cpu": 4, "gpu": {"n": 1}}} == cascade([base, p1], "deep")
    assert ("resources.cpu",) == differences([base, p1])


@given(_CASCADES, _POLICIES)
def test_a_cascade_is_a_fold(documents: list[dict[str, Any]], merge: Merge) -> None:
    """Applying profiles one after the other is applying them together; and no input is changed."""
    before = copy.deepcopy(documents)
    stepwise = documents[0]
    for document in documents[1:]:
        stepwise = cascade([stepwise, document], merge)
    assert _same(stepwise, cascade(documents, merge))
    assert _same(before, documents)


@given(_CASCADES, _POLICIES)
def test_the_last_profile_wins(documents: list[dict[str, Any]], merge: Merge) -> None:
    """A profile that is empty or already applied changes nothing, and the last one's plain values stand."""
    result = cascade(documents, merge)
    assert _same(result, cascade([*documents, {}, documents[-1]], merge))
    assert all(_same(v, result[k]) for k, v in documents[-1].items() if merge == "root" or not isinstance(v, dict))


@given(_CASCADES)
def test_differences_are_told_exactly_where_there_are_any(documents: list[dict[str, Any]]) -> None:
    """No key named: equal documents. A key named: it is in the deep document and not in the other."""
    root, deep = cascade(documents), cascade(documents, "deep")
    named = differences(documents)
    assert bool(named) == (not _same(root, deep))
    for key in named:
        *parents, last = key.split(".")
        for part in parents:
            root, deep = root[part], deep[part]
        assert last in deep
        assert last not in root
        root, deep = cascade(documents), cascade(documents, "deep")


@pytest.mark.parametrize(
    ("path", "merge", "file"),
    [
        (("a", "x"), "deep", "X.json"),
        (("a", "y"), "deep", "X.p1.json"),
        (("a", "x"), "root", "X.p1.json"),
        (("b",), "root", "X.json"),
        ((), "root", "X.json"),
        (("c", 0), "deep", "X.p1.json"),
    ],
)
def test_origin_names_the_file_that_decided(path: tuple[str | int, ...], merge: Merge, file: str) -> None:
    """Messages blame the last file that set the value under the policy."""
    layers: list[tuple[str, dict[str, Any]]] = [
        ("X.json", {"a": {"x": 1}, "b": 2}),
        ("X.p1.json", {"a": {"y": 1}, "c": [1]}),
    ]
    assert file == origin(layers, path, merge)
