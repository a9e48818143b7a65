"""Bringing pinned bytes into the store, from a server that does everything that servers do."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from pesto_repro import fetch
from pesto_repro.digest import Digest
from pesto_repro.errors import FetchError, MismatchError, OfflineError
from pesto_repro.fetch import Fetcher
from pesto_repro.fetch import http as http_room
from pesto_repro.fetch.http import PIECE
from pesto_repro.progress import Activity, Reporter
from pesto_repro.store import Store

CONTENT = hashlib.sha512(b"content").digest() * 50_000
DIGEST = Digest.of(CONTENT)
_AGAIN = "check the network and the address, then run the command again"

Answer = Callable[["_Handler"], None]


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers with what the server was told to answer next."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Range", "")))
        self.server.authorizations.append(self.headers.get("Authorization", ""))
        answers = self.server.answers.get(self.path, [status(404)])
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def send(self, code: int, content: bytes, length: int | None = None, **headers: str) -> None:
        """A response; *length* is what it claims to have."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)
        if length is not None:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Server(http.server.ThreadingHTTPServer):
    """``answers`` by path, the last one again and again; ``seen`` are (path, Range) of all requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, list[Answer]] = {}
        self.seen: list[tuple[str, str]] = []
        self.authorizations: list[str] = []
        self.over = threading.Event()

    def url(self, path: str = "/a", userinfo: str = "") -> str:
        return f"http://{userinfo}127.0.0.1:{self.server_port}{path}"


def whole(content: bytes, handler: _Handler) -> None:
    """A server that knows ranges."""
    asked = handler.headers.get("Range", "")
    if not asked:
        return handler.send(200, content)
    start = int(asked.removeprefix("bytes=").removesuffix("-"))
    if start >= len(content):
        return handler.send(416, b"", Content_Range=f"bytes */{len(content)}")
    handler.send(206, content[start:], Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}")


def rangeless(content: bytes, handler: _Handler) -> None:
    """A server that does not."""
    handler.send(200, content)


def cut(after: int, handler: _Handler) -> None:
    """A connection that ends *after* so many bytes of what was asked."""
    start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
    rest = CONTENT[start:]
    handler.send(
        206 if start else 200,
        rest[:after],
        len(rest),
        Content_Range=f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}",
    )


def misplaced(handler: _Handler) -> None:
    """A server that sends another range than was asked."""
    handler.send(206, CONTENT[7:], Content_Range=f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}")


def unplaced(handler: _Handler) -> None:
    """A server that does not say which range it sends."""
    handler.send(206, CONTENT[-10:])


def status(code: int, **headers: str) -> Answer:
    return lambda handler: handler.send(code, b"", None, **headers)


def endless(sent: list[int], handler: _Handler) -> None:
    """Claims a gibibyte, and sends 200 MiB of it if somebody takes them; *sent* says how much."""
    with contextlib.suppress(ConnectionError):
        handler.send(200, b"", 1 << 30)
        for _ in range(200):
            handler.wfile.write(bytes(1 << 20))
            sent.append(1 << 20)


def silent(handler: _Handler) -> None:
    """Says nothing until the test is over."""
    handler.server.over.wait(60)
    handler.close_connection = True


def hangs_up(handler: _Handler) -> None:
    """Closes the connection without a word."""
    handler.close_connection = True


class _Watching(Reporter):
    def __init__(self) -> None:
        self.heard: list[tuple[str, str, int | None]] = []

    def activity(self, verb: str, name: str, total: int | None = None) -> Activity:
        self.heard.append((verb, name, total))
        return Activity()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of this machine's own."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("NETRC", "/dev/null")
    with Server() as found:
        thread = threading.Thread(target=partial(found.serve_forever, poll_interval=0.01))
        thread.start()
        yield found
        found.over.set()
        found.shutdown()
        thread.join()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one."""
    return Store(tmp_path / "store")


