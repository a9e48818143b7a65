"""Sources that are archives of an index, or directories of this machine.

An archive comes from outside: what must not be in a layer must not be in a source either (members that escape, links
out of it, devices: :mod:`pesto_repro.build.archive`), and it may not grow without end.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from packaging.utils import InvalidSdistFilename, parse_sdist_filename
from packaging.version import InvalidVersion

from pesto_repro.build.archive import entries as archived
from pesto_repro.build.entry import Entry, file, symlink
from pesto_repro.build.maker import Inputs
from pesto_repro.digest import Digest
from pesto_repro.errors import BuildError
from pesto_repro.plan import Pinned, Step
from pesto_repro.project.files import never, resolve
from pesto_repro.source.unpacked import FOLDER, LIMIT, Unpacked, below, opened, too_large, write_tree
from pesto_repro.store import Store

_LEFT_OUT = re.compile(r"\.eggs|\.hypothesis|\.venv|\.direnv|\.DS_Store|.*\.py[co]")
"""Left out of a directory besides what never travels in an image."""


def read_sdist(
    store: Store,
    name: str,
    digest: Digest,
    *,
    subdirectory: str | None = None,
    package: str | None = None,
    version: str | None = None,
) -> Unpacked:
    """The source in the archive *digest*, which is in *store*. Raises BuildError."""
    named = _named(name)
    with ExitStack() as stack:
        inputs = Inputs(store.open, partial(_limited, store.scratch), stack)
        step = Step("archive", name, "source", {"to": ""}, (Pinned(name, digest),))
        try:
            folder, found = _below_one_folder(archived(step, inputs))
            tree, _ = write_tree(found, store)
        except BuildError as error:
            message = error.message if error.message.startswith(name) else f"{name} cannot be used: {error.message}"
            raise BuildError(message, error.hint) from None
    source = Unpacked(
        *("sdist", name, digest, store.size(digest), tree, folder),
        subdirectory=subdirectory,
        package=package or named[0],
        version=version or named[1],
    )
    return opened(source, store)


def read_directory(
    store: Store, name: str, folder: Path, *, subdirectory: str | None = None, package: str | None = None
) -> Unpacked:
    """The source in the directory *folder*, which the lock calls *name*. Raises BuildError.

    Version control, caches, results of builds, virtual environments and files of credentials are left out.
    """
    try:
        found = list(_walk(folder, ""))
    except OSError as error:
        raise BuildError(f"{error.filename} cannot be read: {error.strerror}") from None
    require_inside(found, name)
    tree, size = write_tree((below(FOLDER, each) for each in found), store)
    return opened(Unpacked("directory", name, tree, size, tree, subdirectory=subdirectory, package=package), store)


def require_inside(found: Sequence[Entry], name: str) -> None:
    """Raises BuildError that lists the links of *found* that leave the source *name*, or go in a circle."""
    links = {each.path: each.target for each in found if each.kind == "symlink"}
    bad = [path for path, target in links.items() if target.startswith("/") or resolve(path, links) is None]
    if bad:
        lines = [f"{path} leads to {links[path]}" for path in sorted(bad)]
        raise BuildError(
            "\n  ".join([f"{name} has links that leave it, or go in a circle:", *lines]),
            "replace each link by what it means",
        )


def _below_one_folder(found: Sequence[Entry]) -> tuple[str, Sequence[Entry]]:
    """PEP 625: "a single top-level directory called {name}-{version}"; what lacks it gets one."""
    tops = {each.path.partition("/")[0] for each in found}
    if len(tops) == 1 and all("/" in each.path or each.kind == "directory" for each in found):
        return tops.pop(), found
    return FOLDER, [below(FOLDER, each) for each in found]


def _named(name: str) -> tuple[str | None, str | None]:
    """Package and version as an archive's name says them; older names may say neither."""
    stem = re.sub(r"\.(tar\.(bz2|xz|zst)|tgz)$", ".tar.gz", name)
    try:
        package, version = parse_sdist_filename(stem)
    except (InvalidSdistFilename, InvalidVersion):
        return None, None
    return package, str(version)


def _walk(folder: Path, above: str) -> Iterator[Entry]:
    with os.scandir(folder) as scanned:
        children = sorted(scanned, key=lambda each: each.name)
    for each in children:
        path = above + each.name
        if not never(path) and not _LEFT_OUT.fullmatch(each.name):
            yield from _found(each, path)


def _found(each: os.DirEntry[str], path: str) -> Iterator[Entry]:
    if each.is_symlink():
        yield symlink(path, os.readlink(each.path))  # noqa: PTH115  # a Path would normalise it
    elif each.is_dir():
        if not Path(each.path, "pyvenv.cfg").is_file():
            yield from _walk(Path(each.path), f"{path}/")
    elif each.is_file():
        opener = cast("Callable[[], Any]", partial(Path(each.path).open, "rb"))
        status = each.stat()
        yield file(path, opener, status.st_size, executable=bool(status.st_mode & 0o100))
    else:
        raise BuildError(f"{each.path} is neither a file nor a directory", "take it out of the folder")


class _Limited:
    """A file that takes at most LIMIT bytes."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle, self._left = handle, LIMIT

    def write(self, data: bytes) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise too_large()
        return self._handle.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)


@contextmanager
def _limited(scratch: Callable[[], AbstractContextManager[IO[bytes]]]) -> Iterator[IO[bytes]]:
    with scratch() as handle:
        yield cast("IO[bytes]", _Limited(handle))
