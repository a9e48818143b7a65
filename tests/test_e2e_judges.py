"""Programs of others read our images: skopeo, umoci, podman, buildah, qemu, and the image-spec's JSON Schemas."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from pesto_repro.validate import validate
from tests import upstream
from tests.e2e import EXAMPLES, add_settings, example, lock_and_build
from tests.engine import call, loaded, named_for_itself
from tests.judges import judge

pytestmark = [pytest.mark.network, pytest.mark.judge, pytest.mark.slow]

PLATFORMS = {"linux/amd64": ("amd64", 62), "linux/arm64": ("arm64", 183)}
"""GOARCH, and e_machine of elf.h, by platform."""
SCHEMAS = {
    "application/vnd.oci.image.index.v1+json": "image-index-schema.json",
    "application/vnd.oci.image.manifest.v1+json": "image-manifest-schema.json",
    "application/vnd.oci.image.config.v1+json": "config-schema.json",
}


class Built:
    """An archive, what ``build --json`` said of it, and the layout that it is when untarred."""

    def __init__(self, archive: Path, made: dict[str, Any]) -> None:
        self.archive, self.made = archive, made
        self.layout = archive.with_suffix("")
        with tarfile.open(archive) as tar:
            tar.extractall(self.layout, filter="data")

    @property
    def architectures(self) -> list[str]:
        return [PLATFORMS[each["platform"]][0] for each in self.made["platforms"]]

    def document(self, name: str) -> Any:
        return json.loads((self.layout / name).read_bytes())

    def blob(self, digest: str) -> Path:
        return self.layout / "blobs" / digest.replace(":", "/")


@pytest.fixture(scope="module", params=["one platform", "two platforms"])
def built(
    request: pytest.FixtureRequest,
    runtime_wheel: Path,
    warm_store: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Built]:
    """Upstream's template project as an archive for one platform, and for two."""
    folder = tmp_path_factory.mktemp("judged")
    platforms = list(PLATFORMS)[: 1 if request.param == "one platform" else 2]
    settings = f'[base]\ndebian = "trixie"\n[image]\nplatforms = {json.dumps(platforms)}\n'
    project = named_for_itself(add_settings(upstream.render(runtime_wheel, folder), settings))
    made = lock_and_build(project, store=warm_store, output=folder / "image.tar")
    assert platforms == [each["platform"] for each in made["platforms"]]
    yield Built(folder / "image.tar", made)
    shutil.rmtree(folder)


