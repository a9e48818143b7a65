"""The floor of a first build: read the same wheels and .debs once, inflate them and hash what comes out, on all cores.

``python floor.py FILE...``, timed as a whole process. A wheel's members are inflated by the fastest inflater that is
installed, a .deb's by liblzma; both release the interpreter's lock, as sha256 does.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import lzma
import os
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

RAW = -15
PORTION = 4_000_000
"""Compressed bytes that one thread takes at a time."""
_HEADER = struct.Struct("<26xHH")
_AR_HEADER = 60
_INFLATERS = ("isal.isal_zlib", "zlib_ng.zlib_ng")
Member = tuple[int, int, bool]
"""Of a zip: where it starts, its compressed size, whether it is deflated."""


def _fastest() -> Callable[[bytes, int], bytes]:
    """The first inflater that is installed; we need one of them ourselves."""
    for name in _INFLATERS:
        with contextlib.suppress(ImportError):
            found: Callable[[bytes, int], bytes] = import_module(name).decompress
            return found
    raise ImportError(f"none of {', '.join(_INFLATERS)} is installed")


inflate = _fastest()


def main() -> None:
    """Inflate and hash all that the arguments name."""
    jobs: list[tuple[int, Callable[[], int]]] = []
    for path in map(Path, sys.argv[1:]):
        if zipfile.is_zipfile(path):
            jobs += [(sum(each[1] for each in part), partial(_members, path, part)) for part in _portions(path)]
        else:
            jobs.append((path.stat().st_size * 8, partial(_deb, path)))  # xz takes longer than deflate: first
    jobs.sort(key=lambda job: -job[0])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        print(sum(pool.map(lambda job: job[1](), jobs)))


def _portions(path: Path) -> Iterator[list[Member]]:
    part: list[Member] = []
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            part.append((info.header_offset, info.compress_size, info.compress_type == zipfile.ZIP_DEFLATED))
            if sum(each[1] for each in part) >= PORTION or len(part) >= 200:
                yield part
                part = []
    if part:
        yield part


def _members(path: Path, members: Sequence[Member]) -> int:
    total = 0
    with path.open("rb") as file:
        for offset, size, deflated in members:
            head = os.pread(file.fileno(), _HEADER.size, offset)
            name, extra = _HEADER.unpack(head)
            data = os.pread(file.fileno(), size, offset + _HEADER.size + name + extra)
            content = inflate(data, RAW) if deflated else data
            hashlib.sha256(content).digest()
            total += len(content)
    return total


def _deb(path: Path) -> int:
    """The data member of a .deb (ar(5): headers of 60 bytes, data padded to an even length)."""
    with path.open("rb") as file:
        file.seek(8)
        while header := file.read(_AR_HEADER):
            size = int(header[48:58])
            if header.startswith(b"data.tar.xz"):
                return _unpacked(io.BytesIO(file.read(size)))
            file.seek(size + size % 2, io.SEEK_CUR)
    return 0


def _unpacked(stream: BinaryIO) -> int:
    state, total = hashlib.sha256(), 0
    with lzma.open(stream) as unpacked:
        while piece := unpacked.read(1 << 20):
            state.update(piece)
            total += len(piece)
    return total


if __name__ == "__main__":
    main()
