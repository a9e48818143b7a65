"""Which wheels the image's Python accepts: PEP 425 and 600, computed; the host's own say nothing."""

from __future__ import annotations

import re

from packaging.tags import Tag, compatible_tags, cpython_tags

from pesto_repro.errors import ResolveError
from pesto_repro.lock.model import Interpreter

ARCHITECTURES = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
_MANYLINUX = (17, 28, *range(31, 41))
"""The minor versions of glibc that ``uv pip compile --python-platform`` knows."""
_MUSL = 2
"""The minor version of musl that ``uv pip compile --python-platform`` means where it says musl."""
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
"""PEP 600, "Legacy manylinux tags"."""
_OLDEST = {"x86_64": 5, "aarch64": 17}


def python_platform(platform: str, libc: str) -> str:
    """uv's name of *platform* with *libc*: never newer than the image's.

    >>> python_platform("linux/amd64", "glibc 2.41")
    'x86_64-manylinux_2_40'
    """
    minor = _glibc_minor(libc)
    known = [each for each in _MANYLINUX if each <= minor]
    if musl_minor(libc) >= _MUSL and platform in ARCHITECTURES:
        return f"{ARCHITECTURES[platform]}-unknown-linux-musl"
    if not known or platform not in ARCHITECTURES:
        raise ResolveError(f"there are no wheels to look for on {platform} with {libc}", "use a newer base")
    return f"{ARCHITECTURES[platform]}-manylinux_2_{known[-1]}"


def image_tags(python: Interpreter, platform: str) -> list[Tag]:
    """The tags that the image's interpreter accepts, best first: computed, never those of the host."""
    major, minor = map(int, python.minor.split("."))
    architecture = ARCHITECTURES[platform]
    platforms = []
    for each in range(musl_minor(python.libc), 0, -1):
        platforms.append(f"musllinux_1_{each}_{architecture}")  # PEP 656
    for each in range(_glibc_minor(python.libc), _OLDEST[architecture] - 1, -1):
        platforms.append(f"manylinux_2_{each}_{architecture}")
        if each in _LEGACY:
            platforms.append(f"{_LEGACY[each]}_{architecture}")
    platforms.append(f"linux_{architecture}")
    interpreter = f"cp{major}{minor}"
    best = cpython_tags((major, minor), [interpreter], platforms)
    return [*best, *compatible_tags((major, minor), interpreter, platforms)]


def _glibc_minor(libc: str) -> int:
    """36 of "glibc 2.36"; 0 for a libc that manylinux (PEP 600) does not speak of."""
    found = re.fullmatch(r"glibc 2\.(\d+)", libc)
    return int(found[1]) if found else 0


def musl_minor(libc: str) -> int:
    """2 of "musl 1.2"; 0 for another libc."""
    found = re.fullmatch(r"musl 1\.(\d+)", libc)
    return int(found[1]) if found else 0
