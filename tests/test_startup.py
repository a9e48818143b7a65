"""Start-up: what is not needed is not imported. Imports, not seconds: they are the same on every machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e import REPOSITORY
from tests.small_project import Small, make_small

TRACED = """
import sys
before = set(sys.modules)
from pesto_repro.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print(*set(sys.modules) - before, file=sys.stderr)
"""
WARM = {
    *("click", "packaging", "pydantic", "pydantic_core", "tomli", "zlib_ng", "zstandard"),
    *("annotated_types", "typing_extensions", "typing_inspection"),  # pydantic's own
}
"""What a build imports that has nothing to do."""
IDLE = {"sandbox", "source", "resolve", "validate", "service", "bundle", "scaffold"}
"""Rooms that a build leaves alone that has nothing to do."""


def imported(*arguments: str | Path, env: Mapping[str, str] | None = None) -> set[str]:
    """The modules that the command line imports, beside those that the interpreter starts with."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})}
    command = [sys.executable, "-c", TRACED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert 0 == done.returncode, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def foreign(modules: set[str]) -> set[str]:
    """The packages of *modules* that are neither Python's own nor ours; of compiled ones not their helpers."""
    tops = {each.partition(".")[0] for each in modules if not each.startswith("_")}
    return {each for each in tops if not each.endswith("__mypyc")} - sys.stdlib_module_names - {"pesto_repro"}


def ours(modules: set[str]) -> set[str]:
    """Those of *modules* that are of this package, without its name."""
    return {each.partition(".")[2] for each in modules if each.startswith("pesto_repro.")}


def test_help_imports_no_command() -> None:
    """click and the command line itself, whatever else is there."""
    found = imported("--help")
    assert {"click"} == foreign(found)
    assert {"cli", "cli.main", "cli.console", "errors", "progress"} == ours(found)


@pytest.fixture(scope="module")
def built(runtime_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A small project whose layers are all in the store."""
    small = make_small(tmp_path_factory.mktemp("startup"), runtime_wheel)
    small.build()
    return small


@pytest.mark.parametrize("command", ["build", "plan"])
def test_what_has_nothing_to_do_imports_little(built: Small, command: str) -> None:
    """Neither the checks of documents nor the network, keys, bills of materials, resolvers or sandboxes."""
    output = ["-o", str(built.output)] if command == "build" else []
    found = imported(command, built.root, "--store", built.store, *output, env=built.env)
    assert "realise" in {each.rpartition(".")[2] for each in ours(found)}
    assert set() == foreign(found) - WARM
    assert set() == {each.partition(".")[0] for each in ours(found)} & IDLE
