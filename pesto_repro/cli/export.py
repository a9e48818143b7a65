"""``export``: the lock in another tool's words."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click

from pesto_repro.addresses import public
from pesto_repro.audit.export import Place, apt, choose, pylock, requirements
from pesto_repro.cli.console import human, show, show_json
from pesto_repro.cli.locked import locked
from pesto_repro.cli.options import Session, project_command
from pesto_repro.cli.workshop import workshop
from pesto_repro.cli.world import world_of
from pesto_repro.digest import Digest
from pesto_repro.errors import FetchError, PestoError
from pesto_repro.fetch import PARALLEL
from pesto_repro.fetch.artifacts import Artifacts, artifacts
from pesto_repro.lock.model import PlatformLock, PythonPackage
from pesto_repro.sinks import write_text
from pesto_repro.store import Store


@click.command()
@project_command
@click.option("--format", "form", type=click.Choice(["pylock", "requirements", "apt"]), required=True)
@click.option("--platform", metavar="OS/ARCH", help="For which one, if the lock is for several.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Default: stdout.")
@click.option("--vendor", type=click.Path(path_type=Path), metavar="DIR", help="Put the wheels into DIR, too.")
@click.option("--offline", is_flag=True, help="Never use the network.")
def export(
    session: Session, form: str, platform: str | None, output: Path | None, vendor: Path | None, offline: bool
) -> int:
    """Write PROJECT's lock as pylock.toml (PEP 751), as requirements with hashes, or as packages of apt.

    A pylock.toml says where each wheel lies: the index is asked, or with --vendor they are put into a folder.

    \b
    pesto-repro export hello-service --format pylock -o pylock.toml
    pesto-repro export hello-service --format requirements --vendor wheels -o requirements.txt
    pesto-repro export hello-service --format apt
    """
    if vendor is not None and form == "apt":
        raise click.UsageError("--vendor is for wheels, and apt has none")
    found = locked(session.request, session.console, session.store)
    part = choose(found.lock, platform)
    if vendor is not None:
        _vendor(part, workshop(session, found, offline=offline).fetch, session.store, vendor)
    if form == "pylock":
        world = world_of(found.project, session.store, session.console, offline=offline)
        text = _pylock(part, artifacts(found.lock, found.project, world), output, vendor)
    else:
        text = requirements(found.lock, part) if form == "requirements" else apt(found.lock, part)
    return _deliver(session, text, output)


def _pylock(part: PlatformLock, pinned: Artifacts, output: Path | None, vendor: Path | None) -> str:
    """PEP 751, "packages.wheels.path": relative to the lock file, or absolute."""
    folder = output.absolute().parent if output is not None else None
    if vendor is not None:
        return pylock(part, lambda each: _path(vendor.absolute() / each.wheel.name, folder))
    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="index") as pool:
        found = dict(zip(part.packages, pool.map(partial(_asked, pinned, folder), part.packages), strict=True))
    return pylock(part, found.__getitem__)


def _asked(pinned: Artifacts, folder: Path | None, package: PythonPackage) -> Place:
    """Where the configured index, or the project, says that the wheel lies."""
    if package.source is not None:
        raise PestoError(
            f"{package.name} {package.version} is built from source: its wheel lies nowhere",
            "export it with --vendor DIR",
        )
    address = next(iter(pinned.found[package.wheel.digest].urls()), None)
    if address is None:
        raise FetchError(f"{package.name} {package.version}: nobody says where it lies")
    if address.startswith("file:"):
        return _path(Path(unquote(urlsplit(address).path)), folder)
    return "url", public(address)


def _path(path: Path, folder: Path | None) -> Place:
    return "path", Path(os.path.relpath(path, folder)).as_posix() if folder is not None else path.as_posix()


def _vendor(part: PlatformLock, fetch: Callable[[Digest], None], store: Store, folder: Path) -> None:
    """Have every wheel of *part* in *folder*, under its own name; *fetch* brings it into *store*."""
    with ThreadPoolExecutor(PARALLEL, thread_name_prefix="fetch") as pool:
        list(pool.map(fetch, [each.wheel.digest for each in part.packages]))
    folder.mkdir(parents=True, exist_ok=True)
    for each in part.packages:
        path = folder / f".{each.wheel.name}.part"
        with store.open(each.wheel.digest) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        path.replace(folder / each.wheel.name)


def _deliver(session: Session, text: str, output: Path | None) -> int:
    if output is None:
        show(text.rstrip("\n"))
        return 0
    write_text(output, text)
    if session.json:
        show_json({"output": str(output)})
    session.console.info(f"{output}: {human(len(text.encode()))}")
    return 0
