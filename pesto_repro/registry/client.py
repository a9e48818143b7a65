"""A repository of a registry (distribution-spec v1.1): what is read is verified, what is sent is confirmed.

* A blob's last bytes are handed out when all are the right ones; a cut download goes on where it stopped.
* A blob that is sent is tried again as a whole: HEAD, then a new POST and PUT.
* Manifests travel byte-exact; whatever the registry says of a digest is compared.
"""

from __future__ import annotations

import io
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import urlencode, urljoin, urlsplit

from pesto_repro.digest import Digest
from pesto_repro.errors import RegistryError
from pesto_repro.oci import Descriptor, MediaType
from pesto_repro.progress import Reporter
from pesto_repro.registry.access import Access
from pesto_repro.registry.authorize import DeniedError
from pesto_repro.registry.download import Download
from pesto_repro.registry.http import (
    ACCEPT,
    SILENT,
    TRIES,
    Body,
    Funnel,
    NotFoundError,
    Opener,
    PassingError,
    Response,
    registry_says,
    status_of,
)
from pesto_repro.registry.ports import Manifest

if TYPE_CHECKING:
    from pesto_repro.registry.reference import RemoteReference

MANIFEST_LIMIT = 16 << 20
"""Bytes. Distribution-spec: a registry "SHOULD" take manifests of 4 MiB; more is possible, without end it is not."""
BUFFER = 256 << 10
_REWRITTEN = 0.2
"""For how many seconds a blob that was seen may be away."""
_NO_REFERRERS = {400, 404, 405, 406, 501}
"""Distribution-spec: "404 Not Found" where there is no such API; older registries know the path even less."""
_PAGES = 1000
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Client(Funnel):
    """One repository, as :class:`pesto_repro.registry.ports.Repository`. May be used by several threads."""

    def manifest(self, reference: str) -> Manifest:
        """By tag or digest; verified by its digest. Raises RegistryError."""
        return self.retried(f"manifest {reference}", lambda: self._get_manifest(reference))

    def has_manifest(self, reference: str) -> Digest | None:
        """The digest of what is there, None if nothing is."""

        def attempt() -> Digest | None:
            response = self.asked("HEAD", self.manifest_url(reference), headers={"Accept": ", ".join(ACCEPT)})
            if response.status_code == 404:
                return None
            self.expect(response, 200, f"manifest {reference}")
            said = self._said_digest(response)
            if said is None:  # distribution-spec: "A HEAD request ... SHOULD" say it
                return self._get_manifest(reference).digest
            self._match(reference, said)
            return said

        return self.retried(f"manifest {reference}", attempt)

    def has_blob(self, digest: Digest) -> bool:
        """Whether the repository has it."""
        return self.retried(f"blob {digest}", lambda: self._has_blob(digest))

    @contextmanager
    def open_blob(self, descriptor: Descriptor) -> Iterator[BinaryIO]:
        """A verified stream of the blob: it ends, or fails, with the whole of it."""
        with closing(Download(self, descriptor)) as download:
            yield cast(BinaryIO, io.BufferedReader(download, BUFFER))

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """A small blob whole, verified."""
        with self.open_blob(descriptor) as stream:
            return stream.read()

    def mount(self, digest: Digest, source: str) -> bool:
        """Distribution-spec, "Mounting a blob from another repository": 201, or 202 if it wants the bytes."""
        query = urlencode({"mount": str(digest), "from": source})

        def attempt() -> bool:
            response = self.asked("POST", f"{self.uploads_url()}?{query}", also={source: frozenset(["pull"])})
            return response.status_code == 201

        try:
            return self.retried(f"blob {digest}", attempt)
        except DeniedError as error:
            # Who may push here need not be allowed to read there; then the bytes are sent.
            self.reporter.debug(f"{self.label}: blob {digest} is not mounted from {source}: {error.message}")
            return False

    def push_blob(self, descriptor: Descriptor, opener: Opener) -> None:
        """Distribution-spec, "POST then PUT". *opener* is called for each try."""
        tries = iter(range(TRIES))

        def attempt() -> None:
            if next(tries) == 0 or not self._has_blob(descriptor.digest):
                self._upload(descriptor, opener)

        self.retried(f"blob {descriptor.digest}", attempt)

    def push_manifest(self, reference: str, manifest: Manifest) -> bool:
        """PUT the very bytes; the registry has to confirm their digest. Whether it lists them as a referrer.

        Its blobs are there. A registry that cannot see one is being sent it by somebody else at this moment:
        docker-registry writes a blob's link anew, and it is empty meanwhile.
        """

        def attempt() -> bool:
            headers = {"Content-Type": manifest.media_type}
            response = self.asked("PUT", self.manifest_url(reference), headers=headers, data=manifest.data)
            if response.status_code in (400, 404) and "BLOB_UNKNOWN" in (said := registry_says(response)):
                raise PassingError(f"{status_of(response)}{said}", _REWRITTEN)
            self.expect(response, 201, f"manifest {reference}")
            self._confirm(response, manifest.digest, f"manifest {reference}")
            # Distribution-spec, "Pushing Manifests with Subject": who lists it answers with its subject's digest.
            return "OCI-Subject" in response.headers

        return self.retried(f"manifest {reference}", attempt)

    def referrers(self, subject: Digest) -> tuple[bytes, ...] | None:
        """Distribution-spec, "Listing Referrers": every page of the list; None if the registry has no such API."""
        found: list[bytes] = []
        url: str | None = f"{self.origin}/v2/{self.name}/referrers/{subject}"
        while url is not None:
            if len(found) == _PAGES:
                raise self.wrong(f"its list of what refers to {subject} has no end")
            page = self.retried(f"referrers {subject}", partial(self._get_referrers, url, subject))
            if page is None:
                return None
            data, url = page
            found.append(data)
        return tuple(found)

    def tags(self) -> Iterator[str]:
        """Every tag; none if there is no such repository."""
        try:
            return iter(cast(list[str], self.retried("tags", lambda: self.get_tags(self.container))))
        except NotFoundError:
            return iter(())
        except (ValueError, TypeError, AttributeError):  # of what oras reads
            raise self.wrong("its list of tags cannot be understood") from None

    def check(self) -> None:
        """Distribution-spec, "Determining support": GET /v2/ must be 200, with the credential if there is one."""

        def attempt() -> None:
            response = self.do_request(f"{self.origin}/v2/", "GET", scopes={})
            self.expect(response, 200, "/v2/")

        self.retried("/v2/", attempt)

    # -- one operation, once ---------------------------------------------------------------------------------------

    def _get_manifest(self, reference: str) -> Manifest:
        headers = {"Accept": ", ".join(ACCEPT)}
        with self.asked("GET", self.manifest_url(reference), headers=headers, stream=True) as response:
            self.expect(response, 200, f"manifest {reference}")
            data = self._limited(response, f"manifest {reference}")
        digest = Digest.of(data)
        self._match(reference, digest)
        said = self._said_digest(response)
        if said is not None and said != digest:
            raise self.wrong(f"manifest {reference} is {digest}, but is said to be {said}")
        return Manifest(self._media_type(response, data, reference), digest, data)

    def _get_referrers(self, url: str, subject: Digest) -> tuple[bytes, str | None] | None:
        """One page, and where the next one is: "a Link header MUST be included" where there are more."""
        what = f"referrers {subject}"
        with self.asked("GET", url, headers={"Accept": MediaType.INDEX}, stream=True) as response:
            if response.status_code in _NO_REFERRERS:
                return None
            self.expect(response, 200, what)
            if response.headers.get("Content-Type", "").partition(";")[0].strip() != MediaType.INDEX:
                return None  # a proxy's own page, say
            following = response.links.get("next", {}).get("url")
            return self._limited(response, what), urljoin(url, following) if following else None

    def _limited(self, response: Response, what: str) -> bytes:
        found = bytearray()
        for piece in self.pieces(response):
            found += piece
            if len(found) > MANIFEST_LIMIT:
                raise self.wrong(f"{what} is larger than {MANIFEST_LIMIT} bytes")
        return bytes(found)

    def _media_type(self, response: Response, data: bytes, reference: str) -> str:
        """Image-spec, manifest.md: "mediaType ... SHOULD be used and ... MUST match" what the registry says it is."""
        said = response.headers.get("Content-Type", "").partition(";")[0].strip()
        try:
            document = json.loads(data)
            own = document.get("mediaType")
        except (ValueError, AttributeError):
            raise self.wrong(f"manifest {reference} is no JSON object") from None
        if own is not None and said in ACCEPT and said != own:
            raise self.wrong(f"manifest {reference} is of type {own}, but is said to be {said}")
        found = own or said
        if found not in ACCEPT:
            raise self.wrong(f"manifest {reference} is of type {found}, which is no image")
        return cast(str, found)

    def _has_blob(self, digest: Digest) -> bool:
        response = self.asked("HEAD", self.blob_url(digest))
        if response.status_code == 404:
            return False
        self.expect(response, 200, f"blob {digest}")
        return True

    def _upload(self, descriptor: Descriptor, opener: Opener) -> None:
        what = f"blob {descriptor.digest}"
        response = self.asked("POST", self.uploads_url())
        self.expect(response, 202, what)
        location = self._get_location(response, self.container)
        if not location:
            raise self.wrong(f"{what}: it does not say where to upload to")
        # Distribution-spec: "<location>?digest=<digest>"; the location may have a query already, which is not ours.
        url = f"{location}{'&' if urlsplit(location).query else '?'}{urlencode({'digest': str(descriptor.digest)})}"
        headers = {"Content-Type": "application/octet-stream"}
        with closing(Body(opener, descriptor.size)) as body:
            response = self.asked("PUT", url, headers=headers, data=body)
        if response.status_code in (404, 416):
            raise PassingError("the upload was lost")
        self.expect(response, 201, what)
        self._confirm(response, descriptor.digest, what)


