"""What a build leaves in the store for ``explain``: two kinds of cheap records, so that a later command can compare.

* ``explain/<key>``: what a step's key says: its kind, the versions of its makers, its parameters and inputs;
* ``last/<slot>``: the steps of the last build, with what of its image no step depends on. One slot is that of the
  project with these profiles and this platform, another that of any profiles.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pesto_repro.digest import canonical_json, digest_of_value
from pesto_repro.lock.model import Lock
from pesto_repro.oci import Recipe
from pesto_repro.plan import Plan
from pesto_repro.store import Store


def remember(plans: Iterable[Plan], lock: Lock, store: Store) -> None:
    """Keep what a later explanation needs; nothing is written where all is known already."""
    for plan in plans:
        build = build_document(plan, lock)
        text = canonical_json(build).decode()
        slots = slots_of(plan, lock)
        if all((store.record("last", slot) or {}).get("build") == text for slot in slots):
            continue
        for step in plan.steps:
            if store.record("explain", step.key.hex) is None:
                store.remember("explain", step.key.hex, {"step": canonical_json(step.document).decode()})
        for slot in slots:
            store.remember("last", slot, {"build": text})


def build_document(plan: Plan, lock: Lock) -> dict[str, Any]:
    """The steps of a build, and what else decides its image."""
    return {
        "steps": [[step.section, step.kind, step.name, step.key.hex] for step in plan.steps],
        "layers.max": lock.input.max_layers,
        "compressor": lock.assembly.compressor,
        "base": f"{plan.base.original}@{plan.base.manifest}" if plan.base else "",
        "config": _recipe(plan.recipe),
    }


def _recipe(recipe: Recipe) -> dict[str, Any]:
    return {
        "created": recipe.created,
        "user": recipe.user,
        "env": dict(each.partition("=")[::2] for each in recipe.env),
        "cmd": list(recipe.cmd),
        "ports": list(recipe.ports),
        "labels": dict(recipe.labels),
        "healthcheck": list(recipe.healthcheck),
    }


def slots_of(plan: Plan, lock: Lock) -> tuple[str, ...]:
    """Where the last build of this project is remembered: with its profiles; with any."""
    name, platform = lock.input.name, str(plan.platform)
    exact, any_profiles = [name, platform, list(lock.input.profiles)], [name, platform]
    return digest_of_value(exact).hex, digest_of_value(any_profiles).hex
