"""Bad input: every message is asserted whole, nothing is lost or left half written, and no traceback is shown."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.digest import Digest
from tests.e2e import REPOSITORY, run, update_json
from tests.judges import judge
from tests.python_index import simple_wheel
from tests.small_project import Small, add_resource, make_small, tar_gz_of

Change = Callable[[Small], object]


@pytest.fixture(scope="session")
def built_once(runtime_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small project, locked and built; not to be changed."""
    small = make_small(tmp_path_factory.mktemp("errors"), runtime_wheel)
    small.build()
    return small


@pytest.fixture
def small(built_once: Small, tmp_path: Path) -> Small:
    """A copy of the small project, locked and built."""
    shutil.copytree(built_once.root.parent, tmp_path, dirs_exist_ok=True)
    return Small(tmp_path / "small", tmp_path / "store", tmp_path / "wheels")


def write(file: str, content: str | bytes) -> Change:
    """The change that gives *file* other content."""
    data = content.encode() if isinstance(content, str) else content
    return lambda small: (small.root / file).write_bytes(data)


def set_keys(file: str, **values: Any) -> Change:
    """The change that sets keys at the root of a JSON document."""
    return lambda small: update_json(small.root / file, **values)


def replace_in_lock(before: str, after: str) -> Change:
    """The change that edits the lock."""
    return lambda small: small.lockfile.write_text(small.lockfile.read_text().replace(before, after))


def nothing(small: Small) -> None:
    """No change at all."""


def failing(small: Small, *arguments: str | Path, code: int = 1, **how: Any) -> str:
    """The stderr of a command that must fail, with ``{tmp}`` for the temporary folder; all files stay as they were."""
    before = snapshot(small.root.parent)
    environment = {**small.env, **how.pop("env", {})}
    done = run(*arguments, env=environment, cwd=small.root.parent, check=False, **how)
    assert (code, "") == (done.returncode, done.stdout), done.stderr
    assert "Traceback" not in done.stderr
    assert before == snapshot(small.root.parent)
    return done.stderr.replace(str(small.root.parent), "{tmp}")


def snapshot(folder: Path) -> dict[str, Digest]:
    """The digest of every file below *folder*, but for the store, which may learn."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        name: Digest.of(path.read_bytes())
        for path in files
        if not (name := path.relative_to(folder).as_posix()).startswith("store/")
    }


CASES: dict[str, tuple[Change, str, str]] = {
    "malformed JSON": (
        write("pesto/api/config.json", '{"greeting": "x",\n}'),
        "lock small",
        """\
error: the project has a problem:
  pesto/api/config.json:2:1: malformed JSON: expecting property name enclosed in double quotes
""",
    ),
    "an unknown key": (
        set_keys("pesto/build/requirements.json", requirement={}),
        "lock small",
        """\
error: the project has a problem:
  pesto/build/requirements.json:requirement: unknown key; did you mean "requirements"?
""",
    ),
    "a name that is no profile": (
        nothing,
        "build small -p a/b",
        """\
error: the project has a problem:
  -p: "a/b" is not a profile: letters, digits, "_" and "-"
""",
    ),
    "a reference that leads nowhere": (
        set_keys("pesto/api/input_schema.json", x={"$ref": "#/definitions/Nope"}),
        "lock small",
        """\
error: the project has a problem:
  pesto/api/input_schema.json:x.$ref: "#/definitions/Nope" leads nowhere
""",
    ),
    "a configuration that fails its schema": (
        set_keys("pesto/api/config.json", mark=3),
        "lock small",
        """\
error: the project has a problem:
  pesto/api/config.json:mark: 3 is not of type 'string'
""",
    ),
    "a name and a version that are no reference": (
        set_keys("pesto/build/build.json", name="Hello World", version="1.0+x"),
        "build small",
        """\
error: the project has 2 problems:
  pesto/build/build.json:name: "Hello World" is not an image name: lower-case letters and digits, separated by \
single ".", "_", "__" or dashes, in parts separated by "/", 255 characters at most
  pesto/build/build.json:version: "1.0+x" is not an image tag: letters, digits, "_", "." and "-", not starting \
