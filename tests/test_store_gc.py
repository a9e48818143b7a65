"""``store gc``: what is needed stays, a running build never loses anything, and all that goes can be had again."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.build.keep import BLOBS, DAY, Contents, Item, contents, remove, sweep
from pesto_repro.build.roots import LAYER, UNIQUE, Root, live, remember_root, renounce, roots
from pesto_repro.cli.main import run as command_line
from pesto_repro.cli.store import _size
from pesto_repro.digest import Digest
from pesto_repro.errors import StoreError
from pesto_repro.sinks import output_slot
from pesto_repro.store import Store
from tests.e2e import REPOSITORY
from tests.small_project import Small

NOW = 1_500_000_000.0
MONTH = NOW - 30 * DAY


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one."""
    return Store(tmp_path / "store")


def store_command(*arguments: str | Path) -> tuple[int, str, str]:
    """``store`` in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = command_line(["store", *map(str, arguments)])
    return code, out.getvalue(), err.getvalue()


def store_json(store: Path, *arguments: str) -> dict[str, Any]:
    """What ``--json`` printed."""
    code, out, err = store_command(*arguments, "--json", "-q", "--store", store)
    assert (0, "") == (code, err)
    found: dict[str, Any] = json.loads(out)
    return found


def gc(small: Small, *arguments: str) -> dict[str, Any]:
    """``store gc``: what ``--json`` printed."""
    return store_json(small.store, "gc", *arguments)


def names(store: Path) -> set[str]:
    """Every file of the store, but the records of roots."""
    return {str(each.relative_to(store)) for each in store.rglob("*") if each.is_file() and each.parent.name != "root"}


def age(store: Path, days: float) -> None:
    """Make everything in *store* older by *days*."""
    for each in store.rglob("*"):
        then = each.stat().st_mtime - days * DAY
        os.utime(each, (then, then))


def a_root(store: Store, lockfile: Path, *needs: Digest, when: float, reference: str = "x:1") -> Root:
    """A root of *lockfile*, which need not be there, last built at *when*."""
    root = Root(
        reference, Digest.of(b"image"), "sha256:" + "0" * 64, str(lockfile), "p", (), "", 1, (), {"layer": needs}
    )
    remember_root(root, store)
    (found,) = (each for each in roots(store) if each.name == root.name)
    path = store.root / "records/root" / root.name
    os.utime(path, (when, when))
    return found


def put(store: Store, data: bytes, when: float) -> Digest:
    """A blob that came at *when*."""
    digest = store.put(data)
    os.utime(store.path(digest), (when, when))
    return digest


def gone(store: Store, *, before: float = MONTH, max_size: int | None = None) -> set[str]:
    """The names of what goes."""
    return {each.name for each in sweep(contents(store), before=before, max_size=max_size).items}


# -- what goes ---------------------------------------------------------------------------------------------------


def test_what_nobody_needs_goes_when_it_is_old(store: Store) -> None:
    """And not before."""
    old, young = put(store, b"old", MONTH - 1), put(store, b"young", MONTH + 1)
    assert {old.hex} == gone(store)
    assert {old.hex, young.hex} == gone(store, before=NOW)


def test_what_a_live_root_needs_stays(store: Store, tmp_path: Path) -> None:
    """However old it is, with what records say of it: a step needs its layer, that its blob, all their lists."""
    step, diff_id = Digest.of(b"step"), Digest.of(b"diff_id")
    layer, paths, input_, other = (put(store, each, 0) for each in (b"layer", b"paths", b"input", b"other"))
    store.remember("step", step.hex, {"diff-id": str(diff_id), "paths": str(paths)})
    store.remember("layer", f"{diff_id.hex}.gzip-1", {"digest": str(layer), "size": 5})
    lockfile = tmp_path / "lock"
    lockfile.write_text("")
    root = Root("x:1", step, str(step), str(lockfile), "p", (), "", 1, (step,), {"wheel": (input_,)})
    remember_root(root, store)
    assert {other.hex} == gone(store, before=NOW)
    assert root == roots(store)[0]


def test_a_root_without_its_lock_is_needed_for_a_while(store: Store, tmp_path: Path) -> None:
    """Jobs of CI build in folders that go: what they need counts from the last build, not from when it came."""
    blob = put(store, b"x", 0)
    root = a_root(store, tmp_path / "gone", blob, when=MONTH + 1)
    assert set() == gone(store)
    os.utime(store.root / "records/root" / root.name, (MONTH - 1, MONTH - 1))
    going = sweep(contents(store), before=MONTH)
    assert ([blob.hex], [root.name]) == ([each.name for each in going.items], [each.name for each in going.records])


def test_of_one_lock_the_last_image_counts(store: Store, tmp_path: Path) -> None:
    """An older version of it is not kept for ever."""
    lockfile = tmp_path / "lock"
    lockfile.write_text("")
    before, now = put(store, b"before", 0), put(store, b"now", 0)
    a_root(store, lockfile, before, when=MONTH - 2, reference="x:1")
    newest = a_root(store, lockfile, now, when=MONTH - 1, reference="x:2")
    assert (newest,) == live(roots(store))
    assert {before.hex} == gone(store)


def test_the_longest_unneeded_goes_first(store: Store, tmp_path: Path) -> None:
    """Until it is small enough; what a live root needs comes last, and takes its root with it."""
    lockfile = tmp_path / "lock"
    lockfile.write_text("")
    first, second, needed = (put(store, bytes([each]) * 100, NOW + each) for each in (1, 2, 0))
    root = a_root(store, lockfile, needed, when=NOW)
    assert set() == gone(store, max_size=300)
    assert {first.hex} == gone(store, max_size=299)
    assert {first.hex, second.hex} == gone(store, max_size=100)
    going = sweep(contents(store), before=MONTH, max_size=99)
    assert ({first.hex, second.hex, needed.hex}, [root.name]) == (
        {each.name for each in going.items},
        [each.name for each in going.records],
    )


def test_records_that_point_to_nothing_go(store: Store) -> None:
    """With the blob that they are about, in the same sweep; a record that cannot be read goes, too."""
    blob, diff_id = put(store, b"layer", 0), Digest.of(b"diff_id")
    store.remember("layer", f"{diff_id.hex}.gzip", {"digest": str(blob), "size": 5})
    store.remember("step", "0" * 64, {"diff-id": str(diff_id)})
    store.remember("checked", blob.hex, {"diff-id": str(diff_id)})
    store.remember("claim", "1" * 64, {"digest": str(blob)})
    (store.root / "records/claim" / ("2" * 64)).write_text("nonsense")
    going = sweep(contents(store), before=MONTH)
    assert {"layer", "step", "checked", "claim"} == {each.kind for each in going.records}
    remove(going, store)
    assert ["records/claim/" + "1" * 64] == sorted(names(store.root))


def test_partial_downloads_leftovers_and_trees(store: Store) -> None:
    """What a killed process left goes at once, downloads and unpacked layers when they are old."""
    store.put(b"kept")
    left = ("tmp/left", "tmp/verify/blobs/sha256/x")
    for name in (*left, "partial/old", "partial/young", "trees/old/0", "roots/old/etc/file", "trees/young/0"):
        path = store.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("12345")
    for name in ("partial/old", "trees/old", "roots/old"):
        os.utime(store.root / name, (MONTH - 1, MONTH - 1))
    (store.root / "roots/old/etc").chmod(0o500)
    with store.exclusive():
        done = remove(sweep(contents(store), before=MONTH), store)
    assert (15, {"partial", "tree", "root"}) == (done.freed, {each.kind for each in done.items})
    kept = {f"{BLOBS}/{Digest.of(b'kept').hex}", "partial/young", "trees/young/0"}
    assert kept == names(store.root)


def test_unpacked_layers_in_use_stay(store: Store, tmp_path: Path) -> None:
    """A service that runs for days holds what it runs on, and nothing else."""
    old = put(store, b"x", 0)
    tree = store.root / "trees/old"
    other = Store(store.root)
    with other.in_use("trees"):
        tree.mkdir()
        os.utime(tree, (0, 0))
        other.release()
        with store.exclusive(on_wait=lambda: pytest.fail("it waited")):
            done = remove(sweep(contents(store), before=MONTH), store)
        assert ([old.hex], True) == ([each.name for each in done.items], tree.is_dir())
    with store.exclusive():
        remove(sweep(contents(store), before=MONTH), store)
    assert not tree.exists()


def spare(store: Store, output: Path) -> Path:
    """The archive before the last one of *output*, with its record, long ago."""
    slot = output_slot(output).hex
    path = store.root / "spares" / slot
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(100))
    store.remember("spare", slot, {"size": 100})
    os.utime(path, (0, 0))
    return path


def test_spares_last_as_long_as_their_outputs(store: Store, tmp_path: Path) -> None:
    """They only save time: without the output, or without a build that would write it again, one goes at once."""
    lockfile, output = tmp_path / "lock", tmp_path / "image.tar"
    root = a_root(store, lockfile, when=NOW)
    remember_root(replace(root, output=str(output), subjects=(output_slot(output),)), store)
    kept = spare(store, output)
    cut_off = kept.with_suffix(".next")
    cut_off.write_bytes(b"")
    other = spare(store, tmp_path / "other.tar")
    for path in (lockfile, output):
        path.write_bytes(b"")
    going = sweep(contents(store), before=0)
    assert {cut_off.name, other.name} == {each.name for each in going.items}
    assert [("spare", other.name)] == [(each.kind, each.name) for each in going.records]
    output.unlink()
    assert kept.name in gone(store, before=0)


def test_spares_go_first(store: Store, tmp_path: Path) -> None:
    """Before what nobody needs, which may be needed again."""
    lockfile = tmp_path / "lock"
    lockfile.write_bytes(b"")
    root = a_root(store, lockfile, when=NOW)
    remember_root(replace(root, output=str(lockfile), subjects=(output_slot(lockfile),)), store)
    put(store, bytes(100), 0)
    assert {spare(store, lockfile).name} == gone(store, before=0, max_size=100)


def test_what_nobody_can_make_again_stays(store: Store, tmp_path: Path) -> None:
    """A wheel whose build does not come out equal, however small the store is to be, as long as its root is live."""
    lockfile = tmp_path / "lock"
    lockfile.write_bytes(b"")
    wheel, layer = put(store, b"wheel", 0), put(store, b"layer", 0)
    root = a_root(store, lockfile, layer, when=NOW)
    remember_root(replace(root, needs={LAYER: (layer,), "wheel": (wheel,), UNIQUE: (wheel,)}), store)
    assert {layer.hex} == gone(store, max_size=0)
    lockfile.unlink()
    assert {layer.hex, wheel.hex} == gone(store, max_size=0)


def test_what_came_again_is_young(store: Store, tmp_path: Path) -> None:
    """That a build needed it before, and long ago, does not make it older than it is."""
    blob = put(store, b"x", NOW)
    a_root(store, tmp_path / "gone", blob, when=0)
    assert set() == gone(store)


def test_records_of_outputs_go(store: Store, tmp_path: Path) -> None:
    """What an archive held, others may hold, too: that alone keeps no record of it."""
    lockfile = tmp_path / "lock"
    lockfile.write_bytes(b"")
    layer = put(store, b"layer", 0)
    a_root(store, lockfile, layer, when=NOW)
    store.remember("output", output_slot(tmp_path / "a.tar").hex, {"members": f"blobs/sha256/{layer.hex} 5"})
    age(store.root / "records/output", 1e4)
    going = sweep(contents(store), before=MONTH)
    assert ([], ["output"]) == (list(going.items), [each.kind for each in going.records])


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 1000), st.booleans()), max_size=8), st.integers(0, 400))
def test_laws_of_a_sweep(things: list[tuple[int, int, bool]], limit: int) -> None:
    """What stays is no more than allowed; nothing that could stay goes before something older; nothing twice."""
    items = tuple(
        Item("blob", Path(Digest.of(b"%d" % number).hex), size, NOW if young else float(age))
        for number, (size, age, young) in enumerate(things)
    )
    going = sweep(Contents(items, (), ()), before=MONTH, max_size=limit)
    left = [each for each in items if each not in going.items]
    assert len(items) == len(set(going.items)) + len(left)
    assert sum(each.size for each in left) == going.kept <= max(limit, 0)
    assert all(each.mtime >= MONTH for each in left)
    assert max((each.mtime for each in going.items), default=0) <= min((each.mtime for each in left), default=NOW)


def test_renouncing_keeps_the_time(store: Store, tmp_path: Path) -> None:
    """A root that needs less was not built again."""
    one, two = put(store, b"1", 0), put(store, b"2", 0)
    root = a_root(store, tmp_path / "lock", one, two, when=MONTH)
    (root,) = roots(store)
    renounce(root, [one], store)
    (after,) = roots(store)
    assert ({two}, MONTH) == (after.blobs(), after.when)


# -- the lock ----------------------------------------------------------------------------------------------------


def test_who_uses_the_store_is_waited_for(store: Store) -> None:
    """From the first look at it until it is released; then who comes waits until the other is done."""
    store.put(b"x")
    other = Store(store.root)
    assert other.has(Digest.of(b"x"))
    store.release()
    seen: list[str] = []

    def sweeping() -> None:
        with Store(store.root).exclusive(on_wait=lambda: waits.set()):
            seen.append("alone")
            alone.set()
            assert go.wait(60)
            seen.append("done")

    waits, alone, go = (threading.Event() for _ in range(3))
    thread = threading.Thread(target=sweeping)
    thread.start()
    assert waits.wait(60)
    assert [] == seen
    other.release()
    assert alone.wait(60)
    late = threading.Thread(target=lambda: seen.append(f"has {Store(store.root).has(Digest.of(b'x'))}"))
    late.start()
    go.set()
    thread.join()
    late.join()
    assert ["alone", "done", "has True"] == seen


def test_not_waiting_is_an_expected_failure(store: Store) -> None:
    """Whatever ``on_wait`` raises leaves, and nothing is held."""
    store.put(b"x")

    def refuse() -> None:
        raise StoreError("in use")

    with pytest.raises(StoreError, match="in use"), Store(store.root).exclusive(on_wait=refuse):
        pytest.fail("it was not alone")
    store.release()
    with Store(store.root).exclusive(on_wait=refuse):
        pass


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """Nor is one that is asked for something."""
    assert (0, "0 B freed, 0 B kept\n", "") == store_command("gc", "--store", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_folder_that_is_no_store_is_left_alone(tmp_path: Path) -> None:
    """A slip of the keyboard must not empty somebody's tmp."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp/mine").write_text("")
    error = f"error: {tmp_path} is no store\nhint: name the store's own folder\n"
    assert (1, "", error) == store_command("gc", "--store", tmp_path)
    assert (tmp_path / "tmp/mine").exists()


