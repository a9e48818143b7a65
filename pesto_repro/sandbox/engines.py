"""Which way into a cell is open on this machine: bwrap where it works, else the kernel's user namespaces by hand."""

from __future__ import annotations

import enum
import errno
import functools
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pesto_repro.errors import PestoError
from pesto_repro.sandbox.furnish import HOST
from pesto_repro.sandbox.layout import Operation

_SYSCTL = Path("/proc/sys")
_FORBIDDING = {
    "kernel.unprivileged_userns_clone": "0",
    "kernel.apparmor_restrict_unprivileged_userns": "1",
    "user.max_user_namespaces": "0",
}
"""Settings with which kernels forbid user namespaces, and the value that does."""
_PROBE_SECONDS = 30


class Engine(enum.Enum):
    """A way to make a cell."""

    BWRAP = "bwrap"
    NAMESPACES = "namespaces"


def choose() -> Engine:
    """The engine for this machine. Raises PestoError where there can be none."""
    if sys.platform != "linux":
        raise PestoError(
            f"images can be run by this program on Linux only, not on {sys.platform}",
            "run it in a virtual machine or with another engine: docker load -i IMAGE",
        )
    return Engine.NAMESPACES if bwrap() is None else Engine.BWRAP


@functools.cache
def bwrap() -> tuple[str, ...] | None:
    """bwrap's path and the options that this version has beyond the usual; None if it is not there or fails."""
    path = shutil.which("bwrap")
    if path is None:
        return None
    for more in (("--disable-userns",), ()):
        command = [path, *more, *_NAMESPACES, "--unshare-net", "--ro-bind", "/", "/", *_arguments(["proc"])]
        command += [*_arguments(["dev", 1 << 16]), "--", sys.executable, "-I", "-S", "-c", ""]
        if _succeeds(command):
            return (path, *more)
    return None


_NAMESPACES = (
    *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"),
    *("--hostname", HOST, "--cap-drop", "ALL", "--die-with-parent", "--new-session"),
    *("--uid", "65532", "--gid", "65532"),
)


def bwrap_arguments(
    operations: Sequence[Operation], user: tuple[int, int], network: bool, cwd: str, env: Mapping[str, str]
) -> list[str]:
    """What bwrap is told, besides the command. *env* is never its own: LD_PRELOAD of an image would run on the host."""
    found = [*(bwrap() or ("",))[1:], *_NAMESPACES[:-4], "--uid", str(user[0]), "--gid", str(user[1])]
    found += [] if network else ["--unshare-net"]
    found += [word for pair in env.items() for word in ("--setenv", *pair)]
    for operation in operations:
        found += _arguments(operation)
    return [*found, "--remount-ro", "/", "--chdir", cwd]


def _arguments(operation: Operation) -> list[str]:
    match operation:
        case ["bind", str(source), str(target), writable]:
            return ["--bind" if writable else "--ro-bind", source, target]
        case ["symlink", str(text), str(target)]:
            return ["--symlink", text, target]
        case ["tmpfs", str(target), int(mode), int(size)]:
            return ["--perms", f"{mode:o}", "--size", str(size), "--tmpfs", target]
        case ["dev", int(size)]:
            shared = _arguments(["tmpfs", "/dev/shm", 0o1777, size])
            return ["--dev", "/dev", *shared, "--remount-ro", "/dev"]
        case ["proc"]:
            return ["--proc", "/proc", "--remount-ro", "/proc"]
    raise AssertionError(f"an unknown operation: {operation}")


def _succeeds(command: Sequence[str]) -> bool:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def refusal(reason: str, number: int | None) -> PestoError:
    """The error for a cell that could not be made, with what to do about it."""
    if number in (errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EINVAL, errno.ENOSYS):
        return PestoError(f"this machine does not let us make a sandbox: {reason}", _hint())
    return PestoError(reason if number is None else f"the sandbox could not be made: {reason}")


def _hint() -> str:
    for name, value in _FORBIDDING.items():
        path = _SYSCTL / name.replace(".", "/")
        if path.is_file() and path.read_text(encoding="ascii").strip() == value:
            return f"its setting {name}={value} forbids it: ask for `apt install bubblewrap`, or for another value"
    return "install bubblewrap (`apt install bubblewrap`); in a container, allow user namespaces"
