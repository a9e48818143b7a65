"""Maker "wheels": a group of wheels -> the files that installing them leaves, without a file system.

``installer`` decides what goes where (PEP 427, "Installing a wheel"); its source and destination are ours, so
that contents stay in the zip until the layer's writer asks for them. The result is what installer and pip put
into a virtual environment, with these rules for odd wheels:

* of several ``.dist-info`` (or ``.data``) directories, the one that matches the file name counts;
* what ``RECORD`` names and the wheel lacks is left out of it, what it does not name is added;
* ``__pycache__`` is left out, as installer does: nobody vouches that it belongs to the sources beside it;
* an entry point wins over a file of the same name in ``.data/scripts``, as with pip;
* members that escape, links, devices, duplicates and encrypted members: BuildError, all in one list.

Nothing is compiled. ``RECORD`` repeats the wheel's own hashes for files that are put as they are.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import io
import posixpath
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, BinaryIO, ClassVar, cast

import installer
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import Hash, InvalidRecordEntry, RecordEntry, parse_record_file
from installer.scripts import Script
from installer.sources import WheelContentElement, WheelSource
from installer.utils import (
    SCHEME_NAMES,
    Scheme,
    canonicalize_name,
    construct_record_file,
    fix_shebang,
    parse_entrypoints,
    parse_wheel_filename,
)

from pesto_repro.build.entry import BROKEN, Entry, data, file, reason
from pesto_repro.build.maker import Inputs
from pesto_repro.build.zipped import deflated
from pesto_repro.digest import chunks
from pesto_repro.errors import BuildError
from pesto_repro.plan import Step

if TYPE_CHECKING:
    from installer.scripts import ScriptSection

INSTALLER = b"pesto-repro\n"
_SHEBANG = b"#!python"
_READABLE = frozenset(
    {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
)  # RFC 1951 and the methods of APPNOTE 4.4.5 that Python reads
_ENCRYPTED = 0x1  # APPNOTE 4.4.4, general purpose bit 0


def entries(step: Step, inputs: Inputs) -> Iterator[Entry]:
    """The installed files of every wheel of *step*."""
    place = Place(step.params["site"], step.params["prefix"], step.params["python"])
    for pinned in step.inputs:
        yield from installed(pinned.name, inputs.stack.enter_context(inputs.open(pinned.digest)), place, inputs.stack)


def read_from_wheel(stream: BinaryIO, member: str) -> bytes:
    """One small file out of a wheel, such as the runtime's ``definitions.json``."""
    try:
        with zipfile.ZipFile(stream) as archive:
            return archive.read(member)
    except KeyError:
        raise BuildError(f"the wheel has no {member}") from None
    except (*BROKEN, ValueError) as error:
        raise BuildError(f"the wheel cannot be read: {reason(error)}") from None


@dataclass(frozen=True, slots=True)
class Place:
    """A virtual environment in the image: *site* and *prefix* relative to the root, *python* absolute."""

    site: str
    prefix: str
    python: str

    def directory(self, scheme: str, distribution: str) -> str:
        """Where *scheme* lies. Headers of a virtual environment go to include/site, as pip puts them."""
        minor = posixpath.basename(posixpath.dirname(self.site))
        return {
            "purelib": self.site,
            "platlib": self.site,
            "scripts": f"{self.prefix}/bin",
            "data": self.prefix,
            "headers": f"{self.prefix}/include/site/{minor}/{distribution}",
        }[scheme]


def installed(name: str, stream: BinaryIO, place: Place, stack: ExitStack) -> list[Entry]:
    """The files that installing the wheel *name* leaves at *place*. BuildError if it is no sound wheel."""
    try:
        source = Wheel(name, stack.enter_context(zipfile.ZipFile(stream)))
        source.check()
        destination = Destination(source, place)
        installer.install(source, destination, {"INSTALLER": INSTALLER})
    except (InstallerError, InvalidRecordEntry, ValueError) as error:
        raise BuildError(f"{name} cannot be installed: {error.args[-1]}") from None
    except BROKEN as error:
        raise BuildError(f"{name} cannot be installed: {reason(error)}") from None
    return destination.entries


def require_sound(name: str, archive: zipfile.ZipFile) -> str:
    """The ``.dist-info`` directory of the wheel *name* in *archive*. BuildError if it is no sound wheel."""
    try:
        wheel = Wheel(name, archive)
        wheel.check()
        return wheel.dist_info_dir
    except (InstallerError, ValueError) as error:
        raise BuildError(f"{name} cannot be installed: {error.args[-1]}") from None


