"""The template project on base images of a real registry, put there by skopeo: locked, built, pushed, run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli

from pesto_repro.store import Store
from pesto_repro.validate import validate
from tests import upstream
from tests.base_images import TORCH, archive, debian, look_alike, made, push, without_base
from tests.e2e import add_settings, build, lock, run
from tests.engine import Container, call, loaded, named_for_itself, running
from tests.judges import judge
from tests.registries import LiveRegistry
from tests.registry_proxy import Request

pytestmark = [pytest.mark.network, pytest.mark.judge, pytest.mark.slow]


@dataclass(frozen=True, slots=True)
class Bases:
    """Archives of base images made of Debian packages: one whose config says little, one as official as can be."""

    plain: Path
    official: Path
    both: Path
    """The plain one for amd64, and one that only looks like it for arm64."""


@pytest.fixture(scope="session")
def bases(runtime_wheel: Path, warm_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Bases:
    folder, store = tmp_path_factory.mktemp("bases"), Store(warm_store)
    project = add_settings(upstream.render(runtime_wheel, folder / "project"), '[base]\ndebian = "bookworm"\n')
    lock(project, store=warm_store)
    build(project, store=warm_store, output=folder / "image.tar")
    plain = debian(project, store)
    arm64 = made(store, look_alike("aarch64"), platform="linux/arm64/v8")
    return Bases(
        archive(folder / "plain.tar", store, plain),
        archive(folder / "official.tar", store, debian(project, store, official=True)),
        archive(folder / "both.tar", store, plain, arm64),
    )


@pytest.fixture
def own_store(warm_store: Path, bases: Bases, tmp_path: Path) -> Path:
    """A store that has every download but no base, and knows nothing of any."""
    store = tmp_path / "own-store"
    shutil.copytree(warm_store / "blobs", store / "blobs", copy_function=lambda a, b: Path(b).hardlink_to(a))
    for path in (bases.plain, bases.official, bases.both):
        names = call("tar", "-tf", path).split()
        for name in names:
            (store / name).unlink(missing_ok=True) if name.startswith("blobs/sha256/") and name[-1] != "/" else None
    return store


def layers_read(requests: Iterable[Request], project: Path) -> list[str]:
    """The base's layers that were read, by digest, each as often as it was."""
    (locked,) = project.glob("lockfiles/*.lock.toml")
    layers = {
        each["digest"]
        for platform in tomli.loads(locked.read_text())["platforms"]
        for each in platform["base"]["layers"]
    }
    digests = [each.path.rpartition("/")[2] for each in requests if each.method == "GET" and "/blobs/" in each.path]
    return [each for each in digests if each in layers]


_ASK = """
import time, urllib.request
for _ in range(100):
    try:
        print(urllib.request.urlopen("http://127.0.0.1:8080/api/v1/health", timeout=5).read().decode())
        break
    except OSError:
        time.sleep(0.2)
"""


def healthy(container: Container) -> str:
    """What the service of *container* says when it is asked how it is."""
    return container.execute("/opt/venv/bin/python", "-c", _ASK).strip()


def platforms(project: Path) -> list[dict[str, Any]]:
    (path,) = project.glob("lockfiles/*.lock.toml")
    found: list[dict[str, Any]] = tomli.loads(path.read_text())["platforms"]
    return found


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
def test_the_template_runs_on_a_base_of_a_registry(
    docker: bool, bases: Bases, template_project: Path, own_store: Path, plain_registry: LiveRegistry, tmp_path: Path
) -> None:
    """Each layer is read once to lock, once more to write an archive; of one dialect, valid, and it runs."""
    name = push(bases.plain, plain_registry, "python:3.11-slim", docker=docker)
    project = without_base(template_project, name)
    lock(project, store=own_store)
    (locked,) = platforms(project)
    read = layers_read(plain_registry.requests(), project)
    assert sorted(each["digest"] for each in locked["base"]["layers"]) == sorted(read)
    assert {
        "executable": "/usr/bin/python3.11",
        "version": "3.11.2",
        "libc": "glibc 2.36",
        "prefix": "/usr",
        "abi": "cp311",
    } == (locked["python"])
    assert docker == locked["base"]["media-type"].startswith("application/vnd.docker")
    plain_registry.forget()
    assert not lock(project, store=own_store)["changed"]
    assert ["HEAD /v2/python/manifests/3.11-slim 200"] == list(map(str, plain_registry.requests()))
    plain_registry.forget()
    image = tmp_path / "image.tar"
    build(named_for_itself(project), store=own_store, output=image)
    assert sorted(read) == sorted(layers_read(plain_registry.requests(), project))
    validate(image)
    types = {each["mediaType"] for each in _manifest(image)["layers"]}
    assert {"application/vnd.oci.image.layer.v1.tar+gzip"} == types
    with loaded(image) as loaded_name, running(loaded_name) as container:
        assert "OK" == healthy(container)


def test_an_official_base_is_not_read(
    bases: Bases, template_project: Path, own_store: Path, plain_registry: LiveRegistry
) -> None:
    """Its config says enough to lock: no layer is asked for."""
    project = without_base(template_project, push(bases.official, plain_registry, "python:3.11-slim"))
    lock(project, store=own_store)
    assert [] == layers_read(plain_registry.requests(), project)
    assert "/usr/local/bin/python3.11" == platforms(project)[0]["python"]["executable"]


