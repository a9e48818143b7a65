"""``build``: the image, as an archive or a layout, or pushed to a registry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pesto_repro.audit.remembered import remember
from pesto_repro.build.base import Bases
from pesto_repro.build.realise import Lost, Realised, Workshop, hidden_paths, persist
from pesto_repro.build.shared import Shared
from pesto_repro.cli.cache import CacheChoice, cache_options, shared_build
from pesto_repro.cli.console import human, show, show_json
from pesto_repro.cli.kept import remember_build
from pesto_repro.cli.locked import Locked, locked
from pesto_repro.cli.options import Session, project_command
from pesto_repro.cli.places import Pushed, pushed_json, read_target, tagged
from pesto_repro.cli.trust import trusted
from pesto_repro.cli.workshop import assembled, workshop
from pesto_repro.cli.world import base_sources
from pesto_repro.digest import Digest
from pesto_repro.errors import PestoError
from pesto_repro.oci import Image, Layer
from pesto_repro.plan import Step
from pesto_repro.registry.content import BASE, Document, StoreContent, documents
from pesto_repro.registry.reference import RemoteReference
from pesto_repro.sinks import write_archive, write_layout

if TYPE_CHECKING:
    from pesto_repro.audit.attachments import Attachment


@click.command()
@project_command
@click.option(
    "-o", "--output", metavar="FILE.tar|oci:DIR", help="Default: dist/<name>-<tag>.oci.tar, or nothing with --push."
)
@click.option("--push", "references", multiple=True, metavar="REF", help="Push it as REF; may be said several times.")
@click.option("--attach", is_flag=True, help="With --push: attach the lock, bills of materials and provenance, too.")
@click.option("--from", "bundle", metavar="BUNDLE", help="Take what is needed out of a bundle that `vendor` made.")
@click.option("--offline", is_flag=True, help="Never use the network.")
@click.option("-j", "--jobs", type=click.IntRange(1), help="How many layers are made at once; default: all cores.")
@cache_options
def build(
    session: Session,
    output: str | None,
    references: tuple[str, ...],
    attach: bool,
    bundle: str | None,
    offline: bool,
    jobs: int | None,
    cache: CacheChoice,
) -> int:
    """Build PROJECT's image from its lock.

    \b
    pesto-repro build hello-service
    pesto-repro build hello-service -p p1 p2 -o oci:image
    pesto-repro build hello-service --push registry.example/team/hello-service:1.0.0
    pesto-repro build hello-service --push registry.example/team/hello-service     with the project's own tag
    pesto-repro build hello-service --push registry.example/team/hello-service --attach
    pesto-repro build hello-service --from hello-service.bundle.tar --offline
    """
    if attach and not references:
        raise click.UsageError("--attach is for what --push sends")
    if references and offline:
        raise PestoError("--push and --offline exclude each other", "build offline, then run `pesto-repro push`")
    found = locked(session.request, session.console, session.store)
    targets = tuple(read_target(each, found.project.reference.tag) for each in references)
    shop = workshop(session, found, offline=offline, jobs=jobs)
    target = output or (None if targets else f"dist/{_filename(found)}")
    host = targets[0].host if targets else None
    with ExitStack() as stack:
        sources = stack.enter_context(base_sources(found.project, session.console, host, offline=offline))
        sources = trusted(sources, found.project, found.lock)
        if bundle is not None:
            from pesto_repro.cli.vendor import bundled  # imported late: most builds have no bundle

            given = stack.enter_context(bundled(bundle, found, session, offline=offline))
            shop, sources = replace(shop, fetch=given.fetch(shop.fetch)), given.sources(sources)
        shared = shared_build(cache, found.project.root, shop, host, offline=offline)
        bases = Bases(found.lock, session.store, sources, session.console)
        built = _built(target, _Targets(targets, attach), found, shared, bases)
    remember(found.plans, found.lock, session.store)
    remember_build(session, found, built.image, built.output)
    if session.json:
        show_json(_build_json(found, built))
    else:
        show(f"{found.project.reference}@{built.image.digest}")
    _tell(built, found, session)
    return 0


@dataclass(frozen=True, slots=True)
class _Targets:
    """Where an image is pushed to; *attach*: with its lock, bills of materials and provenance."""

    references: tuple[RemoteReference, ...]
    attach: bool = False


@dataclass(frozen=True, slots=True)
class _Built:
    """A finished image: where it was written, how each step's layer came to be, what was pushed and attached."""

    image: Image
    output: str | None
    realised: Mapping[Digest, Realised]
    pushed: tuple[Pushed, ...]
    attached: list[dict[str, Any]]


