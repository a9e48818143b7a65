"""The file system of a cell made by hand: what :mod:`.layout` describes, by process 1 of the cell in its namespaces."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pesto_repro.sandbox import kernel

HOST = "localhost"
_DEVICES = ("full", "null", "random", "tty", "urandom", "zero")
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}


def furnish(operations: Iterable[Sequence[Any]], network: bool) -> None:
    """Make the file system that *operations* describe our own, and the network ready unless it is the host's."""
    socket.sethostname(HOST)
    if not network:
        kernel.raise_loopback()
    _new_root()
    for name, *operands in operations:
        _OPERATIONS[name](*operands)
    _leave_old_root()


def _new_root() -> None:
    """``/`` becomes an empty file system with the old root below /oldroot, and the cell's to be below /newroot."""
    kernel.mount(None, "/", None, kernel.REC | kernel.PRIVATE)
    base = "/tmp"  # any folder: this process alone sees what is mounted there
    kernel.mount("tmpfs", base, "tmpfs", kernel.NOSUID | kernel.NODEV, "mode=755,size=1m")
    os.chdir(base)
    for name in ("newroot", "oldroot"):
        Path(name).mkdir()
    kernel.pivot_root(".", "oldroot")
    os.chdir("/")
    kernel.mount("tmpfs", "/newroot", "tmpfs", kernel.NOSUID | kernel.NODEV, "mode=755,size=1m")


def _leave_old_root() -> None:
    """pivot_root(2): with "." twice, the old root lies below the new one, to be detached."""
    kernel.unmount("/oldroot")
    os.chdir("/newroot")
    kernel.pivot_root(".", ".")
    kernel.unmount(".")
    os.chdir("/")
    _seal("/", kernel.NOSUID | kernel.NODEV)


def _seal(target: str, flags: int) -> None:
    """Make the mount at *target*, that we made with *flags*, read-only."""
    kernel.mount(None, target, None, kernel.BIND | kernel.REMOUNT | kernel.RDONLY | flags)


def _bind(source: str, target: str, writable: bool) -> None:
    _place(_new(target), _old(source).is_dir())
    kernel.mount(str(_old(source)), str(_new(target)), None, kernel.BIND | kernel.REC)
    kernel.restrict(str(_new(target)), kernel.NOSUID | kernel.NODEV | (0 if writable else kernel.RDONLY))


def _new(path: str) -> Path:
    return Path(f"/newroot{path}")


def _old(path: str) -> Path:
    return Path(f"/oldroot{path}")


def _place(target: Path, folder: bool) -> None:
    """Let there be something that can be mounted on."""
    if folder:
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()


def _symlink(text: str, target: str) -> None:
    _new(target).symlink_to(text)


def _tmpfs(target: str, mode: int, size: int) -> None:
    _place(_new(target), folder=True)
    options = f"mode={mode:o},size={size}"
    kernel.mount("tmpfs", str(_new(target)), "tmpfs", kernel.NOSUID | kernel.NODEV, options)


def _dev(shared: int) -> None:
    """Nodes cannot be made without privileges: the host's own are mounted."""
    _tmpfs("/dev", 0o755, 1 << 20)
    for path in (f"/dev/{name}" for name in _DEVICES):
        if _old(path).exists():
            _place(_new(path), folder=False)
            kernel.mount(str(_old(path)), str(_new(path)), None, kernel.BIND)
    for name, text in _DEVICE_LINKS.items():
        _symlink(text, f"/dev/{name}")
    _tmpfs("/dev/shm", 0o1777, shared)
    _place(_new("/dev/pts"), folder=True)
    with contextlib.suppress(OSError):  # some kernels want a user 0 for it
        options = "newinstance,ptmxmode=0666,mode=620"
        kernel.mount("devpts", "/newroot/dev/pts", "devpts", kernel.NOSUID | kernel.NOEXEC, options)
    _seal("/newroot/dev", kernel.NOSUID | kernel.NODEV)


def _proc() -> None:
    flags = kernel.NOSUID | kernel.NODEV | kernel.NOEXEC
    _place(_new("/proc"), folder=True)
    kernel.mount("proc", "/newroot/proc", "proc", flags)
    _seal("/newroot/proc", flags)


_OPERATIONS: dict[str, Callable[..., None]] = {
    "bind": _bind,
    "symlink": _symlink,
    "tmpfs": _tmpfs,
    "dev": _dev,
    "proc": _proc,
}
