"""What the tests of the registry's client share: blobs, manifests, clients that remember what they said and slept."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from pesto_repro.digest import Digest
from pesto_repro.oci import Descriptor
from pesto_repro.progress import Reporter
from pesto_repro.registry.access import Access
from pesto_repro.registry.client import Client, Registries
from pesto_repro.registry.ports import Manifest
from pesto_repro.registry.reference import RemoteReference
from tests.registries import LiveRegistry

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


@dataclass(frozen=True)
class Blob:
    """Bytes that nobody else has, with what is said of them."""

    data: bytes = field(default_factory=lambda: os.urandom(300_000))

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor.of("application/octet-stream", self.data)

    @property
    def digest(self) -> Digest:
        return self.descriptor.digest

    def opener(self) -> Callable[[], BinaryIO]:
        return lambda: io.BytesIO(self.data)


class Listening(Reporter):
    """Everything that was said, even for whoever asks for details."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, message: str, hint: str | None = None) -> None:
        self.said.append(f"{message} {hint}")

    def info(self, message: str) -> None:
        self.said.append(message)

    debug = info


@dataclass
class Talk:
    """A client, with what it said and how long it slept."""

    client: Client
    reporter: Listening
    slept: list[float]


@contextmanager
def talking(registry: LiveRegistry, name: str = "team/app", access: Access | None = None) -> Iterator[Talk]:
    """A client of *registry* that does not really sleep."""
    reporter, slept = Listening(), list[float]()
    registries = Registries(access or registry.access(), reporter, sleep=slept.append)
    try:
        yield Talk(registries.repository(RemoteReference(registry.host, name)), reporter, slept)
    finally:
        registries.close()


def pushed(client: Client, blob: Blob) -> Blob:
    client.push_blob(blob.descriptor, blob.opener())
    return blob


def manifest_of(media_type: str, config: Blob, *layers: Blob) -> Manifest:
    """An image manifest of either dialect, with white space as nobody would write it."""
    docker = media_type == DOCKER_MANIFEST
    config_type = (
        "application/vnd.docker.container.image.v1+json" if docker else "application/vnd.oci.image.config.v1+json"
    )
    layer_type = (
        "application/vnd.docker.image.rootfs.diff.tar.gzip" if docker else "application/vnd.oci.image.layer.v1.tar+gzip"
    )
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": Descriptor.of(config_type, config.data).document(),
        "layers": [Descriptor.of(layer_type, each.data).document() for each in layers],
    }
    return manifest(media_type, document)


def index_of(media_type: str, *children: Manifest) -> Manifest:
    """An index, or a manifest list, of either dialect."""
    entries = [
        {
            **Descriptor(each.media_type, each.digest, len(each.data)).document(),
            "platform": {"os": "linux", "architecture": name},
        }
        for each, name in zip(children, ["amd64", "arm64"], strict=False)
    ]
    return manifest(media_type, {"schemaVersion": 2, "mediaType": media_type, "manifests": entries})


def manifest(media_type: str, document: object) -> Manifest:
    data = json.dumps(document, indent=7).encode() + b"\n\n"
    return Manifest(media_type, Digest.of(data), data)
