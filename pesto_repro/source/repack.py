"""A wheel in canonical form: equal files give equal bytes, whoever built and whoever repacks.

The rules (``REPACK_VERSION`` counts their changes; a change of any gives other digests to what is locked):

* Files sorted by path, those of ``.dist-info`` last, RECORD at the very end (binary distribution format, "Recommended
  archiver features"); no entries for directories.
* Stored, not deflated: no compressor decides the bytes. A layer compresses them anyway.
* 1980-01-01T00:00:00, modes 0644 and 0755, no extra fields, no comments; zip headers are written here, byte for byte.
* RECORD is written anew, in that order. Left out: compiled files, RECORD's signatures, and what an installer writes
  (INSTALLER, REQUESTED, direct_url.json).
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import posixpath
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, cast

from pesto_repro.build.entry import BROKEN, Opener, reason
from pesto_repro.build.tar import Sink
from pesto_repro.digest import Digest, chunks
from pesto_repro.errors import BuildError
from pesto_repro.source.wheel import Judged
from pesto_repro.store import Store

REPACK_VERSION = 1
_INSTALLERS = frozenset(["INSTALLER", "REQUESTED", "direct_url.json", "RECORD", "RECORD.jws", "RECORD.p7s"])
_DATE = (0 << 9) | (1 << 5) | 1
"""MS-DOS, APPNOTE 4.4.6: years since 1980, month, day."""
_VERSION = 20
_UNIX = 3
_UTF8 = 0x800


@dataclass(frozen=True, slots=True)
class File:
    """A file of a wheel."""

    path: str
    size: int
    crc: int
    sha256: str
    executable: bool
    open: Opener


def repack(wheel: Judged, store: Store) -> tuple[Digest, int, tuple[File, ...]]:
    """The canonical form of *wheel*, in *store*: digest, size, and its files. Raises BuildError."""
    try:
        files = sorted(_files(wheel), key=lambda each: (each.path.startswith(f"{wheel.dist_info}/"), each.path))
        files.append(_record(wheel, files))
        with store.writer() as blob:
            _write_zip(files, blob)
            return blob.commit(), blob.size, tuple(files)
    except BROKEN as error:
        raise BuildError(f"{wheel.filename} is not a sound wheel: {reason(error)}") from None


def contents(digest: Digest, store: Store) -> dict[str, str]:
    """The files of the canonical wheel *digest* in *store*, and what distinguishes each: its hash, size and mode."""
    with store.open(digest) as stream, zipfile.ZipFile(stream) as archive:
        return {each.path: line(each) for each in map(partial(_file, archive), archive.infolist())}


def line(each: File) -> str:
    """A file in a few words: what must be equal."""
    return f"{each.sha256} {'755' if each.executable else '644'} {each.size}"


def _files(wheel: Judged) -> Iterator[File]:
    for info in wheel.archive.infolist():
        folder, name = posixpath.split(info.filename)
        compiled = name.endswith((".pyc", ".pyo")) or "__pycache__" in folder.split("/")
        if not info.is_dir() and not compiled and not (folder == wheel.dist_info and name in _INSTALLERS):
            yield _file(wheel.archive, info)


def _file(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> File:
    state, crc, size = hashlib.sha256(), 0, 0
    opener = cast("Opener", partial(archive.open, info))
    with opener() as stream:
        for piece in chunks(stream):
            state.update(piece)
            crc, size = zlib.crc32(piece, crc), size + len(piece)
    if size != info.file_size:  # zipfile does not mind
        raise zipfile.BadZipFile(f"{info.filename} has {size} bytes, not the {info.file_size} that it declares")
    mode = info.external_attr >> 16
    executable = bool(stat.S_IFMT(mode) in (0, stat.S_IFREG) and mode & 0o111)
    return File(info.filename, size, crc, state.hexdigest(), executable, opener)


def _record(wheel: Judged, files: Iterable[File]) -> File:
    """Recording installed projects, "The RECORD file": path, hash (urlsafe base64 without padding), size."""
    path = f"{wheel.dist_info}/RECORD"
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for each in files:
        raw = base64.urlsafe_b64encode(bytes.fromhex(each.sha256)).rstrip(b"=").decode()
        rows.writerow([each.path, f"sha256={raw}", each.size])
    rows.writerow([path, "", ""])
    data = text.getvalue().encode()
    digest = hashlib.sha256(data).hexdigest()
    return File(path, len(data), zlib.crc32(data), digest, False, lambda: cast(BinaryIO, io.BytesIO(data)))


def _write_zip(files: Iterable[File], sink: Sink) -> None:
    """APPNOTE 4.3.6, "Overall .ZIP file format"."""
    directory, offset, count = [], 0, 0
    for count, each in enumerate(files, 1):  # noqa: B007  # it is used after the loop
        name = each.path.encode()
        common = _common(each, name)
        # 4.3.7: local file header signature, and the fields that it shares with the central directory
        header = struct.pack("<I", 0x04034B50) + common + name
        sink.write(header)
        _copy(each, sink)
        mode = stat.S_IFREG | (0o755 if each.executable else 0o644)
        # 4.3.12: ... comment length, disk number, internal and external attributes, offset of the local header
        central = struct.pack("<IBB", 0x02014B50, _VERSION, _UNIX) + common
        directory.append(central + struct.pack("<HHHII", 0, 0, 0, mode << 16, offset) + name)
        offset += len(header) + each.size
    listed = b"".join(directory)
    if offset + len(listed) >= 1 << 32:
        raise BuildError("the wheel is 4 GiB or more")
    sink.write(listed)
    # 4.3.16: end of central directory record
    sink.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(listed), offset, 0))


def _common(each: File, name: bytes) -> bytes:
    """Version needed, flags, method (stored), time, date, CRC, both sizes, lengths of name and extra field."""
    flags = 0 if each.path.isascii() else _UTF8
    return struct.pack("<HHHHHIIIHH", _VERSION, flags, 0, 0, _DATE, each.crc, each.size, each.size, len(name), 0)


def _copy(each: File, sink: Sink) -> None:
    with each.open() as stream:
        for piece in chunks(stream):
            sink.write(piece)
