"""``IMAGE|PROJECT`` on the command line -> an image whose layers can be read, and the lock that it was made from.

A project's image is made of its layers, as ``build`` does it, but nothing is written. An image is an archive, a layout
or a registry's; its lock is the one that ``--lockfile`` names, or that travels with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from pesto_repro.audit.compare import Held
from pesto_repro.audit.contents import platform_of
from pesto_repro.audit.scan import manifests, read_config
from pesto_repro.audit.verify import travelling_lock
from pesto_repro.build.base import Bases
from pesto_repro.build.realise import realise
from pesto_repro.cli.build import assembled, workshop
from pesto_repro.cli.console import Console
from pesto_repro.cli.locked import Request, locked
from pesto_repro.cli.options import Session, talking_command
from pesto_repro.cli.places import read_place
from pesto_repro.cli.push import find
from pesto_repro.cli.registries import reachable
from pesto_repro.cli.world import base_sources, store_at
from pesto_repro.digest import Digest
from pesto_repro.errors import LockError, PestoError, StoreError
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.model import Lock
from pesto_repro.registry.content import Document, LostLayers, StoreContent, documents
from pesto_repro.registry.ports import Content
from pesto_repro.registry.reference import RemoteReference

_TRIES = 3
T = TypeVar("T")
_OPTIONS = [
    click.argument("target", metavar="IMAGE|PROJECT"),
    click.option("-p", "--profile", "--profiles", "profiles", multiple=True, metavar="PROFILE...", help="Profiles."),
    click.option("--lockfile", type=click.Path(path_type=Path), help="The lock's place, if not the usual one."),
    click.option("--store", type=click.Path(path_type=Path), help="The store. [env: PESTO_REPRO_STORE]"),
    click.option("--offline", is_flag=True, help="Make a project's layers without the network."),
]


@dataclass(frozen=True, slots=True)
class Examined:
    """An image: its bytes, its documents (bottom-up), what it is called. *project*: the folder it was made from."""

    content: Content
    image: Sequence[Document]
    name: str
    lock: Lock | None
    project: Path | None = None

    def manifest(self, platform: str | None) -> Document:
        """The one for *platform*; it must be named if there are several."""
        found = dict(zip(self.platforms, manifests(self.image), strict=True))
        if platform is None and len(found) == 1:
            return next(iter(found.values()))
        if platform in found:
            return found[platform]
        said = f"is not for {platform}, but" if platform else "is"
        raise PestoError(f"{self.name} {said} for {', '.join(found)}", "choose one of them with --platform")

    @property
    def platforms(self) -> list[str]:
        """What the index says of each manifest; of a single one nothing is said there."""
        root = self.image[-1]
        if not root.children:
            return [str(platform_of(read_config(root, self.content)))]
        stated = dict(zip((each.digest for each in root.children), root.platforms, strict=True))
        return [str(stated[each.descriptor.digest]) for each in manifests(self.image)]


def examined_command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of commands on an image or a project; *function* gets a Session, the target and ``offline``."""

    @wraps(function)
    def wrapper(
        console: Console,
        as_json: bool,
        target: str,
        profiles: tuple[str, ...],
        lockfile: Path | None,
        store: Path | None,
        **rest: Any,
    ) -> Any:
        session = Session(Request(Path(target), profiles, lockfile), store_at(store), console, as_json)
        return function(session, target, **rest)

    command = talking_command(wrapper)
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def is_project(target: str) -> bool:
    """Whether *target* is a PESTO project, or one of its build.json files."""
    return target.endswith(".json") or (Path(target) / "pesto").is_dir()


def examine(target: str, session: Session, use: Callable[[Examined], T], *, offline: bool = False) -> T:
    """What *use* makes of the image that *target* names; it is called again if the store has lost layers meanwhile."""
    if is_project(target):
        return _project(session, use, offline)
    if session.request.profiles:
        raise PestoError(
            f"{target} is an image: its profiles were chosen when it was built", "leave -p out, or name a project"
        )
    place = read_place(target)
    with reachable(session.console, place.host if isinstance(place, RemoteReference) else None) as registries:
        found = find(place, registries)
        named = session.request.lockfile
        travelling = None if named else travelling_lock(Held(found.content, found.image))
        lock = _read_lock(named) if named else travelling.lock if travelling else None
        name = str(found.reference or found.name or target)
        return use(Examined(found.content, found.image, name, lock))


def _project(session: Session, use: Callable[[Examined], T], offline: bool) -> T:
    found = locked(session.request, session.console)
    shop = workshop(session, found, offline=offline)
    steps = [step for each in found.plans for step in each.steps]
    name, root = str(found.project.reference), found.project.root
    with base_sources(found.project, session.console, offline=offline) as sources:
        bases = Bases(found.lock, session.store, sources, session.console)
        lost = frozenset[Digest]()
        for _ in range(_TRIES):
            image = assembled(found, realise(steps, shop, lost), bases)
            content = StoreContent.of(image, session.store, bases)
            try:
                return use(Examined(content, documents(content, image.descriptor), name, found.lock, root))
            except LostLayers as error:
                lost = bases.bring(error.digests)
    raise StoreError(f"the store at {session.store.root} loses layers as fast as they are made", "check its disk")


def _read_lock(path: Path) -> Lock:
    try:
        return lock_text.loads(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(f"{path} cannot be read: {error}") from None