class Registries:
    """Clients, one for each repository, made when asked for. May be used by several threads."""

    def __init__(self, access: Access, reporter: Reporter, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.access, self.reporter, self._sleep = access, reporter, sleep
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str], Client] = {}
        self._secure: dict[str, bool] = {}

    def repository(self, reference: RemoteReference) -> Client:
        """The repository that *reference* names."""
        return self._client(reference.host, reference.repository)

    def check(self, host: str) -> None:
        """Ask the registry whether it lets us in. Raises RegistryError."""
        self._client(host, "").check()

    def close(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            client.session.close()

    def _client(self, host: str, name: str) -> Client:
        with self._lock:
            key = (host, name)
            if key not in self._clients:
                secure = self._is_secure(host)
                self._clients[key] = Client(host, name, self.access, self.reporter, secure=secure, sleep=self._sleep)
            return self._clients[key]

    def _is_secure(self, host: str) -> bool:
        if host in self.access.plain_http:
            return False
        if urlsplit(f"//{host}").hostname not in _LOOPBACK:
            return True
        if host not in self._secure:
            self._secure[host] = _speaks_tls(host, self.access.timeout)
        return self._secure[host]


def _speaks_tls(host: str, timeout: float) -> bool:
    """Whether TLS answers at *host*, which is this machine. Nothing is said but hello, and nothing is believed."""
    parts = urlsplit(f"//{host}")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 443), timeout) as connection:
            context.wrap_socket(connection).close()
            return True
    except TimeoutError:
        raise RegistryError(f"{host}: {SILENT.format(timeout)}") from None
    except OSError:
        return False
