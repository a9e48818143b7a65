"""``IMAGE|PROJECT`` on the command line -> an image whose layers can be read, and the lock that it was made from.

A project's image is made of its layers, as ``build`` does it, but nothing is written. An image is an archive, a layout
or a registry's; its lock is the one that ``--lockfile`` names, or that travels with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pesto_repro.audit.compare import Held, read_config
from pesto_repro.audit.contents import platform_of
from pesto_repro.audit.scan import manifests
from pesto_repro.audit.verify import travelling_lock
from pesto_repro.build.base import Bases
from pesto_repro.build.realise import Lost, persist, realise
from pesto_repro.cli.locked import locked
from pesto_repro.cli.options import Session, Target
from pesto_repro.cli.places import read_place
from pesto_repro.cli.push import find
from pesto_repro.cli.registries import reachable
from pesto_repro.cli.trust import trusted
from pesto_repro.cli.workshop import assembled, workshop
from pesto_repro.cli.world import base_sources
from pesto_repro.errors import LockError, PestoError
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.model import Lock
from pesto_repro.registry.content import Document, StoreContent, documents
from pesto_repro.registry.ports import Content
from pesto_repro.registry.reference import RemoteReference

T = TypeVar("T")


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


def examine(target: Target, use: Callable[[Examined], T], *, offline: bool = False) -> T:
    """What *use* makes of the image that *target* names; it is called again if the store has lost layers meanwhile."""
    session, text = target.session, target.text
    if target.is_project:
        return _project(session, use, offline)
    if session.request.profiles:
        raise PestoError(
            f"{text} is an image: its profiles were chosen when it was built", "leave -p out, or name a project"
        )
    place = read_place(text)
    with reachable(session.console, place.host if isinstance(place, RemoteReference) else None) as registries:
        found = find(place, registries)
        named = session.request.lockfile
        travelling = None if named else travelling_lock(Held(found.content, found.image))
        lock = _read_lock(named) if named else travelling.lock if travelling else None
        name = str(found.reference or found.name or text)
        return use(Examined(found.content, found.image, name, lock))


def _project(session: Session, use: Callable[[Examined], T], offline: bool) -> T:
    found = locked(session.request, session.console, session.store)
    shop = workshop(session, found, offline=offline)
    steps = [step for each in found.plans for step in each.steps]
    name, root = str(found.project.reference), found.project.root
    with base_sources(found.project, session.console, offline=offline) as sources:
        sources = trusted(sources, found.project, found.lock)
        bases = Bases(found.lock, session.store, sources, session.console)

        def attempt(lost: Lost) -> T:
            image = assembled(found, realise(steps, shop, lost), bases)
            content = StoreContent.of(image, session.store, bases)
            return use(Examined(content, documents(content, image.descriptor), name, found.lock, root))

        return persist(attempt, bases.bring, session.store)


def _read_lock(path: Path) -> Lock:
    try:
        return lock_text.loads(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(f"{path} cannot be read: {error}") from None
