"""requirements.json: the base image, environment variables, and resources to put into the image.

Exactly three keys: ``dockerBaseImage``, ``environments``, ``requirements``. An entry of ``requirements`` is
``key: {from, to, type?, sha256?}``:

============== =====================================================================================
``from``       ``file:///absolute``, ``file://relative`` or a bare path (relative to the project), https://...,
               http://... (then ``sha256`` must be there)
``to``         an absolute path in the image; only ``type: pip`` may do without
``type``       "pip": a package of the one joint resolution; "python": ``to`` is appended to PYTHONPATH
``sha256``     64 hex digits that the file must have
============== =====================================================================================

ENV values refer to other variables as in a Dockerfile: ``expand`` does what Docker does.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from pesto_repro.addresses import public
from pesto_repro.errors import Problem, ProjectError
from pesto_repro.project.documents import Document, did_you_mean, dotted, kind
from pesto_repro.project.profiles import Layers, Merge, origin

ResourceType = Literal["pip", "python"]

_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".tar.xz", ".tar.bz2", ".tar.zst", ".zip")
_CLOUDS = ("gs", "s3")
_ROOT_KEYS = ("dockerBaseImage", "environments", "requirements")
_ENTRY_KEYS = ("from", "to", "type", "sha256")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):(?://)?", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

Slip = tuple[tuple[str, ...], str]
"""A key path within requirements.json, and what is wrong there."""


@dataclass(frozen=True, slots=True)
class ResourceSpec:
    """One entry of ``requirements``, as declared. *source* may hold a credential: show ``public_source``."""

    key: str
    source: str = field(repr=False)
    to: str | None = None
    type: ResourceType | None = None
    sha256: str | None = None

    @property
    def public_source(self) -> str:
        """``source`` as the lock and messages name it: of an address neither credentials nor query nor fragment."""
        return self.source if self.is_local else public(self.source)

    @property
    def is_local(self) -> bool:
        return not self.source.lower().startswith(("http://", "https://"))

    @property
    def path(self) -> str | None:
        """A local source's path, absolute or relative to the project's root; None for a download."""
        return posixpath.normpath(self.source.removeprefix("file://")) if self.is_local else None

    @property
    def filename(self) -> str:
        """The last part of the source's path, without query string."""
        path = self.path if self.path is not None else urlsplit(self.source).path
        return posixpath.basename(path.rstrip("/"))

    @property
    def suffix(self) -> Literal["archive", "other"]:
        """Whether the name promises an archive; query strings do not count."""
        return "archive" if self.filename.lower().endswith(_ARCHIVES) else "other"


@dataclass(frozen=True, slots=True)
class Requirements:
    """requirements.json, checked. ``environments`` are in the order of the file, not expanded."""

    docker_base_image: str | None
    environments: Mapping[str, str]
    resources: tuple[ResourceSpec, ...]


def requirements(document: Document, layers: Layers, merge: Merge, *, base_is_given: bool) -> Requirements:
    """*document*, the cascade of *layers*, checked. Raises ProjectError with every Problem.

    *base_is_given*: image.toml says what the base is, so ``dockerBaseImage`` may be absent.
    """
    slips = tuple(_slips(document, base_is_given))
    if slips:
        raise ProjectError(Problem(origin(layers, path, merge), dotted(path), text) for path, text in slips)
    return Requirements(
        document.get("dockerBaseImage"),
        {name: _env_text(value) for name, value in document["environments"].items()},
        tuple(_resource(key, entry) for key, entry in document["requirements"].items()),
    )


def layout_path(image: str) -> str | None:
    """Where a base image lies that is no registry's: ``oci:DIR`` or ``oci-archive:FILE``, as declared; else None.

    >>> layout_path("oci-archive:bases/python.tar")
    'bases/python.tar'
    """
    prefix, _, path = image.partition(":")
    return path if prefix in ("oci", "oci-archive") and path else None


def expand(environments: Mapping[str, str], base: Mapping[str, str]) -> dict[str, str]:
    """*environments* with their references to each other and to *base* resolved as Docker does.

    Within one ENV instruction every reference means the value before it (Dockerfile reference); upstream
    writes one instruction for each key, so a value sees the base's variables and the keys before it. Raises
    ValueError for a reference that Docker refuses.
    """
    known = dict(base)
    for name, value in environments.items():
        known[name] = _Words(value, known.get).read()
    return {name: known[name] for name in environments}


