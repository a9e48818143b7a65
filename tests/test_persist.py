"""Layers that turn out to be lost are made again, but not for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from pesto_repro.build.realise import Lost, persist
from pesto_repro.digest import Digest
from pesto_repro.errors import StoreError
from pesto_repro.registry.content import LostLayers
from pesto_repro.store import Store

OURS, BASES = Digest.of(b"ours"), Digest.of(b"base's")


def test_what_is_lost_is_made_again(tmp_path: Path) -> None:
    """All but what could be brought."""
    tried: list[Lost] = []

    def attempt(lost: Lost) -> int:
        tried.append(lost)
        if len(tried) == 1:
            raise LostLayers(frozenset([OURS, BASES]), "gone")
        return len(tried)

    assert 2 == persist(attempt, lambda lost: lost - {BASES}, Store(tmp_path))
    assert [frozenset(), frozenset([OURS])] == tried


def test_a_store_that_keeps_nothing_is_told(tmp_path: Path) -> None:
    """After three times."""
    tried: list[Lost] = []

    def attempt(lost: Lost) -> None:
        tried.append(lost)
        raise LostLayers(frozenset([OURS]), "gone")

    with pytest.raises(StoreError) as caught:
        persist(attempt, lambda lost: lost, Store(tmp_path))
    assert f"the store at {tmp_path} loses layers as fast as they are made" == caught.value.message
    assert 3 == len(tried)
