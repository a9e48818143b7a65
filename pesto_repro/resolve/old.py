"""What an earlier lock pins, how much of that stays, and the base image that it leads to."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pesto_repro.build.base import Source, Sources
from pesto_repro.digest import Digest
from pesto_repro.lock.model import DebianPackage, Lock, PlatformLock, PythonPackage
from pesto_repro.oci import Descriptor
from pesto_repro.resolve import base_image


@dataclass(frozen=True, slots=True)
class Old:
    """What an earlier lock pins, and how much of it is to be renewed.

    *whole* is False if pins were lost, in a merge for one; *packages* names those to renew.
    """

    lock: Lock | None = None
    whole: bool = True
    everything: bool = False
    packages: tuple[str, ...] = ()

    def pins(self, platform: str) -> PlatformLock | None:
        """What is pinned for *platform*, unless everything is to be renewed."""
        return None if self.everything else self._locked(platform)

    def renews(self, pinned: tuple[DebianPackage, ...] | tuple[PythonPackage, ...]) -> bool:
        """Is any of *pinned*, or of what those are built with, to be renewed, or were some lost?"""
        names = {each.name for each in pinned}
        for each in pinned:
            if isinstance(each, PythonPackage) and each.source is not None:
                names |= {package.name for package in each.source.requires}
        return not self.whole or not names.isdisjoint(self.packages)

    def keeps(self, name: str) -> bool:
        """Is the pin of package *name* to stay?"""
        return not self.everything and name not in self.packages

    def seen(self, platform: str, packages: tuple[DebianPackage, ...]) -> tuple[DebianPackage, ...]:
        """*packages*, those that were pinned before with the snapshot in which they were seen first."""
        locked = self._locked(platform)
        pinned = (*locked.debian, *locked.build) if locked else ()
        known = {(each.name, each.sha256): each for each in pinned}
        return tuple(known.get((each.name, each.sha256), each) for each in packages)

    def base(self, platform: str, wanted: base_image.Asked) -> base_image.Found | None:
        """What is known of the base image that was locked, as far as that answers what is *wanted* of it now."""
        locked = self._locked(platform)
        if locked is None or locked.base is None or self.lock is None:
            return None
        before = self.lock.input
        if locked.base.original != wanted.original or before.python != wanted.python:
            return None
        if wanted.packages and not before.system_packages:
            return None
        return base_image.Found(locked.base, locked.python)

    def _locked(self, platform: str) -> PlatformLock | None:
        platforms = self.lock.platforms if self.lock is not None else ()
        return next((each for each in platforms if each.platform == platform), None)


class Lookup:
    """The base image called *name*, looked up at most once for all platforms, and only if something must be known."""

    def __init__(self, name: str, old: Old, sources: Sources) -> None:
        self._name, self._sources, self._lock = name, sources, threading.Lock()
        before = old.lock.platforms if old.lock is not None and not old.everything else ()
        pinned = [each.base.root for each in before if each.base is not None and each.base.original == name]
        self.pinned = Digest.parse(pinned[0]) if pinned else None
        self._found: tuple[Source, Descriptor] | None = None

    def found(self) -> tuple[Source, Descriptor]:
        """Where it lies, and what its name leads to; what it led to before, if that is pinned.

        So a platform that is added stands on the same index as the others, however the name has moved meanwhile.
        """
        with self._lock:
            if self._found is None:
                source = self._sources(self._name)
                self._found = source, source.root(self.pinned)
            return self._found