def test_pushing_beside_the_base_mounts_it(
    bases: Bases, template_project: Path, own_store: Path, plain_registry: LiveRegistry, tmp_path: Path
) -> None:
    """The base's layers are neither downloaded nor sent; what was pushed is what an archive has."""
    project = without_base(template_project, push(bases.official, plain_registry, "library/python:3.11-slim"))
    lock(project, store=own_store)
    plain_registry.forget()
    target = f"{plain_registry.host}/team/service:1"
    done = json.loads(run("build", project, "--push", target, "--json", "--store", own_store).stdout)
    requests = plain_registry.requests()
    base = {each["digest"] for each in platforms(project)[0]["base"]["layers"]}
    assert [] == layers_read(requests, project)
    mounts = [each for each in requests if each.method == "POST" and "from=library%2Fpython" in each.path]
    assert (len(base), {201}) == (len(mounts), {each.status for each in mounts})
    written = build(project, store=own_store, output=tmp_path / "image.tar")
    assert done["digest"] == written["digest"]
    where = f"docker://{target}"
    inspected = json.loads(call(judge("skopeo"), "inspect", "--tls-verify=false", where))
    assert done["digest"] == inspected["Digest"]


def test_several_platforms(
    bases: Bases, template_project: Path, own_store: Path, plain_registry: LiveRegistry, tmp_path: Path
) -> None:
    """An index in Docker's words: each platform has its own base, and the image is valid for both."""
    name = push(bases.both, plain_registry, "python:3.11-slim", docker=True)
    settings = '[image]\nplatforms = ["linux/amd64", "linux/arm64"]\n'
    project = without_base(template_project, name, settings)
    lock(project, store=own_store)
    amd64, arm64 = platforms(project)
    assert amd64["base"]["index"] == arm64["base"]["index"]
    assert amd64["base"]["manifest"] != arm64["base"]["manifest"]
    image = tmp_path / "image.tar"
    build(project, store=own_store, output=image)
    validate(image)


def test_packages_of_the_base_are_imported(
    bases: Bases, template_project: Path, own_store: Path, tmp_path: Path
) -> None:
    """On a layout beside the project: the base's torch is there, and no wheel of it; the service runs."""
    call(judge("skopeo"), "copy", "-q", f"oci-archive:{bases.plain}", f"oci:{template_project}/base:1")
    settings = '[python]\nsystem-packages = true\nrequires = ["torch>=2"]\n'
    project = without_base(template_project, "oci:base", settings)
    lock(project, store=own_store)
    assert "torch" not in {each["name"] for each in platforms(project)[0]["packages"]}
    image = tmp_path / "image.tar"
    build(named_for_itself(project), store=own_store, output=image)
    validate(image)
    with loaded(image) as name, running(name) as container:
        assert "OK" == healthy(container)
        shown = container.execute("python", "-c", "import torch, numpy; print(torch.__version__, numpy.__file__)")
    assert f"{TORCH} /opt/venv/lib/python3.11/site-packages/numpy/__init__.py" == shown.strip()


def test_a_base_that_needs_a_password(
    bases: Bases, template_project: Path, own_store: Path, htpasswd_registry: LiveRegistry, tmp_path: Path
) -> None:
    """It comes from where podman keeps it, and is in no lock."""
    auth = htpasswd_registry.auth_file(tmp_path / "auth.json")
    name = f"{htpasswd_registry.host}/team/python:3.11-slim"
    command = ["copy", "-q", "--dest-tls-verify=false", "--authfile", str(auth), f"oci-archive:{bases.official}"]
    call(judge("skopeo"), *command, f"docker://{name}")
    project = without_base(template_project, name)
    failed = run("lock", project, "--store", own_store, env={"REGISTRY_AUTH_FILE": str(tmp_path / "none")}, check=False)
    host = htpasswd_registry.host
    assert f"error: {host} wants to know who you are\nhint: pesto-repro login {host}\n" == failed.stderr
    lock(project, store=own_store, env={"REGISTRY_AUTH_FILE": str(auth)})
    (locked,) = project.glob("lockfiles/*")
    assert "c4n4ry" not in locked.read_text()


def test_a_moved_tag(bases: Bases, template_project: Path, own_store: Path, plain_registry: LiveRegistry) -> None:
    """It is said; nothing changes until -U."""
    name = push(bases.official, plain_registry, "python:3.11-slim")
    project = without_base(template_project, name)
    lock(project, store=own_store)
    before = platforms(project)
    push(bases.plain, plain_registry, "python:3.11-slim")
    told = run("lock", project, "--store", own_store).stderr
    assert f"warning: {name} has moved: locked is {before[0]['base']['manifest']}, it is sha256:" in told
    assert before == platforms(project)
    lock(project, "-U", store=own_store)
    assert "/usr/bin/python3.11" == platforms(project)[0]["python"]["executable"]


def test_names_that_are_not_there(template_project: Path, own_store: Path, plain_registry: LiveRegistry) -> None:
    """One error that names the image."""
    project = without_base(template_project, f"{plain_registry.host}/nobody/nothing:1")
    failed = run("lock", project, "--store", own_store, check=False)
    assert (1, True) == (failed.returncode, f"{plain_registry.host}/nobody/nothing" in failed.stderr)
    assert "Traceback" not in failed.stderr


def _manifest(image: Path) -> dict[str, Any]:
    index = json.loads(call("tar", "-xOf", image, "index.json"))
    digest = index["manifests"][0]["digest"].removeprefix("sha256:")
    found: dict[str, Any] = json.loads(call("tar", "-xOf", image, f"blobs/sha256/{digest}"))
    return found
