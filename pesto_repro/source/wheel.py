"""A wheel that a build handed over, judged as what it is: bytes from code that nobody vouches for.

It must be a zip file without anything that :mod:`pesto_repro.build.wheels` refuses, of a bounded size, and be the wheel
that was asked for: its name, its version, and tags that the image's interpreter accepts.
"""

from __future__ import annotations

import email.parser
import email.policy
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from email.message import Message
from typing import BinaryIO

from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from pesto_repro.build.entry import BROKEN, reason
from pesto_repro.build.wheels import require_sound
from pesto_repro.errors import BuildError
from pesto_repro.lock.model import canonicalize_name
from pesto_repro.source.unpacked import Unpacked

MAX_WHEEL = 2 << 30
"""Bytes of a wheel as it comes out of the room."""
MAX_UNPACKED = (4 << 30) - 1
"""Bytes of its files: what a zip file can say without extensions."""
MAX_FILES = 65_000
_MAX_TEXT = 4 << 20
_MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class Judged:
    """A sound wheel in the open *archive*: what it is, what it needs, and the directory of its metadata."""

    filename: str
    name: str
    version: str
    requires_dist: tuple[str, ...]
    requires_python: str | None
    dist_info: str
    archive: zipfile.ZipFile


def judge(filename: str, stream: BinaryIO, source: Unpacked, accepted: Collection[Tag]) -> Judged:
    """The wheel *filename* in *stream*, if it is one of *source* that fits *accepted*. Raises BuildError."""
    name, version, tags = _named(filename)
    _require(source, name, version)
    if not tags & set(accepted):
        raise BuildError(f"{filename} has tags that the image's Python does not accept")
    try:
        archive = zipfile.ZipFile(stream)
        _require_bounded(filename, archive)
        dist_info = require_sound(filename, archive)
        _text(archive, filename, f"{dist_info}/WHEEL")
        metadata = _text(archive, filename, f"{dist_info}/METADATA")
    except (*BROKEN, ValueError) as error:
        raise BuildError(f"{filename} is not a sound wheel: {reason(error)}") from None
    _require_same(filename, metadata, name, version)
    requires = tuple(_requirement(filename, str(each)) for each in metadata.get_all("Requires-Dist", []))
    return Judged(filename, name, version, requires, metadata["Requires-Python"], dist_info, archive)


def read_metadata(filename: str, stream: BinaryIO) -> Message:
    """The METADATA of the wheel *filename* itself: what it brings of others' counts for nothing. Raises BuildError."""
    try:
        with zipfile.ZipFile(stream) as archive:
            return _text(archive, filename, f"{require_sound(filename, archive)}/METADATA")
    except (*BROKEN, ValueError) as error:
        raise BuildError(f"{filename} is not a sound wheel: {reason(error)}") from None


def _named(filename: str) -> tuple[str, str, frozenset[Tag]]:
    """Binary distribution format, "File name convention"."""
    try:
        # Each part may list several tags, and all are combined: a long name would take forever.
        if len(filename) > _MAX_NAME:
            raise InvalidWheelFilename(filename)
        name, version, _, tags = parse_wheel_filename(filename)
    except ValueError:
        raise BuildError(f"{filename[:_MAX_NAME]!r} is no name of a wheel") from None
    return name, str(version), tags


def _require(source: Unpacked, name: str, version: str) -> None:
    """Is it what was asked for?"""
    if source.package is not None and canonicalize_name(source.package) != name:
        raise BuildError(f"a wheel of {name} came out where one of {source.package} was asked for")
    if source.version is not None and Version(source.version) != Version(version):
        raise BuildError(f"{name} {version} came out where {source.version} was asked for")


def _require_bounded(filename: str, archive: zipfile.ZipFile) -> None:
    """Only what is declared counts: Python's zipfile reads no more of a member than it declares."""
    infos = archive.infolist()
    if len(infos) > MAX_FILES:
        raise BuildError(f"{filename} has {len(infos)} files, more than {MAX_FILES}")
    if sum(info.file_size for info in infos) > MAX_UNPACKED:
        raise BuildError(f"{filename} is more than {(MAX_UNPACKED + 1) >> 30} GiB when it is unpacked")


def _require_same(filename: str, metadata: Message, name: str, version: str) -> None:
    """Core metadata, "Name" and "Version": tools believe either these or the file's name."""
    said = canonicalize_name(str(metadata["Name"])), str(metadata["Version"])
    try:
        same = said[0] == name and Version(said[1]) == Version(version)
    except InvalidVersion:
        same = False
    if not same:
        raise BuildError(f"{filename} has the metadata of {said[0]} {said[1]}")


def _requirement(filename: str, text: str) -> str:
    """*text* as it is written, if it is a requirement (PEP 508)."""
    try:
        Requirement(text)
    except InvalidRequirement:
        raise BuildError(f"{filename} requires {text[:_MAX_NAME]!r}, which is no requirement") from None
    return text


def _text(archive: zipfile.ZipFile, filename: str, path: str) -> Message:
    """A file of the form of an e-mail's header."""
    try:
        info = archive.getinfo(path)
    except KeyError:
        raise BuildError(f"{filename} has no {path}") from None
    if info.file_size > _MAX_TEXT:
        raise BuildError(f"{filename}: {path} is larger than {_MAX_TEXT} bytes")
    text = archive.read(info).decode(errors="replace")
    return email.parser.HeaderParser(policy=email.policy.compat32).parsestr(text)
