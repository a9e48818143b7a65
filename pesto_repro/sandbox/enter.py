"""The process that makes a cell and watches over it, started by :mod:`pesto_repro.sandbox.cell`.

Its description comes as JSON from a file descriptor; the *control* socket joins it to whoever started it, and is the
lifeline at once: when it closes, for whatever reason, the cell is killed. Messages to us: ``t`` terminate, ``s`` give
me a socket of the cell's network. Messages from us: ``{"ready": true}`` or ``{"error": ...}``,
with an "errno" if it was the kernel that refused; sockets.

::

    whoever started us ──control── monitor (this process) ──┬── init: process 1 of the cell ── the command
                                                            └── or bwrap ── bwrap as process 1 ── the command

The monitor is the parent of all, has one thread and dies with SIGKILL at worst: then PR_SET_PDEATHSIG kills process 1,
and the kernel with it everything in the cell, its mounts and its network. It exits as the command did. It runs
without site-packages and imports next to nothing: a cell starts in the time of a few forks.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from pesto_repro.sandbox import kernel
from pesto_repro.sandbox.furnish import furnish

Act = Callable[[], None]
_PROCESSES = 8192
_PATIENCE = 5.0
_FAILED = 125
"""Exit code when the cell could not be made, as of env(1) and docker(1)."""


def main(control_number: int, description: int) -> NoReturn:
    """Make the cell that *description* says, watch it, exit as its command does."""
    os.set_inheritable(control_number, False)
    control = socket.socket(fileno=control_number)
    with open(description, "rb") as stream:
        spec = json.load(stream)
    try:
        os.umask(0o022)
        kernel.leave_keyring()
        kernel.adopt_orphans()
        _die_first()
        with _wake_up() as wake:
            start = _bwrap if spec["bwrap"] else _namespaces
            code = start(spec, control, wake)
    except OSError as error:
        _say(control, error=_reason(error), errno=error.errno)
        code = _FAILED
    os._exit(code)


def _say(control: socket.socket, **message: Any) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionError):
        control.send(json.dumps(message).encode())


def _reason(error: OSError) -> str:
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename else what


@contextlib.contextmanager
def _wake_up() -> Iterator[int]:
    """A descriptor that can be read from when a child ended."""
    ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(theirs)
    yield ours


def _watch(control: socket.socket, wake: int, child: int, terminate: Act, kill: Act) -> int:
    """Serve *control* until *child* ends; its exit code."""
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(wake, select.POLLIN)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return _code(status)
        ready = {number for number, _ in poller.poll()}
        if wake in ready:
            os.read(wake, 4096)
        if control.fileno() in ready and not _serve(control, terminate):
            poller.unregister(control)
            kill()


def _serve(control: socket.socket, terminate: Act) -> bool:
    """Do what the next message asks; False when there are no more."""
    try:
        message = control.recv(16)
    except ConnectionError:
        return False
    if message == b"t":
        terminate()
    if message == b"s":
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as given, contextlib.suppress(ConnectionError):
            socket.send_fds(control, [b"s"], [given.fileno()])
    return bool(message)


def _code(status: int) -> int:
    """As shells say it: 128 and the signal."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _limit() -> None:
    """No core dumps on the host, no endless forking."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    most = _PROCESSES if hard == resource.RLIM_INFINITY else min(_PROCESSES, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def _die_first() -> None:
    """Memory has no bound of its own here: where there is no more, the kernel shall take it from us and ours."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _let_go() -> None:
    """Keep no end of the command's pipes open: whoever reads them learns that it closed them."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


# -- bwrap ---------------------------------------------------------------------------------------------------------


def _bwrap(spec: dict[str, Any], control: socket.socket, wake: int) -> int:
    """Let bwrap make the cell; the command waits until we know its processes and its network."""
    status, status_end = os.pipe2(os.O_CLOEXEC)
    gate, gate_end = os.pipe2(os.O_CLOEXEC)
    options = _memory(b"".join(os.fsencode(word) + b"\0" for word in spec["arguments"]))
    passed = {"--json-status-fd": status_end, "--block-fd": gate, "--args": options}
    words = [word for name, number in passed.items() for word in (name, str(number))]
    child = _spawn([spec["bwrap"], *words, "--", *spec["command"]], (status_end, gate, options))
    for number in passed.values():
        os.close(number)
    _let_go()
    with os.fdopen(status) as report:
        first = report.readline()
        if not first:
            os.waitpid(child, 0)
            raise OSError(errno.EPERM, "bwrap failed")
        inner = json.loads(first)["child-pid"]
        if not spec["network"]:
            _eventually(lambda: kernel.join_network(inner))
        _say(control, ready=True)
        os.close(gate_end)
        code = _watch(control, wake, child, lambda: _send_inside(inner), lambda: _send(inner, signal.SIGKILL))
        _reap(inner)
        if "exit-code" not in report.read() and code != 128 + signal.SIGKILL:
            _say(control, error="bwrap could not run the command; it said why")
            return _FAILED
    return code


def _memory(data: bytes) -> int:
    """A descriptor to read *data* from. What bwrap is told is not in its argv, which the cell can see."""
    number = os.memfd_create("arguments")
    os.write(number, data)
    os.lseek(number, 0, os.SEEK_SET)
    return number


def _spawn(command: list[str], kept: tuple[int, ...]) -> int:
    """Start *command* with the descriptors *kept* and no environment; it dies with us."""
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        _limit()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        for descriptor in kept:
            os.set_inheritable(descriptor, True)
        kernel.die_with_parent()
        if os.getppid() == parent:
            os.execve(command[0], command, {})
    finally:
        os._exit(_FAILED)


def _eventually(act: Act) -> None:
    """Until a new process has its final identity, the kernel lets nobody look at it."""
    last = time.monotonic() + _PATIENCE
    while True:
        try:
            return act()
        except PermissionError:
            if time.monotonic() > last:
                raise
        time.sleep(0.01)


def _send_inside(init: int) -> None:
    """SIGTERM to the command: the child of *init* that is process 2 of the cell."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            lines = (folder / "status").read_bytes().splitlines()
            fields = dict(line.split(b":", 1) for line in lines if b":" in line)
            if int(fields[b"PPid"]) == init and fields[b"NSpid"].split()[-1] == b"2":
                os.kill(int(folder.name), signal.SIGTERM)


