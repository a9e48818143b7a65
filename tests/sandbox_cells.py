"""What the sandbox's tests share: a root to run commands in, engines, and somebody who is not root.

The root has the host's own /usr mounted, so that there are a shell and a Python in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.errors import PestoError
from pesto_repro.sandbox.cell import Cell, Mount, run
from pesto_repro.sandbox.engines import Engine
from tests.judges import REQUIRE, judge

PACKAGE = Path(__file__).parent.parent / "pesto_repro"
STRANGER = 12345
PATH = "/usr/bin:/bin"
PYTHON = "/usr/bin/python3"


def skeleton(root: Path) -> Path:
    """The folders and links of a root that /usr is mounted in."""
    for name in ("usr", "etc", "run", "var/tmp", "opt"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nada:x:1000:1001:Ada:/home/ada:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nstaff:x:50:ada\n")
    (root / "etc/resolv.conf").write_text("")
    return root


def usr_cell(root: Path, *mounts: Mount, env: dict[str, str] | None = None, **how: Any) -> Cell:
    """A cell of *root* with the host's /usr."""
    return Cell(root, env or {"PATH": PATH}, mounts=(Mount(Path("/usr"), "/usr"), *mounts), **how)


def need(engine: Engine) -> Engine:
    """Skip where the machine does not let us use *engine*; fail where it must."""
    if engine is Engine.BWRAP:
        judge("bwrap")
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(usr_cell(skeleton(Path(folder, "root"))), ["true"], engine=engine)
        except PestoError as error:
            (pytest.fail if os.environ.get(REQUIRE) == "1" else pytest.skip)(f"{error.message} ({error.hint})")
    return engine


@pytest.fixture(params=list(Engine), ids=lambda each: each.value, scope="session")
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each way into a cell."""
    return need(request.param)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that nothing changes."""
    return skeleton(tmp_path_factory.mktemp("cell") / "root")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that anybody can look into, with a copy of the package: for those who may not see ours."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(PACKAGE, folder / "pesto_repro", ignore=shutil.ignore_patterns("__pycache__"))
        yield folder


def drive(script: str, *arguments: str | Path, package: Path, stranger: bool) -> subprocess.Popen[bytes]:
    """Start the Python *script* on the host, as ourselves or as an ordinary user, with *package* to import from."""
    python = (shutil.which("python3", path=PATH) or "") if stranger else sys.executable
    program = f"import sys; sys.path.insert(0, sys.argv[1])\n{script}"
    return subprocess.Popen(
        [python, "-I", "-S", "-B", "-c", program, package, *arguments],
        stdout=subprocess.PIPE,
        cwd="/",
        env={"PATH": PATH},
        user=STRANGER if stranger else None,
        group=STRANGER if stranger else None,
        extra_groups=[] if stranger else None,
    )


def need_stranger() -> None:
    """Skip where we cannot become somebody else, or where that one has no Python for us."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else; the tests that are not skipped run as an ordinary user")
    done = subprocess.run(
        [PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("the system has no Python 3.11")


def processes(marker: str) -> list[int]:
    """The processes of the machine with *marker* in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found
