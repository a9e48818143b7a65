"""``plan``: the steps. ``build``: the image, as an archive or a layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from pesto_repro.build.realise import Realised, Workshop, hidden_paths, known, realise
from pesto_repro.cli.console import human, show, show_json
from pesto_repro.cli.locked import Locked, locked
from pesto_repro.cli.options import Session, project_command
from pesto_repro.cli.world import world_of
from pesto_repro.digest import Digest
from pesto_repro.errors import StoreError
from pesto_repro.fetch.artifacts import artifacts
from pesto_repro.oci import Image, Layer, assemble, assemble_index
from pesto_repro.plan import Step
from pesto_repro.sinks import MissingLayers, write_archive, write_layout

_TRIES = 3


@click.command()
@project_command
def plan(session: Session) -> int:
    """Show the steps of PROJECT's image, their keys, and which of their layers are in the store."""
    found = locked(session.request, session.console)
    shop = _workshop(session, found, offline=True)
    if session.json:
        platforms = [
            {"platform": str(each.platform), "steps": [_step_json(step, shop) for step in each.steps]}
            for each in found.plans
        ]
        show_json({"reference": str(found.project.reference), "lock": found.lock.content_hash, "platforms": platforms})
        return 0
    for each in found.plans:
        show(f"{each.platform}")
        for step in each.steps:
            show(_step_line(step, known(step, shop)))
    return 0


@click.command()
@project_command
@click.option("-o", "--output", metavar="FILE.tar|oci:DIR", help="Default: dist/<name>-<tag>.oci.tar")
@click.option("--offline", is_flag=True, help="Never use the network.")
@click.option("-j", "--jobs", type=click.IntRange(1), help="How many layers are made at once; default: all cores.")
@click.option("-c", "--cache", help="Accepted for old scripts; does nothing.")
def build(session: Session, output: str | None, offline: bool, jobs: int | None, cache: str | None) -> int:
    """Build PROJECT's image from its lock.

    \b
    pesto-repro build hello-service
    pesto-repro build hello-service -p p1 p2 -o oci:image
    """
    if cache is not None:
        session.console.warn(f"-c/--cache {cache} does nothing: what did not change is never built again")
    found = locked(session.request, session.console)
    shop = _workshop(session, found, offline=offline, jobs=jobs)
    target = output or f"dist/{_filename(found)}"
    image, realised = _realised_into(target, found, shop)
    reference = f"{found.project.reference}@{image.digest}"
    if session.json:
        show_json(_build_json(found, image, realised, target))
    else:
        show(reference)
    if any(not each.cached for each in realised.values()):
        for line in dict.fromkeys(line for each in found.plans for line in hidden_paths(each.steps, session.store)):
            session.console.warn(line)
    built = [each for each in realised.values() if not each.cached]
    session.console.info(f"{target}: {len(built)} of {len(realised)} layers made, {human(_total(image))}")
    return 0


def _realised_into(target: str, found: Locked, shop: Workshop) -> tuple[Image, dict[Digest, Realised]]:
    """Realise, assemble, write; layers that turn out to be lost or broken are made again."""
    steps = [step for each in found.plans for step in each.steps]
    lost: frozenset[Digest] = frozenset()
    made: dict[Digest, Realised] = {}
    for _ in range(_TRIES):
        now = realise(steps, shop, lost)
        made = {key: each if each.cached and key not in made else made.get(key, each) for key, each in now.items()}
        image = _assembled(found, now)
        try:
            _write(target, image, found, shop)
            return image, made
        except MissingLayers as error:
            lost = error.digests
    raise StoreError(f"the store at {shop.store.root} loses layers as fast as they are made", "check its disk")


def _assembled(found: Locked, realised: Mapping[Digest, Realised]) -> Image:
    return assemble_index(
        [assemble(each.recipe, [realised[step.key].layer for step in each.steps]) for each in found.plans]
    )


def _write(target: str, image: Image, found: Locked, shop: Workshop) -> None:
    reference = str(found.project.reference)
    if target.startswith("oci:"):
        write_layout(image, reference, Path(target.removeprefix("oci:")), shop.store)
    else:
        write_archive(image, reference, Path(target), shop.store)


def _workshop(session: Session, found: Locked, *, offline: bool, jobs: int | None = None) -> Workshop:
    world = world_of(found.project, session.store, session.console, offline=offline)
    pinned = artifacts(found.lock, found.project, world)
    make = partial(
        Workshop,
        session.store,
        found.local,
        pinned.fetch,
        found.lock.assembly.compression,
        found.lock.assembly.compressor,
        session.console,
    )
    return make(jobs) if jobs else make()


def _filename(found: Locked) -> str:
    reference = found.project.reference
    return f"{reference.name.replace('/', '-')}-{reference.tag}.oci.tar"


def _total(image: Image) -> int:
    return sum(layer.descriptor.size for layer in image.layers().values())


def _step_line(step: Step, layer: Layer | None) -> str:
    state = human(layer.descriptor.size) if layer else "to make"
    return f"  {step.key.hex[:12]}  {state:>9}  {step.section:<13}  {step.name}"


def _step_json(step: Step, shop: Workshop) -> dict[str, Any]:
    layer = known(step, shop)
    return {
        "kind": step.kind,
        "name": step.name,
        "section": step.section,
        "step": str(step.key),
        "inputs": [str(each.digest) for each in step.inputs],
        "cached": layer is not None,
    }


def _build_json(found: Locked, image: Image, realised: Mapping[Digest, Realised], target: str) -> dict[str, Any]:
    return {
        "reference": str(found.project.reference),
        "digest": str(image.digest),
        "lock": found.lock.content_hash,
        "output": target,
        "platforms": [
            {
                "platform": str(each.platform),
                "manifest": str(each.descriptor.digest),
                "config": str(each.config_descriptor.digest),
                "layers": list(_layers_json(plan.steps, realised)),
            }
            for each, plan in zip(image.platforms, found.plans, strict=True)
        ],
    }


def _layers_json(steps: Iterable[Step], realised: Mapping[Digest, Realised]) -> Iterable[dict[str, Any]]:
    for step in steps:
        each = realised[step.key]
        yield {
            "kind": step.kind,
            "name": step.name,
            "step": str(step.key),
            "cached": each.cached,
            "diff_id": str(each.layer.diff_id),
            "digest": str(each.layer.descriptor.digest),
            "size": each.layer.descriptor.size,
        }
