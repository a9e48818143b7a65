"""What runs in a cell harms nothing outside, learns nothing, and leaves nothing running.

Both engines; as whoever runs the tests and, where that is root, as an ordinary user too.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path

import pytest

from pesto_repro.errors import PestoError
from pesto_repro.sandbox.cell import Mount, run, start
from pesto_repro.sandbox.engines import Engine
from tests.sandbox_cells import PYTHON, drive, engine, need_stranger, open_folder, processes, root, skeleton, usr_cell

__all__ = ["engine", "open_folder", "root"]  # fixtures

HOSTILE = """
import ctypes, json, os, socket, sys
secret, port, abstract, pid = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)

def write(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))

def connect(family, address):
    with socket.socket(family) as handle:
        handle.settimeout(5)
        handle.connect(address)

def remount():
    call("mount", None, b"/usr", None, 4096 | 32, None)

attacks = {
    "read a file of the host": lambda: open(secret).read(),
    "read the host's shadow file": lambda: open("/etc/shadow").read(),
    "look into the host's folder": lambda: os.listdir(os.path.dirname(secret)),
    "write outside": lambda: write(os.path.dirname(secret) + "/written"),
    "write to a file of the root": lambda: write("/etc/passwd"),
    "write a new file into the root": lambda: write("/etc/new"),
    "write to /": lambda: write("/new"),
    "write to /usr": lambda: write("/usr/new"),
    "write to /dev": lambda: write("/dev/new"),
    "remove a file of the root": lambda: os.unlink("/etc/passwd"),
    "change the mode of a file of the root": lambda: os.chmod("/etc/passwd", 0o777),
    "change the time of a file of the root": lambda: os.utime("/etc/passwd"),
    "hard link a file of the root": lambda: os.link("/etc/passwd", "/tmp/passwd"),
    "write to a read-only mount": lambda: write("/given/new"),
    "change how the kernel dumps cores": lambda: write("/proc/sys/kernel/core_pattern"),
    "press the kernel's buttons": lambda: write("/proc/sysrq-trigger"),
    "connect to the host's loopback": lambda: connect(socket.AF_INET, ("127.0.0.1", port)),
    "connect to the host's abstract socket": lambda: connect(socket.AF_UNIX, abstract.replace("@", chr(0))),
    "reach another network": lambda: connect(socket.AF_INET, ("192.0.2.1", 80)),
    "send a signal to a process of the host": lambda: os.kill(pid, 0),
    "look at a process of the host": lambda: os.listdir(f"/proc/{pid}"),
    "trace a process of the host": lambda: call("ptrace", 16, pid, None, None),
    "reach the host through process 1": lambda: os.listdir("/proc/1/root" + os.path.dirname(secret)),
    "mount": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "make a mount writable": remount,
    "unmount": lambda: call("umount2", b"/usr", 2),
    "change the root": lambda: os.chroot("/tmp"),
    "make a device": lambda: os.mknod("/tmp/device", 0o20666, os.makedev(1, 1)),
    "open a disk": lambda: os.open("/dev/vda", os.O_RDONLY),
    "become root": lambda: os.setuid(0),
    "change groups": lambda: os.setgroups([0]),
    "change the host name": lambda: socket.sethostname("evil"),
    "set the clock": lambda: __import__("time").clock_settime(0, 0),
    "be rid of limits": lambda: __import__("resource").setrlimit(6, (1 << 20, 1 << 20)),
    "make a user namespace": lambda: call("unshare", 0x10000000),
    "make a mount namespace": lambda: call("unshare", 0x00020000),
}
done = {}
for name, attack in attacks.items():
    try:
        done[name] = repr(attack())
    except (OSError, ValueError):
        pass
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
rights = {status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
facts = {
    "done": done,
    "rights": [int(each, 16) for each in rights],
    "no new privileges": status["NoNewPrivs"].strip(),
    "setuid counts": not os.statvfs("/usr").f_flag & os.ST_NOSUID,
    "descriptors": sorted(os.listdir("/proc/self/fd"))[:-1],
    "root's name": "%s" in open("/proc/self/environ").read(),
    "command lines": [open(f"/proc/{each}/cmdline").read() for each in os.listdir("/proc") if each in ("1",)],
    "session": os.getsid(0) != 0,
}
print(json.dumps(facts))
"""

DRIVER = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its jobs in the background ignore it
from pathlib import Path
from pesto_repro.sandbox.cell import Cell, Mount, run, start
from pesto_repro.sandbox.engines import Engine
engine, root, given = Engine(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
mounts = (Mount(Path("/usr"), "/usr"), Mount(given, "/given"))
cell = Cell(root, {"PATH": "/usr/bin:/bin"}, mounts=mounts)
"""


@pytest.fixture(params=["self", "stranger"])
def stranger(request: pytest.FixtureRequest) -> bool:
    """As ourselves, and as an ordinary user."""
    if request.param == "stranger":
        need_stranger()
    return bool(request.param == "stranger")


@pytest.fixture
def open_root(open_folder: Path) -> Path:
    """A root that everybody may use."""
    (open_folder / "given").mkdir()
    return skeleton(open_folder / "root")


def snapshot(folder: Path) -> dict[str, tuple[int, float, bytes]]:
    """Mode, time and bytes of every file that the cell could have come to."""
    places = (folder / each for each in ("secret", "given", "root"))
    paths = (path for place in places for path in (place, *sorted(place.rglob("*"))))
    found = (path for path in paths if path.is_file() and not path.is_symlink())
    return {str(path): (path.stat().st_mode, path.stat().st_mtime, path.read_bytes()) for path in found}


def test_hostile_code_gets_nothing(engine: Engine, stranger: bool, open_folder: Path, open_root: Path) -> None:
    """Not one of the attacks works, and nothing outside is another afterwards."""
    secret = open_folder / "secret"
    secret.write_text("secret")
    before, name = snapshot(open_folder), f"@{uuid.uuid4()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX) as abstract,
        subprocess.Popen(["sleep", "1000"]) as victim,
    ):
        abstract.bind(name.replace("@", "\0"))
        abstract.listen()
        script = f"{DRIVER}\ndone = run(cell, sys.argv[5:])\nsys.stdout.buffer.write(done.stdout + done.stderr)"
        port = listener.getsockname()[1]
        attack = [PYTHON, "-I", "-c", HOSTILE, str(secret), str(port), name, str(victim.pid)]
        with drive(
            script, engine.value, open_root, open_folder / "given", *attack, package=open_folder, stranger=stranger
        ) as driver:
            output = driver.communicate()[0].decode()
        victim.kill()
    facts = json.loads(output)
    lines = facts.pop("command lines")
    expected = {
        "done": {},
        "rights": [0],
        "no new privileges": "1",
        "setuid counts": False,
        "descriptors": ["0", "1", "2"],
        "root's name": False,
        "session": True,
    }
    assert expected == facts
    assert not any(str(open_folder / each) in line for line in lines for each in ("root", "given", "pesto_repro"))
    assert before == snapshot(open_folder)


