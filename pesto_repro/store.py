"""The store: content-addressed blobs, and what is known of steps. The only writer besides sinks.

::

    <root>/blobs/sha256/<hex>   immutable bytes, by digest: wheels, .debs, layers
    <root>/records/<kind>/<name>
        step/<key>              step key -> diff_id of the layer it makes, the list of its paths
        layer/<diff_id>.<how>   diff_id and compressor -> the blob that holds the layer
        claim/<key>             what a cache says of a step's layer    (build/shared.py)
        checked/<digest>        a cache's layer that was held against its diff_id
        listing/<digest>        what is in a base image    (resolve/base_scan.py)
        debian-facts-1/<digest> what a .deb says of itself    (build/debian_facts.py)
        seen-1/<id>             what the files of a project hold    (build/seen.py)
        output/<id>, spare/<id> finished archives: an equal one is not written again    (sinks/archive.py)
        root/<id>               an image that was built, and what it needs    (build/roots.py)
        explain/<key>, last/<id>  what a step was made of, what was built last    (audit/explain.py)
    <root>/spares/<id>          the archive before the last one of an output    (sinks/archive.py)
    <root>/trees/, roots/       layers unpacked for the sandbox    (sandbox/rootfs.py)
    <root>/partial/<hex>        a download that was cut off, to be resumed
    <root>/tmp/                 files being written, and stores that are used once

Who uses the store holds a shared lock on its folder (``flock`` of <root> itself): a Store takes it by itself when it
is first asked or written to, and keeps it until :meth:`Store.release` or the end of the process. ``store gc`` holds it
exclusively, so it waits for who uses the store, and who comes meanwhile waits for it: what was seen in the store stays
there. Who runs something for long holds only ``store.in_use("trees")`` meanwhile, and releases the rest: then gc
removes all that is not needed but trees.

Rules: a blob appears under its digest whole or not at all (written in ``tmp``, then renamed), so two builds share a
store and ``kill -9`` harms nothing. Bytes are verified on the way in and hashed again before their first use in a
process. What does not verify is removed: to the caller it was never there. A record carries its own checksum.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

from pesto_repro.digest import Digest, canonical_json, hash_stream
from pesto_repro.errors import StoreError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

Record = Mapping[str, str | int]


class BlobWriter:
    """A blob being written: ``write`` it, then ``commit`` it. Without a commit nothing remains."""

    def __init__(self, store: Store, handle: IO[bytes], path: Path) -> None:
        self._store, self._handle, self._path = store, handle, path
        self._state, self.size = hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._handle.write(data)
        self._state.update(data)
        self.size += len(data)
        return len(data)

    def commit(self) -> Digest:
        """Give the bytes their place under their digest."""
        digest = Digest(self._state.hexdigest())
        self._handle.flush()
        self._store.adopt(self._path, digest)
        return digest


class Store:
    """A store below *root*; made when first written to. Safe for several threads and processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._verified: set[Digest] = set()
        self._lock = threading.Lock()
        self._swept = False
        self._given_up = threading.Event()
        self._use = _FolderLock(root)

    # -- who uses it ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def in_use(self, part: str = "") -> Iterator[None]:
        """``store gc`` removes nothing meanwhile: nothing at all, or nothing of the folder *part* ("trees").

        Only *part* needs to be said: for the whole, a Store holds the lock since its first use.
        """
        if not part:
            self._use.share()
            yield
            return
        self._use.share()
        lock = _FolderLock(self._folder(part))
        lock.share()
        try:
            yield
        finally:
            lock.release()

    def release(self) -> None:
        """Nothing that was seen in the store needs to stay, except where ``in_use`` says otherwise."""
        with self._lock:
            self._verified.clear()
        self._use.release()

    @contextlib.contextmanager
    def exclusive(self, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Nobody else uses the store meanwhile. *on_wait* is called before waiting for who does; it may raise."""
        with self.guarded():
            if not self._use.exclude(wait=False):
                on_wait()
                self._use.exclude(wait=True)
        try:
            yield
        finally:
            self.release()

    @contextlib.contextmanager
    def unused(self, part: str) -> Iterator[bool]:
        """Whether nobody has a lock on *part*, a file or a folder; if so, nobody will meanwhile."""
        lock = _FolderLock(self.root / part)
        try:
            yield not (self.root / part).exists() or lock.exclude(wait=False)
        finally:
            lock.release()

    # -- blobs ---------------------------------------------------------------------------------------------------

    def path(self, digest: Digest) -> Path:
        """Where the blob lies, if it is there."""
        return self.root / "blobs" / "sha256" / digest.hex

    def has(self, digest: Digest) -> bool:
        """Is the blob there, with the right bytes? (Hashed once per process; a broken one is removed.)"""
        with self._lock:
            if digest in self._verified:
                return True
        self._use.share()
        try:
            with self.path(digest).open("rb") as stream:
                actual, _ = hash_stream(stream)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._failure(error) from error
        if actual != digest:
            self.discard(digest)
            return False
        self._mark(digest)
        return True

    def open(self, digest: Digest) -> BinaryIO:
        """The verified blob, open for reading and seekable. Raises StoreError if it is not there."""
        if not self.has(digest):
            raise StoreError(f"the store at {self.root} has no intact {digest}", "run the command again")
        with self.guarded():
            return self.path(digest).open("rb")

    def size(self, digest: Digest) -> int:
        """The size in bytes of a blob that is there."""
        self._use.share()
        with self.guarded():
            return self.path(digest).stat().st_size

    def put(self, data: bytes) -> Digest:
        """Keep *data*."""
        with self.writer() as blob:
            blob.write(data)
            return blob.commit()

    def discard(self, digest: Digest) -> None:
        """Forget a blob."""
        with self._lock:
            self._verified.discard(digest)
        with self.guarded():
            self.path(digest).unlink(missing_ok=True)

    @contextlib.contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """A new blob, of bytes whose digest is known at their end."""
        with self._temporary() as (handle, path):
            yield BlobWriter(self, handle, path)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[IO[bytes]]:
        """A nameless file to read and write, gone at the end whatever happens."""
        with self._temporary() as (handle, path):
            path.unlink()
            yield handle

    @contextlib.contextmanager
    def fresh(self) -> Iterator[Store]:
        """Another store, on the same disk, that knows nothing; gone at the end. ``store gc`` removes what is left."""
        folder = self._folder("tmp")
        with self.guarded():
            temporary = tempfile.TemporaryDirectory(dir=folder)
        with temporary as root:
            yield Store(Path(root))

    @contextlib.contextmanager
    def partial(self, digest: Digest) -> Iterator[tuple[IO[bytes], Path]]:
        """What was downloaded of *digest* so far, locked against other processes, positioned at its end."""
        path = self._folder("partial") / digest.hex
        with self.guarded():
            handle = open_locked(path, self.guarded)
        with handle:
            yield handle, path

    def adopt(self, path: Path, digest: Digest) -> None:
        """Move the finished file at *path*, whose digest was computed while it was written, to its place."""
        with self.guarded():
            path.chmod(0o444)
            self._folder("blobs", "sha256")
            path.replace(self.path(digest))
        self._mark(digest)

    # -- records -------------------------------------------------------------------------------------------------

    def record(self, kind: str, name: str) -> Record | None:
        """What was recorded under *name*; None if nothing was, or not these bytes any more."""
        self._use.share()
        try:
            text, _, check = (self.root / "records" / kind / name).read_bytes().partition(b"\n")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._failure(error) from error
        if check.strip() != hashlib.sha256(text).hexdigest().encode():
            return None
        value: Record = json.loads(text)
        return value

    def remember(self, kind: str, name: str, value: Record) -> None:
        """Record *value* under *name*, in place of what was there."""
        text = canonical_json(dict(value))
        with self._temporary() as (handle, path):
            handle.write(text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n")
            handle.flush()
            with self.guarded():
                path.replace(self._folder("records", kind) / name)

    def forget(self, kind: str, name: str) -> None:
        """Remove a record."""
        with self.guarded():
            (self.root / "records" / kind / name).unlink(missing_ok=True)

    def give_up(self) -> None:
        """Let every write of this Store fail from now on, so that threads at work end without delay."""
        self._given_up.set()

    # -- inside --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Turns an OSError of the store's own files into a StoreError that says where and what to do."""
        if self._given_up.is_set():
            raise StoreError(f"the store at {self.root} takes nothing more: the command failed meanwhile")
        try:
            yield
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> StoreError:
        reason = error.strerror or str(error)
        hint = "choose another place with --store or PESTO_REPRO_STORE"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = f"free some space, or {hint}"
        return StoreError(f"the store at {self.root} cannot be used: {reason}", hint)

    def _folder(self, *parts: str) -> Path:
        folder = self.root.joinpath(*parts)
        with self.guarded():
            folder.mkdir(parents=True, exist_ok=True)
        self._use.share()
        return folder

    def _mark(self, digest: Digest) -> None:
        with self._lock:
            self._verified.add(digest)

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[tuple[IO[bytes], Path]]:
        """A file in ``tmp``, locked as long as it is being written, removed unless it was moved away."""
        folder = self._folder("tmp")
        self._sweep(folder)
        with self.guarded():
            handle, path = _new_locked(folder, self.guarded)
        try:
            with handle:
                yield handle, path
        finally:
            path.unlink(missing_ok=True)

    def _sweep(self, folder: Path) -> None:
        """Remove what a killed process left: files in ``tmp`` that nobody holds a lock on."""
        with self._lock:
            swept, self._swept = self._swept, True
        if swept:
            return
        with self.guarded():
            left = list(folder.iterdir())
        for path in left:
            with contextlib.suppress(OSError), path.open("rb") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


class _FolderLock:
    """A ``flock`` on a folder: no file of its own, and a folder that may not be written can be locked, too.

    A folder that is not there is not locked: nothing in it can vanish. Where there are no locks, nobody shares one,
    and to exclude others fails: whoever would remove something learns it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number: int | None = None
        self._mutex = threading.Lock()

    def share(self) -> None:
        """Hold it together with others, from now on."""
        if self._number is not None:
            return
        with self._mutex, contextlib.suppress(OSError):
            self._flock(fcntl.LOCK_SH)

    def exclude(self, *, wait: bool) -> bool:
        """Hold it alone, in place of a shared hold; whether that was had. Raises OSError."""
        with self._mutex:
            try:
                self._flock(fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                return False
            return True

    def release(self) -> None:
        """Hold it no more."""
        with self._mutex:
            if self._number is not None:
                os.close(self._number)
            self._number = None

    def _flock(self, how: int) -> None:
        number = self._number
        if number is None:
            number = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(number, how)
        except BaseException:
            os.close(number)
            self._number = None
            raise
        self._number = number

    def __del__(self) -> None:
        self.release()


Guard = Callable[[], AbstractContextManager[None]]


class _Guarded(io.FileIO):
    """A file whose writing, however late its buffer comes to it, fails as *guard* says."""

    def __init__(self, number: int, guard: Guard) -> None:
        super().__init__(number, "r+")
        self._guard = guard

    def write(self, data: Buffer, /) -> int:
        with self._guard():
            return super().write(data)

    def truncate(self, size: int | None = None, /) -> int:
        with self._guard():
            return super().truncate(size)


def _new_locked(folder: Path, guard: Guard) -> tuple[IO[bytes], Path]:
    """A new file, locked; another one, if a sweeping process took it between the two."""
    while True:
        number, name = tempfile.mkstemp(dir=folder)
        handle, path = io.BufferedRandom(_Guarded(number, guard)), Path(name)
        if _lock_named(handle, path):
            return handle, path


def open_locked(path: Path, guard: Guard = contextlib.nullcontext) -> IO[bytes]:
    """Open to append, and lock; again, if between the two another process moved the file away."""
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        handle = io.BufferedRandom(_Guarded(number, guard))
        if _lock_named(handle, path):
            handle.seek(0, io.SEEK_END)
            return handle


def _lock_named(handle: IO[bytes], path: Path) -> bool:
    """Lock *handle*, and say whether *path* still names it; close it if not."""
    fcntl.flock(handle, fcntl.LOCK_EX)
    if _still_named(handle, path):
        return True
    handle.close()
    return False


def _still_named(handle: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False
