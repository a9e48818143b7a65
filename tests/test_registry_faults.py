"""What goes wrong between us and a registry: each fault ends in success, or in one clear error within the time-out.

A proxy between the client and a real registry makes the faults; nothing wrong is ever stored.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from pesto_repro.digest import Digest
from pesto_repro.errors import RegistryError
from pesto_repro.registry.access import Access
from tests.registries import CANARY, LiveRegistry
from tests.registry_client import OCI_MANIFEST, Blob, Talk, manifest_of, pushed, talking
from tests.registry_proxy import Fault, serving

pytestmark = pytest.mark.judge

TIMEOUT = 2.0
BUSY = [429, 500, 502, 503, 504]


@pytest.fixture
def talk(plain_registry: LiveRegistry) -> Iterator[Talk]:
    """A client of a plain registry with a short time-out."""
    with talking(plain_registry, access=plain_registry.access(timeout=TIMEOUT)) as found:
        yield found


def flip(data: bytes) -> bytes:
    """One other bit, in the middle."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


# -- what passes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", BUSY)
@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "GET"])
def test_a_busy_registry_is_asked_again(plain_registry: LiveRegistry, talk: Talk, method: str, status: int) -> None:
    """Two refusals of each kind of request, then success, with longer and longer waits."""
    blob = Blob()
    plain_registry.spoil(Fault(method, "/blobs/", times=2, status=status))
    assert not talk.client.has_blob(blob.digest)
    pushed(talk.client, blob)
    assert blob.data == talk.client.read_blob(blob.descriptor)
    assert [1.0, 2.0] == talk.slept


def test_manifests_and_tags_are_asked_again(plain_registry: LiveRegistry, talk: Talk) -> None:
    """The same for what is no blob."""
    image = manifest_of(OCI_MANIFEST, pushed(talk.client, Blob(b"{}")))
    plain_registry.spoil(*(Fault(method, "/(manifests|tags)/", status=503) for method in ("HEAD", "PUT", "GET")))
    talk.client.push_manifest("1.0", image)
    assert (image, image.digest) == (talk.client.manifest("1.0"), talk.client.has_manifest("1.0"))
    plain_registry.spoil(Fault("GET", "/tags/", status=429))
    assert ["1.0"] == list(talk.client.tags())


def test_retry_after_is_honoured(plain_registry: LiveRegistry, talk: Talk) -> None:
    """RFC 9110, 10.2.3: seconds, or a date; what makes no sense counts as not said."""
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    headers = [{"Retry-After": text} for text in ("7", later, "soon")]
    plain_registry.spoil(*(Fault("HEAD", "", status=429, headers=each) for each in headers))
    talk.client.has_blob(Digest.of(b"?"))
    assert [7.0, 4.0] == [talk.slept[0], talk.slept[2]]
    assert 80 < talk.slept[1] <= 100


def test_a_registry_that_is_never_ready_is_one_error(plain_registry: LiveRegistry, talk: Talk) -> None:
    """After five tries."""
    plain_registry.spoil(Fault("HEAD", "", times=-1, status=503))
    with pytest.raises(RegistryError) as caught:
        talk.client.has_blob(Digest.of(b"?"))
    place = f"{plain_registry.host}/team/app: blob {Digest.of(b'?')}"
    assert f"{place}: HTTP 503 Service Unavailable (5 tries)" == caught.value.message
    assert ([1.0, 2.0, 4.0, 8.0], 5) == (talk.slept, len(plain_registry.requests()))


