"""One running service, asked over HTTP through whatever connects to it.

A service is asked as ``localhost:4000`` even where no such port is open: it writes the address that it was asked at
into the links of its description, and PESTO's tests expect that one. Of links only what they name is used, never
the host: a service behind a proxy does not know its own.

Its certificate is not checked: PESTO's services sign theirs themselves.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from pesto_repro.errors import PestoError
from pesto_repro.service.compare import Blob

PORT = 8080
"""Where a PESTO service listens."""
TESTED_AT = "localhost:4000"
"""Where upstream's tester asks: the address in every expected_describe.json."""
_API = "/api/v1"
_BUSY = 429
_PAUSE = 0.2
_LONGEST_PAUSE = 2.0
_PICTURE = re.compile(r"image/.*|application/octet-stream")
_NUMBER = re.compile(r"(\d*)$")
_JOB = re.compile(r"/jobs/([^/]+)/status$")
_RESULT = re.compile(r"/results/([^/]+)$")

Dial = Callable[[float | None], socket.socket]
"""Connects to the service; it is given the time-out in seconds. Raises OSError."""


class ServiceError(PestoError):
    """A service that cannot be reached, or answers what is no answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service said."""

    status: int
    media_type: str
    body: bytes

    def value(self) -> Any:
        """JSON as what it says, text as text, anything else as a Blob. Raises ServiceError."""
        if _PICTURE.fullmatch(self.media_type):
            return Blob(self.body)
        try:
            text = self.body.decode()
            return json.loads(text) if self.media_type == "application/json" else text
        except ValueError as error:
            raise ServiceError(f"the service's answer is no {self.media_type}: {error}") from None

    def complaint(self) -> str:
        """What it says is wrong, in a line: the rest is in the service's log."""
        try:
            detail = json.loads(self.body)["detail"]
        except (ValueError, TypeError, LookupError):
            detail = self.body.decode(errors="replace")
        return f"{self.status}: {str(detail).strip().partition(chr(10))[0]}"