with "." or "-", 128 characters at most
""",
    ),
    "slips in image.toml": (
        write(
            "pesto/build/image.toml",
            '[base]\ndebian = "trixie"\n[image]\nplatfroms = []\n[layers]\nmax = 0\n[imgae]\n'
            '[python]\nrequires = ["numpy>>2"]\n',
        ),
        "lock small",
        """\
error: the project has 4 problems:
  pesto/build/image.toml:image.platfroms: unknown key; did you mean "platforms"?
  pesto/build/image.toml:imgae: unknown key; did you mean "image"?
  pesto/build/image.toml:layers.max: input should be greater than or equal to 1, not 0
  pesto/build/image.toml:python.requires.0: "numpy>>2" is not a requirement (PEP 508): Expected semicolon (after \
name with no version specifier) or end
""",
    ),
    "an image.toml that is no TOML": (
        write("pesto/build/image.toml", "[base\n"),
        "lock small",
        """\
error: the project has a problem:
  pesto/build/image.toml:1:6: malformed TOML: expected ']' at the end of a table declaration
""",
    ),
    "a base from a registry": (
        lambda small: small.settings.unlink(),
        "lock small --offline",
        """\
error: the base image python:3.13-slim-trixie is not all in the store, and the network is not to be used
hint: run once without --offline, or point --store at a store that has it
""",
    ),
    "no project": (
        nothing,
        "build nowhere",
        """\
error: the project has a problem:
  {tmp}/nowhere: does not exist
""",
    ),
    "a folder that is no project": (
        nothing,
        "lock small/data",
        """\
error: the project has 2 problems:
  pesto: is not a folder in {tmp}/small/data: no PESTO project
  pesto/build/build.json: is required and missing
""",
    ),
    "no lock": (
        lambda small: small.lockfile.unlink(),
        "build small",
        """\
error: there is no lock at {tmp}/small/lockfiles/small.lock.toml
hint: run `pesto-repro lock small`
""",
    ),
    "no lock to check": (
        lambda small: small.lockfile.unlink(),
        "lock small --check",
        """\
error: there is no lock at {tmp}/small/lockfiles/small.lock.toml
hint: run `pesto-repro lock small`
""",
    ),
    "a stale lock": (
        set_keys("pesto/api/config.json", mark="?"),
        "lock small --check",
        """\
error: the project is not what was locked:
  config.json changed
hint: run `pesto-repro lock small`
""",
    ),
    "a requirement since the lock": (
        write("requirements.txt", "numpy>=2\n"),
        "build small",
        """\
error: the project is not what was locked:
  numpy>=2 was added to python.requires
hint: run `pesto-repro lock small`
""",
    ),
    "a resource that changed since the lock": (
        write("data/note.txt", "another note\n"),
        "build small",
        """\
error: resources are not what was locked:
  requirements.note: file://data/note.txt was 037279912cb60d7be67228853b057cc642443b4ce29b8a5a5bfbb68234b0b962, is \
82e1330e6025c794d12ad32ed4b2452accedf9588e0ddba8723dbd7a9e239fe6
hint: run `pesto-repro lock small`
""",
    ),
    "an unknown lock version": (
        replace_in_lock("lock-version = 1", "lock-version = 99"),
        "build small",
        """\
error: {tmp}/small/lockfiles/small.lock.toml has lock-version 99; this pesto-repro reads lock-version 1
hint: use the pesto-repro that wrote it, or remove it and run `pesto-repro lock`
""",
    ),
    "a lock that is no TOML": (
        write("lockfiles/small.lock.toml", "hello"),
        "build small",
        """\
error: {tmp}/small/lockfiles/small.lock.toml is not TOML: Expected '=' after a key in a key/value pair (at end of \
document)
hint: restore it from version control, or remove it and run `pesto-repro lock`
""",
    ),
    "a lock in the middle of a merge": (
        write("lockfiles/small.lock.toml", "<<<<<<< ours\n=======\n>>>>>>> theirs\n"),
        "build small",
        """\
error: {tmp}/small/lockfiles/small.lock.toml has the conflict markers of a merge
hint: run `pesto-repro lock`: it keeps what both sides agree on
""",
    ),
    "an upgrade of what is not locked": (
        nothing,
        "lock small -P nope",
        """\
