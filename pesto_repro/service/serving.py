"""A service started in a cell, and stopped whatever happens."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pesto_repro.sandbox.cell import Cell, Running, start
from pesto_repro.service.client import PORT, TESTED_AT, Client
from pesto_repro.service.tls import with_tls


@dataclass(frozen=True, slots=True)
class Service:
    """A service that was started: its process, and who asks it."""

    running: Running
    client: Client


@contextmanager
def serving(
    cell: Cell, command: Sequence[str], log: IO[bytes] | int, *, tls: bool = False, timeout: float | None = None
) -> Iterator[Service]:
    """The service that *command* starts in *cell*; what it says goes to *log*. It may not be healthy yet.

    Nothing of it is left when the context ends.
    """
    with ExitStack() as stack:
        if tls:
            cell = with_tls(cell, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pesto-repro-"))))
        running = start(cell, command, stdin=None, stdout=log, stderr=log)
        stack.callback(running.stop)
        yield Service(running, _client(running, tls, timeout))


def _client(running: Running, tls: bool, timeout: float | None) -> Client:
    def ended() -> str | None:
        code = running.wait(0)
        return None if code is None else f"the service ended with exit code {code}"

    def dial(patience: float | None) -> socket.socket:
        made = running.connect(PORT)
        made.settimeout(patience)
        return made

    return Client(dial, TESTED_AT, tls=tls, timeout=timeout, ended=ended)
