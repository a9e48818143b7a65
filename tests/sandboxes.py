"""Whether this machine lets us make cells at all: kernels may forbid it, and then there is nothing to test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pesto_repro.errors import PestoError
from pesto_repro.sandbox.cell import Cell, run
from tests.judges import REQUIRE


@pytest.fixture(scope="session")
def sandboxes() -> None:
    """Skips where no cell can be made; where judges are required, that is a failure."""
    try:
        run(Cell(Path("/"), {}), ["/bin/sh", "-c", ":"])
    except PestoError as error:
        (pytest.fail if os.environ.get(REQUIRE) == "1" else pytest.skip)(f"no sandbox here: {error.message}")