@pytest.fixture
def delays() -> list[float]:
    """The seconds that would have been waited."""
    return []


@pytest.fixture
def fetcher(store: Store, delays: list[float]) -> Iterator[Fetcher]:
    """One that does not really wait."""
    found = Fetcher(store, _Watching(), sleep=delays.append)
    yield found
    found.close()


def get(fetcher: Fetcher, *urls: str, digest: Digest = DIGEST, size: int | None = len(CONTENT)) -> None:
    """Ask for the blob."""
    fetcher.blob(digest, size, lambda: urls, "numpy 2.3.1")


def partials(store: Store) -> list[bytes]:
    return [path.read_bytes() for path in (store.root / "partial").iterdir()]


# -- pinned ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [whole, rangeless])
@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_blob_arrives(
    server: Server, store: Store, fetcher: Fetcher, answer: Callable[..., None], size: int | None
) -> None:
    """Once: what is in the store is not asked for again, nor are its addresses."""
    server.answers["/a"] = [partial(answer, CONTENT)]
    get(fetcher, server.url(), size=size)
    fetcher.blob(DIGEST, size, lambda: pytest.fail("its addresses were asked for"), "numpy 2.3.1")
    assert Store(store.root).has(DIGEST)
    assert [("/a", "")] == server.seen
    assert [] == partials(store)
    assert [("download", "numpy 2.3.1", size)] == getattr(fetcher.reporter, "heard")  # noqa: B009


def test_a_file_of_this_machine(store: Store, fetcher: Fetcher, tmp_path: Path) -> None:
    """``file:`` addresses, with their escapes."""
    (tmp_path / "a b").write_bytes(CONTENT)
    get(fetcher, f"file://{tmp_path}/a%20b")
    assert store.has(DIGEST)
    with pytest.raises(FetchError) as caught:
        get(fetcher, f"file://{tmp_path}/missing", digest=Digest.of(b"x"), size=1)
    assert f"{tmp_path}/missing cannot be read: No such file or directory" == caught.value.message


def test_a_cut_connection_is_resumed(server: Server, store: Store, fetcher: Fetcher, delays: list[float]) -> None:
    """Where it broke off, as often as it breaks off."""
    server.answers["/a"] = [partial(cut, 2 * PIECE), partial(cut, PIECE + 1), partial(whole, CONTENT)]
    get(fetcher, server.url())
    assert [("/a", ""), ("/a", f"bytes={2 * PIECE}-"), ("/a", f"bytes={3 * PIECE}-")] == server.seen
    assert [0.5, 1.0] == delays
    assert store.has(DIGEST)


def test_without_a_size_nothing_is_resumed(server: Server, store: Store, fetcher: Fetcher) -> None:
    """Whether it was complete could not be told."""
    server.answers["/a"] = [partial(cut, 1000), partial(whole, CONTENT)]
    get(fetcher, server.url(), size=None)
    assert [("/a", ""), ("/a", "")] == server.seen
    assert store.has(DIGEST)


@pytest.mark.parametrize("answer", [partial(rangeless, CONTENT), misplaced, unplaced])
def test_a_server_that_does_not_resume(server: Server, store: Store, fetcher: Fetcher, answer: Answer) -> None:
    """Everything anew, or another range than was asked: the bytes are right in the end."""
    server.answers["/a"] = [partial(cut, PIECE), answer, partial(whole, CONTENT)]
    get(fetcher, server.url())
    assert store.has(DIGEST)
    assert [("/a", ""), ("/a", f"bytes={PIECE}-")] == server.seen[:2]
    assert [("/a", "")] * (answer in (misplaced, unplaced)) == server.seen[2:]


