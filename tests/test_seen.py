"""A file that is known is not read again; one that may have changed is, whatever its times say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pesto_repro.build.local import hash_file
from pesto_repro.build.seen import Seen, Signature
from pesto_repro.digest import Digest
from pesto_repro.store import Store

OLD = 1_600_000_000_000_000_000
WRONG = Digest.of(b"not what is in it")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def old(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that was changed long ago: its ctime cannot be set, so it is told."""
    os.utime(file, ns=(OLD, OLD))
    monkeypatch.setattr(Signature, "of", classmethod(lambda cls, path: _old_signature(path)))
    return file


def _old_signature(path: Path) -> Signature:
    found = path.stat()
    return Signature(found.st_size, found.st_mtime_ns, OLD, found.st_ino)


def known(store: Store, path: Path) -> Seen:
    """What is known after *path* was said to hold what it does not."""
    seen = Seen(store, path.parent)
    seen.add(path, Signature.of(path), WRONG)
    seen.save()
    return Seen(store, path.parent)


def test_what_is_known_is_not_read(tmp_path: Path, old: Path) -> None:
    """By the next command, in its store only."""
    store = Store(tmp_path / "store")
    assert WRONG == hash_file(old, known(store, old))[0]
    assert Digest.of(b"weights") == hash_file(old, Seen(Store(tmp_path / "other"), old.parent))[0]
    assert Digest.of(b"weights") == hash_file(old)[0]


@pytest.mark.parametrize("content", [b"weight5", b"more weights"])
def test_what_changed_is_read(tmp_path: Path, old: Path, content: bytes) -> None:
    """Of the same size, or not."""
    seen = known(Store(tmp_path / "store"), old)
    old.write_bytes(content)
    assert (Digest.of(content), len(content)) == hash_file(old, seen)[:2]


def test_another_file_in_its_place_is_read(tmp_path: Path, old: Path) -> None:
    """With the same size and time."""
    seen = known(Store(tmp_path / "store"), old)
    other = tmp_path / "other"
    other.write_bytes(b"WEIGHTS")
    os.utime(other, ns=(OLD, OLD))
    other.replace(old)
    assert Digest.of(b"WEIGHTS") == hash_file(old, seen)[0]


def test_what_is_young_is_read_again(tmp_path: Path, file: Path) -> None:
    """It may be changed within the same tick of the clock."""
    assert Digest.of(b"weights") == hash_file(file, known(Store(tmp_path / "store"), file))[0]


def test_a_record_that_is_broken_is_none(tmp_path: Path, old: Path) -> None:
    """A store never harms."""
    store = Store(tmp_path / "store")
    known(store, old)
    (record,) = (store.root / "records/seen-1").iterdir()
    record.write_bytes(record.read_bytes()[:-30])
    assert Digest.of(b"weights") == hash_file(old, Seen(store, old.parent))[0]


def test_what_is_gone_is_forgotten(tmp_path: Path, old: Path) -> None:
    """What is remembered is what the last command found."""
    store = Store(tmp_path / "store")
    known(store, old)
    Seen(store, old.parent).save()
    assert Digest.of(b"weights") == hash_file(old, Seen(store, old.parent))[0]
