"""Are two encoded images the same picture? Equal bytes are; others are decoded, by the image's own Python.

So this machine needs no library for images, and pixels come out as the service itself sees them. Nothing is
decoded unless bytes differ, and then everything that one test needs at once.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from pesto_repro.digest import Digest
from pesto_repro.errors import PestoError
from pesto_repro.sandbox.cell import Cell, Completed, run
from pesto_repro.service.compare import SamePicture, data_of
from pesto_repro.service.payload import Value, files_in

Decode = Callable[[list[bytes]], list[Mapping[str, Any]]]
"""The prints of files, as :mod:`~pesto_repro.service.picture_prints` describes them. Raises PestoError."""


def same_in(expected: Value, actual: Any, decode: Decode) -> SamePicture:
    """What tells whether a file of *expected* and bytes of *actual* are the same picture."""
    wanted = {file: file.read() for file in files_in(expected) if file.is_picture}
    there = list(_data_in(actual))
    if set(wanted.values()) <= set(there):
        return lambda file, data: wanted[file] == data
    album = Album.of([*wanted.values(), *there] if there else [], decode)
    return lambda file, data: album.same(wanted[file], data)


@dataclass(frozen=True, slots=True)
class Album:
    """The prints of files, by the digest of their bytes."""

    prints: Mapping[Digest, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Iterable[bytes], decode: Decode) -> Album:
        """The prints of *data*, each once."""
        found = {Digest.of(each): each for each in data}
        return cls(dict(zip(found, decode(list(found.values())), strict=True)) if found else {})

    def same(self, expected: bytes, actual: bytes) -> bool:
        """Whether the bytes are equal, or the pixels, or the expected file is what was kept of such an answer."""
        if expected == actual:
            return True
        wanted, there = self.prints[Digest.of(expected)], self.prints[Digest.of(actual)]
        return wanted.get("pixels") in there.get("stored", ())


def decoder(cell: Cell) -> Decode:
    """Decodes in *cell*, an image of a PESTO service."""
    script = files(__package__).joinpath("picture_prints.py").read_text("utf-8")

    def decode(data: list[bytes]) -> list[Mapping[str, Any]]:
        asked = json.dumps([base64.b64encode(each).decode() for each in data]).encode()
        done = run(cell, ["python3", "-c", script], input=asked)
        try:
            return _prints(done, len(data))
        except ValueError as error:
            said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2] or str(error)
            raise PestoError(
                f"pictures differ in their bytes, and the image's python3 cannot decode them: {said}",
                "the image must have numpy and rasterio, as PESTO's services do",
            ) from None

    return decode


def _prints(done: Completed, count: int) -> list[Mapping[str, Any]]:
    """What the script printed, if it ended well; an image's python3 may be anything. Raises ValueError."""
    found = json.loads(done.stdout) if done.returncode == 0 else None
    if not isinstance(found, list) or len(found) != count or not all(isinstance(each, dict) for each in found):
        raise ValueError(f"it ended with {done.returncode}, without their prints")
    return found


def _data_in(actual: Any) -> Iterator[bytes]:
    """Every picture that a service answered."""
    data = data_of(actual)
    if data is not None:
        yield data
    elif isinstance(actual, (dict, list)):
        for each in actual.values() if isinstance(actual, dict) else actual:
            yield from _data_in(each)
