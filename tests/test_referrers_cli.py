"""``push --attach`` and ``copy --with-referrers``: what is attached arrives, byte for byte, wherever the image goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pesto_repro.digest import Digest
from pesto_repro.errors import FetchError
from pesto_repro.oci import Descriptor, MediaType
from pesto_repro.progress import Reporter
from pesto_repro.registry import shared_tag
from pesto_repro.registry.companions import in_layout, in_repository, send
from pesto_repro.registry.content import Document, LayoutContent, RemoteContent, documents
from pesto_repro.registry.cosign import sign, signature_tag
from pesto_repro.registry.ports import Repository
from pesto_repro.registry.referrers import Artifact, attach, referrers, send_blob
from pesto_repro.registry.signing import ImageSigner
from pesto_repro.sinks import copy_beside, write_archive
from pesto_repro.store import Store
from tests.e2e import run
from tests.images import make_image, make_layers
from tests.memory_registry import MemoryRegistry, MemoryRepository
from tests.registries import LiveRegistry
from tests.registry_client import manifest
from tests.signatures import signed_by
from tests.small_project import make_small

SPDX = "application/spdx+json"


def at_once(target: Repository, tag: str, mine: shared_tag.Entries, form: shared_tag.Form) -> None:
    """Adds without waiting."""
    shared_tag.add(target, tag, mine, form, sleep=lambda seconds: None)


def image_in(repository: MemoryRepository) -> tuple[Document, ...]:
    """An image without layers."""
    config = Descriptor.of(MediaType.CONFIG, b"{}")
    send_blob(repository, config, b"{}")
    document = {"schemaVersion": 2, "mediaType": MediaType.MANIFEST, "config": config.document(), "layers": []}
    made = manifest(MediaType.MANIFEST, document)
    repository.push_manifest("1.0", made)
    return documents(RemoteContent(repository), Descriptor(made.media_type, made.digest, len(made.data)))


@pytest.fixture
def signer() -> ImageSigner:
    return ImageSigner.new()


@pytest.fixture
def source(signer: ImageSigner) -> MemoryRepository:
    """An image, signed, with a bill of materials that is signed itself."""
    repository = MemoryRegistry().repository("team/app")
    image = image_in(repository)[-1].descriptor
    (bill,) = attach(repository, image, [Artifact.of_file(SPDX, SPDX, "bom.json", b"{}")], at_once)
    for each in (image, bill.descriptor):
        sign(repository, each, signer, at_once)
    return repository


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("lists", [True, False])
def test_all_that_goes_with_an_image(
    source: MemoryRepository, signer: ImageSigner, archive: bool, lists: bool, tmp_path: Path
) -> None:
    """To a layout or archive and into another registry: referrers, those of referrers, and signatures still hold."""
    image = image_in(source)
    found = in_repository(source, image)
    assert 5 == len(found)
    copy_beside(RemoteContent(source), found, tmp_path / "x.referrers", archive=archive)
    layout = LayoutContent.at(tmp_path / "x.referrers")
    assert found == in_layout(layout)
    target = MemoryRegistry("other.example", lists=lists).repository("team/copy")
    image_in(target)
    for _ in range(2):  # the second time everything is there
        send(layout, found, target, Reporter(), at_once)
    assert found == in_repository(target, image)
    for subject in (
        image[-1].descriptor.digest,
        referrers(source, image[-1].descriptor.digest, SPDX)[0].descriptor.digest,
    ):
        assert ["simple", "bundle"] == [each.form for each in signed_by(target, subject, signer.public)]


def test_signatures_that_are_there_stay(source: MemoryRepository, signer: ImageSigner) -> None:
    """A copy adds signatures to those that the target has."""
    target, own = MemoryRegistry().repository("team/copy"), ImageSigner.new()
    image = image_in(target)
    sign(target, image[-1].descriptor, own, at_once)
    send(RemoteContent(source), in_repository(source, image), target, Reporter(), at_once)
    for each in (own, signer):
        assert 2 == len(signed_by(target, image[-1].descriptor.digest, each.public))


def test_an_entry_that_is_attached_to_nothing(tmp_path: Path) -> None:
    """A layout whose index.json names an image is no layout of referrers."""
    store = Store(tmp_path / "store")
    image = make_image(make_layers(store))
    write_archive(image, "hello:1.0", tmp_path / "image.tar", store)
    with pytest.raises(FetchError) as caught:
        in_layout(LayoutContent.at(tmp_path / "image.tar"))
    assert f"{image.digest} is attached to nothing: hello:1.0 is no tag of signatures" == caught.value.message


@pytest.mark.judge
def test_push_attach_and_copy_with_referrers(runtime_wheel: Path, plain_registry: LiveRegistry, tmp_path: Path) -> None:
    """A project's four documents and a file; listed, fetched, copied away and back; again changes nothing."""
    small = make_small(tmp_path / "small", runtime_wheel)
    small.build()
    note = tmp_path / "note.json"
    note.write_text('{"_type": "https://in-toto.io/Statement/v1", "note": 1}')
    reference = f"{plain_registry.host}/team/small:1.0"
    words: list[str | Path] = ["push", small.output, reference, "--attach", small.root, "--attach", note, "--json"]
    first, second = (json.loads(run(*words, env=small.env).stdout) for _ in range(2))
    types = [
        *("application/spdx+json", "application/vnd.cyclonedx+json", "application/vnd.in-toto+json"),
        *("application/vnd.in-toto+json", "application/vnd.pesto-repro.lock.v1+toml"),
    ]
    assert types == sorted(each["artifact_type"] for each in first["attached"])
    assert first["attached"] == second["attached"]
    run("referrers", reference, "--get", types[-1], "-o", tmp_path / "lock.toml")
    assert small.lockfile.read_bytes() == (tmp_path / "lock.toml").read_bytes()
    beside, other = tmp_path / "copy.tar", f"{plain_registry.host}/other/small:1.0"
    run("copy", reference, beside, "--with-referrers")
    assert 1 == len(LayoutContent.at(beside).entries())
    run("copy", beside, other, "--with-referrers")
    listed = [json.loads(run("referrers", each, "--json").stdout)["referrers"] for each in (reference, other)]
    assert 5 == len(listed[0])
    assert listed[0] == listed[1]


@pytest.mark.judge
def test_what_cannot_be_attached(plain_registry: LiveRegistry, tmp_path: Path) -> None:
    """A file of another kind is refused before anything is pushed."""
    store = Store(tmp_path / "store")
    write_archive(make_image(make_layers(store)), "hello:1.0", tmp_path / "image.tar", store)
    (tmp_path / "x.json").write_text("[1]")
    words: list[str | Path] = [
        "push",
        tmp_path / "image.tar",
        f"{plain_registry.host}/a/b:1",
        "--attach",
        tmp_path / "x.json",
    ]
    done = run(*words, check=False)
    expected = (
        f"error: {tmp_path}/x.json is none of what can be attached\n"
        "hint: attach a project, or a file: a lock (*.lock.toml), CycloneDX or SPDX in JSON, or an in-toto statement\n"
    )
    assert (1, "", expected) == (done.returncode, done.stdout, done.stderr)
    assert [] == [each for each in plain_registry.requests() if each.method in ("PUT", "POST", "PATCH")]


def test_a_signature_tag_is_cosigns() -> None:
    """cosign finds signatures there."""
    assert f"sha256-{'ab' * 32}.sig" == signature_tag(Digest("ab" * 32))
