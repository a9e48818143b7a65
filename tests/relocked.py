"""The small project changed and locked again by hand: nothing is resolved, so that any change is made in a moment."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pesto_repro.build.resources import Local
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.asked import asked
from pesto_repro.lock.model import Lock, PythonPackage
from pesto_repro.project import lock_path, read_project
from tests.python_index import digest_of_file, make_wheel
from tests.small_project import PLATFORM, Small

CONFIG = "pesto/api/config.json"


def copied(small: Small, parent: Path) -> Small:
    """A copy of a small project and its store below *parent*, to be changed at will."""
    shutil.copytree(small.root.parent, parent, dirs_exist_ok=True)
    return Small(parent / "small", parent / "store", parent / "wheels")


def lock_of(small: Small) -> Lock:
    return lock_text.loads(small.lockfile.read_text(), "lock")


def relock(small: Small, *profiles: str, packages: tuple[PythonPackage, ...] | None = None, **platform: Any) -> Path:
    """Lock what the project asks for now, with the pins of before, or with *packages* and what else is named."""
    before = lock_of(small)
    project = read_project(small.root, profiles)
    pins = before.platforms[0].packages if packages is None else packages
    platforms = (before.platforms[0].model_copy(update={"packages": pins, **platform}),)
    resources = tuple(each for _, each in sorted(Local(project).resources.items()))
    changed = {"input": asked(project, (PLATFORM,)), "resources": resources, "platforms": platforms}
    path = lock_path(project)
    path.write_text(lock_text.dumps(lock_text.seal(before.model_copy(update=changed))))
    return path


def bumped(small: Small, name: str, version: str) -> tuple[PythonPackage, ...]:
    """The packages of the lock, with another version of one, whose wheel is there."""
    make_wheel(small.wheels, f"{name}-{version}-py3-none-any.whl", {f"{name}.py": version.encode()})
    wheel = small.wheels / f"{name}-{version}-py3-none-any.whl"
    pin = {"name": wheel.name, "sha256": digest_of_file(wheel).hex, "size": wheel.stat().st_size}
    packages = lock_of(small).platforms[0].packages
    new = [
        each.model_copy(update={"version": version, "wheel": each.wheel.model_copy(update=pin)})
        if each.name == name
        else each
        for each in packages
    ]
    return tuple(new)
