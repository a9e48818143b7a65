"""Maker "venv": the skeleton of a virtual environment, whose interpreter is the base's.

What ``python -m venv --without-pip --symlinks`` leaves, without activation scripts, prompt and commands,
which say where and how it was made (PEP 405).
"""

from __future__ import annotations

from collections.abc import Iterator
from posixpath import dirname

from pesto_repro.build.entry import Entry, data, directory, symlink
from pesto_repro.build.maker import Inputs
from pesto_repro.plan import Step


def entries(step: Step, inputs: Inputs) -> Iterator[Entry]:
    """The skeleton at ``prefix`` for the interpreter ``executable`` of ``version``."""
    prefix, executable, version = (step.params[key] for key in ("prefix", "executable", "version"))
    minor = "python" + ".".join(version.split(".")[:2])
    system = bool(step.params.get("system-packages"))
    yield data(f"{prefix}/pyvenv.cfg", _configuration(executable, version, system))
    yield symlink(f"{prefix}/bin/python", executable)
    yield symlink(f"{prefix}/bin/python3", "python")
    yield symlink(f"{prefix}/bin/{minor}", "python")
    yield directory(f"{prefix}/include")
    yield directory(f"{prefix}/lib/{minor}/site-packages")
    yield symlink(f"{prefix}/lib64", "lib")


def _configuration(executable: str, version: str, system: bool) -> bytes:
    """PEP 405: "home" is the directory of the base's interpreter."""
    lines = [f"home = {dirname(executable)}", f"include-system-site-packages = {str(system).lower()}"]
    lines.append(f"version = {version}")
    return "".join(f"{line}\n" for line in lines).encode()
