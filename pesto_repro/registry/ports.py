"""The room's ports: where an image's bytes are, and a repository of a registry as the rest of the program sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from pesto_repro.digest import Digest
from pesto_repro.oci import Descriptor


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index, byte-exact."""

    media_type: str
    digest: Digest
    data: bytes


class Content(Protocol):
    """An image's bytes: an archive, a layout, a store, a repository. May be asked by several threads at once."""

    def document(self, descriptor: Descriptor) -> bytes:
        """A config, manifest or index whole, verified. Raises FetchError."""

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        """A blob as a stream with ``read`` and its descriptor's size; may be opened again. Raises FetchError.

        Whoever reads to the end has the right bytes, or an error.
        """


class Repository(Protocol):
    """One repository of one registry. Methods raise RegistryError (FetchError's child) within the time-out."""

    host: str
    name: str

    def manifest(self, reference: str) -> Manifest:
        """By tag or ``sha256:...``; index and Docker types accepted; verified by its digest."""

    def has_manifest(self, reference: str) -> Digest | None:
        """HEAD: its digest; None if it is not there."""

    def has_blob(self, digest: Digest) -> bool:
        """HEAD."""

    def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        """A verified stream: flat memory, resumed on a cut connection; a wrong byte is an error before the end."""

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """A small blob whole."""

    def mount(self, digest: Digest, source: str) -> bool:
        """POST ?mount=&from=: True if mounted; False if the registry would rather be sent the bytes."""

    def push_blob(self, descriptor: Descriptor, opener: Callable[[], AbstractContextManager[BinaryIO]]) -> None:
        """POST, PUT with a streaming body; *opener* is called again for each try."""

    def push_manifest(self, reference: str, manifest: Manifest) -> bool:
        """PUT, byte-exact; whether the registry now lists it by itself as a referrer of its subject."""

    def referrers(self, subject: Digest) -> tuple[bytes, ...] | None:
        """GET /referrers/: the image indices (a page each) of what refers to *subject*; None without that API."""

    def tags(self) -> Iterator[str]:
        """Every tag."""
