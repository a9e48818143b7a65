"""What a source says without being run of how it is built (PEP 517, 518)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tomli
from packaging.requirements import InvalidRequirement, Requirement

from pesto_repro.errors import ResolveError
from pesto_repro.lock.model import canonicalize_name
from pesto_repro.source.unpacked import Unpacked

LEGACY_BACKEND = "setuptools.build_meta:__legacy__"
LEGACY_REQUIRES = "setuptools>=40.8.0"
"""PEP 517, "Source trees": what pip and uv use where a source names no backend."""


@dataclass(frozen=True, slots=True)
class BuildSystem:
    """``[build-system]``: *requires* as written, *backend* ``module:object``, *path* where it is looked for first."""

    requires: tuple[str, ...]
    backend: str
    path: tuple[str, ...] = ()


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
