"""Podman, which runs the images that we made: load, run, ask, and leave nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import update_json
from tests.judges import judge

# What a sandbox without cgroups of its own lets podman do.
_SANDBOX = ("--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")


def call(*command: str | Path, check: bool = True) -> str:
    """Run a program; what it wrote on stdout. A failure shows everything that it wrote."""
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
    if check and done.returncode:
        what = f"{' '.join(map(str, command))} ended with {done.returncode}:"
        pytest.fail(f"{what}\n{done.stdout}{done.stderr}", pytrace=False)
    return done.stdout


def named_for_itself(project: Path) -> Path:
    """Another build.json of *project*, whose image has a name that nobody else uses; its path."""
    path = project / f"pesto/build/build.{uuid.uuid4().hex[:12]}.json"
    update_json(path, name=f"pesto-repro-e2e-{uuid.uuid4().hex[:12]}", version="1.0.0")
    return path


@contextmanager
def loaded(archive: Path) -> Iterator[str]:
    """What ``podman load`` calls the image of *archive*. It is removed at the end."""
    podman = judge("podman")
    answer = call(podman, "load", "--quiet", "--input", archive)
    name = answer.strip().removeprefix("Loaded image: ")
    try:
        yield name
    finally:
        call(podman, "rmi", name, check=False)


@dataclass(frozen=True, slots=True)
class Container:
    """A running container without a network; its loopback is its own, so that ports never collide."""

    name: str
    pid: str

    def execute(self, *command: str) -> str:
        """Run *command* inside."""
        return call(judge("podman"), "--runtime", "runc", "exec", self.name, *command)

    def beside(self, *command: str | Path, env: dict[str, str], cwd: Path) -> str:
        """Run a program of this machine's beside the service: it sees the same loopback; stdout."""
        words = [judge("nsenter"), "--target", self.pid, "--net", *map(str, command)]
        done = subprocess.run(words, capture_output=True, text=True, env=env, cwd=cwd, check=False)
        if done.returncode:
            logs = call(judge("podman"), "logs", self.name, check=False)
            pytest.fail(f"{done.stdout}{done.stderr}\nthe service's log:\n{logs}", pytrace=False)
        return done.stdout


@contextmanager
def running(image: str, mounts: Sequence[Path] = ()) -> Iterator[Container]:
    """The service of *image*, started as its config says; each of *mounts* is there under its own path."""
    podman, name = judge("podman"), f"pesto-repro-e2e-{uuid.uuid4().hex[:12]}"
    judge("runc")
    if os.geteuid() != 0:
        pytest.skip("podman's containers can be joined by root only")
    volumes = [word for each in mounts for word in ("--volume", f"{each}:{each}:ro")]
    try:
        call(podman, "--runtime", "runc", "run", "--detach", "--name", name, *_SANDBOX, *volumes, image)
        state = json.loads(call(podman, "inspect", name))[0]["State"]
        yield Container(name, str(state["Pid"]))
    finally:
        call(podman, "rm", "--force", "--time", "0", name, check=False)
