"""Python package indexes as values, and where a pinned wheel may lie on them.

The lock names an index, never its address: ``default`` for the main one, ``project`` for the one of
image.toml, the configured name of another (``extra-1``, ... for those without a name). Here a name becomes
addresses again. An address may carry a user name and a password; these never appear in the text of a value or
of an error, and they go to no other host than the index's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

import pypi_simple

from pesto_repro.addresses import public, redact, secrets_of, userinfo
from pesto_repro.errors import FetchError, OfflineError
from pesto_repro.lock.model import PythonPackage

DEFAULT_INDEX_URL = pypi_simple.PYPI_SIMPLE_ENDPOINT
"""The main index where nothing is configured: the library's own default."""
FIND_LINKS = "find-links"
"""The name, in the lock, of all places that are no index."""

Strategy = Literal["first-index", "unsafe-first-match", "unsafe-best-match"]


@dataclass(frozen=True, slots=True, repr=False)
class Index:
    """A package index: a *name* for the lock, and the *url* of its simple repository API (PEP 503)."""

    name: str
    url: str

    def __repr__(self) -> str:
        return f"Index({self.name!r}, {public(self.url)!r})"


@dataclass(frozen=True, slots=True, repr=False)
class Indexes:
    """Where Python packages may lie, in the order of asking: *indexes* first, then *find_links* (addresses).

    The main index is the last of *indexes*, as uv has it. With *no_index* only *find_links* count. *cert* is
    a file of certificate authorities to trust instead of the usual ones.
    """

    indexes: tuple[Index, ...] = (Index("default", DEFAULT_INDEX_URL),)
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    strategy: Strategy = "first-index"
    cert: Path | None = None

    def __repr__(self) -> str:
        links = tuple(map(public, self.find_links))
        return (
            f"Indexes({self.active!r}, find_links={links!r}, no_index={self.no_index}, "
            f"strategy={self.strategy!r}, cert={self.cert})"
        )

    @property
    def active(self) -> tuple[Index, ...]:
        """The indexes that may be asked."""
        return () if self.no_index else self.indexes

    @property
    def secrets(self) -> frozenset[str]:
        """What must never be shown, as written in the addresses and decoded."""
        return secrets_of([*(each.url for each in self.indexes), *self.find_links])


class Documents(Protocol):
    """Reads documents that nobody has pinned; ``Fetcher`` is one."""

    def document(self, url: str, *, limit: int = ..., accept: str | None = None) -> bytes:
        """The bytes at *url* (http, https, file). Raises FetchError, or OfflineError when offline."""


def urls(package: PythonPackage, indexes: Indexes, documents: Documents) -> Iterator[str]:
    """Where the pinned wheel may lie, best first; an index is asked only when the caller goes on to it.

    The addresses carry the credentials they need: show them through ``redact`` only. Raises FetchError naming
    every place that was asked when none lists the wheel.
    """
    found, reasons = False, []
    for name, page_url, index_url in _pages(package, indexes):
        try:
            address = _address(package, page_url, index_url, documents)
        except OfflineError:
            raise
        except FetchError as failure:
            reasons.append(f"{name}: {redact(failure.message, indexes.secrets)}")
            continue
        found = True
        yield address
    if not found:
        raise _nowhere(package, reasons)


def _pages(package: PythonPackage, indexes: Indexes) -> Iterator[tuple[str, str, str]]:
    """(name, address of its page, address with its credentials): the index that the lock names first."""
    for index in sorted(indexes.active, key=lambda each: each.name != package.index):
        yield f'index "{index.name}"', project_page(index.url, package.name), index.url
    for number, link in enumerate(indexes.find_links, 1):
        yield f"{FIND_LINKS} {number}", link, link


def project_page(index_url: str, project: str) -> str:
    """The address of *project*'s page. PEP 503: below the root, "/<project>/"; "MUST end with a /"."""
    parts = urlsplit(index_url)
    leaf = "index.html" if parts.scheme == "file" else ""
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{project}/{leaf}"))


def _address(package: PythonPackage, page_url: str, index_url: str, documents: Documents) -> str:
    """The address of the wheel on the page at *page_url*. Raises FetchError where it is not listed."""
    folder = _local_folder(page_url)
    if folder is not None:
        if (folder / package.wheel.name).is_file():
            return (folder / package.wheel.name).as_uri()
        raise FetchError("no such file")
    content = documents.document(page_url, accept=pypi_simple.ACCEPT_JSON_PREFERRED)
    other = None
    for url, sha256 in _listed(content, package, page_url):
        if sha256 in (None, package.wheel.sha256):
            return with_credentials(url, index_url)
        other = sha256
    raise FetchError(f"lists other bytes, sha256:{other}" if other else "does not list it")


def _local_folder(url: str) -> Path | None:
    parts = urlsplit(url)
    folder = Path(unquote(parts.path))
    return folder if parts.scheme == "file" and folder.is_dir() else None


def _listed(content: bytes, package: PythonPackage, page_url: str) -> Iterator[tuple[str, str | None]]:
    """(address, sha256 where the page tells) of each file that has the wheel's name. Yanked files count.

    PEP 592: a yanked file is ignored, unless a version pinned exactly has no other. A lock pins exactly.
    """
    for each in _page(content, package.name, urlunsplit(_bare(urlsplit(page_url)))).packages:
        name = unquote(urlsplit(each.url).path).rpartition("/")[2]
        if package.wheel.name in (each.filename, name):
            yield each.url, each.digests.get("sha256")


def _page(content: bytes, project: str, base: str) -> pypi_simple.ProjectPage:
    """The page in either form: JSON (PEP 691) is an object, everything else is HTML (PEP 503)."""
    try:
        if content.lstrip()[:1] == b"{":
            return pypi_simple.ProjectPage.from_json_data(json.loads(content), base)
        return pypi_simple.ProjectPage.from_html(project, content, base)
    except (ValueError, pypi_simple.UnsupportedRepoVersionError):
        raise FetchError("its page cannot be understood") from None


def with_credentials(url: str, index_url: str) -> str:
    """*url* with the user name and password of *index_url* if it is of that origin and has none itself."""
    target, source = urlsplit(urljoin(index_url, url)), urlsplit(index_url)
    credentials = userinfo(index_url)
    if not credentials or userinfo(url) or _origin(target) != _origin(source):
        return url
    return urlunsplit(target._replace(netloc=f"{credentials}@{target.netloc}"))


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    """RFC 6454: "the same scheme, host, and port"."""
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port


def _bare(parts: SplitResult) -> SplitResult:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2])


def _nowhere(package: PythonPackage, reasons: list[str]) -> FetchError:
    lines = [f"{package.name} {package.version}: {package.wheel.name} was not found", *reasons]
    if not reasons:
        lines = [f"{lines[0]}: no index and no find-links are configured"]
    hint = (
        f'the lock took it from index "{package.index}": configure it (UV_INDEX={package.index}=ADDRESS)'
        if package.index not in (None, "default", "project", FIND_LINKS)
        else "name an index that has it in uv's or pip's configuration, or lock again"
    )
    return FetchError("\n  ".join(lines), hint)
