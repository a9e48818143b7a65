"""``vendor``: everything that a build needs as one bundle. And ``build --from``: what asks a bundle first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import click

from pesto_repro.build.base import Bases
from pesto_repro.bundle.make import BundleImage, bundle_of
from pesto_repro.bundle.read import Bundled, read_bundle
from pesto_repro.cli.console import human, show, show_json
from pesto_repro.cli.locked import Locked, locked
from pesto_repro.cli.options import Session, project_command
from pesto_repro.cli.places import Archive, Layout, read_place
from pesto_repro.cli.push import find
from pesto_repro.cli.registries import reachable
from pesto_repro.cli.trust import trusted
from pesto_repro.cli.workshop import workshop
from pesto_repro.cli.world import base_sources, world_of
from pesto_repro.digest import Digest
from pesto_repro.errors import OfflineError, PestoError
from pesto_repro.lock.pins import PinnedFile, pinned_files
from pesto_repro.registry.content import documents
from pesto_repro.registry.reference import RemoteReference
from pesto_repro.sinks import copy_archive, copy_layout


@click.command()
@project_command
@click.option("-o", "--output", required=True, metavar="FILE.tar|oci:DIR", help="Where the bundle goes.")
@click.option("--offline", is_flag=True, help="Never use the network.")
def vendor(session: Session, output: str, offline: bool) -> int:
    """Write everything that a build of PROJECT needs, but the project itself, as one bundle.

    A wheel that was built from source is in it as it was built, with what it was built of and with; of a repository or
    a folder of the project there is the wheel alone. So nothing is built from source where the bundle is used.

    \b
    pesto-repro vendor hello-service -o hello-service.bundle.tar
    pesto-repro build hello-service --from hello-service.bundle.tar --offline
    pesto-repro push hello-service.bundle.tar registry.example/team/hello-service:bundle
    """
    place = read_place(output)
    if isinstance(place, RemoteReference):
        raise PestoError(f"{output} is neither an archive nor a layout", "say -o FILE.tar or -o oci:DIR; then push it")
    found = locked(session.request, session.console, session.store)
    _bring_all(found, session, offline=offline)
    bundle = bundle_of(found.lock)
    _write(bundle, place, session)
    _tell(bundle, output, session)
    return 0


@contextmanager
def bundled(text: str, found: Locked, session: Session, *, offline: bool) -> Iterator[Bundled]:
    """The bundle *text* of ``build --from``, which must be of the project's lock. Raises PestoError."""
    place = read_place(text)
    if isinstance(place, RemoteReference) and offline:
        raise OfflineError(
            f"there is no archive or layout {text}, and the network is not to be used",
            f"copy it first: pesto-repro copy {text} oci:bundle",
        )
    with reachable(session.console, place.host if isinstance(place, RemoteReference) else None) as registries:
        source = find(place, registries)
        bundle = read_bundle(source.content, source.image, text)
        bundle.require(found.lock, f"{session.request.command('vendor')} -o BUNDLE")
        yield Bundled(bundle, session.store, session.console)


def _bring_all(found: Locked, session: Session, *, offline: bool) -> None:
    """Have everything that the lock pins in the store."""
    store, console = session.store, session.console
    pins = pinned_files(found.lock)
    shop = workshop(session, found, offline=offline)
    fetcher = world_of(found.project, store, console, offline=offline).fetcher
    fetcher.many(partial(shop.fetch, each.digest) for each in pins if not _of_base(each))
    with base_sources(found.project, console, offline=offline) as sources:
        bases = Bases(found.lock, store, trusted(sources, found.project, found.lock), console)
        for each in found.lock.platforms:
            bases.image(each.base)  # brings its config
        bases.bring([each.digest for each in pins if _of_base(each) and not store.has(each.digest)])


def _of_base(pin: PinnedFile) -> bool:
    return pin.kind in ("config", "layer")


def _write(bundle: BundleImage, place: Archive | Layout, session: Session) -> None:
    content = bundle.content(session.store)
    write = copy_archive if isinstance(place, Archive) else copy_layout
    with session.console.activity("write", str(place.path), _size(bundle)):
        write(content, documents(content, bundle.descriptor), None, place.path)


def _tell(bundle: BundleImage, output: str, session: Session) -> None:
    digest: Digest = bundle.descriptor.digest
    if session.json:
        parts = [
            {"title": each.title, "digest": str(each.descriptor.digest), "size": each.descriptor.size}
            for each in bundle.parts
        ]
        found = {"output": output, "digest": str(digest), "lock": bundle.lock.content_hash}
        show_json(found | {"size": _size(bundle), "parts": parts})
    else:
        show(f"{output}@{digest}")
    session.console.info(f"{output}: {len(bundle.parts) - 1} files, {human(_size(bundle))}")


def _size(bundle: BundleImage) -> int:
    return sum(each.descriptor.size for each in bundle.parts)
