"""A locked project as something to make: where its steps are realised, and the image that their layers are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from pesto_repro.build.base import Bases
from pesto_repro.build.realise import Realised, Workshop
from pesto_repro.cli.benches import maker
from pesto_repro.cli.locked import Locked
from pesto_repro.cli.options import Session
from pesto_repro.cli.world import world_of
from pesto_repro.digest import Digest
from pesto_repro.fetch.artifacts import artifacts
from pesto_repro.oci import Image, assemble, assemble_index


def workshop(session: Session, found: Locked, *, offline: bool, jobs: int | None = None) -> Workshop:
    """Where the steps of *found* are made: with the session's store, and this machine's ways to fetch."""
    world = world_of(found.project, session.store, session.console, offline=offline)
    pinned = artifacts(found.lock, found.project, world, maker(found.project, world, offline))
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


def assembled(found: Locked, realised: Mapping[Digest, Realised], bases: Bases) -> Image:
    """The image of all platforms, from the layers of its steps."""
    return assemble_index(
        [
            assemble(each.recipe, [realised[step.key].layer for step in each.steps], bases.image(each.base))
            for each in found.plans
        ]
    )
