"""The registry's client on real registries: plain, with passwords, with TLS, with tokens."""

from __future__ import annotations

import os
import subprocess
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from pesto_repro.digest import Digest, hash_stream
from pesto_repro.errors import RegistryError
from pesto_repro.oci import Descriptor
from pesto_repro.registry.access import Access, Credential
from pesto_repro.registry.authorize import parse_challenges
from pesto_repro.registry.ports import Repository
from tests.judges import judge
from tests.registries import CANARY, USER, LiveRegistry
from tests.registry_client import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Blob,
    index_of,
    manifest,
    manifest_of,
    pushed,
    talking,
)
from tests.registry_proxy import Fault, serving
from tests.token_server import IDENTITY

pytestmark = pytest.mark.judge

KINDS = ["plain_registry", "htpasswd_registry", "tls_registry", "token_registry"]


@pytest.fixture(params=KINDS)
def registry(request: pytest.FixtureRequest) -> LiveRegistry:
    """Each kind of registry in turn."""
    found: LiveRegistry = request.getfixturevalue(request.param)
    return found


def test_what_is_pushed_is_there_and_read_back(registry: LiveRegistry) -> None:
    """Blobs, mounts, manifests and tags, on every kind of registry."""
    layer, config = Blob(), Blob(b"{}")
    image = manifest_of(OCI_MANIFEST, config, layer)
    with talking(registry) as talk, talking(registry, "other/app") as other:
        repository: Repository = talk.client
        assert [False, False] == [repository.has_blob(each.digest) for each in (layer, config)]
        assert (None, []) == (repository.has_manifest("1.0"), list(repository.tags()))
        for each in (layer, config):
            pushed(talk.client, each)
            assert (True, each.data) == (repository.has_blob(each.digest), repository.read_blob(each.descriptor))
        repository.push_manifest("1.0", image)
        repository.push_manifest("latest", image)
        assert [image, image] == [repository.manifest("1.0"), repository.manifest(str(image.digest))]
        assert [image.digest] * 2 == [repository.has_manifest("latest"), repository.has_manifest(str(image.digest))]
        assert ["1.0", "latest"] == sorted(repository.tags())
        assert [True, False] == [other.client.mount(each, "team/app") for each in (layer.digest, Digest.of(b"?"))]
        assert other.client.has_blob(layer.digest)
    assert {str(layer.digest), str(config.digest), str(image.digest)} == registry.blobs()


