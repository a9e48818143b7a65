"""An image, put together from layers: config.md, manifest.md and image-index.md of the image-spec.

Documents are canonical JSON, so equal images are equal bytes. ``created`` is the lock's epoch; history says, layer
by layer, what is in each.

An image may stand on a :class:`Base`. Its layers and history stay as they are, with ours above; of its config counts
what a Dockerfile's FROM hands on (config.md, "config").
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
HISTORY = "pesto-repro"
"""What the history's entries of our own layers start with."""
_INHERITED = ("ExposedPorts", "Volumes", "WorkingDir", "Labels", "StopSignal", "Shell")
_OF_THE_SYSTEM = ("variant", "os.version", "os.features")


@dataclass(frozen=True, slots=True)
class Layer:
    """A finished layer: what it is called in the history, its descriptor and the digest of its tar."""

    kind: str
    name: str
    step: str
    descriptor: Descriptor
    diff_id: Digest


@dataclass(frozen=True, slots=True)
class Base:
    """The image that another one stands on: its layers from the bottom up, and its whole config document."""

    layers: tuple[Layer, ...]
    config: Mapping[str, Any]

    @property
    def history(self) -> tuple[Mapping[str, Any], ...]:
        """As the base has it. config.md: it may lack; what stands above needs an entry for each layer."""
        found = tuple(self.config.get("history") or ())
        missing = len(self.layers) - sum(not each.get("empty_layer") for each in found)
        if missing < 0:
            found, missing = (), len(self.layers)
        return ({"comment": "a layer of the base"},) * missing + found

    @property
    def execution(self) -> Mapping[str, Any]:
        """What is handed on; keys without a value count as absent."""
        config = self.config.get("config") or {}
        return {key: config[key] for key in _INHERITED if config.get(key)}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the image's config says besides its layers (config.md, "config").

    *env* is the whole environment, that of a base included.
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


def assemble(recipe: Recipe, layers: Sequence[Layer], base: Base | None = None) -> PlatformImage:
    """The image for one platform, on *base*. Raises BuildError for more layers than an engine takes."""
    base = base or Base((), {})
    layers = (*base.layers, *layers)
    if len(layers) > MAX_LAYERS:
        raise BuildError(
            f"the image would have {len(layers)} layers; engines take at most {MAX_LAYERS}",
            "lower [layers] max in pesto/build/image.toml, or join resources into one archive",
        )
    config = canonical_json(_config(recipe, layers, base))
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MediaType.MANIFEST,
            "config": Descriptor.of(MediaType.CONFIG, config).document(),
            "layers": [layer.descriptor.document() for layer in layers],
        }
    )
    return PlatformImage(recipe.platform, layers, config, manifest)


def assemble_index(platforms: Sequence[PlatformImage]) -> Image:
    """One image of all *platforms*, in their order; a single one needs no index."""
    if len(platforms) == 1:
        return Image(tuple(platforms))
    manifests = [each.descriptor.document() | {"platform": each.platform.document()} for each in platforms]
    index = {"schemaVersion": 2, "mediaType": MediaType.INDEX, "manifests": manifests}
    return Image(tuple(platforms), canonical_json(index))


def _config(recipe: Recipe, layers: Sequence[Layer], base: Base) -> dict[str, Any]:
    ours = layers[len(base.layers) :]
    return {
        **{key: base.config[key] for key in _OF_THE_SYSTEM if base.config.get(key)},
        "created": recipe.created,
        **recipe.platform.document(),
        "config": _execution(recipe, base.execution),
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
        "history": [
            *base.history,
            *({"created": recipe.created, "created_by": f"{HISTORY} {each.kind}: {each.name}"} for each in ours),
        ],
    }


def _execution(recipe: Recipe, base: Mapping[str, Any]) -> dict[str, Any]:
    """Ours, on what the base hands on. Its entry point and command are not: they start another program."""
    found: dict[str, Any] = {**base, "User": recipe.user, "Env": list(recipe.env), "Cmd": list(recipe.cmd)}
    if recipe.ports:
        found["ExposedPorts"] = {**base.get("ExposedPorts", {}), **{port: {} for port in recipe.ports}}
    if recipe.labels:
        found["Labels"] = {**base.get("Labels", {}), **recipe.labels}
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