def _reap(init: int) -> None:
    """Kill what is left of the cell, and wait until it is gone: *init* came to us when bwrap ended."""
    _send(init, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


# -- by hand -------------------------------------------------------------------------------------------------------


def _namespaces(spec: dict[str, Any], control: socket.socket, wake: int) -> int:
    """Make the cell with the kernel's own means."""
    _own_user(spec["uid"], spec["gid"])
    private = 0 if spec["network"] else kernel.NEWNET
    kernel.unshare(kernel.NEWPID | kernel.NEWIPC | kernel.NEWUTS | private)
    with contextlib.suppress(OSError):  # not every kernel has them
        kernel.unshare(kernel.NEWCGROUP)
    alive, alive_end = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if not child:
        os.close(alive_end)
        _init(spec, control, alive)
    _let_go()
    return _watch(control, wake, child, lambda: _send(child, signal.SIGTERM), lambda: _send(child, signal.SIGKILL))


def _own_user(uid: int, gid: int) -> None:
    """A user namespace in which we are *uid*. user_namespaces(7): one line that maps the writer's own number, and
    for groups "deny" in setgroups, is all that may be written without privileges outside."""
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    with contextlib.suppress(PermissionError):
        os.setgroups([])
    kernel.unshare(kernel.NEWUSER)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {outer_uid} 1"),
        ("gid_map", f"{gid} {outer_gid} 1"),
    ):
        Path(f"/proc/self/{name}").write_text(text)
    with contextlib.suppress(OSError):
        Path("/proc/sys/user/max_user_namespaces").write_text("0")  # for this one, and those below it


def _init(spec: dict[str, Any], control: socket.socket, alive: int) -> NoReturn:
    """Process 1 of the cell: furnish it, run the command, reap orphans, exit as the command does."""
    code = _FAILED
    try:
        kernel.die_with_parent()
        kernel.forget_arguments()
        # Not earlier: pivot_root(2) changes the root of every process in the mount namespace, the monitor's too.
        kernel.unshare(kernel.NEWNS)
        if not _closed(alive):
            furnish(spec["operations"], spec["network"])
            code = _run(spec, control)
    except OSError as error:
        _say(control, error=_reason(error), errno=error.errno)
    finally:
        os._exit(code)


def _closed(pipe: int) -> bool:
    """Did whoever holds the other end of *pipe* end?"""
    return bool(select.select([pipe], [], [], 0)[0])


def _run(spec: dict[str, Any], control: socket.socket) -> int:
    kernel.drop_privileges()
    kernel.hide()
    failure, failure_end = os.pipe2(os.O_CLOEXEC)
    command = os.fork()
    if not command:
        _become(spec, failure_end)
    os.close(failure_end)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: _send(command, signal.SIGTERM))
    refused = os.read(failure, 16)
    if refused:
        _say(control, error=f"{spec['command'][0]} cannot be run: {os.strerror(int(refused))}")
        return _FAILED
    _say(control, ready=True)
    control.close()
    _let_go()
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == command:
            return _code(status)


def _become(spec: dict[str, Any], failure: int) -> NoReturn:
    """Turn into the command; if that fails, write why to *failure*."""
    try:
        os.setsid()
        _limit()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(spec["cwd"])
        os.execve(spec["command"][0], spec["command"], spec["env"])
    except OSError as error:
        os.write(failure, str(error.errno).encode())
    finally:
        os._exit(_FAILED)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
