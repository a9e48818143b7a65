"""The store: whole or not at all, verified, shared by threads and processes; never wrong bytes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pesto_repro.digest import Digest
from pesto_repro.errors import StoreError
from pesto_repro.store import Store, open_locked
from tests.judges import judge

_HINT = "choose another place with --store or PESTO_REPRO_STORE"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one."""
    return Store(tmp_path / "store")


def files(store: Store) -> list[str]:
    """Every file of *store*, relative to its root."""
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file())


def child(script: str, *arguments: object, under: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Run *script* in a process of its own, with Store and Digest at hand; *under* is what runs Python."""
    imports = ("import sys", "from pathlib import Path", "from pesto_repro.digest import Digest")
    head = "\n".join([*imports, "from pesto_repro.store import Store", ""])
    return subprocess.Popen(
        [*under, sys.executable, "-c", head + textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parent.parent)},
    )


def output(process: subprocess.Popen[str], given: str = "") -> str:
    """What it printed; an error with its traceback if it failed."""
    out, err = process.communicate(given, timeout=120)
    assert (0, "") == (process.returncode, err)
    return out


# -- blobs -------------------------------------------------------------------------------------------------------


def test_what_was_put_is_there(store: Store) -> None:
    """By its digest, for this Store and the next, read-only and seekable."""
    digest = store.put(b"hello")
    assert Digest.of(b"hello") == digest
    for each in (store, Store(store.root)):
        assert each.has(digest)
        assert 5 == each.size(digest)
        with each.open(digest) as stream:
            assert (3, b"lo") == (stream.seek(3), stream.read())
    assert 0o444 == store.path(digest).stat().st_mode & 0o777
    assert [f"blobs/sha256/{digest.hex}"] == files(store)


def test_what_was_not_put_is_not_there(store: Store) -> None:
    """A miss is an answer for ``has``, an error with a remedy for ``open``; neither makes a folder."""
    digest = Digest.of(b"nothing")
    assert not store.has(digest)
    with pytest.raises(StoreError) as caught:
        store.open(digest)
    assert f"the store at {store.root} has no intact {digest}" == caught.value.message
    assert "run the command again" == caught.value.hint
    assert not store.root.exists()


def test_a_blob_without_commit_leaves_nothing(store: Store) -> None:
    """Neither when its writer forgot, nor when it failed."""
    with store.writer() as blob:
        blob.write(b"abc")
    with contextlib.suppress(ZeroDivisionError), store.writer() as blob:
        blob.write(b"abc" * 1_000_000)
        _ = 1 / 0
    assert [] == files(store)


def test_a_blob_of_many_writes(store: Store) -> None:
    """Its size is known while it grows, its digest at its end."""
    with store.writer() as blob:
        sizes = [(blob.write(b"x" * each), blob.size) for each in (0, 3, 1_000_000)]
        digest = blob.commit()
    assert [(0, 0), (3, 3), (1_000_000, 1_000_003)] == sizes
    assert Digest.of(b"x" * 1_000_003) == digest
    assert Store(store.root).has(digest)


def test_putting_twice_is_putting_once(store: Store) -> None:
    """An equal blob takes the place of the first; whoever reads that one reads on."""
    digest = store.put(b"twice")
    with store.open(digest) as stream:
        assert digest == store.put(b"twice")
        assert b"twice" == stream.read()
    assert 1 == len(files(store))


def test_scratch_is_gone_at_the_end(store: Store) -> None:
    """It has no name even while it is open, and is gone when its user fails."""
    with contextlib.suppress(ZeroDivisionError), store.scratch() as scratch:
        scratch.write(b"abcdef")
        scratch.seek(2)
        assert b"cdef" == scratch.read()
        assert [] == files(store)
        _ = 1 / 0
    assert [] == files(store)


def test_discard(store: Store) -> None:
    """A discarded blob is not there any more; one that never was is no error."""
    digest = store.put(b"x")
    store.discard(digest)
    store.discard(digest)
    assert not store.has(digest)


def test_a_blob_that_vanished_meanwhile_is_an_expected_failure(store: Store) -> None:
    """Somebody emptied the store while a command ran."""
    digest = store.put(b"x")
    store.path(digest).unlink()
    for action in (store.open, store.size):
        with pytest.raises(StoreError) as caught:
            action(digest)
        assert f"the store at {store.root} cannot be used: No such file or directory" == caught.value.message


# -- records -----------------------------------------------------------------------------------------------------


def test_records(store: Store) -> None:
    """By kind and name; the last one counts; unknown is None."""
    assert store.record("step", "a") is None
    store.remember("step", "a", {"digest": "sha256:é", "size": 1})
    store.remember("step", "a", {"digest": "sha256:é", "size": 2})
    assert {"digest": "sha256:é", "size": 2} == Store(store.root).record("step", "a")
    assert store.record("layer", "a") is None
    assert ["records/step/a"] == files(store)


# -- harm --------------------------------------------------------------------------------------------------------


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _first(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def _last(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-2] + bytes([content[-2] ^ 1]) + content[-1:])


@pytest.mark.parametrize("harm", [_truncate, _empty, _lengthen, _first, _last, Path.unlink])
def test_no_harm_gives_wrong_bytes(store: Store, harm: Callable[[Path], None]) -> None:
    """Every file of a store in turn: what was harmed is absent, all else is as it was; putting it again heals."""
    contents = [b"one", b"two" * 100_000]
    blobs = {store.put(each): each for each in contents}
    records = {name: {"digest": name, "size": 1} for name in ("a", "b")}
    for name, value in records.items():
        store.remember("step", name, value)
    for victim in files(store):
        path = store.root / victim
        path.chmod(0o644)
        harm(path)
        fresh = Store(store.root)
        for digest, content in blobs.items():
            harmed = victim.endswith(digest.hex)
            assert (not harmed) == fresh.has(digest)
            assert not (harmed and path.exists())
            assert digest == fresh.put(content)
            with fresh.open(digest) as stream:
                assert content == stream.read()
        for name, value in records.items():
            harmless = harm is _truncate and victim.endswith(f"/{name}")  # only the line's end is gone
            assert fresh.record("step", name) == (None if victim.endswith(f"/{name}") and not harmless else value)
            fresh.remember("step", name, value)


def test_kill_9_in_the_middle_of_writing_harms_nothing(store: Store) -> None:
    """What was being written is not there; the next Store that writes sweeps it away, and only that."""
    process = child(
        """
        store = Store(Path(sys.argv[1]))
        with store.writer() as blob, store.scratch() as scratch, store.partial(Digest.of(b"p")) as (partial, _):
            for each in (blob, scratch, partial):
                each.write(b"x" * 100_000)
            print("ready", flush=True)
            sys.stdin.read()
        """,
        store.root,
    )
    assert process.stdout is not None
    assert "ready\n" == process.stdout.readline()
    assert 2 == len(files(store))
    held = store.put(b"other")
    assert 3 == len(files(store)), "a file that somebody writes was swept away"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    fresh = Store(store.root)
    assert fresh.has(held)
    fresh.put(b"again")
    kept = {f"blobs/sha256/{Digest.of(each).hex}" for each in (b"other", b"again")}
    assert kept | {f"partial/{Digest.of(b'p').hex}"} == set(files(store))


def test_two_processes_write_the_same_blob(store: Store) -> None:
    """Both have it, and it is there once."""
    script = """
        sys.stdin.readline()
        store = Store(Path(sys.argv[1]))
        for number in range(40):
            digest = store.put(b"same %d" % number * 10_000)
            assert Store(store.root).has(digest)
            store.remember("step", "same", {"number": number})
            assert store.record("step", "same") is not None
        """
    processes = [child(script, store.root) for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert ["", "", ""] == [output(process) for process in processes]
    assert 41 == len(files(store))


def test_threads_share_a_store(store: Store) -> None:
    """Blobs and records of several threads at once."""
    failures: list[BaseException] = []

    def work(own: int) -> None:
        try:
            for number in range(30):
                assert store.has(store.put(b"%d" % number * 1000))
                assert store.has(store.put(b"%d of %d" % (number, own)))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(own,)) for own in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == failures
    assert 30 + 4 * 30 == len(files(store))


def test_a_file_that_was_moved_while_we_waited_is_opened_anew(tmp_path: Path) -> None:
    """Who waits for a download of somebody else must not go on in the finished blob."""
    path = tmp_path / "partial"
    got: list[bytes] = []

    def wait() -> None:
        with open_locked(path) as handle:
            handle.seek(0)
            got.append(handle.read())

    with open_locked(path) as handle:
        thread = threading.Thread(target=wait)
        thread.start()
        handle.write(b"all of it")
        handle.flush()
        path.replace(tmp_path / "finished")
    thread.join()
    assert [b""] == got
    assert (b"", b"all of it") == (path.read_bytes(), (tmp_path / "finished").read_bytes())


# -- a store that cannot be used ---------------------------------------------------------------------------------


def _actions(store: Store) -> list[Callable[[], object]]:
    return [
        lambda: store.put(b"x"),
        lambda: store.has(Digest.of(b"x")),
        lambda: store.record("step", "a"),
        lambda: store.remember("step", "a", {}),
        lambda: store.scratch().__enter__(),
        lambda: store.partial(Digest.of(b"x")).__enter__(),
    ]


def test_a_store_below_a_file(tmp_path: Path) -> None:
    """What is no folder cannot be a store; only a record that cannot be is simply absent."""
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "store")
    messages = set()
    for action in _actions(store):
        try:
            assert action() is None
        except StoreError as error:
            messages.add((error.message, error.hint))
    assert {(f"the store at {store.root} cannot be used: Not a directory", _HINT)} == messages


def test_a_store_that_may_not_be_written(tmp_path: Path) -> None:
    """Its blobs and records may be read; writing says why not and what to do. (Mounted so: root may write all.)"""
    store = Store(tmp_path / "store")
    store.put(b"x")
    store.remember("step", "a", {"n": 1})
    script = """
        store = Store(Path(sys.argv[1]))
        print(store.has(Digest.of(b"x")), store.record("step", "a"))
        digest = Digest.of(b"x")
        for action in (lambda: store.put(b"x"), lambda: store.remember("step", "a", {}), lambda: store.discard(digest)):
            try:
                action()
            except Exception as error:
                print(type(error).__name__, error.message, error.hint, sep="|")
        """
    mount = f"mount --bind '{store.root}' '{store.root}' && mount -o remount,bind,ro '{store.root}'"
    failure = f"StoreError|the store at {store.root} cannot be used: Read-only file system|{_HINT}\n"
    assert "True {'n': 1}\n" + 3 * failure == output(child(script, store.root, under=_mounted(mount)))


def test_a_full_disk(tmp_path: Path) -> None:
    """Blob, scratch file, partial download and record: each says what is wrong, and leaves nothing behind."""
    script = """
        store = Store(Path(sys.argv[1]))
        kept = store.put(b"kept")

        def blob():
            with store.writer() as blob:
                for _ in range(40):
                    blob.write(b"x" * 100_000)

        def small_pieces():
            with store.writer() as blob:
                for _ in range(400):
                    blob.write(b"x" * 5_000)

        def scratch():
            with store.scratch() as scratch:
                for _ in range(40):
                    scratch.write(b"x" * 100_000)

        def record():
            store.remember("step", "large", {"x": "x" * 2_000_000})

        def partial():
            with store.partial(Digest.of(b"p")) as (handle, _):
                for _ in range(40):
                    handle.write(b"x" * 100_000)

        for action in (blob, small_pieces, scratch, record, partial):
            try:
                action()
            except Exception as error:
                print(type(error).__name__, error.message, error.hint, sep="|")
        print(sorted(path.parent.name for path in store.root.rglob("*") if path.is_file()), Store(store.root).has(kept))
        """
    mount = f"mount -t tmpfs -o size=1m none '{tmp_path}'"
    message = f"the store at {tmp_path}/store cannot be used: No space left on device"
    failure = f"StoreError|{message}|free some space, or {_HINT}\n"
    expected = 5 * failure + "['partial', 'sha256'] True\n"
    assert expected == output(child(script, tmp_path / "store", under=_mounted(mount)))


def _mounted(mount: str) -> tuple[str, ...]:
    """What runs a program with *mount* done, seen by nobody else; skips where the kernel forbids it."""
    unshare = judge("unshare")
    if subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces are not to be had here")
    return (unshare, "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh")


def test_a_file_that_must_not_grow(tmp_path: Path) -> None:
    """A limit on the size of files (setrlimit) is told like a full disk, wherever it is met."""
    script = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        store = Store(Path(sys.argv[1]))
        try:
            store.put(b"x" * 100_000)
        except Exception as error:
            print(type(error).__name__, error.message, error.hint, sep="|")
        """
    expected = f"StoreError|the store at {tmp_path} cannot be used: File too large|{_HINT}\n"
    assert expected == output(child(script, tmp_path))


def test_the_store_ignores_the_umask(store: Store) -> None:
    """A shared store serves everybody who may read its folder."""
    before = os.umask(0o077)
    try:
        digest = store.put(b"x")
    finally:
        os.umask(before)
    assert 0o444 == store.path(digest).stat().st_mode & 0o777
