"""The examples' images are the ones that are written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.golden import EXAMPLES, GOLDEN, digest


@pytest.mark.network
@pytest.mark.parametrize("example", EXAMPLES, ids=" ".join)
def test_an_example_has_its_golden_digest(example: tuple[str, ...], warm_store: Path) -> None:
    """The same lock and the same files give the same image, here and wherever the digest was written down."""
    expected = json.loads(GOLDEN.read_text())[" ".join(example)]
    assert expected == digest(example, "--store", str(warm_store))


def test_every_example_has_a_golden_digest() -> None:
    """None is left out, none is left over."""
    assert [" ".join(each) for each in EXAMPLES] == list(json.loads(GOLDEN.read_text()))
