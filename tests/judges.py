"""Programs of others that judge what we made: skopeo, podman, a real registry...

A test says ``skopeo = judge("skopeo")`` and gets its path. Where the judge is missing the test is skipped, or
fails when ``PESTO_REPRO_REQUIRE_JUDGES`` is 1, as it is in CI. The tests' last lines name every judge missed.
"""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRE = "PESTO_REPRO_REQUIRE_JUDGES"
missing: set[str] = set()
"""The judges that tests of this process asked for in vain."""


def judge(name: str) -> str:
    """The path of the program *name*; skips or fails the test that asks when there is none."""
    # Debian keeps some of them where only root looks.
    path = shutil.which(
        name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    )
    if path is not None:
        return path
    missing.add(name)
    message = f"judge {name} is not installed (make test-deps)"
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
