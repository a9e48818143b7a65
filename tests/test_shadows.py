"""Paths that a layer hides of layers below it are told."""

from __future__ import annotations

from pathlib import Path

from pesto_repro.build.entry import Entry, data, directory
from pesto_repro.build.realise import hidden_paths
from pesto_repro.build.shadows import remember_paths
from pesto_repro.digest import Digest
from pesto_repro.plan import Pinned, Step
from pesto_repro.store import Store


def made(store: Store, name: str, section: str, *entries: Entry) -> Step:
    """A step of which the store knows that it made *entries*."""
    step = Step("tree", name, section, {"root": name}, (Pinned(name, Digest.of(name.encode())),))
    store.remember("step", step.key.hex, {"paths": str(remember_paths(entries, store))})
    return step


def test_what_is_hidden_is_told(tmp_path: Path) -> None:
    """Three paths of each pair of layers; Debian's packages are one, so what hides within them is their business."""
    store = Store(tmp_path)
    steps = [
        made(store, "libc6", "debian", data("etc/a", b""), data("usr/lib/b", b"")),
        made(store, "system files", "debian", data("etc/a", b"")),
        made(store, "one", "resources", data("etc/a", b""), *(data(f"opt/{name}", b"") for name in "abcd")),
        made(store, "two", "resources", *(data(f"opt/{name}", b"") for name in "abcd"), directory("etc")),
    ]
    assert [
        "one hides /etc/a of Debian's packages",
        "two hides /opt/a, /opt/b, /opt/c and 1 more of one",
    ] == hidden_paths(steps, store)


def test_layers_without_files_hide_nothing(tmp_path: Path) -> None:
    """Two empty folders, for one; nor does a layer of which nothing is known."""
    store = Store(tmp_path)
    steps = [made(store, name, "resources", directory(f"opt/{name}")) for name in "ab"]
    assert [] == hidden_paths([*steps, Step("venv", "c", "python", {})], store)
