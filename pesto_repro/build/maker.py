"""What a maker is, and what it is given: a function from a step and its open inputs to the entries of a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import IO, BinaryIO, Protocol

from pesto_repro.build.entry import Entry, Opener
from pesto_repro.digest import Digest
from pesto_repro.plan import Step


class Shelf(Protocol):
    """Where a maker puts what it found out about an input, for others; what is there may be gone at any time."""

    def find(self, kind: str, digest: Digest) -> str | None:
        """What was put there about the input *digest*."""

    def put(self, kind: str, digest: Digest, text: str) -> None:
        """Keep *text*, which follows from the input *digest* and from *kind* alone."""


class NoShelf:
    """A shelf on which nothing stays."""

    def find(self, kind: str, digest: Digest) -> str | None:
        return None

    def put(self, kind: str, digest: Digest, text: str) -> None:
        pass


NO_SHELF = NoShelf()


@dataclass(frozen=True, slots=True)
class Inputs:
    """A step's inputs, by digest. What a maker enters into *stack* stays open until its layer is written."""

    open: Callable[[Digest], BinaryIO]
    scratch: Callable[[], AbstractContextManager[IO[bytes]]]
    stack: ExitStack
    shelf: Shelf = NO_SHELF

    def opener(self, digest: Digest) -> Opener:
        """Opens the input anew at each call."""
        return lambda: self.open(digest)

    def size(self, digest: Digest) -> int:
        """The size of an input in bytes."""
        with self.open(digest) as stream:
            return stream.seek(0, 2)

    def read(self, digest: Digest) -> bytes:
        """A small input whole."""
        with self.open(digest) as stream:
            return stream.read()


Maker = Callable[[Step, Inputs], Iterable[Entry]]
