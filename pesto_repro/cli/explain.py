"""``explain``: why steps are to be made again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from pesto_repro.audit import explain as reasons
from pesto_repro.audit.explain import Explained, Explanation
from pesto_repro.build.realise import Workshop, known
from pesto_repro.cli.console import show, show_json
from pesto_repro.cli.locked import locked
from pesto_repro.cli.options import Session, project_command
from pesto_repro.cli.workshop import workshop
from pesto_repro.errors import PestoError
from pesto_repro.plan import Step

_MIN_KEY = 6
"""Digits of a key that may name a step."""


@click.command()
@project_command
@click.argument("step", required=False)
def explain(session: Session, step: str | None) -> int:
    """Say for each step of PROJECT's image whether the store has its layer, and if not, which of its inputs changed.

    It is compared with the last build of the project that used this store. STEP is the beginning of a step's key, its
    name, a word of it, or a section of the image, as `plan` shows them.

    \b
    pesto-repro explain hello-service
    pesto-repro explain hello-service numpy
    """
    found = locked(session.request, session.console, session.store)
    shop = workshop(session, found, offline=True)
    told = [
        reasons.explain(plan, found.lock, session.store, lambda each: _is_there(each, shop)) for plan in found.plans
    ]
    wanted = [_only(each, step) for each in told] if step else told
    if not any(each.steps for each in wanted):
        raise PestoError(
            f"no step of the image is called {step}", f"list them with `{session.request.command('plan')}`"
        )
    if session.json:
        platforms = [_json(each) for each in wanted]
        show_json({"reference": str(found.project.reference), "lock": found.lock.content_hash, "platforms": platforms})
        return 0
    for each in wanted:
        for line in _lines(each):
            show(line)
    return 0


def _is_there(step: Step, shop: Workshop) -> bool:
    layer = known(step, shop)
    return layer is not None and shop.store.path(layer.descriptor.digest).exists()


def _only(told: Explained, step: str) -> Explained:
    """The steps that are meant by *step*; what changes the image alone is not asked then."""
    return Explained(told.platform, tuple(each for each in told.steps if _is_called(each.step, step)), ())


def _is_called(step: Step, name: str) -> bool:
    key = name.removeprefix("sha256:")
    by_key = len(key) >= _MIN_KEY and step.key.hex.startswith(key)
    return by_key or name in (step.name, step.section) or name in step.name.replace(",", "").split()


def _json(told: Explained) -> dict[str, Any]:
    steps = [
        {
            "kind": each.step.kind,
            "name": each.step.name,
            "section": each.step.section,
            "step": str(each.step.key),
            "cached": each.there,
            "earlier": f"sha256:{each.earlier}" if each.earlier else None,
            "because": list(each.why),
        }
        for each in told.steps
    ]
    return {"platform": told.platform, "steps": steps, "image": list(told.image)}


def _lines(told: Explained) -> Iterator[str]:
    """The same, for people."""
    yield told.platform
    for each in told.steps:
        yield _line(each)
        yield from (f"      {reason}" for reason in each.why)
    if told.image:
        yield "  the image, without any layer of it"
        yield from (f"      {reason}" for reason in told.image)


def _line(told: Explanation) -> str:
    step = told.step
    return f"  {step.key.hex[:12]}  {'in the store' if told.there else 'to make':<12}  {step.section:<13}  {step.name}"