error: -P nope: no such package is in the lock
hint: -P renews the pin of a package that is there; to add one, require it
""",
    ),
    "a resource that is not there": (
        lambda small: add_resource(small, "gone", "file://data/gone.txt", "/x"),
        "lock small",
        """\
error: the project has a problem:
  pesto/build/requirements.json:requirements.gone.from: file://data/gone.txt does not exist
""",
    ),
    "a place that escapes": (
        lambda small: add_resource(small, "up", "file://data/note.txt", "/opt/../../x"),
        "lock small",
        """\
error: the project has a problem:
  pesto/build/requirements.json:requirements.up.to: "/opt/../../x" has a ".." in it
""",
    ),
    "a requirement that does not exist": (
        write("requirements.txt", "no-such-thing>=1\n"),
        "lock small",
        """\
error: no-such-thing cannot be found where packages are looked for:
  Because no-such-thing was not found in the provided package locations and you require no-such-thing>=1, we can \
conclude that your requirements are unsatisfiable.
hint: check the spelling, and the configured indexes
""",
    ),
    "an output that is a folder": (
        lambda small: (small.root.parent / "there").mkdir(),
        "build small -o there",
        """\
error: there cannot be written: Is a directory
hint: choose another place
""",
    ),
    "a layout where something else is": (
        nothing,
        "build small -o oci:small",
        """\
error: small is not empty and is no OCI layout
hint: name another folder after -o oci:
""",
    ),
    "a store that is a file": (
        nothing,
        "build small --store wheels/beta-2.0-py3-none-any.whl",
        """\
error: the store at wheels/beta-2.0-py3-none-any.whl cannot be used: Not a directory
hint: choose another place with --store or PESTO_REPRO_STORE
""",
    ),
    "a folder that has a project": (
        nothing,
        "init small",
        """\
error: small is not empty
hint: name a folder that is empty or does not exist yet
""",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(name: str, small: Small) -> None:
    """What, where, why, and what to do: on stderr, with exit code 1, and nothing else happens."""
    change, command, expected = CASES[name]
    change(small)
    assert expected == failing(small, *command.split(), env={"PESTO_REPRO_STORE": str(small.store)})


USAGE = {
    "lock small --nope": "No such option '--nope'. (Did you mean one of: '--no-progress', '--store'?)",
    "lock small --platform linux/riscv": "Invalid value for '--platform': 'linux/riscv' is not one of "
    "'linux/amd64', 'linux/arm64'.",
    "build small -j 0": "Invalid value for '-j' / '--jobs': 0 is not in the range x>=1.",
    "lock": "Missing argument 'PROJECT'.",
}


@pytest.mark.parametrize("command", USAGE)
def test_wrong_usage(command: str, small: Small) -> None:
    """Exit code 2, and how the command is to be called."""
    verb = command.split()[0]
    usage = f"Usage: pesto-repro {verb} [OPTIONS] PROJECT\nTry 'pesto-repro {verb} --help' for help.\n\n"
    assert f"{usage}Error: {USAGE[command]}\n" == failing(small, *command.split(), code=2)


def test_an_unknown_command(small: Small) -> None:
    """Exit code 2, too."""
    told = failing(small, "frobnicate", code=2)
    assert told.endswith("\n\nError: No such command 'frobnicate'.\n")


def test_a_profile_of_no_file(small: Small) -> None:
    """Is a warning that names those there are: upstream's own Makefile does that."""
    update_json(small.root / "pesto/api/config.p1.json", mark="?")
    done = run("lock", small.root, "-p", "p3", "--store", small.store, "--offline", check=False, env=small.env)
    first = done.stderr.splitlines()[0]
    assert 'warning: no file belongs to the profile "p3": the project has p1, p2, stateful' == first


