"""A lock in the words of other tools: ``pylock.toml`` (PEP 751), a requirements file with hashes, apt's name=version.

Each is of one platform. Only ``pylock.toml`` says where a wheel lies, because PEP 751 wants it; whoever exports decides
where that is. No address holds a credential.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from pesto_repro.errors import PestoError
from pesto_repro.lock import toml
from pesto_repro.lock.model import DebianPackage, Lock, PlatformLock, PythonPackage
from pesto_repro.oci import CPUS, Platform

Place = tuple[Literal["path", "url"], str]
"""PEP 751, "packages.wheels": where a wheel lies, by which of the two keys."""


def pylock(locked: PlatformLock, place: Callable[[PythonPackage], Place]) -> str:
    """The Python packages as PEP 751 has them; *place* says where each wheel lies."""
    head = {
        "lock-version": "1.0",
        "created-by": "pesto-repro",
        "environments": [_marker(locked)],
        "requires-python": f">={locked.python.minor}",
    }
    tables = (toml.dumps(_package(each, place(each))) for each in locked.packages)
    return "".join([toml.dumps(head), *(f"\n[[packages]]\n{each}" for each in tables)])


def _marker(locked: PlatformLock) -> str:
    """PEP 751, "environments": what the lock is for, as a marker."""
    platform = Platform.parse(locked.platform)
    machine = CPUS.get(platform.architecture, platform.architecture)
    said = {
        "implementation_name": "cpython",
        "platform_machine": machine,
        "python_version": locked.python.minor,
        "sys_platform": platform.os,
    }
    return " and ".join(f"{key} == '{value}'" for key, value in said.items())


def _package(package: PythonPackage, place: Place) -> dict[str, Any]:
    key, where = place
    wheel = {
        "name": package.wheel.name,
        "size": package.wheel.size,
        "hashes": {"sha256": package.wheel.sha256},
        key: where,
    }
    return {"name": package.name, "version": package.version, "wheels": [wheel]}


def requirements(lock: Lock, locked: PlatformLock) -> str:
    """The Python packages as a requirements file in pip's hash-checking mode; it names no index."""
    addresses = {each.key: each.source for each in lock.input.resources}
    lines = [
        *_head(lock, locked, f"Python {locked.python.minor}"),
        # The runtime's own metadata names more than its closure holds (`[runtime] closure`).
        "# Everything is in here: pip install --require-hashes --no-deps -r FILE",
    ]
    for each in locked.packages:
        lines += _requirement(each, addresses.get(each.resource or "", ""))
    return "\n".join(lines) + "\n"


def _requirement(package: PythonPackage, address: str) -> Iterator[str]:
    """One line, below a comment where an index will not do."""
    named = f"{package.name}=={package.version}"
    if address.startswith(("https://", "http://")):
        named = f"{package.name} @ {address}"
    elif package.source is not None:
        yield f"# {package.name}: built from source, so no index has this wheel: export it with --vendor DIR"
    elif package.resource is not None:
        yield f"# {package.name}: a file of the project, so no index has this wheel: export it with --vendor DIR"
    yield f"{named} --hash=sha256:{package.wheel.sha256}"


def apt(lock: Lock, locked: PlatformLock) -> str:
    """The Debian packages as apt names them, each below a comment with its pin."""
    suites = ", ".join(sorted({each.suite for each in locked.debian})) or "no Debian packages"
    lines = [*_head(lock, locked, suites), "# apt-get install --no-install-recommends $(grep -v '^#' FILE)"]
    lines += (line for each in locked.debian for line in _apt_lines(each))
    return "\n".join(lines) + "\n"


def _apt_lines(package: DebianPackage) -> Iterable[str]:
    yield f"# {package.filename} {package.suite} {package.snapshot} sha256:{package.sha256} {package.size}"
    yield f"{package.name}={package.version}"


def _head(lock: Lock, locked: PlatformLock, what: str) -> list[str]:
    return [f"# Made by pesto-repro from the lock {lock.content_hash}: {locked.platform}, {what}."]


def choose(lock: Lock, platform: str | None) -> PlatformLock:
    """The part of *lock* for *platform*, which must be named if there are several."""
    names = [each.platform for each in lock.platforms]
    if platform is None and len(names) == 1:
        return lock.platforms[0]
    if platform in names:
        return lock.platform(platform)
    said = f"is not for {platform}, but" if platform else "is"
    raise PestoError(f"the lock {said} for {', '.join(names)}", "choose one of them with --platform")
