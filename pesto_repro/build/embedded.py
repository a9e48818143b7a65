"""Maker "lock": the lock's canonical text in the image, so that the image itself says how to make it again."""

from __future__ import annotations

from collections.abc import Iterator

from pesto_repro.build.entry import Entry, data
from pesto_repro.build.maker import Inputs
from pesto_repro.plan import Step
from pesto_repro.plan.make import LOCK_PLACE


def entries(step: Step, inputs: Inputs) -> Iterator[Entry]:
    """The text ``params["text"]`` at its place."""
    yield data(LOCK_PLACE, step.params["text"].encode())
