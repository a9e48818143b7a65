"""What a cell's file system consists of, as a list of operations that every engine understands.

The cell's ``/`` is an empty tmpfs. Each top-level entry of the root is mounted on it read-only, so that a mount may
have a target that the root lacks: at the top level, or below a private folder. Above lie the private folders, the
mounts, /dev and /proc; then ``/`` itself becomes read-only, and so do /dev and /proc (as the superuser outside, a
process without capabilities could still write to the kernel's settings). Targets are without links: no operation
follows one.

Operations, as JSON: ``["bind", source, target, writable]``, ``["symlink", text, target]``,
``["tmpfs", target, mode, size]``, ``["dev", size of /dev/shm]``, ``["proc"]``.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_repro.errors import PestoError
from pesto_repro.sandbox.paths import parts_of, resolve

if TYPE_CHECKING:
    from pesto_repro.sandbox.cell import Cell, Mount

Operation = list[str | int | bool]

OWN = ("dev", "proc", "tmp")
"""Names at the top level that are never the root's."""
PRIVATE = ("/tmp", "/run", "/var/tmp")  # inside the cell
RESOLVER = "/etc/resolv.conf"
_RUN_SIZE = 16 << 20


def layout(cell: Cell) -> list[Operation]:
    """The operations that make *cell*. Raises PestoError for a mount that has no place."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    operations = [*_root(cell.root), *_private(cell.root, memory), *_mounts(cell)]
    return [*operations, ["dev", memory // 8], ["proc"]]


def private(root: Path) -> list[str]:
    """The folders of the cell that are its own: empty at first, writable, in memory, gone with it."""
    return [path for path in PRIVATE if path == "/tmp" or _is_folder(root / path[1:], root)]


def outside(cell: Cell, path: str) -> Path | None:
    """Where on the host is what the cell sees at *path*; None for what only the cell has."""
    path = resolve(cell.root, posixpath.join(cell.cwd, path))
    for mount in cell.mounts:
        target = resolve(cell.root, mount.target)
        if path == target or path.startswith(target + "/"):
            return mount.source / path[len(target) :].lstrip("/")
    if path.split("/")[1] in OWN or any(_below(path, each) for each in private(cell.root)):
        return None
    return cell.root / path[1:]


def _root(root: Path) -> Iterator[Operation]:
    for entry in sorted(os.scandir(root), key=lambda each: each.name):
        if entry.name in OWN:
            continue
        if entry.is_symlink():
            yield ["symlink", str(Path(entry.path).readlink()), f"/{entry.name}"]
        elif entry.name != "run":
            yield ["bind", entry.path, f"/{entry.name}", False]


def _private(root: Path, memory: int) -> Iterator[Operation]:
    """Never more than the memory of the machine: a half, with /dev/shm."""
    sizes = {"/tmp": memory // 4, "/var/tmp": memory // 8, "/run": _RUN_SIZE}
    modes = {"/run": 0o755}
    for path in private(root):
        yield ["tmpfs", path, modes.get(path, 0o1777), sizes[path]]


def _mounts(cell: Cell) -> Iterator[Operation]:
    taken: list[str] = []
    for mount in cell.mounts:
        target = _target(cell.root, mount)
        for other in taken:
            if _below(target, other) or _below(other, target):
                raise PestoError(f"the mounts at {other} and {target} lie one in the other", "put them side by side")
        taken.append(target)
        yield ["bind", os.path.realpath(mount.source), target, mount.writable]
    if cell.network and _is_file(cell.root, RESOLVER) and Path(RESOLVER).is_file():
        yield ["bind", os.path.realpath(RESOLVER), resolve(cell.root, RESOLVER), False]


def _target(root: Path, mount: Mount) -> str:
    """Where *mount* goes, without links. Raises PestoError."""
    what = f"{mount.source} cannot be mounted at {mount.target}"
    if not mount.target.startswith("/") or ".." in parts_of(mount.target):
        raise PestoError(f"{what}: the target must be absolute, without '..'")
    if not mount.source.exists():
        raise PestoError(f"{what}: it does not exist")
    target = resolve(root, mount.target)
    top, here = (parts_of(target) or [""])[0], root / target[1:]
    if top in ("", "dev", "proc") or target in private(root):
        raise PestoError(f"{what}: that place is taken")
    if any(_below(target, each) for each in private(root)) or not (root / top).exists():
        return target
    if here.is_dir() if mount.source.is_dir() else here.is_file():
        return target
    raise PestoError(f"{what}: the image has no such place", "mount it below /tmp, or at a new top-level folder")


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _is_folder(path: Path, root: Path) -> bool:
    """Is *path* a folder of the root, and no part of it a link?"""
    try:
        return stat.S_ISDIR(path.lstat().st_mode) and path == root / resolve(root, f"/{path.relative_to(root)}")[1:]
    except OSError:
        return False


def _is_file(root: Path, path: str) -> bool:
    real = resolve(root, path)
    return (root / real[1:]).is_file() and not any(_below(real, each) for each in private(root))
