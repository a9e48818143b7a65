"""What this machine says: its home folder, and how the project's own options reach the indexes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pesto_repro import scaffold
from pesto_repro.cli.world import store_at, world_of
from pesto_repro.errors import PestoError
from pesto_repro.progress import Reporter
from pesto_repro.project import read_project

NOBODY = 1234567


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user: a number without an account, and no variables; pytest's folder is there before."""
    for name in ("HOME", "XDG_CACHE_HOME", "PESTO_REPRO_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: NOBODY)


@pytest.mark.usefixtures("nobody")
def test_without_a_home_folder_the_store_must_be_named(tmp_path: Path) -> None:
    """An expected failure that says what to set."""
    with pytest.raises(PestoError) as caught:
        store_at(None)
    assert (
        f"there is no home folder: HOME is not set and user {NOBODY} has no account",
        "set HOME, or name a store with --store or PESTO_REPRO_STORE",
    ) == (caught.value.message, caught.value.hint)
    assert tmp_path == store_at(tmp_path).root


@pytest.mark.usefixtures("nobody")
def test_without_a_home_folder_nobody_knows_the_indexes(tmp_path: Path) -> None:
    """The user's configuration lies there: a build that asks nobody does without."""
    scaffold.create(tmp_path / "small", "small")
    world = world_of(read_project(tmp_path / "small"), store_at(tmp_path / "store"), Reporter())
    with pytest.raises(PestoError) as caught:
        world.indexes()
    assert (
        f"there is no home folder: HOME is not set and user {NOBODY} has no account",
        "set HOME",
    ) == (caught.value.message, caught.value.hint)


def test_options_of_requirements_files_reach_the_indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As values, read once."""
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    root = tmp_path / "small"
    scaffold.create(root, "small")
    (root / "requirements.txt").write_text("-i https://${NAME}@main.test/simple\n-f it's\n--no-index\n", "utf-8")
    monkeypatch.setenv("NAME", "bob")
    indexes, _ = world_of(read_project(root), store_at(tmp_path / "store"), Reporter()).indexes()
    assert ("https://bob@main.test/simple", (root / "it's").as_uri(), True) == (
        indexes.indexes[-1].url,
        indexes.find_links[0],
        indexes.no_index,
    )
