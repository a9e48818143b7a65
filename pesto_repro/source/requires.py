"""What a source says of itself without being run: what builds it (PEP 517, 518), what it needs (PEP 621, 643)."""

from __future__ import annotations

import email.parser
import email.policy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tomli
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, ValidationError

from pesto_repro.errors import ResolveError
from pesto_repro.lock.model import canonicalize_name
from pesto_repro.source.unpacked import Unpacked

LEGACY_BACKEND = "setuptools.build_meta:__legacy__"
LEGACY_REQUIRES = "setuptools>=40.8.0"
"""PEP 517, "Source trees": what pip and uv use where a source names no backend."""
_STATIC_SINCE = Version("2.2")


@dataclass(frozen=True, slots=True)
class BuildSystem:
    """``[build-system]``: *requires* as written, *backend* ``module:object``, *path* where it is looked for first."""

    requires: tuple[str, ...]
    backend: str
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a wheel of the source will say, known without building it."""

    name: str
    version: str
    requires_python: str | None
    requires_dist: tuple[str, ...]


class _Project(BaseModel):
    """The table ``[project]`` (PEP 621), as far as it tells requirements."""

    model_config = ConfigDict(frozen=True, strict=True, alias_generator=lambda name: name.replace("_", "-"))

    name: str
    version: str
    requires_python: str | None = None
    dependencies: list[str] = []
    optional_dependencies: dict[str, list[str]] = {}
    dynamic: list[str] = []


def build_system(source: Unpacked) -> BuildSystem:
    """How *source* is built. Raises ResolveError that says what is wrong in its pyproject.toml."""
    table = _pyproject(source).get("build-system")
    if table is None:
        # PEP 517: "If the pyproject.toml file is absent, or the build-backend key is missing, ... tools should
        # revert to the legacy behaviour of running setup.py (either directly, or by implicitly invoking the
        # setuptools.build_meta:__legacy__ backend)."
        return BuildSystem((LEGACY_REQUIRES,), LEGACY_BACKEND)
    if not isinstance(table, dict):
        raise _wrong(source, "build-system is no table")
    if "requires" not in table:
        # PEP 518: "requires ... This key is mandatory"
        raise _wrong(source, "build-system.requires is missing, which PEP 518 demands")
    requires = _texts(source, table, "requires")
    named = {_name(source, each) for each in requires}
    if "build-backend" not in table:
        return BuildSystem(requires if "setuptools" in named else (*requires, LEGACY_REQUIRES), LEGACY_BACKEND)
    backend, path = table["build-backend"], _texts(source, table, "backend-path")
    if not isinstance(backend, str) or not all(part.isidentifier() for part in _parts(backend)):
        raise _wrong(source, f"build-system.build-backend is {backend!r}, not module:object")
    for each in path:
        # PEP 517: directories of backend-path "MUST refer to a location within the source tree"
        if each.startswith("/") or ".." in each.split("/"):
            raise _wrong(source, f"build-system.backend-path has {each!r}, which leaves the source")
    return BuildSystem(requires, backend, path)


def static_metadata(source: Unpacked) -> Metadata | None:
    """What *source* promises of its wheel; None if that is only known once it is built."""
    return _promised(source) if source.metadata is not None else _declared(source)


def requires_dist(source: Unpacked) -> tuple[str, ...] | None:
    """The requirements of *source*; None if these are only known once it is built."""
    found = static_metadata(source)
    return found.requires_dist if found is not None else None


def _promised(source: Unpacked) -> Metadata | None:
    """PEP 643: what PKG-INFO of Metadata-Version 2.2 or later has and does not call Dynamic holds for every wheel."""
    text = (source.metadata or b"").decode(errors="replace")
    message = email.parser.HeaderParser(policy=email.policy.compat32).parsestr(text)
    dynamic = {str(each).strip().lower() for each in message.get_all("Dynamic", [])}
    try:
        static = Version(str(message["Metadata-Version"])) >= _STATIC_SINCE
    except InvalidVersion:
        return None
    name, version = message["Name"], message["Version"]
    if not static or not name or not version or dynamic & {"requires-dist", "requires-python", "provides-extra"}:
        return None
    requires = tuple(str(each) for each in message.get_all("Requires-Dist", []))
    return Metadata(str(name), str(version), message["Requires-Python"], requires)


def _declared(source: Unpacked) -> Metadata | None:
    """PEP 621: "A build back-end MUST honour statically-specified metadata"; extras are requirements with a marker."""
    try:
        table = _Project.model_validate(_pyproject(source).get("project"))
    except ValidationError:
        return None  # its backend will say what is wrong
    if {"version", "dependencies", "requires-python", "optional-dependencies"} & set(table.dynamic):
        return None
    optional = [_for_extra(extra, each) for extra, some in table.optional_dependencies.items() for each in some]
    return Metadata(table.name, table.version, table.requires_python, (*table.dependencies, *optional))


def _for_extra(extra: str, requirement: str) -> str:
    head, semicolon, marker = requirement.partition(";")
    condition = f'extra == "{canonicalize_name(extra)}"'
    return f"{head.strip()} ; ({marker.strip()}) and {condition}" if semicolon else f"{head.strip()} ; {condition}"


def _pyproject(source: Unpacked) -> dict[str, Any]:
    if source.pyproject is None:
        return {}
    try:
        return tomli.loads(source.pyproject.decode())
    except ValueError as error:  # tomli's and the decoder's
        raise _wrong(source, str(error)) from None


def _texts(source: Unpacked, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = table.get(key, [])
    if not isinstance(found, Sequence) or isinstance(found, str) or not all(isinstance(each, str) for each in found):
        raise _wrong(source, f"build-system.{key} is no list of texts")
    return tuple(found)


def _name(source: Unpacked, requirement: str) -> str:
    try:
        return canonicalize_name(Requirement(requirement).name)
    except InvalidRequirement as error:
        what = str(error).splitlines()[0]
        raise _wrong(source, f"build-system.requires has {requirement!r}, which is no requirement: {what}") from None


def _parts(backend: str) -> list[str]:
    module, _, name = backend.partition(":")
    return [*module.split("."), *(name.split(".") if name else ())]


def _wrong(source: Unpacked, what: str) -> ResolveError:
    where = f"{source.subdirectory}/pyproject.toml" if source.subdirectory else "pyproject.toml"
    return ResolveError(
        f"{source.label} cannot be built: {where}: {what}",
        "report it to its authors, or take another version of it, or a wheel of it with find-links",
    )
