"""``PROJECT|IMAGE`` on the command line -> the cell that its commands run in.

A project is built from its lock, as ``build`` does it, but no archive is written: its layers are unpacked from where
they are. An image is an archive, a layout or a registry's (:mod:`~pesto_repro.cli.places`). Of several platforms this
machine's is taken; nothing is emulated.
"""

from __future__ import annotations

import json
import platform
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from pesto_repro.build.base import Bases
from pesto_repro.build.realise import Lost, Workshop, persist, realise
from pesto_repro.cli.locked import Locked, locked
from pesto_repro.cli.options import Session, Target
from pesto_repro.cli.places import read_place
from pesto_repro.cli.push import Found, find
from pesto_repro.cli.registries import reachable
from pesto_repro.cli.trust import require_signed_with, trusted
from pesto_repro.cli.workshop import workshop
from pesto_repro.cli.world import base_sources
from pesto_repro.digest import Digest
from pesto_repro.errors import FetchError, PestoError
from pesto_repro.oci import Descriptor, Layer, Platform, PlatformImage, assemble, assemble_index
from pesto_repro.plan import Plan
from pesto_repro.project import Project
from pesto_repro.registry.content import StoreContent
from pesto_repro.registry.ports import Content
from pesto_repro.registry.reference import RemoteReference
from pesto_repro.sandbox.cell import Cell, image_cell, image_command
from pesto_repro.sandbox.rootfs import Roots


@dataclass(frozen=True, slots=True)
class Rooted:
    """An image on this machine: the *cell* and *command* that its config asks for. *name* is what it is called."""

    name: str
    cell: Cell
    command: tuple[str, ...]
    project: Project | None = None


@contextmanager
def rooted(target: Target, *, offline: bool = False, key: Path | None = None) -> Iterator[Rooted]:
    """What *target* names, ready to run; meanwhile nothing of it goes from the store. Raises PestoError.

    With a *key* it is an image that is signed with it, or none of its layers is fetched.

    SIGTERM and SIGHUP end the program as Ctrl-C does: everything that was started is stopped first.
    """
    session = target.session
    with ExitStack() as stack:
        stack.enter_context(_stoppable())
        roots = stack.enter_context(Roots(session.store, session.console))
        if target.is_project:
            found = _project(session, roots, offline=offline)
        else:
            place = read_place(target.text)
            host = place.host if isinstance(place, RemoteReference) else None
            with reachable(session.console, host) as registries:
                image = find(place, registries)
                if key is not None:
                    require_signed_with(key, image)
                found = _image(image, target.text, roots)
        session.store.release()
        yield found


@contextmanager
def _stoppable() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    told = (each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is not signal.SIG_IGN)  # nohup
    before = {each: signal.signal(each, stop) for each in told}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def here() -> Platform:
    """The platform of this machine."""
    return Platform.of_machine(platform.machine())


def _project(session: Session, roots: Roots, *, offline: bool) -> Rooted:
    found = locked(session.request, session.console, session.store)
    plan = _plan_here(found)
    shop = workshop(session, found, offline=offline)
    with base_sources(found.project, session.console, offline=offline) as sources:
        sources = trusted(sources, found.project, found.lock)
        bases = Bases(found.lock, session.store, sources, session.console)
        root, image = _unpacked(plan, shop, bases, roots)
    config = json.loads(image.config)
    name = str(found.project.reference)
    return Rooted(name, image_cell(config, root), image_command(config), found.project)


def _unpacked(plan: Plan, shop: Workshop, bases: Bases, roots: Roots) -> tuple[Path, PlatformImage]:
    """The root of *plan*'s image; layers that turn out to be lost or broken are brought or made again."""

    def attempt(lost: Lost) -> tuple[Path, PlatformImage]:
        made = realise(plan.steps, shop, lost)
        image = assemble(plan.recipe, [made[step.key].layer for step in plan.steps], bases.image(plan.base))
        return roots.root(image.layers, StoreContent.of(assemble_index([image]), shop.store, bases)), image

    return persist(attempt, bases.bring, shop.store)


def _plan_here(found: Locked) -> Plan:
    plans = [each for each in found.plans if here().runs(each.platform)]
    if not plans:
        raise _elsewhere(str(found.project.reference), [str(each.platform) for each in found.plans])
    return plans[0]


def _image(found: Found, text: str, roots: Roots) -> Rooted:
    name = str(found.reference or found.name or text)
    manifest = _manifest(found, name)
    config = _config(found.content, manifest[0])
    layers = _layers(manifest[1:], config, name)
    root = roots.root(layers, found.content)
    return Rooted(name, image_cell(config, root), image_command(config))


def _manifest(found: Found, name: str) -> tuple[Descriptor, ...]:
    """The config and the layers of the manifest for this machine."""
    manifests = {each.descriptor.digest: each for each in found.image if each.blobs}
    top = found.image[-1]
    if not top.children:
        config = _config(found.content, top.blobs[0])
        stated = [Platform(config.get("os", ""), config.get("architecture", ""), config.get("variant"))]
        children: Sequence[Descriptor] = [top.descriptor]
    else:
        children = top.children
        stated = [each or Platform("unknown", "unknown") for each in top.platforms]
    for child, each in zip(children, stated, strict=True):
        if here().runs(each) and child.digest in manifests:
            return manifests[child.digest].blobs
    raise _elsewhere(name, [str(each) for each in stated])


def _elsewhere(name: str, platforms: Sequence[str]) -> PestoError:
    return PestoError(
        f"{name} is for {', '.join(platforms)}; this machine is {here()}, and nothing is emulated",
        f"build it for {here()} too ([image] platforms in image.toml), or run it on a machine that it is for",
    )


def _config(content: Content, descriptor: Descriptor) -> Mapping[str, Any]:
    try:
        document = json.loads(content.document(descriptor))
    except ValueError as error:
        raise FetchError(f"the config {descriptor.digest} is no JSON document: {error}") from None
    if not isinstance(document, dict):
        raise FetchError(f"the config {descriptor.digest} is no JSON object")
    return document


def _layers(descriptors: Sequence[Descriptor], config: Mapping[str, Any], name: str) -> list[Layer]:
    """config.md, "rootfs": "diff_ids" are those of the layers, from the bottom up."""
    try:
        diff_ids = [Digest.parse(each) for each in config["rootfs"]["diff_ids"]]
        pairs = list(zip(descriptors, diff_ids, strict=True))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FetchError(f"{name}: the config's diff_ids are not those of its layers: {error}") from None
    return [Layer("", name, "", descriptor, diff_id) for descriptor, diff_id in pairs]
