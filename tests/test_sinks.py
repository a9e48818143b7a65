"""Finished images in archives and layouts, and the validator that holds them against the image-spec."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.build.compress import LayerWriter
from pesto_repro.build.entry import Entry, data, symlink
from pesto_repro.build.tar import MTIME, arrange, write_tar
from pesto_repro.digest import Digest, canonical_json
from pesto_repro.errors import BuildError, ImageError
from pesto_repro.oci import MEDIA_TYPES, Descriptor, Image, Layer, Platform, Recipe, assemble, assemble_index
from pesto_repro.registry.content import LostLayers
from pesto_repro.sinks import write_archive, write_layout, write_text
from pesto_repro.store import Store
from pesto_repro.validate import validate

REFERENCE = "hello:1.0"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one."""
    return Store(tmp_path / "store")


def stored(store: Store, name: str, tar: bytes, compression: str = "gzip") -> Layer:
    """The layer *tar*, whatever is in it."""
    with store.writer() as blob:
        writer = LayerWriter(compression, blob)
        writer.write(tar)
        diff_id = writer.close()
        digest = blob.commit()
    return Layer("python", name, "sha256:0", Descriptor(MEDIA_TYPES[compression], digest, blob.size), diff_id)


def a_layer(store: Store, name: str, *entries: Entry, compression: str = "gzip") -> Layer:
    """A layer of *entries*."""
    sink = io.BytesIO()
    write_tar(arrange(entries), sink)
    return stored(store, name, sink.getvalue(), compression)


def an_image(store: Store, *layers: Layer, platforms: tuple[str, ...] = ("linux/amd64",)) -> Image:
    """The image of *layers*, else of three of ours, for each platform."""
    made = layers or (
        a_layer(store, "files", data("opt/a", b"a" * 1000), data("opt/b", b"b", executable=True), symlink("c", "a")),
        a_layer(store, "zstd", data("opt/x", b"x"), compression="zstd"),
        a_layer(store, "plain", data("tmp/y", b"y"), compression="none"),
    )
    recipes = [
        Recipe(
            Platform.parse(name),
            "2026-01-10T09:40:37Z",
            "65532:65532",
            ("A=b",),
            ("processing",),
            ("8080/tcp",),
            {"l": "m"},
            ("/bin/true",),
        )
        for name in platforms
    ]
    return assemble_index([assemble(each, made) for each in recipes])


def members(path: Path) -> dict[str, bytes]:
    """The files of an archive."""
    with tarfile.open(path, "r:") as archive:
        return {each.name: _content(archive, each) for each in archive if each.isfile()}


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(info)
    assert stream is not None
    return stream.read()


def files(folder: Path) -> dict[str, bytes]:
    """The files of a layout."""
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


# -- archives ----------------------------------------------------------------------------------------------------


def test_golden_image(store: Store) -> None:
    """The documents' bytes are a promise, too: key order, history, health check."""
    assert "sha256:3685f33dada07428c0ce6d49acf4ae8bf2d29da93a3911eac6c422f537ba91e9" == str(an_image(store).digest)


def test_an_archive_is_byte_identical(store: Store, tmp_path: Path) -> None:
    """Whoever writes it, from whichever store, wherever to."""
    other = Store(tmp_path / "other")
    assert write_archive(an_image(store), REFERENCE, tmp_path / "a.tar", store)
    assert write_archive(an_image(other), REFERENCE, tmp_path / "sub" / "b.tar", other)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "sub" / "b.tar").read_bytes()
    assert "sha256:0b991fae8570e2fc6b81303892ae9a039bbcb23ca7a4310a29e6c6fe0d19916d" == str(
        Digest.of((tmp_path / "a.tar").read_bytes())
    )
    assert 0o644 == (tmp_path / "a.tar").stat().st_mode & 0o777
    assert ["b.tar"] == [each.name for each in (tmp_path / "sub").iterdir()]
    validate(tmp_path / "a.tar")


