"""One path of a layer, before it is a tar header: what makers yield and the tar writer takes."""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Literal

from pesto_repro.plan.root import SPECIAL, Permissions

Opener = Callable[[], BinaryIO]
"""Opens the content anew, at its start, each time it is called; the caller closes what it got.

Opening it and reading from it raise any of ``BROKEN`` where the archive that it lies in turns out to be broken.
"""

BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, NotImplementedError)


def reason(error: Exception) -> str:
    """What *error*, one of ``BROKEN``, says; an end that comes too early says nothing."""
    return str(error) or "it ends too early"


@dataclass(frozen=True, slots=True)
class Deflated:
    """A content as a raw deflate stream (RFC 1951) that its packager made, *size* bytes long.

    *length* and *crc* (CRC-32) are those of the content.
    """

    open: Opener
    size: int
    length: int
    crc: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a layer, relative to the image's root, without leading or trailing slash.

    *mode* is the permission bits (``0o644``), *size* the content's length in bytes (0 unless a file), *target* where
    a symlink points or the path that a hardlink is another name of.
    """

    path: str
    kind: Literal["file", "directory", "symlink", "hardlink"]
    mode: int
    size: int = 0
    open: Opener | None = None
    target: str = ""
    uid: int = 0
    gid: int = 0
    origin: str = ""
    """Who brought it ("numpy 2.3.1"), for messages only: never in the bytes."""
    deflated: Deflated | None = None
    """The same content, deflated already."""


def file(path: str, opener: Opener, size: int, *, executable: bool = False, origin: str = "") -> Entry:
    """A file with normalised permissions."""
    return Entry(path, "file", 0o755 if executable else 0o644, size, opener, origin=origin)


def data(path: str, content: bytes, *, executable: bool = False, origin: str = "") -> Entry:
    """A file whose content is at hand."""
    return file(path, lambda: io.BytesIO(content), len(content), executable=executable, origin=origin)


def directory(path: str, permissions: Permissions | None = None, *, origin: str = "") -> Entry:
    """A directory; with *permissions* unsaid, those that every base gives it."""
    mode, uid, gid = permissions or SPECIAL.get(path, Permissions())
    return Entry(path, "directory", mode, uid=uid, gid=gid, origin=origin)


def symlink(path: str, target: str, *, origin: str = "") -> Entry:
    return Entry(path, "symlink", 0o777, target=target, origin=origin)
