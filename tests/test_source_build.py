"""Wheels built in the sealed room: what comes out, what is refused, and what a hostile source gets."""

from __future__ import annotations

import contextlib
import json
import socket
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pesto_repro.digest import Digest
from pesto_repro.errors import BuildError, MismatchError, ResolveError
from pesto_repro.lock.model import Pin
from pesto_repro.oci import Layer
from pesto_repro.plan.make import DEFAULT_PATH
from pesto_repro.registry.content import LostLayers
from pesto_repro.registry.ports import Content
from pesto_repro.sandbox.rootfs import Roots
from pesto_repro.source import again, wheel, workbench
from pesto_repro.source.again import build_twice, rebuild
from pesto_repro.source.archive import read_directory
from pesto_repro.source.repack import contents
from pesto_repro.store import Store
from tests.source_room import BACKEND, JSONIFY, PYPROJECT, SETUPTOOLS, WGET, Room, make_room

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def room(locked_once: Path, warm_store: Path) -> Iterator[Room]:
    with make_room(locked_once, Store(warm_store)) as made:
        yield made


def text_of(room: Room, digest: Digest, member: str) -> str:
    with room.store.open(digest) as stream, zipfile.ZipFile(stream) as archive:
        return archive.read(member).decode()


# -- what comes out ----------------------------------------------------------------------------------------


def test_sources_of_the_index_build_equal_everywhere(room: Room) -> None:
    """wget and jsonify, which the runtime needs and which have no wheels, by setuptools' old way."""
    wget, jsonify = room.sdist(WGET), room.sdist(JSONIFY)
    assert room.bench.static_requires(wget) == room.bench.static_requires(jsonify) == ("setuptools>=40.8.0",)
    assert room.bench.dynamic_requires(wget, (SETUPTOOLS,)) == ()
    found = build_twice(room.bench, wget, (SETUPTOOLS,)), room.bench.build(jsonify, (SETUPTOOLS,))
    assert {each.filename: each.digest.hex for each in found} == {
        "wget-3.2-py3-none-any.whl": "39b17f7296c7b762dccaedc728672696eed53bf42fff255c47bb5fbd43275ac1",
        "jsonify-0.5-py3-none-any.whl": "56a8cf525af47ea1ab85e6cbd0db682686f488931be13d60bd887501f1ebbf37",
    }


def test_a_backend_says_what_else_it_needs(room: Room) -> None:
    """The hook is called in the room; a backend without it needs nothing."""
    says = "def get_requires_for_build_wheel(settings=None):\n    return ['x>=1', 'y ; extra==\"z\"']\n"
    assert room.bench.dynamic_requires(room.own(says), ()) == ("x>=1", 'y; extra == "z"')
    assert room.bench.dynamic_requires(room.own(), ()) == ()
    with pytest.raises(BuildError, match=r"its backend needs 'a b', which is no requirement"):
        room.bench.dynamic_requires(room.own(says.replace("x>=1", "a b")), ())


SEEN = """
import sys, time, json, getpass
from pathlib import Path

def build_wheel(folder, settings=None, metadata=None):
    own = Path("own.py").stat()
    seen = {
        "env": {key: value for key, value in os.environ.items() if key not in ("LC_CTYPE", "_")},
        "cwd": os.getcwd(), "ids": [os.getuid(), os.getgid()], "umask": oct(os.umask(0o022)),
        "time": [own.st_mtime, oct(own.st_mode)], "zone": time.tzname, "out": folder,
        "host": os.uname().nodename, "hash": hash("a"), "input": sys.stdin.read(),
    }
    return make(folder, {"a.json": json.dumps(seen, sort_keys=True, indent=1)})
"""


def test_a_build_sees_the_same_everywhere(room: Room) -> None:
    """Paths, user, environment, file times: nothing of this machine."""
    built = room.bench.build(room.own(SEEN), ())
    assert json.loads(text_of(room, built.digest, "a.json")) == {
        "env": {**workbench.ENVIRONMENT, "PATH": f"/opt/venv/bin:{DEFAULT_PATH}", "PWD": "/"},
        "cwd": "/tmp/src/a-1.0",
        "ids": [65532, 65532],
        "umask": "0o22",
        "time": [315532800.0, "0o100644"],
        "zone": ["UTC", "UTC"],
        "out": "/tmp/out",
        "host": "localhost",
        "hash": 4644417185603328019,  # of "a" with PYTHONHASHSEED=0
        "input": "",
    }


