"""The verdict: for people, as JSON, and as JUnit's XML, which every continuous integration reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pesto_repro.project.documents import dotted
from pesto_repro.service.compare import Difference, Kind, as_json, data_of
from pesto_repro.service.payload import File
from pesto_repro.service.suite import Result, Verdict

_LONG = 160
_SUFFIXES = ((b"\x89PNG", ".png"), (b"\xff\xd8\xff", ".jpg"))
# XML 1.0, 2.2: what is no Char cannot be written at all.
_NO_CHAR = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture that was expected and the one that came, written beside each other."""

    expected: Path
    actual: Path


Pairs = Mapping[tuple[str, tuple[str | int, ...]], Pair]
"""Name of a test, key path -> the pictures that differ there."""


def write_pictures(results: Iterable[Result], folder: Path) -> Pairs:
    """Write the pictures that differ into *folder*, which is made if there are any."""
    found = {}
    for result in results:
        for each in result.differences:
            data = data_of(each.actual)
            if each.kind is Kind.PICTURE and isinstance(each.expected, File) and data is not None:
                name = folder / result.name / dotted(each.path).replace("/", "_")
                pair = Pair(
                    name.with_name(f"{name.name}.expected{each.expected.suffix}"),
                    name.with_name(f"{name.name}.actual{_suffix(data)}"),
                )
                name.parent.mkdir(parents=True, exist_ok=True)
                pair.expected.write_bytes(each.expected.read())
                pair.actual.write_bytes(data)
                found[result.name, each.path] = pair
    return found


def text(results: Sequence[Result], pairs: Pairs) -> str:
    """For people: a line for each test, below it what is wrong, and the count."""
    lines = [line for each in results for line in _lines(each, pairs)]
    counts = {verdict: sum(each.verdict is verdict for each in results) for verdict in Verdict}
    said = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    return "\n".join([*lines, ", ".join(said)])


def document(results: Sequence[Result], pairs: Pairs) -> dict[str, Any]:
    """As JSON."""
    return {
        "passed": all(each.verdict is not Verdict.FAILED for each in results),
        "tests": [
            {
                "name": each.name,
                "verdict": str(each.verdict),
                "problems": list(each.problems),
                "differences": [_difference(each, one, pairs) for one in each.differences],
                "skipped": each.skipped,
            }
            for each in results
        ],
    }


def junit(results: Sequence[Result], pairs: Pairs, suite: str) -> bytes:
    """As JUnit's XML; *suite* is the name of them all."""
    failed = sum(each.verdict is Verdict.FAILED for each in results)
    skipped = sum(each.verdict is Verdict.SKIPPED for each in results)
    counts = {"tests": str(len(results)), "failures": str(failed), "errors": "0", "skipped": str(skipped)}
    root = ElementTree.Element("testsuites", counts)
    inner = ElementTree.SubElement(root, "testsuite", {"name": _xml(suite), **counts})
    for each in results:
        case = ElementTree.SubElement(inner, "testcase", {"classname": _xml(suite), "name": _xml(each.name)})
        if each.verdict is Verdict.FAILED:
            said = [line.strip() for line in _details(each, pairs)]
            failure = ElementTree.SubElement(case, "failure", {"message": _xml(said[0])})
            failure.text = _xml("\n".join(said))
        elif each.skipped is not None:
            ElementTree.SubElement(case, "skipped", {"message": _xml(each.skipped)})
    ElementTree.indent(root)
    data: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def _lines(result: Result, pairs: Pairs) -> Iterator[str]:
    why = f": {result.skipped}" if result.skipped else ""
    yield f"{result.name}: {result.verdict}{why}"
    yield from _details(result, pairs)


def _details(result: Result, pairs: Pairs) -> Iterator[str]:
    yield from (f"  {each}" for each in result.problems)
    for each in sorted(result.differences, key=lambda each: not each.counts):
        yield f"  {_sentence(each)}"
        pair = pairs.get((result.name, each.path))
        if pair is not None:
            yield f"    expected: {pair.expected}"
            yield f"    actual:   {pair.actual}"


def _sentence(each: Difference) -> str:
    where = dotted(each.path)
    match each.kind:
        case Kind.MISSING:
            return f"{where}: is missing, expected {_short(each.expected)}"
        case Kind.UNEXPECTED:
            return f"{where}: is not expected, is {_short(each.actual)}"
        case Kind.PICTURE:
            return f"{where}: is another picture than expected"
        case Kind.BEYOND:
            return f"{where}: is more than what is expected, which PESTO lets pass: {_short(each.actual)}"
        case Kind.UNEQUAL:
            return f"{where}: expected {_short(each.expected)}, is {_short(each.actual)}"


def _difference(result: Result, each: Difference, pairs: Pairs) -> dict[str, Any]:
    pair = pairs.get((result.name, each.path))
    expected, actual = (str(pair.expected), str(pair.actual)) if pair else (_json(each.expected), _json(each.actual))
    return {
        "path": list(each.path),
        "kind": str(each.kind),
        "counts": each.counts,
        "expected": expected,
        "actual": actual,
    }


def _json(value: Any) -> Any:
    """*value* as JSON, with Files as their paths."""
    if isinstance(value, File):
        return str(value.path)
    if isinstance(value, dict):
        return {key: _json(each) for key, each in value.items()}
    return [_json(each) for each in value] if isinstance(value, list) else as_json(value)


def _short(value: Any) -> str:
    said = json.dumps(_json(value), ensure_ascii=False)
    return said if len(said) <= _LONG else f"{said[:_LONG]}... ({len(said)} characters)"


def _suffix(data: bytes) -> str:
    return next((suffix for magic, suffix in _SUFFIXES if data.startswith(magic)), ".tif")


def _xml(said: str) -> str:
    return _NO_CHAR.sub("\ufffd", said)
