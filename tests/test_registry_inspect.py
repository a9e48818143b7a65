"""``inspect``: the same of an archive, a layout and a registry, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pesto_repro.cli.console import human
from pesto_repro.digest import Digest, canonical_json
from pesto_repro.oci import Descriptor, MediaType
from pesto_repro.sinks import write_archive, write_layout
from pesto_repro.store import Store
from tests.e2e import run
from tests.images import CREATED, LOCK, make_image, make_layers
from tests.registries import LiveRegistry


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty one."""
    return Store(tmp_path / "images")


def inspect(place: str | Path) -> dict[str, Any]:
    """``inspect --json``: what it printed."""
    found: dict[str, Any] = json.loads(run("inspect", place, "--json").stdout)
    return found


def test_everything_is_said(store: Store, tmp_path: Path) -> None:
    """The whole JSON object of an image of two platforms."""
    image = make_image(make_layers(store), "linux/amd64", "linux/arm64")
    write_archive(image, "hello:1.0", tmp_path / "a.tar", store)
    layers = [
        {
            "digest": str(layer.descriptor.digest),
            "diff_id": str(layer.diff_id),
            "media_type": layer.descriptor.media_type,
            "size": layer.descriptor.size,
            "created_by": f"pesto-repro python: {layer.name}",
        }
        for layer in image.platforms[0].layers
    ]
    platforms = [
        {
            "platform": str(each.platform),
            "manifest": str(each.descriptor.digest),
            "config": str(each.config_descriptor.digest),
            "created": CREATED,
            "user": "65532:65532",
            "env": ["PATH=/opt/venv/bin:/usr/bin", "PESTO_PROFILE="],
            "entrypoint": [],
            "cmd": ["python", "-m", "pesto"],
            "labels": {"org.pesto-repro.lock": LOCK},
            "size": sum(layer.descriptor.size for layer in each.layers),
            "layers": layers,
        }
        for each in image.platforms
    ]
    expected = {
        "name": "hello:1.0",
        "digest": str(image.digest),
        "media_type": MediaType.INDEX,
        "lock": LOCK,
        "platforms": platforms,
    }
    assert expected == inspect(tmp_path / "a.tar")


@pytest.mark.judge
def test_wherever_it_lies(store: Store, tmp_path: Path, plain_registry: LiveRegistry) -> None:
    """Archive, layout and registry say the same but for the name; of a registry no layer is read."""
    image = make_image(make_layers(store), "linux/amd64", "linux/arm64")
    write_archive(image, "hello:1.0", tmp_path / "a.tar", store)
    write_layout(image, "hello:1.0", tmp_path / "a", store)
    name = f"{plain_registry.host}/hello:1.0"
    run("push", tmp_path / "a.tar", name)
    plain_registry.forget()
    expected = inspect(tmp_path / "a.tar")
    assert expected == inspect(f"oci:{tmp_path}/a") == inspect(tmp_path / "a")
    assert expected | {"name": name} == inspect(name)
    assert expected | {"name": f"{plain_registry.host}/hello@{image.digest}"} == inspect(
        f"{plain_registry.host}/hello@{image.digest}"
    )
    assert max(each.received for each in plain_registry.requests()) < 5000


def test_for_people(store: Store, tmp_path: Path) -> None:
    """The whole text."""
    image = make_image(make_layers(store))
    write_archive(image, "hello:1.0", tmp_path / "a.tar", store)
    only = image.platforms[0]
    described = [(each.name, each.descriptor.digest.hex[:12], each.descriptor.size) for each in only.layers]
    lines = [f"  layer     {digest}  {human(size):>9}  pesto-repro python: {name}" for name, digest, size in described]
    total = human(sum(size for _, _, size in described))
    expected = f"""\
hello:1.0@{image.digest}
lock      {LOCK}

linux/amd64, 3 layers, {total}
  manifest  {only.descriptor.digest}
  config    {only.config_descriptor.digest}
  created   {CREATED}
  user      65532:65532
  cmd       ["python", "-m", "pesto"]
  env       PATH=/opt/venv/bin:/usr/bin
  env       PESTO_PROFILE=
  label     org.pesto-repro.lock={LOCK}
"""
    assert [*expected.splitlines(), *lines] == run("inspect", tmp_path / "a.tar").stdout.splitlines()


def layout_with(folder: Path, config: object) -> Path:
    """A layout whose manifest has *config* and one layer; the folder."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(media_type: str, data: bytes) -> dict[str, Any]:
        (blobs / Digest.of(data).hex).write_bytes(data)
        return Descriptor.of(media_type, data).document()

    described = blob(MediaType.CONFIG, config if isinstance(config, bytes) else canonical_json(config))
    manifest = {"schemaVersion": 2, "config": described, "layers": [blob(MediaType.LAYER, b"layer")]}
    root = blob(MediaType.MANIFEST, canonical_json(manifest))
    (folder / "index.json").write_bytes(canonical_json({"schemaVersion": 2, "manifests": [root]}))
    return folder


@pytest.mark.parametrize("config", [{}, [], {"config": None, "rootfs": None, "history": None}])
def test_a_config_that_says_little(config: object, tmp_path: Path) -> None:
    """Artifacts have configs like this; what is not said is null or empty."""
    found = inspect(layout_with(tmp_path / "layout", config))
    platform = found["platforms"][0]
    assert (None, None) == (found["name"], found["lock"])
    assert (None, None, None, [], {}) == tuple(
        platform[key] for key in ("platform", "created", "user", "cmd", "labels")
    )
    assert [(None, None, 5)] == [(each["diff_id"], each["created_by"], each["size"]) for each in platform["layers"]]


def test_history_without_layers_is_left_out(tmp_path: Path) -> None:
    """config.md: "empty_layer" entries have none."""
    history = [{"created_by": "ENV a=b", "empty_layer": True}, {"created_by": "RUN x"}]
    config = {"os": "linux", "architecture": "arm64", "variant": "v8", "history": history}
    platform = inspect(layout_with(tmp_path / "layout", config))["platforms"][0]
    assert ("linux/arm64/v8", ["RUN x"]) == (platform["platform"], [each["created_by"] for each in platform["layers"]])


def test_a_config_that_is_none(tmp_path: Path) -> None:
    """One error."""
    done = run("inspect", layout_with(tmp_path / "layout", b"{"), check=False)
    expected = f"error: the config {Digest.of(b'{')} is no JSON document: "
    assert (1, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith(expected)


@pytest.mark.judge
def test_what_is_not_there(plain_registry: LiveRegistry) -> None:
    """One error that says what and where."""
    done = run("inspect", f"{plain_registry.host}/hello:1.0", check=False)
    expected = (
        f"error: {plain_registry.host}/hello: manifest 1.0: HTTP 404 Not Found (MANIFEST_UNKNOWN manifest unknown)\n"
    )
    assert (1, "", expected) == (done.returncode, done.stdout, done.stderr)
