"""Where a pinned wheel may lie: what indexes list, in which order they are asked, who gets the password."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesto_repro.errors import FetchError, OfflineError
from pesto_repro.fetch import Fetcher
from pesto_repro.fetch.index import Index, Indexes, urls, with_credentials
from pesto_repro.lock.model import Pin, PythonPackage
from pesto_repro.progress import Reporter
from pesto_repro.store import Store
from tests.python_index import CANARY, digest_of_file, serving, simple_wheel

WHEEL = "a-1.0-py3-none-any.whl"
SHA256 = "a" * 64


class Pages:
    """An in-memory twin of what reads documents."""

    def __init__(self, pages: Mapping[str, str], failure: type[FetchError] = FetchError) -> None:
        self.pages, self.failure = pages, failure
        self.asked: list[str] = []

    def document(self, url: str, *, limit: int = 0, accept: str | None = None) -> bytes:
        self.asked.append(url)
        if url not in self.pages:
            raise self.failure(f"{url} cannot be read: HTTP 404")
        return self.pages[url].encode()


def package(index: str = "default", sha256: str = SHA256) -> PythonPackage:
    return PythonPackage(name="a", version="1.0", index=index, wheel=Pin(name=WHEEL, sha256=sha256, size=1))


def listing(url: str, attributes: str = "") -> str:
    return f'<html><body><a href="{url}" {attributes}>{WHEEL}</a></body></html>'


TWO = Indexes((Index("extra", "https://extra.test/simple"), Index("default", "https://main.test/simple/")))


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (listing(f"../../files/{WHEEL}"), f"https://main.test/files/{WHEEL}"),
        (listing(f"{WHEEL}#sha256={SHA256}"), f"https://main.test/simple/a/{WHEEL}"),
        (listing(f"https://files.test/{WHEEL}", 'data-yanked="broken"'), f"https://files.test/{WHEEL}"),
        (
            json.dumps(
                {
                    "meta": {"api-version": "1.1"},
                    "name": "a",
                    "files": [{"filename": WHEEL, "url": "f/x", "hashes": {"sha256": SHA256}, "yanked": True}],
                }
            ),
            "https://main.test/simple/a/f/x",
        ),
    ],
    ids=["relative", "with its hash", "yanked", "json"],
)
def test_a_page_tells_where_the_wheel_lies(page: str, expected: str) -> None:
    """PEP 503, 592 and 691: relative addresses, hashes, yanked files, JSON."""
    assert [expected] == list(urls(package(), Indexes(TWO.indexes[1:]), Pages({"https://main.test/simple/a/": page})))


def test_the_index_that_the_lock_names_is_asked_first_and_the_others_only_then() -> None:
    """Nobody else hears of a package that is where the lock says."""
    pages = Pages(
        {f"https://{each}.test/simple/a/": listing(f"https://{each}.test/{WHEEL}") for each in ("main", "extra")}
    )
    found = urls(package("default"), TWO, pages)
    assert f"https://main.test/{WHEEL}" == next(found)
    assert ["https://main.test/simple/a/"] == pages.asked
    assert [f"https://extra.test/{WHEEL}"] == list(found)


def test_find_links_are_folders_and_pages(tmp_path: Path) -> None:
    """Also without any index."""
    (tmp_path / WHEEL).touch()
    places = Indexes(find_links=("https://links.test/page.html", tmp_path.as_uri()), no_index=True)
    pages = Pages({"https://links.test/page.html": listing(WHEEL)})
    assert [f"https://links.test/{WHEEL}", (tmp_path / WHEEL).as_uri()] == list(urls(package(), places, pages))


def test_a_local_index_has_a_page_for_each_project(tmp_path: Path) -> None:
    """A file address has no server that would find index.html."""
    page = f"{tmp_path.as_uri()}/a/index.html"
    found = urls(package(), Indexes((Index("default", tmp_path.as_uri()),)), Pages({page: listing(f"../{WHEEL}")}))
    assert [f"{tmp_path.as_uri()}/{WHEEL}"] == list(found)


def test_every_place_that_was_asked_is_named() -> None:
    """With what each of them said, and what to do."""
    places = Indexes((Index("extra", "https://bob:hush@extra.test/simple"), Index("default", "https://main.test")))
    pages = Pages({"https://main.test/a/": listing(f"{WHEEL}#sha256={'b' * 64}")})
    with pytest.raises(FetchError) as caught:
        list(urls(package("extra"), places, pages))
    assert [
        f"a 1.0: {WHEEL} was not found",
        '  index "extra": https://extra.test/simple/a/ cannot be read: HTTP 404',
        f'  index "default": lists other bytes, sha256:{"b" * 64}',
    ] == caught.value.message.splitlines()
    assert 'the lock took it from index "extra": configure it (UV_INDEX=extra=ADDRESS)' == caught.value.hint


def test_nothing_configured_is_told() -> None:
    """``no-index`` without find-links leaves no place at all."""
    with pytest.raises(FetchError) as caught:
        list(urls(package(), Indexes(no_index=True), Pages({})))
    assert f"a 1.0: {WHEEL} was not found: no index and no find-links are configured" == caught.value.message


def test_offline_stays_offline() -> None:
    """It is no reason to ask the next index."""
    pages = Pages({}, OfflineError)
    with pytest.raises(OfflineError):
        list(urls(package("extra"), TWO, pages))
    assert ["https://extra.test/simple/a/"] == pages.asked


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host/f", "https://bob:s@host/f"),
        ("https://host:443/f", "https://bob:s@host:443/f"),
        ("https://other/f", "https://other/f"),
        ("http://host/f", "http://host/f"),
        ("https://host:8443/f", "https://host:8443/f"),
        ("https://ann@host/f", "https://ann@host/f"),
    ],
)
def test_the_password_goes_to_its_own_origin_only(url: str, expected: str) -> None:
    """RFC 6454: scheme, host and port."""
    assert expected == with_credentials(url, "https://bob:s@host/simple")


@given(st.text("abc:/@%?# é\n", max_size=12))
def test_no_text_of_a_value_has_its_password(text: str) -> None:
    """Whatever the password is made of, as long as it can be written in an address."""
    from urllib.parse import quote

    secret = f"canary{text}"
    url = f"https://bob:{quote(secret, safe='')}@host/simple"
    places = Indexes((Index("default", url),), (url,))
    for shown in (repr(places), str(places.indexes[0])):
        assert "canary" not in shown
    assert secret in places.secrets


def test_a_private_index_serves_its_wheel(tmp_path: Path) -> None:
    """Page and file are behind one password; the bytes end in the store under their digest."""
    wheel = simple_wheel(tmp_path / "wheels", "a", "1.0")
    digest = digest_of_file(wheel)
    store = Store(tmp_path / "store")
    fetcher = Fetcher(store, Reporter())
    with serving(wheel.parent, CANARY) as server:
        places = Indexes((Index("default", server.url_with_password),))
        wanted = package(sha256=digest.hex)
        fetcher.blob(digest, wheel.stat().st_size, lambda: urls(wanted, places, fetcher), "a")
    assert store.has(digest)
