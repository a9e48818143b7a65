"""What is expected and what a service answered, compared by PESTO's rules.

* Objects: the keys must be the same; their values are compared one by one.
* Lists: each expected element must have an equal one, wherever it is. What the answer has beyond that is told of
  (:attr:`Kind.BEYOND`) and does not count as a difference. Objects in a list must be equal in all, with their lists
  in the same order.
* Pictures: the same pixels, however they were encoded. (PESTO encodes the answer again, as 8 bits per band, and
  compares that file's bytes: what it finds equal is equal here, too, whoever encoded the expected file.)
* Anything else must be equal. Numbers have no tolerance: 1 and 1.0 are equal, 0.1 + 0.2 and 0.3 are not.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pesto_repro.service.payload import File, Value

KeyPath = tuple[str | int, ...]
SamePicture = Callable[[File, bytes], bool]
"""Whether a file and the bytes of an answer are the same picture."""


class Kind(StrEnum):
    """How a value differs."""

    MISSING = "missing"
    UNEXPECTED = "unexpected"
    UNEQUAL = "unequal"
    PICTURE = "picture"
    BEYOND = "beyond"


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that a service answered: a picture that a job made."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not as expected: at *path*, *expected* and *actual* (None where there is none)."""

    path: KeyPath
    kind: Kind
    expected: Value = None
    actual: Any = None

    @property
    def counts(self) -> bool:
        """Whether it makes a test fail."""
        return self.kind is not Kind.BEYOND


def compare(expected: Value, actual: Any, same_picture: SamePicture, path: KeyPath = ()) -> Iterator[Difference]:
    """Every difference of *actual* from *expected*, in the order of their keys."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        yield from _objects(expected, actual, same_picture, path)
    elif isinstance(expected, list) and isinstance(actual, list):
        yield from _lists(expected, actual, same_picture, path)
    elif not _same(expected, actual, same_picture):
        kind = Kind.PICTURE if isinstance(expected, File) and data_of(actual) is not None else Kind.UNEQUAL
        yield Difference(path, kind, expected, actual)


def data_of(value: Any) -> bytes | None:
    """The bytes of a picture, as a service answers with it: in base64, or as they are. None if it is none."""
    if isinstance(value, Blob):
        return value.data
    if not isinstance(value, str):
        return None
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if data.startswith(_MAGIC) else None


def as_json(value: Any) -> Any:
    """*value* with every Blob as text in base64: as a service that is not asynchronous answers with it."""
    if isinstance(value, Blob):
        return base64.b64encode(value.data).decode()
    if isinstance(value, dict):
        return {key: as_json(each) for key, each in value.items()}
    return [as_json(each) for each in value] if isinstance(value, list) else value


_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""What files of PNG, JPEG, TIFF and BigTIFF start with: the formats that a service answers in."""


def _objects(
    expected: dict[str, Value], actual: dict[str, Any], same_picture: SamePicture, path: KeyPath
) -> Iterator[Difference]:
    for key in sorted(expected.keys() | actual.keys()):
        here = (*path, key)
        if key not in actual:
            yield Difference(here, Kind.MISSING, expected[key])
        elif key not in expected:
            yield Difference(here, Kind.UNEXPECTED, actual=actual[key])
        else:
            yield from compare(expected[key], actual[key], same_picture, here)


def _lists(expected: list[Value], actual: list[Any], same_picture: SamePicture, path: KeyPath) -> Iterator[Difference]:
    met: set[int] = set()
    lacking = []
    for index, each in enumerate(expected):
        equal = [place for place, other in enumerate(actual) if _same(each, other, same_picture)]
        met.update(equal)
        if not equal:
            lacking.append(index)
    for index in lacking:
        yield _lacking((*path, index), expected[index], actual[index] if index < len(actual) else None)
    for index in sorted(set(range(len(actual))) - met - set(lacking)):
        yield Difference((*path, index), Kind.BEYOND, actual=actual[index])


def _lacking(path: KeyPath, expected: Value, there: Any) -> Difference:
    """*expected* has no equal in the list; *there* is what the answer has in its place."""
    if there is None:
        return Difference(path, Kind.MISSING, expected)
    kind = Kind.PICTURE if isinstance(expected, File) and data_of(there) is not None else Kind.UNEQUAL
    return Difference(path, kind, expected, there)


def _same(expected: Value, actual: Any, same_picture: SamePicture) -> bool:
    """Equal as elements of a list are."""
    if isinstance(expected, File):
        data = data_of(actual)
        return data is not None and expected.is_picture and same_picture(expected, data)
    if isinstance(expected, list):
        return isinstance(actual, list) and all(
            any(_same(each, other, same_picture) for other in actual) for each in expected
        )
    return bool(expected == actual)
