"""Writes ``/etc/ld.so.cache``, which tells the dynamic loader where each shared library lies.

The format is glibc's own, version 1.1 (glibc, ``sysdeps/generic/dl-cache.h``), as ``ldconfig`` writes it,
without its optional extensions: a library built for newer CPUs (``glibc-hwcaps``) is passed over, its plain
one is found. Libraries for another architecture than the image's are not entered.
"""

from __future__ import annotations

import fnmatch
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cmp_to_key
from typing import BinaryIO

_MAGIC = b"glibc-ld.so.cache1.1"
_HEADER = struct.Struct("<20sIIB3xI12x")
_ENTRY = struct.Struct("<iIIIQ")
_LITTLE_ENDIAN = 2
MACHINES = {"amd64": 62, "arm64": 183}
"""ELF's e_machine for Debian's architectures: EM_X86_64, EM_AARCH64."""
# dl-cache.h: FLAG_ELF_LIBC6 with FLAG_X8664_LIB64, FLAG_AARCH64_LIB64
_FLAGS = {"amd64": 0x0303, "arm64": 0x0A03}
_LIBRARY = re.compile(r"(?:lib|ld-).*\.so.*(?<!-gdb\.py)")
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_STRTAB, _DT_SONAME = 0, 5, 14
_DIGITS = re.compile(r"\d+")


def is_library_name(name: str) -> bool:
    """Whether ldconfig looks into a file of this name at all."""
    return _LIBRARY.fullmatch(name) is not None


def directories(configuration: Mapping[str, bytes]) -> tuple[str, ...]:
    """The folders that ``etc/ld.so.conf`` and its includes name, then the built-in ones; no leading slash.

    *configuration* holds all files below ``etc`` that may be asked for, by path.
    """
    found = [*_configured("etc/ld.so.conf", configuration), "lib", "usr/lib"]
    return tuple(dict.fromkeys(found))


def entry_name(name: str, soname: str, is_link: bool) -> str:
    """The name that ldconfig enters for the file or link *name*: a link for ld(1), "libz.so", has its own."""
    return name if is_link and name.endswith(".so") and soname.startswith(name) else soname


def cache(libraries: Iterable[tuple[str, str]], architecture: str) -> bytes:
    """The cache of (soname, absolute path) pairs; of one soname the first pair is the one that is found."""
    # ldconfig writes, and the loader's binary search expects, names in descending order
    by_name = cmp_to_key(compare)
    ordered = sorted(libraries, key=lambda each: by_name(each[0]), reverse=True)
    start = _HEADER.size + _ENTRY.size * len(ordered)
    strings, entries = bytearray(), bytearray()
    offsets: dict[str, int] = {}
    for soname, path in ordered:
        for text in (soname, path):
            if text not in offsets:
                offsets[text] = start + len(strings)
                strings += text.encode() + b"\0"
        entries += _ENTRY.pack(_FLAGS[architecture], offsets[soname], offsets[path], 0, 0)
    header = _HEADER.pack(_MAGIC, len(ordered), len(strings), _LITTLE_ENDIAN, 0)
    return header + bytes(entries) + bytes(strings)


def compare(one: str, other: str) -> int:
    """glibc's ``_dl_cache_libcmp``: as text, but runs of digits as numbers, and digits after all else."""
    left, right = 0, 0
    while left < len(one):
        digits, others = _DIGITS.match(one, left), _DIGITS.match(other, right)
        if digits and others:
            if difference := int(digits[0]) - int(others[0]):
                return difference
            left, right = digits.end(), others.end()
        elif digits or others:
            return 1 if digits else -1
        elif one[left] != other[right : right + 1]:
            return ord(one[left]) - ord(other[right : right + 1] or "\0")
        else:
            left, right = left + 1, right + 1
    return 0 if right == len(other) else -1


@dataclass(frozen=True, slots=True)
class Library:
    """What the cache must know of a shared library: ELF's e_machine, and DT_SONAME if it has one."""

    machine: int
    soname: str | None


def library(stream: BinaryIO) -> Library | None:
    """What a file says of itself; None if it is no shared library of 64 bits."""
    header = stream.read(64)
    # ELF-64: class at 4 (2 = 64 bits), data at 5 (1 = little-endian), e_machine at 18
    if header[:6] != b"\x7fELF\2\1" or len(header) < 64:
        return None
    segments = list(_segments(stream, header))
    dynamic = next((each for each in segments if each[0] == _PT_DYNAMIC), None)
    if dynamic is None:
        return None
    return Library(struct.unpack_from("<H", header, 18)[0], _dynamic_soname(stream, segments, dynamic))


_Segment = tuple[int, int, int, int]


def _segments(stream: BinaryIO, header: bytes) -> Iterator[_Segment]:
    """(type, offset in the file, address, size in the file) of each program header."""
    (offset,) = struct.unpack_from("<Q", header, 32)
    size, count = struct.unpack_from("<HH", header, 54)
    stream.seek(offset)
    table = stream.read(size * count)
    for start in range(0, len(table) - 55, max(size, 56)):
        kind, _, place, address, _, length = struct.unpack_from("<IIQQQQ", table, start)
        yield kind, place, address, length


def _dynamic_soname(stream: BinaryIO, segments: Iterable[_Segment], dynamic: _Segment) -> str | None:
    stream.seek(dynamic[1])
    values: dict[int, int] = {}
    for tag, value in struct.iter_unpack("<qQ", stream.read(dynamic[3] // 16 * 16)):
        if tag == _DT_NULL:
            break
        values[tag] = value
    if _DT_SONAME not in values or _DT_STRTAB not in values:
        return None
    address = values[_DT_STRTAB] + values[_DT_SONAME]
    for kind, place, start, length in segments:
        if kind == _PT_LOAD and start <= address < start + length:
            stream.seek(place + address - start)
            return stream.read(256).partition(b"\0")[0].decode("latin-1")
    return None


def _configured(path: str, configuration: Mapping[str, bytes]) -> Iterator[str]:
    # ldconfig(8): "a list of directories, one per line"; comments start with #; "include" takes patterns
    for line in configuration.get(path, b"").decode().splitlines():
        words = line.partition("#")[0].split()
        if words[:1] == ["include"]:
            for pattern in words[1:]:
                for each in sorted(fnmatch.filter(configuration, pattern.lstrip("/"))):
                    yield from _configured(each, configuration)
        else:
            yield from (word.strip("/") for word in words)
