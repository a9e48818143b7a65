"""Pinned artifact -> verified bytes in the store: downloads that run side by side, resume, retry and are verified.

What is asked for by digest is only ever answered with those bytes. What is not pinned yet (an index page, a
resource at lock time) comes through :meth:`Fetcher.document` and :meth:`Fetcher.pin`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn, TypeVar
from urllib.parse import unquote, urlsplit

from pesto_repro.addresses import public
from pesto_repro.digest import CHUNK, Digest, hash_stream
from pesto_repro.errors import FetchError, MismatchError, OfflineError
from pesto_repro.progress import Activity, Reporter
from pesto_repro.store import Store

if TYPE_CHECKING:
    from pesto_repro.fetch.http import Http

T = TypeVar("T")

TRIES = 5
PARALLEL = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """A body: its *pieces*, its *total* size if known, the offset at which it starts (-1: not said)."""

    pieces: Iterator[bytes]
    total: int | None
    start: int


class PassingError(Exception):
    """A failure that may pass: worth another try after *delay* seconds (None: the usual one)."""

    def __init__(self, reason: str, delay: float | None = None) -> None:
        super().__init__(reason)
        self.delay = delay


class Fetcher:
    """Brings bytes into *store*. With *offline* it never touches the network, and says what it lacked.

    One Fetcher may be used by several threads. *authorities* gives a file of certificate authorities to trust
    in place of the usual ones; *sleep* is called between tries, with seconds.
    """

    def __init__(
        self,
        store: Store,
        reporter: Reporter,
        *,
        offline: bool = False,
        authorities: Callable[[], Path | None] = lambda: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store, self.reporter, self.offline = store, reporter, offline
        self._sleep, self._authorities = sleep, authorities
        self._http: Http | None = None
        self._lock = threading.Lock()

    def document(self, url: str, *, limit: int = 64 << 20, accept: str | None = None) -> bytes:
        """The bytes at *url*, unpinned: at most *limit*. Raises FetchError, OfflineError when offline."""

        def attempt() -> bytes:
            headers = {"Accept-Encoding": "gzip"} | ({"Accept": accept} if accept else {})
            with self._get(url, headers) as answer:
                found = bytearray()
                for piece in answer.pieces:
                    found += piece
                    if len(found) > limit:
                        raise FetchError(f"{public(url)} is larger than {limit} bytes")
                return bytes(found)

        return self._retried(url, attempt)

    def blob(self, digest: Digest, size: int | None, urls: Callable[[], Iterable[str]], label: str) -> None:
        """Have the pinned bytes in the store, from the first of *urls()* that has them; nothing to do if they are.

        Raises MismatchError naming both digests when a source has other bytes, FetchError when none has any.
        """
        if self.store.has(digest):
            return
        if self.offline:
            self._refuse_offline(label)
        failures: list[FetchError] = []
        for url in urls():
            try:
                return self._download(url, digest, size, label)
            except FetchError as failure:
                failures.append(failure)
        if not failures:
            raise FetchError(f"{label}: nobody says where it lies")
        mismatches = [each for each in failures if isinstance(each, MismatchError)]
        raise (mismatches or failures)[0]

    def pin(self, url: str, label: str) -> tuple[Digest, int]:
        """Download what nobody has pinned yet: its digest and size. The bytes are in the store afterwards."""

        def attempt() -> tuple[Digest, int]:
            with (
                self._get(url, {}) as answer,
                self.reporter.activity("download", label, answer.total) as activity,
                self.store.writer() as blob,
            ):
                for piece in answer.pieces:
                    blob.write(piece)
                    activity.advance(len(piece))
                return blob.commit(), blob.size

        return self._retried(url, attempt)

    def many(self, jobs: Iterable[Callable[[], None]]) -> None:
        """Run *jobs* side by side; the first failure is raised after those under way have ended."""
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="fetch") as pool:
            try:
                done, _ = wait([pool.submit(job) for job in jobs], return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        for future in done:
            future.result()

    # -- one source ----------------------------------------------------------------------------------------------

    def _download(self, url: str, digest: Digest, size: int | None, label: str) -> None:
        with (
            self.reporter.activity("download", label, size) as activity,
            self.store.partial(digest) as (handle, path),
        ):
            if self.store.has(digest):  # another process was faster while we waited for the lock
                path.unlink(missing_ok=True)
                return
            resumed = handle.seek(0, 2) > 0
            activity.advance(handle.tell())
            actual = self._complete(url, handle, size, activity)
            if actual != digest and resumed:
                handle.truncate(0)
                actual = self._complete(url, handle, size, activity)
            if actual != digest:
                path.unlink(missing_ok=True)
                found = f"more than {size} bytes" if size is not None and handle.tell() > size else actual
                raise MismatchError(
                    f"{label} is not what was pinned: expected {digest}, {public(url)} has {found}",
                    "if the change is wanted, lock again with -U; if not, find out who changed it",
                )
            self.store.adopt(path, digest)

    def _complete(self, url: str, handle: IO[bytes], size: int | None, activity: Activity) -> Digest:
        """Append what is missing at the end of *handle*; the digest of all of it.

        RFC 9110, 14.2: a server may ignore Range and send everything; then it begins anew. What is longer than it
        may be is not read to its end.
        """

        def attempt() -> None:
            have = handle.seek(0, 2)
            if size is None:  # whether it is complete cannot be told: begin again
                have = handle.truncate(0)
            elif have >= size:
                return
            with self._get(url, {"Range": f"bytes={have}-"} if have else {}) as answer:
                if answer.start != have:
                    handle.truncate(0)
                if answer.start not in (0, have):
                    raise PassingError("it answered with another range than was asked")
                for piece in answer.pieces:
                    handle.write(piece)
                    activity.advance(len(piece))
                    if size is not None and handle.tell() > size:
                        break
            handle.flush()

        self._retried(url, attempt)
        handle.seek(0)
        return hash_stream(handle)[0]  # type: ignore[arg-type]

    @contextlib.contextmanager
    def _get(self, url: str, headers: dict[str, str]) -> Iterator[Answer]:
        """What lies at *url*, a local file or a web address."""
        if url.startswith("file:"):
            with _open_file(url) as stream:
                yield Answer(iter(lambda: stream.read(CHUNK), b""), None, 0)
            return
        if self.offline:
            self._refuse_offline(public(url))
        with self._connections().get(url, headers) as answer:
            yield answer

    def _retried(self, url: str, attempt: Callable[[], T]) -> T:
        for number in range(TRIES - 1):
            try:
                return attempt()
            except PassingError as error:
                self._sleep(min(60.0, error.delay if error.delay is not None else 0.5 * 2**number))
        try:
            return attempt()
        except PassingError as error:
            raise FetchError(
                f"{public(url)} cannot be read: {error}",
                "check the network and the address, then run the command again",
            ) from None

    def close(self) -> None:
        """Close every connection."""
        if self._http is not None:
            self._http.close()

    def _connections(self) -> Http:
        with self._lock:
            if self._http is None:
                from pesto_repro.fetch.http import Http  # imported late: a build that has everything downloads nothing

                self._http = Http(self._authorities)
            return self._http

    def _refuse_offline(self, label: str) -> NoReturn:
        raise OfflineError(
            f"{label} is not in the store at {self.store.root}, and the network is not to be used",
            "run once without --offline, or point --store at a store that has it",
            what=label,
        )


def _open_file(url: str) -> IO[bytes]:
    path = Path(unquote(urlsplit(url).path))
    try:
        return path.open("rb")
    except OSError as error:
        raise FetchError(f"{path} cannot be read: {error.strerror}") from None
