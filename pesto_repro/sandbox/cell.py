"""Commands in a cell: a root file system, read-only, with nothing of the host but what is mounted.

What a command finds: the root, read-only; /tmp (and /var/tmp and /run, where the root has them) private, empty, in
memory; /dev with the harmless devices; its own /proc; its mounts; no network but its own loopback, unless asked for.
Its environment is the cell's, and PWD. It has no capability and cannot get one. Whatever it starts ends with it;
it ends when we do, even when we are killed.

>>> from pathlib import Path
>>> cell = Cell(Path("root"), {"PATH": "/usr/bin"})
>>> cell.user
'65532:65532'
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import posixpath
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from pesto_repro.errors import PestoError
from pesto_repro.sandbox.engines import Engine, bwrap, bwrap_arguments, choose, refusal
from pesto_repro.sandbox.layout import layout, outside, private
from pesto_repro.sandbox.paths import resolve
from pesto_repro.sandbox.users import find_user

MAX_OUTPUT = 16 << 20
"""Bytes of each output that :func:`run` keeps: the last ones."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TYPES: Mapping[str, type[Any]] = {"User": str, "WorkingDir": str, "Env": list, "Entrypoint": list, "Cmd": list}
_ENTER = (
    "import sys; sys.path.append(sys.argv[1]); from pesto_repro.sandbox.enter import main;main(*map(int, sys.argv[2:]))"
)
_MESSAGE = 1 << 16
_ANSWER = 60.0
"""Seconds to wait for the monitor, which answers at once."""
_LAST_RESORT = 10.0
FAILED = 125
"""Exit code of the monitor when there was no command to wait for."""

Stream = int | IO[Any] | None


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or a file of the host, seen in the cell at *target*.

    The target is a folder or file of the root, a path below a private folder, or a top-level name that the root lacks.
    """

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """What a command is run in. *user* is as in an image's config: names are those of the root."""

    root: Path
    env: Mapping[str, str]
    user: str = "65532:65532"
    cwd: str = "/"
    mounts: tuple[Mount, ...] = ()
    network: bool = False


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended (128 and the signal, if by one), and the end of what it wrote."""

    returncode: int
    stdout: bytes
    stderr: bytes


class Running:
    """A command in its cell. Use it as a context: at its end everything in the cell is gone."""

    def __init__(self, cell: Cell, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._cell, self._process, self._control = cell, process, control
        self._lock = threading.Lock()
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(0)
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit code, 128 and the signal if it was one; None if it did not end within *timeout* seconds.

        Raises PestoError if it turns out that it could not be run at all.
        """
        code = self._wait(timeout)
        if code == FAILED:
            self._require_run()
        return code

    def stop(self, grace: float = 5.0) -> int:
        """SIGTERM to the command and, *grace* seconds later, SIGKILL to all. Nothing of it is left afterwards."""
        if grace > 0:
            with self._lock, contextlib.suppress(OSError):
                self._control.send(b"t")
            self._wait(grace)
        with self._lock:
            self._control.close()  # the monitor kills the cell
        code = self._wait(_LAST_RESORT)
        if code is None:
            self._process.kill()
            code = self._wait(None)
        assert code is not None
        return code

    def connect(self, port: int, timeout: float = 10.0) -> socket.socket:
        """A TCP connection to 127.0.0.1:*port* as the cell sees it. Raises OSError, as ``socket`` does."""
        made = socket.socket() if self._cell.network else self._inner_socket()
        try:
            made.settimeout(timeout)
            made.connect(("127.0.0.1", port))
            made.settimeout(None)
        except BaseException:
            made.close()
            raise
        return made

    def _wait(self, timeout: float | None) -> int | None:
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        return code if code >= 0 else 128 - code

    def _require_run(self) -> None:
        """Raise what the monitor said in the end, if it said something."""
        with self._lock:
            try:
                said = self._control.recv(_MESSAGE)
            except OSError:
                return
        if said:
            _require_ready(said)

    def _inner_socket(self) -> socket.socket:
        """A socket of the cell's network: it stays that whoever uses it."""
        with self._lock:
            try:
                self._control.send(b"s")
                _, numbers, _, _ = socket.recv_fds(self._control, 16, 1)
            except OSError:
                numbers = []
        if not numbers:
            raise ConnectionRefusedError("the command in the cell has ended")
        return socket.socket(fileno=numbers[0])


def start(
    cell: Cell,
    command: Sequence[str],
    *,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    engine: Engine | None = None,
) -> Running:
    """Run *command* in *cell*; *stdin* is /dev/null unless given. Raises PestoError if that is not possible."""
    engine = engine or choose()
    try:
        spec = _description(cell, command, engine)
    except OSError as error:  # of its paths: links that go in circles, names that are too long
        raise PestoError(f"{error.filename} of the image cannot be used: {error.strerror}") from None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, tempfile.TemporaryFile() as file:
        file.write(json.dumps(spec).encode())
        file.seek(0)
        package = str(Path(__file__).parents[2])
        numbers = (theirs.fileno(), file.fileno())
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _ENTER, package, *map(str, numbers)],
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=stdout,
            stderr=stderr,
            cwd="/",
            env={},
            pass_fds=numbers,
            start_new_session=True,
        )
    ours.settimeout(_ANSWER)
    running = Running(cell, process, ours)
    try:
        _await_ready(ours)
    except BaseException:
        running.__exit__(None, None, None)
        raise
    return running