def _slips(document: Document, base_is_given: bool) -> Iterator[Slip]:
    for key in document:
        if key not in _ROOT_KEYS:
            yield (key,), f"unknown key{did_you_mean(key, _ROOT_KEYS)}"
    yield from _base_slips(document, base_is_given)
    for name, check in (("environments", _environment_slips), ("requirements", _entry_slips)):
        table = document.get(name)
        if isinstance(table, dict):
            for key, value in table.items():
                yield from (((name, key, *path), text) for path, text in check(key, value))
        elif name in document:
            yield (name,), f"must be an object, not {kind(table)}"
        else:
            yield (), f'"{name}" is required; it may be empty: {{}}'


def _base_slips(document: Document, base_is_given: bool) -> Iterator[Slip]:
    image = document.get("dockerBaseImage")
    if "dockerBaseImage" not in document:
        if not base_is_given:
            yield (), '"dockerBaseImage" is required, unless image.toml names a [base]'
    elif not isinstance(image, str):
        yield ("dockerBaseImage",), f"must be a string, not {kind(image)}"
    elif not image or re.search(r"\s", image):
        yield ("dockerBaseImage",), f'"{image}" is not an image reference'


def _environment_slips(name: str, value: object) -> Iterator[Slip]:
    if not _VARIABLE.fullmatch(name):
        yield (), "is not a name for a variable: letters, digits and _, not starting with a digit"
    if not isinstance(value, (str, int, float)):
        yield (), f"must be a string, a number or a boolean, not {kind(value)}"
    elif "\0" in str(value):
        yield (), "contains a NUL character"
    else:
        try:
            expand({name: _env_text(value)}, {})
        except ValueError as error:
            yield (), str(error)


def _env_text(value: object) -> str:
    """*value* as upstream writes it into the Dockerfile: Python's text of it, so that true is ``True``."""
    return str(value)


def _entry_slips(key: str, entry: object) -> Iterator[Slip]:
    if not key or key in (".", "..") or "/" in key or "\\" in key or _CONTROL.search(key):
        yield (), "is not a name for a requirement"
    if not isinstance(entry, dict):
        yield (), f'must be an object {{"from", "to", "type"}}, not {kind(entry)}'
        return
    for name, value in entry.items():
        if name not in _ENTRY_KEYS:
            yield (name,), f"unknown key{did_you_mean(name, _ENTRY_KEYS)}"
        elif not isinstance(value, str) and not (name == "type" and value is None):
            yield (name,), f"must be a string, not {kind(value)}"
    yield from _field_slips({name: value for name, value in entry.items() if isinstance(value, str)}, entry)


def _field_slips(texts: Mapping[str, str], entry: Mapping[str, Any]) -> Iterator[Slip]:
    """What is wrong in the fields that are *texts*, and which of *entry* are missing."""
    if "from" not in entry:
        yield (), '"from" is required'
    if "to" not in entry and entry.get("type") != "pip":
        yield (), '"to" is required, unless type is "pip"'
    if texts.get("type", "pip") not in ("pip", "python"):
        yield ("type",), f'"{texts["type"]}" is not a type; it is "pip", "python" or left out'
    if "sha256" in texts and not _SHA256.fullmatch(texts["sha256"].lower()):
        yield ("sha256",), "must be 64 hex digits"
    if "from" in texts:
        yield from ((("from",), text) for text in _source_slips(texts["from"], "sha256" in entry))
    if "to" in texts:
        yield from ((("to",), text) for text in _target_slips(texts["to"], texts.get("type")))


def _source_slips(source: str, has_sha256: bool) -> Iterator[str]:
    matched = _SCHEME.match(source)
    scheme = matched[1].lower() if matched else ""
    if not source.strip() or source == "file://":
        yield "is empty"
    elif _CONTROL.search(source):
        yield "contains a control character"
    elif scheme in _CLOUDS:
        yield (
            f"{scheme}:// needs the extra pesto-repro[{scheme}], which this version does not have "
            "yet; give https:// or a file"
        )
    elif scheme in ("http", "https"):
        yield from _address_slips(source, scheme, has_sha256)
    elif matched and (scheme != "file" or not source.startswith("file://")):
        yield f'"{public(source)}" is not a source: a path, file://, https:// or http://'


