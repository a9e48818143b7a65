"""A command finds in its cell what it should, and is told of by its exit code and output."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.errors import PestoError
from pesto_repro.sandbox import engines
from pesto_repro.sandbox.cell import Cell, Mount, image_cell, image_command, run, start
from pesto_repro.sandbox.engines import Engine
from pesto_repro.sandbox.users import User, find_user
from tests.sandbox_cells import PATH, PYTHON, engine, root, skeleton, usr_cell

__all__ = ["engine", "root"]  # fixtures


def shell(cell: Cell, script: str, engine: Engine, *, given: bytes = b"") -> str:
    """What *script* prints in *cell*; it must succeed."""
    done = run(cell, ["sh", "-c", script], engine=engine, input=given)
    assert (0, b"") == (done.returncode, done.stderr)
    return done.stdout.decode()


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -15 $$", 143)])
def test_exit_codes(root: Path, engine: Engine, script: str, code: int) -> None:
    """The command's own, and 128 and the signal."""
    assert code == run(usr_cell(root), ["sh", "-c", script], engine=engine).returncode


def test_outputs_are_told_apart_and_input_is_given(root: Path, engine: Engine) -> None:
    """Standard input comes in, output and error go out, each by itself."""
    done = run(usr_cell(root), ["sh", "-c", "cat; echo bad >&2"], input=b"given", engine=engine)
    assert (b"given", b"bad\n") == (done.stdout, done.stderr)


def test_without_input_there_is_none(root: Path, engine: Engine) -> None:
    """Standard input is /dev/null: nothing waits for a keyboard."""
    assert "0 /dev/null\n" == shell(usr_cell(root), "echo $(cat | wc -c) $(readlink /proc/self/fd/0)", engine)


def test_much_output_is_cut_at_its_front(root: Path, engine: Engine) -> None:
    """Endless output does not fill the memory; what came last is kept."""
    script = "head -c 20000000 /dev/zero; echo end"
    output = run(usr_cell(root), ["sh", "-c", script], engine=engine).stdout
    assert (16 << 20, b"\0end\n") == (len(output), output[-5:])


def test_the_environment_is_the_cells(root: Path, engine: Engine) -> None:
    """Exactly what the cell says, and PWD: nothing of ours."""
    env = {"PATH": PATH, "EMPTY": "", "STRANGE": "a b\nc=é"}
    script = "import os, json; print(json.dumps(dict(os.environ)))"
    found = json.loads(run(usr_cell(root, env=env), [PYTHON, "-I", "-c", script], engine=engine).stdout)
    found.pop("LC_CTYPE", None)  # Python's own, PEP 538
    assert env | {"PWD": "/"} == found


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("65532:65532", "65532 65532"),
        ("root", "0 0"),
        ("ada", "1000 1001"),
        ("ada:staff", "1000 50"),
        ("1000", "1000 1001"),
        ("4321", "4321 0"),
    ],
)
def test_the_user_is_the_cells(root: Path, engine: Engine, user: str, expected: str) -> None:
    """Numbers and names of the root; never ours."""
    assert f"{expected}\n" == shell(usr_cell(root, user=user), "echo $(id -u) $(id -g)", engine)


def test_the_surroundings(root: Path, engine: Engine) -> None:
    """Working directory, umask, host name, limits, a session of its own, no inherited descriptors."""
    cell = usr_cell(root, cwd="/opt")
    assert "/opt\n0022\nlocalhost\n0\n" == shell(cell, "pwd; umask; uname -n; ulimit -c", engine)
    script = "import os; print(os.getsid(0) in (1, 2), sorted(os.listdir('/proc/self/fd'))[:-1])"
    assert b"True ['0', '1', '2']\n" == run(cell, [PYTHON, "-c", script], engine=engine).stdout


def test_private_folders_are_empty_writable_and_bounded(root: Path, engine: Engine) -> None:
    """/tmp, /var/tmp, /run and /dev/shm are the cell's own, and cannot fill the machine's memory."""
    for folder in ("/tmp", "/var/tmp", "/run", "/dev/shm"):
        assert "kept\n" == shell(usr_cell(root), f"ls -A {folder}; echo kept > {folder}/x; cat {folder}/x", engine)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    sizes = shell(usr_cell(root), "stat -f -c '%b %S' /tmp /var/tmp /run /dev/shm", engine).splitlines()
    assert 4 == len(sizes)
    assert sum(math.prod(map(int, size.split())) for size in sizes) <= memory * 0.6


def test_mounts(root: Path, tmp_path: Path, engine: Engine) -> None:
    """A read-only one cannot be written to, a writable one can; at a new name, below /tmp, over what the root has."""
    for name in ("in", "out", "over"):
        (tmp_path / name).mkdir()
    (tmp_path / "in/file").write_text("input")
    mounts = (
        Mount(tmp_path / "in", "/tmp/deep/in"),
        Mount(tmp_path / "out", "/made", writable=True),
        Mount(tmp_path / "over", "/opt"),
        Mount(tmp_path / "in/file", "/tmp/alone"),
    )
    script = "cat /tmp/deep/in/file /tmp/alone; cp /tmp/alone /made/made; touch /tmp/deep/in/x /opt/x; true"
    done = run(usr_cell(root, *mounts), ["sh", "-c", script], engine=engine)
    assert (b"inputinput", "input") == (done.stdout, (tmp_path / "out/made").read_text())
    assert 2 == done.stderr.count(b"Read-only file system")


