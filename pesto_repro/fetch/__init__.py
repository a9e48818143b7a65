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
from pathlib import Path
from typing import IO, NoReturn, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import requests

from pesto_repro.digest import CHUNK, Digest, hash_stream
from pesto_repro.errors import FetchError, MismatchError, OfflineError
from pesto_repro.progress import Activity, Reporter
from pesto_repro.store import Store

T = TypeVar("T")

TRIES = 5
TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and seconds without a byte."""
PARALLEL = 8
PIECE = 64 << 10
"""Bytes read at once: so many are lost at most when a connection breaks off."""
_CUT = "the connection ended too early"
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


class _Passing(Exception):
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
        self._local = threading.local()

    def document(self, url: str, *, limit: int = 64 << 20, accept: str | None = None) -> bytes:
        """The bytes at *url*, unpinned: at most *limit*. Raises FetchError, OfflineError when offline."""

        def attempt() -> bytes:
            headers = {"Accept-Encoding": "gzip"} | ({"Accept": accept} if accept else {})
            with self._get(url, headers) as (pieces, _, _):
                found = bytearray()
                for piece in pieces:
                    found += piece
                    if len(found) > limit:
                        raise FetchError(f"{redact(url)} is larger than {limit} bytes")
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
                self._get(url, {}) as (pieces, total, _),
                self.reporter.activity("download", label, total) as activity,
                self.store.writer() as blob,
            ):
                for piece in pieces:
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
                    f"{label} is not what was pinned: expected {digest}, {redact(url)} has {found}",
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
            with self._get(url, {"Range": f"bytes={have}-"} if have else {}) as (pieces, _, start):
                if start != have:
                    handle.truncate(0)
                if start not in (0, have):
                    raise _Passing("it answered with another range than was asked")
                for piece in pieces:
                    handle.write(piece)
                    activity.advance(len(piece))
                    if size is not None and handle.tell() > size:
                        break
            handle.flush()

        self._retried(url, attempt)
        handle.seek(0)
        return hash_stream(handle)[0]  # type: ignore[arg-type]

    @contextlib.contextmanager
    def _get(self, url: str, headers: dict[str, str]) -> Iterator[tuple[Iterator[bytes], int | None, int]]:
        """(pieces, total size if known, offset of the first piece) of what lies at *url*."""
        if self.offline and not url.startswith("file:"):
            self._refuse_offline(redact(url))
        if url.startswith("file:"):
            with _open_file(url) as stream:
                yield iter(lambda: stream.read(CHUNK), b""), None, 0
            return
        asked = {"Accept-Encoding": "identity", **headers}
        with self._session().get(url, stream=True, timeout=TIMEOUT, headers=asked) as response:
            _check_status(response, url)
            start = _range_start(response)
            length = response.headers.get("Content-Length")
            encoded = "Content-Encoding" in response.headers
            total = start + int(length) if length and length.isdigit() and not encoded else None
            yield _whole(response, total, start), total, start

    def _retried(self, url: str, attempt: Callable[[], T]) -> T:
        for number in range(TRIES):
            try:
                return attempt()
            except (*_BROKEN, _Passing) as error:
                if number == TRIES - 1:
                    raise FetchError(
                        f"{redact(url)} cannot be read: {_reason(error)}",
                        "check the network and the address, then run the command again",
                    ) from None
                delay = error.delay if isinstance(error, _Passing) else None
                self._sleep(min(60.0, delay if delay is not None else 0.5 * 2**number))
            except (requests.RequestException, ValueError) as error:
                raise FetchError(f"{redact(url)} cannot be read: {_reason(error)}") from None
        raise AssertionError("unreachable")

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            if (trusted := self._authorities()) is not None:
                session.verify = str(trusted)
        return session

    def _refuse_offline(self, label: str) -> NoReturn:
        raise OfflineError(
            f"{label} is not in the store at {self.store.root}, and the network is not to be used",
            "run once without --offline, or point --store at a store that has it",
        )


def redact(url: str) -> str:
    """*url* without user name and password, and without a query, which often carries a signature."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the address"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def file_digest(path: Path) -> tuple[Digest, int]:
    """Digest and size of a local file."""
    with path.open("rb") as stream:
        return hash_stream(stream)


def _open_file(url: str) -> IO[bytes]:
    path = Path(unquote(urlsplit(url).path))
    try:
        return path.open("rb")
    except OSError as error:
        raise FetchError(f"{path} cannot be read: {error.strerror}") from None


def _check_status(response: requests.Response, url: str) -> None:
    code = response.status_code
    if code in _PASSING:
        after = response.headers.get("Retry-After", "")
        raise _Passing(f"HTTP {code} {response.reason}", float(after) if after.isdigit() else None)
    if code >= 400 and not (code == 416 and "Range" in response.request.headers):
        hint = "check the credentials of the index or mirror" if code in (401, 403) else None
        raise FetchError(f"{redact(url)} cannot be read: HTTP {code} {response.reason}", hint)


def _range_start(response: requests.Response) -> int:
    """Where the body starts: RFC 9110, 14.4 "Content-Range"; a 200 starts at 0 whatever was asked.

    -1 if that is not said, or if nothing lies there (15.5.17, "416 Range Not Satisfiable").
    """
    if response.status_code not in (206, 416):
        return 0
    first = response.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
    return int(first) if first.isdigit() else -1


def _whole(response: requests.Response, total: int | None, start: int) -> Iterator[bytes]:
    """The body's pieces; a body shorter than announced is a failure that may pass."""
    have = start
    for piece in response.iter_content(PIECE):
        have += len(piece)
        yield piece
    if total is not None and have < total:
        raise _Passing(_CUT)


def _reason(error: Exception) -> str:
    """The innermost reason, without the address (which may carry credentials)."""
    if isinstance(error, ValueError):  # requests' words for it: MissingSchema, InvalidSchema, InvalidURL
        return "it is no web address"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return _CUT
    while isinstance(error.__context__, Exception) and not isinstance(error, _Passing):
        error = error.__context__
    inner = getattr(error, "reason", None)
    text = str(inner if inner is not None else error)
    return text.rpartition(": ")[2] if "object at 0x" in text else text
