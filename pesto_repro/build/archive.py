"""Maker "archive": the contents of an archive land in ``to``.

An archive comes from outside. Members that would leave ``to``, links that are absolute or point out of it, devices
and set-user-ID bits are refused, all of them listed. Permissions are normalised as for a tree; a hard link becomes
a file of its own.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import posixpath
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import IO, BinaryIO, Literal, cast

from pesto_repro.build.compress import as_stream, unzstd
from pesto_repro.build.entry import BROKEN, Entry, Opener, directory, file, reason, symlink
from pesto_repro.build.maker import Inputs
from pesto_repro.digest import chunks
from pesto_repro.errors import BuildError
from pesto_repro.plan import Step
from pesto_repro.project.files import resolve

_DECOMPRESSORS: dict[str, Callable[[BinaryIO], IO[bytes]]] = {
    ".tar.gz": lambda stream: cast("IO[bytes]", gzip.GzipFile(fileobj=stream)),
    ".tgz": lambda stream: cast("IO[bytes]", gzip.GzipFile(fileobj=stream)),
    ".tar.xz": lambda stream: cast("IO[bytes]", lzma.LZMAFile(stream)),  # noqa: SIM115  # the caller closes it
    ".tar.bz2": lambda stream: cast("IO[bytes]", bz2.BZ2File(stream)),
    ".tar.zst": unzstd,
}
_BROKEN = (*BROKEN, tarfile.TarError, ValueError, OverflowError, BuildError)
_ZIP_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}

Kind = Literal["file", "directory", "symlink", "other"]


@dataclass(frozen=True, slots=True)
class _Member:
    """One member of an archive, of whatever form; *fault* says why it is refused, if its form already tells."""

    path: str
    kind: Kind
    mode: int
    size: int
    target: str
    open: Opener
    fault: str = ""

    def entry(self, to: str, path: str, origin: str) -> Entry:
        place = posixpath.join(to, path)
        if self.kind == "directory":
            return directory(place, origin=origin)
        if self.kind == "symlink":
            return symlink(place, self.target, origin=origin)
        return file(place, self.open, self.size, executable=bool(self.mode & 0o100), origin=origin)


def entries(step: Step, inputs: Inputs) -> list[Entry]:
    """The members of the one input, below ``params["to"]``. Raises BuildError that lists what is refused."""
    (pinned,) = step.inputs
    stream = inputs.stack.enter_context(inputs.open(pinned.digest))
    try:
        found = list(_members(stream, pinned.name.lower(), inputs))
    except _BROKEN as error:
        raise _cannot_be_unpacked(pinned.name, error) from None
    unique = {_clean(member.path): member for member in found}
    links = {path: member.target for path, member in unique.items() if member.kind == "symlink"}
    refused = sorted(filter(None, (_refusal(member, links) for member in found)))
    if refused:
        raise BuildError("\n  ".join([f"{pinned.name} has members that are refused:", *refused]))
    return [
        replace(member, open=_guarded(member.open, pinned.name)).entry(step.params["to"], path, step.name)
        for path, member in unique.items()
        if path
    ]


def _members(stream: BinaryIO, name: str, inputs: Inputs) -> Iterator[_Member]:
    if name.endswith(".zip"):
        return _zip(inputs.stack.enter_context(zipfile.ZipFile(stream)))
    return _tar(inputs.stack.enter_context(_open_tar(stream, name, inputs)))


def _refusal(member: _Member, links: Mapping[str, str]) -> str | None:
    """Why *member* may not go into an image; None if it may. *links* are all symlinks, by path."""
    name = repr(member.path)
    if member.fault:
        return f"{name}: {member.fault}"
    if member.path.startswith("/"):
        return f"{name}: an absolute path"
    if _escapes(member.path):
        return f"{name}: leaves the folder it is unpacked into"
    if member.kind == "other":
        return f"{name}: a device, pipe or socket"
    if member.kind == "file" and member.mode & 0o6000:
        return f"{name}: has a set-user-ID or set-group-ID bit"
    if member.kind == "symlink" and member.target.startswith("/"):
        return f"{name}: a link to the absolute path {member.target!r}"
    if member.kind == "symlink" and _escapes(posixpath.join(posixpath.dirname(member.path), member.target)):
        return f"{name}: a link to {member.target!r}, outside the folder it is unpacked into"
    if member.kind == "symlink" and resolve(_clean(member.path), links) is None:
        return f"{name}: a link to {member.target!r}, by other links outside the folder or in a circle"
    return None


def _escapes(path: str) -> bool:
    return posixpath.normpath(path).split("/")[0] == ".."


def _clean(path: str) -> str:
    cleaned = posixpath.normpath(path)
    return "" if cleaned == "." else cleaned


def _cannot_be_unpacked(name: str, error: Exception) -> BuildError:
    return BuildError(f"{name} cannot be unpacked: {reason(error)}")


def _guarded(opener: Opener, name: str) -> Opener:
    """*opener* whose streams raise BuildError where their bytes turn out to be broken."""

    def pieces() -> Iterator[bytes]:
        try:
            with opener() as stream:
                yield from chunks(stream)
        except _BROKEN as error:
            raise _cannot_be_unpacked(name, error) from None

    return lambda: cast(BinaryIO, as_stream(pieces()))


def _open_tar(stream: BinaryIO, name: str, inputs: Inputs) -> tarfile.TarFile:
    """The tar, seekable: unpacked into a scratch file if it is compressed."""
    for suffix, decompress in _DECOMPRESSORS.items():
        if name.endswith(suffix):
            scratch = inputs.stack.enter_context(inputs.scratch())
            with decompress(stream) as plain:
                shutil.copyfileobj(plain, scratch, 1 << 20)
            scratch.seek(0)
            return tarfile.open(fileobj=scratch, mode="r:", encoding="utf-8")
    return tarfile.open(fileobj=stream, mode="r:", encoding="utf-8")


def _tar(archive: tarfile.TarFile) -> Iterator[_Member]:
    seen: dict[str, _Member] = {}
    for info in archive:
        seen[info.name] = _hard_link(info, seen) if info.islnk() else _tar_member(archive, info)
        yield seen[info.name]


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    opener = partial(archive.extractfile, info)
    return _Member(info.name, _tar_kind(info), info.mode, info.size, info.linkname, cast(Opener, opener))


def _hard_link(info: tarfile.TarInfo, seen: dict[str, _Member]) -> _Member:
    """pax, "typeflag" 1: a link to another file that was archived before, whatever its type."""
    other = seen.get(info.linkname)
    if other is None or other.kind != "file":
        fault = f"a hard link to {info.linkname!r}, which is no file before it"
        return _Member(info.name, "other", 0, 0, "", io.BytesIO, fault)
    return replace(other, path=info.name)


def _tar_kind(info: tarfile.TarInfo) -> Kind:
    if info.isfile():
        return "file"
    return "directory" if info.isdir() else "symlink" if info.issym() else "other"


def _zip(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        mode, fault = info.external_attr >> 16, _zip_fault(info)
        kind = "directory" if info.is_dir() else _zip_kind(mode)
        target = archive.read(info).decode() if kind == "symlink" and not fault else ""
        opener = partial(archive.open, info)
        yield _Member(info.filename, kind, mode, info.file_size, target, cast(Opener, opener), fault)


def _zip_kind(mode: int) -> Kind:
    if stat.S_ISLNK(mode):
        return "symlink"
    return "file" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "other"


def _zip_fault(info: zipfile.ZipInfo) -> str:
    if "\\" in info.filename:  # APPNOTE.TXT 4.4.17.1: "All slashes MUST be forward slashes '/'"
        return "a backslash in its name"
    if info.flag_bits & 1:  # APPNOTE.TXT 4.4.4: "Bit 0: If set, indicates that the file is encrypted."
        return "is encrypted"
    return "" if info.compress_type in _ZIP_METHODS else f"compression method {info.compress_type} is not known"
