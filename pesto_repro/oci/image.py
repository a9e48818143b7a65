"""An image, put together from layers: config.md, manifest.md and image-index.md of the image-spec.

Documents are canonical JSON, so equal images are equal bytes. ``created`` is the lock's epoch; history says, layer
by layer, what is in each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pesto_repro.digest import Digest, canonical_json
from pesto_repro.errors import BuildError
from pesto_repro.oci.words import Descriptor, MediaType, Platform

MAX_LAYERS = 127
"""overlayfs and the engines on it take no more."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A finished layer: what it is called in the history, its descriptor and the digest of its tar."""

    kind: str
    name: str
    step: str
    descriptor: Descriptor
    diff_id: Digest


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the image's config says besides its layers (config.md, "config").

    *healthcheck* is the argument vector of a command that exits 0 while the service is well.
    """

    platform: Platform
    created: str
    user: str
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    healthcheck: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlatformImage:
    """The image for one platform: the bytes of its config and manifest, and its layers from the base up."""

    platform: Platform
    layers: tuple[Layer, ...]
    config: bytes
    manifest: bytes

    @property
    def config_descriptor(self) -> Descriptor:
        return Descriptor.of(MediaType.CONFIG, self.config)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor.of(MediaType.MANIFEST, self.manifest)


@dataclass(frozen=True, slots=True)
class Image:
    """One or several platforms under one digest: of the manifest, or of the *index* if there are several."""

    platforms: tuple[PlatformImage, ...]
    index: bytes | None = None

    @property
    def descriptor(self) -> Descriptor:
        if self.index is not None:
            return Descriptor.of(MediaType.INDEX, self.index)
        return self.platforms[0].descriptor

    @property
    def digest(self) -> Digest:
        return self.descriptor.digest

    def documents(self) -> dict[Digest, bytes]:
        """Configs, manifests and index by digest."""
        found = [data for each in self.platforms for data in (each.config, each.manifest)]
        found += [self.index] if self.index is not None else []
        return {Digest.of(data): data for data in found}

    def layers(self) -> dict[Digest, Layer]:
        """Every layer once, by the digest of its blob."""
        return {layer.descriptor.digest: layer for each in self.platforms for layer in each.layers}


def assemble(recipe: Recipe, layers: Sequence[Layer]) -> PlatformImage:
    """The image for one platform. Raises BuildError for more layers than an engine takes."""
    if len(layers) > MAX_LAYERS:
        raise BuildError(
            f"the image would have {len(layers)} layers; engines take at most {MAX_LAYERS}",
            "lower [layers] max in pesto/build/image.toml, or join resources into one archive",
        )
    config = canonical_json(_config(recipe, layers))
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MediaType.MANIFEST,
            "config": Descriptor.of(MediaType.CONFIG, config).document(),
            "layers": [layer.descriptor.document() for layer in layers],
        }
    )
    return PlatformImage(recipe.platform, tuple(layers), config, manifest)


def assemble_index(platforms: Sequence[PlatformImage]) -> Image:
    """One image of all *platforms*, in their order; a single one needs no index."""
    if len(platforms) == 1:
        return Image(tuple(platforms))
    manifests = [each.descriptor.document() | {"platform": each.platform.document()} for each in platforms]
    index = {"schemaVersion": 2, "mediaType": MediaType.INDEX, "manifests": manifests}
    return Image(tuple(platforms), canonical_json(index))


def _config(recipe: Recipe, layers: Sequence[Layer]) -> dict[str, Any]:
    return {
        "created": recipe.created,
        **recipe.platform.document(),
        "config": _execution(recipe),
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
        "history": [
            {"created": recipe.created, "created_by": f"pesto-repro {layer.kind}: {layer.name}"} for layer in layers
        ],
    }


def _execution(recipe: Recipe) -> dict[str, Any]:
    found: dict[str, Any] = {"User": recipe.user, "Env": list(recipe.env), "Cmd": list(recipe.cmd)}
    if recipe.ports:
        found["ExposedPorts"] = {port: {} for port in recipe.ports}
    if recipe.labels:
        found["Labels"] = dict(recipe.labels)
    if recipe.healthcheck:
        seconds = 1_000_000_000
        found["Healthcheck"] = {
            "Test": ["CMD", *recipe.healthcheck],
            "Interval": 30 * seconds,
            "Timeout": 10 * seconds,
            "StartPeriod": 30 * seconds,
            "Retries": 3,
        }
    return found