def test_nobody_waits_for_an_hour(plain_registry: LiveRegistry, talk: Talk) -> None:
    """A registry that asks for more patience than there is."""
    plain_registry.spoil(Fault("HEAD", "", status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(RegistryError) as caught:
        talk.client.has_blob(Digest.of(b"?"))
    expected = f"{plain_registry.host}/team/app: HTTP 429 Too Many Requests, and asks to come back in 3600 seconds"
    assert (expected, []) == (caught.value.message, talk.slept)


def test_a_reset_in_the_middle_of_an_upload(plain_registry: LiveRegistry, talk: Talk) -> None:
    """The blob is asked for, then sent anew, whole."""
    plain_registry.spoil(Fault("PUT", "/blobs/", times=2, cut_request=100_000))
    blob = pushed(talk.client, Blob())
    assert blob.data == talk.client.read_blob(blob.descriptor)
    methods = [each.method for each in plain_registry.requests()]
    assert ["POST", "PUT", "HEAD", "POST", "PUT", "HEAD", "POST", "PUT", "GET"] == methods
    assert {str(blob.digest)} == plain_registry.blobs()


def test_an_answer_that_is_lost_after_the_blob_was_stored(plain_registry: LiveRegistry, talk: Talk) -> None:
    """The second try finds it there and sends nothing."""
    plain_registry.spoil(Fault("PUT", "/blobs/", lost=True))
    blob = pushed(talk.client, Blob())
    assert ["POST", "PUT", "HEAD"] == [each.method for each in plain_registry.requests()]
    assert {str(blob.digest)} == plain_registry.blobs()


def test_an_answer_that_is_lost_after_the_manifest_was_stored(plain_registry: LiveRegistry, talk: Talk) -> None:
    """A PUT may be said twice."""
    image = manifest_of(OCI_MANIFEST, pushed(talk.client, Blob(b"{}")))
    plain_registry.spoil(Fault("PUT", "/manifests/", lost=True))
    talk.client.push_manifest("1.0", image)
    assert image == talk.client.manifest("1.0")


def test_a_blob_that_is_away_for_a_moment(plain_registry: LiveRegistry, talk: Talk) -> None:
    """docker-registry writes a blob's link anew when it is sent twice; a manifest that comes meanwhile is refused."""
    image = manifest_of(OCI_MANIFEST, pushed(talk.client, Blob(b"{}")))
    said = b'{"errors": [{"code": "DIGEST_INVALID"}, {"code": "MANIFEST_BLOB_UNKNOWN"}]}'
    plain_registry.spoil(Fault("PUT", "/manifests/", times=2, status=400, body=said))
    talk.client.push_manifest("1.0", image)
    assert image == talk.client.manifest("1.0")


@pytest.mark.parametrize("answer", [{"status": 404}, {"status": 416}])
def test_an_upload_that_the_registry_forgot(plain_registry: LiveRegistry, talk: Talk, answer: dict[str, Any]) -> None:
    """It is begun again."""
    plain_registry.spoil(Fault("PUT", "/blobs/uploads/", **answer))
    assert talk.client.has_blob(pushed(talk.client, Blob()).digest)


@pytest.mark.parametrize("cut", [{"cut_answer": 70_000}, {"cut_answer": 0}, {"lost": True}])
def test_a_download_that_breaks_off_goes_on(plain_registry: LiveRegistry, talk: Talk, cut: dict[str, Any]) -> None:
    """With a Range from where it stopped."""
    blob = pushed(talk.client, Blob(bytes(range(256)) * 4000))
    plain_registry.forget()
    plain_registry.spoil(Fault("GET", "/blobs/", times=2, **cut))
    assert blob.data == talk.client.read_blob(blob.descriptor)
    ranges = [each.headers.get("Range") for each in plain_registry.requests()]
    assert (3, None) == (len(ranges), ranges[0])
    if cut.get("cut_answer"):
        assert ["bytes=65536-", "bytes=131072-"] == ranges[1:]


@pytest.mark.parametrize("replace_range", [{}, {"Content-Range": "bytes 5-9/10"}])
def test_a_server_that_answers_another_range(
    plain_registry: LiveRegistry, talk: Talk, replace_range: dict[str, str]
) -> None:
    """All of it once more is fine, another part is not taken."""
    blob = pushed(talk.client, Blob())
    again = Fault("GET", "/blobs/", replace=replace_range) if replace_range else Fault("GET", "/blobs/", status=200)
    again.body, again.headers = blob.data, {}
    plain_registry.spoil(Fault("GET", "/blobs/", cut_answer=1000), again)
    assert blob.data == talk.client.read_blob(blob.descriptor)


def test_a_manifest_that_breaks_off_is_read_again(plain_registry: LiveRegistry, talk: Talk) -> None:
    """Half a manifest is none."""
    image = manifest_of(OCI_MANIFEST, pushed(talk.client, Blob(b"{}")))
    talk.client.push_manifest("1.0", image)
    plain_registry.spoil(Fault("GET", "/manifests/", cut_answer=20))
    assert image == talk.client.manifest("1.0")


def test_a_broken_token_service_is_asked_again(token_registry: LiveRegistry) -> None:
    """Its faults pass too; what makes no sense is one error."""
    tokens = token_registry.tokens
    assert tokens is not None
    with serving(stumbling(tokens.answer, 503, 500)) as port, talking(token_registry) as talk:
        token_registry.spoil(*(Fault(".*", "", status=401, headers=challenge(port)) for _ in range(1)))
        assert not talk.client.has_blob(Digest.of(b"?"))
        assert [1.0, 2.0] == talk.slept


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, "answers HTTP 404"), (302, "answers HTTP 302"), (200, "answers without a token")],
)
def test_a_token_service_that_makes_no_sense(token_registry: LiveRegistry, status: int, reason: str) -> None:
    """One error; above all it is not followed to somewhere else."""
    with serving(stumbling(lambda handler: None, status)) as port, talking(token_registry) as talk:
        token_registry.spoil(Fault(".*", "", status=401, headers=challenge(port)))
        with pytest.raises(RegistryError) as caught:
            talk.client.has_blob(Digest.of(b"?"))
    assert f"the token service of {token_registry.host} {reason}" == caught.value.message


