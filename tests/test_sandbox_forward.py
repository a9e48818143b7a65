"""A port of the host leads into a cell, and connections behave as if there were nothing between."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pesto_repro.errors import PestoError
from pesto_repro.sandbox.cell import Running, start
from pesto_repro.sandbox.engines import Engine
from pesto_repro.sandbox.forward import Forwarder
from tests.sandbox_cells import PYTHON, engine, root, usr_cell

__all__ = ["engine", "root"]  # fixtures

PORT = 8080
# Answers only when all has been said: with the number of bytes, and the bytes turned round.
ECHO = f"""
import socket, threading
def serve(client):
    data = b"".join(iter(lambda: client.recv(65536), b""))
    client.sendall(b"%d " % len(data) + data[::-1])
    client.close()
with socket.create_server(("127.0.0.1", {PORT}), backlog=64) as listener:
    print("up", flush=True)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],)).start()
"""


@contextlib.contextmanager
def serving(root: Path, engine: Engine, *, network: bool = False) -> Iterator[Running]:
    """The server, in a cell."""
    command = [PYTHON, "-c", ECHO]
    with start(usr_cell(root, network=network), command, stdout=subprocess.PIPE, engine=engine) as running:
        assert running.stdout is not None
        assert b"up\n" == running.stdout.readline()
        yield running


def ask(connection: socket.socket, data: bytes) -> bytes:
    """Say *data*, say that this was all, and hear the answer."""
    with connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_connection_into_the_cell(root: Path, engine: Engine) -> None:
    """connect reaches the cell's own loopback, where the host sees nothing; a port without a server refuses."""
    with serving(root, engine) as running:
        assert b"3 cba" == ask(running.connect(PORT), b"abc")
        with pytest.raises(ConnectionRefusedError):
            running.connect(PORT + 1)
        running.stop()
        with pytest.raises(ConnectionRefusedError):
            running.connect(PORT)


def test_a_connection_to_a_command_that_ended(root: Path, engine: Engine) -> None:
    """It is refused."""
    with start(usr_cell(root), ["true"], engine=engine) as running:
        assert 0 == running.wait()
        with pytest.raises(ConnectionRefusedError):
            running.connect(PORT)


def test_many_connections_at_once(root: Path, engine: Engine) -> None:
    """Each gets its own answer, in full, though it is given only after its sender's end."""
    with serving(root, engine) as running, Forwarder(running, "127.0.0.1", 0, PORT) as forwarder:

        def one(number: int) -> bool:
            data = bytes([number]) * (number * 50_000)
            answer = ask(socket.create_connection(("127.0.0.1", forwarder.port), timeout=60), data)
            return answer == b"%d " % len(data) + data

        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(one, range(40)))


def test_a_cell_that_takes_no_connection(root: Path, engine: Engine) -> None:
    """The client sees the end, and the forwarder goes on."""
    with serving(root, engine) as running, Forwarder(running, "127.0.0.1", 0, PORT + 1) as forwarder:
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", forwarder.port), timeout=60) as client:
                assert b"" == client.recv(1)


def test_the_end_closes_everything(root: Path, engine: Engine) -> None:
    """An open connection sees the end; no descriptor is left, and the port is free again."""
    with serving(root, engine) as running:
        before = os.listdir("/proc/self/fd")  # noqa: PTH208
        with Forwarder(running, "127.0.0.1", 0, PORT) as forwarder:
            client = socket.create_connection(("127.0.0.1", forwarder.port), timeout=60)
            client.sendall(b"half a question")
        with client, contextlib.suppress(ConnectionResetError):
            assert b"" == client.recv(1)
        assert before == os.listdir("/proc/self/fd")  # noqa: PTH208
        with socket.create_server(("127.0.0.1", forwarder.port)):
            pass


def test_a_port_in_use(root: Path, engine: Engine) -> None:
    """It is said, with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken, start(usr_cell(root), ["true"], engine=engine) as running:
        port = taken.getsockname()[1]
        with pytest.raises(PestoError) as caught:
            Forwarder(running, "127.0.0.1", port, PORT)
    assert f"127.0.0.1:{port} cannot be listened on: Address already in use" == caught.value.message
    assert "choose another port, or 0 for a free one" == caught.value.hint