def test_skopeo_reads_what_was_pushed(registry: LiveRegistry, tmp_path: Path) -> None:
    """A judge of others gets the very bytes."""
    config, layer = Blob(b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'), Blob()
    image = manifest_of(OCI_MANIFEST, config, layer)
    with talking(registry) as talk:
        for each in (config, layer):
            pushed(talk.client, each)
        talk.client.push_manifest("1.0", image)
    tls = [f"--cert-dir={registry.authorities.parent}/trust"] if registry.authorities else ["--tls-verify=false"]
    if registry.authorities:
        (registry.authorities.parent / "trust").mkdir()
        (registry.authorities.parent / "trust/ca.crt").write_bytes(registry.authorities.read_bytes())
    path = registry.auth_file(tmp_path / "auth.json")
    command = [
        judge("skopeo"),
        "inspect",
        "--raw",
        *tls,
        "--authfile",
        str(path),
        f"docker://{registry.host}/team/app:1.0",
    ]
    assert image.data == subprocess.run(command, check=True, capture_output=True).stdout


@pytest.mark.parametrize(("single", "several"), [(OCI_MANIFEST, OCI_INDEX), (DOCKER_MANIFEST, DOCKER_LIST)])
def test_both_dialects_travel_byte_exact(plain_registry: LiveRegistry, single: str, several: str) -> None:
    """Manifests and indices of OCI and Docker, with the white space they came with."""
    config, layers = Blob(b"{}"), (Blob(), Blob())
    with talking(plain_registry) as talk:
        images = [manifest_of(single, config, layer) for layer in layers]
        for blob in (config, *layers):
            pushed(talk.client, blob)
        index = index_of(several, *images)
        for image in images:
            talk.client.push_manifest(str(image.digest), image)
        talk.client.push_manifest("both", index)
        assert index == talk.client.manifest("both")
        assert images == [talk.client.manifest(str(each.digest)) for each in images]


def test_a_push_asks_for_few_tokens(token_registry: LiveRegistry) -> None:
    """One to pull, one to push: a token is kept, and one that may push may pull too."""
    with talking(token_registry) as talk:
        assert not talk.client.has_blob(Digest.of(b"?"))
        for each in (Blob(), Blob(), Blob()):
            pushed(talk.client, each)
            assert talk.client.has_blob(each.digest)
    assert token_registry.tokens is not None
    assert ["repository:team/app:pull", "repository:team/app:pull,push"] == token_registry.tokens.asked


def test_tokens_are_renewed_before_they_expire(token_registry: LiveRegistry) -> None:
    """A blob that takes longer to send than a token lasts: no request is refused but the first of each kind."""
    now = [0.0]
    with talking(token_registry) as talk:
        talk.client.authorizer.clock = lambda: now[0]
        for _ in range(4):
            pushed(talk.client, Blob())
            now[0] += 4
    assert token_registry.tokens is not None
    assert ["repository:team/app:pull,push"] * 4 == token_registry.tokens.asked
    assert [401] == [each.status for each in token_registry.requests() if each.status >= 400]


def test_a_token_that_expires_without_notice_is_renewed(token_registry: LiveRegistry) -> None:
    """The registry really refuses after 5 seconds, in the middle of a push; the push goes on."""
    assert token_registry.tokens is not None
    token_registry.tokens.says_lifetime = False  # then it is a minute, by the documentation
    token_registry.spoil(Fault("POST", "uploads", skip=1, wait=6.5))
    with talking(token_registry) as talk:
        assert talk.client.has_blob(pushed(talk.client, Blob()).digest)
    assert [
        *(("POST", 401), ("POST", 202), ("PUT", 401), ("PUT", 201), ("HEAD", 200)),
    ] == [(each.method, each.status) for each in token_registry.requests()]


def test_anyone_may_pull_what_is_public(token_registry: LiveRegistry) -> None:
    """Without a credential a token is asked for all the same; it opens what it opens, and the rest is one error."""
    blob = Blob()
    with talking(token_registry, "public/app") as talk:
        pushed(talk.client, blob)
    with talking(token_registry, "public/app", Access()) as talk:
        assert blob.data == talk.client.read_blob(blob.descriptor)
        with pytest.raises(RegistryError) as caught:
            pushed(talk.client, Blob())
    assert f"{token_registry.host} wants to know who you are" == caught.value.message
    assert f"pesto-repro login {token_registry.host}" == caught.value.hint


def test_an_identity_token_stands_for_a_password(token_registry: LiveRegistry) -> None:
    """OAuth 2's refresh token is exchanged for tokens; one that is refused is one error."""
    blob = Blob()
    access = token_registry.access()
    good = replace(access, credentials=lambda host: Credential(identity_token=IDENTITY))
    bad = replace(access, credentials=lambda host: Credential(identity_token="c4n4ry-stale"))
    with talking(token_registry, access=good) as talk:
        assert blob.data == talk.client.read_blob(pushed(talk.client, blob).descriptor)
    with talking(token_registry, access=bad) as talk, pytest.raises(RegistryError) as caught:
        talk.client.has_blob(blob.digest)
    assert f"{token_registry.host} refuses the identity token that is known for it" == caught.value.message


@pytest.mark.parametrize("kind", ["htpasswd_registry", "token_registry"])
def test_a_wrong_password_is_one_error_at_once(kind: str, request: pytest.FixtureRequest) -> None:
    """No second try, no waiting."""
    registry: LiveRegistry = request.getfixturevalue(kind)
    with talking(registry, access=registry.access(password="wrong")) as talk:
        with pytest.raises(RegistryError) as caught:
            pushed(talk.client, Blob())
        assert [] == talk.slept
    assert f"{registry.host} refuses the user name ada or its password" == caught.value.message
    assert len(registry.requests()) <= 2


def test_nobody_gets_in_without_a_password(htpasswd_registry: LiveRegistry) -> None:
    """What is missing is said, with the command that mends it."""
    with talking(htpasswd_registry, access=Access()) as talk, pytest.raises(RegistryError) as caught:
        talk.client.manifest("1.0")
    assert f"{htpasswd_registry.host} wants to know who you are" == caught.value.message


def test_netrc_overrides_nothing(
    htpasswd_registry: LiveRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another password in a netrc does not replace the right one."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login mallory password wrong\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with talking(htpasswd_registry) as talk:
        assert talk.client.has_blob(pushed(talk.client, Blob()).digest)


def test_no_secret_is_ever_said(registry: LiveRegistry) -> None:
    """Not in messages, not in details: passwords, their base64, tokens."""
    with talking(registry) as talk:
        pushed(talk.client, Blob())
        with pytest.raises(RegistryError) as caught:
            talk.client.manifest("absent")
    said = "\n".join([*talk.reporter.said, caught.value.message])
    assert "PUT 127.0.0.1/v2/team/app/blobs/uploads/" in said
    secrets = [CANARY, "YWRhOmM0bjRyeTpwNHNzL3cwcmQ="]
    secrets += registry.tokens.granted if registry.tokens is not None else []
    assert [] == [each for each in secrets if each in said]
    assert "_state" not in said


def test_an_unknown_authority_is_one_error(tls_registry: LiveRegistry) -> None:
    """Without the CA file there is no answer, and no second try."""
    with talking(tls_registry, access=Access()) as talk, pytest.raises(RegistryError) as caught:
        talk.client.has_blob(Digest.of(b"?"))
    assert f"{tls_registry.host}/team/app: TLS fails: " in caught.value.message
    assert "certificate verify failed" in caught.value.message
    assert caught.value.hint is not None
    assert "PESTO_REPRO_REGISTRY_CA" in caught.value.hint
    assert ([], []) == (talk.slept, tls_registry.requests())


def test_a_file_without_authorities_is_one_error(tls_registry: LiveRegistry, tmp_path: Path) -> None:
    """A CA file that has none in it."""
    (tmp_path / "ca.pem").write_text("nothing")
    access = replace(tls_registry.access(), authorities=tmp_path / "ca.pem")
    with talking(tls_registry, access=access) as talk, pytest.raises(RegistryError):
        talk.client.has_blob(Digest.of(b"?"))


@pytest.mark.parametrize("name", ["team/app", "absent/app"])
def test_what_is_not_there_is_said(plain_registry: LiveRegistry, name: str) -> None:
    """The registry's own words, and where."""
    with talking(plain_registry, name) as talk, pytest.raises(RegistryError) as caught:
        talk.client.manifest("1.0")
    place = f"{plain_registry.host}/{name}: manifest 1.0: HTTP 404 Not Found"
    assert f"{place} (MANIFEST_UNKNOWN manifest unknown)" == caught.value.message


def test_a_manifest_without_its_blobs_is_refused(plain_registry: LiveRegistry) -> None:
    """docker-registry checks; its reason is passed on."""
    image = manifest_of(OCI_MANIFEST, Blob(b"{}"), Blob())
    with talking(plain_registry) as talk, pytest.raises(RegistryError) as caught:
        talk.client.push_manifest("1.0", image)
    assert "manifest 1.0: HTTP 400 Bad Request (MANIFEST_BLOB_UNKNOWN blob unknown to registry;" in caught.value.message


def test_a_blob_that_is_shorter_than_announced_is_an_error(plain_registry: LiveRegistry) -> None:
    """The local mistake is said as it is, and nothing is stored."""
    blob = Blob()
    short = Descriptor("application/octet-stream", blob.digest, len(blob.data) + 1)
    with talking(plain_registry) as talk, pytest.raises(RegistryError) as caught:
        talk.client.push_blob(short, blob.opener())
    assert "a blob is shorter than its 300001 bytes" == caught.value.message
    assert set() == plain_registry.blobs()


def test_a_blob_of_other_bytes_is_not_stored(plain_registry: LiveRegistry) -> None:
    """The registry verifies what it is sent."""
    blob = Blob()
    with talking(plain_registry) as talk, pytest.raises(RegistryError) as caught:
        talk.client.push_blob(blob.descriptor, Blob().opener())
    assert "HTTP 400 Bad Request (DIGEST_INVALID" in caught.value.message
    assert set() == plain_registry.blobs()


def test_an_empty_blob_travels(plain_registry: LiveRegistry) -> None:
    """No bytes at all."""
    with talking(plain_registry) as talk:
        assert b"" == talk.client.read_blob(pushed(talk.client, Blob(b"")).descriptor)


def test_memory_stays_flat(plain_registry: LiveRegistry) -> None:
    """64 MB there and back in a few pieces."""
    size = 64 << 20
    path = plain_registry.folder / "large"
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as writer:
        for _ in range(64):
            writer.write(os.urandom(1 << 20))
    with path.open("rb") as handle:
        descriptor = Descriptor("application/octet-stream", *hash_stream(handle))
    opener: Callable[[], AbstractContextManager[BinaryIO]] = lambda: path.open("rb")  # noqa: E731
    with talking(plain_registry) as talk:
        tracemalloc.start()
        try:
            talk.client.push_blob(descriptor, opener)
            with talk.client.open_blob(descriptor) as stream:
                assert size == sum(len(piece) for piece in iter(lambda: stream.read(1 << 20), b""))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 12 << 20


def test_connections_are_kept(plain_registry: LiveRegistry) -> None:
    """Reading a blob to its end leaves the connection usable: one for all requests."""
    with talking(plain_registry) as talk:
        blob = pushed(talk.client, Blob())
        for _ in range(3):
            talk.client.read_blob(blob.descriptor)
        pools = talk.client.session.get_adapter("http://").poolmanager.pools
        assert [1] == [pools[key].num_connections for key in pools.keys()]  # noqa: SIM118 # no mapping


def test_what_is_no_image_is_refused(plain_registry: LiveRegistry) -> None:
    """A manifest of another kind than images have."""
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    with (
        serving_manifest(b'{"schemaVersion": 1}', kind) as host,
        talking(replace_host(plain_registry, host)) as talk,
        pytest.raises(RegistryError) as caught,
    ):
        talk.client.manifest("1.0")
    assert f"{host}/team/app: manifest 1.0 is of type {kind}, which is no image" == caught.value.message


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b"nonsense", OCI_MANIFEST, "manifest 1.0 is no JSON object"),
        (b"[]", OCI_MANIFEST, "manifest 1.0 is no JSON object"),
        (
            manifest(OCI_INDEX, {"mediaType": OCI_INDEX}).data,
            OCI_MANIFEST,
            f"manifest 1.0 is of type {OCI_INDEX}, but is said to be {OCI_MANIFEST}",
        ),
        (b" " * (17 << 20), OCI_MANIFEST, f"manifest 1.0 is larger than {16 << 20} bytes"),
    ],
    ids=["text", "list", "type", "size"],
)
def test_a_manifest_that_makes_no_sense_is_refused(
    plain_registry: LiveRegistry, body: bytes, kind: str, reason: str
) -> None:
    """One clear error each."""
    with (
        serving_manifest(body, kind) as host,
        talking(replace_host(plain_registry, host)) as talk,
        pytest.raises(RegistryError) as caught,
    ):
        talk.client.manifest("1.0")
    assert f"{host}/team/app: {reason}" == caught.value.message


