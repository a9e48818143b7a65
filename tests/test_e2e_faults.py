"""What goes wrong underway: killed, interrupted, raced, a store that rots, and inputs larger than the memory."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.cli.main import run as run_here
from pesto_repro.digest import Digest
from tests.e2e import REPOSITORY, run
from tests.python_index import digest_of_file
from tests.small_project import Small, add_resource, make_small

slow = pytest.mark.slow


@pytest.fixture(scope="session")
def made_once(runtime_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small project, locked and built; not to be changed."""
    small = make_small(tmp_path_factory.mktemp("faults"), runtime_wheel)
    small.build()
    return small


@pytest.fixture
def small(made_once: Small, tmp_path: Path) -> Small:
    """A copy of the small project, locked and built."""
    shutil.copytree(made_once.root.parent, tmp_path, dirs_exist_ok=True)
    return Small(tmp_path / "small", tmp_path / "store", tmp_path / "wheels")


@pytest.fixture
def digest(made_once: Small) -> Digest:
    """The digest of the small project's archive."""
    return digest_of_file(made_once.output)


def start(small: Small, *arguments: str | Path) -> subprocess.Popen[str]:
    """A build in a process of its own."""
    command = [sys.executable, "-m", "pesto_repro", "build", small.root, "--store", small.store]
    return subprocess.Popen(
        [*map(str, [*command, *arguments])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=small.root.parent,
        env={**os.environ, **small.env, "PYTHONPATH": str(REPOSITORY)},
    )


def files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def beside(output: Path) -> list[str]:
    """What lies in the output's folder, but for the project and what it needs."""
    return sorted({path.name for path in output.parent.iterdir()} - {"small", "store", "wheels", "big.bin"})


# -- killed and interrupted ----------------------------------------------------------------------------------------


def with_big_file(small: Small, size: int) -> Path:
    """Give the project a sparse file of *size* bytes as a resource, and lock; the file, beside the project."""
    big = small.root.parent / "big.bin"
    big.touch()
    os.truncate(big, size)
    add_resource(small, "big", big.as_uri(), "/opt/big.bin")
    run("lock", small.root, "--store", small.store, "--offline", env=small.env)
    return big


@slow
def test_killed_at_any_moment(small: Small, digest: Digest) -> None:
    """After ``kill -9`` the next build has the right bytes, and nothing is left in the store's ``tmp``."""
    whole = timed(small)
    killed = 0
    for number in range(20):
        if number % 4 == 0:  # from the start now and then, else go on where the last one was killed
            shutil.rmtree(small.store, ignore_errors=True)
            small.output.unlink(missing_ok=True)
        process = start(small, "-o", small.output)
        time.sleep(whole * (number + 1) / 20)
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        if small.output.exists():
            assert digest == digest_of_file(small.output)
        if number % 4 == 3:
            small.build()
            assert digest == digest_of_file(small.output)
            assert [] == files(small.store / "tmp")
            assert ["small.oci.tar"] == beside(small.output)
    assert killed > 0  # how many depends on how busy the machine is


def timed(small: Small) -> float:
    """How long a whole build takes here, in seconds: only to spread the moments of killing."""
    shutil.rmtree(small.store)
    small.output.unlink()
    before = time.monotonic()
    small.build()
    return time.monotonic() - before


@slow
@pytest.mark.parametrize("moment", ["layers", "archive"])
def test_interrupted(moment: str, small: Small, digest: Digest) -> None:
    """Ctrl-C ends with 130, one word, no half-written output and an empty ``tmp``; the store stays good."""
    original = {path: path.read_bytes() for path in (small.lockfile, small.requirements, small.settings)}
    if moment == "archive":  # large enough to be met while it is written
        small.settings.write_text(f'{small.settings.read_text()}[layers]\ncompression = "none"\n')
    with_big_file(small, 500_000_000)
    output = small.root.parent / "new.tar"
    process = start(small, "-o", output, "-q")
    place = small.store / "tmp" if moment == "layers" else output.with_name(f".{output.name}.partial")
    wait_for(lambda: any(sizes(place)), process)
    before = files(small.store / "blobs")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate()
    assert (130, "", "interrupted") == (process.returncode, stdout, stderr.strip())
    assert "new.tar" not in "".join(beside(small.output))
    assert [] == files(small.store / "tmp")
    assert before == files(small.store / "blobs")  # the layer that was being made was given up
    for path, data in original.items():
        path.write_bytes(data)
    small.build()
    assert digest == digest_of_file(small.output)


# -- several at once -----------------------------------------------------------------------------------------------


@slow
def test_builds_at_once_share_a_store(small: Small, digest: Digest) -> None:
    """Three builds start on an empty store, two of them into one file: all succeed, with the same bytes."""
    shutil.rmtree(small.store)
    small.output.unlink()
    other = small.root.parent / "other.tar"
    processes = [start(small, "-o", output) for output in (small.output, small.output, other)]
    said = [process.communicate() for process in processes]
    assert [0, 0, 0] == [process.returncode for process in processes], said
    assert 1 == len({stdout for stdout, _ in said})
    assert {digest} == {digest_of_file(small.output), digest_of_file(other)}
    assert [] == [*files(small.store / "tmp"), *files(small.store / "partial")]
    assert ["other.tar", "small.oci.tar"] == beside(small.output)


# -- a store that rots ---------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    """The second half is lost."""
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """One bit is another."""
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    """As a file system leaves a file after the power failed."""
    path.chmod(0o644)
    os.truncate(path, 0)


@slow
@pytest.mark.parametrize("harm", [truncate, flip, empty, Path.unlink])
def test_every_file_of_the_store_may_rot(
    harm: Callable[[Path], None], small: Small, digest: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file in turn is harmed; the next build has the right bytes, in a new file, as if nothing had been."""
    for name, value in small.env.items():
        monkeypatch.setenv(name, value)
    for path in files(small.store):
        harm(path)
        small.output.unlink(missing_ok=True)
        assert 0 == run_here(["build", str(small.root), "--store", str(small.store), "-o", str(small.output), "-q"])
        assert digest == digest_of_file(small.output), path


@slow
def test_any_half_of_the_store_may_be_lost(small: Small, digest: Digest) -> None:
    """Downloads, layers and records alike."""
    for seed in range(3):
        chance = random.Random(seed)
        for path in files(small.store):
            if chance.random() < 0.5:
                path.unlink()
        small.output.unlink(missing_ok=True)
        small.build()
        assert digest == digest_of_file(small.output)


def test_an_archive_that_was_changed_is_written_again(small: Small, digest: Digest) -> None:
    """A build does not trust the name of a file that is there."""
    flip(small.output)
    small.build()
    assert digest == digest_of_file(small.output)


def test_a_file_that_changes_underway(small: Small) -> None:
    """A build whose inputs are written to meanwhile fails instead of making a layer of both."""
    big = with_big_file(small, 400_000_000)
    before = {path.name for path in files(small.store / "records/step")}
    process = start(small, "-o", small.root.parent / "new.tar")
    wait_for(lambda: any(size > 0 for size in sizes(small.store / "tmp")), process)
    os.utime(big)
    stdout, stderr = process.communicate()
    assert (1, "") == (process.returncode, stdout)
    assert f"error: {big} changed while it was being built\nhint: run the build again\n" == stderr
    assert before == {path.name for path in files(small.store / "records/step")}
    assert "new.tar" not in beside(small.output)


def sizes(folder: Path) -> list[int]:
    """The sizes of the files that are there just now; *folder* may be a file itself."""
    found = []
    for path in (folder, *files(folder)):
        try:
            found.append(0 if path.is_dir() else path.stat().st_size)
        except FileNotFoundError:
            continue
    return found


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    """Until *condition* holds; fails if the process ends before."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


# -- memory --------------------------------------------------------------------------------------------------------


@slow
def test_memory_stays_flat(small: Small) -> None:
    """A resource of 1 GB (sparse, so it takes no disk) is built with less than 200 MB of memory."""
    with_big_file(small, 1 << 30)
    python = (sys.executable, "-c", PEAK, sys.executable)
    words = ("build", small.root, "-o", small.output, "--store", small.store, "-q")
    assert int(run(*words, env=small.env, python=python).stderr) < 200_000_000


PEAK = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024, file=sys.stderr)
sys.exit(code)
"""
"""Runs a command and prints the most bytes of memory that it had."""
