"""``init``: a new project in PESTO's layout, made from the template beside this file.

The template is a whole project of its own, in which ``{{name}}`` stands for the project's name.
Equal names give equal bytes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pesto_repro.errors import PestoError
from pesto_repro.project.reference import is_name

TEMPLATE = Path(__file__).parent / "template"
PLACEHOLDER = b"{{name}}"


def create(target: Path, name: str | None = None) -> list[Path]:
    """Write a new project into the folder *target*; the files written, sorted.

    It is called *name*, or like the folder. *target* is made if it is not there, and must be empty if it is;
    after a failure it holds no file.
    """
    content = _rendered(_checked(target.absolute().name if name is None else name))
    try:
        _require_empty(target)
        _write(target, content)
    except OSError as error:
        raise PestoError(f"cannot write the project to {target}: {error.strerror or error}") from error
    return [target / path for path in content]


def _checked(name: str) -> str:
    # The name is also that of a folder and of a Python package: one part of an image name, without "/".
    if "/" in name or not is_name(name):
        raise PestoError(
            f'"{name}" cannot be the name of a service: lower-case letters and digits, separated by '
            'single ".", "_", "__" or dashes',
            "say another one with --name, for example --name my-service",
        )
    return name


def _rendered(name: str) -> dict[Path, bytes]:
    """The project's files by their path in it, sorted."""
    files = sorted(path.relative_to(TEMPLATE) for path in TEMPLATE.rglob("*") if path.is_file())
    # An installer compiles every module it finds, those of the template too.
    own = (path for path in files if "__pycache__" not in path.parts)
    return {path: (TEMPLATE / path).read_bytes().replace(PLACEHOLDER, name.encode()) for path in own}


def _require_empty(target: Path) -> None:
    if target.is_dir() and any(target.iterdir()):
        raise PestoError(f"{target} is not empty", "name a folder that is empty or does not exist yet")
    target.mkdir(parents=True, exist_ok=True)


def _write(target: Path, content: dict[Path, bytes]) -> None:
    """Write everything into a hidden folder first, then move it to its place: all or nothing."""
    with tempfile.TemporaryDirectory(prefix=".init-", dir=target) as hidden:
        for path, data in content.items():
            file = Path(hidden, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        for top in sorted({path.parts[0] for path in content}):
            Path(hidden, top).rename(target / top)