def test_a_download_that_always_breaks_off(server: Server, store: Store, fetcher: Fetcher, delays: list[float]) -> None:
    """After five tries it is an error; what came is kept for the next command."""
    server.answers["/a"] = [partial(cut, PIECE)]
    with pytest.raises(FetchError) as caught:
        get(fetcher, server.url())
    assert f"{server.url()} cannot be read: the connection ended too early" == caught.value.message
    assert _AGAIN == caught.value.hint
    assert [0.5, 1.0, 2.0, 4.0] == delays
    assert [CONTENT[: 5 * PIECE]] == partials(store)


def test_what_a_killed_download_left_is_used(server: Server, store: Store, fetcher: Fetcher) -> None:
    """Another process, killed in the middle: its lock is gone and its bytes are good."""
    server.answers["/a"] = [partial(cut, 30 * PIECE), silent]
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(store.root), DIGEST.hex, str(len(CONTENT)), server.url()],
        env={"PYTHONPATH": str(Path(__file__).parent.parent), "NO_PROXY": "127.0.0.1"},
    )
    while len(server.seen) < 2:
        assert process.poll() is None
    process.kill()
    process.wait()
    assert [CONTENT[: 30 * PIECE]] == partials(store)
    server.answers["/a"] = [partial(whole, CONTENT)]
    get(fetcher, server.url())
    assert ("/a", f"bytes={30 * PIECE}-") == server.seen[-1]
    assert store.has(DIGEST)
    assert [] == partials(store)


_CHILD = """
import sys
from pathlib import Path
from pesto_repro.digest import Digest
from pesto_repro.fetch import Fetcher
from pesto_repro.progress import Reporter
from pesto_repro.store import Store
_, root, digest, size, url = sys.argv
fetcher = Fetcher(Store(Path(root)), Reporter(), sleep=lambda delay: None)
fetcher.blob(Digest(digest), int(size), lambda: [url], "x")
"""


@pytest.mark.parametrize("left", [b"wrong", b"wrong" * len(CONTENT), bytes(len(CONTENT)), CONTENT])
def test_what_was_left_may_be_wrong(server: Server, store: Store, fetcher: Fetcher, left: bytes) -> None:
    """Of a file that changed meanwhile, too long, or complete: begun anew where it does not verify."""
    server.answers["/a"] = [partial(whole, CONTENT)]
    with store.partial(DIGEST) as (handle, _):
        handle.write(left)
    get(fetcher, server.url())
    assert Store(store.root).has(DIGEST)
    assert [("/a", "bytes=5-"), ("/a", "")] if left == b"wrong" else [("/a", "")] * (left != CONTENT) == server.seen


def test_wrong_bytes(server: Server, store: Store, fetcher: Fetcher) -> None:
    """Both digests are named, and nothing of them is kept."""
    server.answers["/a"] = [partial(whole, bytes(len(CONTENT)))]
    with pytest.raises(MismatchError) as caught:
        get(fetcher, server.url())
    actual = Digest.of(bytes(len(CONTENT)))
    assert f"numpy 2.3.1 is not what was pinned: expected {DIGEST}, {server.url()} has {actual}" == caught.value.message
    assert "if the change is wanted, lock again with -U; if not, find out who changed it" == caught.value.hint
    assert not Store(store.root).has(DIGEST)
    assert [] == partials(store)


def test_a_shorter_file_than_was_pinned(server: Server, store: Store, fetcher: Fetcher) -> None:
    """Also when a part was there and the server has nothing at that place (416)."""
    server.answers["/a"] = [partial(whole, b"short")]
    for left in (b"", CONTENT[:1000]):
        with store.partial(DIGEST) as (handle, _):
            handle.write(left)
        with pytest.raises(MismatchError) as caught:
            get(fetcher, server.url())
        assert (
            f"numpy 2.3.1 is not what was pinned: expected {DIGEST}, {server.url()} has {Digest.of(b'short')}"
            == caught.value.message
        )


