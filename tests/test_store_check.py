"""``store check``: whatever happens to a file of the store, no image is ever wrong, and ``--repair`` mends it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pesto_repro.build.check import check, give_up, remove_faults
from pesto_repro.build.roots import roots
from pesto_repro.cli.kept import bring_back
from pesto_repro.cli.main import run as command_line
from pesto_repro.digest import Digest
from pesto_repro.progress import Reporter
from pesto_repro.store import Store
from tests.small_project import Small
from tests.test_store_gc import a_root, store_command, store_json


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one."""
    return Store(tmp_path / "store")


def faults(store: Store) -> list[str]:
    """What ``check`` finds, as text."""
    return [str(each) for each in check(Store(store.root), Reporter()).faults]


def _truncate(path: Path) -> None:
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content[: len(content) // 2])


def _alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.chmod(0o644)
    path.write_bytes(content)


HARMS: dict[str, Callable[[Path], None]] = {"truncated": _truncate, "altered": _alter, "deleted": Path.unlink}


def _files(folder: Path) -> list[Path]:
    return sorted(each for each in folder.rglob("*") if each.is_file())


def test_a_healthy_store(store: Store) -> None:
    """Nothing to say; nothing is changed."""
    digest = store.put(b"x")
    store.remember("layer", f"{'0' * 64}.gzip", {"digest": str(digest), "size": 1})
    health = check(store, Reporter())
    assert (1, 1, 1, ()) == (health.blobs, health.records, health.bytes, health.faults)


def _kind(fault: str) -> tuple[int, str]:
    return ["stray", "blob", "record", "need"].index(fault.split()[0]), fault


def test_every_kind_of_fault(store: Store, tmp_path: Path) -> None:
    """Each is named with what is wrong; once they are removed, the store is healthy."""
    broken, gone, kept = store.put(b"broken"), store.put(b"gone"), store.put(b"kept")
    (tmp_path / "lock").write_text("")
    a_root(store, tmp_path / "lock", broken, gone, kept, when=1.0)
    slot = f"{'0' * 64}.gzip"
    store.remember("layer", slot, {"digest": str(broken), "size": 1})
    store.remember("step", "a", {"n": 1})
    _alter(store.path(broken))
    store.path(gone).unlink()
    (store.root / "records/step/a").write_bytes(b"{}\nno checksum\n")
    (store.root / "blobs/sha256/README").write_text("")
    actual = Digest.of(store.path(broken).read_bytes())
    assert [
        "stray README: its name is no digest",
        f"blob {broken.hex}: its bytes are those of {actual}",
        f"record layer/{slot}: it points to {broken}, which is not there or not intact",
        "record step/a: it is not what was recorded",
        f"need {gone.hex}: a layer that x:1 needs is not there",
    ] == sorted(faults(store), key=_kind)
    health = check(store, Reporter())
    assert {broken, gone} == health.lost
    remove_faults(health, store)
    give_up(health, [], store)
    assert [] == faults(store)
    assert {kept} == roots(store)[0].blobs()


def test_a_file_that_cannot_be_read(store: Store) -> None:
    """A folder where a blob should be stands in for a disk that fails: root reads everything else."""
    digest = Digest.of(b"x")
    store.put(b"y")
    store.path(digest).mkdir()
    assert [f"blob {digest.hex}: it cannot be read: Is a directory"] == faults(store)


def test_check_tells_and_repair_mends(built: tuple[Small, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By exit code, as text and as JSON: a wheel comes back, a layer is left to the next build."""
    small, digest = built
    (root,) = roots(Store(small.store))
    wheel, layer = (Store(small.store).path(root.needs[kind][0]) for kind in ("wheel", "layer"))
    wheel.unlink()
    _alter(layer)
    code, out, _ = store_command("check", "--json", "--store", small.store)
    kinds = {(each["kind"], each["name"]) for each in json.loads(out)["faults"]}
    assert (1, True) == (code, {("need", wheel.name), ("blob", layer.name)} < kinds)
    for name, value in small.env.items():
        monkeypatch.setenv(name, value)
    code, out, _ = store_command("check", "--repair", "--store", small.store)
    assert 0 == code
    assert f"need {wheel.name}: a wheel that small:1.0.0 needs is not there; fetched again" in out.splitlines()
    assert any(each.endswith("; the next build that needs it brings or makes it") for each in out.splitlines())
    assert (True, False) == (wheel.exists(), layer.exists())
    healthy = store_json(small.store, "check")
    assert ([], False) == (healthy["faults"], healthy["repaired"])
    again = small.build()
    made = [each["digest"] for each in again["platforms"][0]["layers"] if not each["cached"]]
    assert (digest, [f"sha256:{layer.name}"]) == (again["digest"], made)


def test_another_lock_brings_nothing_back(built: tuple[Small, str]) -> None:
    """What the lock says now is not what was built: the next build brings what it needs."""
    small, _ = built
    store = Store(small.store)
    (root,) = roots(store)
    warnings: list[str] = []

    class Hearing(Reporter):
        def warn(self, message: str, hint: str | None = None) -> None:
            warnings.append(f"{message}: {hint}")

    other = replace(root, lock="sha256:" + "0" * 64)
    assert frozenset() == bring_back(other, root.needs["wheel"], store, Hearing())
    assert [f"small:1.0.0: {small.lockfile} is another lock now: the next build brings what it needs"] == warnings


def _victims(store: Path) -> Iterator[tuple[str, Path]]:
    """Each file of the store in turn, with each of the harms in turn."""
    order = list(HARMS)
    random.Random(0).shuffle(order)
    for number, path in enumerate(_files(store)):
        yield order[number % len(order)], path


def test_each_file_of_a_store_in_turn(
    built: tuple[Small, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Truncated, altered, deleted: a build gives the one right image; so does one after ``check --repair``.

    Each file of the store suffers one of the three, in turns, and half of them are repaired before they are built.
    """
    small, digest = built
    for name, value in small.env.items():
        monkeypatch.setenv(name, value)
    expected, output = small.output.read_bytes(), tmp_path / "again.tar"
    for number, (harm, victim) in enumerate(_victims(small.store)):
        store = tmp_path / f"store{number}"
        shutil.copytree(small.store, store)
        HARMS[harm](store / victim.relative_to(small.store))
        told = f"{harm} {victim.relative_to(small.store)}"
        if number % 2:
            assert 0 == command_line(["store", "check", "--repair", "-q", "--store", str(store)]), told
            assert 0 == command_line(["store", "check", "-q", "--store", str(store)]), told
        output.unlink(missing_ok=True)
        capsys.readouterr()
        assert 0 == command_line(["build", str(small.root), "-q", "-o", str(output), "--store", str(store)]), told
        assert f"small:1.0.0@{digest}\n" == capsys.readouterr().out, told
        assert expected == output.read_bytes(), told
        assert 0 == command_line(["store", "check", "--repair", "-q", "--store", str(store)]), told
        assert 0 == command_line(["store", "check", "-q", "--store", str(store)]), told
        shutil.rmtree(store)
