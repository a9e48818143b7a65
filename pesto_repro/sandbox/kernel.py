"""The system calls that a cell is made with, where Python has none of its own: Linux, 64 bit."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path

# linux/sched.h
NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
# linux/mount.h
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT = 1, 2, 4, 8, 32
NOATIME, NODIRATIME, BIND, REC, PRIVATE, RELATIME = 1 << 10, 1 << 11, 1 << 12, 1 << 14, 1 << 18, 1 << 21
_DETACH = 2
_KEPT = {
    **{b"ro": RDONLY, b"nosuid": NOSUID, b"nodev": NODEV, b"noexec": NOEXEC},
    **{b"noatime": NOATIME, b"nodiratime": NODIRATIME, b"relatime": RELATIME},
}
# linux/prctl.h
_PDEATHSIG, _DUMPABLE, _CAPBSET_DROP, _CHILD_SUBREAPER, _NO_NEW_PRIVS, _CAP_AMBIENT = 1, 4, 24, 36, 38, 47
_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_NS_GET_USERNS = 0xB701
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_KEYCTL_JOIN_SESSION_KEYRING = 1
# Machine -> numbers of pivot_root and keyctl, which the C library has no function for.
_NUMBERS = {
    "x86_64": (155, 250),
    "aarch64": (41, 219),
    "riscv64": (41, 219),
    "loongarch64": (41, 219),
    "ppc64le": (203, 271),
    "s390x": (217, 280),
}

MOUNTS = "/oldroot/proc/self/mountinfo"
"""Where enter.py finds the host's /proc while it makes the new root."""

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _numbers() -> tuple[int, int]:
    found = _NUMBERS.get(os.uname().machine)
    if found is None or struct.calcsize("P") != 8:
        raise OSError(errno.ENOSYS, f"no system calls are known for {os.uname().machine}")
    return found


def unshare(flags: int) -> None:
    _checked(_libc.unshare(flags), "unshare")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    words = (None if word is None else os.fsencode(word) for word in (source, target, kind, options))
    first, second, third, last = words
    _checked(_libc.mount(first, second, third, ctypes.c_ulong(flags), last), f"mount {target}")


def unmount(target: str) -> None:
    """Detach *target* and all below it."""
    _checked(_libc.umount2(os.fsencode(target), _DETACH), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    _checked(_libc.syscall(_numbers()[0], os.fsencode(new), os.fsencode(old)), "pivot_root")


def restrict(target: str, flags: int) -> None:
    """Add *flags* to the mount at *target* and to those below it; what they forbid already stays forbidden."""
    for place, options in _mounts_below(os.fsencode(target)):
        kept = sum(flag for word, flag in _KEPT.items() if word in options)
        mount(None, os.fsdecode(place), None, BIND | REMOUNT | kept | flags)


def _mounts_below(target: bytes) -> list[tuple[bytes, set[bytes]]]:
    """proc_pid_mountinfo(5): the 5th field is the mount point, the 6th its options."""
    with Path(MOUNTS).open("rb") as file:
        rows = [line.split() for line in file]
    found = [(_unescaped(row[4]), set(row[5].split(b","))) for row in rows]
    return [each for each in found if each[0] == target or each[0].startswith(target.rstrip(b"/") + b"/")]


def _unescaped(path: bytes) -> bytes:
    for byte in (b" ", b"\t", b"\n", b"\\"):
        path = path.replace(b"\\%03o" % byte[0], byte)
    return path


def die_with_parent() -> None:
    """SIGKILL for this process when the one that started it ends."""
    _checked(_libc.prctl(_PDEATHSIG, 9, 0, 0, 0), "prctl")


def adopt_orphans() -> None:
    """Descendants whose parent ends become children of this process."""
    _checked(_libc.prctl(_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


def hide() -> None:
    """Let nobody trace this process or look into its /proc folder."""
    _checked(_libc.prctl(_DUMPABLE, 0, 0, 0, 0), "prctl")


def forget_arguments() -> None:
    """Blank what /proc/PID/cmdline shows of this process: paths of the host. proc_pid_stat(5): fields 48 and 49."""
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    first, end = int(fields[45]), int(fields[46])
    if first:
        ctypes.memset(first, 0, end - first)


def leave_keyring() -> None:
    """An empty session keyring in place of the user's; not all kernels have keys."""
    with contextlib.suppress(OSError):
        _checked(_libc.syscall(_numbers()[1], _KEYCTL_JOIN_SESSION_KEYRING, None), "keyctl")


def drop_privileges() -> None:
    """No capability in any set, and none to be had by running anything."""
    _checked(_libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    _libc.prctl(_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(64):
        if _libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break  # EINVAL: the kernel has no more of them
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _checked(_libc.capset(header, bytes(24)), "capset")


def raise_loopback() -> None:
    """``ip link set lo up``."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(handle, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(handle, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def join_network(pid: int) -> None:
    """Move this process into the network of *pid*, with the rights of its owner there. One thread only."""
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    owner = fcntl.ioctl(network, _NS_GET_USERNS)
    try:
        _checked(_libc.setns(owner, NEWUSER), "setns")
        _checked(_libc.setns(network, NEWNET), "setns")
    finally:
        os.close(network)
        os.close(owner)
