"""Small images made in a moment, for tests that move them about."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from pathlib import Path

from pesto_repro.build.compress import LayerWriter
from pesto_repro.build.entry import Entry, data
from pesto_repro.build.tar import arrange, write_tar
from pesto_repro.digest import chunks, hash_stream
from pesto_repro.oci import MEDIA_TYPES, Descriptor, Image, Layer, Platform, Recipe, assemble, assemble_index
from pesto_repro.registry.content import BASE
from pesto_repro.store import Store

CREATED = "2026-01-10T09:40:37Z"
LOCK = "sha256:" + "1" * 64


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that no compressor makes smaller."""
    return random.Random(seed).randbytes(size)


def make_layer(store: Store, name: str, *entries: Entry, compression: str = "gzip", kind: str = "python") -> Layer:
    """A layer of *entries*, in *store*."""
    sink = io.BytesIO()
    write_tar(arrange(entries), sink)
    with store.writer() as blob:
        writer = LayerWriter(compression, blob)
        for piece in chunks(io.BytesIO(sink.getvalue())):
            writer.write(piece)
        diff_id = writer.close()
        digest = blob.commit()
    return Layer(kind, name, "sha256:0", Descriptor(MEDIA_TYPES[compression], digest, blob.size), diff_id)


def make_layers(store: Store) -> tuple[Layer, ...]:
    """Three layers of different sizes; the one at the bottom is the largest."""
    return (
        make_layer(store, "numpy", data("opt/numpy", noise(300_000)), compression="none"),
        make_layer(store, "algorithm", data("opt/algorithm/process.py", b"print()\n")),
        make_layer(store, "model", data("opt/model", noise(90_000, 1)), compression="zstd"),
    )


def make_image(layers: tuple[Layer, ...], *platforms: str) -> Image:
    """The image of *layers* for each platform, linux/amd64 unless others are named."""
    recipe = Recipe(
        Platform.parse("linux/amd64"),
        CREATED,
        "65532:65532",
        ("PATH=/opt/venv/bin:/usr/bin", "PESTO_PROFILE="),
        ("python", "-m", "pesto"),
        ("8080/tcp",),
        {"org.pesto-repro.lock": LOCK},
    )
    names = platforms or ("linux/amd64",)
    return assemble_index([assemble(replace(recipe, platform=Platform.parse(name)), layers) for name in names])


def as_base(layer: Layer) -> Layer:
    """The same layer, as one of a base image."""
    return replace(layer, kind=BASE, step="")


def sparse_layer(store: Store, folder: Path, size: int) -> Layer:
    """A layer of *size* bytes that takes no room on the disk: all of it is a hole."""
    path = folder / "sparse"
    with path.open("wb") as file:
        file.truncate(size)
    with path.open("rb") as file:
        digest, _ = hash_stream(file)
    store.put(b"")  # makes the folders
    store.adopt(path, digest)
    return Layer("resources", "sparse", "sha256:0", Descriptor(MEDIA_TYPES["none"], digest, size), digest)
