"""Options that commands share, and what they become: a Request, a Store, a Console."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from pesto_repro.cli.console import Console
from pesto_repro.cli.locked import Request
from pesto_repro.cli.world import store_at
from pesto_repro.errors import PestoError
from pesto_repro.store import Store


@dataclass(frozen=True, slots=True)
class Session:
    """What every command on a project has."""

    request: Request
    store: Store
    console: Console
    json: bool


_TALK = [
    click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
    click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors on stderr."),
    click.option("-v", "--verbose", count=True, help="Details on stderr."),
    click.option("--no-progress", is_flag=True, help="No bars of progress."),
]
_WHICH = [
    click.option(
        "-p", "--profile", "--profiles", "profiles", multiple=True, metavar="PROFILE...", help="Profiles, in order."
    ),
    click.option("--lockfile", type=click.Path(path_type=Path), help="The lock's place, if not the usual one."),
    click.option("--store", type=click.Path(path_type=Path), help="The store. [env: PESTO_REPRO_STORE]"),
]
_PROJECT = [click.argument("project", type=click.Path(path_type=Path)), *_WHICH]
_TARGET = [click.argument("target", metavar="PROJECT|IMAGE"), *_WHICH]


@dataclass(frozen=True, slots=True)
class Target:
    """What the command line names, a project or an image: *text* as it was said; the session's request if a project."""

    text: str
    session: Session

    @property
    def is_project(self) -> bool:
        """Whether it is a PESTO project, or one of its build.json files."""
        return is_project(self.session.request.path)


def is_project(path: Path) -> bool:
    """Whether *path* is a PESTO project, or one of its build*.json files."""
    return (path / "pesto").is_dir() or (path.name.startswith("build") and path.suffix == ".json")


def talking_command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of how to talk; *function* gets a Console and whether JSON is wanted."""

    @wraps(function)
    def wrapper(as_json: bool, quiet: bool, verbose: int, no_progress: bool, **rest: Any) -> Any:
        console = Console(quiet=quiet, verbose=verbose, progress=not no_progress)
        try:
            return function(console, as_json, **rest)
        except PestoError as error:
            console.failure(error)
            return error.exit_code
        finally:
            console.close()

    return _with(_TALK, wrapper)


def project_command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of commands on a project, too; *function* gets a Session in their place."""

    @wraps(function)
    def on_project(
        console: Console,
        as_json: bool,
        project: Path,
        profiles: tuple[str, ...],
        lockfile: Path | None,
        store: Path | None,
        **rest: Any,
    ) -> Any:
        session = Session(Request(project, profiles, lockfile), store_at(store), console, as_json)
        return function(session, **rest)

    return _with(_PROJECT, talking_command(on_project))


def target_command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of commands on PROJECT|IMAGE; *function* gets a Target in their place."""

    @wraps(function)
    def on_target(
        console: Console,
        as_json: bool,
        target: str,
        profiles: tuple[str, ...],
        lockfile: Path | None,
        store: Path | None,
        **rest: Any,
    ) -> Any:
        session = Session(Request(Path(target), profiles, lockfile), store_at(store), console, as_json)
        return function(Target(target, session), **rest)

    return _with(_TARGET, talking_command(on_target))


def _with(options: list[Callable[..., Any]], function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        function = option(function)
    return function
