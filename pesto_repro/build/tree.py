"""Maker "tree": a directory of the project's own files, at ``root``. Maker "file": one file, at ``to``.

Permissions are normalised: 0755 for what its owner may execute, else 0644.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from pesto_repro.build.entry import Entry, directory, file, symlink
from pesto_repro.build.maker import Inputs
from pesto_repro.digest import Digest
from pesto_repro.plan import Step


def entries(step: Step, inputs: Inputs) -> Iterator[Entry]:
    """What ``params["files"]`` lists as [path, sha256, size, executable, target]; a directory's path ends in "/"."""
    root = step.params["root"]
    if root and not step.params["files"]:
        yield directory(root)
    for path, sha256, size, executable, target in step.params["files"]:
        if path.endswith("/"):
            yield directory(posixpath.join(root, path).rstrip("/"))
        elif target is not None:
            yield symlink(posixpath.join(root, path), target)
        else:
            yield file(posixpath.join(root, path), inputs.opener(Digest(sha256)), size, executable=executable)


def file_entries(step: Step, inputs: Inputs) -> Iterator[Entry]:
    """The one input, at ``params["to"]``."""
    (pinned,) = step.inputs
    yield file(step.params["to"], inputs.opener(pinned.digest), inputs.size(pinned.digest), origin=step.name)
