"""Reading a .deb: what it says of itself, its maintainer scripts, and the paths it brings.

deb(5): an ar archive of ``debian-binary``, ``control.tar`` and ``data.tar``, each tar packed in one way or
another. It is read once, from start to end; contents that somebody wants are put one after the other into a
scratch file, so memory stays flat whatever the package's size.
"""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, BinaryIO, Literal, cast

from pesto_repro.build.compress import unzstd
from pesto_repro.build.zipped import Window
from pesto_repro.digest import CHUNK
from pesto_repro.errors import BuildError
from pesto_repro.fetch.debian import paragraphs

_MAGIC = b"!<arch>\n"
_HEADER = 60
_UNPACKERS: dict[str, Callable[[BinaryIO], IO[bytes]]] = {
    "": lambda stream: stream,
    ".gz": lambda stream: cast("IO[bytes]", gzip.GzipFile(fileobj=stream)),
    ".xz": lambda stream: cast("IO[bytes]", lzma.LZMAFile(stream)),  # noqa: SIM115  # the caller closes it
    ".zst": unzstd,
}
_KINDS: dict[bytes, Kind] = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
}

Kind = Literal["file", "directory", "symlink", "hardlink", "special"]


@dataclass(frozen=True, slots=True)
class Member:
    """One path of ``data.tar``, without the leading ``./``; "special" is a device, a pipe or the like."""

    path: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    target: str
    _scratch: IO[bytes] | None = field(repr=False, compare=False)
    _offset: int = field(repr=False, compare=False)

    def open(self) -> BinaryIO:
        """The content, anew at each call. Only for members that were kept, one at a time."""
        assert self._scratch is not None, self.path
        return cast("BinaryIO", io.BufferedReader(Window(self._scratch, self._offset, self.size)))

    def read(self) -> bytes:
        """The content of a small file whole."""
        with self.open() as stream:
            return stream.read()


@dataclass(frozen=True, slots=True)
class Deb:
    """A package: *control* holds the files of its ``control.tar`` by name ("control", "postinst"...)."""

    label: str
    control: Mapping[str, bytes]
    members: tuple[Member, ...]

    @property
    def fields(self) -> Mapping[str, str]:
        """The control paragraph, names in lower case."""
        return next(paragraphs(self.control["control"].decode()))

    @property
    def name(self) -> str:
        return self.fields["package"]


def read(stream: BinaryIO, label: str, scratch: IO[bytes], keep: Callable[[str], bool] = lambda path: True) -> Deb:
    """Read the package in *stream*; the contents of the paths that *keep* wants are appended to *scratch*.

    Raises BuildError naming *label* if it is not a package that dpkg would unpack.
    """
    try:
        parts = dict(_parts(stream))
        _require_version(parts)
        control = _control(_unpacked(parts, "control.tar"))
        members = tuple(_data(_unpacked(parts, "data.tar"), scratch, keep))
        deb = Deb(label, control, members)
        if not {"package", "version", "architecture"} <= set(deb.fields):
            raise _Malformed("its control file lacks Package, Version or Architecture")
    except (
        _Malformed,
        tarfile.TarError,
        lzma.LZMAError,
        OSError,
        EOFError,
        ValueError,
        StopIteration,
    ) as error:
        raise BuildError(f"{label} is not a Debian package that can be read: {error}") from None
    return deb


class _Malformed(Exception):
    """The archive breaks deb(5)."""


def _parts(stream: BinaryIO) -> Iterator[tuple[str, BinaryIO]]:
    """The members of the ar archive by name."""
    total = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if stream.read(len(_MAGIC)) != _MAGIC:
        raise _Malformed("it is no ar archive")
    while header := stream.read(_HEADER):
        # ar(5): name 16, date 12, uid 6, gid 6, mode 8, size 10, then "`\n"; members start at even offsets
        if len(header) < _HEADER or header[58:] != b"`\n" or not header[48:58].strip().isdigit():
            raise _Malformed("a header of its ar archive is broken")
        start, size = stream.tell(), int(header[48:58])
        if start + size > total:
            raise _Malformed("it is cut off")
        yield header[:16].decode("ascii").rstrip(" /"), cast("BinaryIO", Window(stream, start, size))
        stream.seek(start + size + size % 2)


def _require_version(parts: Mapping[str, BinaryIO]) -> None:
    # deb(5): "If the major number has changed, an incompatible change has been made and the program should
    # stop."
    version = parts["debian-binary"].read(16) if "debian-binary" in parts else b""
    if not version.startswith(b"2."):
        raise _Malformed(f"its format version is {version.decode('latin-1').strip()!r}, not 2.0")


def _unpacked(parts: Mapping[str, BinaryIO], stem: str) -> IO[bytes]:
    for suffix, unpack in _UNPACKERS.items():
        if stem + suffix in parts:
            return unpack(parts[stem + suffix])
    raise _Malformed(f"it has no {stem} packed as gz, xz or zst")


def _control(packed: IO[bytes]) -> dict[str, bytes]:
    found = {}
    with packed, tarfile.open(fileobj=packed, mode="r|", encoding="utf-8") as tar:
        for info in tar:
            if info.isreg() and (content := tar.extractfile(info)) is not None:
                found[_clean(info.name)] = content.read()
    if "control" not in found:
        raise _Malformed("it has no control file")
    return found


def _data(packed: IO[bytes], scratch: IO[bytes], keep: Callable[[str], bool]) -> Iterator[Member]:
    with packed, tarfile.open(fileobj=packed, mode="r|", encoding="utf-8") as tar:
        for info in tar:
            path = _clean(info.name)
            if path == ".":
                continue
            kind = "special" if info.issparse() else _KINDS.get(info.type, "special")
            kept = kind == "file" and keep(path)
            offset = scratch.seek(0, io.SEEK_END)
            if kept:
                _copy(cast("IO[bytes]", tar.extractfile(info)), scratch, info.size)
            size = info.size if kind == "file" else 0
            yield Member(
                path,
                kind,
                info.mode,
                info.uid,
                info.gid,
                size,
                _target(info),
                scratch if kept else None,
                offset,
            )
        _drain(packed)


def _target(info: tarfile.TarInfo) -> str:
    return _clean(info.linkname) if info.islnk() else info.linkname


def _drain(packed: IO[bytes]) -> None:
    """Read what follows the tar, so that the checksum at the end of the packed stream is looked at."""
    while packed.read(CHUNK):
        pass


def _copy(content: IO[bytes], scratch: IO[bytes], size: int) -> None:
    while piece := content.read(CHUNK):
        size -= len(piece)
        scratch.write(piece)
    if size:
        raise EOFError("its data ends in the middle of a file")


def _clean(name: str) -> str:
    """``usr/bin/x`` of ``./usr/bin/x``; whatever else is odd about a name stays for the maker to refuse."""
    return name.removeprefix("./").rstrip("/") or "."
