"""Programs of others that judge what we made: skopeo, podman, a real registry...

A test says ``skopeo = judge("skopeo")`` and gets its path; ``judge("image-spec")`` is the folder of that
specification's JSON Schemas. Where the judge is missing the test is skipped, or fails when
``PESTO_REPRO_REQUIRE_JUDGES`` is 1, as it is in CI. The tests' last lines name every judge missed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

REQUIRE = "PESTO_REPRO_REQUIRE_JUDGES"
# Where Debian puts what is not a program.
FOLDERS = {"image-spec": "/usr/share/gocode/src/github.com/opencontainers/image-spec/schema"}
missing: set[str] = set()
"""The judges that tests of this process asked for in vain."""


def judge(name: str) -> str:
    """The path of the program, or folder, *name*; skips or fails the test that asks when there is none."""
    path = _folder(name) if name in FOLDERS else _program(name)
    if path is not None:
        return path
    missing.add(name)
    message = f"judge {name} is not installed (make test-deps)"
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def _program(name: str) -> str | None:
    # Debian keeps some of them where only root looks.
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]))


def _folder(name: str) -> str | None:
    return FOLDERS[name] if Path(FOLDERS[name]).is_dir() else None
