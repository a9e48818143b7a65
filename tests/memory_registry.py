"""A repository in memory, as faithful as the port asks: it verifies what it is sent, and it may fail on demand."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO

from pesto_repro.digest import Digest, chunks
from pesto_repro.errors import RegistryError
from pesto_repro.oci import Descriptor, MediaType
from pesto_repro.registry.content import blobs_of, read_document
from pesto_repro.registry.ports import Manifest
from pesto_repro.registry.referrers import entry_of


class Refused(RegistryError):
    """What a client would raise for an answer that is an error."""


@dataclass
class MemoryRegistry:
    """Repositories of one host, which mount from each other unless *mounts* is off.

    *log* has each request as ``VERB what``, in the order in which they came; *sent* the bytes of blobs received.
    *fail* is called with each of them first, and may raise. With *lists* it has the referrers API.
    """

    host: str = "registry.example"
    mounts: bool = True
    lists: bool = False
    log: list[str] = field(default_factory=list)
    sent: int = 0
    fail: Callable[[str], None] = lambda request: None
    repositories: dict[str, MemoryRepository] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def repository(self, name: str) -> MemoryRepository:
        """The repository *name*, empty at first."""
        return self.repositories.setdefault(name, MemoryRepository(self, name))

    def verbs(self) -> Counter[str]:
        """How many requests there were of each kind."""
        return Counter(each.partition(" ")[0] for each in self.log)

    def asked(self, request: str) -> None:
        """Note one request, and fail it if that is wanted."""
        with self.lock:
            self.log.append(request)
        self.fail(request)


@dataclass
class MemoryRepository:
    """One repository (the port's docstrings say what each method does)."""

    registry: MemoryRegistry
    name: str
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    host: str = ""

    def __post_init__(self) -> None:
        self.host = self.registry.host

    def manifest(self, reference: str) -> Manifest:
        self.registry.asked(f"GET-MANIFEST {reference}")
        if reference not in self.manifests:
            raise Refused(f"{self.host}/{self.name} has no {reference}")
        return self.manifests[reference]

    def has_manifest(self, reference: str) -> Digest | None:
        self.registry.asked(f"HEAD-MANIFEST {reference}")
        return self.manifests[reference].digest if reference in self.manifests else None

    def has_blob(self, digest: Digest) -> bool:
        self.registry.asked(f"HEAD-BLOB {digest}")
        return digest in self.blobs

    def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        self.registry.asked(f"GET-BLOB {descriptor.digest}")
        return io.BytesIO(self._blob(descriptor))

    def read_blob(self, descriptor: Descriptor) -> bytes:
        self.registry.asked(f"GET-BLOB {descriptor.digest}")
        return self._blob(descriptor)

    def mount(self, digest: Digest, source: str) -> bool:
        self.registry.asked(f"MOUNT {digest}")
        found = self.registry.repository(source).blobs.get(digest)
        if found is None or not self.registry.mounts:
            return False
        self.blobs[digest] = found
        return True

    def push_blob(self, descriptor: Descriptor, opener: Callable[[], AbstractContextManager[BinaryIO]]) -> None:
        self.registry.asked(f"PUSH-BLOB {descriptor.digest}")
        with opener() as stream:
            data = b"".join(chunks(stream, 64 << 10))
        assert (descriptor.size, descriptor.digest.hex) == (len(data), hashlib.sha256(data).hexdigest())
        with self.registry.lock:
            self.registry.sent += len(data)
            self.blobs[descriptor.digest] = data

    def push_manifest(self, reference: str, manifest: Manifest) -> bool:
        """distribution-spec: a registry may refuse a manifest that names what it does not have; this one does."""
        self.registry.asked(f"PUT-MANIFEST {reference}")
        assert manifest.digest == Digest.of(manifest.data)
        described = Descriptor(manifest.media_type, manifest.digest, len(manifest.data))
        document = read_document(described, manifest.data)
        if not {each.digest for each in blobs_of([document])} <= set(self.blobs):
            raise Refused("blobs are missing")
        if not {str(each.digest) for each in document.children} <= set(self.manifests):
            raise Refused("manifests are missing")
        self.manifests[reference] = self.manifests[str(manifest.digest)] = manifest
        return self.registry.lists and "subject" in json.loads(manifest.data)

    def referrers(self, subject: Digest) -> tuple[bytes, ...] | None:
        """A page for each: whoever reads only the first sees too little."""
        self.registry.asked(f"REFERRERS {subject}")
        if not self.registry.lists:
            return None
        known = {each.digest: (each, json.loads(each.data)) for each in self.manifests.values()}
        found = [
            entry_of(each)
            for each, document in known.values()
            if document.get("subject", {}).get("digest") == str(subject)
        ]
        pages = [{"schemaVersion": 2, "mediaType": MediaType.INDEX, "manifests": [each]} for each in found]
        return tuple(json.dumps(page).encode() for page in pages)

    def tags(self) -> Iterator[str]:
        self.registry.asked("TAGS")
        return iter([each for each in self.manifests if not each.startswith("sha256:")])

    def _blob(self, descriptor: Descriptor) -> bytes:
        found = self.blobs.get(descriptor.digest)
        if found is None:
            raise Refused(f"{self.host}/{self.name} has no {descriptor.digest}")
        return found