class Member(io.RawIOBase):
    """A file of a wheel that is opened only when it is wanted; *hash* is what RECORD says of it."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, hash_: Hash | None) -> None:
        super().__init__()
        self.opener = cast("Callable[[], BinaryIO]", partial(archive.open, info))
        self.deflated = deflated(archive, info)
        self.size, self.hash = info.file_size, hash_


class Wheel(WheelSource):
    """A wheel in an open zip file; its contents are handed on without being read."""

    validation_error: ClassVar[type[Exception]] = ValueError

    def __init__(self, filename: str, archive: zipfile.ZipFile) -> None:
        parsed = parse_wheel_filename(filename)
        super().__init__(parsed.distribution, parsed.version)
        self.filename, self._archive = filename, archive
        self._files = [info for info in archive.infolist() if not info.is_dir()]

    @property
    def origin(self) -> str:
        return f"{canonicalize_name(self.distribution)} {self.version}"

    @cached_property
    def dist_info_dir(self) -> str:
        """The one ``.dist-info`` that belongs to the file name."""
        found = self._own(".dist-info")
        if found is None:
            raise BuildError(f"{self.filename} has no {self.distribution}-{self.version}.dist-info")
        return found

    @cached_property
    def data_dir(self) -> str:
        """The one ``.data`` that belongs to the file name."""
        return self._own(".data") or f"{self.distribution}-{self.version}.data"

    @property
    def dist_info_filenames(self) -> list[str]:
        base = self.dist_info_dir + "/"
        return [each.filename.removeprefix(base) for each in self._files if each.filename.startswith(base)]

    def read_dist_info(self, filename: str) -> str:
        """The text of a file of the ``.dist-info``. Raises BuildError if it is not there."""
        path = f"{self.dist_info_dir}/{filename}"
        try:
            return self._archive.read(path).decode()
        except KeyError:
            raise BuildError(f"{self.filename} has no {path}") from None

    def check(self) -> None:
        """Raises BuildError with everything that makes the wheel unsafe or ambiguous to install."""
        found = [*self._unsafe_members(), *self._duplicates(), *self._misplaced(), *self._bad_entry_points()]
        if found:
            raise BuildError("\n  ".join([f"{self.filename} is not a sound wheel:", *found]))

    def get_contents(self) -> Iterator[WheelContentElement]:
        """Every file that is to be put, with a :class:`Member` for its content."""
        recorded = self._record()
        for info in self._files:
            if self._is_left_out(info.filename):
                continue
            row = recorded.get(info.filename, (info.filename, "", ""))
            mode = info.external_attr >> 16
            executable = bool(stat.S_ISREG(mode) and mode & 0o111)
            member = Member(self._archive, info, _trusted_hash(row, info.file_size))
            yield (info.filename, "", ""), cast("BinaryIO", member), executable

    def _record(self) -> dict[str, tuple[str, str, str]]:
        lines = self.read_dist_info("RECORD").splitlines()
        return {row[0]: row for row in parse_record_file(lines)}

    def _own(self, suffix: str) -> str | None:
        """The top directory with *suffix*: the only one, else the one of the wheel's name and version."""
        tops = {each.filename.partition("/")[0] for each in self._files if "/" in each.filename}
        found = sorted(top for top in tops if top.endswith(suffix))
        if len(found) > 1:
            found = [top for top in found if _key(top.removesuffix(suffix)) == self._name_and_version]
        if len(found) > 1:
            raise BuildError(f"{self.filename} has several {suffix} of its name: {', '.join(found)}")
        return found[0] if found and self._is_ours(found[0].removesuffix(suffix)) else None

    @property
    def _name_and_version(self) -> tuple[str, str]:
        return _key(f"{self.distribution}-{self.version}")

    def _is_ours(self, stem: str) -> bool:
        return _key(stem)[0] == self._name_and_version[0]

    @cached_property
    def _entry_points(self) -> tuple[tuple[str, str, str, ScriptSection], ...]:
        if "entry_points.txt" not in self.dist_info_filenames:
            return ()
        try:
            return tuple(parse_entrypoints(self.read_dist_info("entry_points.txt")))
        except (AssertionError, configparser.Error):  # installer asserts that each names module:function
            raise BuildError(f"{self.filename}: entry_points.txt cannot be understood") from None

    def _is_left_out(self, path: str) -> bool:
        names = {name for name, *_ in self._entry_points}
        scripts = f"{self.data_dir}/scripts/"
        return (
            "__pycache__" in path.split("/")[:-1]
            or path == f"{self.dist_info_dir}/INSTALLER"
            or (path.startswith(scripts) and path.removeprefix(scripts).removesuffix("-script.py") in names)
        )

    def _unsafe_members(self) -> Iterator[str]:
        for info in self._archive.infolist():
            if reason := _unsafe(info):
                yield f"{info.filename!r} {reason}"

    def _duplicates(self) -> Iterator[str]:
        counted = Counter(each.filename for each in self._files)
        yield from (f"{path!r} is there {times} times" for path, times in sorted(counted.items()) if times > 1)
        parents = {parent for path in counted for parent in _parents(path)}
        yield from (f"{path!r} is both a file and a directory" for path in sorted(parents & counted.keys()))

    def _misplaced(self) -> Iterator[str]:
        """PEP 427: "Each subdirectory ... is a key into a dict of destination directories"."""
        for info in self._files:
            top, _, rest = info.filename.partition("/")
            scheme, _, path = rest.partition("/")
            if top == self.data_dir and (scheme not in SCHEME_NAMES or not path):
                yield f"{info.filename!r} is in no directory of {', '.join(SCHEME_NAMES)}"

    def _bad_entry_points(self) -> Iterator[str]:
        for name, *_ in self._entry_points:
            if "/" in name or name in ("", ".", ".."):
                yield f"the entry point {name!r} is not a file name"


