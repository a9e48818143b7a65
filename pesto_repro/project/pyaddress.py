"""Requirements by address: a git repository, or a folder beside the project. Their wheels are built from source.

========================================== ==============================================================
``name @ git+https://HOST/REPO@REF``       also git+ssh, git+file; ``#subdirectory=...`` below its root
``git+https://HOST/REPO@REF#egg=name``     as pip's format has it
``name @ file:./libs/foo``                 relative to the project's root, as is
``./libs/foo`` and ``libs/foo[extra]``     as pip's format has it
========================================== ==============================================================

A lock pins the commit and the bytes. Every other address is refused: a lock names no host of packages.

>>> str(Address.parse("./libs/foo ; python_version > '3'"))
'file:libs/foo ; python_version > "3"'
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pesto_repro.addresses import public, redact, userinfo

_GIT = ("git+https", "git+ssh", "git+file")
_EXTRAS = re.compile(r"(.*?)\s*\[([^\[\]]*)\]")
_CREDENTIALS = (
    "carries credentials, which belong neither into a project's files nor into a lock: name the address without them "
    "and give them through git's own configuration"
)


@dataclass(frozen=True, slots=True)
class Address:
    """A requirement by address. *location* is git's address or a path relative to the project; *marker* says when."""

    kind: Literal["git", "directory"]
    location: str
    name: str | None = None
    extras: tuple[str, ...] = ()
    ref: str | None = None
    subdirectory: str | None = None
    marker: str | None = None

    def __str__(self) -> str:
        """The one spelling; ``parse`` reads it back."""
        place = f"file:{self.location}"
        if self.kind == "git":
            place = f"git+{self.location}" + (f"@{self.ref}" if self.ref else "")
            place += f"#subdirectory={self.subdirectory}" if self.subdirectory else ""
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        text = f"{self.name}{extras} @ {place}" if self.name else f"{place}{extras}"
        return text + (f" ; {self.marker}" if self.marker else "")

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self.location + (f" ({self.subdirectory})" if self.subdirectory else "")

    @classmethod
    def of(cls, requirement: Requirement) -> Address | None:
        """The address that *requirement* names, if it is one to build from. Raises ValueError for a broken one."""
        url = requirement.url or ""
        found = _place(url)
        if found is None:
            return None
        kind, location, ref, fragment = found
        name = canonicalize_name(requirement.name)
        extras = tuple(sorted(map(canonicalize_name, requirement.extras)))
        marker = str(requirement.marker) if requirement.marker else None
        return cls(kind, location, name, extras, ref, _subdirectory(fragment), marker)

    @classmethod
    def parse(cls, text: str) -> Address | None:
        """The address that *text* is without a name before it, as pip's format allows. Raises ValueError."""
        place, _, condition = text.partition(" ;")
        extras: tuple[str, ...] = ()
        if matched := _EXTRAS.fullmatch(place.strip()):
            place, extras = matched[1], tuple(sorted(canonicalize_name(each.strip()) for each in matched[2].split(",")))
        found = _place(place.strip())
        if found is None:
            return None
        kind, location, ref, fragment = found
        egg = fragment.get("egg")
        name = canonicalize_name(_EXTRAS.sub(r"\1", egg)) if egg else None
        return cls(kind, location, name, extras, ref, _subdirectory(fragment), _marker(condition))


def address_of(text: str) -> Address | None:
    """The address that requirement *text*, in its one spelling, names; None for a requirement by name."""
    if text.startswith(("file:", "git+")):
        return Address.parse(text)
    requirement = Requirement(text)
    return Address.of(requirement) if requirement.url else None


_Place = tuple[Literal["git", "directory"], str, str | None, dict[str, str]]


def _place(url: str) -> _Place | None:
    """Kind, location, ref and fragment of *url*; None if it is no address to build from."""
    parts = urlsplit(url)
    fragment = {key: values[-1] for key, values in parse_qs(parts.fragment).items()}
    if parts.scheme in _GIT:
        user, _, password = userinfo(url).partition(":")
        if password or (user and parts.scheme != "git+ssh"):
            raise ValueError(f'"{public(url)}" {_CREDENTIALS}')
        # pip, "VCS Support": "@" before a ref, which may have "/" in it
        path, _, ref = parts.path.partition("@")
        location = urlunsplit((parts.scheme.removeprefix("git+"), parts.netloc, path, "", ""))
        return "git", location, unquote(ref) or None, fragment
    if parts.scheme == "file" or (not parts.scheme and (url.startswith(".") or "/" in url)):
        return "directory", _path(url), None, fragment
    return None


def _path(url: str) -> str:
    """The folder that *url* names, relative to the project's root."""
    path = unquote(re.sub(r"^file:(//(?=/))?", "", url).partition("#")[0])
    if path.startswith("/"):
        raise ValueError(f'"{redact(url)}" is a path of this machine: name it relative to the project')
    path = posixpath.normpath(path)
    if set(path.split("/")) <= {".", ".."}:
        raise ValueError(f'"{redact(url)}" is the project itself, whose files are in the image anyway: leave it out')
    return path


def _subdirectory(fragment: dict[str, str]) -> str | None:
    found = fragment.get("subdirectory")
    if found is None:
        return None
    path = posixpath.normpath(found)
    if path.startswith(("/", "../")) or path == "..":
        raise ValueError(f'the subdirectory "{found}" is outside of the repository')
    return path if path != "." else None


def _marker(text: str) -> str | None:
    try:
        return str(Marker(text)) if text.strip() else None
    except InvalidMarker:
        raise ValueError(f'"{text.strip()}" is not a marker (PEP 508)') from None