def test_an_archive_is_a_layout_and_can_be_loaded(store: Store, tmp_path: Path) -> None:
    """image-layout.md, and what ``docker load`` reads: both name the same blobs, and there are no others."""
    image = an_image(store)
    write_archive(image, REFERENCE, tmp_path / "a.tar", store)
    found = members(tmp_path / "a.tar")
    assert {"imageLayoutVersion": "1.0.0"} == json.loads(found["oci-layout"])
    (entry,) = json.loads(found["index.json"])["manifests"]
    assert image.descriptor.document() | {"annotations": {"org.opencontainers.image.ref.name": REFERENCE}} == entry
    (loaded,) = json.loads(found["manifest.json"])
    manifest = json.loads(found[f"blobs/sha256/{image.digest.hex}"])
    assert [REFERENCE] == loaded["RepoTags"]
    assert f"blobs/{manifest['config']['digest'].replace(':', '/')}" == loaded["Config"]
    assert [f"blobs/{each['digest'].replace(':', '/')}" for each in manifest["layers"]] == loaded["Layers"]
    blobs = {name: content for name, content in found.items() if name.startswith("blobs/")}
    assert {loaded["Config"], f"blobs/sha256/{image.digest.hex}", *loaded["Layers"]} == set(blobs)
    assert all(name == f"blobs/sha256/{Digest.of(content).hex}" for name, content in blobs.items())


def test_an_equal_archive_is_not_written_again(store: Store, tmp_path: Path) -> None:
    """Neither by this Store nor by the next; not even if the layers are gone."""
    image, path = an_image(store), tmp_path / "a.tar"
    assert write_archive(image, REFERENCE, path, store)
    before = path.stat()
    assert not write_archive(image, REFERENCE, path, store)
    for digest in image.layers():
        store.discard(digest)
    assert not write_archive(image, REFERENCE, path, Store(store.root))
    assert (before.st_mtime_ns, before.st_ino) == (path.stat().st_mtime_ns, path.stat().st_ino)


def _flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:700] + bytes([content[700] ^ 1]) + content[701:])


def _moved(path: Path) -> None:
    """Another file of the same content took its place."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


@pytest.mark.parametrize("harm", [_flip, _moved, Path.unlink, lambda path: path.write_bytes(b"")])
def test_an_altered_archive_is_written_again(store: Store, tmp_path: Path, harm: Callable[[Path], object]) -> None:
    """What is not untouched is not trusted."""
    image, path = an_image(store), tmp_path / "a.tar"
    write_archive(image, REFERENCE, path, store)
    content = path.read_bytes()
    harm(path)
    assert write_archive(image, REFERENCE, path, store)
    assert content == path.read_bytes()


def test_another_image_or_reference_is_another_archive(store: Store, tmp_path: Path) -> None:
    """The name of the image is in it."""
    image, path = an_image(store), tmp_path / "a.tar"
    write_archive(image, REFERENCE, path, store)
    assert write_archive(image, "hello:1.1", path, store)
    assert write_archive(an_image(store, a_layer(store, "x", data("x", b""))), "hello:1.1", path, store)
    validate(path)


def test_missing_layers_are_told_before_anything_is_written(store: Store, tmp_path: Path) -> None:
    """Lost or broken: all of them at once."""
    image = an_image(store)
    lost, broken, _ = image.layers()
    store.discard(lost)
    store.path(broken).chmod(0o644)
    store.path(broken).write_bytes(b"broken")
    for write, target in ((write_archive, tmp_path / "a.tar"), (write_layout, tmp_path / "layout")):
        with pytest.raises(LostLayers) as caught:
            write(image, REFERENCE, target, Store(store.root))
        assert frozenset({lost, broken}) == caught.value.digests
        assert f"the store has no intact {', '.join(map(str, sorted([lost, broken])))}: " in caught.value.message
        assert not target.exists()


def test_a_failure_leaves_the_older_archive(store: Store, tmp_path: Path) -> None:
    """A layer that is not as long as its descriptor says, for one; no half-written file stays."""
    path = tmp_path / "out" / "a.tar"
    write_archive(an_image(store), REFERENCE, path, store)
    before = path.read_bytes()
    layer = a_layer(store, "x", data("x", b""))
    wrong = Layer("x", "x", "x", Descriptor(layer.descriptor.media_type, layer.descriptor.digest, 7), layer.diff_id)
    with pytest.raises(BuildError):
        write_archive(an_image(store, wrong), REFERENCE, path, store)
    assert {"a.tar": before} == files(path.parent)


def test_where_nothing_can_be_written(store: Store, tmp_path: Path) -> None:
    """A folder in the place of the archive, a file in the place of a folder."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    hint = "choose another place"
    image = an_image(store)
    folder, below = tmp_path / "folder", tmp_path / "file" / "a"
    expected: list[tuple[Callable[[], object], str]] = [
        (partial(write_archive, image, REFERENCE, folder, store), f"{folder} cannot be written: Is a directory"),
        (partial(write_archive, image, REFERENCE, below, store), f"{below} cannot be written: File exists"),
        (partial(write_layout, image, REFERENCE, below, store), f"{below} cannot be written: File exists"),
        (
            partial(write_layout, image, REFERENCE, below.parent, store),
            f"{below.parent} cannot be written: Not a directory",
        ),
        (partial(write_text, folder, "x"), f"{folder} cannot be written: Is a directory"),
    ]
    for action, message in expected:
        with pytest.raises(BuildError) as caught:
            action()
        assert (message, hint) == (caught.value.message, caught.value.hint)
    assert [] == list((tmp_path / "folder").iterdir())


