"""Upstream's tester, ready to be imported by a program beside ours. The fixture comes through conftest.py."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import upstream

# What ServiceTester imports; the rest of PESTO's requirements is for its command line.
NEEDS = ("jsonschema", "loguru", "numpy", "rasterio", "requests")


@pytest.fixture(scope="session")
def tester(runtime_wheel: Path, test_cache: Path) -> Path:
    """A folder to import upstream's tester from: PESTO's wheel and what it needs, made once per machine."""
    folder = test_cache / f"tester-{upstream.VERSION}-{sys.implementation.cache_tag}"
    with Path(f"{folder}.lock").open("w") as handle:  # several workers may ask at once
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not folder.exists():
            _install(runtime_wheel, folder)
    return folder


def _install(wheel: Path, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "--target"]
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch, "tester")
        subprocess.run([*pip, made, *NEEDS], check=True)
        subprocess.run([*pip, made, "--no-deps", wheel], check=True)
        made.rename(folder)
