"""Who builds, and from which commit, for provenance: read of the environment and of git, never part of an image.

========================== ===========================================================================
PESTO_REPRO_BUILDER_ID     a URI that names who built; ``--builder-id`` comes first
GITHUB_WORKFLOW_REF        with GITHUB_SERVER_URL: the workflow, on GitHub; GITHUB_RUN_ID: the run
CI_PROJECT_URL             with CI_RUNNER_ID: the runner, on GitLab; CI_JOB_URL: the job
========================== ===========================================================================
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pesto_repro import __version__
from pesto_repro.addresses import public
from pesto_repro.audit.provenance import LOCAL_BUILDER, Builder, Commit


def builder_of(
    environment: Mapping[str, str], stated: str | None, started_on: str | None, finished_on: str | None
) -> Builder:
    """Who builds: as *stated*, else as the *environment* says."""
    name, invocation = _named(environment)
    return Builder(
        __version__,
        stated or environment.get("PESTO_REPRO_BUILDER_ID") or name,
        invocation,
        started_on,
        finished_on,
    )


def _named(environment: Mapping[str, str]) -> tuple[str, str | None]:
    """The builder and its run, as CI systems name them."""
    server, workflow = environment.get("GITHUB_SERVER_URL"), environment.get("GITHUB_WORKFLOW_REF")
    if server and workflow:
        repository, run = environment.get("GITHUB_REPOSITORY"), environment.get("GITHUB_RUN_ID")
        return f"{server}/{workflow}", f"{server}/{repository}/actions/runs/{run}" if repository and run else None
    project, runner = environment.get("CI_PROJECT_URL"), environment.get("CI_RUNNER_ID")
    if project and runner:
        return f"{project}/-/runners/{runner}", environment.get("CI_JOB_URL")
    return LOCAL_BUILDER, None


def commit_of(project: Path) -> Commit | None:
    """The commit that *project* is checked out at; None where there is no git or no repository."""
    found = _git(project, "rev-parse", "--verify", "HEAD")
    if found is None:
        return None
    address = _git(project, "remote", "get-url", "origin")
    changed = _git(project, "status", "--porcelain", "--untracked-files=normal", "--", ".")
    return Commit(found, _public(address) if address else None, dirty=changed != "")


def _public(address: str) -> str | None:
    """An address that others can use, without credentials; a folder of this machine is none."""
    return public(address) if "://" in address and not address.startswith("file:") else None


def _git(folder: Path, *arguments: str) -> str | None:
    program = shutil.which("git")
    if program is None:
        return None
    done = subprocess.run([program, "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