# -- with builds -------------------------------------------------------------------------------------------------


def test_gc_keeps_what_was_last_built(built: tuple[Small, str]) -> None:
    """All of it, however old; building again makes nothing. Without its lock it goes, and builds again equal."""
    small, digest = built
    age(small.store, 100)
    before = names(small.store)
    assert [] == gc(small, "--keep-days", "0")["removed"]
    assert before == names(small.store)
    again = small.build("--offline", env={"UV_FIND_LINKS": ""})
    assert (digest, True) == (again["digest"], all(each["cached"] for each in again["platforms"][0]["layers"]))
    lock = small.lockfile.rename(small.lockfile.with_suffix(".away"))
    assert len(before) > len(gc(small, "--keep-days", "0")["removed"]) > 10
    assert set() == names(small.store)
    lock.rename(small.lockfile)
    assert digest == small.build()["digest"]


def test_a_dry_run_says_what_goes(built: tuple[Small, str]) -> None:
    """The same, and nothing has gone."""
    small, _ = built
    before = names(small.store)
    said = gc(small, "--max-size", "1M", "--dry-run")
    assert before == names(small.store)
    assert {**said, "dry_run": False} == gc(small, "--max-size", "1M")
    assert sum(each.stat().st_size for each in (small.store / BLOBS).iterdir()) <= 1_000_000