def test_a_longer_file_than_was_pinned_is_not_read_to_its_end(server: Server, store: Store, fetcher: Fetcher) -> None:
    """Somebody's endless answer must not fill the disk."""
    sent: list[int] = []
    server.answers["/a"] = [partial(endless, sent)]
    with pytest.raises(MismatchError) as caught:
        get(fetcher, server.url())
    assert (
        f"numpy 2.3.1 is not what was pinned: expected {DIGEST}, {server.url()} has more than {len(CONTENT)} bytes"
        == caught.value.message
    )
    assert [] == partials(store)
    assert sum(sent) < 100 << 20


def test_several_addresses(server: Server, store: Store, fetcher: Fetcher) -> None:
    """The first that has the bytes; a file that is gone and one that is wrong are passed over."""
    server.answers["/wrong"] = [partial(whole, b"wrong")]
    server.answers["/a"] = [partial(whole, CONTENT)]
    get(fetcher, server.url("/missing"), server.url("/wrong"), server.url())
    assert ["/missing", "/wrong", "/a"] == [path for path, _ in server.seen]
    assert store.has(DIGEST)


def test_several_addresses_that_all_fail(server: Server, fetcher: Fetcher) -> None:
    """Wrong bytes are worse than none: they are what is told. No address at all is told, too."""
    server.answers["/wrong"] = [partial(whole, b"wrong")]
    with pytest.raises(MismatchError):
        get(fetcher, server.url("/missing"), server.url("/wrong"))
    with pytest.raises(FetchError) as caught:
        get(fetcher)
    assert "numpy 2.3.1: nobody says where it lies" == caught.value.message


# -- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "waited"),
    [
        (status(429, Retry_After="7"), 7.0),
        (status(503, Retry_After="100000"), 60.0),
        (status(429, Retry_After="Fri, 31 Dec 1999 23:59:59 GMT"), 0.5),
        (status(500), 0.5),
        (status(502), 0.5),
        (status(503), 0.5),
        (status(504), 0.5),
        (hangs_up, 0.5),
    ],
)
def test_what_may_pass_is_tried_again(
    server: Server, fetcher: Fetcher, delays: list[float], answer: Answer, waited: float
) -> None:
    """After the time that the server asks for, within reason."""
    server.answers["/a"] = [answer, partial(whole, b"document")]
    assert b"document" == fetcher.document(server.url())
    assert [waited] == delays


@pytest.mark.parametrize(
    ("code", "reason", "hint"),
    [
        (404, "HTTP 404 Not Found", None),
        (410, "HTTP 410 Gone", None),
        (401, "HTTP 401 Unauthorized", "check the credentials of the index or mirror"),
        (403, "HTTP 403 Forbidden", "check the credentials of the index or mirror"),
        (416, "HTTP 416 Requested Range Not Satisfiable", None),
    ],
)
def test_what_will_not_pass_is_told_at_once(
    server: Server, fetcher: Fetcher, delays: list[float], code: int, reason: str, hint: str | None
) -> None:
    """Neither waited for nor asked again."""
    server.answers["/a"] = [status(code)]
    with pytest.raises(FetchError) as caught:
        fetcher.document(server.url())
    assert (f"{server.url()} cannot be read: {reason}", hint) == (caught.value.message, caught.value.hint)
    assert ([], 1) == (delays, len(server.seen))


def test_a_server_that_stays_ill(server: Server, fetcher: Fetcher, delays: list[float]) -> None:
    """Five tries, longer and longer pauses, then an error with the last reason."""
    server.answers["/a"] = [status(503)]
    with pytest.raises(FetchError) as caught:
        fetcher.document(server.url())
    assert f"{server.url()} cannot be read: HTTP 503 Service Unavailable" == caught.value.message
    assert ([0.5, 1.0, 2.0, 4.0], 5) == (delays, len(server.seen))