def test_a_lock_edited_by_hand(small: Small) -> None:
    """Is told by its content-hash, both values are named, and the lock stays as it is."""
    before = _content_hash(small)
    replace_in_lock("beta-2.0", "beta-2.1")(small)
    told = failing(small, "build", "small", "--store", small.store)
    actual = told.partition("its content has ")[2].split()[0]
    assert Digest.parse(actual) != Digest.parse(before)
    assert (
        f"error: {{tmp}}/small/lockfiles/small.lock.toml was edited by hand: its content-hash is {before}, its "
        f"content has {actual}\n"
        "hint: restore it from version control, or remove it and run `pesto-repro lock`\n"
    ) == told


def test_requirements_that_exclude_each_other(small: Small) -> None:
    """The chain of reasons is told."""
    simple_wheel(small.wheels, "left", "1.0", "beta<2")
    simple_wheel(small.wheels, "right", "1.0", "beta>=2")
    (small.root / "requirements.txt").write_text("left\nright\n")
    assert (
        "error: the requirements for Python 3.13 on linux/amd64 cannot be met together:\n"
        "  Because only beta==2.0 is available and all versions of left depend on beta<2, we can conclude that all "
        "versions of left cannot be used.\n"
        "  And because you require left, we can conclude that your requirements are unsatisfiable.\n"
    ) == failing(small, "lock", "small", "--store", small.store)


def test_archive_members_that_are_refused(small: Small) -> None:
    """Escaping, absolute, device, pipe and link: all are listed, and nothing is written."""
    members = [
        ("../evil", tarfile.REGTYPE, ""),
        ("/etc/passwd", tarfile.REGTYPE, ""),
        ("device", tarfile.CHRTYPE, ""),
        ("fine", tarfile.REGTYPE, ""),
        ("hard", tarfile.LNKTYPE, "../../etc/passwd"),
        ("pipe", tarfile.FIFOTYPE, ""),
        ("soft", tarfile.SYMTYPE, "../../x"),
        ("shadow", tarfile.SYMTYPE, "/etc/shadow"),
    ]
    _relock_with_model(small, tar_gz_of([(_member(*each), b"") for each in members]))
    assert """\
error: resources (model): model.tar.gz has members that are refused:
  '../evil': leaves the folder it is unpacked into
  '/etc/passwd': an absolute path
  'device': a device, pipe or socket
  'hard': a hard link to '../../etc/passwd', which is no file before it
  'pipe': a device, pipe or socket
  'shadow': a link to the absolute path '/etc/shadow'
  'soft': a link to '../../x', outside the folder it is unpacked into
""" == failing(small, "build", "small", "--store", small.store, "-o", "new.tar")


def test_an_archive_that_is_none(small: Small) -> None:
    """Is told with the name of the resource."""
    _relock_with_model(small, b"no archive")
    expected = "error: resources (model): model.tar.gz cannot be unpacked: Not a gzipped file (b'no')\n"
    assert expected == failing(small, "build", "small", "--store", small.store, "-o", "new.tar")


def test_a_changed_resource_behind_an_address(small: Small) -> None:
    """Both digests are named: that of the lock and that of what lies there now."""
    with _serving(b"first") as (url, content):
        add_resource(small, "far", f"{url}/far.txt", "/opt/far.txt")
        document = json.loads(small.requirements.read_text())
        document["requirements"]["far"]["sha256"] = Digest.of(b"first").hex
        small.requirements.write_text(json.dumps(document))
        run("lock", small.root, "--store", small.store, env=small.env)
        (small.store / "blobs/sha256" / Digest.of(b"first").hex).unlink()
        content[0] = b"other"
        told = failing(small, "build", "small", "--store", small.store)
    assert (
        f"error: far is not what was pinned: expected {Digest.of(b'first')}, {url}/far.txt has "
        f"{Digest.of(b'other')}\n"
        "hint: if the change is wanted, lock again with -U; if not, find out who changed it\n"
    ) == told


def test_offline_says_what_is_missing(small: Small) -> None:
    """One wheel is gone from the store: it is named."""
    wheel = small.wheels / "alpha-1.0-py3-none-any.whl"
    _forget(small, Digest.of(wheel.read_bytes()))
    assert (
        "error: alpha 1.0 is not in the store at {tmp}/store, and the network is not to be used\n"
        "hint: run once without --offline, or point --store at a store that has it\n"
    ) == failing(small, "build", "small", "--offline", "--store", small.store)