def described(made: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Of each platform: its config's digest and its layers' diff_ids."""
    return [(each["config"], [layer["diff_id"] for layer in each["layers"]]) for each in made["platforms"]]


def test_our_own_validator_finds_nothing(built: Built) -> None:
    """Every digest, size, diff_id and tar entry is as it must be, in the archive and in the layout."""
    validate(built.archive)
    validate(built.layout)


def test_skopeo_reads_the_archive(built: Built) -> None:
    """It sees the digest that we told, each platform, and the layers in order."""
    skopeo = judge("skopeo")
    raw = call(skopeo, "inspect", "--raw", f"oci-archive:{built.archive}")
    assert built.made["digest"] == "sha256:" + hashlib.sha256(raw.encode()).hexdigest()
    for architecture, platform in zip(built.architectures, built.made["platforms"], strict=True):
        choose = ("--override-os", "linux", "--override-arch", architecture)
        seen = json.loads(call(skopeo, *choose, "inspect", f"oci-archive:{built.archive}"))
        assert ("linux", architecture) == (seen["Os"], seen["Architecture"])
        assert [layer["digest"] for layer in platform["layers"]] == seen["Layers"]


def test_skopeo_makes_docker_archives_of_it(built: Built, tmp_path: Path) -> None:
    """It decompresses every layer and verifies the diff_ids; the docker archive tells the same image."""
    skopeo = judge("skopeo")
    for architecture, (config, diff_ids) in zip(built.architectures, described(built.made), strict=True):
        target = tmp_path / f"{architecture}.tar"
        choose = ("--override-os", "linux", "--override-arch", architecture)
        call(skopeo, *choose, "copy", f"oci-archive:{built.archive}", f"docker-archive:{target}:copied:{architecture}")
        with tarfile.open(target) as archive:
            stream = archive.extractfile("manifest.json")
            assert stream is not None
            (entry,) = json.load(stream)
        assert f"{config.removeprefix('sha256:')}.json" == entry["Config"]
        assert [f"{each.removeprefix('sha256:')}.tar" for each in diff_ids] == entry["Layers"]
        target.unlink()


@pytest.mark.parametrize("built", ["one platform"], indirect=True)
def test_umoci_unpacks_an_archive_s_own_layout(built: Built, tmp_path: Path) -> None:
    """Untarred, an archive is the layout that umoci reads, under the image's reference."""
    umoci, reference = judge("umoci"), built.made["reference"]
    assert [reference] == call(umoci, "ls", "--layout", built.layout).split()
    call(umoci, "unpack", "--rootless", "--image", f"{built.layout}:{reference}", tmp_path / "bundle")
    root = tmp_path / "bundle/rootfs"
    assert (root / "opt/algo-service/algorithm/process.py").is_file()
    assert Path("/usr/bin/python3.13") == (root / "opt/venv/bin/python").readlink()
    assert (root / "usr/bin/python3.13").is_file()
    assert (root / "etc/ssl/certs/ca-certificates.crt").read_text().count("BEGIN CERTIFICATE") > 100
    shutil.rmtree(tmp_path / "bundle")


def test_podman_loads_it(built: Built) -> None:
    """Under its name, for this machine's platform, with the config that we told."""
    machine = call(judge("podman"), "info", "--format", "{{.Host.Arch}}").strip()
    with loaded(built.archive) as name:
        assert f"localhost/{built.made['reference']}" == name
        (seen,) = json.loads(call(judge("podman"), "image", "inspect", name))
    config, diff_ids = dict(zip(built.architectures, described(built.made), strict=True))[machine]
    assert config == f"sha256:{seen['Id']}"
    assert diff_ids == seen["RootFS"]["Layers"]
    assert "65532:65532" == seen["User"]
    assert ["processing"] == seen["Config"]["Cmd"]
    assert {"8080/tcp": {}} == seen["Config"]["ExposedPorts"]


def test_buildah_builds_from_it(built: Built) -> None:
    """A Dockerfile could start from it."""
    buildah, name = judge("buildah"), f"pesto-repro-e2e-{uuid.uuid4().hex[:12]}"
    try:
        call(buildah, "from", "--pull-never", "--name", name, f"oci-archive:{built.archive}")
        seen = json.loads(call(buildah, "inspect", name))
        mounted = Path(call(buildah, "mount", name).strip())
        assert (mounted / "etc/pesto/service.json").is_file()
    finally:
        call(buildah, "rm", name, check=False)
        call(buildah, "rmi", f"localhost/{built.made['reference']}", check=False)
    assert f"sha256:{seen['FromImageID']}" in [config for config, _ in described(built.made)]


def test_docker_s_manifest_tells_the_same_image(built: Built) -> None:
    """What `docker load` reads: one entry, of the first platform, whose files are the layout's blobs."""
    (entry,) = built.document("manifest.json")
    assert {"Config", "Layers", "RepoTags"} == set(entry)
    assert [built.made["reference"]] == entry["RepoTags"]
    first = built.made["platforms"][0]
    layers = [layer["digest"] for layer in first["layers"]]
    assert ["blobs/" + digest.replace(":", "/") for digest in layers] == entry["Layers"]
    assert "blobs/" + first["config"].replace(":", "/") == entry["Config"]
    # Docker looks for each file where the archive's own entries say, without following a reference.
    with tarfile.open(built.archive) as archive:
        files = {member.name for member in archive if member.isreg()}
    assert {entry["Config"], *entry["Layers"]} <= files


# -- the image-spec's own schemas --


def checker(name: str) -> jsonschema.protocols.Validator:
    """A validator for the image-spec's schema *name*; its references are files beside it."""
    folder = Path(judge("image-spec"))

    def resource(uri: str) -> Resource[Any]:
        return DRAFT4.create_resource(json.loads((folder / uri.rpartition("/")[2]).read_bytes()))

    registry: Registry[Any] = Registry(retrieve=resource)  # type: ignore[call-arg]
    return jsonschema.Draft4Validator(resource(name).contents, registry=registry)


def test_every_document_obeys_the_image_spec_s_schemas(built: Built) -> None:
    """The layout file, index.json, and every index, manifest and config below it."""
    checker("image-layout-schema.json").validate(built.document("oci-layout"))
    checker("image-index-schema.json").validate(built.document("index.json"))
    todo, seen = list(built.document("index.json")["manifests"]), []
    while todo:
        descriptor = todo.pop()
        document = json.loads(built.blob(descriptor["digest"]).read_bytes())
        checker(SCHEMAS[descriptor["mediaType"]]).validate(document)
        seen.append(descriptor["mediaType"])
        todo += document.get("manifests", [])
        todo += [document["config"]] if "config" in document and "layers" in document else []
    platforms = len(built.architectures)
    assert {"index": int(platforms > 1), "manifest": platforms, "config": platforms} == {
        kind: sum(f".{kind}." in each for each in seen) for kind in ("index", "manifest", "config")
    }


@pytest.mark.parametrize(
    ("name", "document", "message"),
    [
        ("image-layout-schema.json", {}, "'imageLayoutVersion' is a required property"),
        (
            "image-index-schema.json",
            {"schemaVersion": 2, "manifests": [{"mediaType": "a/b", "size": "1", "digest": "sha256:0"}]},
            "'1' is not of type 'integer'",
        ),
        ("image-manifest-schema.json", {"schemaVersion": 3}, "3 is greater than the maximum of 2"),
        (
            "config-schema.json",
            {"config": {"Env": [1]}},
            "1 is not of type 'string'",
        ),
    ],
)
def test_the_image_spec_s_schemas_can_refuse(name: str, document: Any, message: str) -> None:
    """What they accept means something: their references are followed."""
    messages = [error.message for error in checker(name).iter_errors(document)]
    assert message in messages


# -- other compressions --


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_others_read_every_compression(compression: str, warm_store: Path, tmp_path: Path) -> None:
    """skopeo and podman take layers that are not gzip: the diff_ids are those of gzip."""
    project = example("hello-service", tmp_path)
    gzip = lock_and_build(project, store=warm_store, output=tmp_path / "gzip.tar")
    settings = (EXAMPLES / "hello-service/pesto/build/image.toml").read_text()
    add_settings(project, settings + f'[layers]\ncompression = "{compression}"\n')
    archive = tmp_path / "image.tar"
    made = lock_and_build(named_for_itself(project), store=warm_store, output=archive)
    assert described(gzip)[0][1] == described(made)[0][1]
    assert gzip["digest"] != made["digest"]
    validate(archive)
    suffix = {"zstd": "tar+zstd", "none": "tar"}[compression]
    seen = json.loads(call(judge("skopeo"), "inspect", "--raw", f"oci-archive:{archive}"))
    assert {f"application/vnd.oci.image.layer.v1.{suffix}"} == {each["mediaType"] for each in seen["layers"]}
    # Not to a docker archive: Debian 12's skopeo has no zstd for those.
    raw = tmp_path / "raw"
    call(judge("skopeo"), "copy", "--dest-decompress", f"oci-archive:{archive}", f"dir:{raw}")
    assert {each.removeprefix("sha256:") for each in described(made)[0][1]} <= {each.name for each in raw.iterdir()}
    shutil.rmtree(raw)
    with loaded(archive) as name:
        (inspected,) = json.loads(call(judge("podman"), "image", "inspect", name))
    assert described(made)[0][1] == inspected["RootFS"]["Layers"]
    for path in tmp_path.glob("*.tar"):
        path.unlink()


# -- another architecture --


def test_each_platform_has_only_its_own_machine_code(built: Built, tmp_path: Path) -> None:
    """Every ELF file in every layer, as skopeo decompresses them, is for the platform."""
    for platform in built.made["platforms"]:
        architecture, machine = PLATFORMS[platform["platform"]]
        raw = tmp_path / architecture
        choose = ("--override-os", "linux", "--override-arch", architecture)
        call(judge("skopeo"), *choose, "copy", "--dest-decompress", f"oci-archive:{built.archive}", f"dir:{raw}")
        found: dict[str, int] = {}
        for layer in platform["layers"]:
            found |= machines(raw / layer["diff_id"].removeprefix("sha256:"))
        shutil.rmtree(raw)
        assert {"usr/bin/python3.13"} <= set(found)
        assert len(found) > 100
        assert {} == {path: each for path, each in found.items() if each != machine}


def machines(layer: Path) -> dict[str, int]:
    """e_machine of every ELF file in an uncompressed layer, by its path."""
    found = {}
    with tarfile.open(layer, "r:") as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isreg() else None
            head = stream.read(20) if stream else b""
            if head.startswith(b"\x7fELF"):
                # EI_DATA: 1 is little-endian.
                found[member.name] = struct.unpack("<H" if head[5] == 1 else ">H", head[18:20])[0]
    return found


INSIDE = """
import json, platform, ssl, sys
import numpy
from pesto.common.pesto import Pesto
authorities = ssl.create_default_context().get_ca_certs()
print(json.dumps([platform.machine(), sys.prefix, int(numpy.arange(5).sum()), len(authorities) > 100]))
"""


@pytest.mark.parametrize("built", ["two platforms"], indirect=True)
def test_the_other_platform_s_python_runs(built: Built, tmp_path: Path) -> None:
    """Under an emulator the image's Python finds its environment, numpy's machine code and the authorities.

    umoci takes a tag that names an index for ambiguous, so skopeo picks the platform for it.
    """
    layout, bundle = one_platform(built, "arm64", tmp_path), tmp_path / "bundle"
    call(judge("umoci"), "unpack", "--rootless", "--image", f"{layout}:one", bundle)
    listed = call("/sbin/ldconfig", "-p", "-C", bundle / "rootfs/etc/ld.so.cache")
    assert "libc.so.6 (libc6,AArch64) => /lib/aarch64-linux-gnu/libc.so.6" in listed
    assert ["aarch64", "/opt/venv", 10, True] == json.loads(emulated(bundle / "rootfs", INSIDE))
    shutil.rmtree(bundle)


def emulated(root: Path, code: str) -> str:
    """What the Python of the aarch64 file system *root* prints for *code*.

    Nobody can count on this machine's kernel to start foreign programs, so the emulator is named; it and the
    libraries that it needs itself come from here, at the paths that they have here.
    """
    emulator = judge("qemu-aarch64")
    libraries = Path("/usr/lib/x86_64-linux-gnu")
    loader = libraries / "ld-linux-x86-64.so.2"
    mounts: list[str | Path] = ["--bind", root, "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for path in (libraries, Path(emulator)):
        mounts += ["--ro-bind", path, path]
    jail = [judge("bwrap"), "--unshare-all", "--clearenv", "--uid", "65532", "--gid", "65532", *mounts]
    return call(*jail, loader, emulator, "/opt/venv/bin/python", "-c", code)


def one_platform(built: Built, architecture: str, parent: Path) -> Path:
    """A layout with the manifest for *architecture* alone, tagged ``one``, made by skopeo."""
    layout = parent / f"layout-{architecture}"
    choose = ("--override-os", "linux", "--override-arch", architecture)
    call(judge("skopeo"), *choose, "copy", f"oci-archive:{built.archive}", f"oci:{layout}:one")
    return layout