def test_a_silent_server(server: Server, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up, not waited for."""
    monkeypatch.setattr(http_room, "TIMEOUT", (1.0, 0.05))
    server.answers["/a"] = [silent]
    with pytest.raises(FetchError) as caught:
        fetcher.document(server.url())
    assert f"{server.url()} cannot be read: timed out" == caught.value.message
    assert 5 == len(server.seen)


def test_nobody_listens(fetcher: Fetcher) -> None:
    """The operating system's word for it, without the library's wrapping."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with pytest.raises(FetchError) as caught:
        fetcher.document(f"http://127.0.0.1:{port}/a")
    assert f"http://127.0.0.1:{port}/a cannot be read: [Errno 111] Connection refused" == caught.value.message


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ftp://me:secret@host/a", "ftp://host/a"),
        ("http://me:secret@/a", "http:///a"),
        ("me:secret@host/a", "host/a"),
        ("http://me:secret@[bad/a", "http://[bad/a"),
        ("http://me:secret@host:port/a", "http://host:port/a"),
        (f"http://me:secret@{'x' * 70}/a", f"http://{'x' * 70}/a"),
    ],
)
def test_what_is_no_web_address(fetcher: Fetcher, url: str, shown: str) -> None:
    """The library's own words would show the password."""
    with pytest.raises(FetchError) as caught:
        fetcher.document(url)
    assert f"{shown} cannot be read: it is no web address" == caught.value.message


def test_a_failure_of_the_authorities_is_not_the_address_s(server: Server, store: Store) -> None:
    """Whoever reads the configuration says what is wrong with it; this address is innocent."""

    def authorities() -> Path | None:
        raise ValueError("of the configuration")

    with pytest.raises(ValueError, match=r"^of the configuration$"):
        Fetcher(store, Reporter(), authorities=authorities).document(server.url())


