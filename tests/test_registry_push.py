"""``push`` and ``build --push`` against real registries; skopeo and podman judge what arrived."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.build.entry import data
from pesto_repro.digest import Digest
from pesto_repro.oci import Image
from pesto_repro.sinks import write_archive, write_layout
from pesto_repro.store import Store
from tests.e2e import run
from tests.engine import call
from tests.images import make_image, make_layer, make_layers, noise, sparse_layer
from tests.judges import judge
from tests.registries import CANARY, USER, LiveRegistry
from tests.registry_proxy import Fault
from tests.small_project import Small, make_small

pytestmark = pytest.mark.judge

PEAK = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
print(usage.ru_maxrss, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Runs a command and says its peak memory, in kB, on stderr's last line."""
REGISTRIES = ["plain_registry", "htpasswd_registry", "tls_registry", "token_registry"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one."""
    return Store(tmp_path / "images")


@pytest.fixture
def archive(store: Store, tmp_path: Path) -> tuple[Image, Path]:
    """An image of one platform, and its archive."""
    return written(make_image(make_layers(store)), store, tmp_path)


@pytest.fixture(scope="session")
def built_small(runtime_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """The small project, built; not to be changed."""
    small = make_small(tmp_path_factory.mktemp("push"), runtime_wheel)
    small.build()
    return small


@pytest.fixture
def small(built_small: Small, tmp_path: Path) -> Small:
    """A copy of the small project, built."""
    shutil.copytree(built_small.root.parent, tmp_path / "small-project")
    return Small(*(tmp_path / "small-project" / name for name in ("small", "store", "wheels")))


def written(image: Image, store: Store, folder: Path) -> tuple[Image, Path]:
    path = folder / f"{image.digest.hex[:12]}.tar"
    write_archive(image, "hello:1.0", path, store)
    return image, path


def environment(registry: LiveRegistry, folder: Path) -> dict[str, str]:
    """What a user sets for *registry*; HOME is an empty folder."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    found = {"HOME": str(home), "REGISTRY_AUTH_FILE": str(home / "auth.json")}
    if registry.secured:
        registry.auth_file(home / "auth.json")
    if registry.authorities:
        found["PESTO_REPRO_REGISTRY_CA"] = str(registry.authorities)
    return found


def push(path: Path | str, *references: str, env: Mapping[str, str] | None = None, **how: Any) -> dict[str, Any]:
    """``push`` with ``--json``: what it printed."""
    found: dict[str, Any] = json.loads(run("push", path, *references, "--json", env=env, **how).stdout)
    return found


def refused(*arguments: str | Path, **how: Any) -> str:
    """The stderr of a command that must fail."""
    done = run(*arguments, check=False, **how)
    assert (1, "") == (done.returncode, done.stdout), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def verbs(registry: LiveRegistry) -> Counter[str]:
    """How many requests of each method the registry saw."""
    return Counter(each.method for each in registry.requests())


def skopeo(registry: LiveRegistry, name: str, folder: Path, *words: str) -> str:
    """``skopeo WORDS... docker://NAME``."""
    options = [f"--authfile={registry.auth_file(folder / 'skopeo.json')}"] if registry.secured else []
    return call(judge("skopeo"), *words, "--tls-verify=false", *options, f"docker://{name}")


@pytest.mark.parametrize("kind", REGISTRIES)
def test_each_kind_of_registry(kind: str, request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> None:
    """Several platforms: the digest is the archive's, skopeo reads it, and a second push sends nothing."""
    registry: LiveRegistry = request.getfixturevalue(kind)
    image, path = written(make_image(make_layers(store), "linux/amd64", "linux/arm64"), store, tmp_path)
    name, env = f"{registry.host}/team/hello:1.0", environment(registry, tmp_path)
    first = push(path, name, env=env)
    assert [name] == [each["reference"] for each in first["pushed"]]
    assert str(image.digest) == first["digest"] == first["pushed"][0]["digest"]
    assert 5 == len(first["pushed"][0]["uploaded"])
    assert image.index is not None
    assert image.index.decode() == skopeo(registry, name, tmp_path, "inspect", "--raw")
    registry.forget()
    again = push(path, name, env=env)["pushed"][0]
    assert (0, [], []) == (again["bytes"], again["uploaded"], again["mounted"])
    assert first["pushed"][0]["uploaded"] == again["existing"]
    assert len(registry.requests()) <= 6
    assert not {"POST", "PUT", "PATCH"} & set(verbs(registry))


def test_what_was_pushed_is_what_skopeo_copies_back(
    plain_registry: LiveRegistry, archive: tuple[Image, Path], tmp_path: Path
) -> None:
    """Manifest, config and layers, byte for byte."""
    image, path = archive
    name = f"{plain_registry.host}/hello:1.0"
    push(path, name)
    back = tmp_path / "back"
    call(
        judge("skopeo"),
        "copy",
        "-q",
        "--preserve-digests",
        "--src-tls-verify=false",
        f"docker://{name}",
        f"oci:{back}:x",
    )
    blobs = {each.name for each in (back / "blobs/sha256").iterdir()}
    wanted = {each.hex for each in (*image.documents(), *image.layers())}
    assert wanted == blobs
    assert all(Digest.of((back / "blobs/sha256" / each).read_bytes()).hex == each for each in blobs)


def test_podman_pulls_it(plain_registry: LiveRegistry, archive: tuple[Image, Path]) -> None:
    """Its digest is ours."""
    image, path = archive
    podman, name = judge("podman"), f"{plain_registry.host}/hello:1.0"
    push(path, name)
    try:
        call(podman, "pull", "--quiet", "--tls-verify=false", name)
        assert str(image.digest) == call(podman, "inspect", "--format", "{{.Digest}}", name).strip()
    finally:
        call(podman, "rmi", "--force", name, check=False)


def test_several_names(plain_registry: LiveRegistry, archive: tuple[Image, Path]) -> None:
    """Tags of one repository share a push; the other repository mounts; a digest needs no tag."""
    image, path = archive
    host = plain_registry.host
    names = [f"{host}/a/hello:1.0", f"{host}/a/hello:1", f"{host}/b/hello:1.0"]
    found = push(path, *names, f"{host}/c/hello@{image.digest}")["pushed"]
    assert [*names, f"{host}/c/hello"] == [each["reference"] for each in found]
    counts = [tuple(len(each[key]) for key in ("uploaded", "mounted", "existing")) for each in found]
    assert [(4, 0, 0), (0, 0, 4), (0, 4, 0), (0, 4, 0)] == counts
    assert 2 * len(image.platforms[0].manifest) < found[0]["bytes"]
    tags = json.loads(call(judge("skopeo"), "list-tags", "--tls-verify=false", f"docker://{host}/a/hello"))
    assert ["1", "1.0"] == sorted(tags["Tags"])
    by_digest = call(
        judge("skopeo"), "inspect", "--raw", "--tls-verify=false", f"docker://{host}/c/hello@{image.digest}"
    )
    assert image.platforms[0].manifest.decode() == by_digest


def test_a_layout_is_pushed_like_an_archive(plain_registry: LiveRegistry, store: Store, tmp_path: Path) -> None:
    """With ``oci:`` or without."""
    image = make_image(make_layers(store))
    write_layout(image, "hello:1.0", tmp_path / "layout", store)
    for number, source in enumerate((f"oci:{tmp_path}/layout", f"{tmp_path}/layout")):
        assert str(image.digest) == push(source, f"{plain_registry.host}/hello:{number}")["digest"]


def test_one_changed_layer(plain_registry: LiveRegistry, store: Store, tmp_path: Path) -> None:
    """What the registry receives is the layer, with its config and manifest: under 1.1 times the layer."""
    before = make_layers(store)
    push(written(make_image(before), store, tmp_path)[1], f"{plain_registry.host}/hello:1.0")
    changed = make_layer(store, "algorithm", data("opt/algorithm/process.py", noise(200_000, 9)))
    image, path = written(make_image((before[0], changed, before[2])), store, tmp_path)
    plain_registry.forget()
    found = push(path, f"{plain_registry.host}/hello:1.0")["pushed"][0]
    sent = sum(each.sent for each in plain_registry.requests())
    assert sent == found["bytes"] < 1.1 * changed.descriptor.size
    assert [str(image.platforms[0].config_descriptor.digest), str(changed.descriptor.digest)] == found["uploaded"]


def test_a_failed_push_goes_on_where_it_ended(
    plain_registry: LiveRegistry, archive: tuple[Image, Path], tmp_path: Path
) -> None:
    """The registry's disk fills up: one error, no tag; afterwards only what is missing is sent."""
    image, path = archive
    smallest = min(image.layers().values(), key=lambda layer: layer.descriptor.size).descriptor.digest
    plain_registry.spoil(Fault("PUT", str(smallest.hex), status=507, times=-1))
    name = f"{plain_registry.host}/hello:1.0"
    said = refused("push", path, name)
    message = f"error: {plain_registry.host}/hello: blob {smallest}: HTTP 507 Insufficient Storage\n"
    assert message == said
    there = plain_registry.blobs()
    assert str(image.digest) not in there
    plain_registry.spoil()
    found = push(path, name)["pushed"][0]
    assert {str(smallest)} <= set(found["uploaded"])
    assert there == set(found["existing"])


def test_a_refused_mount_is_said(plain_registry: LiveRegistry, archive: tuple[Image, Path]) -> None:
    """The registry would rather be sent the bytes (202): a line on stderr, the digests in the JSON."""
    _, path = archive
    plain_registry.spoil(Fault("POST", r"mount=", status=404, times=-1))
    names = [f"{plain_registry.host}/{team}/hello:1.0" for team in "ab"]
    done = run("push", path, *names, "--json")
    second = json.loads(done.stdout)["pushed"][1]
    assert 4 == len(second["refused_mounts"]) == len(second["uploaded"])
    assert [] == second["mounted"]
    for digest in second["refused_mounts"]:
        line = f"{plain_registry.host}/b/hello: {digest} could not be mounted from a/hello, so it is sent\n"
        assert line in done.stderr


@pytest.mark.slow
def test_memory_is_flat(plain_registry: LiveRegistry, store: Store, tmp_path: Path) -> None:
    """A layer of 2 GB, in under 80 MB."""
    layer = sparse_layer(store, tmp_path, 2_000_000_000)
    write_layout_of_links(make_image((layer,)), store, tmp_path / "layout")
    direct = f"{plain_registry.direct}/hello:1.0"
    python = (sys.executable, "-c", PEAK, sys.executable)
    done = run("push", f"oci:{tmp_path}/layout", direct, "-q", python=python)
    assert int(done.stderr.splitlines()[-1]) < 80_000
    assert {str(layer.descriptor.digest)} < plain_registry.blobs()


def write_layout_of_links(image: Image, store: Store, folder: Path) -> None:
    """The layout of *image* whose layers are links into the store, so that holes stay holes."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [image.descriptor.document()]}))
    for digest, content in image.documents().items():
        (blobs / digest.hex).write_bytes(content)
    for digest in image.layers():
        (blobs / digest.hex).symlink_to(store.path(digest))


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (
            "{archive}",
            "registry.example/team/hello",
            "error: registry.example/team/hello has no tag, and none is guessed\n"
            "hint: say which, as in registry.example/team/hello:1.0.0\n",
        ),
        (
            "{archive}",
            "registry.example/hello@sha256:" + "0" * 64,
            "error: registry.example/hello@sha256:" + "0" * 64 + " cannot be pushed: the image's digest is {digest}\n"
            "hint: name it by a tag, or by its own digest\n",
        ),
        (
            "absent.tar",
            "registry.example/hello:1",
            "error: absent.tar cannot be read: No such file or directory\n",
        ),
        (
            "oci:absent",
            "registry.example/hello:1",
            "error: absent cannot be read: No such file or directory\n",
        ),
        (
            "registry.example/hello:1",
            "registry.example/hello:2",
            "error: there is no archive or layout registry.example/hello:1\n"
            "hint: build it first; from one registry to another: pesto-repro copy\n",
        ),
        (
            "{tmp}/text.tar",
            "registry.example/hello:1",
            "error: {tmp}/text.tar is no uncompressed tar archive: truncated header\n"
            "hint: convert it: skopeo copy docker-archive:{tmp}/text.tar oci-archive:image.oci.tar\n",
        ),
        (
            "{tmp}/empty",
            "registry.example/hello:1",
            "error: {tmp}/empty is no OCI archive or layout: it has no index.json\n"
            "hint: convert it: skopeo copy docker-archive:{tmp}/empty oci-archive:image.oci.tar\n",
        ),
    ],
)
def test_what_cannot_be_pushed(
    source: str, target: str, message: str, archive: tuple[Image, Path], tmp_path: Path
) -> None:
    """One clear error each, before anyone is asked."""
    image, path = archive
    (tmp_path / "text.tar").write_text("not an archive")
    (tmp_path / "empty").mkdir()
    words = {"archive": path, "tmp": tmp_path, "digest": image.digest}
    said = refused("push", source.format(**words), target, cwd=tmp_path)
    assert message.format(**words) == said


def test_a_broken_archive_is_never_pushed(
    plain_registry: LiveRegistry, archive: tuple[Image, Path], tmp_path: Path
) -> None:
    """A byte of a layer is another one: an error, nothing tagged."""
    image, path = archive
    layer = image.platforms[0].layers[0].descriptor
    content = bytearray(path.read_bytes())
    content[content.index(f"blobs/sha256/{layer.digest.hex}\0".encode()) + 512 + 1000] ^= 1
    path.write_bytes(content)
    said = refused("push", path, f"{plain_registry.host}/hello:1.0")
    assert said.startswith(f"error: {path}: {layer.digest} is not intact: its digest is sha256:")
    assert said.endswith("\nhint: make or copy it again\n")
    assert {str(layer.digest), str(image.digest)}.isdisjoint(plain_registry.blobs())


def test_build_and_push(small: Small, plain_registry: LiveRegistry) -> None:
    """No archive is written; the digest is that of the build with one; the tag is the project's own."""
    before = small.build()
    small.output.unlink()
    name = f"{plain_registry.host}/team/small"
    options: list[str | Path] = [small.root, "--store", small.store, "--json", "--push"]
    done = run("build", *options, name, "--push", f"{name}:latest", env=small.env, cwd=small.root.parent)
    found = json.loads(done.stdout)
    assert (before["digest"], None) == (found["digest"], found["output"])
    tag = found["reference"].partition(":")[2]
    assert [f"{name}:{tag}", f"{name}:latest"] == [each["reference"] for each in found["pushed"]]
    assert {before["digest"]} == {each["digest"] for each in found["pushed"]}
    layers = [each["digest"] for each in found["platforms"][0]["layers"]]
    assert [found["platforms"][0]["config"], *layers] == found["pushed"][0]["uploaded"]
    assert [] == list(small.root.parent.rglob("*.tar"))
    assert {*layers, found["digest"]} < plain_registry.blobs()


def test_build_writes_and_pushes(small: Small, plain_registry: LiveRegistry) -> None:
    """With ``-o`` both; without ``--push`` nothing is pushed."""
    assert [] == small.build()["pushed"]
    found = small.build("--push", f"{plain_registry.host}/small:1")
    assert small.output.exists()
    assert (str(small.output), 1) == (found["output"], len(found["pushed"]))


def test_a_layer_lost_from_the_store_is_made_again(small: Small, plain_registry: LiveRegistry) -> None:
    """Two at once, one gone and one altered; the image stays the same."""
    before = small.build()
    lost, altered = (each["digest"].removeprefix("sha256:") for each in before["platforms"][0]["layers"][-2:])
    (small.store / "blobs/sha256" / lost).unlink()
    path = small.store / "blobs/sha256" / altered
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    options: list[str | Path] = [small.root, "--store", small.store, "--json", "--push"]
    found = json.loads(run("build", *options, f"{plain_registry.host}/small:1", env=small.env).stdout)
    assert before["digest"] == found["digest"] == found["pushed"][0]["digest"]


def test_pushing_offline_is_refused(small: Small) -> None:
    """A contradiction."""
    said = refused("build", small.root, "--offline", "--push", "registry.example/small", "--store", small.store)
    expected = "error: --push and --offline exclude each other\nhint: build offline, then run `pesto-repro push`\n"
    assert expected == said


def test_the_password_is_nowhere(token_registry: LiveRegistry, archive: tuple[Image, Path], tmp_path: Path) -> None:
    """Neither in what is printed at ``-vv``, nor in what an error says."""
    _, path = archive
    env = environment(token_registry, tmp_path)
    good = run("push", path, f"{token_registry.host}/hello:1", "-vv", env=env)
    (tmp_path / "home/auth.json").write_text('{"auths": {}}')
    bad = run("push", path, f"{token_registry.host}/hello:2", "-vv", env=env, check=False)
    assert 1 == bad.returncode
    said = good.stdout + good.stderr + bad.stdout + bad.stderr
    assert CANARY not in said
    assert f"{USER}:" not in said