def test_a_link_in_the_root_does_not_lead_a_mount_out(tmp_path: Path, engine: Engine) -> None:
    """A target below a link of the root is inside the root."""
    place, bait = skeleton(tmp_path / "root"), tmp_path / "bait"
    bait.mkdir()
    (place / "opt/real").mkdir()
    (place / "link").symlink_to("/opt")
    (place / "evil").symlink_to(bait)
    (bait / "file").write_text("bait")
    assert "bait\n" == shell(usr_cell(place, Mount(bait, "/link/real")), "ls -A /opt/real | sed s/file/bait/", engine)
    with pytest.raises(PestoError) as caught:
        run(usr_cell(place, Mount(bait, "/opt/none")), ["true"], engine=engine)
    assert f"{bait} cannot be mounted at /opt/none: the image has no such place" == caught.value.message
    assert "mount it below /tmp, or at a new top-level folder" == caught.value.hint


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["relative"], "{0} cannot be mounted at relative: the target must be absolute, without '..'"),
        (["/tmp/../etc"], "{0} cannot be mounted at /tmp/../etc: the target must be absolute, without '..'"),
        (["/"], "{0} cannot be mounted at /: that place is taken"),
        (["/proc/x"], "{0} cannot be mounted at /proc/x: that place is taken"),
        (["/tmp"], "{0} cannot be mounted at /tmp: that place is taken"),
        (["/tmp/a", "/tmp/a/b"], "the mounts at /tmp/a and /tmp/a/b lie one in the other"),
    ],
)
def test_mounts_without_a_place(root: Path, tmp_path: Path, targets: list[str], message: str) -> None:
    """What cannot be mounted is said before anything runs."""
    with pytest.raises(PestoError) as caught:
        run(usr_cell(root, *(Mount(tmp_path, target) for target in targets)), ["true"])
    assert message.format(tmp_path) == caught.value.message


@pytest.mark.parametrize(
    ("command", "how", "message"),
    [
        ("nothing", {}, "there is no program nothing in the image"),
        ("/opt/nothing", {}, "there is no program /opt/nothing in the image"),
        ("/etc/passwd", {}, "there is no program /etc/passwd in the image"),
        ("true", {"cwd": "/none"}, "there is no folder /none in the image to run a command in"),
        ("true", {"user": "eve"}, "the image has no user 'eve' in /etc/passwd"),
        ("true", {"user": "ada:eve"}, "the image has no group 'eve' in /etc/group"),
        ("true", {"user": "4294967296"}, "no user or group has the number 4294967296"),
    ],
)
def test_what_cannot_be_run(root: Path, engine: Engine, command: str, how: dict[str, Any], message: str) -> None:
    """It is said what is missing, the same whatever the engine."""
    with pytest.raises(PestoError) as caught:
        run(usr_cell(root, **how), [command], engine=engine)
    assert message == caught.value.message


def test_links_in_circles(tmp_path: Path, engine: Engine) -> None:
    """An error that names where they are met."""
    place = skeleton(tmp_path / "root")
    (place / "opt/o").symlink_to("o")
    with pytest.raises(PestoError) as caught:
        run(usr_cell(place, cwd="/opt/o"), ["true"], engine=engine)
    assert "/opt/o of the image cannot be used: Too many levels of symbolic links" == caught.value.message


def test_a_program_without_its_interpreter(root: Path, tmp_path: Path, engine: Engine) -> None:
    """What the kernel will not run is an error, not an exit code."""
    (tmp_path / "script").write_text("#!/none")
    (tmp_path / "script").chmod(0o755)
    with pytest.raises(PestoError) as caught:
        run(usr_cell(root, Mount(tmp_path, "/made")), ["/made/script"], engine=engine)
    messages = {
        Engine.BWRAP: "bwrap could not run the command; it said why",
        Engine.NAMESPACES: "/made/script cannot be run: No such file or directory",
    }
    assert messages[engine] == caught.value.message


def test_an_end_by_time(root: Path, engine: Engine) -> None:
    """A command that does not end in time is stopped."""
    with pytest.raises(PestoError) as caught:
        run(usr_cell(root), ["sleep", "1000"], timeout=0.1, engine=engine)
    assert "sleep did not end within 0.1 seconds" == caught.value.message


def test_stopping_is_gentle_first(root: Path, engine: Engine) -> None:
    """SIGTERM reaches the command, which may say its last words."""
    script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    with start(usr_cell(root), ["sh", "-c", script], stdout=subprocess.PIPE, engine=engine) as running:
        assert running.stdout is not None
        assert b"up\n" == running.stdout.readline()
        assert running.wait(0) is None
        assert (3, b"bye\n") == (running.stop(60), running.stdout.read())
        assert 3 == running.stop()  # twice does no harm


