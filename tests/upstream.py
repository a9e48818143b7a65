"""Upstream's own files, read from its wheel: nothing of them is kept in this repository.

The wheel comes once through pip and whatever index this machine's configuration names.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

VERSION = "1.7.2"
WHEEL = f"processing_factory-{VERSION}-py3-none-any.whl"
TEMPLATE = "pesto/cli/resources/template/"
PROJECT = "{{cookiecutter.project_sname}}/"
VARIABLE = re.compile(r"\{\{\s*cookiecutter\.(\w+)\s*\}\}")


def download(cache: Path) -> Path:
    """The wheel in the folder *cache*, brought there if it is not. Several processes may ask at once."""
    wheel = cache / WHEEL
    if not wheel.exists():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _pip("download", "--quiet", "--no-deps", "--dest", scratch, f"processing-factory=={VERSION}")
            Path(scratch, WHEEL).replace(wheel)
    return wheel


def render(wheel: Path, parent: Path) -> Path:
    """Upstream's template project with its default values, written into the folder *parent*; its root."""
    with zipfile.ZipFile(wheel) as archive:
        values = defaults(json.loads(archive.read(TEMPLATE + "cookiecutter.json")))
        root = parent / values["project_sname"]
        prefix = TEMPLATE + PROJECT
        for name in archive.namelist():
            if name.startswith(prefix) and not name.endswith("/"):
                _write(root / PurePosixPath(name[len(prefix) :]), archive.read(name), values)
    return root


def defaults(declared: dict[str, str]) -> dict[str, str]:
    """What cookiecutter makes of *declared* when nobody answers its questions."""
    short_name = declared["project_name"].lower().replace(" ", "-")
    return {**declared, "project_sname": short_name}


def _write(path: Path, content: bytes, values: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        path.write_bytes(content)
    else:
        path.write_bytes(VARIABLE.sub(lambda found: values[found[1]], text).encode())


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments]
    subprocess.run(command, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
