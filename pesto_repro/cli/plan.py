"""``plan``: the steps of an image, and which of their layers the store has."""

from __future__ import annotations

from typing import Any

import click

from pesto_repro.build.realise import Workshop, known
from pesto_repro.cli.console import human, show, show_json
from pesto_repro.cli.locked import locked
from pesto_repro.cli.options import Session, project_command
from pesto_repro.cli.workshop import workshop
from pesto_repro.oci import Layer
from pesto_repro.plan import Step


@click.command()
@project_command
def plan(session: Session) -> int:
    """Show the steps of PROJECT's image, their keys, and which of their layers are in the store."""
    found = locked(session.request, session.console, session.store)
    shop = workshop(session, found, offline=True)
    if session.json:
        platforms = [
            {
                "platform": str(each.platform),
                **({"base": each.base.original, "manifest": each.base.manifest} if each.base else {}),
                **({"uses": list(each.uses)} if each.uses else {}),
                "steps": [_step_json(step, shop) for step in each.steps],
            }
            for each in found.plans
        ]
        show_json({"reference": str(found.project.reference), "lock": found.lock.content_hash, "platforms": platforms})
        return 0
    for each in found.plans:
        show(f"{each.platform}")
        if each.base is not None:
            size = human(sum(layer.size for layer in each.base.layers))
            show(f"  {each.base.manifest[7:19]}  {size:>9}  {'base':<13}  {each.base.original}")
        if each.uses:
            show(f"  {'':<12}  {'':>9}  {'base':<13}  brings, and they are used: {', '.join(each.uses)}")
        for step in each.steps:
            show(_step_line(step, known(step, shop)))
    return 0


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
