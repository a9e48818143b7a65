"""Lock + project files -> the steps of one platform's image, from the base up, and its recipe.

The order is that of PESTO's build: base, Debian packages, Python packages, runtime, algorithm, configuration,
resources. As keys do not depend on the order, nothing is lost by it.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pesto_repro.digest import Digest, digest_of_value
from pesto_repro.lock import text as lock_text
from pesto_repro.lock.model import BaseImage, DebianPackage, Interpreter, Lock, PlatformLock, PythonPackage, Resource
from pesto_repro.oci import Platform, Recipe
from pesto_repro.plan.grouping import group
from pesto_repro.plan.root import LINKS
from pesto_repro.plan.step import Pinned, Step
from pesto_repro.project import Project
from pesto_repro.project.requirements import ResourceSpec, expand

VENV = "opt/venv"
RUNTIME = "processing-factory"
PORT = 8080
LOCK_PLACE = "etc/pesto/lock.toml"
LOCK_LABEL = "org.pesto-repro.lock"
"""The label, or annotation, that says by which lock something was made."""
LOCK_TYPE = "application/vnd.pesto-repro.lock.v1+toml"
"""The media type of a lock."""
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HEALTH = f"""\
import ssl, urllib.request
def ask(scheme):
    context = ssl._create_unverified_context() if scheme == "https" else None
    urllib.request.urlopen(scheme + "://127.0.0.1:{PORT}/api/v1/health", timeout=5, context=context)
try:
    ask("http")
except OSError:
    ask("https")
"""


@dataclass(frozen=True, slots=True, order=True)
class TreeFile:
    """One of the project's own files: *path* within its tree; a symlink has *target* and no bytes.

    A *path* that ends in "/" is that of an empty directory.
    """

    path: str
    sha256: str = ""
    size: int = 0
    executable: bool = False
    target: str | None = None

    def value(self) -> list[Any]:
        """What decides the layer's bytes."""
        return [self.path, self.sha256, self.size, self.executable, self.target]


Tree = tuple[TreeFile, ...]
Links = Mapping[str, str]
"""Directories that are links in the base, and where they lead."""


def tree_digest(tree: Tree) -> Digest:
    """The digest of a directory: of its list of (path, sha256, size, executable, target).

    An empty directory is in it as (path with a slash at its end, "", 0, false, null).
    """
    return digest_of_value([each.value() for each in sorted(tree)])


@dataclass(frozen=True, slots=True)
class Plan:
    """What makes the image of one platform: *steps*, on *base* if it stands on an image.

    *uses* says which Python packages of the base are used instead of being installed ("torch 2.9.0").
    """

    platform: Platform
    steps: tuple[Step, ...]
    recipe: Recipe
    base: BaseImage | None = None
    uses: tuple[str, ...] = ()


def make_plan(lock: Lock, locked: PlatformLock, project: Project, files: Tree, folders: Mapping[str, Tree]) -> Plan:
    """The plan for the platform of *locked*; *files* are the algorithm's, *folders* those of directory resources."""
    root = f"opt/{lock.input.name}"
    base = locked.base
    links = base.links if base is not None else LINKS if locked.debian else {}
    specs = {each.key: each for each in project.resources}
    resources = [(each, specs[each.key]) for each in lock.resources if specs[each.key].type != "pip"]
    steps = [
        *_debian(lock, locked),
        *_python(lock, locked),
        _tree(f"algorithm {lock.input.name}", "algorithm", root, files, links),
        _documents(project, locked, root, links),
        *(_resource(each, spec, folders.get(each.key, ()), links) for each, spec in resources),
        *_embedded(lock, links),
    ]
    brought = base.packages if base is not None and lock.input.system_packages else ()
    uses = tuple(f"{each.name} {each.version}" for each in brought)
    return Plan(Platform.parse(locked.platform), tuple(steps), _recipe(lock, locked, project), base, uses)


def _debian(lock: Lock, locked: PlatformLock) -> Iterator[Step]:
    if locked.debian:
        yield from debs_steps(locked.debian, lock.input.max_layers)
        yield system_step(locked.debian, locked.platform)


