"""The steps of the room that wheels are built in: the image's own base, what building needs, and nothing else.

The room has the image's interpreter and libraries, so that what is built there runs in the image. Its layers are made
and kept as those of an image; those that both have are made once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pesto_repro.errors import BuildError
from pesto_repro.lock.model import PlatformLock, PythonPackage
from pesto_repro.plan.make import debs_steps, system_step, venv_step, wheels_step
from pesto_repro.plan.step import Step


def room_steps(locked: PlatformLock, requires: Sequence[PythonPackage], max_layers: int) -> tuple[Step, ...]:
    """What stands on the base image of *locked*, if it has one: Debian packages, and *requires* in an environment.

    *max_layers* is the image's, so that packages are grouped as there. Raises BuildError.
    """
    return (*_debian(locked, max_layers), venv_step(locked.python), *_wheels(locked, requires))


def _debian(locked: PlatformLock, max_layers: int) -> Iterator[Step]:
    """The base's packages as the image has them, then those for building; the system files know both."""
    if locked.base is not None and locked.build:
        raise BuildError(
            f"the base image {locked.base.original} cannot be built in with Debian packages of our own",
            "take out [python.build] packages and use a base that has compilers, or build the base with [base] debian",
        )
    own = {each.name for each in locked.debian}
    extra = [each for each in locked.build if each.name not in own]
    if locked.debian or extra:
        yield from debs_steps(locked.debian, max_layers)
        yield from debs_steps(extra, max_layers)
        yield system_step((*locked.debian, *extra), locked.platform)


def _wheels(locked: PlatformLock, requires: Sequence[PythonPackage]) -> Iterator[Step]:
    """A layer for each: rooms differ in one or two packages."""
    for each in sorted(requires, key=lambda package: package.name):
        yield wheels_step(locked.python.minor, "python", [each])
