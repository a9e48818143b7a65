"""Media types, platforms and descriptors (image-spec: media-types.md, descriptor.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pesto_repro.digest import Digest


class MediaType:
    """The media types that this project writes."""

    INDEX = "application/vnd.oci.image.index.v1+json"
    MANIFEST = "application/vnd.oci.image.manifest.v1+json"
    CONFIG = "application/vnd.oci.image.config.v1+json"
    LAYER = "application/vnd.oci.image.layer.v1.tar"
    LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
    LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


_DOCKER = "application/vnd.docker.image.rootfs.diff.tar"
OCI_LAYERS = {
    **{each: each for each in (MediaType.LAYER, MediaType.LAYER_GZIP, MediaType.LAYER_ZSTD)},
    _DOCKER: MediaType.LAYER,
    f"{_DOCKER}.gzip": MediaType.LAYER_GZIP,
    f"{_DOCKER}.zstd": MediaType.LAYER_ZSTD,
}
"""Media type of a layer, in OCI's words or Docker's -> OCI's word for the same bytes (media-types.md, "Compatibility
Matrix"). What is not in it, such as layers that are not to be distributed, cannot be part of an image of ours."""

MEDIA_TYPES = {"gzip": MediaType.LAYER_GZIP, "zstd": MediaType.LAYER_ZSTD, "none": MediaType.LAYER}
"""Compression -> media type of a layer."""

CPUS = {"amd64": "x86_64", "arm64": "aarch64"}
"""Go's names of CPUs, which images use -> the kernel's and Python's. Others have one name, or nobody knows it here."""


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """Where an image runs: ``linux/amd64`` (image-index.md, "platform"; words of Go's GOOS and GOARCH)."""

    os: str
    architecture: str
    variant: str | None = None

    @classmethod
    def parse(cls, text: str) -> Platform:
        """``OS/ARCH[/VARIANT]``. Raises ValueError."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(parts):
            raise ValueError(f"{text!r} is not of the form os/architecture")
        return cls(*parts)

    @classmethod
    def of_machine(cls, machine: str) -> Platform:
        """The platform of a Linux machine that calls its CPU *machine*, as uname(2) does."""
        return cls("linux", {theirs: ours for ours, theirs in CPUS.items()}.get(machine, machine))

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def runs(self, other: Platform) -> bool:
        """Whether what is made for *other* runs here: arm64 is always v8, amd64 without a variant is v1."""
        least = {"arm64": "v8", "amd64": "v1"}.get(self.architecture)
        same = (self.os, self.architecture) == (other.os, other.architecture)
        return same and (self.variant or least) == (other.variant or least)

    def document(self) -> dict[str, str]:
        """As in an index; arm64 is always v8 there, so that the variant is left out as Docker does."""
        found = {"architecture": self.architecture, "os": self.os}
        return found | ({"variant": self.variant} if self.variant else {})


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Content by type, digest and size in bytes (descriptor.md)."""

    media_type: str
    digest: Digest
    size: int

    @classmethod
    def of(cls, media_type: str, data: bytes) -> Descriptor:
        return cls(media_type, Digest.of(data), len(data))

    def document(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
