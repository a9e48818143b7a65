"""``copy`` between archives, layouts and registries: digests stay what they are, and only what is missing travels."""

from __future__ import annotations

import json
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.cli.places import Archive, Layout, read_place, read_target
from pesto_repro.digest import Digest, canonical_json
from pesto_repro.errors import FetchError, MismatchError, PestoError
from pesto_repro.oci import Descriptor, Image, MediaType
from pesto_repro.registry.content import LayoutContent, documents
from pesto_repro.registry.reference import RemoteReference
from pesto_repro.sinks import copy_archive, copy_layout, write_archive, write_layout
from pesto_repro.store import Store
from pesto_repro.validate import validate
from tests.e2e import run
from tests.engine import call
from tests.images import make_image, make_layers
from tests.judges import judge
from tests.registries import LiveRegistry

PLATFORMS = [("linux/amd64",), ("linux/amd64", "linux/arm64")]
REFERENCE = "team/hello:1.0"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one."""
    return Store(tmp_path / "images")


def copy(source: Path | str, target: Path | str, **how: Any) -> dict[str, Any]:
    """``copy`` with ``--json``: what it printed."""
    found: dict[str, Any] = json.loads(run("copy", source, target, "--json", **how).stdout)
    return found


def files(folder: Path) -> dict[str, bytes]:
    """Every file below *folder*."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.judge
@pytest.mark.parametrize("platforms", PLATFORMS)
def test_all_the_way_round(
    platforms: tuple[str, ...], plain_registry: LiveRegistry, store: Store, tmp_path: Path
) -> None:
    """Archive, registry, another repository, layout, archive: the last is the first, byte for byte."""
    image = make_image(make_layers(store), *platforms)
    first, last, layout = tmp_path / "first.tar", tmp_path / "last.tar", tmp_path / "layout"
    write_archive(image, REFERENCE, first, store)
    there, other = f"{plain_registry.host}/{REFERENCE}", f"{plain_registry.host}/other/hello:2.0"
    stations: list[str | Path] = [first, there, other, there, f"oci:{layout}", last]
    answers = [copy(source, target) for source, target in pairwise(stations)]
    assert {str(image.digest)} == {each["digest"] for each in answers}
    assert [None, None, None, f"oci:{layout}", str(last)] == [each["output"] for each in answers]
    validate(layout)
    assert first.read_bytes() == last.read_bytes()


@pytest.mark.judge
def test_within_a_registry_everything_is_mounted(plain_registry: LiveRegistry, store: Store, tmp_path: Path) -> None:
    """No blob is downloaded or sent."""
    image = make_image(make_layers(store), *PLATFORMS[1])
    write_archive(image, REFERENCE, tmp_path / "image.tar", store)
    copy(tmp_path / "image.tar", f"{plain_registry.host}/a:1")
    plain_registry.forget()
    pushed = copy(f"{plain_registry.host}/a:1", f"{plain_registry.host}/b:1")["pushed"][0]
    assert (5, [], []) == (len(pushed["mounted"]), pushed["uploaded"], pushed["existing"])
    assert [] == [each for each in plain_registry.requests() if each.method == "GET" and "/blobs/" in each.path]


@pytest.mark.judge
def test_between_registries_it_streams(
    plain_registry: LiveRegistry, htpasswd_registry: LiveRegistry, store: Store, tmp_path: Path
) -> None:
    """With the credentials of each; a layer that is there already is not read again."""
    image = make_image(make_layers(store))
    write_archive(image, REFERENCE, tmp_path / "image.tar", store)
    env = {"REGISTRY_AUTH_FILE": str(htpasswd_registry.auth_file(tmp_path / "auth.json"))}
    copy(tmp_path / "image.tar", f"{htpasswd_registry.host}/a:1", env=env)
    pushed = copy(f"{htpasswd_registry.host}/a:1", f"{plain_registry.host}/b:1", env=env)["pushed"][0]
    assert 4 == len(pushed["uploaded"])
    assert {str(image.digest), *pushed["uploaded"]} == plain_registry.blobs()
    assert not any("Authorization" in each.headers for each in plain_registry.requests())


