"""What the end-to-end tests share: the command line as a user runs it, and projects to run it on.

The fixtures reach the tests through conftest.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import upstream

REPOSITORY = Path(__file__).parent.parent
EXAMPLES = REPOSITORY / "examples"
STORE = "PESTO_REPRO_STORE"


def run(
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    python: Sequence[str | Path] = (sys.executable,),
) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, with *env* over ours; if *check*, it must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **(env or {})}
    command = [*map(str, python), "-m", "pesto_repro", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)
    if check and done.returncode:
        what = f"{' '.join(command)} ended with {done.returncode}:"
        pytest.fail(f"{what}\n{done.stdout}{done.stderr}", pytrace=False)
    return done


def lock(project: Path, *arguments: str | Path, store: Path, **how: Any) -> dict[str, Any]:
    """``lock PROJECT *arguments --json``: what it printed."""
    return _json(run("lock", project, *arguments, "--json", "--store", store, **how))


def build(project: Path, *arguments: str | Path, store: Path, output: str | Path, **how: Any) -> dict[str, Any]:
    """``build PROJECT *arguments --json``: what it printed. *output* is a file or ``oci:FOLDER``."""
    return _json(run("build", project, *arguments, "-o", output, "--json", "--store", store, **how))


def plan(project: Path, *arguments: str | Path, store: Path, **how: Any) -> dict[str, Any]:
    """``plan PROJECT *arguments --json``: what it printed."""
    return _json(run("plan", project, *arguments, "--json", "--store", store, **how))


def lock_and_build(
    project: Path, *arguments: str | Path, store: Path, output: str | Path, **how: Any
) -> dict[str, Any]:
    """``lock``, then ``build``, with the same arguments."""
    lock(project, *arguments, store=store, **how)
    return build(project, *arguments, store=store, output=output, **how)


def add_settings(project: Path, text: str = '[base]\ndebian = "trixie"\n') -> Path:
    """Write *text* as the project's image.toml; the project."""
    (project / "pesto/build/image.toml").write_text(text)
    return project


def update_json(path: Path, **values: Any) -> None:
    """Set *values* at the root of the JSON document at *path*, which need not exist yet."""
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | values, indent=2))


def example(name: str, parent: Path) -> Path:
    """A copy of the example *name* below *parent*, to be locked and changed at will."""
    ignore = shutil.ignore_patterns("__pycache__", "lockfiles")
    return Path(shutil.copytree(EXAMPLES / name, parent / name, ignore=ignore))


@pytest.fixture(scope="session")
def warm_store(test_cache: Path) -> Iterator[Path]:
    """A store with the downloads of earlier sessions, so that each happens once per machine.

    What is made of them is made anew in each session, or a test would judge the layers of yesterday's code.
    """
    downloads = test_cache / "blobs"
    downloads.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=test_cache, prefix="store-") as folder:
        store, blobs = Path(folder), Path(folder, "blobs/sha256")
        blobs.mkdir(parents=True)
        _link(downloads.iterdir(), blobs)
        yield store
        records = (json.loads(path.read_text().partition("\n")[0]) for path in store.glob("records/layer/*"))
        made = {record["digest"].removeprefix("sha256:") for record in records}
        _link((path for path in blobs.iterdir() if path.name not in made), downloads)


def _link(files: Iterable[Path], folder: Path) -> None:
    """Let *files* be in *folder* too. Several sessions may do so at once."""
    for path in files:
        with contextlib.suppress(FileExistsError):
            (folder / path.name).hardlink_to(path)


@pytest.fixture
def template(template_project: Path) -> Path:
    """Upstream's template project with an image.toml that names its base, not locked yet."""
    return add_settings(template_project)


@pytest.fixture(scope="session")
def locked_once(runtime_wheel: Path, warm_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template project, locked for trixie; not to be changed."""
    project = add_settings(upstream.render(runtime_wheel, tmp_path_factory.mktemp("locked")))
    lock(project, store=warm_store)
    return project


@pytest.fixture
def locked_template(locked_once: Path, tmp_path: Path) -> Path:
    """A copy of the template project, locked for trixie: locked once per session."""
    return Path(shutil.copytree(locked_once, tmp_path / locked_once.name))


def _json(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found