def test_what_a_killed_process_left_is_written_over(store: Store, tmp_path: Path) -> None:
    """Its temporary file has the one name that the next writer takes, too."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".a.tar.partial").write_bytes(b"left" * 100_000)
    write_archive(an_image(store), REFERENCE, tmp_path / "out" / "a.tar", store)
    validate(tmp_path / "out" / "a.tar")
    assert ["a.tar"] == list(files(tmp_path / "out"))


def test_writers_of_one_archive_wait_for_each_other(tmp_path: Path) -> None:
    """Several builds into one place: it is whole at every moment, and nothing is left beside it."""
    script = """
import sys
from pathlib import Path
from pesto_repro.store import Store
from tests.test_sinks import an_image, write_archive
root = Path(sys.argv[1])
store = Store(root / "store")
sys.stdin.readline()
for number in range(15):
    write_archive(an_image(store), f"hello:{sys.argv[2]}.{number}", root / "out" / "a.tar", store)
"""
    environment = {"PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(each)], stdin=subprocess.PIPE, env=environment
        )
        for each in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    assert [0, 0, 0] == [process.returncode for process in processes]
    assert ["a.tar"] == list(files(tmp_path / "out"))
    validate(tmp_path / "out" / "a.tar")


def test_a_small_text(tmp_path: Path) -> None:
    """In place of the older one, in folders that are made for it."""
    path = tmp_path / "a" / "b.txt"
    write_text(path, "é\n")
    write_text(path, "new\n")
    assert {"b.txt": b"new\n"} == files(path.parent)


# -- layouts -----------------------------------------------------------------------------------------------------


def test_a_layout(store: Store, tmp_path: Path) -> None:
    """The same files as in the archive but for what only ``docker load`` needs."""
    image = an_image(store)
    assert write_layout(image, REFERENCE, tmp_path / "a" / "layout", store)
    write_archive(image, REFERENCE, tmp_path / "a.tar", store)
    expected = members(tmp_path / "a.tar")
    del expected["manifest.json"]
    assert expected == files(tmp_path / "a" / "layout")
    validate(tmp_path / "a" / "layout")


def test_a_layout_takes_the_place_of_an_older_one(store: Store, tmp_path: Path) -> None:
    """Nothing of the older image stays, nor what a killed process left."""
    folder = tmp_path / "layout"
    write_layout(an_image(store), REFERENCE, folder, store)
    (folder / "blobs" / "sha256" / ".x.partial").write_bytes(b"left")
    image = an_image(store, a_layer(store, "x", data("x", b"")))
    write_layout(image, REFERENCE, folder, store)
    write_layout(image, REFERENCE, tmp_path / "fresh", store)
    assert files(tmp_path / "fresh") == files(folder)
    validate(folder)


def test_a_folder_that_is_no_layout_is_not_touched(store: Store, tmp_path: Path) -> None:
    """Somebody's own folder; an empty one will do."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("x")
    with pytest.raises(BuildError) as caught:
        write_layout(an_image(store), REFERENCE, tmp_path / "mine", store)
    assert f"{tmp_path}/mine is not empty and is no OCI layout" == caught.value.message
    assert "name another folder after -o oci:" == caught.value.hint
    assert {"precious": b"x"} == files(tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    write_layout(an_image(store), REFERENCE, tmp_path / "empty", store)
    validate(tmp_path / "empty")


def test_several_platforms_are_one_entry(store: Store, tmp_path: Path) -> None:
    """index.json names the image's own index; layers that are the same are there once."""
    image = an_image(store, platforms=("linux/amd64", "linux/arm64"))
    write_archive(image, REFERENCE, tmp_path / "a.tar", store)
    found = members(tmp_path / "a.tar")
    (entry,) = json.loads(found["index.json"])["manifests"]
    assert ("application/vnd.oci.image.index.v1+json", str(image.digest)) == (entry["mediaType"], entry["digest"])
    index = json.loads(found[f"blobs/sha256/{image.digest.hex}"])
    assert [{"architecture": "amd64", "os": "linux"}, {"architecture": "arm64", "os": "linux"}] == [
        each["platform"] for each in index["manifests"]
    ]
    assert 1 + 2 * 2 + 3 == sum(name.startswith("blobs/") for name in found)
    validate(tmp_path / "a.tar")
    assert an_image(store).digest == an_image(store, platforms=("linux/amd64",)).digest


# -- the validator -----------------------------------------------------------------------------------------------


def violations(path: Path) -> list[str]:
    """What the validator finds."""
    with pytest.raises(ImageError) as caught:
        validate(path)
    assert "\n  ".join(["the image is not valid:", *caught.value.violations]) == caught.value.message
    return list(caught.value.violations)


@pytest.fixture
def layout(store: Store, tmp_path: Path) -> Path:
    """A valid one, to be broken."""
    write_layout(an_image(store), REFERENCE, tmp_path / "layout", store)
    return tmp_path / "layout"


def blob(layout: Path, digest: object) -> Path:
    return layout / "blobs" / str(digest).replace(":", "/")


def manifest(layout: Path) -> dict[str, Any]:
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    found: dict[str, Any] = json.loads(blob(layout, entry["digest"]).read_bytes())
    return found


def put(layout: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Keep *document*; its descriptor without type."""
    content = canonical_json(document)
    blob(layout, Digest.of(content)).write_bytes(content)
    return {"digest": str(Digest.of(content)), "size": len(content)}


def replace_manifest(layout: Path, document: dict[str, Any]) -> str:
    """Make *document* the image's manifest; its digest."""
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"][0] |= put(layout, document)
    (layout / "index.json").write_bytes(canonical_json(index))
    return str(index["manifests"][0]["digest"])


def replace_config(layout: Path, **changed: Any) -> str:
    """Change the config; the manifest's digest."""
    found = manifest(layout)
    config = json.loads(blob(layout, found["config"]["digest"]).read_bytes())
    found["config"] |= put(layout, config | changed)
    return replace_manifest(layout, found)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_flipped_byte_in_a_layer(layout: Path, number: int) -> None:
    """Both digests are named, and the layer is not looked into."""
    digest = manifest(layout)["layers"][number]["digest"]
    path = blob(layout, digest)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (where,) = {each["digest"] for each in json.loads((layout / "index.json").read_bytes())["manifests"]}
    assert [f"blobs/{where.replace(':', '/')}: {digest} has the digest {Digest.of(bytes(content))}"] == violations(
        layout
    )


def test_a_flipped_byte_in_a_document(layout: Path) -> None:
    """The config, then the manifest."""
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    for where, digest in (
        (f"blobs/{entry['digest'].replace(':', '/')}", manifest(layout)["config"]["digest"]),
        ("index.json", entry["digest"]),
    ):
        path = blob(layout, digest)
        content = path.read_bytes()[:-1] + b" "
        path.write_bytes(content)
        assert [f"{where}: {digest} has the digest {Digest.of(content)}"] == violations(layout)


def test_a_wrong_size(layout: Path) -> None:
    """Of a layer, as its descriptor says."""
    found = manifest(layout)
    layer = found["layers"][0]
    right, layer["size"] = layer["size"], 7
    where = replace_manifest(layout, found).replace(":", "/")
    assert [f"blobs/{where}: {layer['digest']} has {right} bytes, not 7"] == violations(layout)


@pytest.mark.parametrize("what", ["layer", "config", "manifest"])
def test_a_missing_blob(layout: Path, what: str) -> None:
    """Of any kind."""
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    found = manifest(layout)
    where = "index.json" if what == "manifest" else f"blobs/{entry['digest'].replace(':', '/')}"
    digest = {"layer": found["layers"][1], "config": found["config"], "manifest": entry}[what]["digest"]
    blob(layout, digest).unlink()
    assert [f"{where}: {digest} is missing"] == violations(layout)


def test_a_wrong_diff_id(layout: Path) -> None:
    """The config says another tar than is in the layer; or fewer of them."""
    found = manifest(layout)
    rootfs = json.loads(blob(layout, found["config"]["digest"]).read_bytes())["rootfs"]
    first, *others = rootfs["diff_ids"]
    wrong = str(Digest.of(b"wrong"))
    replace_config(layout, rootfs=rootfs | {"diff_ids": [wrong, *others]})
    layer = found["layers"][0]["digest"]
    assert [f"{layer}: the tar has the digest {first}, the config says {wrong}"] == violations(layout)
    where = replace_config(layout, rootfs=rootfs | {"diff_ids": [first]}).replace(":", "/")
    assert [f"blobs/{where}: 3 layers, 1 diff_ids, 3 history entries"] == violations(layout)


def test_documents_that_say_something_else(layout: Path) -> None:
    """No layout, several entries, other types, no JSON, nothing there: each is told, none is a traceback."""
    original = (layout / "index.json").read_bytes()
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "2"}')
    assert ["oci-layout: imageLayoutVersion must be 1.0.0"] == violations(layout)
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    index = json.loads(original)
    (layout / "index.json").write_bytes(canonical_json(index | {"manifests": index["manifests"] * 2}))
    assert ["index.json: exactly one entry expected, found 2"] == violations(layout)
    (layout / "index.json").write_bytes(canonical_json({"manifests": [index["manifests"][0] | {"mediaType": "x"}]}))
    assert ["index.json: x is neither a manifest nor an index"] == violations(layout)
    (layout / "index.json").write_bytes(canonical_json({"manifests": [{}]}))
    assert ["a document is not what the image-spec says: KeyError: 'digest'"] == violations(layout)
    (layout / "index.json").write_bytes(b"nonsense")
    assert [
        "a document is not what the image-spec says: JSONDecodeError: Expecting value: line 1 column 1 (char 0)"
    ] == violations(layout)
    (layout / "index.json").unlink()
    assert [f"{layout}/index.json is missing"] == violations(layout)


def test_what_is_no_image_at_all(tmp_path: Path) -> None:
    """An empty folder, no file, a file of something else, an archive without the files."""
    assert [f"{tmp_path}/oci-layout is missing"] == violations(tmp_path)
    assert [f"{tmp_path}/x cannot be read: [Errno 2] No such file or directory: '{tmp_path}/x'"] == violations(
        tmp_path / "x"
    )
    (tmp_path / "x").write_text("text" * 200)
    assert [f"{tmp_path}/x cannot be read: invalid header"] == violations(tmp_path / "x")
    sink = io.BytesIO()
    write_tar(arrange([data("oci-layout/x", b"")]), sink)
    (tmp_path / "x").write_bytes(sink.getvalue())
    assert ["oci-layout is missing"] == violations(tmp_path / "x")


def test_a_platform_that_the_config_does_not_confirm(store: Store, tmp_path: Path) -> None:
    """An engine would choose by the index and run by the config."""
    image = an_image(store, platforms=("linux/amd64", "linux/arm64"))
    folder = tmp_path / "layout"
    write_layout(image, REFERENCE, folder, store)
    index = json.loads(blob(folder, image.digest).read_bytes())
    index["manifests"][1]["platform"]["architecture"] = "riscv64"
    replace_manifest(folder, index)
    assert ["the index: {'architecture': 'riscv64', 'os': 'linux'} is not what the config says"] == violations(folder)


def a_tar(*infos: tarfile.TarInfo) -> bytes:
    """A tar that our own writer would refuse to write."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for each in infos:
            archive.addfile(each, io.BytesIO(bytes(each.size)))
    return stream.getvalue()


def info(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", **more: Any) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.mtime = kind, target, MTIME
    for key, value in more.items():
        setattr(found, key, value)
    return found


@pytest.mark.parametrize(
    ("infos", "told"),
    [
        ([info("b"), info("a")], ["a is out of order or there twice"]),
        ([info("a"), info("a")], ["a is out of order or there twice"]),
        ([info("../x")], ["'../x' is not a path below the root", "../x stands before its directory"]),
        ([info("/etc")], ["'/etc' is not a path below the root", "/etc stands before its directory"]),
        (
            [info("d", tarfile.DIRTYPE), info("d/./x")],
            ["'d/./x' is not a path below the root", "d/./x stands before its directory"],
        ),
        ([info("d/x")], ["d/x stands before its directory"]),
        ([info("d", tarfile.SYMTYPE, "e"), info("d/x")], ["d/x stands before its directory"]),
        ([info("x", tarfile.CHRTYPE)], ["x is of the type b'3'"]),
        ([info("x", tarfile.FIFOTYPE)], ["x is of the type b'6'"]),
        ([info("x", tarfile.LNKTYPE, "y"), info("y")], ["x is a hard link to y, which is no file before it"]),
        ([info("x", uname="me")], ["x names its owner"]),
    ],
)
def test_a_layer_that_engines_should_not_take(
    store: Store, tmp_path: Path, infos: list[tarfile.TarInfo], told: list[str]
) -> None:
    """Each rule of the canonical tar, broken."""
    layer = stored(store, "bad", a_tar(*infos))
    good = a_layer(store, "good", data("good", b""))
    write_archive(an_image(store, good, layer, layer), REFERENCE, tmp_path / "a.tar", store)
    assert [f"{layer.descriptor.digest}: {each}" for each in told] == violations(tmp_path / "a.tar")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_layer_that_cannot_be_unpacked(store: Store, tmp_path: Path, compression: str) -> None:
    """Its digest is right, and yet it is no stream of its type."""
    digest = store.put(b"not compressed")
    layer = Layer("x", "x", "x", Descriptor(MEDIA_TYPES[compression], digest, 14), digest)
    write_archive(an_image(store, layer), REFERENCE, tmp_path / "a.tar", store)
    (told,) = violations(tmp_path / "a.tar")
    assert told.startswith(f"{digest}: not a {compression} stream: ")


def test_a_layer_of_an_unknown_type(store: Store, tmp_path: Path) -> None:
    """It is named."""
    layer = Layer("x", "x", "x", Descriptor("text/plain", store.put(b"x"), 1), Digest.of(b"x"))
    write_archive(an_image(store, layer), REFERENCE, tmp_path / "a.tar", store)
    assert [f"{layer.descriptor.digest}: text/plain is not a layer"] == violations(tmp_path / "a.tar")


def test_all_violations_are_told(layout: Path) -> None:
    """Not only the first."""
    first, _, last = manifest(layout)["layers"]
    for each in (first, last):
        blob(layout, each["digest"]).unlink()
    assert [first["digest"], last["digest"]] == [each.split(": ")[1].split()[0] for each in violations(layout)]
