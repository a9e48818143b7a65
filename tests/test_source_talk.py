"""Talking with a command in the room: what fails on our side ends it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from pesto_repro.errors import StoreError
from pesto_repro.sandbox.engines import Engine
from pesto_repro.source.talk import Limits, Log, talk
from tests.sandbox_cells import engine, root, usr_cell

__all__ = ["engine", "root"]  # fixtures


class Full(io.BytesIO):
    """A file on a full disk."""

    def write(self, data: object, /) -> int:
        raise StoreError("no space")


def test_an_answer_that_cannot_be_kept_ends_the_command(root: Path, engine: Engine) -> None:
    """It would wait for ever: nobody reads what it says."""
    command = ["sh", "-c", "cat /dev/zero"]
    with pytest.raises(StoreError, match=r"^no space$"):
        talk(usr_cell(root), command, io.BytesIO(), Full(), Log(lambda line: None), Limits(1 << 30, 600), engine)