def test_a_build_for_another_cpu_names_the_choices(room: Room) -> None:
    """Nothing is run for what this machine is not."""
    bench = replace(room.bench, host="linux/riscv64")
    with pytest.raises(ResolveError) as caught:
        bench.build(room.own(), ())
    assert caught.value.message == (
        "a-1.0.tar.gz cannot be built for linux/amd64 on this machine, which is linux/riscv64"
    )
    assert caught.value.hint == (
        "build its wheel on a linux/amd64 machine and name its folder in [python] find-links, or the file as a"
        ' "type": "pip" resource; or take linux/amd64 out of [image] platforms; or take a version that has a wheel'
    )


def test_a_directory_is_built_without_being_written_to(room: Room, tmp_path: Path) -> None:
    """A package beside the project, in a subdirectory that needs what lies above it."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/own.py").write_text(BACKEND)
    (tmp_path / "lib/pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "above.txt").write_text("above")
    reads = "def build_wheel(f, s=None, m=None):\n    return make(f, {'a.txt': open('../above.txt').read()})\n"
    (tmp_path / "lib/own.py").write_text(BACKEND + reads)
    before = sorted(tmp_path.rglob("*"))
    source = read_directory(room.store, "lib", tmp_path, subdirectory="lib", package="a")
    built = room.bench.build(source, ())
    assert text_of(room, built.digest, "a.txt") == "above"
    assert before == sorted(tmp_path.rglob("*"))


def test_a_version_from_history_gets_its_own_hint(room: Room, tmp_path: Path) -> None:
    """There is no .git in the room."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT.replace("[]", '["setuptools_scm>8"]'))
    (tmp_path / "own.py").write_text("raise LookupError('unable to detect version')")
    with pytest.raises(BuildError) as caught:
        room.bench.build(read_directory(room.store, "lib", tmp_path), ())
    assert caught.value.message.splitlines()[-1] == "  LookupError: unable to detect version"
    assert caught.value.hint == (
        "a version that is computed from git's history cannot be had: write it down, or take a release of an index"
    )


# -- what is refused ---------------------------------------------------------------------------------------

BAD = {
    "it ended with 1; the last it said:": "raise OSError('no compiler')",
    "it ended with 3": "os._exit(3)",
    "it ended with 137": "os.kill(os.getpid(), 9)",
    "its build ended without handing over": "os._exit(0)",
    "which is no regular file": (
        "os.symlink('/etc/passwd', os.path.join(folder, 'a-1.0-py3-none-any.whl')); return 'a-1.0-py3-none-any.whl'"
    ),
    "but what it left is ['a-1.0-1-py3-none-any.whl', 'a-1.0-py3-none-any.whl']": (
        "make(folder, {}, 'a-1.0-1-py3-none-any.whl'); return make(folder, {})"
    ),
    "says that it made '../own.py', but what it left is []": "return '../own.py'",
    "says that it made None, but what it left is []": "pass",
    "is not a sound wheel: File is not a zip file": (
        "open(os.path.join(folder, 'a-1.0-py3-none-any.whl'), 'w').write('x'); return 'a-1.0-py3-none-any.whl'"
    ),
    "a wheel of b came out where one of a was asked for": "return make(folder, {}, 'b-1.0-py3-none-any.whl')",
    "a 2.0 came out where 1.0 was asked for": "return make(folder, {}, 'a-2.0-py3-none-any.whl')",
    "'a.whl' is no name of a wheel": "return make(folder, {}, 'a.whl')",
    "has tags that the image's Python does not accept": "return make(folder, {}, 'a-1.0-cp27-none-any.whl')",
    "has the metadata of b 1.0": "return make(folder, {}, meta='Name: b\\nVersion: 1.0\\n')",
    "has the metadata of a None": "return make(folder, {}, meta='Name: a\\n')",
    "'../x' leaves its directory": "return make(folder, {'../x': ''})",
    "handed over more than 100000 bytes": "return make(folder, {'a.py': 'x' * 100000})",
    "more than 0 GiB when it is unpacked": "return make(folder, {'a.py': 'x' * 50000})",
}


