"""Root file systems made of an image's layers, kept in the store.

::

    <store>/trees/<diff_id hex>/            a layer's files, and entries.json: what is where (:mod:`.unpack`)
    <store>/roots/<digest of diff_ids>/     a whole root: hard links to the files of the trees

Both are derived data and may be deleted while nobody holds ``Store.in_use("trees")``, as whoever unpacks or uses them
does. Each is made as a sibling whose name begins with a dot and which is locked itself (flock of the folder) while it
is made, then renamed: it is there whole or not at all, two processes at once harm nothing, and what a killed one left
is removed by the next. Nobody writes to them afterwards. A tree is verified while it is made: nothing of a layer with a
wrong diff_id is kept.

As an ordinary user: ownership and setuid bits are left out; directories are always u+rwx, files u+r. Other users of the
machine cannot write to any of it, whatever modes a layer has: what is run is what was unpacked.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pesto_repro.digest import digest_of_value
from pesto_repro.oci import Layer
from pesto_repro.progress import Reporter
from pesto_repro.registry.ports import Content
from pesto_repro.sandbox.merge import Directory, Provided, Symlink, find, merge
from pesto_repro.sandbox.unpack import Entry, unpack
from pesto_repro.store import Store

TREES, ROOTS = "trees", "roots"
_VERSION = 1
_ENTRIES = "entries.json"
_FILES = {"hosts": b"127.0.0.1\tlocalhost\n::1\tlocalhost\n", "resolv.conf": b""}
"""Files of /etc that every engine provides: made where an image lacks them."""


class Roots:
    """The root file systems in *store*. From the first use until :meth:`close` they are not deleted."""

    def __init__(self, store: Store, reporter: Reporter) -> None:
        self._store, self._reporter = store, reporter
        self._use = contextlib.ExitStack()
        self._held = False

    def __enter__(self) -> Roots:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing here is in use any more."""
        self._use.close()
        self._held = False

    def root(self, layers: Sequence[Layer], content: Content) -> Path:
        """The root of *layers*, from the bottom up; *content* has their bytes. Made once, then only looked up.

        Raises MismatchError, FetchError, BuildError, StoreError.
        """
        self._hold()
        name = digest_of_value({"version": _VERSION, "layers": [str(layer.diff_id) for layer in layers]}).hex
        path = self._store.root / ROOTS / name
        if not path.is_dir():
            root = merge([self._tree(layer, content) for layer in layers])
            _provide(root)
            with self._store.guarded(), _new_folder(path) as folder:
                _write(root, folder)
        return path

    def _tree(self, layer: Layer, content: Content) -> tuple[Path, list[Entry]]:
        path = self._store.root / TREES / layer.diff_id.hex
        if not (path / _ENTRIES).is_file():
            with self._store.guarded(), _new_folder(path) as folder:
                entries = unpack(layer, content, folder, self._reporter)
                (folder / _ENTRIES).write_text(json.dumps(entries), encoding="ascii")
        with self._store.guarded():
            listed = json.loads((path / _ENTRIES).read_text(encoding="ascii"))
        return path, [Entry(*each) for each in listed]

    def _hold(self) -> None:
        if not self._held:
            self._use.enter_context(self._store.in_use(TREES))
            self._held = True


@contextlib.contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """An empty folder that becomes *path* at the end, unless another process was faster. Nothing remains on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    folder, handle = _locked_folder(path.parent)
    try:
        yield folder
        folder.chmod(0o755)
        try:
            folder.rename(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _locked_folder(parent: Path) -> tuple[Path, int]:
    """A new folder, locked; another one, if a sweeping process took it between the two."""
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix="."))
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if folder.exists():
                return folder, handle
            os.close(handle)


def _sweep(parent: Path) -> None:
    """Remove what a killed process left: unfinished folders that nobody holds a lock on."""
    for folder in parent.glob(".*"):
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(handle)


def _provide(root: Directory) -> None:
    """Add the files that *root* lacks."""
    etc = find(root, "etc", make=True)
    if isinstance(etc, Directory):
        etc.children = {name: Provided(data) for name, data in _FILES.items()} | etc.children


def _write(node: Directory, path: Path) -> None:
    """Make the children of *node* below *path*, which is there."""
    for name, child in node.children.items():
        place = path / name
        if isinstance(child, Directory):
            place.mkdir()
            _write(child, place)
            place.chmod(child.mode & ~0o022 | 0o700)
        elif isinstance(child, Symlink):
            place.symlink_to(child.text)
        elif isinstance(child, Provided):
            place.write_bytes(child.data)
            place.chmod(0o644)
        else:
            _link(child.source, place)


def _link(source: Path, place: Path) -> None:
    """A hard link where the file system has it: not from another one, nor more than it counts to."""
    try:
        place.hardlink_to(source)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP):
            raise
        shutil.copy(source, place)
