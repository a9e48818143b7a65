"""Base images for tests: real ones made of Debian packages, and small ones that only look like a Python's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pesto_repro.build.entry import Entry, data, symlink
from pesto_repro.build.realise import Workshop, realise
from pesto_repro.digest import Digest, canonical_json
from pesto_repro.lock import text as lock_text
from pesto_repro.oci import Descriptor, Image, Layer, MediaType, Platform, PlatformImage
from pesto_repro.plan.make import _debian
from pesto_repro.progress import Reporter
from pesto_repro.sinks import write_archive
from pesto_repro.store import Store
from tests.engine import call
from tests.images import make_layer
from tests.judges import judge
from tests.registries import LiveRegistry

PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
HISTORY = "# debian.sh --arch 'amd64' out/ 'bookworm' '@1750000000'"
"""The first line of the history of an official image: it says which Debian it is."""
TORCH = "2.9.0+cu128"


@dataclass(frozen=True, slots=True)
class Made:
    """One platform of a base image: *config* is that of its config document, *history* one line for each layer."""

    platform: Platform
    layers: tuple[Layer, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[str, ...] = ()

    def image(self) -> PlatformImage:
        """Its documents, as another tool might write them."""
        config: dict[str, Any] = {
            "created": "2025-06-01T01:02:03.123456789Z",
            **self.platform.document(),
            "config": dict(self.config),
            "rootfs": {"type": "layers", "diff_ids": [str(each.diff_id) for each in self.layers]},
        }
        if self.history:
            lines: list[dict[str, Any]] = [{"created_by": each} for each in self.history]
            config["history"] = [*lines, {"created_by": "ENV LANG=C.UTF-8", "empty_layer": True}]
        text = canonical_json(config)
        manifest = canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": MediaType.MANIFEST,
                "config": Descriptor.of(MediaType.CONFIG, text).document(),
                "layers": [each.descriptor.document() for each in self.layers],
            }
        )
        return PlatformImage(self.platform, self.layers, text, manifest)


def archive(path: Path, store: Store, *platforms: Made) -> Path:
    """The image of all *platforms* as an archive: an index if there are several."""
    images = tuple(each.image() for each in platforms)
    index = None
    if len(images) > 1:
        manifests = [each.descriptor.document() | {"platform": each.platform.document()} for each in images]
        index = json.dumps({"schemaVersion": 2, "mediaType": MediaType.INDEX, "manifests": manifests}, indent=1)
    write_archive(Image(images, index.encode() if index else None), "base:1", path, store)
    return path


def push(path: Path, registry: LiveRegistry, name: str, *, docker: bool = False) -> str:
    """Let skopeo put the archive at *path* into *registry*; its name there."""
    how = ["--format", "v2s2"] if docker else []
    target = f"{registry.host}/{name}"
    call(
        judge("skopeo"),
        "copy",
        "--all",
        "-q",
        "--dest-tls-verify=false",
        *how,
        f"oci-archive:{path}",
        f"docker://{target}",
    )
    registry.forget()
    return target


def look_alike(machine: str = "x86_64", *, minor: str = "3.11", version: str = "3.11.2") -> list[Entry]:
    """The few files by which a Debian's Python is known; none of it runs."""
    loader = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}[machine]
    python = b"\x7fELF" + loader.encode() + b"\0" + bytes(3000) + b"%.80s " + version.encode() + b"\0"
    banner = b"GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\n"
    return [
        data(f"usr/bin/python{minor}", python, executable=True),
        symlink("usr/bin/python3", f"python{minor}"),
        data(f"usr/lib/{machine}-linux-gnu/libc.so.6", banner),
        data(f"usr/lib/python{minor}/os.py", b""),
        *(symlink(name, f"usr/{name}") for name in ("bin", "lib", "lib64", "sbin")),
    ]


def package(folder: str, name: str, version: str) -> list[Entry]:
    """An installed package that says its version."""
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    return [
        data(f"{folder}/{name}/__init__.py", f'__version__ = "{version}"\n'.encode()),
        data(f"{folder}/{name}-{version}.dist-info/METADATA", text),
    ]


def made(
    store: Store, *layers: Sequence[Entry], platform: str = "linux/amd64", history: Iterable[str] = (), **config: Any
) -> Made:
    """A platform of a base whose layers have these entries."""
    finished = tuple(make_layer(store, f"base {number}", *each) for number, each in enumerate(layers))
    return Made(Platform.parse(platform), finished, {"Env": [f"PATH={PATH}"], **config}, tuple(history))


def debian(locked: Path, store: Store, *, official: bool = False) -> Made:
    """A base that runs: the Debian packages of the locked project at *locked*, and a package that nobody has.

    *official* lets its config say what those of the official Python images say.
    """
    lock = lock_text.loads(next(locked.glob("lockfiles/*.lock.toml")).read_text(), "the lock")
    (platform,) = lock.platforms
    steps = list(_debian(lock, platform))
    shop = Workshop(store, {}, partial(_fetched, store), "gzip", lock.assembly.compressor, Reporter(), 2)
    finished = realise(steps, shop)
    layers = [finished[step.key].layer for step in steps]
    folder = f"usr/local/lib/python{platform.python.minor}/dist-packages"
    extra = [*package(folder, "torch", TORCH), symlink("usr/local/bin/python3", platform.python.executable)]
    name = f"usr/local/bin/python{platform.python.minor}"
    layers.append(make_layer(store, "extra", *extra, symlink(name, platform.python.executable)))
    env = [f"PATH={PATH}", "LANG=C.UTF-8", "PYTHONPATH=/opt/base"]
    config: dict[str, Any] = {
        "Env": env,
        "Cmd": ["python3"],
        "Entrypoint": ["/never"],
        "Labels": {"base": "yes", "org.opencontainers.image.version": "base"},
        "ExposedPorts": {"9000/tcp": {}},
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv",
        "OnBuild": ["RUN false"],
    }
    history: tuple[str, ...] = ()
    if official:
        config["Env"] = [*env, f"PYTHON_VERSION={platform.python.version}"]
        suite = lock.input.base.removeprefix("debian:")
        history = (HISTORY.replace("bookworm", suite), *("RUN something" for _ in layers[1:]))
    return Made(Platform.parse(platform.platform), tuple(layers), config, history)


def _fetched(store: Store, digest: Digest) -> None:
    assert store.has(digest), f"{digest} should have been downloaded when the project was built"


def without_base(project: Path, image: str, settings: str = "") -> Path:
    """Let *project* stand on the base *image*, and forget its lock."""
    path = project / "pesto/build/requirements.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dockerBaseImage": image}))
    (project / "pesto/build/image.toml").write_text(settings)
    shutil.rmtree(project / "lockfiles", ignore_errors=True)
    return project
