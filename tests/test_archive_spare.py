"""An archive that is written from its first changed byte on is the one that would be written whole."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_repro.build.entry import data
from pesto_repro.oci import Image
from pesto_repro.registry.content import LostLayers
from pesto_repro.sinks import write_archive
from pesto_repro.store import Store
from tests.images import make_image, make_layer, noise

REFERENCE = "hello:1.0"


class Place(NamedTuple):
    """A store and an output."""

    store: Store
    output: Path

    def write(self, *sizes: int) -> None:
        """Write the image of layers of these sizes."""
        write_archive(an_image(self.store, *sizes), REFERENCE, self.output, self.store)

    @property
    def spare(self) -> Path:
        (found,) = (self.store.root / "spares").iterdir()
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty one."""
    return Place(Store(tmp_path / "store"), tmp_path / "out" / "a.tar")


def an_image(store: Store, *sizes: int) -> Image:
    """An image of layers of about these sizes; equal sizes are equal layers."""
    layers = [make_layer(store, f"of {each}", data("f", noise(each, each)), compression="none") for each in sizes]
    return make_image(tuple(layers))


def written_whole(folder: Path, *sizes: int) -> bytes:
    """The same archive, by a store that has never written one."""
    shutil.rmtree(folder, ignore_errors=True)
    other = Place(Store(folder / "store"), folder / "b.tar")
    other.write(*sizes)
    return other.output.read_bytes()


_SIZES = st.lists(st.sampled_from([10, 600, 2_000, 70_000]), min_size=1, max_size=4, unique=True)


@given(st.lists(_SIZES, min_size=2, max_size=6))
@settings(max_examples=25, deadline=None)
def test_whatever_was_there_before(tmp_path_factory: pytest.TempPathFactory, images: list[list[int]]) -> None:
    """One image after the other under one name: each archive is as if written whole."""
    folder = tmp_path_factory.mktemp("spare")
    place = Place(Store(folder / "store"), folder / "a.tar")
    for sizes in images:
        place.write(*sizes)
        assert written_whole(folder / "other", *sizes) == place.output.read_bytes()


def test_what_did_not_change_is_neither_read_nor_written(place: Place, tmp_path: Path) -> None:
    """The large layer may even be gone from the store: the archive before has it."""
    image = an_image(place.store, 70_000, 10)
    place.write(70_000, 10)
    place.write(70_000, 600)
    first = place.spare.stat().st_ino
    place.write(70_000, 2_000)
    assert first == place.output.stat().st_ino
    digest = next(each for each, layer in image.layers().items() if layer.descriptor.size > 70_000)
    changed = an_image(place.store, 70_000, 601)
    Store(place.store.root).discard(digest)
    write_archive(changed, REFERENCE, place.output, Store(place.store.root))
    assert written_whole(tmp_path / "other", 70_000, 601) == place.output.read_bytes()


def _shorten(path: Path) -> None:
    os.truncate(path, 1000)


def _alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[30_000] ^= 1
    path.write_bytes(content)


def _replace(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"another")


@pytest.mark.parametrize("harm", [_shorten, _alter, _replace, Path.unlink])
@pytest.mark.parametrize("which", ["output", "spare"])
def test_a_file_that_was_touched_is_not_built_upon(
    place: Place, tmp_path: Path, which: str, harm: Callable[[Path], None]
) -> None:
    """Shorter, altered, another file, none: the next archives are right."""
    place.write(70_000, 10)
    place.write(70_000, 600)
    harm(getattr(place, which))
    for size in (601, 602, 603):
        place.write(70_000, size)
        assert written_whole(tmp_path / "other", 70_000, size) == place.output.read_bytes()


def test_a_spare_that_was_being_written_is_not_built_upon(place: Place, tmp_path: Path) -> None:
    """A build that was killed, or found its layer gone, half-way."""
    for size in (10, 600):
        place.write(70_000, size)
    broken = an_image(place.store, 70_000, 2_000)
    digest = next(each for each, layer in broken.layers().items() if layer.descriptor.size < 70_000)
    place.store.path(digest).unlink()
    before = place.output.read_bytes()
    with pytest.raises(LostLayers):
        write_archive(broken, REFERENCE, place.output, Store(place.store.root))
    assert before == place.output.read_bytes()
    assert ["a.tar"] == [each.name for each in place.output.parent.iterdir()]
    place.write(70_000, 601)
    assert written_whole(tmp_path / "other", 70_000, 601) == place.output.read_bytes()


def test_a_place_where_nothing_can_have_two_names(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another disk, or one that is nearly full: there is no spare, and no harm."""

    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    for size in (10, 600, 601):
        place.write(70_000, size)
        assert written_whole(tmp_path / "other", 70_000, size) == place.output.read_bytes()
    assert [] == list((place.store.root / "spares").iterdir())