def test_an_images_environment_is_that_of_its_command_alone(root: Path, engine: Engine) -> None:
    """On the host the loader of what makes the cell would obey LD_PRELOAD; LD_DEBUG_OUTPUT shows where it does."""
    name = f"loader-{uuid.uuid4()}"
    env = {"PATH": "/usr/bin:/bin", "LD_DEBUG": "libs", "LD_DEBUG_OUTPUT": f"/tmp/{name}"}
    done = run(usr_cell(root, env=env), ["sh", "-c", "echo /tmp/*"], engine=engine)
    assert done.stdout.startswith(f"/tmp/{name}.".encode())
    assert [] == list(Path("/tmp").glob(f"{name}*"))


def test_a_nul_is_no_way_to_other_mounts(root: Path, engine: Engine) -> None:
    """bwrap's arguments end with one: what an image says must not become some of them."""
    nul = "/a\0--bind\0/\0/tmp\0--chdir\0/tmp/../../../../../.."
    for how in ({"cwd": nul}, {"env": {"PATH": nul}}):
        with pytest.raises(PestoError) as caught:
            run(usr_cell(root, **how), ["true"], engine=engine)
        message = "a command, its folder, its environment and its mounts cannot have a NUL character"
        assert message == caught.value.message


def mounted(folder: Path) -> list[str]:
    """What a cell of a root in *folder* could leave mounted: of that, or at /tmp, where it is made."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if str(folder) in line or line.split()[1] == "/tmp"]


def gone(marker: str) -> bool:
    """Whether nothing with *marker* runs any more, soon."""
    last = time.monotonic() + 60
    while processes(marker) and time.monotonic() < last:
        time.sleep(0.02)
    return not processes(marker)


DAEMON = """
import os, signal, sys, time
child = os.fork()
if not child:
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    open("/tmp/up", "w").close()
    time.sleep(100000)
