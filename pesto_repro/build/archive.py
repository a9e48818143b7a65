"""Maker "archive": the contents of an archive land in ``to``.

An archive comes from outside. Members that would leave ``to``, links that are absolute or point out of it, devices
and set-user-ID bits are refused, all of them listed. Permissions are normalised as for a tree; a hard link becomes
a file of its own.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import posixpath
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, BinaryIO, cast

from pesto_repro.build.compress import unzstd
from pesto_repro.build.entry import Entry, directory, file, symlink
from pesto_repro.build.maker import Inputs
from pesto_repro.errors import BuildError
from pesto_repro.plan import Step

_DECOMPRESSORS: dict[str, Callable[[BinaryIO], IO[bytes]]] = {
    ".tar.gz": lambda stream: cast(IO[bytes], gzip.GzipFile(fileobj=stream)),
    ".tgz": lambda stream: cast(IO[bytes], gzip.GzipFile(fileobj=stream)),
    ".tar.xz": lambda stream: cast(IO[bytes], lzma.LZMAFile(stream)),
    ".tar.bz2": lambda stream: cast(IO[bytes], bz2.BZ2File(stream)),
    ".tar.zst": unzstd,
}


def entries(step: Step, inputs: Inputs) -> list[Entry]:
    """The members of the one input, below ``params["to"]``. Raises BuildError that lists what is refused."""
    (pinned,) = step.inputs
    stream = inputs.stack.enter_context(inputs.open(pinned.digest))
    try:
        if pinned.name.endswith(".zip"):
            found = list(_zip(inputs.stack.enter_context(zipfile.ZipFile(stream))))
        else:
            found = list(_tar(inputs.stack.enter_context(_open_tar(stream, pinned.name, inputs))))
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, lzma.LZMAError) as error:
        raise BuildError(f"{step.name}: {pinned.name} cannot be unpacked: {error}") from None
    refused = sorted(filter(None, map(_refusal, found)))
    if refused:
        raise BuildError("\n  ".join([f"{step.name}: {pinned.name} has members that are refused:", *refused]))
    unique = {_clean(member.path): member for member in found}
    return [member.entry(step.params["to"], path, step.name) for path, member in unique.items() if path]


class _Member:
    """One member of an archive, of whatever kind."""

    def __init__(self, path: str, kind: str, mode: int, size: int, target: str, opener: Callable[[], BinaryIO]) -> None:
        self.path, self.kind, self.mode, self.size = path, kind, mode, size
        self.target, self.open = target, opener

    def entry(self, to: str, path: str, origin: str) -> Entry:
        place = f"{to}/{path}" if to else path
        if self.kind == "directory":
            return directory(place, origin=origin)
        if self.kind == "symlink":
            return symlink(place, self.target, origin=origin)
        return file(place, self.open, self.size, executable=bool(self.mode & 0o100), origin=origin)


def _refusal(member: _Member) -> str | None:
    """Why *member* may not go into an image; None if it may."""
    name = repr(member.path)
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
    return None


def _escapes(path: str) -> bool:
    return posixpath.normpath(path).split("/")[0] == ".."


def _clean(path: str) -> str:
    cleaned = posixpath.normpath(path)
    return "" if cleaned == "." else cleaned


def _open_tar(stream: BinaryIO, name: str, inputs: Inputs) -> tarfile.TarFile:
    """The tar, seekable: unpacked into a scratch file if it is compressed."""
    for suffix, decompress in _DECOMPRESSORS.items():
        if name.endswith(suffix):
            scratch = inputs.stack.enter_context(inputs.scratch())
            with decompress(stream) as plain:
                shutil.copyfileobj(plain, scratch, 1 << 20)
            scratch.seek(0)
            return tarfile.open(fileobj=scratch, mode="r:")
    return tarfile.open(fileobj=stream, mode="r:")


def _tar(archive: tarfile.TarFile) -> Iterator[_Member]:
    for info in archive:
        yield _Member(info.name, _tar_kind(info), info.mode, _tar_size(archive, info), info.linkname, _tar_opener(archive, info))


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.isfile() or info.islnk():
        return "file"
    return "directory" if info.isdir() else "symlink" if info.issym() else "other"


def _tar_size(archive: tarfile.TarFile, info: tarfile.TarInfo) -> int:
    return archive.getmember(info.linkname).size if info.islnk() else info.size


def _tar_opener(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], BinaryIO]:
    return lambda: cast(BinaryIO, archive.extractfile(info))


def _zip(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        mode = info.external_attr >> 16
        kind = "directory" if info.is_dir() else _zip_kind(mode)
        target = archive.read(info).decode() if kind == "symlink" else ""
        yield _Member(info.filename, kind, mode, info.file_size, target, _zip_opener(archive, info))


def _zip_kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "symlink"
    return "file" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "other"


def _zip_opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], BinaryIO]:
    return lambda: cast(BinaryIO, archive.open(info))
