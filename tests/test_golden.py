"""The examples' images are the ones that are written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pesto_repro.store import Store
from scripts.golden import EXAMPLES, GOLDEN, digest, fresh_store


@pytest.mark.network
@pytest.mark.parametrize("example", EXAMPLES, ids=" ".join)
def test_an_example_has_its_golden_digest(example: tuple[str, ...], warm_store: Path) -> None:
    """The same lock and the same files give the same image, here and wherever the digest was written down."""
    expected = json.loads(GOLDEN.read_text())[" ".join(example)]
    assert expected == digest(example, "--store", str(warm_store))


def test_of_the_usual_store_only_downloads_are_used(tmp_path: Path) -> None:
    """A layer of yesterday's code must not be written down as what today's makes; what is used stays where it is."""
    usual = Store(tmp_path / "usual")
    download, layer = usual.put(b"wheel"), usual.put(b"layer")
    usual.remember("layer", f"{layer.hex}.none", {"digest": str(layer), "size": 5})
    with fresh_store(usual.root) as folder:
        fresh = Store(folder)
        assert (True, False) == (fresh.has(download), fresh.has(layer))
        assert fresh.record("layer", f"{layer.hex}.none") is None
    assert ["usual"] == [path.name for path in tmp_path.iterdir()]
    assert (True, True) == (usual.has(download), usual.has(layer))


def test_every_example_has_a_golden_digest() -> None:
    """None is left out, none is left over."""
    assert [" ".join(each) for each in EXAMPLES] == list(json.loads(GOLDEN.read_text()))