@pytest.mark.judge
@pytest.mark.parametrize("form", ["v2s2", "oci"])
def test_an_image_of_others_is_copied_as_it_is(
    form: str, plain_registry: LiveRegistry, store: Store, tmp_path: Path
) -> None:
    """Docker's media types too: what skopeo put there comes out of an archive with the same digest."""
    skopeo, name = judge("skopeo"), f"{plain_registry.host}/theirs:1"
    write_archive(make_image(make_layers(store)[:2]), REFERENCE, tmp_path / "image.tar", store)  # without zstd
    source = f"oci-archive:{tmp_path}/image.tar"
    call(skopeo, "copy", "-q", f"--format={form}", "--dest-tls-verify=false", source, f"docker://{name}")
    raw = call(skopeo, "inspect", "--raw", "--tls-verify=false", f"docker://{name}").encode()
    found = copy(f"docker://{name}", tmp_path / "copy.tar")
    assert str(Digest.of(raw)) == found["digest"]
    again = f"{plain_registry.host}/again:1"
    assert found["digest"] == copy(tmp_path / "copy.tar", again)["digest"]
    assert raw == call(skopeo, "inspect", "--raw", "--tls-verify=false", f"docker://{again}").encode()


@pytest.mark.parametrize("platforms", PLATFORMS)
def test_a_copy_is_what_build_writes(platforms: tuple[str, ...], store: Store, tmp_path: Path) -> None:
    """Archive and layout alike."""
    image = make_image(make_layers(store), *platforms)
    write_archive(image, REFERENCE, tmp_path / "a.tar", store)
    write_layout(image, REFERENCE, tmp_path / "a", store)
    content = LayoutContent.at(tmp_path / "a.tar")
    found = documents(content, content.root())
    copy_archive(content, found, content.name(), tmp_path / "b.tar")
    copy_layout(content, found, content.name(), tmp_path / "b")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_copy_onto_itself_changes_nothing(store: Store, tmp_path: Path) -> None:
    """The source is read to the end before it is replaced."""
    path = tmp_path / "a.tar"
    write_archive(make_image(make_layers(store)), REFERENCE, path, store)
    before = path.read_bytes()
    copy(path, path)
    assert before == path.read_bytes()


def test_a_failed_copy_leaves_what_was_there(store: Store, tmp_path: Path) -> None:
    """A layer is broken: the target stays as it was."""
    image = make_image(make_layers(store))
    write_layout(image, REFERENCE, tmp_path / "layout", store)
    layer = image.platforms[0].layers[0].descriptor
    blob = tmp_path / "layout/blobs/sha256" / layer.digest.hex
    blob.chmod(0o644)
    blob.write_bytes(bytes(layer.size))
    (tmp_path / "target.tar").write_text("precious")
    done = run("copy", f"oci:{tmp_path}/layout", tmp_path / "target.tar", check=False)
    assert (1, "") == (done.returncode, done.stdout)
    assert f"error: {tmp_path}/layout: {layer.digest} is not intact: its digest is sha256:" in done.stderr
    assert "precious" == (tmp_path / "target.tar").read_text()
    assert ["images", "layout", "target.tar"] == sorted(each.name for each in tmp_path.iterdir())


def test_a_target_without_a_tag_is_refused(store: Store, tmp_path: Path) -> None:
    """As with ``push``."""
    write_archive(make_image(make_layers(store)), REFERENCE, tmp_path / "a.tar", store)
    done = run("copy", tmp_path / "a.tar", "registry.example/hello", check=False)
    expected = (
        "error: registry.example/hello has no tag, and none is guessed\n"
        "hint: say which, as in registry.example/hello:1.0.0\n"
    )
    assert expected == done.stderr


