"""What uv says when it fails, in the words of the project: what cannot be, why, and what to do."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name

from pesto_repro.errors import FetchError, OfflineError, ResolveError

if TYPE_CHECKING:
    from pesto_repro.resolve.request import Request

BROUGHT_HINT = (
    "[python] system-packages = true pins what the base has: ask for versions that fit it, or leave that setting out"
)
NO_WHEEL_HINT = "choose another version, or put a wheel of it into find-links"
_NO_WHEELS = re.compile(r"Wheels are required for `([^`]+)`")
_NOT_FOUND = re.compile(r"(\S+) was not found in the (?:package registry|provided package locations)")
_REFUSED = re.compile(r"An index URL \((\S+)\) (could not be queried[^\n]*)")
_UNREACHED = re.compile(r"Failed to fetch|error sending request|Request failed|Could not connect")


class NoWheels(ResolveError):
    """The packages *names* have no wheel that the image can use; they may be built from source."""

    def __init__(self, message: str, names: Iterable[str]) -> None:
        super().__init__(message, NO_WHEEL_HINT)
        self.names = tuple(names)


def failure(told: str, request: Request) -> FetchError | ResolveError:
    """The error that says what uv said, in the words of the project."""
    errors, *hints = re.split(r"\n\s*\nhint: ", told.partition("error: ")[2])
    head, _, causes = errors.strip().partition("\n")
    chain = _dedent(causes)
    advice = " ".join(" ".join(hints).split()) or None
    if "network was disabled" in told or "Network connectivity is disabled" in told:
        return OfflineError(
            f"{request.target}: packages cannot be resolved without the network:\n{chain}",
            "run the command again without --offline",
        )
    if refused := _REFUSED.search(told):
        return FetchError(f"the index {refused[1]} {refused[2]}", "check the credentials of the index")
    if _UNREACHED.search(told):
        what = "\n".join(filter(None, [f"the package index cannot be read: {head}", chain]))
        return FetchError(what, advice or "check the network and the address of the index")
    if not head.startswith("No solution found"):
        return _unsolved(f"uv cannot resolve the requirements for {request.target}: {head}", chain, advice)
    if missing := sorted(set(_NO_WHEELS.findall(told))):
        lines = [_no_wheel(name, told, request) for name in missing]
        return NoWheels(_told("; ".join(lines), chain), map(canonicalize_name, missing))
    if missing := sorted(set(_NOT_FOUND.findall(told))):
        what = f"{', '.join(missing)} cannot be found where packages are looked for"
        return _unsolved(what, chain, advice or "check the spelling, and the configured indexes")
    advice = advice or (BROUGHT_HINT if request.used else None)
    return _unsolved(f"the requirements for {request.target} cannot be met together", chain, advice)


def _no_wheel(name: str, told: str, request: Request) -> str:
    found = re.search(rf"\b{re.escape(name)}==(\S+) has no usable wheels", told)
    version = f" {found[1]}" if found else ""
    return f"{name}{version} has no wheel for {request.target} (only a source distribution)"


def _unsolved(what: str, chain: str, hint: str | None) -> ResolveError:
    return ResolveError(_told(what, chain), hint)


def _told(what: str, chain: str) -> str:
    return f"{what}:\n{chain}" if chain else what


def _dedent(causes: str) -> str:
    """uv's causes, two spaces in; the lines that continue one stay below it."""
    lines = causes.replace("  cause: ", " " * 9).splitlines()
    return textwrap.indent(textwrap.dedent("\n".join(filter(str.strip, lines))), "  ")
