"""What can go wrong, as types.

::

    PestoError            an expected failure: message, and a hint that says what to do
    ├── ProjectError      what the user declared is wrong; carries every Problem that was found
    ├── LockError         the lock is missing, edited by hand, or of another version
    │   └── DriftError    the project is no longer what was locked
    ├── ResolveError      the world has no answer: no such package, versions that exclude each other
    ├── FetchError        bytes could not be had
    │   ├── OfflineError  ... because the network was not to be used
    │   ├── MismatchError ... because they are other bytes than those pinned
    │   └── RegistryError ... from a registry, or not sent to one
    ├── BuildError        inputs that cannot become a layer, layers that cannot become an image
    ├── StoreError        the store cannot be read or written
    └── ImageError        an image that breaks the image-spec

Every one of them ends a command with exit code 1; anything else that reaches the top is a bug.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class PestoError(Exception):
    """An expected failure: *message* says what, where and why; *hint* says what to do about it."""

    exit_code = EXIT_FAILURE

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong in one place: *file* relative to the project, *place* a line:column or a key path."""

    file: str
    place: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.place}" if self.place else self.file
        return f"{where}: {self.message}"


class ProjectError(PestoError):
    """What the user declared is wrong. All problems are reported at once."""

    def __init__(self, problems: Iterable[Problem], hint: str | None = None) -> None:
        self.problems = tuple(sorted(set(problems)))
        count = len(self.problems)
        head = "the project has a problem" if count == 1 else f"the project has {count} problems"
        super().__init__("\n  ".join([f"{head}:", *map(str, self.problems)]), hint)


class LockError(PestoError):
    """The lock is missing, unreadable, edited by hand, or of a version this program does not know."""


class DriftError(LockError):
    """The project is no longer what was locked."""


class ResolveError(PestoError):
    """The world has no answer to what was asked."""


class FetchError(PestoError):
    """Bytes could not be had."""


class OfflineError(FetchError):
    """Bytes are not in the store and the network is not to be used; *what* names them."""

    def __init__(self, message: str, hint: str | None = None, what: str = "") -> None:
        super().__init__(message, hint)
        self.what = what


class MismatchError(FetchError):
    """Other bytes than those pinned."""


class RegistryError(FetchError):
    """A registry refuses, cannot be reached, or says what is not true."""


class BuildError(PestoError):
    """Inputs that cannot become a layer, or layers that cannot become an image."""


class StoreError(PestoError):
    """The store cannot be read or written."""


class ImageError(PestoError):
    """An image that breaks the OCI image-spec; carries every violation that was found."""

    def __init__(self, violations: Iterable[str]) -> None:
        self.violations = tuple(violations)
        super().__init__("\n  ".join(["the image is not valid:", *self.violations]))
