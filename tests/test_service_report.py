"""The verdict in its three forms, and the pictures beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.service import report
from pesto_repro.service.compare import Blob, Difference, Kind
from pesto_repro.service.payload import File
from pesto_repro.service.suite import Result
from tests.test_service_payload import JSON

DIFFERENCES = (
    Difference(("a", 0), Kind.BEYOND, actual=5),
    Difference(("b",), Kind.MISSING, "x"),
    Difference(("c",), Kind.UNEXPECTED, actual=[1]),
    Difference(("d e",), Kind.UNEQUAL, 1, None),
)
RESULTS = [
    Result("describe", skipped="there is none"),
    Result("test_1", DIFFERENCES, ("output schema: x: is wrong",)),
    Result("test_2"),
]


def test_the_text_tells_what_counts_first() -> None:
    """One line for each test and each difference."""
    expected = """\
describe: skipped: there is none
test_1: failed
  output schema: x: is wrong
  b: is missing, expected "x"
  c: is not expected, is [1]
  "d e": expected 1, is null
  a.0: is more than what is expected, which PESTO lets pass: 5
test_2: passed
1 passed, 1 failed, 1 skipped"""
    assert expected == report.text(RESULTS, {})


def test_what_is_beyond_does_not_fail() -> None:
    """It is told all the same."""
    result = Result("test_1", DIFFERENCES[:1])
    assert report.text([result], {}).startswith("test_1: passed\n  a.0: is more")


def test_pictures_lie_beside_each_other(tmp_path: Path) -> None:
    """In a folder for each test, named by their place; a name cannot lead elsewhere."""
    (tmp_path / "in.tif").write_bytes(b"expected")
    file, data = File(tmp_path / "in.tif"), b"\x89PNG actual"
    results = [
        Result("test_1", tuple(Difference(path, Kind.PICTURE, file, Blob(data)) for path in (("x", 0), ("../y",))))
    ]
    pairs = report.write_pictures(results, tmp_path / "out")
    assert ['".._y".actual.png', '".._y".expected.tif', "x.0.actual.png", "x.0.expected.tif"] == sorted(
        path.name for path in (tmp_path / "out/test_1").iterdir()
    )
    pair = pairs["test_1", ("x", 0)]
    assert (b"expected", data) == (pair.expected.read_bytes(), pair.actual.read_bytes())
    shown = f"  x.0: is another picture than expected\n    expected: {pair.expected}\n    actual:   {pair.actual}"
    assert shown in report.text(results, pairs)
    first = report.document(results, pairs)["tests"][0]["differences"][0]
    assert (str(pair.expected), str(pair.actual)) == (first["expected"], first["actual"])


def test_without_differing_pictures_there_is_no_folder(tmp_path: Path) -> None:
    """Nothing is left behind."""
    assert {} == report.write_pictures(RESULTS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@given(st.text(), JSON, JSON)
def test_junit_s_xml_and_the_json_can_be_read(name: str, expected: Any, actual: Any) -> None:
    """Whatever is in the names and the values."""
    results = [Result(name, (Difference((name,), Kind.UNEQUAL, expected, actual),), (name,)), Result("x", skipped=name)]
    root = ElementTree.fromstring(report.junit(results, {}, name))
    assert ("2", "1", "1", "0") == tuple(root.get(key) for key in ("tests", "failures", "skipped", "errors"))
    assert ["failure", "skipped"] == [each[0].tag for each in root.iter("testcase")]
    found = json.loads(json.dumps(report.document(results, {})))
    assert (expected, actual) == tuple(found["tests"][0]["differences"][0][key] for key in ("expected", "actual"))
