"""The files of a test as values: those of ``input`` are what is sent, those of ``output`` what is expected.

==================================  ==========================================================================
a folder of names that are numbers  a list, in the order of the names as text ("10.png" comes before "2.png")
another folder                      an object, whose keys are the names without their last extension
``.string``                         text, with every blank and newline that the file has
``.float`` ``.number``              a number
``.int`` ``.integer``               an integer
``.json`` ``.geojson``              whatever it holds
anything else                       a :class:`File`: sent as an address, expected as a picture
==================================  ==========================================================================

Extensions count in any case. These are PESTO's rules, with two additions: names that start with a dot are no
values (``.gitkeep``), and two files that give one key are an error.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pesto_repro.errors import PestoError

PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class File:
    """A value that is the file at *path* itself."""

    path: Path

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower()

    @property
    def is_picture(self) -> bool:
        return self.suffix in PICTURES

    def read(self) -> bytes:
        return self.path.read_bytes()


Value = Any
"""What JSON can say, with Files among it."""


def load(path: Path) -> Value:
    """The value of the file or folder *path*. Raises PestoError for a file that does not hold what its name says."""
    try:
        return _folder(path) if path.is_dir() else _file(path)
    except OSError as error:
        raise PestoError(f"{path} cannot be read: {error.strerror or error}") from None


def load_object(folder: Path) -> dict[str, Value]:
    """The value of *folder*, which must be an object. One that is not there, or is empty, is an empty one."""
    value = load(folder) if folder.exists() else {}
    if not isinstance(value, dict) and value != []:
        raise PestoError(
            f"{folder} is no object: its files are {'numbers' if isinstance(value, list) else 'one value'}",
            "name each file after a parameter of the service",
        )
    return dict(value)


def sendable(value: Value, address: Callable[[File], str]) -> Any:
    """*value* as JSON: each File as the text that *address* gives for it."""
    if isinstance(value, File):
        return address(value)
    if isinstance(value, dict):
        return {key: sendable(each, address) for key, each in value.items()}
    if isinstance(value, list):
        return [sendable(each, address) for each in value]
    return value


def inline(file: File) -> str:
    """The address of *file* for a service that does not see our files: a picture's bytes in base64."""
    return base64.b64encode(file.read()).decode() if file.is_picture else f"file://{file.path.absolute()}"


def files_in(value: Value) -> Iterator[File]:
    """Every File of *value*."""
    if isinstance(value, File):
        yield value
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from files_in(each)


def _folder(folder: Path) -> Value:
    entries = sorted((each for each in folder.iterdir() if not each.name.startswith(".")), key=lambda each: each.name)
    if all(each.stem.isdigit() for each in entries):
        return [load(each) for each in entries]
    found: dict[str, Path] = {}
    for each in entries:
        other = found.setdefault(each.stem, each)
        if other != each:
            raise PestoError(f"{folder}: both {other.name} and {each.name} are {each.stem!r}", "remove one of them")
    return {key: load(each) for key, each in found.items()}


def _file(path: Path) -> Value:
    for suffixes, read, what in _READERS:
        if path.name.lower().endswith(suffixes):
            try:
                return read(path.read_text("utf-8"))
            except ValueError as error:
                raise PestoError(f"{path} holds no {what}: {error}") from None
    return File(path)


_READERS: tuple[tuple[tuple[str, ...], Callable[[str], Value], str], ...] = (
    ((".string",), str, "text"),
    ((".float", ".number"), float, "number"),
    ((".int", ".integer"), int, "integer"),
    ((".json", ".geojson"), json.loads, "JSON"),
)