def _built(output: str | None, targets: _Targets, found: Locked, shared: Shared, bases: Bases) -> _Built:
    """Realise, assemble, write, push; layers that turn out to be lost or broken are brought or made again."""
    steps = [step for each in found.plans for step in each.steps]
    made: dict[Digest, Realised] = {}

    def attempt(lost: Lost) -> _Built:
        now = shared.realise(steps, lost)
        made.update({key: _first(made.get(key, each), each) for key, each in now.items()})
        image = assembled(found, now, bases)
        if output is not None:
            _write(output, image, found, shared.shop)
        shared.offer(now.values())
        return _Built(image, output, made, *_pushed(image, targets, found, shared, bases))

    return persist(attempt, bases.bring, shared.shop.store)


def _write(target: str, image: Image, found: Locked, shop: Workshop) -> None:
    reference = str(found.project.reference)
    if target.startswith("oci:"):
        write_layout(image, reference, Path(target.removeprefix("oci:")), shop.store)
    else:
        write_archive(image, reference, Path(target), shop.store)


def _first(before: Realised, now: Realised) -> Realised:
    """How a layer came to be: what is made and then read again was made."""
    return before if before.layer == now.layer and not before.cached else now


def _pushed(
    image: Image, targets: _Targets, found: Locked, shared: Shared, bases: Bases
) -> tuple[tuple[Pushed, ...], list[dict[str, Any]]]:
    """Push, and attach; what is to be attached is there before anything is pushed."""
    references = targets.references
    if not references:
        return (), []
    from pesto_repro.cli.push import Pusher  # imported late: most builds push nothing
    from pesto_repro.cli.registries import reachable

    shop = shared.shop
    content = StoreContent.of(image, shop.store, bases)
    parts = documents(content, image.descriptor)
    attached = _attachments(parts, content, references[0], found) if targets.attach else ()
    with reachable(shop.reporter, references[0].host) as registries:
        pusher = Pusher(content, parts, registries(), shop.reporter)
        for host in {each.host for each in references}:
            pusher.mountable(host, bases.mountable(host) | shared.mountable(host))
        pushed = tuple(pusher.push(references))
        if not attached:
            return pushed, []
        from pesto_repro.cli.attach import attach_everywhere

        return pushed, attach_everywhere(parts, attached, references, registries(), shop.reporter)


def _attachments(
    image: tuple[Document, ...], content: StoreContent, reference: RemoteReference, found: Locked
) -> tuple[Attachment, ...]:
    from pesto_repro.cli.attach import of_locked  # imported late: most builds attach nothing

    return of_locked(found.project, found.lock, content, image, tagged(reference))


def _tell(built: _Built, found: Locked, session: Session) -> None:
    """What else is worth knowing."""
    new = [each for each in built.realised.values() if not each.cached]
    if new:
        for line in dict.fromkeys(line for each in found.plans for line in hidden_paths(each.steps, session.store)):
            session.console.warn(line)
    where = built.output or str(found.project.reference)
    borrowed = sum(each.origin is not None for each in built.realised.values())
    said = f"{len(new)} of {len(built.realised)} layers made{f', {borrowed} from the cache' if borrowed else ''}"
    session.console.info(f"{where}: {said}, {human(_total(built.image))}")


def _filename(found: Locked) -> str:
    reference = found.project.reference
    return f"{reference.name.replace('/', '-')}-{reference.tag}.oci.tar"


def _total(image: Image) -> int:
    return sum(layer.descriptor.size for layer in image.layers().values())


def _build_json(found: Locked, built: _Built) -> dict[str, Any]:
    return {
        "reference": str(found.project.reference),
        "digest": str(built.image.digest),
        "lock": found.lock.content_hash,
        "output": built.output,
        "platforms": [
            {
                "platform": str(each.platform),
                "manifest": str(each.descriptor.digest),
                "config": str(each.config_descriptor.digest),
                "layers": [*_base_json(each.layers), *_layers_json(plan.steps, built.realised)],
            }
            for each, plan in zip(built.image.platforms, found.plans, strict=True)
        ],
        "pushed": [pushed_json(each) for each in built.pushed],
        **({"attached": built.attached} if built.attached else {}),
    }


def _base_json(layers: Iterable[Layer]) -> Iterable[dict[str, Any]]:
    """Layers of the base, which nobody made here: they have no step."""
    for each in layers:
        if each.kind == BASE:
            described = {"diff_id": str(each.diff_id), "digest": str(each.descriptor.digest)}
            yield {"kind": BASE, "name": each.name, **described, "size": each.descriptor.size}


def _layers_json(steps: Iterable[Step], realised: Mapping[Digest, Realised]) -> Iterable[dict[str, Any]]:
    for step in steps:
        each = realised[step.key]
        yield {
            "kind": step.kind,
            "name": step.name,
            "step": str(step.key),
            "cached": each.cached,
            "origin": each.origin,
            "diff_id": str(each.layer.diff_id),
            "digest": str(each.layer.descriptor.digest),
            "size": each.layer.descriptor.size,
        }
