"""HTTP as a registry wants it: oras' ``Registry`` with another ``do_request``, the one funnel of its requests.

* Tokens by scope; no cookies, no netrc; redirects of what only asks, without credentials for other hosts.
* What may pass is tried again: HTTP 429, 500, 502, 503, 504 (after Retry-After where it is said) and broken
  connections. The unit that is tried again is the whole operation (``retried``).
* Silence is one error within the time-out; only a question (GET, HEAD) is asked once more, each time with half of it.
* No message, not even for ``-vv``, has an address' query, a header, or a secret.

The only module that imports oras.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, BinaryIO, TypeVar
from urllib.parse import urljoin, urlsplit

import oras.container  # type: ignore[import-untyped]
import oras.defaults  # type: ignore[import-untyped]
import oras.provider  # type: ignore[import-untyped]
import requests
from requests.adapters import HTTPAdapter

from pesto_repro.digest import Digest
from pesto_repro.errors import RegistryError
from pesto_repro.progress import Reporter
from pesto_repro.registry.access import Access
from pesto_repro.registry.authorize import Authorizer, Reply, Scopes, parse_challenges

Response = requests.Response
T = TypeVar("T")

DEFAULT_HOST: str = oras.defaults.registry.index_name
"""The registry of names without a host, as everybody writes it."""
_DEFAULT_API: str = oras.defaults.registry.default_v2_registry["host"]
DEFAULT_NAMES: tuple[str, ...] = (
    _DEFAULT_API,
    oras.defaults.registry.index_hostname,
    oras.defaults.registry.index_server,
)
"""Its other names, in references and in files of credentials; the last is docker's own."""

TRIES = 5
PATIENCE = 300.0
"""Seconds that a registry may ask us to wait."""
SENT, RECEIVED = 256 << 10, 64 << 10
"""Bytes at once: large pieces are fast; what is received is lost by the piece when a connection breaks off."""
ACCEPT: tuple[str, ...] = tuple(oras.defaults.default_manifest_accepted_media_types)
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_REDIRECTS = {301, 302, 303, 307, 308}
CUT = "the connection ended too early"
SILENT = "no answer in {:g} seconds"

Opener = Callable[[], AbstractContextManager[BinaryIO]]
"""Opens a blob that is to be sent, once for each try."""


class PassingError(Exception):
    """A failure that may pass: worth another try after *delay* seconds (None: the usual one).

    *silence* is the part of the time-out that went by without an answer.
    """

    def __init__(self, reason: str, delay: float | None = None, *, silence: float = 0.0) -> None:
        super().__init__(reason)
        self.delay, self.silence = delay, silence