def run(
    cell: Cell,
    command: Sequence[str],
    *,
    timeout: float | None = None,
    input: bytes = b"",
    engine: Engine | None = None,
) -> Completed:
    """Run *command* in *cell* to its end. Raises PestoError if it has not ended after *timeout* seconds."""
    pipe = subprocess.PIPE
    with tempfile.TemporaryFile() as given:
        given.write(input)
        given.seek(0)
        running = start(cell, command, stdin=given if input else None, stdout=pipe, stderr=pipe, engine=engine)
    with running:
        outputs = [_Tail(stream) for stream in (running.stdout, running.stderr) if stream]
        try:
            code = running.wait(timeout)
        finally:
            running.stop(0)
            said = [each.bytes() for each in outputs]
    if code is None:
        raise PestoError(f"{command[0]} did not end within {timeout:g} seconds")
    return Completed(code, *said)


def image_cell(config: Mapping[str, Any], root: Path, **changes: Any) -> Cell:
    """The cell that an image's config document asks for (config.md, "config"); *changes* are fields of Cell.

    PATH and HOME are set where the image says nothing, as engines do.
    """
    said = _said(config)
    stated = dict(each.partition("=")[::2] for each in said.get("Env") or () if not each.startswith("="))
    user = said.get("User") or "0:0"
    env = {"PATH": DEFAULT_PATH, "HOME": find_user(root, user).home} | stated
    return replace(Cell(root, env, user, said.get("WorkingDir") or "/"), **changes)


def image_command(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Entrypoint and Cmd of an image's config document."""
    said = _said(config)
    return (*(said.get("Entrypoint") or ()), *(said.get("Cmd") or ()))


def _said(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """How *config* says that its image is run. Raises PestoError for what config.md does not allow."""
    said = config.get("config") or {}
    if not isinstance(said, Mapping):
        raise PestoError("the image's config is broken: config is no object")
    for name, kind in _TYPES.items():
        value = said.get(name)
        if value is not None and not (isinstance(value, kind) and all(isinstance(each, str) for each in value)):
            what = "text" if kind is str else "list of texts"
            raise PestoError(f"the image's config is broken: {name} is no {what}")
    return said


class _Tail:
    """Reads a stream to its end in a thread, and keeps what came last."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._kept, self._size = stream, collections.deque[bytes](), 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def bytes(self) -> bytes:
        """All that was kept, once the stream is at its end."""
        self._thread.join()
        return b"".join(self._kept)[-MAX_OUTPUT:]

    def _read(self) -> None:
        while piece := os.read(self._stream.fileno(), 1 << 16):
            self._kept.append(piece)
            self._size += len(piece)
            while self._size - len(self._kept[0]) >= MAX_OUTPUT:
                self._size -= len(self._kept.popleft())


def _description(cell: Cell, command: Sequence[str], engine: Engine) -> dict[str, Any]:
    """What enter.py is told."""
    if not cell.root.is_dir():
        raise PestoError(f"there is no root file system at {cell.root}")
    _require_whole(command, cell)
    cell = replace(cell, root=Path(os.path.realpath(cell.root)))
    user = find_user(cell.root, cell.user)
    operations = layout(cell)
    arguments = [_program(cell, command[0]), *command[1:]]
    _require_folder(cell)
    env = {**cell.env, "PWD": cell.cwd}
    spec: dict[str, Any] = {"bwrap": "", "network": cell.network, "command": arguments}
    if engine is Engine.NAMESPACES:
        return spec | {"uid": user.uid, "gid": user.gid, "operations": operations, "cwd": cell.cwd, "env": env}
    found = bwrap()
    if found is None:
        raise PestoError("bwrap is not installed or does not work", "apt install bubblewrap")
    options = bwrap_arguments(operations, (user.uid, user.gid), cell.network, cell.cwd, env)
    return spec | {"bwrap": found[0], "arguments": options}


def _require_whole(command: Sequence[str], cell: Cell) -> None:
    """For the kernel a text ends at a NUL; for bwrap what follows it would be the next option."""
    targets = (mount.target for mount in cell.mounts)
    if any("\0" in each for each in (*command, cell.cwd, *cell.env, *cell.env.values(), *targets)):
        raise PestoError("a command, its folder, its environment and its mounts cannot have a NUL character")


def _program(cell: Cell, name: str) -> str:
    """The path in the cell of the program *name*, found by the cell's PATH. Raises PestoError."""
    if "/" in name:
        paths = [posixpath.join(cell.cwd, name)]
    else:
        paths = [posixpath.join(cell.cwd, each, name) for each in cell.env.get("PATH", DEFAULT_PATH).split(":")]
    for path in paths:
        place = outside(cell, path)
        if place is not None and place.is_file() and os.access(place, os.X_OK):
            return path
    raise PestoError(f"there is no program {name} in the image")


def _require_folder(cell: Cell) -> None:
    place = outside(cell, cell.cwd)
    if place is None and resolve(cell.root, cell.cwd) in (*private(cell.root), "/dev", "/proc"):
        return
    if place is None or not place.is_dir():
        raise PestoError(f"there is no folder {cell.cwd} in the image to run a command in")


def _await_ready(control: socket.socket) -> None:
    try:
        _require_ready(control.recv(_MESSAGE))
    except TimeoutError:
        raise PestoError(f"the sandbox was not there after {_ANSWER:g} seconds") from None


def _require_ready(message: bytes) -> None:
    answer = json.loads(message or b'{"error": "it ended at once"}')
    if "error" in answer:
        raise refusal(answer["error"], answer.get("errno"))