@pytest.mark.parametrize(
    "answer",
    [status(401), status(404), status(503), hangs_up, partial(cut, 10), silent, partial(whole, b"other")],
)
def test_credentials_are_used_and_never_told(
    server: Server, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    """Neither those before the host nor those in a query, whatever goes wrong."""
    monkeypatch.setattr(http_room, "TIMEOUT", (1.0, 0.05))
    server.answers["/a?token=hidden"] = [answer]
    url = server.url("/a?token=hidden", userinfo="me:secret@")
    for action in (lambda: get(fetcher, url), lambda: fetcher.document(url, limit=1)):
        with pytest.raises(FetchError) as caught:
            action()
        told = f"{caught.value.message} {caught.value.hint} {caught.value.__cause__}"
        assert server.url("/a") in told
        assert not [word for word in ("me:", "secret", "token", "hidden") if word in told]
    assert {"Basic bWU6c2VjcmV0"} == set(server.authorizations)


# -- documents ---------------------------------------------------------------------------------------------------


def test_a_packed_document(server: Server, fetcher: Fetcher) -> None:
    """An index page of some megabytes comes gzipped where the server can, and is limited unpacked."""
    server.answers["/a"] = [lambda handler: handler.send(200, gzip.compress(CONTENT), Content_Encoding="gzip")]
    assert CONTENT == fetcher.document(server.url())
    with pytest.raises(FetchError) as caught:
        fetcher.document(server.url(), limit=len(CONTENT) - 1)
    assert f"{server.url()} is larger than {len(CONTENT) - 1} bytes" == caught.value.message
    assert CONTENT == fetcher.document(server.url(), limit=len(CONTENT))


def test_a_document_that_is_packed_wrongly(server: Server, fetcher: Fetcher) -> None:
    """An expected failure, not a traceback."""
    server.answers["/a"] = [lambda handler: handler.send(200, b"plain", Content_Encoding="gzip")]
    with pytest.raises(FetchError) as caught:
        fetcher.document(server.url())
    assert (
        f"{server.url()} cannot be read: Error -3 while decompressing data: incorrect header check"
        == caught.value.message
    )


def test_a_redirect_is_followed(server: Server, fetcher: Fetcher) -> None:
    """As mirrors answer so; a circle is an error."""
    server.answers["/old"] = [status(302, Location="/a")]
    server.answers["/a"] = [partial(whole, b"document")]
    server.answers["/circle"] = server.answers["/circle?hidden"] = [status(302, Location="/circle?hidden")]
    assert b"document" == fetcher.document(server.url("/old"))
    with pytest.raises(FetchError) as caught:
        fetcher.document(server.url("/circle"))
    assert f"{server.url('/circle')} cannot be read: Exceeded 30 redirects." == caught.value.message


def test_credentials_do_not_follow_a_redirect_to_another_host(server: Server, fetcher: Fetcher) -> None:
    """They were given to one host only."""
    server.answers["/old"] = [status(302, Location=f"http://localhost:{server.server_port}/a")]
    server.answers["/a"] = [partial(whole, b"document")]
    assert b"document" == fetcher.document(server.url("/old", userinfo="me:secret@"))
    assert ["Basic bWU6c2VjcmV0", ""] == server.authorizations


def test_what_is_not_pinned_yet(server: Server, store: Store, fetcher: Fetcher) -> None:
    """A resource when it is locked: its digest and size, its bytes in the store; a cut one is begun anew."""
    server.answers["/a"] = [partial(cut, 1000), partial(whole, CONTENT)]
    assert (DIGEST, len(CONTENT)) == fetcher.pin(server.url(), "model")
    assert store.has(DIGEST)
    assert [("/a", ""), ("/a", "")] == server.seen


# -- offline -----------------------------------------------------------------------------------------------------


def test_offline(server: Server, store: Store, tmp_path: Path) -> None:
    """What is in the store and on this machine is to be had; all else is named, and nobody is asked."""
    fetcher = Fetcher(store, Reporter(), offline=True)
    where = f"is not in the store at {store.root}, and the network is not to be used"
    hint = "run once without --offline, or point --store at a store that has it"
    actions: dict[str, Callable[[], object]] = {
        "numpy 2.3.1": lambda: get(fetcher, server.url()),
        server.url("/b"): lambda: fetcher.document(server.url("/b")),
        server.url("/c"): lambda: fetcher.pin(server.url("/c"), "model"),
    }
    for name, action in actions.items():
        with pytest.raises(OfflineError) as caught:
            action()
        assert (f"{name} {where}", hint) == (caught.value.message, caught.value.hint)
    assert [] == server.seen
    (tmp_path / "a").write_bytes(b"local")
    assert b"local" == fetcher.document(f"file://{tmp_path}/a")
    store.put(CONTENT)
    get(fetcher, server.url())


# -- side by side ------------------------------------------------------------------------------------------------


def test_many_at_once(server: Server, store: Store, fetcher: Fetcher) -> None:
    """Different blobs side by side, and the same one twice: it is downloaded once."""
    contents = {f"/{number}": b"%d" % number * 1000 for number in range(20)}
    for path, content in contents.items():
        server.answers[path] = [partial(whole, content)]

    def job(path: str) -> None:
        fetcher.blob(Digest.of(contents[path]), len(contents[path]), lambda: [server.url(path)], path)

    fetcher.many(partial(job, path) for path in [*contents, *contents])
    assert sorted(contents) == sorted(path for path, _ in server.seen)
    assert all(Store(store.root).has(Digest.of(content)) for content in contents.values())


def test_the_first_failure_ends_many(fetcher: Fetcher) -> None:
    """What has not begun is not begun; the failure is what the caller gets."""
    begun: list[int] = []
    ready = threading.Barrier(fetch.PARALLEL)

    def job(number: int) -> None:
        begun.append(number)
        ready.wait(10)
        if number == 0:
            raise FetchError("first")
        failed.wait(10)

    failed = threading.Event()
    timer = threading.Timer(0.2, failed.set)
    timer.start()
    with pytest.raises(FetchError, match=r"^first$"):
        fetcher.many(partial(job, number) for number in range(fetch.PARALLEL))
    timer.join()
    assert list(range(fetch.PARALLEL)) == sorted(begun)
