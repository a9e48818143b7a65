"""One GET at a time over http(s): what may pass is told from what will not. Imported when something is downloaded.

Credentials in an address go to that address only (requests drops them when it is sent to another host), and come
before a netrc's; no message ever has them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import requests

from pesto_repro.addresses import public
from pesto_repro.errors import FetchError
from pesto_repro.fetch import Answer, PassingError

TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and seconds without a byte."""
PIECE = 64 << 10
"""Bytes read at once: so many are lost at most when a connection breaks off."""
_CUT = "the connection ended too early"
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_BROKEN = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


class Http:
    """Connections, one session for each thread. *authorities* gives a file of certificate authorities to trust."""

    def __init__(self, authorities: Callable[[], Path | None]) -> None:
        self._authorities = authorities
        self._local = threading.local()
        self._sessions: list[requests.Session] = []

    @contextlib.contextmanager
    def get(self, url: str, headers: dict[str, str]) -> Iterator[Answer]:
        """What lies at *url*; reading it may fail likewise. Raises PassingError, FetchError."""
        address, auth = _split_credentials(url)
        session = self._session()
        try:
            asked = {"Accept-Encoding": "identity", **headers}
            with session.get(address, stream=True, timeout=TIMEOUT, headers=asked, auth=auth) as response:
                _check_status(response, url)
                start, total = _range_start(response), _total(response)
                yield Answer(_whole(response, total, start), total, start)
        except _BROKEN as error:
            raise PassingError(_reason(error)) from None
        except (requests.RequestException, ValueError) as error:  # ValueError: what is no address
            raise FetchError(f"{public(url)} cannot be read: {_reason(error)}") from None

    def close(self) -> None:
        """Close every connection."""
        for session in self._sessions:
            session.close()

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            if (trusted := self._authorities()) is not None:
                session.verify = str(trusted)
            self._sessions.append(session)
        return session


def _split_credentials(url: str) -> tuple[str, tuple[str, str] | None]:
    """The address alone, and its user name and password. Raises FetchError if it is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise FetchError(f"{public(url)} cannot be read: it is no web address") from None
    if parts.username is None:
        return url, None
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return urlunsplit(bare), (unquote(parts.username), unquote(parts.password or ""))


def _check_status(response: requests.Response, url: str) -> None:
    code = response.status_code
    if code in _PASSING:
        after = response.headers.get("Retry-After", "")
        raise PassingError(f"HTTP {code} {response.reason}", float(after) if after.isdigit() else None)
    if code >= 400 and not (code == 416 and "Range" in response.request.headers):
        hint = "check the credentials of the index or mirror" if code in (401, 403) else None
        raise FetchError(f"{public(url)} cannot be read: HTTP {code} {response.reason}", hint)


def _range_start(response: requests.Response) -> int:
    """Where the body starts: RFC 9110, 14.4 "Content-Range"; a 200 starts at 0 whatever was asked.

    -1 if that is not said, or if nothing lies there (15.5.17, "416 Range Not Satisfiable").
    """
    if response.status_code not in (206, 416):
        return 0
    first = response.headers.get("Content-Range", "").removeprefix("bytes ").split("-")[0]
    return int(first) if first.isdigit() else -1


def _total(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    if "Content-Encoding" in response.headers or not length.isdigit():
        return None
    return _range_start(response) + int(length)


def _whole(response: requests.Response, total: int | None, start: int) -> Iterator[bytes]:
    """The body's pieces; a body shorter than announced is a failure that may pass."""
    have = start
    for piece in response.iter_content(PIECE):
        have += len(piece)
        yield piece
    if total is not None and have < total:
        raise PassingError(_CUT)


def _reason(error: Exception) -> str:
    """The innermost reason, without the address (which may carry credentials)."""
    if isinstance(error, ValueError):  # requests' words for it: MissingSchema, InvalidSchema, InvalidURL
        return "it is no web address"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return _CUT
    while isinstance(error.__context__, Exception):
        error = error.__context__
    inner = getattr(error, "reason", None)
    text = str(inner if inner is not None else error)
    return text.rpartition(": ")[2] if "object at 0x" in text else text