@contextmanager
def serving_manifest(body: bytes, media_type: str) -> Any:
    """A registry that answers everything with *body*."""

    def answer(handler: Any) -> None:
        handler.send_response_only(200)
        handler.send_header("Content-Type", media_type)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with serving(answer) as port:
        yield f"127.0.0.1:{port}"


def replace_host(registry: LiveRegistry, host: str) -> LiveRegistry:
    return replace(registry, host=host)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="a, b"', [("basic", {"realm": "a, b"})]),
        (
            'Bearer realm="https://t.example/token",service="s x",scope="repository:a:pull,push"',
            [("bearer", {"realm": "https://t.example/token", "service": "s x", "scope": "repository:a:pull,push"})],
        ),
        ('bearer realm="r", Basic realm="q"', [("bearer", {"realm": "r"}), ("basic", {"realm": "q"})]),
        ("Basic realm=r", [("basic", {"realm": "r"})]),
        ("Negotiate, Basic realm=r", [("negotiate", {}), ("basic", {"realm": "r"})]),
        ('Bearer realm="a \\"quoted\\" one"', [("bearer", {"realm": 'a "quoted" one'})]),
        ("Basic", [("basic", {})]),
        ("", []),
    ],
)
def test_challenges_are_understood(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    """RFC 9110, 11.6.1: one header may have several, with quoted and plain parameters."""
    assert expected == [(each.scheme, dict(each.parameters)) for each in parse_challenges(header)]


def test_a_token_service_without_tls_gets_no_password() -> None:
    """Where the registry has TLS, its token service must have it."""
    from pesto_repro.registry.authorize import Authorizer, Challenge, Reply

    def ask(method: str, url: str, headers: object, body: bytes | None) -> Reply:
        raise AssertionError("it was asked")

    authorizer = Authorizer("registry.example", True, lambda: Credential(USER, CANARY), ask, lambda: 0.0)
    with pytest.raises(RegistryError) as caught:
        authorizer.answer([Challenge("bearer", {"realm": "http://t.example/token"})], {}, None)
    assert "registry.example wants the password sent to t.example without TLS" == caught.value.message