def layout_of(folder: Path, entries: list[object]) -> LayoutContent:
    """A layout whose index.json has *entries*."""
    folder.mkdir()
    (folder / "index.json").write_bytes(canonical_json({"schemaVersion": 2, "manifests": entries}))
    return LayoutContent.at(folder)


def entry(name: str) -> dict[str, object]:
    """One of index.json."""
    described = Descriptor(MediaType.MANIFEST, Digest.of(name.encode()), len(name)).document()
    return described | {"annotations": {"org.opencontainers.image.ref.name": name}}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "index.json must name exactly one image; it names 0: none"),
        ([entry("a:1"), entry("b:1")], "index.json must name exactly one image; it names 2: a:1, b:1"),
        ([{}], "index.json is not what the image-spec says: KeyError: 'size'"),
        (["x"], "index.json is not what the image-spec says: TypeError: string indices must be integers, not 'str'"),
        ([entry("a") | {"size": -1}], "index.json is not what the image-spec says: ValueError: -1 is no size"),
    ],
)
def test_index_json_must_name_one_image(entries: list[object], message: str, tmp_path: Path) -> None:
    """Anything else is one error, which says what is there."""
    layout = layout_of(tmp_path / "layout", entries)
    with pytest.raises(FetchError) as caught:
        layout.root()
    assert f"{tmp_path}/layout: {message}" == caught.value.message


def test_a_blob_of_another_size_is_refused(store: Store, tmp_path: Path) -> None:
    """Before it is read."""
    image = make_image(make_layers(store))
    write_layout(image, REFERENCE, tmp_path / "layout", store)
    described = image.platforms[0].layers[1].descriptor
    larger = Descriptor(described.media_type, described.digest, described.size + 1)
    with pytest.raises(MismatchError) as caught:
        LayoutContent.at(tmp_path / "layout").open(larger)
    reason = f"{described.digest} is not intact: it has {described.size} bytes, not {described.size + 1}"
    assert f"{tmp_path}/layout: {reason}" == caught.value.message


def test_archives_of_others_are_read(store: Store, tmp_path: Path) -> None:
    """Names that start with ``./``, directories in between, another order: what tar makes of a layout folder."""
    image: Image = make_image(make_layers(store))
    write_layout(image, REFERENCE, tmp_path / "layout", store)
    with tarfile.open(tmp_path / "theirs.tar", "w") as archive:
        archive.add(tmp_path / "layout", ".")
    content = LayoutContent.at(tmp_path / "theirs.tar")
    found = documents(content, content.root())
    assert (image.descriptor, REFERENCE) == (content.root(), content.name())
    for blob in found[-1].blobs:
        with content.open(blob) as stream:
            assert blob.digest == Digest.of(stream.read())


def test_what_words_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefixes say it; else what is there, else what it looks like."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    remote = RemoteReference("registry.example", "team/hello", "1.0")
    expected = {
        "oci:image": Layout(Path("image")),
        "oci-archive:image": Archive(Path("image")),
        "folder": Layout(Path("folder")),
        "file": Archive(Path("file")),
        "absent.tar": Archive(Path("absent.tar")),
        "./absent": Archive(Path("./absent")),
        "registry.example/team/hello:1.0": remote,
        "docker://registry.example/team/hello:1.0": remote,
    }
    assert expected == {text: read_place(text) for text in expected}


def test_targets_never_guess() -> None:
    """A tag is what was said, or what the project has; a digest stands for itself."""
    digest = Digest.of(b"")
    expected = {
        "registry.example/hello:latest": RemoteReference("registry.example", "hello", "latest"),
        "localhost:5000/hello:1": RemoteReference("localhost:5000", "hello", "1"),
        f"registry.example/hello@{digest}": RemoteReference("registry.example", "hello", None, digest),
    }
    assert expected == {text: read_target(text) for text in expected}
    assert RemoteReference("localhost:5000", "hello", "1.0-p1") == read_target("localhost:5000/hello", "1.0-p1")
    with pytest.raises(PestoError, match=r"^localhost:5000/hello has no tag, and none is guessed$"):
        read_target("localhost:5000/hello")