def test_ls_and_info(built: tuple[Small, str]) -> None:
    """What was built, what is kept of it, and how large everything is."""
    small, digest = built
    (image,) = store_json(small.store, "ls")["images"]
    expected = ("small:1.0.0", digest, str(small.lockfile), str(small.root), str(small.output), True)
    assert expected == tuple(image[key] for key in ("reference", "digest", "lockfile", "project", "output", "kept"))
    info = store_json(small.store, "info")
    files = [each for each in small.store.rglob("*") if each.is_file()]
    assert sum(each.stat().st_size for each in files) == info["bytes"]
    assert len(files) == sum(each["count"] for each in info["kinds"].values())
    assert (9, 14) == (info["kinds"]["wheels"]["count"], info["kinds"]["layers"]["count"])
    assert (0, f"{small.store}\n", "") == store_command("path", "--store", small.store)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1500", 1500), ("2k", 2000), ("1.5GiB", 3 << 29), ("3MB", 3_000_000)]
)
def test_sizes(text: str, size: int) -> None:
    """As people write them."""
    assert size == _size(None, None, text)  # type: ignore[arg-type]


def test_no_size(tmp_path: Path) -> None:
    """What is none is a usage error."""
    code, _, err = store_command("gc", "--max-size", "much", "--store", tmp_path)
    assert (2, True) == (code, '"much" is no size: it reads 500M or 20GiB' in err)


