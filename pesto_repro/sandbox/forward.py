"""A port of the host that leads into a cell: each connection to it becomes one inside."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from types import TracebackType

from pesto_repro.errors import PestoError
from pesto_repro.sandbox.cell import Running

_PIECE = 1 << 16
_BACKLOG = 128
_PAUSE = 0.1


class Forwarder:
    """Listens on *host*:*port* (0: a free one, told by ``port``) and forwards to *target* in the cell, as a context.

    A connection that the cell does not take is closed at once. At the end all are closed.
    """

    def __init__(self, running: Running, host: str, port: int, target: int) -> None:
        self._running, self._target = running, target
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._ended = False
        self._listener = _listen(host, port)
        self.host: str = host
        self.port: int = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, name=f"forward {self.port}", daemon=True)

    def __enter__(self) -> Forwarder:
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take no more connections, and close those that are open."""
        with self._lock:
            self._ended = True
            left = list(self._open)
        for each in (self._listener, *left):
            _shut(each, socket.SHUT_RDWR)  # wakes the thread that waits for it
        if self._accepting.is_alive():
            self._accepting.join()
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError as error:
                if self._ended or error.errno not in (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED, errno.ENOMEM):
                    return
                time.sleep(_PAUSE)  # until some connections have ended
                continue
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads = [*(each for each in self._threads if each.is_alive()), thread]
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), self._running.connect(self._target) as inner:
            if not self._begin(client, inner):
                return
            try:
                back = threading.Thread(target=_pump, args=(inner, client), daemon=True)
                back.start()
                _pump(client, inner)
                back.join()
            finally:
                with self._lock:
                    self._open -= {client, inner}

    def _begin(self, *both: socket.socket) -> bool:
        with self._lock:
            self._open.update(both)
            return not self._ended


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises PestoError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        hint = "choose another port, or 0 for a free one" if error.errno == errno.EADDRINUSE else None
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise PestoError(f"{host}:{port} cannot be listened on: {reason}", hint) from None


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Copy until *source* ends its sending; then *target* is told, and may still answer."""
    try:
        while piece := source.recv(_PIECE):
            target.sendall(piece)
    except OSError:
        _shut(source, socket.SHUT_RDWR)  # broken: the other direction must end too
    _shut(target, socket.SHUT_WR)


def _shut(each: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(how)
