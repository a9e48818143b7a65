"""A tag whose manifest is a list that several writers add to, in a registry that knows no "only if unchanged".

Reading, adding and writing back loses what another wrote in between. So every writer stays until its entries are
sure to stay:

* Read, add what is missing, write; wait; read again. What is gone is added again, what others wrote is kept, and so
  is whatever was seen before: its writer may have left.
* The wait is longer than any write of this writer took, from its read to its end, several times over. Whoever read
  before us and writes after us has then written, and its loss of our entries is seen. (Nothing but a condition in the
  registry could promise more: a writer that stands still for longer than the others wait can still lose something.)
* Waits differ by chance, so that writers who began together do not meet again.
* Entries have an order of their own: in whatever order they come, the same entries are the same bytes.

What is to be done is decided by :func:`additions`, which only yields; :func:`add` does it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pesto_repro.errors import FetchError, RegistryError
from pesto_repro.registry.ports import Manifest, Repository

Entries = Mapping[str, Any]
"""The list's entries, each by what tells it from others."""

QUIET = 0.5
"""Seconds: the shortest wait before a written list is believed to stay."""
_MARGIN = 4
"""How many times longer than the slowest write a wait is, at least."""
ROUNDS = 25


@dataclass(frozen=True, slots=True)
class Read:
    """Answer with the entries that the tag has now, and the time before they were asked for."""


@dataclass(frozen=True, slots=True)
class Write:
    """Put *entries* there; answer with the time when that was done."""

    entries: Entries


@dataclass(frozen=True, slots=True)
class Wait:
    """Let *seconds* go by."""

    seconds: float


class Form(Protocol):
    """How a list is written as a manifest."""

    def read(self, manifest: Manifest) -> Entries:
        """The entries of what the tag names. Raises FetchError if that is no such list."""

    def write(self, entries: Entries, repository: Repository) -> Manifest:
        """The manifest that lists *entries*, whatever it needs being in *repository*."""


Steps = Generator[Read | Write | Wait, Any, bool]


def additions(mine: Entries, chance: Callable[[], float]) -> Steps:
    """The steps after which *mine* are in the list to stay: False if others take them out again and again."""
    wanted, slowest = dict(mine), 0.0
    for _ in range(ROUNDS):
        now, began = yield Read()
        wanted = {**now, **wanted}
        if wanted.keys() <= now.keys():
            return True
        slowest = max(slowest, (yield Write(wanted)) - began)
        yield Wait(max(QUIET, _MARGIN * slowest) * (1 + chance()))
    return False


def add(
    repository: Repository,
    tag: str,
    mine: Entries,
    form: Form,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    chance: Callable[[], float] = random.random,
) -> None:
    """Have *mine* in the list at *tag*; nothing is written if they are in it. Raises FetchError."""

    def done(step: Read | Write | Wait) -> object:
        began = clock()
        if isinstance(step, Read):
            return read(repository, tag, form), began
        if isinstance(step, Write):
            repository.push_manifest(tag, form.write(step.entries, repository))
            return clock()
        sleep(step.seconds)
        return None

    if not _followed(additions(mine, chance), done):
        raise RegistryError(
            f"{repository.host}/{repository.name}: others write {tag} again and again, and lose what is added",
            "run the command again",
        )


def _followed(steps: Steps, done: Callable[[Read | Write | Wait], object]) -> bool:
    """Do every step; what they come to."""
    answer: object = None
    while True:
        try:
            answer = done(steps.send(answer))
        except StopIteration as end:
            return bool(end.value)


def read(repository: Repository, tag: str, form: Form) -> Entries:
    """The entries at *tag*; none if there is no such tag. Raises FetchError."""
    digest = repository.has_manifest(tag)
    if digest is None:
        return {}
    try:
        return form.read(repository.manifest(str(digest)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        where, reason = f"{repository.host}/{repository.name}:{tag}", f"{type(error).__name__}: {error}"
        raise FetchError(f"{where} is not what the image-spec says: {reason}") from None
