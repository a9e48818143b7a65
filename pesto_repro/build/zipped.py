"""What lies in a zip file is mostly deflated already: its streams as they are, to be copied instead of made again."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import IO, BinaryIO, cast

from pesto_repro.build.entry import Deflated
from pesto_repro.errors import BuildError

_LOCAL_HEADER = 30


class Window(io.RawIOBase):
    """*size* bytes of *base* from *start*, as a stream of its own. Closing it leaves *base* open."""

    def __init__(self, base: IO[bytes], start: int, size: int) -> None:
        self._base, self._start, self._size, self._at = base, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed: Buffer
        self._base.seek(self._start + self._at)
        piece = self._base.read(min(len(buffer), max(0, self._size - self._at)))
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def deflated(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Deflated | None:
    """The raw stream of a member of *archive*; None if it is not deflated."""
    if info.compress_type != zipfile.ZIP_DEFLATED:
        return None
    return Deflated(lambda: _raw(archive, info), info.compress_size, info.file_size, info.CRC)


def _raw(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> BinaryIO:
    """APPNOTE 4.3.7, "Local file header": lengths of name and extra field at 26 and 28, then the data."""
    base = cast("IO[bytes]", archive.fp)
    base.seek(info.header_offset)
    header = base.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER:
        raise BuildError("a local header is cut off: the archive is broken")
    name, extra = struct.unpack("<HH", header[26:])
    start = info.header_offset + _LOCAL_HEADER + name + extra
    return cast("BinaryIO", io.BufferedReader(Window(base, start, info.compress_size)))