class Destination(WheelDestination):
    """Collects what ``installer.install`` would write as entries."""

    def __init__(self, source: Wheel, place: Place) -> None:
        self.entries: list[Entry] = []
        self._source, self._place = source, place

    def write_script(self, name: str, module: str, attr: str, section: ScriptSection) -> RecordEntry:
        """The launcher of an entry point."""
        name, content = Script(name, module, attr, section).generate(self._place.python, "posix")
        return self._put_data(Scheme("scripts"), name, content, executable=True)

    def write_file(self, scheme: Scheme, path: object, stream: BinaryIO, is_executable: bool) -> RecordEntry:
        """A file as it is, or a script whose first line names no interpreter yet."""
        name = str(path)
        if not isinstance(stream, Member):
            return self._put_data(scheme, name, stream.read(), executable=is_executable)
        if scheme == "scripts" and _needs_shebang(stream):
            return self._put_data(scheme, name, self._with_shebang(stream), executable=is_executable)
        whole = file(self._path(scheme, name), stream.opener, stream.size, executable=is_executable)
        self._add(replace(whole, deflated=stream.deflated))
        return RecordEntry(name, stream.hash or _hash(stream), stream.size)

    def finalize_installation(
        self, scheme: Scheme, record_file_path: str, records: Iterable[tuple[Scheme, RecordEntry]]
    ) -> None:
        """PEP 376: RECORD has one line for each installed file, relative to the site directory."""
        with construct_record_file(records, self._prefix) as stream:
            self._put_data(scheme, record_file_path, stream.read(), executable=False)

    def _prefix(self, scheme: str) -> str | None:
        there = self._place.directory(scheme, self._source.distribution)
        return None if there == self._place.site else posixpath.relpath(there, self._place.site) + "/"

    def _path(self, scheme: str, name: str) -> str:
        return f"{self._place.directory(scheme, self._source.distribution)}/{name}"

    def _put_data(self, scheme: Scheme, name: str, content: bytes, *, executable: bool) -> RecordEntry:
        self._add(data(self._path(scheme, name), content, executable=executable))
        return RecordEntry(name, _hash_of([content]), len(content))

    def _with_shebang(self, member: Member) -> bytes:
        with member.opener() as stream, fix_shebang(stream, self._place.python) as fixed:
            return fixed.read()

    def _add(self, entry: Entry) -> None:
        self.entries.append(replace(entry, origin=self._source.origin))


def _key(stem: str) -> tuple[str, str]:
    """Name and version of ``name-version`` in the form in which two spellings of one are equal."""
    name, _, version = stem.partition("-")
    return canonicalize_name(name), re.sub(r"[-_+.]+", ".", version).lower()


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")
    yield from ("/".join(parts[:number]) for number in range(1, len(parts)))


def _unsafe(info: zipfile.ZipInfo) -> str | None:
    """Why *info* must not be installed. APPNOTE 4.4.17.1: no drive, no leading slash, no backslash."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    parts = info.filename.rstrip("/").split("/")
    if info.filename.startswith("/") or re.match(r"[A-Za-z]:", info.filename) or "\\" in info.filename:
        return "is not a relative path"
    if any(part in ("", ".", "..") for part in parts):
        return "leaves its directory"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link" if kind == stat.S_IFLNK else "is neither a file nor a directory"
    if info.flag_bits & _ENCRYPTED or info.compress_type not in _READABLE:
        return "is encrypted or compressed in an unknown way"
    return None


def _trusted_hash(row: tuple[str, str, str], size: int) -> Hash | None:
    """The hash of a RECORD line where it can be repeated: a sha256 of a file of that size."""
    entry = RecordEntry.from_elements(*row)
    known = entry.hash_ is not None and entry.hash_.name == "sha256" and entry.size == size
    return entry.hash_ if known else None


def _needs_shebang(member: Member) -> bool:
    """PEP 427: "If the first line ... starts with exactly b'#!python', rewrite"."""
    with member.opener() as stream:
        return stream.read(len(_SHEBANG)) == _SHEBANG


def _hash(member: Member) -> Hash:
    with member.opener() as stream:
        return _hash_of(chunks(stream))


def _hash_of(pieces: Iterable[bytes]) -> Hash:
    """PEP 376 and 427: urlsafe base64 without padding."""
    state = hashlib.sha256()
    for piece in pieces:
        state.update(piece)
    return Hash("sha256", base64.urlsafe_b64encode(state.digest()).rstrip(b"=").decode())
