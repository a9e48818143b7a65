"""``run`` of an image from wherever it lies, with a command: which platform is taken, and what it may reach.

The images have folders and links only: the machine's /usr, shown to them, has the programs.
"""

from __future__ import annotations

import platform
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pesto_repro.build.entry import data, directory, symlink
from pesto_repro.oci import Image, Platform, assemble_index
from pesto_repro.sinks import write_archive
from pesto_repro.store import Store
from tests.e2e import run
from tests.images import make_image, make_layer
from tests.registries import LiveRegistry

pytestmark = pytest.mark.usefixtures("sandboxes")

HERE = str(Platform.of_machine(platform.machine()))
ELSEWHERE = "linux/arm64" if HERE == "linux/amd64" else "linux/amd64"
CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 10)"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def image(store: Store, *platforms: str) -> Image:
    """An image whose file /name is the name of its platform."""
    links = [symlink(name, f"usr/{name}") for name in ("bin", "lib", "lib64")]
    folders = [directory(name) for name in ("usr", "etc")]

    def one(name: str) -> Image:
        return make_image((make_layer(store, name, *links, *folders, data("name", name.encode())),), name)

    return assemble_index([each for name in platforms for each in one(name).platforms])


def ran(target: object, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """``run TARGET *words``, with a store of its own, which has none of the image."""
    return run("run", str(target), "--mount", "/usr:/usr", *words, check=check)


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PESTO_REPRO_STORE", str(tmp_path / "empty"))


@pytest.mark.parametrize("platforms", [(HERE,), (HERE, ELSEWHERE), (ELSEWHERE, HERE)])
def test_of_several_platforms_this_machine_s_is_run(store: Store, tmp_path: Path, platforms: tuple[str, ...]) -> None:
    """Wherever it stands."""
    archive = tmp_path / "image.tar"
    write_archive(image(store, *platforms), "x:1", archive, store)
    done = ran(archive, "--", "/usr/bin/cat", "/name")
    assert (HERE, "") == (done.stdout, done.stderr)


def test_an_image_for_other_machines_is_refused(store: Store, tmp_path: Path) -> None:
    """Both platforms are named, and what to do."""
    archive = tmp_path / "image.tar"
    write_archive(image(store, ELSEWHERE), "x:1", archive, store)
    done = ran(archive, "--", "/usr/bin/cat", "/name", check=False)
    expected = f"""\
error: x:1 is for {ELSEWHERE}; this machine is {HERE}, and nothing is emulated
hint: build it for {HERE} too ([image] platforms in image.toml), or run it on a machine that it is for
"""
    assert (1, "", expected) == (done.returncode, done.stdout, done.stderr)


@pytest.mark.judge
def test_a_registry_s_image_is_run(store: Store, tmp_path: Path, plain_registry: LiveRegistry) -> None:
    """Only this machine's layers are fetched, once."""
    archive, reference = tmp_path / "image.tar", f"{plain_registry.host}/team/x:1"
    both = image(store, ELSEWHERE, HERE)
    write_archive(both, "x:1", archive, store)
    run("push", archive, reference)
    plain_registry.forget()
    for _ in range(2):
        assert HERE == ran(reference, "--", "/usr/bin/cat", "/name").stdout
    asked = [each.path.rpartition("/")[2] for each in plain_registry.requests() if each.method == "GET"]
    layers = {str(each.platform): str(each.layers[0].descriptor.digest) for each in both.platforms}
    assert (1, 0) == (asked.count(layers[HERE]), asked.count(layers[ELSEWHERE]))


@contextmanager
def listening() -> Iterator[int]:
    """The port of a server of this machine that takes every connection."""

    def serve() -> None:
        while True:
            try:
                server.accept()[0].close()
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_the_network_is_there_if_asked_for(store: Store, tmp_path: Path) -> None:
    """The machine's own, loopback and all; and otherwise none of it."""
    archive = tmp_path / "image.tar"
    write_archive(image(store, HERE), "x:1", archive, store)
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("no python3 in /usr/bin")
    with listening() as port:
        words = ["--", python, "-c", CONNECT, str(port)]
        assert (0, "") == ((done := ran(archive, "--network", *words)).returncode, done.stderr)
        refused = ran(archive, *words, check=False)
    assert (1, "ConnectionRefusedError: [Errno 111] Connection refused") == (
        refused.returncode,
        refused.stderr.splitlines()[-1],
    )