def test_stopping_is_firm_in_the_end(root: Path, engine: Engine) -> None:
    """A command that ignores SIGTERM is killed."""
    script = "trap '' TERM; echo up; while :; do sleep 0.05; done"
    with start(usr_cell(root), ["sh", "-c", script], stdout=subprocess.PIPE, engine=engine) as running:
        assert running.stdout is not None
        running.stdout.readline()
        assert 137 == running.stop(0.1)


def test_the_hosts_network_if_asked_for(root: Path, engine: Engine) -> None:
    """With network=True the cell has the host's, and its resolver."""
    script = "ls -l /proc/self/ns/net | sed 's/.*-> //'; cat /etc/resolv.conf"
    expected = f"{os.readlink('/proc/self/ns/net')}\n{Path('/etc/resolv.conf').read_text()}"  # noqa: PTH115
    assert expected == shell(usr_cell(root, network=True), script, engine)


def test_an_image_says_what_its_cell_is(tmp_path: Path) -> None:
    """Env, User, WorkingDir, Entrypoint and Cmd of config.md; PATH and HOME where it says nothing."""
    place = skeleton(tmp_path / "root")
    config = {"config": {"Env": ["A=b=c"], "User": "ada", "WorkingDir": "/opt", "Entrypoint": ["a"], "Cmd": ["b"]}}
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    expected = Cell(place, {"PATH": path, "HOME": "/home/ada", "A": "b=c"}, "ada", "/opt", network=True)
    assert expected == image_cell(config, place, network=True)
    assert ("a", "b") == image_command(config)
    assert (Cell(place, {"PATH": path, "HOME": "/root"}, "0:0"), ()) == (image_cell({}, place), image_command({}))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([1], "the image's config is broken: config is no object"),
        ({"Env": "A=b"}, "the image's config is broken: Env is no list of texts"),
        ({"Cmd": [1]}, "the image's config is broken: Cmd is no list of texts"),
        ({"User": 0.5}, "the image's config is broken: User is no text"),
    ],
)
def test_a_config_that_breaks_the_specification(tmp_path: Path, said: Any, message: str) -> None:
    """It comes from anybody: an error, not a traceback."""
    for read in (image_command, lambda config: image_cell(config, tmp_path)):
        with pytest.raises(PestoError) as caught:
            read({"config": said})
        assert message == caught.value.message


def test_users_are_those_of_the_root(tmp_path: Path) -> None:
    """A link at /etc/passwd is followed inside the root, not on the host."""
    place = skeleton(tmp_path / "root")
    (place / "etc/passwd").rename(place / "opt/users")
    (place / "etc/passwd").symlink_to("/opt/users")
    assert User(1000, 1001, "/home/ada") == find_user(place, "ada")


def test_which_engine_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """bwrap where it works, else by hand, and a hint where there is no Linux."""
    for found, expected in ((("bwrap",), Engine.BWRAP), (None, Engine.NAMESPACES)):
        monkeypatch.setattr(engines, "bwrap", lambda found=found: found)
        assert expected == engines.choose()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(PestoError) as caught:
        engines.choose()
    assert "images can be run by this program on Linux only, not on darwin" == caught.value.message


@pytest.mark.parametrize("name", ["kernel.unprivileged_userns_clone", "user.max_user_namespaces"])
def test_a_kernel_that_forbids_it_is_told_of(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the setting that forbids it, and what to install."""
    path = tmp_path / name.replace(".", "/")
    path.parent.mkdir()
    path.write_text("0\n")
    monkeypatch.setattr(engines, "_SYSCTL", tmp_path)
    error = engines.refusal("unshare: Operation not permitted", 1)
    assert "this machine does not let us make a sandbox: unshare: Operation not permitted" == error.message
    hint = f"its setting {name}=0 forbids it: ask for `apt install bubblewrap`, or for another value"
    assert hint == error.hint


def test_a_cell_without_user_namespaces(root: Path) -> None:
    """The real refusal: inside a cell no other can be made, and the error says so."""
    package = Path(engines.__file__).parents[2]
    script = (
        f"import sys; sys.path.append('/code'); from pathlib import Path\n"
        f"from pesto_repro.sandbox.cell import *; from pesto_repro.sandbox.engines import Engine\n"
        f"from pesto_repro.errors import PestoError\n"
        f"try: run(Cell(Path('/'), {{'PATH': '{PATH}'}}), ['true'], engine=Engine.NAMESPACES)\n"
        f"except PestoError as error: print(error.message)\n"
    )
    cell = usr_cell(root, Mount(package, "/code"))
    done = run(cell, [PYTHON, "-B", "-c", script], engine=Engine.NAMESPACES)
    expected = b"this machine does not let us make a sandbox: unshare: No space left on device\n"
    assert (expected, b"") == (done.stdout, done.stderr)


def test_time_is_not_spent_on_waiting(root: Path, engine: Engine) -> None:
    """wait with a time-out says None while it runs."""
    with start(usr_cell(root), ["sleep", "1000"], engine=engine) as running:
        before = time.monotonic()
        assert running.wait(0.01) is None
        assert time.monotonic() >= before + 0.01