class Body:
    """A blob on its way: a request's body with a length (``__len__``) that is read piece by piece, and again."""

    def __init__(self, opener: Opener, size: int) -> None:
        self._opener, self._size, self._left = opener, size, size
        self._context: AbstractContextManager[BinaryIO] | None = None
        self._stream: BinaryIO | None = None

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        """At most *size* bytes; b"" at the end. Raises RegistryError if there are fewer bytes than announced."""
        if self._left == 0:
            return b""
        if self._stream is None:
            self._context = self._opener()
            self._stream = self._context.__enter__()
        piece = self._stream.read(min(size if size > 0 else SENT, self._left))
        if not piece:
            raise RegistryError(f"a blob is shorter than its {self._size} bytes")
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Give the stream back; what is read next begins anew."""
        context, self._context, self._stream, self._left = self._context, None, None, self._size
        if context is not None:
            context.__exit__(None, None, None)


class _NoNetrc(requests.auth.AuthBase):
    """Says nothing: with it requests does not look for a netrc, which would overwrite our header."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Adapter(HTTPAdapter):
    """Connections that send in large pieces."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, blocksize=SENT, **kwargs)


class Funnel(oras.provider.Registry):  # type: ignore[misc]  # oras has no types
    """Requests to one repository of one registry. May be used by several threads."""

    def __init__(
        self,
        host: str,
        name: str,
        access: Access,
        reporter: Reporter,
        *,
        secure: bool = True,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        api = _DEFAULT_API if host == DEFAULT_HOST else host
        super().__init__(hostname=api, insecure=not secure, tls_verify=str(access.authorities or "") or True)
        self.host, self.name, self.secure = host, name, secure
        self.access, self.reporter, self._sleep = access, reporter, sleep
        self.origin = f"{self.prefix}://{api}"
        self.container = oras.container.Container("image", registry=api)
        self.container.repository = name
        self.authorizer = Authorizer(host, secure, lambda: access.credentials(host), self._ask_service, clock)
        self.session.headers["Accept-Encoding"] = "identity"  # a digest is of the bytes as they are stored
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, _Adapter(pool_maxsize=16))

    def _get_location(self, response: Response, container: oras.container.Container) -> str:
        """The address of an upload, absolute. What is of our host is never spoken to without the registry's TLS."""
        location = response.headers.get("Location", "")
        if not location:
            return ""
        absolute = urljoin(response.url, location)
        plain = f"http://{urlsplit(self.origin).netloc}/"
        return f"{self.origin}/{absolute[len(plain) :]}" if absolute.startswith(plain) else absolute

    # -- HTTP ------------------------------------------------------------------------------------------------------

    def do_request(
        self,
        url: str,
        method: str = "GET",
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        stream: bool = False,
        *,
        scopes: Scopes | None = None,
    ) -> Response:
        """One request, as whom it needs; a challenge is answered once. Raises PassingError, RegistryError."""
        scopes = self.scopes_of(method) if scopes is None else scopes
        tried = self.authorizer.header(scopes) if self._is_own(url) else None
        response = self._redirected(method, url, headers, tried, data, json, stream)
        if response.status_code != 401 or not self._is_own(response.url):
            return response
        response.close()
        challenges = parse_challenges(response.headers.get("WWW-Authenticate", ""))
        second = self.authorizer.answer(challenges, scopes, tried)
        response = self._redirected(method, url, headers, second, data, json, stream)
        if response.status_code == 401:
            response.close()
            raise self.authorizer.denied(scopes)
        return response

    def asked(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: Any = None,
        stream: bool = False,
        also: Scopes | None = None,
    ) -> Response:
        """``do_request`` with the scopes that *method* needs here, and *also* those elsewhere."""
        scopes = {**self.scopes_of(method), **(also or {})}
        return self.do_request(url, method, data, headers, stream=stream, scopes=scopes)

    def _redirected(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        authorization: str | None,
        data: Any,
        json: Any,
        stream: bool,
    ) -> Response:
        """Follow redirects of what only asks; whoever is not the registry gets no credential."""
        for _ in range(5):
            proof = {"Authorization": authorization} if authorization and self._is_own(url) else {}
            sent = {**(headers or {}), **proof}
            response = self._once(method, url, sent, data, json, stream)
            location = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or not location:
                return response
            response.close()
            if method not in ("GET", "HEAD"):
                raise self.wrong("it redirects an upload")
            target = urljoin(url, location)
            if urlsplit(url).scheme == "https" != urlsplit(target).scheme:
                raise self.wrong("it redirects to an address without TLS")
            url = target
        raise self.wrong("it redirects without end")

    def _once(self, method: str, url: str, headers: Mapping[str, str], data: Any, json: Any, stream: bool) -> Response:
        if isinstance(data, Body):
            data.close()  # begin anew
        part = _part(method)
        try:
            response: Response = self.session.request(
                method,
                url,
                data=data,
                json=json,
                headers=dict(headers),
                stream=stream,
                timeout=self.access.timeout * part,
                allow_redirects=False,
                auth=_NoNetrc(),
                verify=self._tls_verify,
            )
        except requests.Timeout:
            raise self._silent(part) from None
        except requests.exceptions.SSLError as error:
            if _breaks_off(error):
                raise PassingError(CUT) from None
            raise self._unsafe(error) from None
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            raise PassingError(_reason(error)) from None
        except (requests.RequestException, ValueError) as error:
            raise self.wrong(f"no request can be made of its address: {type(error).__name__}") from None
        parts = urlsplit(url)
        self.reporter.debug(f"{method} {parts.hostname}{parts.path} {response.status_code}")
        self._check_passing(response)
        return response

    def _check_passing(self, response: Response) -> None:
        if response.status_code not in _PASSING:
            return
        response.close()
        reason = status_of(response)
        delay = _retry_after(response.headers.get("Retry-After", ""))
        if delay is not None and delay > PATIENCE:
            raise self.wrong(f"{reason}, and asks to come back in {delay:.0f} seconds")
        raise PassingError(reason, delay)

    def _ask_service(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Reply:
        """Ask a token service. It is never redirected: the password is for it alone."""

        def attempt() -> Reply:
            response = self._once(method, url, headers, body, None, False)
            return Reply(response.status_code, response.content)

        return self.retried("token service", attempt)

    def retried(self, what: str, attempt: Callable[[], T]) -> T:
        """The result of *attempt*, which may raise PassingError some times."""
        silence = 0.0
        for turn in range(1, TRIES + 1):
            try:
                return attempt()
            except PassingError as failure:
                silence += failure.silence
                if turn == TRIES or silence >= 1:
                    raise self._failed(what, failure, turn) from None
                delay = float(1 << (turn - 1)) if failure.delay is None else failure.delay
                if not failure.silence:
                    self.reporter.debug(
                        f"{self.label}: {what}: {self.authorizer.redact(str(failure))}; again in {delay:g} s"
                    )
                    self._sleep(delay)
        raise AssertionError("the loop returns or raises")

    def pieces(self, response: Response) -> Iterator[bytes]:
        """The body's pieces. Raises PassingError where they break off."""
        try:
            yield from response.iter_content(RECEIVED)
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            if "timed out" in str(error):  # requests has no type for it
                raise self._silent(_part("GET")) from None
            raise PassingError(CUT) from None

    # -- words -----------------------------------------------------------------------------------------------------

    @property
    def label(self) -> str:
        """Where, for messages."""
        return f"{self.host}/{self.name}" if self.name else self.host

    def scopes_of(self, method: str) -> Scopes:
        """What a request needs to be allowed in this repository."""
        actions = {"pull"} if method in ("GET", "HEAD") else {"pull", "push"}
        return {self.name: frozenset(actions)}

    def _is_own(self, url: str) -> bool:
        """RFC 6454: "the same scheme, host, and port"."""
        return _origin(url) == _origin(self.origin)

    def manifest_url(self, reference: str) -> str:
        """Distribution-spec: /v2/<name>/manifests/<reference>."""
        return f"{self.prefix}://{self.container.manifest_url(reference)}"

    def blob_url(self, digest: Digest) -> str:
        """Distribution-spec: /v2/<name>/blobs/<digest>."""
        return f"{self.prefix}://{self.container.get_blob_url(str(digest))}"

    def uploads_url(self) -> str:
        """Distribution-spec: /v2/<name>/blobs/uploads/."""
        return f"{self.prefix}://{self.container.upload_blob_url()}"

    def _check_200_response(self, response: Response) -> None:
        """oras asks this of every page of tags."""
        self.expect(response, 200, "tags")

    def expect(self, response: Response, status: int, what: str) -> None:
        """Raise RegistryError with the registry's own words, if it did not answer *status*."""
        if response.status_code == status:
            return
        text = self.authorizer.redact(f"{self.label}: {what}: {status_of(response)}{registry_says(response)}")
        response.close()
        if response.status_code == 404:
            raise NotFoundError(text)
        hint = f"pesto-repro login {self.host}, as somebody who may" if response.status_code in (401, 403) else None
        raise RegistryError(text, hint)

    def _said_digest(self, response: Response) -> Digest | None:
        text = response.headers.get("Docker-Content-Digest", "")
        try:
            return Digest.parse(text)
        except ValueError:
            return None

    def _match(self, reference: str, digest: Digest) -> None:
        if ":" in reference and reference != str(digest):
            raise self.wrong(f"manifest {reference} was asked for, {digest} is the answer")

    def _confirm(self, response: Response, digest: Digest, what: str) -> None:
        said = self._said_digest(response)
        if said is not None and said != digest:
            raise self.wrong(f"{what} was sent, but it says to have stored {said}, not {digest}")

    def _silent(self, part: float) -> PassingError:
        return PassingError(SILENT.format(self.access.timeout), silence=part)

    def _failed(self, what: str, failure: PassingError, tries: int) -> RegistryError:
        times = "" if tries == 1 or failure.silence else f" ({tries} tries)"
        return RegistryError(f"{self.label}: {what}: {self.authorizer.redact(str(failure))}{times}")

    def _unsafe(self, error: Exception) -> RegistryError:
        return RegistryError(
            f"{self.label}: TLS fails: {_reason(error)}",
            "name a file with its authority in PESTO_REPRO_REGISTRY_CA; a registry without TLS has to be listed in "
            "PESTO_REPRO_REGISTRY_PLAIN_HTTP",
        )

    def wrong(self, text: str) -> RegistryError:
        """What a registry should not have done."""
        return RegistryError(f"{self.label}: {self.authorizer.redact(_printable(text))}")


class NotFoundError(RegistryError):
    """HTTP 404."""


def _part(method: str) -> float:
    """How much of the time-out one request may be silent: a question is asked twice."""
    return 0.5 if method in ("GET", "HEAD") else 1.0


def _breaks_off(error: BaseException) -> bool:
    """Whether TLS failed because the connection ended."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        inner = inner.__context__
    return inner is not None


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _retry_after(text: str) -> float | None:
    """RFC 9110, 10.2.3 "Retry-After": "HTTP-date / delay-seconds"."""
    if text.strip().isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (moment - datetime.now(UTC)).total_seconds()) if moment.tzinfo else None


def registry_says(response: Response) -> str:
    """Distribution-spec, "Error Codes": {"errors": [{"code", "message"}]}; in brackets, short, or nothing."""
    try:
        errors = json.loads(response.content[: 64 << 10])["errors"]
        words = "; ".join(f"{each['code']} {each.get('message', '')}".strip() for each in errors)
    except (ValueError, TypeError, KeyError, AttributeError, requests.RequestException):
        return ""
    return f" ({_printable(words)[:200]})" if words else ""


def _printable(text: str) -> str:
    """What a registry says may end in a terminal."""
    return "".join(each if each.isprintable() else " " for each in text)


def status_of(response: Response) -> str:
    """The code in the standard's words, not in the registry's."""
    known = {each.value: each.phrase for each in HTTPStatus}
    return f"HTTP {response.status_code} {known.get(response.status_code, '')}".rstrip()


def _reason(error: Exception) -> str:
    """The innermost reason, without an address."""
    while isinstance(error.__context__, Exception):
        error = error.__context__
    text = str(error)
    return text.rpartition(": ")[2] if "object at 0x" in text else text