def test_offline_on_an_empty_store(small: Small) -> None:
    """Everything that is missing is named, whichever was looked for first."""
    shutil.rmtree(small.store)
    told = failing(small, "build", "small", "--offline", "--store", small.store).splitlines()
    named = [wheel.name.split("-") for wheel in small.wheels.iterdir()]
    missing = sorted(f"{name.replace('_', '-')} {version}" for name, version, *_ in named)
    assert [
        f"error: {len(missing)} artifacts are not in the store at {{tmp}}/store, and the network is not to be used:",
        *(f"  {each}" for each in missing),
        "hint: run once without --offline, or point --store at a store that has it",
    ] == told


def test_a_store_that_cannot_be_written(small: Small) -> None:
    """A user without the right to write there gets told where to go."""
    store = small.root.parent / "not-mine"
    store.mkdir(mode=0o555)
    told = failing(small, "build", "small", "--store", store, python=_unprivileged(small))
    assert (
        "error: the store at {tmp}/not-mine cannot be used: Permission denied\n"
        "hint: choose another place with --store or PESTO_REPRO_STORE\n"
    ) == told


@pytest.mark.parametrize("where", ["store", "output"])
def test_a_full_disk(where: str, small: Small) -> None:
    """Is told as such, whether the store or the output lies on it; nothing half written stays."""
    full = small.root.parent / "full"
    full.mkdir()
    store = full if where == "store" else small.store
    output = full / "sub/image.tar" if where == "output" else "image.tar"
    _require_namespaces()
    # A download that was cut off may stay, to be resumed, and so may what is whole.
    left = f"find {full} -type f -path '{full}/tmp/*' >&2"
    script = f'mount -t tmpfs -o size=1M tmpfs {full} && "$@"; code=$?; {left}; exit $code'
    python = ("unshare", "-rm", "sh", "-c", script, "sh", sys.executable)
    told = failing(small, "build", "small", "--store", store, "-o", output, python=python)
    assert {
        "store": "error: the store at {tmp}/full cannot be used: No space left on device\n"
        "hint: free some space, or choose another place with --store or PESTO_REPRO_STORE\n",
        "output": "error: {tmp}/full/sub/image.tar cannot be written: No space left on device\n"
        "hint: free some space, or choose another place\n",
    }[where] == told


def test_a_reader_that_goes_away(small: Small) -> None:
    """``pesto-repro plan | head -0`` ends without a traceback."""
    script = f'"{sys.executable}" -m pesto_repro plan small --store store --json | true; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        cwd=small.root.parent,
        env={**os.environ, **small.env, "PYTHONPATH": str(REPOSITORY)},
        check=True,
    )
    assert ("1\n", "") == (done.stdout, done.stderr)


def _content_hash(small: Small) -> str:
    return small.lockfile.read_text().partition('content-hash = "')[2].partition('"')[0]


def _member(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def _relock_with_model(small: Small, data: bytes) -> None:
    (small.root / "data/model.tar.gz").write_bytes(data)
    run("lock", small.root, "--store", small.store, "--offline", env=small.env)


def _forget(small: Small, digest: Digest) -> None:
    """Take a download out of the store, and every step that it had a part in."""
    (small.store / "blobs/sha256" / digest.hex).unlink()
    shutil.rmtree(small.store / "records")


def _unprivileged(small: Small) -> tuple[str, ...]:
    """How a user without rights runs this Python; the project is made readable for everybody."""
    if os.geteuid() != 0:
        return (sys.executable,)
    judge("setpriv")
    for folder in [small.root, *small.root.parents[:-1]]:
        folder.chmod(folder.stat().st_mode | 0o055)
    return ("setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable)


def _require_namespaces() -> None:
    """Skip where this machine lets nobody make a namespace of their own."""
    unshare = judge("unshare")
    if subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")


@contextmanager
def _serving(data: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers everything with the one item of the list."""
    content = [data]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content[0])))
            self.end_headers()
            self.wfile.write(content[0])

        def log_message(self, format: str, *args: object) -> None:
            """A test's output is no place for requests."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", content
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