os.waitpid(child, 0)
while not os.path.exists("/tmp/up"):
    time.sleep(0.01)
print("up", flush=True)
if len(sys.argv) > 2:
    time.sleep(100000)
"""


def test_a_daemon_ends_with_its_command(root: Path, engine: Engine) -> None:
    """A process that left its parents, its session and ignores signals is gone when the command has ended."""
    marker = f"daemon-{uuid.uuid4()}"
    with start(usr_cell(root), [PYTHON, "-c", DAEMON, marker], stdout=subprocess.PIPE, engine=engine) as running:
        assert 0 == running.wait()
        assert [] == processes(marker)


def test_a_daemon_does_not_keep_us_waiting(root: Path, engine: Engine) -> None:
    """One that holds the output open is no reason to wait for its end."""
    done = run(usr_cell(root), [PYTHON, "-c", DAEMON, "x"], engine=engine, timeout=60)
    assert (0, b"up\n") == (done.returncode, done.stdout)


def test_stopping_ends_all(root: Path, engine: Engine) -> None:
    """After stop nothing that the cell started is there."""
    marker, mounts = f"stop-{uuid.uuid4()}", mounted(root)
    command = [PYTHON, "-c", DAEMON, marker, "stay"]
    with start(usr_cell(root), command, stdout=subprocess.PIPE, engine=engine) as running:
        assert running.stdout is not None
        assert b"up\n" == running.stdout.readline()
        assert processes(marker)
        assert 143 == running.stop(60)
        assert [] == processes(marker)
    assert mounts == mounted(root)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_we_are_killed(engine: Engine, stranger: bool, number: int, open_folder: Path, open_root: Path) -> None:
    """Whatever kills the program, nothing of its cells is left: no process and no mount."""
    marker, mounts = f"killed-{uuid.uuid4()}", mounted(open_folder)
    script = f"{DRIVER}\nwith start(cell, sys.argv[5:], stdout=1) as running:\n    running.wait()"
    command = [PYTHON, "-c", DAEMON, marker, "stay"]
    with drive(
        script, engine.value, open_root, open_folder / "given", *command, package=open_folder, stranger=stranger
    ) as driver:
        assert driver.stdout is not None
        assert b"up\n" == driver.stdout.readline()
        driver.send_signal(number)
    assert gone(marker)
    assert mounts == mounted(open_folder)


def test_the_monitor_is_killed(root: Path, engine: Engine) -> None:
    """Even without the process that watches it a cell does not live on."""
    marker = f"monitor-{uuid.uuid4()}"
    command = [PYTHON, "-c", DAEMON, marker, "stay"]
    with start(usr_cell(root), command, stdout=subprocess.PIPE, engine=engine) as running:
        assert running.stdout is not None
        running.stdout.readline()
        os.kill(running._process.pid, signal.SIGKILL)
        assert gone(marker)
        assert 137 == running.wait()


def test_many_processes_are_bounded(root: Path, engine: Engine) -> None:
    """There is a limit to forking, which the command cannot raise."""
    script = "import resource; print(resource.getrlimit(resource.RLIMIT_NPROC))"
    done = run(usr_cell(root), [PYTHON, "-c", script], engine=engine)
    soft, hard = json.loads(done.stdout.decode().replace("(", "[").replace(")", "]"))
    assert (True, soft) == (0 < soft <= 8192, hard)


def test_who_takes_all_the_memory_ends_first(root: Path, engine: Engine) -> None:
    """The kernel chooses the cell, not a process of the host (proc_pid_oom_score_adj(5))."""
    assert b"1000\n" == run(usr_cell(root), ["cat", "/proc/self/oom_score_adj"], engine=engine).stdout


def test_a_link_in_a_writable_mount_leads_nowhere(root: Path, tmp_path: Path, engine: Engine) -> None:
    """What the command leaves in its work folder is read by us as a link, and means nothing inside."""
    work, secret = tmp_path / "work", tmp_path / "secret"
    work.mkdir()
    secret.write_text("secret")
    command = ["sh", "-c", f"ln -s {secret} /made/link; cat /made/link; echo x > /made/link; true"]
    done = run(usr_cell(root, Mount(work, "/made", writable=True)), command, engine=engine)
    assert (b"", "secret") == (done.stdout, secret.read_text())
