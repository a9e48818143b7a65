"""Compressors whose output is the same on every CPU, and the writer that turns a tar into a stored layer.

zlib-ng's output depends on how its input is cut into writes, so every compressor here is fed pieces of exactly
``PIECE`` bytes. The host's own zlib, whose output differs between distributions, never touches a digest.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import IO, BinaryIO, Protocol, cast

import zstandard
from zlib_ng import zlib_ng

from pesto_repro.build.entry import Deflated
from pesto_repro.build.tar import Sink
from pesto_repro.digest import Digest, chunks
from pesto_repro.errors import BuildError

PIECE = 256 << 10
_MORSEL = 512
"""Of zstd, 4 bytes may be a block of 128 KiB: RFC 8878, 3.1.1.2, "RLE_Block"."""
MEMBER = 32 << 10
"""Bytes of a deflate stream from which on it is worth a gzip member of its own."""
_DEFLATED = 16 << 10
"""Bytes of a deflate stream inflated at once: they become 16 MiB at most."""
GZIP_LEVEL = 6
ZSTD_LEVEL = 3
GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""RFC 1952: deflate, no flags, no time, no extra flags, unknown operating system."""


class Compressor(Protocol):
    """Takes the input piece by piece, gives the output piece by piece, and the rest at the end."""

    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Gzip:
    def __init__(self) -> None:
        self._deflate = zlib_ng.compressobj(GZIP_LEVEL, zlib_ng.DEFLATED, -zlib_ng.MAX_WBITS)
        self._head, self._crc, self._size = GZIP_HEADER, 0, 0

    def compress(self, data: bytes, /) -> bytes:
        self._crc = zlib_ng.crc32(data, self._crc)
        self._size += len(data)
        head, self._head = self._head, b""
        return head + self._deflate.compress(data)

    def flush(self) -> bytes:
        return self._head + self._deflate.flush() + _trailer(self._crc, self._size)


def _trailer(crc: int, size: int) -> bytes:
    """RFC 1952, 2.3.1: CRC32, then ISIZE modulo 2^32, least-significant byte first."""
    return struct.pack("<II", crc, size & 0xFFFFFFFF)


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _zstd() -> Compressor:
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj()


_COMPRESSORS: dict[str, tuple[Callable[[], Compressor], str]] = {
    "gzip": (_Gzip, f"zlib-ng {zlib_ng.ZLIBNG_VERSION} level {GZIP_LEVEL}"),
    "zstd": (_zstd, f"zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))} level {ZSTD_LEVEL}"),
    "none": (_Plain, "none"),
}


def describe(compression: str) -> str:
    """Compressor, version and level, as the lock records them: these decide bytes."""
    return _COMPRESSORS[compression][1]


class LayerWriter:
    """Takes a tar, writes it compressed to *sink*; knows its diff_id, and its uncompressed size in bytes.

    RFC 1952, 2.2: "A gzip file consists of a series of members". So a large content that is deflated already is a
    member as it is, between those that are made here.
    """

    def __init__(self, compression: str, sink: Sink) -> None:
        self._begin = _COMPRESSORS[compression][0]
        self._compressor: Compressor | None = self._begin()
        self._sink, self._state, self._pending = sink, hashlib.sha256(), bytearray()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Take the next bytes of the tar."""
        self._count(data)
        self._pending += data
        if len(self._pending) >= PIECE:
            self._drain()

    def copy(self, content: Deflated) -> bool:
        """Take the next bytes of the tar, deflated already; False if they are too few, or not to be gzip.

        Raises BuildError if the stream is not what its packager says.
        """
        if self._begin is not _Gzip or content.size < MEMBER:
            return False
        self._end()
        self._sink.write(GZIP_HEADER)
        inflate, crc, before = zlib_ng.decompressobj(-zlib_ng.MAX_WBITS), 0, self.size
        with content.open() as stream:
            for piece in chunks(stream, _DEFLATED):
                self._sink.write(piece)
                data = _inflated(inflate, piece)
                crc = zlib_ng.crc32(data, crc)
                self._count(data)
        length = self.size - before
        if not inflate.eof or inflate.unused_data or (crc, length) != (content.crc, content.length):
            raise BuildError("a deflated file is not what its archive says: the archive is broken")
        self._sink.write(_trailer(crc, length))
        return True

    def close(self) -> Digest:
        """Write what is left; the diff_id."""
        self._end()
        return Digest(self._state.hexdigest())

    def _count(self, data: bytes) -> None:
        self._state.update(data)
        self.size += len(data)

    def _end(self) -> None:
        """End the member that is being made, if there is one."""
        compressor, self._compressor = self._compressor, None
        if compressor is None and self._pending:
            compressor = self._begin()
        if compressor is not None:
            self._sink.write(compressor.compress(bytes(self._pending)) + compressor.flush())
        self._pending.clear()

    def _drain(self) -> None:
        whole = len(self._pending) // PIECE * PIECE
        view = bytes(self._pending[:whole])
        del self._pending[:whole]
        if self._compressor is None:
            self._compressor = self._begin()
        for start in range(0, whole, PIECE):
            self._sink.write(self._compressor.compress(view[start : start + PIECE]))


def _inflated(inflate: _Decompressor, piece: bytes) -> bytes:
    try:
        return inflate.decompress(piece)
    # zlib_ng's stubs take its exception for a value
    except zlib_ng.error as error:  # type: ignore[misc]
        raise BuildError(f"a deflated file is broken: {error}") from None


def decompressed(pieces: Iterable[bytes], compression: str) -> Iterator[bytes]:
    """The inverse: the tar in a layer, piece by piece. Raises BuildError for what is no such stream."""
    if compression == "none":
        yield from pieces
        return
    try:
        yield from _expanded(pieces, _gunzip if compression == "gzip" else _unzstd)
    # zlib_ng's stubs take its exception for a value
    except (zlib_ng.error, zstandard.ZstdError, EOFError) as error:  # type: ignore[misc]
        raise BuildError(f"not a {compression} stream: {error}") from None


def unzstd(stream: BinaryIO) -> IO[bytes]:
    """*stream* decompressed, to be read from start to end; ``read`` raises BuildError if it is broken."""
    return as_stream(decompressed(chunks(stream), "zstd"))


def as_stream(pieces: Iterable[bytes]) -> IO[bytes]:
    """*pieces* as a stream to be read from start to end."""
    return cast("IO[bytes]", io.BufferedReader(_Joined(pieces), PIECE))


class _Joined(io.RawIOBase):
    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces, self._rest = iter(pieces), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed: Buffer
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        taken, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


class _Decompressor(Protocol):
    eof: bool
    unused_data: bytes

    def decompress(self, data: bytes, /) -> bytes: ...


def _gunzip() -> _Decompressor:
    return cast(_Decompressor, zlib_ng.decompressobj(zlib_ng.MAX_WBITS | 16))


def _unzstd() -> _Decompressor:
    return cast(_Decompressor, zstandard.ZstdDecompressor().decompressobj())


def _expanded(pieces: Iterable[bytes], begin: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """RFC 1952, 2.2: a file is a series of members. RFC 8878, 3: one or more frames.

    The input is fed bit by bit, so that memory stays flat however well it was compressed.
    """
    member = begin()
    for piece in pieces:
        for start in range(0, len(piece), _MORSEL):
            rest = piece[start : start + _MORSEL]
            while rest:
                member = begin() if member.eof else member
                yield member.decompress(rest)
                rest = member.unused_data
    if not member.eof:
        raise EOFError("it ends too early")