def debs_steps(packages: Iterable[DebianPackage], max_layers: int) -> Iterator[Step]:
    """The files of Debian *packages*, grouped as in an image of at most *max_layers*."""
    pinned = _debs(packages)
    sizes = [(name, each.size or 0) for name, each in pinned.items()]
    for names in group(sizes, max(1, max_layers // 4)):
        yield Step("debs", ", ".join(names), "debian", {}, tuple(pinned[name] for name in names))


def system_step(packages: Iterable[DebianPackage], platform: str) -> Step:
    """What installing all of *packages* would have made."""
    pinned = _debs(packages)
    architecture = Platform.parse(platform).architecture
    everything = tuple(pinned[name] for name in sorted(pinned))
    return Step("debian-system", "system files", "debian", {"architecture": architecture}, everything)


def _debs(packages: Iterable[DebianPackage]) -> dict[str, Pinned]:
    return {each.name: Pinned(posixpath.basename(each.filename), each.digest, each.size) for each in packages}


def _python(lock: Lock, locked: PlatformLock) -> Iterator[Step]:
    python = locked.python
    yield venv_step(python, system_packages=lock.input.system_packages)
    wheels = {each.name: each for each in locked.packages}
    sizes = [(name, each.wheel.size) for name, each in wheels.items() if name != RUNTIME]
    limit = lock.input.max_layers
    for names in group(sizes, max(1, limit - limit // 4 - 2 if locked.debian else limit - 2)):
        yield wheels_step(python.minor, "python", [wheels[name] for name in names])
    if RUNTIME in wheels:
        yield wheels_step(python.minor, "runtime", [wheels[RUNTIME]])


def venv_step(python: Interpreter, *, system_packages: bool = False) -> Step:
    """The skeleton of a virtual environment of *python*, with or without the packages that the base brings."""
    skeleton: dict[str, Any] = {"prefix": VENV, "executable": python.executable, "version": python.version}
    if system_packages:
        skeleton["system-packages"] = True
    return Step("venv", f"virtual environment of Python {python.minor}", "python", skeleton)


def wheels_step(minor: str, section: str, packages: Iterable[PythonPackage]) -> Step:
    """The files that installing *packages* into the virtual environment leaves."""
    packages = tuple(packages)
    params = {
        "prefix": VENV,
        "site": f"{VENV}/lib/python{minor}/site-packages",
        "python": f"/{VENV}/bin/python",
    }
    inputs = tuple(Pinned(each.wheel.name, each.wheel.digest, each.wheel.size) for each in packages)
    return Step("wheels", ", ".join(f"{each.name} {each.version}" for each in packages), section, params, inputs)


def _tree(name: str, section: str, root: str, tree: Tree, links: Links) -> Step:
    """A directory's contents at *root*. Equal files are one input."""
    inputs = {each.sha256: Pinned(each.path, Digest(each.sha256), each.size) for each in tree if each.sha256}
    params = {"root": root, "files": [each.value() for each in sorted(tree)], "links": links}
    ordered = tuple(Pinned("", inputs[key].digest, inputs[key].size) for key in sorted(inputs))
    return Step("tree", name, section, params, ordered)


def _documents(project: Project, locked: PlatformLock, root: str, links: Links) -> Step:
    """The resolved documents at /etc/pesto, and again below the algorithm where upstream keeps them."""
    runtime = next(each for each in locked.packages if each.name == RUNTIME)
    texts = {name: json.dumps(value, indent=4, sort_keys=True) for name, value in project.documents.items()}
    params = {"root": root, "documents": texts, "runtime": f"{runtime.name} {runtime.version}", "links": links}
    wheel = Pinned(runtime.wheel.name, runtime.wheel.digest, runtime.wheel.size)
    return Step("documents", "configuration", "configuration", params, (wheel,))


def _resource(resource: Resource, spec: ResourceSpec, folder: Tree, links: Links) -> Step:
    to = in_root(resource.to)
    if resource.form == "directory":
        return _tree(resource.key, "resources", to, folder, links)
    if resource.form == "file" and resource.to.endswith("/"):
        to = posixpath.join(to, spec.filename)
    assert resource.sha256 is not None
    pinned = Pinned(spec.filename, Digest(resource.sha256), resource.size)
    return Step(resource.form, resource.key, "resources", {"to": to, "links": links}, (pinned,))


def _embedded(lock: Lock, links: Links) -> Iterator[Step]:
    """The lock itself, if it is to travel in the image: a layer of its own, as it changes with every pin."""
    if lock.input.embed_lock:
        yield Step("lock", f"/{LOCK_PLACE}", "lock", {"text": lock_text.dumps(lock), "links": links})


def in_root(path: str) -> str:
    """An absolute path of the image as a layer names it; makers follow the base's links, for what lies below it too."""
    return posixpath.normpath(path).strip("/")


def _recipe(lock: Lock, locked: PlatformLock, project: Project) -> Recipe:
    return Recipe(
        platform=Platform.parse(locked.platform),
        created=lock.assembly.epoch,
        user=lock.input.user,
        env=tuple(f"{key}={value}" for key, value in _environment(lock, locked, project).items()),
        cmd=("processing",),
        ports=(f"{PORT}/tcp",),
        labels=_labels(lock, project),
        healthcheck=(f"/{VENV}/bin/python", "-c", _HEALTH),
    )


def _environment(lock: Lock, locked: PlatformLock, project: Project) -> dict[str, str]:
    """As the ENV lines of PESTO's build, in their order; PYTHONPATH extends what the base and the project have."""
    theirs = dict(each.partition("=")[::2] for each in locked.base.env) if locked.base is not None else {}
    path = f"/{VENV}/bin:{theirs.get('PATH') or DEFAULT_PATH}"
    base = {"PATH": path, "LANG": "C.UTF-8"} | theirs | {"PATH": path}
    found = base | expand({"PESTO_PROFILE": "-".join(lock.input.profiles), **project.environments}, base)
    modules = [each.to.rstrip("/") for each in project.resources if each.type == "python" and each.to]
    path = ":".join([f"/opt/{lock.input.name}", *modules])
    return found | expand({"PYTHONPATH": "$PYTHONPATH${PYTHONPATH:+:}" + path}, found)


def _labels(lock: Lock, project: Project) -> dict[str, str]:
    description = project.documents["description"]
    return {
        "org.opencontainers.image.title": str(description["title"]),
        "org.opencontainers.image.version": str(description["version"]),
        "org.opencontainers.image.description": str(description["description"]),
        LOCK_LABEL: lock.content_hash,
        **lock.input.labels,
    }