def test_gc_while_builds_run(built: tuple[Small, str], tmp_path: Path) -> None:
    """Builds and the hungriest of gcs, side by side on one store: each build succeeds with the one right digest."""
    small, digest = built
    environment = {**os.environ, **small.env, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "pesto_repro"]
    stop = threading.Event()
    sweeps: list[int] = []

    def sweeping() -> None:
        arguments = ["store", "gc", "--keep-days", "0", "--max-size", "0", "-q", "--store", str(small.store)]
        while not stop.is_set():
            sweeps.append(subprocess.run([*command, *arguments], env=environment, capture_output=True).returncode)

    def building(number: int) -> subprocess.Popen[str]:
        output = f"oci:{tmp_path / f'image{number}'}"
        arguments = ["build", str(small.root), "-o", output, "--store", str(small.store), "-q"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*command, *arguments], env=environment, text=True, **pipes)  # type: ignore[call-overload,no-any-return]

    thread = threading.Thread(target=sweeping)
    thread.start()
    try:
        for _ in range(2):
            for process in [building(number) for number in range(2)]:
                out, err = process.communicate(timeout=300)
                assert (0, "", f"small:1.0.0@{digest}\n") == (process.returncode, err, out)
    finally:
        stop.set()
        thread.join()
    assert {0} == set(sweeps)
    assert [] == store_json(small.store, "check")["faults"]
