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


MEDIA_TYPES = {"gzip": MediaType.LAYER_GZIP, "zstd": MediaType.LAYER_ZSTD, "none": MediaType.LAYER}
"""Compression -> media type of a layer."""


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

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

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