@dataclass(frozen=True, slots=True)
class Client:
    """Asks the service that *dial* leads to. *host* is what it is asked as, *prefix* is before all its paths.

    *ended* tells a service that is no more: the reason, or None while it runs. *timeout* is how many seconds an
    answer may take; None: as long as it takes.
    """

    dial: Dial
    host: str = TESTED_AT
    prefix: str = ""
    tls: bool = False
    timeout: float | None = None
    ended: Callable[[], str | None] = lambda: None

    def wait_healthy(self, patience: float) -> None:
        """Return when the service is healthy. Raises ServiceError if it is not in *patience* seconds, or ends."""
        end = time.monotonic() + patience
        while not self.is_healthy():
            self._require_running()
            if time.monotonic() > end:
                raise ServiceError(f"the service is not healthy after {patience:g} seconds", "see its log")
            time.sleep(_PAUSE)

    def is_healthy(self) -> bool:
        """Whether its health resource answers 200."""
        try:
            return self._ask("GET", "/health", timeout=10).status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def describe(self) -> dict[str, Any]:
        """What the service says of itself. Raises ServiceError."""
        described = self._get("/describe").value()
        if not isinstance(described, dict):
            raise ServiceError("the service's description is no JSON object")
        return described

    def process(self, payload: Mapping[str, Any], described: Mapping[str, Any]) -> Any:
        """The answer to one request; of an asynchronous service: once its job is done, all its results.

        *described* is what :meth:`describe` gave. A picture is a Blob, or text in base64. A service that is busy is
        asked again. Raises ServiceError.
        """
        answer = self._patiently("POST", "/process", json.dumps(payload).encode())
        if not described.get("asynchronous"):
            return answer.value()
        job = _named(answer.value(), _JOB)
        if job is None:
            raise ServiceError("the service is asynchronous, and its answer has no link to a job")
        self._wait_done(job)
        results = self._get(f"/jobs/{job}/results").value()
        if not isinstance(results, dict):
            raise ServiceError(f"the results of job {job} are no JSON object")
        schemas = described.get("output", {}).get("properties", {})
        return {key: self._result(job, link, schemas.get(key, {})) for key, link in results.items()}

    def _wait_done(self, job: str) -> None:
        """A job is RUNNING until it is DONE."""
        pause, end = _PAUSE, None if self.timeout is None else time.monotonic() + self.timeout
        while True:
            said = self._get(f"/jobs/{job}/status").value()
            status = said.get("status") if isinstance(said, dict) else said
            if status == "DONE":
                return
            if status != "RUNNING":
                raise ServiceError(f"job {job} is {status!r}, neither RUNNING nor DONE")
            if end is not None and time.monotonic() > end:
                raise ServiceError(f"job {job} is not done after {self.timeout:g} seconds")
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _result(self, job: str, link: Any, schema: Mapping[str, Any]) -> Any:
        """What *link* names: a result, or several. A result without a link is one itself."""
        if isinstance(link, list):
            # The service lists files by name: x0 x1 x10 x2. Their numbers are the order.
            return [self._result(job, each, schema) for each in sorted(link, key=_number)]
        name = _named(link, _RESULT)
        if name is None:
            return link
        value = self._get(f"/jobs/{job}/results/{quote(name)}").value()
        is_number = schema.get("type") == "number" and isinstance(value, str)
        return _parsed(value) if is_number else value  # numbers come as text

    def _get(self, path: str) -> Answer:
        return self._patiently("GET", path)

    def _patiently(self, method: str, path: str, body: bytes | None = None) -> Answer:
        """Asked again while it is busy. Raises ServiceError for no answer, and for one that is an error."""
        end = None if self.timeout is None else time.monotonic() + self.timeout
        while True:
            try:
                answer = self._ask(method, path, body, self.timeout)
            except (OSError, http.client.HTTPException) as error:
                self._require_running()
                raise ServiceError(f"{method} {path}: the service does not answer: {_words(error)}") from None
            if answer.status != _BUSY or (end is not None and time.monotonic() > end):
                break
            time.sleep(_PAUSE)
        if answer.status >= http.client.BAD_REQUEST:
            raise ServiceError(f"{method} {path}: the service answered {answer.complaint()}")
        return answer

    def _ask(self, method: str, path: str, body: bytes | None = None, timeout: float | None = None) -> Answer:
        connection = _Connection(self, timeout)
        headers = {"Host": self.host, "Connection": "close"}
        headers |= {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, f"{self.prefix}{_API}{path}", body, headers)
            response = connection.getresponse()
            media_type = response.headers.get_content_type()
            return Answer(response.status, media_type, response.read())
        finally:
            connection.close()

    def _require_running(self) -> None:
        reason = self.ended()
        if reason is not None:
            raise ServiceError(reason)


class _Connection(http.client.HTTPConnection):
    """A connection that *client* dials."""

    def __init__(self, client: Client, timeout: float | None) -> None:
        super().__init__(client.host.rpartition(":")[0] or client.host, timeout=timeout)
        self._client = client

    def connect(self) -> None:
        self.sock = self._client.dial(self.timeout)
        if self._client.tls:
            self.sock = _unchecked().wrap_socket(self.sock, server_hostname=self.host)


def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def remote(url: str, timeout: float | None = None) -> Client:
    """Asks the service at *url*, ``http[s]://HOST[:PORT][/PREFIX]``. Raises PestoError if it is no such address."""
    parts = urlsplit(url)
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (KeyError, ValueError):
        port = 0
    if not parts.hostname or not port:
        raise PestoError(f"{url!r} is no address of a service", "say http://HOST:PORT or https://HOST:PORT")
    where = (parts.hostname, port)
    dial: Dial = lambda patience: socket.create_connection(where, patience)  # noqa: E731
    host = parts.netloc.rpartition("@")[2]
    return Client(dial, host, parts.path.rstrip("/"), parts.scheme == "https", timeout)


def _named(link: Any, pattern: re.Pattern[str]) -> str | None:
    """What *link*, an address or ``{"link": address}``, names."""
    if isinstance(link, Mapping):
        link = link.get("link")
    found = pattern.search(urlsplit(link).path) if isinstance(link, str) else None
    return found[1] if found else None


def _number(link: Any) -> tuple[int, str]:
    name = _named(link, _RESULT) or ""
    digits = _NUMBER.search(name)
    return int((digits and digits[1]) or 0), name


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ServiceError(f"a result that should be a number is {text!r}") from None


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