def stumbling(
    answer: Callable[[BaseHTTPRequestHandler], None], *statuses: int
) -> Callable[[BaseHTTPRequestHandler], None]:
    """*answer*, but first each of *statuses* without a word."""
    left = list(statuses)

    def exchange(handler: BaseHTTPRequestHandler) -> None:
        if not left:
            return answer(handler)
        handler.send_response_only(left.pop(0))
        handler.send_header("Location", "http://127.0.0.1:9/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return exchange


def challenge(port: int) -> dict[str, str]:
    return {"WWW-Authenticate": f'Bearer realm="http://127.0.0.1:{port}/token",service="test registry"'}


# -- silence -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "GET"])
def test_a_silent_registry_is_one_error_within_the_time_out(
    plain_registry: LiveRegistry, talk: Talk, method: str
) -> None:
    """Whatever it is silent to."""
    blob = pushed(talk.client, Blob())
    plain_registry.spoil(Fault(method, "/blobs/", times=-1, silent=True))
    begun = time.monotonic()
    with pytest.raises(RegistryError) as caught:
        act(talk, method, blob)
    assert time.monotonic() - begun < TIMEOUT + 1.5
    assert caught.value.message.endswith(": no answer in 2 seconds")
    assert [] == talk.slept


def act(talk: Talk, method: str, blob: Blob) -> None:
    if method == "HEAD":
        talk.client.has_blob(blob.digest)
    elif method == "GET":
        talk.client.read_blob(blob.descriptor)
    else:
        pushed(talk.client, Blob())


def test_a_registry_that_was_silent_once(plain_registry: LiveRegistry, talk: Talk) -> None:
    """A question is asked twice."""
    plain_registry.spoil(Fault("HEAD", "/blobs/", silent=True))
    assert not talk.client.has_blob(Digest.of(b"?"))


def test_silence_in_the_middle_of_a_download(talk: Talk) -> None:
    """A server that sends half and then nothing: the rest is asked for, and then it is one error."""
    blob, ended = Blob(), threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response_only(200)
        handler.send_header("Content-Length", str(len(blob.data)))
        handler.end_headers()
        handler.wfile.write(blob.data[:1000])
        ended.wait()

    with serving(answer) as port:
        try:
            registry = elsewhere(port)
            with talking(registry, access=registry.access(timeout=TIMEOUT)) as other:
                begun = time.monotonic()
                with pytest.raises(RegistryError) as caught:
                    other.client.read_blob(blob.descriptor)
        finally:
            ended.set()
    assert time.monotonic() - begun < TIMEOUT + 1.5
    assert caught.value.message.endswith(": no answer in 2 seconds")


def test_nobody_listens(plain_registry: LiveRegistry) -> None:
    """A refused connection is tried again, then one error."""
    with serving(lambda handler: None) as port:
        closed = elsewhere(port)
    with talking(closed) as talk, pytest.raises(RegistryError) as caught:
        talk.client.has_blob(Digest.of(b"?"))
    place = f"{closed.host}/team/app: blob {Digest.of(b'?')}"
    assert f"{place}: [Errno 111] Connection refused (5 tries)" == caught.value.message


@dataclass
class Elsewhere(LiveRegistry):
    """Something that only looks like a registry."""


def elsewhere(port: int) -> LiveRegistry:
    return Elsewhere(f"127.0.0.1:{port}", "", None, None)  # type: ignore[arg-type]


# -- lies ----------------------------------------------------------------------------------------------------------


def test_an_altered_blob_is_detected_before_its_end(plain_registry: LiveRegistry, talk: Talk) -> None:
    """Whoever reads gets an error instead of the last bytes."""
    blob = pushed(talk.client, Blob())
    plain_registry.spoil(Fault("GET", "/blobs/", alter=flip))
    read = bytearray()
    with talk.client.open_blob(blob.descriptor) as stream, pytest.raises(RegistryError) as caught:
        read.extend(byte for piece in iter(lambda: stream.read(1000), b"") for byte in piece)
    place = f"{plain_registry.host}/team/app"
    expected = f"{place}: blob {blob.digest} was asked for, {Digest.of(flip(blob.data))} is the answer"
    assert expected == caught.value.message
    assert len(read) < len(blob.data)


@pytest.mark.parametrize(
    ("alter", "words"),
    [(lambda data: data[:-1], "the connection ended too early (5 tries)"), (lambda data: data + b"x", "more than")],
    ids=["short", "long"],
)
def test_a_blob_of_another_size_is_detected(
    plain_registry: LiveRegistry, talk: Talk, alter: Callable[[bytes], bytes], words: str
) -> None:
    """Shorter or longer, however honest its Content-Length."""
    blob = pushed(talk.client, Blob())
    plain_registry.spoil(Fault("GET", "/blobs/", times=-1, alter=alter))
    with pytest.raises(RegistryError) as caught:
        talk.client.read_blob(blob.descriptor)
    assert words in caught.value.message


def test_an_altered_manifest_is_detected(plain_registry: LiveRegistry, talk: Talk) -> None:
    """By its digest, whether it was asked for by digest or by tag."""
    image = manifest_of(OCI_MANIFEST, pushed(talk.client, Blob(b"{}")))
    talk.client.push_manifest("1.0", image)
    other = Digest.of(image.data + b" ")
    plain_registry.spoil(Fault("GET", "/manifests/", times=2, alter=lambda data: data + b" "))
    with pytest.raises(RegistryError) as by_digest:
        talk.client.manifest(str(image.digest))
    with pytest.raises(RegistryError) as by_tag:
        talk.client.manifest("1.0")
    place = f"{plain_registry.host}/team/app: manifest"
    assert f"{place} {image.digest} was asked for, {other} is the answer" == by_digest.value.message
    assert f"{place} 1.0 is {other}, but is said to be {image.digest}" == by_tag.value.message


def test_a_wrong_digest_is_not_believed(plain_registry: LiveRegistry, talk: Talk) -> None:
    """In an answer to HEAD, to a manifest's PUT, to a blob's PUT."""
    image = manifest_of(OCI_MANIFEST, pushed(talk.client, Blob(b"{}")))
    talk.client.push_manifest("1.0", image)
    wrong = Digest.of(b"wrong")
    plain_registry.spoil(Fault("HEAD|PUT", "", times=3, replace={"Docker-Content-Digest": str(wrong)}))
    with pytest.raises(RegistryError) as asked:
        talk.client.has_manifest(str(image.digest))
    with pytest.raises(RegistryError) as sent:
        talk.client.push_manifest("1.0", image)
    blob = Blob()
    with pytest.raises(RegistryError) as stored:
        pushed(talk.client, blob)
    place = f"{plain_registry.host}/team/app:"
    assert f"{place} manifest {image.digest} was asked for, {wrong} is the answer" == asked.value.message
    said = f"was sent, but it says to have stored {wrong}, not"
    assert f"{place} manifest 1.0 {said} {image.digest}" == sent.value.message
    assert f"{place} blob {blob.digest} {said} {blob.digest}" == stored.value.message


def test_a_registry_that_says_no_digest(plain_registry: LiveRegistry, talk: Talk) -> None:
    """Then the manifest itself is read."""
    image = manifest_of(OCI_MANIFEST, pushed(talk.client, Blob(b"{}")))
    talk.client.push_manifest("1.0", image)
    plain_registry.spoil(Fault("HEAD|GET", "", times=-1, replace={"Docker-Content-Digest": ""}))
    assert (image.digest, image) == (talk.client.has_manifest("1.0"), talk.client.manifest("1.0"))


def test_tags_that_make_no_sense(plain_registry: LiveRegistry, talk: Talk) -> None:
    """One error."""
    plain_registry.spoil(Fault("GET", "/tags/", status=200, body=b"[]"))
    with pytest.raises(RegistryError) as caught:
        talk.client.tags()
    assert f"{plain_registry.host}/team/app: its list of tags cannot be understood" == caught.value.message


def test_an_upload_without_a_place(plain_registry: LiveRegistry, talk: Talk) -> None:
    """A 202 that does not say where to send the bytes."""
    blob = Blob()
    plain_registry.spoil(Fault("POST", "", status=202))
    with pytest.raises(RegistryError) as caught:
        pushed(talk.client, blob)
    place = f"{plain_registry.host}/team/app: blob {blob.digest}"
    assert f"{place}: it does not say where to upload to" == caught.value.message


# -- other hosts ---------------------------------------------------------------------------------------------------


@dataclass
class Stranger:
    """Another host: what was said to it."""

    host: str
    heard: list[dict[str, str]]


@contextmanager
def stranger(body: bytes = b"", status: int = 200) -> Iterator[Stranger]:
    """A host that answers everything with *body*."""
    found = Stranger("", [])

    def answer(handler: BaseHTTPRequestHandler) -> None:
        found.heard.append(dict(handler.headers.items()))
        for _ in iter(lambda: handler.rfile.read(min(65536, int(handler.headers.get("Content-Length", 0)))), b""):
            break
        handler.send_response_only(status)
        handler.send_header("WWW-Authenticate", 'Basic realm="mine"')
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    with serving(answer) as port:
        found.host = f"localhost:{port}"
        yield found


@pytest.mark.parametrize("kind", ["htpasswd_registry", "token_registry"])
def test_a_redirect_takes_no_credentials_along(kind: str, request: pytest.FixtureRequest) -> None:
    """Another host gets neither password nor token; what it sends is verified as ever."""
    registry: LiveRegistry = request.getfixturevalue(kind)
    blob = Blob()
    with talking(registry) as talk, stranger(blob.data) as other:
        pushed(talk.client, blob)
        location = {"Location": f"http://{other.host}/signed?c4n4ry=1"}
        registry.spoil(Fault("GET", "/blobs/", times=2, status=307, headers=location))
        assert blob.data == talk.client.read_blob(blob.descriptor)
    assert [None] == [each.get("Authorization") for each in other.heard]
    assert [] == [each for each in talk.reporter.said if "c4n4ry" in each]


def test_a_stranger_who_asks_for_a_password_gets_none(htpasswd_registry: LiveRegistry) -> None:
    """A challenge from where we were redirected is not ours to answer."""
    blob = Blob()
    with talking(htpasswd_registry) as talk, stranger(status=401) as other:
        pushed(talk.client, blob)
        htpasswd_registry.spoil(Fault("GET", "", status=307, headers={"Location": f"http://{other.host}/x"}))
        with pytest.raises(RegistryError) as caught:
            talk.client.read_blob(blob.descriptor)
    assert [None] == [each.get("Authorization") for each in other.heard]
    assert f"{htpasswd_registry.host}/team/app: blob {blob.digest}: HTTP 401 Unauthorized" == caught.value.message


def test_an_upload_to_another_host_takes_no_credentials_along(htpasswd_registry: LiveRegistry) -> None:
    """Some registries name a storage to upload to."""
    blob = Blob()
    with talking(htpasswd_registry) as talk, stranger(status=201) as other:
        pushed(talk.client, Blob())
        location = {"Location": f"http://{other.host}/upload?signature=x"}
        htpasswd_registry.spoil(Fault("POST", "", status=202, headers=location))
        pushed(talk.client, blob)
    assert [(None, str(len(blob.data)))] == [
        (each.get("Authorization"), each.get("Content-Length")) for each in other.heard
    ]


def test_redirects_end(plain_registry: LiveRegistry, talk: Talk) -> None:
    """A circle is one error; so is a redirect of an upload, or out of TLS."""
    plain_registry.spoil(Fault("HEAD|PUT", "", times=-1, status=307, headers={"Location": "/v2/again"}))
    with pytest.raises(RegistryError) as caught:
        talk.client.has_blob(Digest.of(b"?"))
    assert f"{plain_registry.host}/team/app: it redirects without end" == caught.value.message
    with pytest.raises(RegistryError) as caught:
        pushed(talk.client, Blob())
    assert f"{plain_registry.host}/team/app: it redirects an upload" == caught.value.message


def test_tls_is_not_left(tls_registry: LiveRegistry) -> None:
    """A redirect to a host without TLS is not followed."""
    with talking(tls_registry) as talk, stranger() as other:
        tls_registry.spoil(Fault("HEAD", "", status=307, headers={"Location": f"http://{other.host}/x"}))
        with pytest.raises(RegistryError) as caught:
            talk.client.has_blob(Digest.of(b"?"))
    assert f"{tls_registry.host}/team/app: it redirects to an address without TLS" == caught.value.message
    assert [] == other.heard


def test_tls_that_breaks_off_is_tried_again(tls_registry: LiveRegistry) -> None:
    """A reset is a reset, with TLS too."""
    tls_registry.spoil(Fault("PUT", "/blobs/", cut_request=100_000), Fault("GET", "/blobs/", cut_answer=5000))
    with talking(tls_registry) as talk:
        blob = pushed(talk.client, Blob())
        assert blob.data == talk.client.read_blob(blob.descriptor)


def test_a_registry_that_repeats_the_password_is_not_quoted(htpasswd_registry: LiveRegistry) -> None:
    """Even if it is in the registry's own words."""
    body = f'{{"errors": [{{"code": "DENIED", "message": "not with {CANARY}"}}]}}'.encode()
    with talking(htpasswd_registry) as talk:
        pushed(talk.client, Blob())
        htpasswd_registry.spoil(Fault("PUT", "", status=403, body=body))
        with pytest.raises(RegistryError) as caught:
            pushed(talk.client, Blob())
    assert caught.value.message.endswith("HTTP 403 Forbidden (DENIED not with ****)")
    assert f"pesto-repro login {htpasswd_registry.host}, as somebody who may" == caught.value.hint


def test_many_at_once(token_registry: LiveRegistry) -> None:
    """One client in several threads, with faults among them: all arrives."""
    blobs = [Blob() for _ in range(12)]
    token_registry.spoil(
        Fault("PUT", "/blobs/", times=3, skip=2, cut_request=5000),
        Fault("POST", "", times=3, status=429, headers={"Retry-After": "0"}),
        Fault("GET", "/blobs/", times=4, cut_answer=40_000),
    )
    with talking(token_registry) as talk, ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda blob: pushed(talk.client, blob), blobs))
        assert [each.data for each in blobs] == list(
            pool.map(lambda blob: talk.client.read_blob(blob.descriptor), blobs)
        )
    assert {str(each.digest) for each in blobs} == token_registry.blobs()


def test_credentials_are_asked_for_their_own_host_only(
    htpasswd_registry: LiveRegistry, plain_registry: LiveRegistry
) -> None:
    """A registry that does not ask who we are is not told, and nobody looks it up."""
    asked: list[str] = []

    def credentials(host: str) -> Any:
        asked.append(host)
        return htpasswd_registry.access().credentials(host)

    access = replace(Access(), credentials=credentials)
    with talking(plain_registry, access=access) as one, talking(htpasswd_registry, access=access) as two:
        pushed(one.client, Blob())
        pushed(two.client, Blob())
    assert [htpasswd_registry.host] == asked
    assert {None} == {each.headers.get("Authorization") for each in plain_registry.requests()}