@pytest.mark.parametrize(("expected", "code"), BAD.items(), ids=map(str, range(len(BAD))))
def test_what_is_no_wheel_of_the_source_is_refused(
    room: Room, expected: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a build hands over, or fails with, becomes an error that names the source."""
    monkeypatch.setattr(workbench, "MAX_WHEEL", 100_000)
    monkeypatch.setattr(wheel, "MAX_UNPACKED", 40_000)
    with pytest.raises(BuildError) as caught:
        room.bench.build(room.own(f"def build_wheel(folder, settings=None, metadata=None):\n    {code}\n"), ())
    assert caught.value.message.startswith("a-1.0.tar.gz")
    assert expected in caught.value.message


def test_a_build_that_does_not_end_is_ended(room: Room) -> None:
    """After the time that a bench gives it."""
    bench = replace(room.bench, time=0.5)
    hangs = "import time\ndef build_wheel(folder, settings=None, metadata=None):\n    time.sleep(3600)\n"
    with pytest.raises(BuildError, match=r"^a-1\.0\.tar\.gz cannot be built: it had not ended after 0.5 seconds$"):
        bench.build(room.own(hangs), ())


def test_what_a_build_says_cannot_touch_the_terminal(room: Room) -> None:
    """The last 40 lines are in the error, as text; all of them are for whoever asks for details."""
    says = """
def build_wheel(folder, settings=None, metadata=None):
    for number in range(60):
        print("line", number)
    print("\\x1b[2Jred\\a", flush=True)
    raise SystemExit(2)
"""
    room.heard.lines.clear()
    with pytest.raises(BuildError) as caught:
        room.bench.build(room.own(says), ())
    lines = caught.value.message.splitlines()
    assert lines[0] == "a-1.0.tar.gz cannot be built: it ended with 2; the last it said:"
    assert lines[1:] == [f"  line {number}" for number in range(21, 60)] + [
        "  \N{REPLACEMENT CHARACTER}[2Jred\N{REPLACEMENT CHARACTER}"
    ]
    assert [f"line {number}" for number in range(60)] == room.heard.lines[:60]


# -- what a hostile source gets ----------------------------------------------------------------------------

HOSTILE = """
import socket, subprocess, sys
from pathlib import Path

def attempt(what, act):
    try:
        print(what, "succeeded:", act(), flush=True)
    except BaseException as error:
        print(what, "was refused:", type(error).__name__, flush=True)

def daemon():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)", "MARKER"], start_new_session=True)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(3600)", "MARKER"])
        os._exit(0)

def fake():
    data = Path("fake.whl").read_bytes()
    for number in range(1, 20):
        try:
            os.write(number, b'{"wheel": "a-1.0-py3-none-any.whl"}\\n' + data)
        except OSError:
            pass

def build_wheel(folder, settings=None, metadata=None):
    attempt("home", lambda: Path("HOMEFILE").read_text())
    attempt("homes", lambda: [str(each) for each in Path("/home").iterdir() if each.name != "nonroot"][0])
    attempt("outside", lambda: Path("OUTSIDE").write_text("x"))
    attempt("root", lambda: Path("/usr/evil").write_text("x"))
    attempt("tools", lambda: Path("/opt/venv/lib/evil.pth").write_text("x"))
    attempt("chmod", lambda: os.chmod("/opt/venv/bin", 0o777))
    attempt("host", lambda: socket.create_connection(("127.0.0.1", PORT), 5))
    attempt("world", lambda: socket.create_connection(("192.0.2.1", 80), 5))
    attempt("mount", lambda: subprocess.run(["mount", "-t", "tmpfs", "x", "/mnt"], check=True, capture_output=True))
    attempt("parent", lambda: os.kill(os.getppid(), 9) if os.getppid() > 1 else [][0])
    daemon()
    END
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server of the host."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def hostile(tmp_path: Path, listener: socket.socket, end: str) -> str:
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    given = {
        "HOMEFILE": str(secret),
        "OUTSIDE": str(tmp_path / "outside"),
        "PORT": str(listener.getsockname()[1]),
        "MARKER": f"marker-{tmp_path.name}",
        "END": end,
    }
    text = HOSTILE
    for key, value in given.items():
        text = text.replace(key, value)
    return text


