"""JSON and TOML of a project: strict, and every slip with its place."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.errors import ProjectError
from pesto_repro.project.documents import dotted, parse_json, parse_toml

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner),
    max_leaves=15,
)


@given(st.dictionaries(_TEXT, _VALUES), st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_what_json_writes_is_read_back(value: dict[str, object], ascii_only: bool, indent: int | str | None) -> None:
    """Any object, however it is laid out, comes back equal: nothing valid is refused or changed."""
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert value == parse_json("a.json", data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b'{"a": 1,\n "b" 2}', "a.json:2:6: malformed JSON: expecting ':' delimiter", id="malformed"),
        pytest.param(b"", "a.json:1:1: malformed JSON: expecting value", id="empty"),
        pytest.param(
            b'\xef\xbb\xbf{"a": 1}',
            "a.json:1:1: starts with a byte order mark; save it as UTF-8 without BOM",
            id="bom",
        ),
        pytest.param(b'{"a":\n "\xc3\xa9\xff"}', "a.json:2:4: is not UTF-8: byte 0xff", id="not-utf-8"),
        pytest.param(b'{"a": 1,\n  "a": 2}', 'a.json:2:3: duplicate key "a"', id="duplicate"),
        pytest.param(
            b'{"a": [{"b": 1}, {"b": 1, "\\u0062" : 2}]}',
            'a.json:1:27: duplicate key "b"',
            id="duplicate-nested",
        ),
        pytest.param(b"[1]", "a.json:1:1: the root must be an object, not an array", id="array"),
        pytest.param(b"null", "a.json:1:1: the root must be an object, not null", id="null"),
        pytest.param(b'{"a": NaN}', "a.json:1:7: NaN is not JSON", id="nan"),
        pytest.param(b'{"a": -Infinity}', "a.json:1:7: -Infinity is not JSON", id="infinity"),
        pytest.param(b'{"a": 1e999}', "a.json:1:7: this number is too large", id="overflow"),
        pytest.param(b'{"a": ' + b"9" * 5000 + b"}", "a.json:1:7: this number is too large", id="many-digits"),
        pytest.param(b'{"a": "\\ud800"}', "a.json:1:7: is not valid Unicode: a lone surrogate", id="surrogate"),
        pytest.param(b'{"a": ' + b"[" * 100_000, "a.json:1:1: is nested too deeply", id="deep"),
    ],
)
def test_slips_of_json_are_told_with_their_place(data: bytes, message: str) -> None:
    """Each slip is refused with file:line:column."""
    with pytest.raises(ProjectError) as caught:
        parse_json("a.json", data)
    assert f"the project has a problem:\n  {message}" == str(caught.value)


def test_all_slips_of_one_file_are_told_at_once() -> None:
    """Slips that leave the JSON well-formed do not hide each other."""
    with pytest.raises(ProjectError) as caught:
        parse_json("a.json", b'{"a": NaN,\n "a": {"b": 1, "b": 2}}')
    expected = [
        "a.json:1:7: NaN is not JSON",
        'a.json:2:16: duplicate key "b"',
        'a.json:2:2: duplicate key "a"',
    ]
    assert expected == [str(problem) for problem in caught.value.problems]


def test_text_that_looks_like_a_slip_is_text() -> None:
    """Braces, NaN and quotes within strings are content; the same key in two objects is no duplicate."""
    text = {"a": 'NaN "a": {', "b": {"a": "\\"}, "c": [{"a": 1}, {"a": 2}]}
    assert text == parse_json("a.json", json.dumps(text).encode())


def test_malformed_toml_is_told_with_its_place() -> None:
    """TOML slips have a place as well."""
    with pytest.raises(ProjectError) as caught:
        parse_toml("image.toml", b"a = 1\nb = = 2")
    assert "the project has a problem:\n  image.toml:2:5: malformed TOML: invalid value" == str(caught.value)


def test_a_key_path_quotes_names_that_need_it() -> None:
    """A dot in a name cannot be taken for a separator."""
    assert 'a."b.c".0' == dotted(("a", "b.c", 0))
