"""Whether this machine lets us make cells at all: kernels may forbid it, and then there is nothing to test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pesto_repro.errors import PestoError
from pesto_repro.sandbox.cell import Cell, run


@pytest.fixture(scope="session")
def sandboxes() -> None:
    """Skips where no cell can be made."""
    try:
        run(Cell(Path("/"), {}), [sys.executable, "-c", ""])
    except PestoError as error:
        pytest.skip(f"no sandbox here: {error.message}")
