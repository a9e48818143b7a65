"""Expected and actual values: what counts as equal, and how differences are told."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.service.compare import Blob, Difference, Kind, as_json, compare, data_of
from pesto_repro.service.payload import File
from pesto_repro.service.pictures import Album, same_in
from tests.test_service_payload import JSON, NAMES

PNG = b"\x89PNG one"
OTHER = b"\x89PNG other"


def never(file: File, data: bytes) -> bool:
    raise AssertionError("there is no picture")


def differ(expected: Any, actual: Any) -> list[Difference]:
    return list(compare(expected, actual, never))


@given(JSON)
def test_a_value_is_equal_to_itself(value: Any) -> None:
    """Whatever JSON can say."""
    assert [] == differ(value, value)


@given(st.lists(JSON, max_size=5), st.randoms())
def test_the_order_of_a_list_does_not_matter(value: list[Any], chance: Any) -> None:
    """As PESTO compares."""
    shuffled = list(value)
    chance.shuffle(shuffled)
    assert [] == differ({"x": value}, {"x": shuffled})


@given(st.dictionaries(NAMES, JSON), NAMES, JSON)
def test_a_key_more_or_less_is_a_difference(value: dict[str, Any], key: str, other: Any) -> None:
    """Told with its value."""
    without = {name: each for name, each in value.items() if name != key}
    with_it = {**without, key: other}
    assert [Difference((key,), Kind.UNEXPECTED, actual=other)] == differ(without, with_it)
    assert [Difference((key,), Kind.MISSING, other)] == differ(with_it, without)


@given(st.lists(JSON, max_size=4), JSON)
def test_what_a_list_has_beyond_is_told_and_does_not_count(value: list[Any], more: Any) -> None:
    """PESTO looks only for what is expected."""
    found = differ({"x": value}, {"x": [*value, more]})
    assert all(not each.counts for each in found)
    assert {Kind.BEYOND} >= {each.kind for each in found}


@pytest.mark.parametrize(
    ("expected", "actual", "equal"),
    [
        (1, 1.0, True),
        (0.1 + 0.2, 0.3, False),
        ("a", "a\n", False),
        ("1", 1, False),
        (None, 0, False),
        ([], 5, False),
        ([1], 1, False),
        ({}, [], False),
        ([{"a": [1, 2]}], [{"a": [2, 1]}], False),
        ({"a": [1, 2]}, {"a": [2, 1]}, True),
        ([[1, 2], [3]], [[3], [2, 1]], True),
        ([1, 1], [1], True),
    ],
)
def test_what_is_equal(expected: Any, actual: Any, equal: bool) -> None:
    """Numbers have no tolerance; lists inside an object of a list are in order."""
    assert equal is not any(each.counts for each in differ({"x": expected}, {"x": actual}))


def test_differences_are_told_where_they_are() -> None:
    """By their path, with both values, in the order of the keys."""
    expected = {"a": {"b": [1, 2]}, "c": 1, "d": "x"}
    actual = {"a": {"b": [1, 3]}, "c": 2, "d": "x"}
    assert [
        Difference(("a", "b", 1), Kind.UNEQUAL, 2, 3),
        Difference(("c",), Kind.UNEQUAL, 1, 2),
    ] == differ(expected, actual)


def test_a_list_that_is_too_short_lacks_its_last() -> None:
    """There is nothing in that place."""
    assert [Difference(("x", 1), Kind.MISSING, 2)] == differ({"x": [1, 2]}, {"x": [1]})


# -- pictures --


def file_of(folder: Path, data: bytes, name: str = "a.png") -> File:
    (folder / name).write_bytes(data)
    return File(folder / name)


def decode(data: list[bytes]) -> list[Mapping[str, Any]]:
    """A twin of what decodes: the pixels are the file's last letter, stored in small letters."""
    return [{"pixels": each[-1:], "stored": [each[-1:], each[-1:].lower()]} for each in data]


def no_decoder(data: list[bytes]) -> list[Mapping[str, Any]]:
    raise AssertionError("nothing needs to be decoded")


def test_equal_bytes_are_the_same_picture(tmp_path: Path) -> None:
    """And nothing is decoded."""
    expected = {"x": file_of(tmp_path, PNG)}
    for actual in (base64.b64encode(PNG).decode(), Blob(PNG)):
        assert [] == list(compare(expected, {"x": actual}, same_in(expected, {"x": actual}, no_decoder)))


def test_other_bytes_are_decoded_at_once(tmp_path: Path) -> None:
    """The expected file may be what was stored of such an answer; everything is decoded together."""
    asked = []

    def counting(data: list[bytes]) -> list[Mapping[str, Any]]:
        asked.append(len(data))
        return decode(data)

    second = file_of(tmp_path, b"\x89PNG?b", "b.png")
    expected = {"x": file_of(tmp_path, b"\x89PNGa"), "y": [second]}
    actual = {"x": Blob(b"\x89PNG!A"), "y": [Blob(b"\x89PNG.c")]}
    found = list(compare(expected, actual, same_in(expected, actual, counting)))
    assert [Difference(("y", 0), Kind.PICTURE, second, Blob(b"\x89PNG.c"))] == found
    assert [4] == asked


def test_the_expected_picture_is_not_what_is_stored_again(tmp_path: Path) -> None:
    """Only the answer is made smaller: a file of 16 bits is not equal to an answer of 8."""
    album = Album.of([b"\x89PNGA", b"\x89PNG.a"], decode)
    assert album.same(b"\x89PNG.a", b"\x89PNGA")
    assert not album.same(b"\x89PNGA", b"\x89PNG.a")


@pytest.mark.parametrize("actual", [None, 1, "text", "aGVsbG8=", "not base64!", ["x"], {"a": 1}])
def test_what_is_no_picture_is_another_value(tmp_path: Path, actual: Any) -> None:
    """Nothing is decoded, nothing crashes."""
    expected = {"x": file_of(tmp_path, PNG)}
    found = list(compare(expected, {"x": actual}, same_in(expected, {"x": actual}, no_decoder)))
    assert [Difference(("x",), Kind.UNEQUAL, expected["x"], actual)] == found


def test_a_file_that_is_no_picture_has_no_equal(tmp_path: Path) -> None:
    """Services answer with no other files."""
    expected = {"x": file_of(tmp_path, PNG, "a.bin")}
    found = list(compare(expected, {"x": Blob(PNG)}, same_in(expected, {"x": Blob(PNG)}, no_decoder)))
    assert [("x",)] == [each.path for each in found]


def test_pictures_that_cannot_be_decoded_are_not_the_same() -> None:
    """Two errors are not equal."""
    album = Album.of([PNG, OTHER], lambda data: [{"error": "broken"}] * len(data))
    assert not album.same(PNG, OTHER)


@given(st.binary())
def test_bytes_become_text_and_come_back(data: bytes) -> None:
    """A Blob is what a service that answers at once says in base64."""
    picture = b"\x89PNG" + data
    assert picture == data_of(as_json(Blob(picture))) == data_of(Blob(picture))
    assert {"x": [base64.b64encode(data).decode()]} == as_json({"x": [Blob(data)]})
