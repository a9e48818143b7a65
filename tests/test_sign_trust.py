"""``[trust] base-key``: a base image that is not signed with the project's key is not locked, and not fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from pesto_repro import scaffold
from pesto_repro.build.base import LayoutSource, RemoteSource, Source
from pesto_repro.cli.trust import require_trusted, trusted
from pesto_repro.errors import PestoError
from pesto_repro.lock.model import BaseImage, Blob, Lock
from pesto_repro.oci import Descriptor, MediaType
from pesto_repro.project import Project, read_project
from pesto_repro.registry import shared_tag
from pesto_repro.registry.content import LayoutContent, RemoteContent
from pesto_repro.registry.cosign import sign
from pesto_repro.registry.ports import Repository
from pesto_repro.registry.reference import RemoteReference
from pesto_repro.registry.signing import ImageSigner
from pesto_repro.sinks import write_archive
from pesto_repro.store import Store
from tests.images import make_image, make_layers
from tests.memory_registry import MemoryRegistry, MemoryRepository
from tests.test_lock import platform, sealed

NAME = "registry.example/team/base:1"
INDEX = Descriptor.of(MediaType.INDEX, b"the base's index")


def at_once(target: Repository, tag: str, mine: shared_tag.Entries, form: shared_tag.Form) -> None:
    """Adds without waiting."""
    shared_tag.add(target, tag, mine, form, sleep=lambda seconds: None)


@pytest.fixture
def signer() -> ImageSigner:
    return ImageSigner.new()


@pytest.fixture
def project(signer: ImageSigner, tmp_path: Path) -> Project:
    """A project that demands *signer*'s signature."""
    root = tmp_path / "hello"
    scaffold.create(root, "hello")
    (root / "base.pub").write_bytes(signer.public.pem)
    (root / "pesto/build/image.toml").write_text('[trust]\nbase-key = "base.pub"\n')
    return read_project(root)


@pytest.fixture
def repository() -> MemoryRepository:
    return MemoryRegistry().repository("team/base")


def lock_on(original: str) -> Lock:
    """A lock whose base is *original*, of the index INDEX."""
    digest = "sha256:" + "1" * 64
    base = BaseImage(
        original=original,
        index=str(INDEX.digest),
        manifest=digest,
        media_type=MediaType.MANIFEST,
        config=Blob(digest=digest, size=2),
        layers=(),
    )
    return sealed(platform().model_copy(update={"base": base}))


def remote(repository: MemoryRepository) -> Source:
    return RemoteSource(RemoteContent(repository), RemoteReference.parse(NAME))


def test_a_base_that_is_signed(project: Project, signer: ImageSigner, repository: MemoryRepository) -> None:
    """What the name led to, the index, is what has to be signed."""
    sign(repository, INDEX, signer, at_once)
    require_trusted(project, lock_on(NAME), lambda name: remote(repository))
    found = trusted(lambda name: remote(repository), project, lock_on(NAME))(NAME)
    assert remote(repository) == found


def test_a_base_that_is_not(project: Project, signer: ImageSigner, repository: MemoryRepository) -> None:
    """It says which base, which key, and whether others have signed; nothing is fetched in a build."""
    sign(repository, INDEX, ImageSigner.new(), at_once)
    key = signer.public.fingerprint
    message = f"{NAME} is not signed with the key base.pub: none of its 2 signatures is by {key}"
    with pytest.raises(PestoError) as caught:
        require_trusted(project, lock_on(NAME), lambda name: remote(repository))
    assert message == caught.value.message
    sources = trusted(lambda name: remote(repository), project, lock_on(NAME))
    with pytest.raises(PestoError) as caught:
        sources(NAME)
    assert message == caught.value.message


def test_without_the_network_nothing_is_new(project: Project) -> None:
    """A base that an earlier lock pinned was looked at then; nobody is asked."""
    require_trusted(project, lock_on(NAME), lambda name: pytest.fail("nobody is asked"), offline=True)


@pytest.mark.parametrize("offline", [True, False])
def test_a_base_in_an_archive_has_no_signatures(project: Project, offline: bool, tmp_path: Path) -> None:
    """There the demand cannot be met, and that is said, rather than nothing checked."""
    store = Store(tmp_path / "store")
    write_archive(make_image(make_layers(store)), "base:1", tmp_path / "base.tar", store)
    source = LayoutSource(LayoutContent.at(tmp_path / "base.tar"))
    with pytest.raises(PestoError) as caught:
        require_trusted(project, lock_on("oci-archive:base.tar"), lambda name: source, offline=offline)
    expected = "the base image oci-archive:base.tar is to be signed with base.pub, but only a registry has signatures"
    assert expected == caught.value.message


def test_a_key_that_is_not_there(project: Project, repository: MemoryRepository) -> None:
    """The demand stands: without the key nothing is trusted."""
    (project.root / "base.pub").unlink()
    with pytest.raises(PestoError) as caught:
        require_trusted(project, lock_on(NAME), lambda name: remote(repository))
    assert f"the key {project.root}/base.pub cannot be read: No such file or directory" == caught.value.message


def test_who_demands_nothing_asks_nobody(project: Project) -> None:
    """Without base-key there is no question, and the sources are the same."""
    (project.root / "pesto/build/image.toml").write_text("")
    free = read_project(project.root)

    def sources(name: str) -> Source:
        return pytest.fail("nobody is asked")

    require_trusted(free, lock_on(NAME), sources)
    assert sources is trusted(sources, free, lock_on(NAME))
