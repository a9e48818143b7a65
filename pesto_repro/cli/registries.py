"""Registries as this machine's configuration knows them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path

from pesto_repro.cli.registry_access import access_from_environment
from pesto_repro.progress import Reporter
from pesto_repro.registry.client import Registries

Reach = Callable[[], Registries]
"""Gives the registries; nothing is read of the environment before it is called."""


@contextmanager
def reachable(reporter: Reporter, target: str | None = None) -> Iterator[Reach]:
    """The registries while the context lasts; *target* is the host that the command names, if any."""
    with ExitStack() as stack:

        @cache
        def registries() -> Registries:
            access = access_from_environment(os.environ, Path.home(), target)
            return stack.enter_context(closing(Registries(access, reporter)))

        yield registries
