"""The steps of the room that wheels are built in."""

from __future__ import annotations

import pytest

from pesto_repro.digest import Digest
from pesto_repro.errors import BuildError
from pesto_repro.lock.model import BaseImage, Blob, DebianPackage, Interpreter, Pin, PlatformLock, PythonPackage
from pesto_repro.plan.make import debs_steps, system_step, venv_step
from pesto_repro.plan.room import room_steps

PYTHON = Interpreter(version="3.13.5", executable="/usr/bin/python3.13", libc="glibc 2.41")


def deb(name: str) -> DebianPackage:
    more = {"version": "1", "architecture": "amd64", "filename": f"pool/{name}.deb", "suite": "trixie", "snapshot": "s"}
    return DebianPackage(name=name, sha256=Digest.of(name.encode()).hex, size=1, **more)


def wheel(name: str) -> PythonPackage:
    return PythonPackage(name=name, version="1", wheel=Pin(name=f"{name}-1-py3-none-any.whl", sha256="0" * 64, size=1))


def test_a_room_shares_the_images_layers() -> None:
    """Debian packages of both are grouped as in the image; only the system files know of the others."""
    base, extra = tuple(map(deb, ("libc6", "python3"))), tuple(map(deb, ("gcc", "python3")))
    locked = PlatformLock(platform="linux/amd64", python=PYTHON, debian=base, build=extra)
    steps = room_steps(locked, (wheel("wheel"), wheel("setuptools")), 40)
    image = [*debs_steps(base, 40), venv_step(PYTHON)]
    assert {each.key for each in image} <= {each.key for each in steps}
    assert ["debs", "debian-system", "venv", "wheels", "wheels"] == list(dict.fromkeys(each.kind for each in steps))[
        :3
    ] + [each.kind for each in steps[-2:]]
    system = next(each for each in steps if each.kind == "debian-system")
    assert ["gcc.deb", "libc6.deb", "python3.deb"] == [each.name for each in system.inputs]
    assert system.key != system_step(base, "linux/amd64").key
    assert ["setuptools 1", "wheel 1"] == [each.name for each in steps[-2:]]


def test_a_base_image_is_built_in_as_it_is() -> None:
    """Its own layers are below the room's, which are Python's only; Debian packages on it would not fit."""
    blob = Blob(digest=f"sha256:{'0' * 64}", size=1)
    base = BaseImage(original="example.org/base", manifest=blob.digest, media_type="x", config=blob, layers=())
    locked = PlatformLock(platform="linux/amd64", python=PYTHON, base=base)
    assert ["venv", "wheels"] == [each.kind for each in room_steps(locked, (wheel("x"),), 40)]
    with pytest.raises(BuildError) as caught:
        room_steps(locked.model_copy(update={"build": (deb("gcc"),)}), (), 40)
    assert caught.value.message == (
        "the base image example.org/base cannot be built in with Debian packages of our own"
    )