def processes(marker: str) -> list[str]:
    """Those of this machine that have *marker* as an argument."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if marker.encode() in arguments:
            found.append(path.parent.name)
    return found


REFUSED = [
    *("home was refused: FileNotFoundError", "outside was refused: FileNotFoundError", "root was refused: OSError"),
    *("tools was refused: OSError", "chmod was refused: OSError", "host was refused: ConnectionRefusedError"),
    *("world was refused: OSError", "mount was refused: "),
]


def test_a_hostile_source_gets_nothing_and_harms_nothing(room: Room, tmp_path: Path, listener: socket.socket) -> None:
    """It reads no home, writes nothing, reaches nobody, leaves no process; the error shows what was refused."""
    source = room.own(hostile(tmp_path, listener, "raise SystemExit('enough')"))
    with pytest.raises(BuildError) as caught:
        room.bench.build(source, ())
    said = caught.value.message
    assert [] == [each for each in REFUSED if each not in said]
    assert "succeeded" not in said
    assert "enough" in said
    with pytest.raises(BlockingIOError):
        listener.accept()
    assert not (tmp_path / "outside").exists()
    assert [] == processes(f"marker-{tmp_path.name}")
    assert room.bench.build(room.own(), ()) == room.bench.build(room.own(), ())


def test_a_fake_wheel_on_every_file_is_no_more_than_a_wheel(
    room: Room, tmp_path: Path, listener: socket.socket
) -> None:
    """What is printed is no answer; what is written into the answer itself is judged as any wheel is."""
    other = room.bench.build(room.own(), ())
    with room.store.open(other.digest) as stream:
        fake = {"fake.whl": stream.read()}
    printed = hostile(tmp_path, listener, "print('{\"wheel\": \"fake.whl\"}'); return make(folder, {'real.py': ''})")
    built = room.bench.build(room.own(printed, fake), ())
    assert "real.py" in contents(built.digest, room.store)
    everywhere = hostile(tmp_path, listener, "fake(); os._exit(0)")
    assert room.bench.build(room.own(everywhere, fake), ()) == other
    bad = hostile(tmp_path, listener, "fake(); os._exit(0)")
    with pytest.raises(BuildError, match="is not a sound wheel"):
        room.bench.build(room.own(bad, {"fake.whl": b"PK no zip"}), ())
    assert [] == processes(f"marker-{tmp_path.name}")


# -- again -------------------------------------------------------------------------------------------------

CHANCE = """
def build_wheel(folder, settings=None, metadata=None):
    chance = {"chance.py": os.urandom(8).hex(), "same.py": "", os.urandom(4).hex() + ".txt": ""}
    return make(folder, chance)
"""


def test_what_does_not_come_out_equal_is_refused(room: Room) -> None:
    """The files that differ are named; with consent it is taken, and said to be so."""
    source = room.own(CHANCE)
    with pytest.raises(ResolveError) as caught:
        build_twice(room.bench, source, ())
    lines = caught.value.message.splitlines()
    assert lines[0] == "a 1.0 does not come out equal when it is built twice:"
    assert sorted(line.strip().partition(".txt ")[2] or line.strip() for line in lines[1:]) == [
        "chance.py differs",
        "is missing the second time",
        "is there the second time only",
    ]
    assert caught.value.hint is not None
    assert '[python] allow-unreproducible = ["a"]' in caught.value.hint
    with pytest.raises(ResolveError):
        build_twice(room.bench, source, (), allow=["b"])
    assert not build_twice(room.bench, source, (), allow=["a"]).reproducible
    assert build_twice(room.bench, room.own(), ()).reproducible


def test_a_rebuild_gives_the_locked_wheel_or_names_what_differs(room: Room) -> None:
    """By the files that the lock knows, by a copy in the store, or not at all."""
    source = room.own("def build_wheel(f, s=None, m=None):\n    return make(f, {'a.py': '2', 'b.py': ''})\n")
    before, now = room.bench.build(room.own(), ()), room.bench.build(source, ())
    pin = Pin(name=before.filename, sha256=before.digest.hex, size=before.size)
    assert rebuild(room.bench, room.own(), (), pin) == before
    head = (
        f"a-1.0-py3-none-any.whl was built from a-1.0.tar.gz, but is not what was locked: expected {before.digest}, "
        f"a-1.0-py3-none-any.whl has {now.digest}"
    )
    named = [head, "  a.py differs", "  b.py is there the second time only"]
    with pytest.raises(MismatchError) as by_store:
        rebuild(room.bench, source, (), pin)
    assert by_store.value.message.splitlines() == named
    room.store.discard(before.digest)
    with pytest.raises(MismatchError) as by_lock:
        rebuild(room.bench, source, (), pin, before.files)
    assert by_lock.value.message.splitlines() == named
    with pytest.raises(MismatchError) as unknown:
        rebuild(room.bench, source, (), pin)
    assert unknown.value.message.splitlines() == [head, "  in which files is not known"]


def test_few_differences_are_shown_of_many() -> None:
    """An error is read by people."""
    assert again._some([str(number) for number in range(22)])[-2:] == ["19", "and 2 more"]


class Losing(Roots):
    """Finds a layer's blob gone, the first time that it is asked."""

    lost: Digest | None = None

    def root(self, layers: Sequence[Layer], content: Content) -> Path:
        if self.lost is None:
            self.lost = layers[-1].descriptor.digest
            self._store.discard(self.lost)
            raise LostLayers(frozenset([self.lost]), "gone")
        return super().root(layers, content)


def test_lost_layers_of_the_room_are_made_again(room: Room) -> None:
    """A room is unpacked from layers whose blobs somebody may remove at any time."""
    with contextlib.closing(Losing(room.store, room.heard)) as roots:
        assert replace(room.bench, roots=roots).build(room.own(), ()) == room.bench.build(room.own(), ())
        assert roots.lost is not None
        assert room.store.has(roots.lost)
