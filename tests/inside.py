"""The command line in this process, for tests of many small runs: what it prints, says and ends with."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pesto_repro.cli.main import run


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """What ``--json`` printed."""
        found: dict[str, Any] = json.loads(self.stdout)
        return found


def inside(*arguments: str | Path, env: Mapping[str, str] | None = None, code: int | None = 0) -> Done:
    """Run the command line with *env* over ours; it must end with *code*, unless that is None."""
    out, err = io.StringIO(), io.StringIO()
    with patch.dict(os.environ, env or {}), redirect_stdout(out), redirect_stderr(err):
        ended = run([str(each) for each in arguments])
    assert code in (ended, None), (
        f"{' '.join(map(str, arguments))} ended with {ended}:\n{out.getvalue()}{err.getvalue()}"
    )
    return Done(ended, out.getvalue(), err.getvalue())