def _address_slips(source: str, scheme: str, has_sha256: bool) -> Iterator[str]:
    try:
        host = urlsplit(source).hostname
    except ValueError:
        host = None
    if not host:
        yield f'"{public(source)}" names no host'
    elif scheme == "http" and not has_sha256:
        yield 'plain http needs a "sha256" beside it: anyone on the way could change the file'


def _target_slips(to: str, type: str | None) -> Iterator[str]:
    if not to.startswith("/"):
        yield f'"{to}" is not an absolute path'
    elif ".." in to.split("/"):
        yield f'"{to}" has a ".." in it'
    elif _CONTROL.search(to):
        yield "contains a control character"
    elif type == "python" and ":" in to:
        yield f'"{to}" has a ":" in it, which separates the paths of PYTHONPATH'


def _resource(key: str, entry: Mapping[str, Any]) -> ResourceSpec:
    to, sha256 = entry.get("to"), entry.get("sha256")
    return ResourceSpec(
        key,
        entry["from"],
        _normalised(to) if to is not None else None,
        cast(ResourceType | None, entry.get("type")),
        sha256.lower() if sha256 is not None else None,
    )


def _normalised(to: str) -> str:
    """*to* without empty and "." parts; a trailing slash stays: it means "into that folder"."""
    path = "/" + "/".join(part for part in to.split("/") if part not in ("", "."))
    return path + "/" if to.endswith("/") and path != "/" else path


class _Words:
    """Docker's reading of one ENV value: quotes, backslashes and ``$`` (Dockerfile reference, "Environment
    replacement"). Spaces need no quotes here, as JSON already says where a value ends."""

    def __init__(self, text: str, lookup: Callable[[str], str | None]) -> None:
        self._text, self._lookup, self._at = text, lookup, 0

    def read(self, stop: str = "") -> str:
        """Everything up to *stop*, or to the end."""
        read, result = {"$": self._dollar, "'": self._single, '"': self._double, "\\": self._escape}, ""
        while (char := self._peek()) and char != stop:
            result += read.get(char, self._next)()
        self._expect(stop)
        return result

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def _expect(self, char: str) -> None:
        if char and self._next() != char:
            raise ValueError(f"{self._text!r}: {char} is missing")

    def _escape(self) -> str:
        self._next()
        return self._next()

    def _single(self) -> str:
        self._next()
        start = self._at
        while self._peek() not in ("", "'"):
            self._next()
        self._expect("'")
        return self._text[start : self._at - 1]

    def _double(self) -> str:
        self._next()
        result = ""
        while (char := self._peek()) and char != '"':
            result += self._dollar() if char == "$" else self._quoted()
        self._expect('"')
        return result

    def _quoted(self) -> str:
        """Between double quotes, a backslash escapes ``"``, ``$`` and itself, and else stands for itself."""
        char = self._next()
        return self._next() if char == "\\" and self._peek() in ('"', "$", "\\") else char

    def _dollar(self) -> str:
        self._next()
        if self._peek() == "{":
            return self._braces()
        name = self._name()
        return self._lookup(name) or "" if name else "$"

    def _name(self) -> str:
        matched = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-]").match(self._text, self._at)
        self._at += len(matched[0]) if matched else 0
        return matched[0] if matched else ""

    def _braces(self) -> str:
        self._next()
        name = self._name()
        value = self._lookup(name)
        colon = self._next() if self._peek() == ":" else ""
        operator = self._next()
        if not name or operator not in ("}", "-", "+") or (colon and operator == "}"):
            raise ValueError(f"{self._text!r}: only $A, ${{A}}, ${{A:-x}} and ${{A:+x}} are understood")
        if operator == "}":
            return value or ""
        word, is_set = self.read("}"), value is not None and not (colon and value == "")
        if operator == "-":
            return value or "" if is_set else word
        return word if is_set else ""
